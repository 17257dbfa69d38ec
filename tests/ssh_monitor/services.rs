//! The services of a plan that runs there, and its job that goes on when a newer run does not have it.

use std::fs;
use std::os::unix::fs::symlink;

use serde_json::{Value, json};

use crate::common::plan::Plan;
use crate::stage::{Stage, quit, wait_for_connection};

/// A run that is newer than each other one.
const NEWEST: &str = "29990101_000000";

/// While the plan runs, the server knows nothing but that there is a service.
#[test]
fn a_service_shows_and_its_address_when_that_is_known() {
    let Some(stage) = Stage::new() else {
        return;
    };
    let Some(plan) = Plan::of(&stage.workspace) else {
        return;
    };
    let mut running = plan.start(&stage.workspace.primary(), &["1", "--service"]);
    running.wait_for_a_job();
    let terminal = stage.start(&[]);
    terminal.press("3");
    terminal.wait_for("1 service");
    terminal.wait_for("losses of all jobs");
    terminal.press("u");
    terminal.wait_for("the server knows no address of this service");
    running.open_gate();
    let ran = running.finish();
    quit(terminal);

    let terminal = stage.start(&[]);
    terminal.press("3");
    terminal.wait_for("http://127.0.0.1:6006/");
    terminal.wait_for(&ran.run);
    terminal.press("u");
    terminal.wait_for("sent to the terminal's clipboard: http://127.0.0.1:6006/");
    quit(terminal);
}

#[test]
fn a_stray_job_shows_and_is_killed() {
    let Some(stage) = Stage::new() else {
        return;
    };
    let Some(plan) = Plan::of(&stage.workspace) else {
        return;
    };
    let mut running = plan.start(&stage.workspace.primary(), &["1"]);
    running.wait_for_a_job();
    let terminal = stage.start(&[]);
    terminal.press("5");
    terminal.wait_for("no stray jobs");
    // As after the plan was changed and run again: the job of the first run goes on, and the second does not have it.
    let runs = stage.workspace.primary().join("experiments/demo");
    let newest = runs.join(NEWEST);
    fs::create_dir(&newest).unwrap();
    let status = fs::read(runs.join("current/status.json")).unwrap();
    let mut status: Value = serde_json::from_slice(&status).unwrap();
    status["run_id"] = json!(NEWEST);
    status["job_states"] = json!({});
    fs::write(newest.join("status.json"), status.to_string()).unwrap();
    fs::write(newest.join("jobs.jsonl"), "").unwrap();
    fs::remove_file(runs.join("current")).unwrap();
    symlink(NEWEST, runs.join("current")).unwrap();
    // From the disk, at once.
    terminal.press("r");
    terminal.wait_for("running     prepare/");
    // It shows again after the connection was lost.
    stage.cut(&terminal);
    terminal.press("r");
    wait_for_connection(&terminal);
    terminal.wait_for("running     prepare/");
    terminal.press("\x0b");
    terminal.wait_for("Kill ");
    terminal.wait_for("y does it");
    terminal.press("y");
    terminal.wait_for(": killed");
    terminal.wait_until("the job to be stray no more", |screen| {
        !screen.contains("running     prepare/")
    });
    drop(running);
    quit(terminal);
}
