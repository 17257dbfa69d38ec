//! The daemon is killed at any moment, and another goes on where it was.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use crate::common;
use crate::common::{Workspace, daemon, run};
use crate::job;
use crate::stage::{
    assert_whole, at_once, has_all, is_drained, journals, random, staging, status, until,
    verify_all,
};

const JOBS: usize = 100;
const ROUNDS: usize = 12;

/// As when `xpmfs jobs archive` is killed, whose journal says nothing, and when the primary is too full for one.
#[test]
fn a_job_that_the_move_folder_has_already_is_moved() {
    let workspace = Workspace::new();
    workspace.with_folders(&["move"]);
    workspace.tune("{settle: 100ms, scan_interval: 200ms}");
    let mountpoint = workspace.mountpoint("elsewhere");
    let (primary, folder) = (workspace.primary(), workspace.folder("move"));
    let mut expected = Vec::new();
    for number in 0..3 {
        expected.push(job::make_and_tell(&primary, number, job::tree));
    }
    let copied = folder.join("jobs");
    run(Command::new("cp")
        .arg("-a")
        .arg(primary.join("jobs/."))
        .arg(&copied));
    let is_moved = |number| primary.join(job::path(number)).is_symlink();
    let mounted = workspace.mount_archiving(&mountpoint, &[]);
    until("all are moved", || (0..3).all(is_moved));
    until("all is said to be archived", || {
        is_drained(&workspace, &mountpoint)
    });
    mounted.unmount();
    assert_whole(&folder, 0..3, |number| expected[number].clone());
    // What somebody has asked for stays.
    let id = job::path(1);
    let id = id.strip_prefix("jobs").unwrap();
    run(workspace
        .xpmfs()
        .args(["jobs", "recover"])
        .arg(id)
        .arg("--workdir")
        .arg(&primary));
    let mounted = workspace.mount_archiving(&mountpoint, &[]);
    expected.push(job::make_and_tell(&primary, 3, job::tree));
    until("the last is moved", || is_moved(3));
    run(workspace
        .xpmfs()
        .args(["umount", "--drain"])
        .arg(&mountpoint));
    drop(mounted);
    assert!(!is_moved(1), "it was moved away again");
    assert_eq!(job::tree(&primary.join(job::path(1))), expected[1]);
}

#[test]
fn jobs_are_archived_though_the_daemon_is_killed_at_any_moment() {
    at_once([&["backup"][..], &["backup", "move"]], killed);
}

fn killed(modes: &[&str]) {
    let workspace = Workspace::new();
    workspace.with_folders(modes);
    // So slowly that it is in the middle of something at most moments.
    workspace.tune("{settle: 20ms, scan_interval: 100ms, bandwidth: 200KB}");
    let mountpoint = workspace.mountpoint("elsewhere");
    let (made, over) = (AtomicUsize::new(0), AtomicBool::new(false));
    let expected = std::thread::scope(|scope| {
        let reader = scope.spawn(|| read_all_the_time(&workspace, &made, &over));
        let expected = {
            let _over = Over(&over);
            let expected = rounds(&workspace, &mountpoint, &made);
            finish(&workspace, &mountpoint, modes);
            expected
        };
        let failures = reader.join().unwrap();
        assert!(failures.is_empty(), "{failures:#?}");
        expected
    });
    for mode in modes {
        assert_whole(&workspace.folder(mode), 0..JOBS, |number| {
            expected[number].clone()
        });
    }
    verify_all(&workspace, JOBS * modes.len());
}

/// Makes jobs, mounts, and kills the daemon, again and again; gives what the jobs hold.
fn rounds(
    workspace: &Workspace,
    mountpoint: &std::path::Path,
    made: &AtomicUsize,
) -> Vec<BTreeMap<PathBuf, String>> {
    let primary = workspace.primary();
    let mut expected = Vec::new();
    let (mut left, mut halfway) = (0, 0);
    for round in 1..=ROUNDS {
        let mut make = |count: usize| {
            while expected.len() < count {
                expected.push(job::make_and_tell(&primary, expected.len(), job::tree));
                made.store(expected.len(), Ordering::Release);
            }
        };
        let (before, after) = (JOBS * (round - 1) / ROUNDS, JOBS * round / ROUNDS);
        let mounted = workspace.mount_archiving(mountpoint, &[]);
        let pid = status(workspace, mountpoint)["pid"].as_i64().unwrap();
        // A different moment each time, which is what this is about.
        make(before + random((after - before) as u64) as usize);
        std::thread::sleep(Duration::from_millis(random(120)));
        daemon::kill_both(i32::try_from(pid).unwrap());
        until("the daemon is dead", || {
            status(workspace, mountpoint)["state"] == "dead"
        });
        left += journals(&primary).len();
        let folders = ["backup", "move"].map(|mode| workspace.folder(mode));
        let tops = folders.iter().chain([&primary]);
        halfway += tops.map(|top| staging(top).len()).sum::<usize>();
        make(after);
        mounted.unmount();
    }
    common::say(&format!(
        "{ROUNDS} daemons were killed: {left} journals and {halfway} stagings were left"
    ));
    assert!(left > 0, "no daemon left anything to take over");
    expected
}

/// The last daemon does the rest.
fn finish(workspace: &Workspace, mountpoint: &std::path::Path, modes: &[&str]) {
    let primary = workspace.primary();
    let mounted = workspace.mount_archiving(mountpoint, &[]);
    until("all is archived", || {
        let folders = modes.iter().map(|mode| workspace.folder(mode));
        folders.into_iter().all(|folder| has_all(&folder, 0..JOBS))
    });
    if modes.contains(&"move") {
        let moved = |number: usize| primary.join(job::path(number)).is_symlink();
        until("all is moved", || (0..JOBS).all(moved));
    }
    until("the journals are taken over", || {
        journals(&primary).len() == 1
    });
    until("nothing is left of the dead", || {
        let folders = modes.iter().map(|mode| workspace.folder(mode));
        let mut tops = folders.chain([primary.clone()]);
        tops.all(|top| staging(&top).is_empty())
    });
    until("nothing is on its way", || {
        is_drained(workspace, mountpoint)
    });
    for number in 0..JOBS {
        job::look_at(&mounted.path().join(job::path(number)), number).unwrap();
    }
    run(workspace
        .xpmfs()
        .args(["umount", "--drain"])
        .arg(mountpoint));
    assert_eq!(journals(&primary), [""; 0]);
}

struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// Reads all jobs at the primary's path until it is over; gives what was wrong.
fn read_all_the_time(workspace: &Workspace, made: &AtomicUsize, over: &AtomicBool) -> Vec<String> {
    let primary = workspace.primary();
    let mut failures = Vec::new();
    let mut looks = 0;
    while !over.load(Ordering::Acquire) && failures.len() < 10 {
        let made = made.load(Ordering::Acquire);
        if made == 0 {
            std::thread::yield_now();
            continue;
        }
        let number = looks % made;
        failures.extend(job::look_at(&primary.join(job::path(number)), number).err());
        looks += 1;
        // The others have something to do, too.
        std::thread::sleep(Duration::from_micros(200));
    }
    failures
}
