//! What a folder had is known while it is away: its jobs fail with `EIO`, and are neither absent nor made anew.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::common::run;
use crate::stage::{Stage, TASK, make_job, until};

/// Waits until the jobs of the folder that can hang are on record.
fn recorded(stage: &Stage) {
    let known = stage.workspace.primary().join(".xpmfs/archive/known");
    let has = |task: &str| {
        let folders = fs::read_dir(&known).into_iter().flatten().flatten();
        folders
            .map(|folder| folder.path().join(task))
            .any(|record| {
                let record = fs::read(record).unwrap_or_default();
                record.windows(5).any(|window| window == b"held\0")
            })
    };
    until("the jobs are on record", || {
        [TASK, "my.module.test", "only.held"].into_iter().all(has)
    });
}

/// The job `held` fails, is listed, and is not made; others are used and made as ever.
fn expect_missed(stage: &Stage, at: &Path, round: &str) {
    let sh = |script: &str| stage.start(at, script, round).end();
    let (made, printed) = sh("mkdir jobs/my.module.train/held");
    assert!(!made && printed.contains("Input/output error"), "{printed}");
    let (found, printed) = sh("cat jobs/my.module.train/held/model.bin");
    assert!(
        !found && printed.contains("Input/output error"),
        "{printed}"
    );
    // Names show, so that nothing is taken for deleted; what is not known is an error.
    let (_, printed) = sh("ls jobs");
    assert!(printed.contains("only.held"), "{printed}");
    let (_, printed) = sh("ls jobs/my.module.train");
    for name in ["primary", "other", "held"] {
        assert_eq!(
            printed.lines().filter(|line| *line == name).count(),
            1,
            "{printed}"
        );
    }
    let (known, printed) = sh("ls -l jobs/my.module.train");
    assert!(
        !known && printed.contains("held': Input/output error"),
        "{printed}"
    );
    // No record has these.
    let script = "mkdir jobs/my.module.train/new-$2 jobs/only.held/new-$2; ls jobs/only.held";
    let (made, printed) = sh(script);
    assert!(made && printed.contains("held\n"), "{printed}");
    let (absent, printed) = sh("stat jobs/my.module.train/none");
    assert!(!absent && printed.contains("No such file"), "{printed}");
    assert!(
        !stage
            .workspace
            .primary()
            .join("jobs/my.module.train/held")
            .exists()
    );
}

fn jobs_of_a_folder_that_hangs(ordinary: bool) {
    let stage = Stage::new(ordinary);
    let mountpoint = stage.workspace.mountpoint("elsewhere");
    let mounted = stage.workspace.mount_with(&mountpoint, &[]);
    recorded(&stage);
    stage.folder.hang();
    until("the folder is offline", || {
        stage.state(&mountpoint) == "offline"
    });
    expect_missed(&stage, &mountpoint, "1");
    let log = stage.workspace.log();
    let reported = log.lines().filter(|line| {
        line.contains("my.module.train/held: only the folder") && line.contains("hangs has it")
    });
    assert_eq!(reported.count(), 1, "{log}");
    // The record is on disk: another mount has it, which never saw the folder.
    mounted.unmount();
    let mounted = stage.workspace.mount_with(&mountpoint, &[]);
    expect_missed(&stage, &mountpoint, "2");
    stage.folder.go_on();
    let read = format!("cat jobs/{TASK}/held/model.bin");
    until("the job is back", || {
        stage.start(&mountpoint, &read, "").end() == (true, "held".into())
    });
    stage.start(&mountpoint, "ls -l jobs/*", "").succeed();
    mounted.unmount();
}

#[test]
fn jobs_of_a_folder_that_hangs_are_not_absent() {
    jobs_of_a_folder_that_hangs(false);
}

#[test]
fn jobs_of_a_folder_that_hangs_are_not_absent_for_an_ordinary_user() {
    jobs_of_a_folder_that_hangs(true);
}

/// A program that copies the view and removes what is gone removes nothing.
#[test]
fn rsync_removes_nothing_while_a_folder_is_offline() {
    let stage = Stage::new(false);
    let mountpoint = stage.workspace.mountpoint("elsewhere");
    let mounted = stage.workspace.mount_with(&mountpoint, &[]);
    recorded(&stage);
    let copy = stage.workspace.top().join("copy");
    let rsync = "rsync -a --delete jobs/ \"$2\"/";
    stage
        .start(&mountpoint, rsync, copy.to_str().unwrap())
        .succeed();
    assert!(copy.join(TASK).join("held/model.bin").exists());
    stage.folder.hang();
    until("the folder is offline", || {
        stage.state(&mountpoint) == "offline"
    });
    let (success, printed) = stage
        .start(&mountpoint, rsync, copy.to_str().unwrap())
        .end();
    assert!(!success, "{printed}");
    for task in [TASK, "only.held"] {
        assert!(copy.join(task).join("held/model.bin").exists(), "{printed}");
    }
    stage.folder.go_on();
    mounted.unmount();
}

/// What a purge has left of a job that the folder has is not taken for the job.
#[test]
fn what_a_purge_left_of_a_job_in_a_folder_that_hangs_is_not_the_job() {
    let stage = Stage::new(false);
    let left = stage.workspace.primary().join("jobs/my.module.test/held");
    fs::create_dir_all(&left).unwrap();
    let mountpoint = stage.workspace.mountpoint("elsewhere");
    let mounted = stage.workspace.mount_with(&mountpoint, &[]);
    let read = "cat jobs/my.module.test/held/model.bin";
    until("the folder serves the job", || {
        stage.start(&mountpoint, read, "").end() == (true, "held".into())
    });
    let stamp = stage
        .workspace
        .primary()
        .join(".xpmfs/archive/stamps/my.module.test/held");
    until("that is on record", || {
        stage.start(&mountpoint, read, "").succeed();
        stamp.exists()
    });
    stage.folder.hang();
    until("the folder is offline", || {
        stage.state(&mountpoint) == "offline"
    });
    for script in [
        "ls jobs/my.module.test/held",
        "touch jobs/my.module.test/held/new",
    ] {
        let (success, printed) = stage.start(&mountpoint, script, "").end();
        assert!(
            !success && printed.contains("Input/output error"),
            "{printed}"
        );
    }
    stage
        .start(&mountpoint, "ls -l jobs/my.module.test/primary", "")
        .succeed();
    stage.folder.go_on();
    until("the folder serves the job again", || {
        stage.start(&mountpoint, read, "").end() == (true, "held".into())
    });
    mounted.unmount();
}

/// A job that was moved to a folder leads there by a symlink, which is not followed while the folder hangs.
#[test]
fn a_job_that_was_moved_to_a_folder_that_hangs_is_not_absent() {
    let stage = Stage::new(false);
    let link = stage.workspace.primary().join("jobs/only.held/held");
    fs::create_dir_all(link.parent().unwrap()).unwrap();
    std::os::unix::fs::symlink(stage.folder.at.join("jobs/only.held/held"), &link).unwrap();
    let mountpoint = stage.workspace.mountpoint("elsewhere");
    let mounted = stage.workspace.mount_with(&mountpoint, &[]);
    recorded(&stage);
    stage.folder.hang();
    let (found, printed) = stage
        .start(&mountpoint, "stat jobs/only.held/held/", "")
        .end();
    assert!(
        !found && printed.contains("Input/output error"),
        "{printed}"
    );
    stage
        .start(
            &mountpoint,
            "ls jobs/only.held; ls jobs/my.module.train",
            "",
        )
        .succeed();
    stage.folder.go_on();
    until("the job is back", || {
        stage
            .start(&mountpoint, "cat jobs/only.held/held/model.bin", "")
            .end()
            .0
    });
    mounted.unmount();
}

/// The mount point of a folder's disk has jobs of its own, from before.
#[test]
fn jobs_in_the_mount_point_of_a_disk_that_is_away_are_not_the_folders() {
    let stage = Stage::new(false);
    let (disk, at) = (
        stage.workspace.top().join("disk"),
        stage.workspace.top().join("slow"),
    );
    make_job(&at, TASK, "stale");
    let serve = || {
        run(Command::new("bindfs")
            .args(["-o", "nonempty"])
            .arg(&disk)
            .arg(&at));
    };
    let take_away = || {
        run(Command::new("umount").arg("-l").arg(&at));
    };
    serve();
    stage.workspace.with_folders(&[]);
    stage.workspace.attach("use", &at);
    stage
        .workspace
        .attach("backup", &stage.workspace.folder("backup"));
    stage.workspace.tune("{folder_timeout: 1s}");
    let mountpoint = stage.workspace.mountpoint("elsewhere");
    let mounted = stage.workspace.mount_with(&mountpoint, &[]);
    recorded(&stage);
    let known = stage.workspace.primary().join(".xpmfs/archive/known");
    let disk_record = || {
        let folders = fs::read_dir(&known).into_iter().flatten().flatten();
        let mut records = folders.map(|folder| folder.path());
        records.find(|folder| folder.join(".disk").exists() && folder.join("only.held").exists())
    };
    until("the disk is on record", || disk_record().is_some());
    take_away();
    until("it is noticed", || {
        stage.state(&mountpoint) == "another disk"
    });
    let (_, printed) = stage
        .start(&mountpoint, "ls jobs/my.module.train", "")
        .end();
    assert!(!printed.contains("stale"), "{printed}");
    expect_missed(&stage, &mountpoint, "1");
    // Also by a mount that is made while it is away.
    mounted.unmount();
    let mounted = stage.workspace.mount_with(&mountpoint, &[]);
    assert_eq!(stage.state(&mountpoint), "another disk");
    expect_missed(&stage, &mountpoint, "2");
    let (_, text) = stage.xpmfs(&["status", mountpoint.to_str().unwrap()]);
    let record = disk_record().unwrap().join(".disk");
    assert!(text.contains(record.to_str().unwrap()), "{text}");
    serve();
    until("it is back", || stage.state(&mountpoint) == "ok");
    let read = format!("cat jobs/{TASK}/held/model.bin");
    assert_eq!(stage.start(&mountpoint, &read, "").succeed(), "held");
    // It is its disk now, the user says.
    take_away();
    until("it is noticed", || {
        stage.state(&mountpoint) == "another disk"
    });
    fs::remove_file(record).unwrap();
    until("it is used", || stage.state(&mountpoint) == "ok");
    let read = format!("cat jobs/{TASK}/stale/model.bin");
    assert_eq!(stage.start(&mountpoint, &read, "").succeed(), "stale");
    mounted.unmount();
}

/// Without a mount, a command finds such a job by the record, and names the folder.
#[test]
fn commands_name_the_folder_that_is_offline_and_has_a_job() {
    let stage = Stage::new(false);
    let mountpoint = stage.workspace.mountpoint("elsewhere");
    let mounted = stage.workspace.mount_with(&mountpoint, &[]);
    recorded(&stage);
    let known = stage.workspace.primary().join(".xpmfs/archive/known");
    let in_backup = |name: &str| {
        let folders = fs::read_dir(&known).into_iter().flatten().flatten();
        let mut records = folders.map(|folder| folder.path().join(TASK));
        records.any(|it| fs::read(it).is_ok_and(|it| it.ends_with(name.as_bytes())))
    };
    until("the backup is on record", || in_backup("other\0"));
    mounted.unmount();
    let backup = stage.workspace.folder("backup");
    fs::rename(&backup, stage.workspace.top().join("away")).unwrap();
    let json = |arguments: &[&str]| {
        let (_, printed) = stage.xpmfs(&[&["--json"], arguments].concat());
        let begin = printed.find("[\n").unwrap_or_else(|| panic!("{printed}"));
        let mut values = serde_json::Deserializer::from_str(&printed[begin..]).into_iter();
        values.next().unwrap().unwrap()
    };
    let copies = |job: &str| -> serde_json::Value {
        let mut found: serde_json::Value = json(&["jobs", "where", "-w", "test", job]);
        found[0]["copies"].take()
    };
    let having = |copies: &serde_json::Value| -> Vec<String> {
        let copies = copies.as_array().unwrap().iter();
        let recorded = copies.filter(|it| it["recorded"] == true);
        recorded
            .map(|it| it["location"].as_str().unwrap().to_owned())
            .collect()
    };
    let label = format!("backup:{}", backup.display());
    for name in ["my.module.train/other", "my.module.train/oth"] {
        assert_eq!(
            having(&copies(name)),
            std::slice::from_ref(&label),
            "{name}"
        );
    }
    let listed: serde_json::Value = json(&["jobs", "list", "-w", "test"]);
    let listed = listed.as_array().unwrap();
    let of = |job: &str| listed.iter().find(|it| it["job"] == job).unwrap();
    let other = of("my.module.train/other");
    assert_eq!(other["location"], *label, "{other}");
    assert_eq!(
        (&other["offline"], &other["state"], &other["missing"]),
        (&true.into(), &"unknown".into(), &false.into())
    );
    assert_eq!(of("my.module.train/primary")["offline"], false);
    let (_, table) = stage.xpmfs(&["jobs", "list", "-w", "test", "my.module.train/other"]);
    assert!(table.contains(&format!("{label} (offline)")), "{table}");
    let (found, printed) = stage.xpmfs(&["jobs", "where", "-w", "test", "my.module.train/none"]);
    let named = printed.contains(backup.to_str().unwrap()) && printed.contains("cannot be used");
    assert!(!found && named, "{printed}");
    // The start of its name is enough.
    let delete = [
        "jobs",
        "delete",
        "--yes",
        "-w",
        "test",
        "my.module.train/oth",
    ];
    let (deleted, printed) = stage.xpmfs(&delete);
    assert!(deleted && printed.contains(&label), "{printed}");
    let (found, printed) = stage.xpmfs(&["jobs", "where", "-w", "test", "my.module.train/other"]);
    assert!(!found && printed.contains("was deleted"), "{printed}");
    // Nothing is deleted in a `use` folder.
    stage.folder.hang();
    let (deleted, printed) =
        stage.xpmfs(&["jobs", "delete", "--yes", "-w", "test", "only.held/held"]);
    let named = printed.contains("`use` folder") && printed.contains("hangs");
    assert!(!deleted && named, "{printed}");
    stage.folder.go_on();
}
