//! Commands, and archiving to other folders, while a folder hangs that nothing has detected yet.

use std::path::Path;

use crate::stage::{Stage, TASK, make_job, until};

const HELD: &str = "my.module.train/held";

/// Commands that look at the jobs of a workspace; whether each succeeds without the folder is not the point.
const COMMANDS: [&[&str]; 8] = [
    &["status", "-w", "test"],
    &["jobs", "where", "-w", "test", HELD],
    &["jobs", "where", "-w", "test", "my.module.train/primary"],
    &["jobs", "archive", "-w", "test", "--all"],
    &["jobs", "recover", "-w", "test", HELD],
    &["jobs", "pin", "-w", "test", "my.module.train/prim"],
    &["experiments", "list", "-w", "test"],
    &["settings", "check"],
];

fn expect_commands_end(holds: fn(&str, &Path) -> bool) {
    let stage = Stage::new(false);
    stage.folder.hold(holds);
    let waits: Vec<_> = COMMANDS
        .iter()
        .filter(|command| !stage.ends(command))
        .collect();
    stage.folder.go_on();
    assert!(waits.is_empty(), "these wait for the folder: {waits:?}");
}

#[test]
fn commands_end_while_a_folder_answers_nothing() {
    expect_commands_end(|_, _| true);
}

#[test]
fn commands_end_while_one_task_of_a_folder_hangs() {
    expect_commands_end(|_, path| path.starts_with("jobs/my.module.train"));
}

#[test]
fn jobs_are_archived_while_another_folder_hangs() {
    let stage = Stage::new(false);
    let mountpoint = stage.workspace.mountpoint("elsewhere");
    let mounted = stage.workspace.mount_archiving(&mountpoint, &[]);
    let backup = stage.workspace.folder("backup").join("jobs").join(TASK);
    until("the first job is archived", || {
        backup.join("primary/train.done").exists()
    });
    stage
        .folder
        .hold(|_, path| path.starts_with("jobs/my.module.train"));
    for number in 0..8 {
        make_job(&stage.workspace.primary(), TASK, &format!("new-{number}"));
    }
    let many = "mkdir jobs/my.module.train/made; touch jobs/my.module.train/made/train.done";
    stage.start(&mountpoint, many, "").succeed();
    until("all jobs are archived", || {
        let has = |name: &str| backup.join(name).join("train.done").exists();
        has("made") && (0..8).all(|number| has(&format!("new-{number}")))
    });
    stage.folder.go_on();
    mounted.unmount();
}
