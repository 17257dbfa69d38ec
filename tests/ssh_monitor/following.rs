//! A plan that runs there: its jobs, its logs, a job that is killed, one that is deleted, a connection that is cut.

use std::fs;
use std::io::Write;

use crate::common::plan::Plan;
use crate::common::{eventually, write_job};
use crate::stage::{Stage, quit, wait_for_connection};

#[test]
fn a_plan_is_followed_to_its_end_and_a_job_of_it_is_deleted() {
    let Some(stage) = Stage::new() else {
        return;
    };
    let Some(plan) = Plan::of(&stage.workspace) else {
        return;
    };
    let mut running = plan.start(&stage.workspace.primary(), &["2"]);
    running.wait_for_a_job();
    let terminal = stage.start(&[]);
    terminal.wait_for("1 running");
    terminal.wait_for("running     prepare/");
    // A tag that is not JSON.
    terminal.wait_for("limit=Infinity");
    running.open_gate();
    terminal.wait_for("3 jobs · 3 done");
    let ran = running.finish();
    terminal.press("2");
    terminal.wait_for("1 experiment, 1 run");
    terminal.wait_until("the run to be done", |screen| {
        let mut lines = screen.lines();
        lines.any(|line| line.contains(&ran.run) && line.contains("done"))
    });
    terminal.press("\r");
    terminal.wait_for("run demo/");
    terminal.press("/train lr=0.1\r");
    terminal.wait_for("1 of 3");
    terminal.press("\r");
    terminal.wait_for("path:");
    terminal.press("\t");
    terminal.wait_for("the job has ended");
    terminal.press("s");
    terminal.wait_for("trained on 100 lines");
    terminal.press("\x1b");
    terminal.wait_for("1 of 3");
    // Ctrl+d; only then the key that is not pressed by habit.
    let job = ran.jobs.last().unwrap();
    let path = stage.workspace.primary().join(job.path());
    terminal.press("\x04");
    terminal.wait_for("this cannot be undone");
    terminal.press("y");
    assert!(path.exists());
    terminal.press("F");
    terminal.wait_for(": deleted");
    assert!(!path.exists());
    quit(terminal);
}

#[test]
fn a_log_follows_a_job_is_killed_and_the_connection_comes_back() {
    let Some(stage) = Stage::new() else {
        return;
    };
    let Some(plan) = Plan::of(&stage.workspace) else {
        return;
    };
    let mut running = plan.start(&stage.workspace.primary(), &["1"]);
    let job = running.wait_for_a_job();
    let terminal = stage.start(&[]);
    terminal.wait_for("running     prepare/");
    terminal.press("/prepare\r");
    terminal.wait_for("1 of 2");
    terminal.press("l");
    terminal.wait_for("following (f stops)");
    let log = stage.workspace.primary().join(job.file("err"));
    let mut log = fs::File::options().append(true).open(log).unwrap();
    writeln!(log, "a line that was written later").unwrap();
    terminal.wait_for("a line that was written later");

    stage.cut(&terminal);
    wait_for_connection(&terminal);
    writeln!(log, "a line after that").unwrap();
    terminal.wait_for("a line after that");

    terminal.press("\x0b");
    terminal.wait_for("y does it");
    terminal.press("n");
    terminal.wait_until("the question to close", |screen| {
        !screen.contains("y does it")
    });
    terminal.press("\x0b");
    terminal.wait_for("y does it");
    terminal.press("y");
    terminal.wait_for(": killed");
    terminal.press("\x1b");
    terminal.wait_for("killed      prepare/");
    drop(running);

    // What changes while there is no connection shows with the next one.
    write_job(
        &stage.workspace.primary().join("jobs/my.module.test/0rphan"),
        "my.module.test",
    );
    terminal.press("c4");
    terminal.wait_for("test/0rphan");
    quit(terminal);
    eventually("the server there to end", || {
        let servers = std::process::Command::new("pgrep")
            .args([
                "-f",
                &format!("{} monitor-server", stage.workspace.primary().display()),
            ])
            .output()
            .unwrap();
        servers.stdout.is_empty()
    });
}
