//! A mount and its archiving beneath, a daemon that dies, a folder that hangs, a log that grows.

use std::fs;
use std::io::Write;
use std::time::{Duration, Instant};

use crate::common::daemon::kill_both;
use crate::common::hanging_fs::HangingFs;
use crate::common::{Workspace, write_job};
use crate::stage::{
    RUNNING, SINGLE, TEST, TRAIN, path, rename_for_mount, start, start_with, workspace,
    workspace_with,
};

/// A key shows its effect within this time, also on a busy machine.
const PROMPT: Duration = Duration::from_secs(3);

#[test]
fn a_mount_that_archives_shows_and_its_end_too() {
    let workspace = workspace_with(&["backup"]);
    rename_for_mount(&workspace);
    let terminal = start(&workspace, 24, 100);
    terminal.wait_for("primary ONLY");
    let mountpoint = workspace.mountpoint("elsewhere");
    let mounted = workspace.mount_archiving(&mountpoint, &[]);
    // The job is archived, and the dashboard finds that by itself.
    terminal.wait_for("1 FINISHED JOB HAS NO SECOND COPY");
    assert!(path(&workspace, "backup", TRAIN, SINGLE).exists());
    terminal.press("3");
    terminal.wait_for("mounted at ");
    terminal.wait_for("all finished jobs are archived");
    terminal.wait_for(" since the start");
    // A new job comes up, too.
    write_job(&path(&workspace, "primary", TRAIN, "h8"), TRAIN);
    terminal.press("1/h8\r");
    terminal.wait_for("train/h8");
    terminal.wait_for("primary + backup");

    let status = workspace
        .xpmfs()
        .args(["--json", "status"])
        .arg(&mountpoint)
        .output()
        .unwrap();
    let status: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
    let mount = &status["mounts"][0];
    kill_both(i32::try_from(mount["pid"].as_i64().unwrap()).unwrap());
    terminal.press("\x1b2");
    terminal.wait_for("dead");
    terminal.wait_for("2 Folders!");
    drop(mounted);
    // Dead mounts of other tests may have the same name.
    let own = workspace.top().file_name().unwrap().to_owned();
    let own = format!("{}/elsewhere", own.to_str().unwrap());
    terminal.wait_until("the mount to be gone", |screen| !screen.contains(&own));
}

#[test]
fn a_folder_that_hangs_keeps_no_key_waiting() {
    let workspace = workspace();
    let hangs = workspace.top().join("hangs");
    let folder = HangingFs::mount(&workspace.folder("move"), &hangs);
    workspace.with_folders(&["backup"]);
    workspace.attach("backup", &hangs);
    workspace.tune("{folder_timeout: 1s}");
    let mut terminal = start_with(&workspace, 24, 100, |_| {});
    terminal.wait_for("primary ONLY");
    folder.hang();
    terminal.press("r");
    terminal.wait_for("! cannot list");
    for (key, text) in [
        ("1", "second copy"),
        ("n", "without a second copy"),
        ("c", "AGE"),
        ("?", "keys: Jobs"),
        ("\x1b", "AGE"),
        ("3", "not mounted"),
        ("1", "AGE"),
    ] {
        let begun = Instant::now();
        terminal.press(key);
        terminal.wait_for(text);
        assert!(begun.elapsed() < PROMPT, "{key:?}: {:?}", begun.elapsed());
    }
    // It is not claimed of a job that it has no second copy: the folder may have one.
    terminal.wait_for("primary + ?");
    terminal.press("\r");
    terminal.wait_for("does not answer");
    terminal.press("\x1bq");
    std::thread::sleep(Duration::from_millis(100));
    terminal.press("q");
    assert!(terminal.end().success());
    assert!(terminal.becomes_restored());
}

#[test]
fn a_workspace_that_hangs_can_be_left() {
    let workspace = Workspace::new();
    let disk = workspace.folder("use");
    fs::create_dir_all(disk.join("jobs")).unwrap();
    let at = workspace.top().join("hangs");
    let hanging = HangingFs::mount(&disk, &at);
    hanging.hang();
    let mut terminal = start_with(&workspace, 24, 80, |command| {
        command.arg("--workdir").arg(&at);
    });
    terminal.wait_for("reading the jobs...");
    terminal.press("2");
    terminal.wait_for("reading the folders...");
    terminal.press("q");
    assert!(terminal.end().success());
    assert!(terminal.becomes_restored());
    hanging.go_on();
}

#[test]
fn a_log_is_followed_and_read_back() {
    let workspace = workspace();
    let log = path(&workspace, "primary", TEST, RUNNING).join("test.err");
    let terminal = start(&workspace, 24, 80);
    terminal.press("/f6\rl");
    terminal.wait_for("second line");
    terminal.wait_for("following (f stops)");
    let mut file = fs::File::options().append(true).open(&log).unwrap();
    writeln!(file, "third line\r50 %\r100 %").unwrap();
    terminal.wait_for("100 %");
    assert!(!terminal.screen().contains("50 %"));
    // More than is kept in memory.
    for number in 0..30_000 {
        writeln!(file, "line {number} of a log that is longer than a screen").unwrap();
    }
    terminal.wait_for("line 29999 ");
    terminal.press("g");
    terminal.wait_for("first line");
    terminal.press("j");
    terminal.wait_until("the first line to be gone", |screen| {
        !screen.contains("first line")
    });
    terminal.press("G");
    terminal.wait_for("line 29999 ");
    // Back through all of it, page by page.
    let deadline = Instant::now() + Duration::from_secs(60);
    while !terminal.screen().contains("first line") && Instant::now() < deadline {
        terminal.press("\x1b[5~");
        std::thread::sleep(Duration::from_millis(2));
    }
    terminal.wait_for("first line");
    terminal.press("s");
    terminal.wait_for("step 2");
}
