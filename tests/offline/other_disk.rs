//! A folder whose disk is away: its mount point, with jobs of its own, is in its place.

use std::fs;
use std::process::Command;

use crate::common::run;
use crate::stage::{Stage, TASK, make_job, until};

/// What each command prints of it is a sentence, and nothing is concluded about the copies, which could not be read.
#[test]
fn commands_say_that_another_disk_is_in_the_folders_place() {
    let stage = Stage::new(false);
    let top = stage.workspace.top();
    let (disk, at) = (top.join("away"), top.join("slow"));
    make_job(&disk, TASK, "held");
    make_job(&at, TASK, "stale");
    run(Command::new("bindfs")
        .args(["-o", "nonempty"])
        .arg(&disk)
        .arg(&at));
    stage.workspace.with_folders(&[]);
    stage.workspace.attach("backup", &at);
    stage.workspace.tune("{settle: 0s, scan_interval: 100ms}");
    let mountpoint = stage.workspace.mountpoint("elsewhere");
    let mounted = stage.workspace.mount_archiving(&mountpoint, &[]);
    let known = stage.workspace.primary().join(".xpmfs/archive/known");
    let has = |name: &str| {
        let folders = fs::read_dir(&known).into_iter().flatten().flatten();
        let mut folders = folders.map(|folder| folder.path());
        folders.any(|folder| folder.join(name).exists())
    };
    until("the disk and its jobs are on record", || {
        has(".disk") && has(TASK)
    });
    until("the workspace's job is archived", || {
        disk.join("jobs").join(TASK).join("primary").exists()
    });
    mounted.unmount();
    run(Command::new("umount").arg("-l").arg(&at));

    let commands: &[&[&str]] = &[
        &["jobs", "verify", "my.module.train/held"],
        &["jobs", "verify", "--all"],
        &["jobs", "recover", "my.module.train/held"],
        &["jobs", "recover", "--all"],
        &["jobs", "archive", "--force", "my.module.train/primary"],
        &["jobs", "archive", "--all"],
        &["jobs", "release", "my.module.train/primary"],
        &["jobs", "where", "--all"],
        &["jobs", "list"],
        &["jobs", "delete", "my.module.train/primary"],
        &["jobs", "log", "my.module.train/held"],
        &["jobs", "path", "my.module.train/held"],
        &["trash", "list"],
        &["experiments", "list"],
        &["experiments", "recover", "--all"],
        &["orphans"],
        &["archive"],
        &["status"],
    ];
    let expect_sentences = |round: &str| {
        for command in commands {
            let (_, printed) = stage.xpmfs(&[command, &["-w", "test"][..]].concat());
            let raw = printed.contains("os error 124") || printed.contains("medium type");
            assert!(!raw, "{round}: {command:?}: {printed}");
        }
        let (right, printed) =
            stage.xpmfs(&["jobs", "verify", "-w", "test", "my.module.train/held"]);
        assert!(
            !right && printed.contains("another disk"),
            "{round}: {printed}"
        );
        assert!(
            printed.contains("1 could not be read"),
            "{round}: {printed}"
        );
        assert!(!printed.contains("--force"), "{round}: {printed}");
        let recover = ["jobs", "recover", "-w", "test", "my.module.train/held"];
        let (right, printed) = stage.xpmfs(&recover);
        let said = printed.contains("no folder that can be read now has it");
        assert!(!right && said, "{round}: {printed}");
        let (_, printed) = stage.xpmfs(&["status", "-w", "test"]);
        assert!(printed.contains("another disk"), "{round}: {printed}");
        assert!(!printed.contains("damaged"), "{round}: {printed}");
        let (right, printed) = stage.xpmfs(&["status", "--check", "-w", "test"]);
        let problem = format!("{} cannot be used: another disk", at.display());
        assert!(!right && printed.contains(&problem), "{round}: {printed}");
    };
    expect_sentences("not mounted");
    let mounted = stage.workspace.mount_archiving(&mountpoint, &[]);
    expect_sentences("mounted");
    make_job(&stage.workspace.primary(), TASK, "more");
    let (drained, printed) = stage.xpmfs(&["umount", "--drain", mountpoint.to_str().unwrap()]);
    assert!(!drained && printed.contains("another disk"), "{printed}");
    mounted.unmount();
}
