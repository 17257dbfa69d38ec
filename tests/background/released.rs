//! `release` in the settings: the daemon releases jobs by itself, and `status` and the log say so.

use std::fs::{self, File};
use std::path::Path;

use rustix::fs::{FlockOperation, flock};
use serde_json::Value;

use crate::common::{Mounted, Workspace, run};
use crate::job::{self, hash};
use crate::stage::{status, told, until};

/// A workspace with a `backup` folder, three archived jobs and this rule.
fn workspace(rule: &str) -> Workspace {
    let workspace = Workspace::new();
    workspace.with_folders(&["backup"]);
    workspace.tune(&format!(
        "{{settle: 100ms, scan_interval: 1h, release: {rule}}}"
    ));
    for number in 0..3 {
        job::make(&workspace.primary(), number);
    }
    // Before the first search: the next one comes seconds later.
    run(workspace
        .xpmfs()
        .args(["jobs", "archive", "-w", "test", "--all"]));
    workspace
}

/// A mount that queries the free space every 100 ms, and may search for jobs every second while space is short, otherwise every 6 s.
fn mount<'a>(workspace: &'a Workspace, mountpoint: &Path) -> Mounted<'a> {
    let mut command = workspace.xpmfs();
    command.env("XPMFS_TEST_RELEASE_DIVISOR", "600");
    command.env("XPMFS_TEST_GRACE_MS", "100");
    command.args(["mount", "-v", "-w", "test", "--log"]);
    command
        .arg(workspace.top().join("xpmfs.log"))
        .arg(mountpoint);
    workspace.mounting(&mut command, mountpoint)
}

fn report(workspace: &Workspace, mountpoint: &Path) -> Value {
    status(workspace, mountpoint)["archive"]["release"].take()
}

/// Waits until the last search has ended in which these jobs, counted since the start, were released.
fn until_released(workspace: &Workspace, mountpoint: &Path, jobs: u64) -> Value {
    let mut last = Value::Null;
    until("the jobs are released", || {
        last = report(workspace, mountpoint);
        last["jobs"] == jobs && last["searching"] == false && last["last_search"].is_string()
    });
    last
}

fn in_primary(workspace: &Workspace, number: usize) -> bool {
    workspace.primary().join(job::path(number)).exists()
}

fn count_in_primary(workspace: &Workspace) -> usize {
    (0..3)
        .filter(|number| in_primary(workspace, *number))
        .count()
}

/// The mount shows all jobs, whole.
fn assert_shown(mountpoint: &Path) {
    for number in 0..3 {
        job::look_at(&mountpoint.join(job::path(number)), number).unwrap();
    }
}

#[test]
fn jobs_that_were_not_used_are_released_and_pinned_ones_are_not() {
    let workspace = workspace("{older_than: 1s}");
    let pinned = format!("{}/{}", job::TASK, hash(1));
    run(workspace
        .xpmfs()
        .args(["jobs", "pin", "-w", "test", &pinned]));
    let mountpoint = workspace.mountpoint("elsewhere");
    let mounted = mount(&workspace, &mountpoint);
    let found = until_released(&workspace, &mountpoint, 2);
    assert!(!in_primary(&workspace, 0) && !in_primary(&workspace, 2));
    assert!(in_primary(&workspace, 1));
    assert_shown(&mountpoint);
    assert_eq!(mounted.location(job::path(0)), "backup");
    assert_eq!(mounted.location(job::path(1)), "primary");
    assert!(
        found["last_release"].as_str().unwrap().ends_with('Z'),
        "{found}"
    );
    assert!(found["freed"].as_u64().unwrap() > 0, "{found}");
    assert_eq!(found["older_than"], 1.0, "{found}");
    let text = told(&workspace, &mountpoint);
    assert!(
        text.contains("release jobs not used for 1 s: 2 jobs since"),
        "{text}"
    );
    let last = found["last_job"].as_str().unwrap();
    assert!(text.contains(last), "{text}");
    let log = workspace.log();
    for number in [0, 2] {
        let line = format!("released {}/{}", job::TASK, hash(number));
        assert!(log.contains(&line), "{log}");
    }
    mounted.unmount();
}

#[test]
fn jobs_are_released_only_while_space_is_short() {
    let workspace = workspace("{keep_free: 100%}");
    let mountpoint = workspace.mountpoint("elsewhere");
    let mounted = mount(&workspace, &mountpoint);
    // `jobs` counts what is removed. What is only renamed would be put back by the unmount below.
    let found = until_released(&workspace, &mountpoint, 3);
    assert!(found["lacking"].as_u64().unwrap() > 0, "{found}");
    assert_eq!(found["enough"], false, "{found}");
    let text = told(&workspace, &mountpoint);
    assert!(
        text.contains("more must become free: no other job could be released at"),
        "{text}"
    );
    assert!(
        text.contains("release the oldest while less than"),
        "{text}"
    );
    assert_shown(&mountpoint);
    mounted.unmount();
    assert_eq!(count_in_primary(&workspace), 0);
}

#[test]
fn nothing_is_released_while_there_is_enough_space() {
    let workspace = workspace("{keep_free: 1K}");
    let mountpoint = workspace.mountpoint("elsewhere");
    let mounted = mount(&workspace, &mountpoint);
    until("the space was queried", || {
        report(&workspace, &mountpoint)["keep_free"] == 1024
    });
    let found = report(&workspace, &mountpoint);
    assert_eq!((&found["lacking"], &found["jobs"]), (&0.into(), &0.into()));
    assert!(found["last_search"].is_null(), "{found}");
    let text = told(&workspace, &mountpoint);
    assert!(!text.contains("must become free"), "{text}");
    mounted.unmount();
    assert_eq!(count_in_primary(&workspace), 3);
}

#[test]
fn one_process_of_a_workspace_searches_at_a_time() {
    let workspace = workspace("{older_than: 1s}");
    let directory = workspace.primary().join(".xpmfs/archive");
    fs::create_dir_all(&directory).unwrap();
    // Another process searches.
    let file = File::create(directory.join("release-search")).unwrap();
    flock(&file, FlockOperation::LockExclusive).unwrap();
    let mountpoints = ["one", "other"].map(|name| workspace.mountpoint(name));
    let mounted = mountpoints
        .each_ref()
        .map(|mountpoint| mount(&workspace, mountpoint));
    for mountpoint in &mountpoints {
        until("the daemon waits", || {
            let waits = report(&workspace, mountpoint)["waits"].take();
            waits == "another process of the workspace searches"
        });
        let text = told(&workspace, mountpoint);
        assert!(
            text.contains("release: waiting: another process of the workspace searches"),
            "{text}"
        );
    }
    assert_eq!(count_in_primary(&workspace), 3);
    drop(file);
    let counts = || {
        mountpoints
            .each_ref()
            .map(|mountpoint| report(&workspace, mountpoint)["jobs"].as_u64().unwrap())
    };
    until("they are released", || counts().iter().sum::<u64>() == 3);
    for number in 0..3 {
        let line = format!("released {}/{}", job::TASK, hash(number));
        assert_eq!(workspace.log().matches(&line).count(), 1);
    }
    for mounted in mounted {
        mounted.unmount();
    }
}

#[test]
fn a_rule_waits_for_a_folder_that_is_offline() {
    let workspace = workspace("{older_than: 1s}");
    let (folder, away) = (workspace.folder("backup"), workspace.top().join("away"));
    fs::rename(&folder, &away).unwrap();
    let mountpoint = workspace.mountpoint("elsewhere");
    let mounted = mount(&workspace, &mountpoint);
    until("the daemon waits", || {
        let waits = report(&workspace, &mountpoint)["waits"].take();
        waits.as_str().is_some_and(|why| why.contains("missing"))
    });
    // The mount point of a disk that is not mounted.
    fs::create_dir(&folder).unwrap();
    until("the folder is there", || {
        let waits = report(&workspace, &mountpoint)["waits"].take();
        waits.as_str().is_some_and(|why| why.contains("no jobs"))
    });
    assert_eq!(count_in_primary(&workspace), 3);
    fs::remove_dir_all(&folder).unwrap();
    fs::rename(&away, &folder).unwrap();
    until_released(&workspace, &mountpoint, 3);
    assert_shown(&mountpoint);
    mounted.unmount();
}

#[test]
fn a_rule_goes_on_when_the_copies_that_a_folder_had_lost_are_back() {
    let workspace = workspace("{older_than: 1s}");
    let (folder, away) = (workspace.folder("backup"), workspace.top().join("away"));
    fs::rename(&folder, &away).unwrap();
    fs::create_dir(&folder).unwrap();
    let mountpoint = workspace.mountpoint("elsewhere");
    let mounted = mount(&workspace, &mountpoint);
    let marks = workspace.primary().join(".xpmfs/archive/gone");
    let marks = || fs::read_dir(&marks).is_ok_and(|mut folders| folders.next().is_some());
    until("the copies are marked as lost", marks);
    fs::remove_dir_all(&folder).unwrap();
    fs::rename(&away, &folder).unwrap();
    until_released(&workspace, &mountpoint, 3);
    assert_shown(&mountpoint);
    mounted.unmount();
}

#[test]
fn a_damaged_copy_stops_no_other_job_and_is_read_once() {
    let workspace = workspace("{older_than: 1s}");
    let model = workspace
        .folder("backup")
        .join(job::path(1))
        .join("model.bin");
    let modified = fs::metadata(&model).unwrap().modified().unwrap();
    let mut content = fs::read(&model).unwrap();
    content[100] ^= 1;
    fs::write(&model, content).unwrap();
    let file = File::options().write(true).open(&model).unwrap();
    file.set_modified(modified).unwrap();
    let mountpoint = workspace.mountpoint("elsewhere");
    let mounted = mount(&workspace, &mountpoint);
    let found = until_released(&workspace, &mountpoint, 2);
    assert!(in_primary(&workspace, 1));
    assert_eq!(found["kept"], 1, "{found}");
    assert_eq!(found["why"], "the archived copy is damaged", "{found}");
    let first = found["last_search"].clone();
    until("it searches again", || {
        report(&workspace, &mountpoint)["last_search"] != first
    });
    let found = report(&workspace, &mountpoint);
    assert_eq!(found["kept"], 1, "{found}");
    assert_eq!(
        found["why"], "it failed before, and is retried later",
        "{found}"
    );
    mounted.unmount();
}

#[test]
fn a_renamed_job_does_not_wait_until_the_next_copy_is_verified() {
    let workspace = Workspace::new();
    workspace.with_folders(&["backup"]);
    for number in 0..2 {
        job::make(&workspace.primary(), number);
    }
    // Used after the first.
    let large = workspace.primary().join(job::path(1)).join("large");
    fs::write(&large, vec![1; 24 << 20]).unwrap();
    run(workspace
        .xpmfs()
        .args(["jobs", "archive", "-w", "test", "--all"]));
    workspace.tune("{bandwidth: 1MiB, release: {older_than: 1s}}");
    let mountpoint = workspace.mountpoint("elsewhere");
    let mounted = mount(&workspace, &mountpoint);
    until("the first is released", || {
        report(&workspace, &mountpoint)["jobs"] == 1
    });
    assert!(!in_primary(&workspace, 0));
    assert!(in_primary(&workspace, 1), "its copy was verified first");
    mounted.unmount();
    assert!(in_primary(&workspace, 1));
}
