//! A plan run again after a purge has removed files of its jobs, one by one.

use std::fs::{self, File, FileTimes};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use crate::common::{self, Workspace, assert_unchanged, eventually, run, snapshot};
use crate::plan::{Job, Plan};

/// Removes some files of a job, and leaves its directories: each time others, and the marker twice out of three times.
fn purge(job: &Path, round: usize) {
    let mut next = vec![job.to_owned()];
    let mut number = round;
    while let Some(directory) = next.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.symlink_metadata().unwrap().is_dir() {
                next.push(path);
                continue;
            }
            number += 1;
            let is_marker = path
                .extension()
                .is_some_and(|extension| extension == "done");
            if !number.is_multiple_of(3) || (is_marker && !round.is_multiple_of(3)) {
                fs::remove_file(path).unwrap();
            }
        }
    }
}

fn copy_of(workspace: &Workspace, job: &Job) -> std::path::PathBuf {
    workspace.folder("backup").join(job.path())
}

/// Runs a plan in a plain workspace, archives its jobs by hand, purges them, and runs it again through a mount.
fn nothing_runs_again(workspace: &Workspace, mountpoint: &Path) {
    let Some(plan) = Plan::of(workspace) else {
        return;
    };
    let first = plan.run(&workspace.primary(), &["6"]);
    assert_eq!(first.executed.len(), 7);
    for job in &first.jobs {
        let copy = copy_of(workspace, job);
        fs::create_dir_all(copy.parent().unwrap()).unwrap();
        let original = workspace.primary().join(job.path());
        run(Command::new("cp").arg("-a").arg(original).arg(&copy));
        for name in fs::read_dir(&copy).unwrap() {
            let path = name.unwrap().path();
            let internal = path
                .extension()
                .is_some_and(|it| it == "lock" || it == "pid");
            if internal {
                fs::remove_file(path).unwrap();
            }
        }
    }
    for (round, job) in first.jobs.iter().enumerate() {
        purge(&workspace.primary().join(job.path()), round);
    }
    let copies: Vec<_> = first
        .jobs
        .iter()
        .map(|job| snapshot(&copy_of(workspace, job)))
        .collect();
    let mounted = workspace.mount_at(mountpoint);
    for _ in 0..2 {
        let again = plan.run(mountpoint, &["6"]);
        assert_eq!(again.jobs, first.jobs);
        assert_eq!(again.executed, []);
        for job in &first.jobs {
            assert_eq!(mounted.location(job.path()), "backup", "{job:?}");
        }
    }
    mounted.unmount();
    for (job, before) in first.jobs.iter().zip(&copies) {
        assert_unchanged(&copy_of(workspace, job), before);
    }
}

#[test]
fn in_place_no_purged_job_runs_again() {
    let workspace = Workspace::new();
    workspace.with_folders(&["backup"]);
    nothing_runs_again(&workspace, &workspace.primary());
}

#[test]
fn elsewhere_no_purged_job_runs_again() {
    let workspace = Workspace::new();
    workspace.with_folders(&["backup"]);
    let mountpoint = workspace.mountpoint("mnt");
    nothing_runs_again(&workspace, &mountpoint);
}

const DAY: Duration = Duration::from_secs(86_400);

/// The files and symlinks of a job, by their paths.
fn files(job: &Path) -> Vec<PathBuf> {
    let found = Command::new("find")
        .arg(job)
        .args(["-not", "-type", "d"])
        .output();
    let found = String::from_utf8(found.unwrap().stdout).unwrap();
    found.lines().map(PathBuf::from).collect()
}

/// A generator of numbers below a limit, the same for each seed.
fn numbers(seed: u64) -> impl FnMut(u64) -> u64 {
    let mut state = seed | 1;
    move |limit| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % limit
    }
}

/// Removes old files of jobs at random, at least one of each.
fn purge_old(jobs: &[PathBuf], below: &mut impl FnMut(u64) -> u64) {
    for job in jobs {
        let percent = [20, 60, 100][usize::try_from(below(3)).unwrap()];
        let is_old = |path: &PathBuf| {
            let stat = path.symlink_metadata().unwrap();
            stat.is_file() && stat.modified().unwrap().elapsed().unwrap_or_default() > DAY
        };
        let old: Vec<PathBuf> = files(job).into_iter().filter(is_old).collect();
        let first = below(old.len().max(1) as u64);
        for (number, path) in (0..).zip(old) {
            if number == first || below(100) < percent {
                fs::remove_file(path).unwrap();
            }
        }
    }
}

/// Jobs of a plan are purged while others of it run, and with a failed one about.
fn purged_while_others_run(seed: u64) {
    let workspace = Workspace::builder()
        .folders(&["backup"])
        .keys("{settle: 0s, scan_interval: 1h}")
        .build();
    let Some(plan) = Plan::of(&workspace) else {
        return;
    };
    let below = &mut numbers(seed);
    let first = plan.start(&workspace.primary(), &["2", "--failing"]);
    first.open_gate();
    let first = first.finish_failing();
    let (failed, done) = first.jobs.split_last().unwrap();
    for job in done {
        for path in files(&workspace.primary().join(job.path())) {
            let then = SystemTime::now() - DAY * u32::try_from(10 + below(90)).unwrap();
            let times = FileTimes::new().set_accessed(then).set_modified(then);
            File::open(path).unwrap().set_times(times).unwrap();
        }
    }
    let jobs = |arguments: &[&str]| {
        let mut command = workspace.xpmfs();
        run(command.arg("jobs").args(arguments).args(["-w", "test"]))
    };
    jobs(&["archive", "--all"]);
    let folder = snapshot(&workspace.folder("backup"));
    let beneath = File::open(workspace.primary()).unwrap();
    let beneath = PathBuf::from(format!("/proc/self/fd/{}", beneath.as_raw_fd()));
    let mountpoint = match below(2) {
        0 => workspace.primary(),
        _ => workspace.mountpoint("elsewhere"),
    };
    let mounted = workspace.mount_at(&mountpoint);
    let left: Vec<PathBuf> = done.iter().map(|job| beneath.join(job.path())).collect();

    // The new job and the one that failed run, and wait at the gate.
    let mut running = plan.start(&mountpoint, &["3", "--failing"]);
    running.wait_for_a_job();
    purge_old(&left, below);
    running.open_gate();
    let second = running.finish_failing();
    let new = &second.jobs[done.len()];
    let mut executed = second.executed.clone();
    executed.sort();
    let mut expected = vec![new.clone(), failed.clone()];
    expected.sort();
    assert_eq!(executed, expected, "seed {seed}");

    // Whole, purged once more, released and recovered: only the failed one runs again.
    let again = || {
        let again = plan.start(&mountpoint, &["3", "--failing"]);
        again.open_gate();
        let again = again.finish_failing();
        assert_eq!(again.executed, std::slice::from_ref(failed), "seed {seed}");
        for job in done {
            let whole = files(&workspace.folder("backup").join(job.path()));
            for path in whole {
                let name = path.strip_prefix(workspace.folder("backup")).unwrap();
                let is_same = || fs::read(mountpoint.join(name)).ok() == fs::read(&path).ok();
                // A plan that is run again writes its own bookkeeping; a recovery writes the workspace's path.
                let is_own = name.starts_with(job.path().join(".experimaestro"));
                if !is_own && !name.ends_with("params.json") {
                    eventually(&format!("seed {seed}: {}", name.display()), is_same);
                }
            }
        }
    };
    again();
    jobs(&["release", "--older-than", "0s", "--yes"]);
    again();
    jobs(&["recover", "--all"]);
    for (job, beneath) in done.iter().zip(&left) {
        let marker = format!("{}.done", job.name());
        assert!(beneath.join(marker).exists(), "seed {seed}: {job:?}");
        assert_eq!(mounted.location(job.path()), "primary");
    }
    purge_old(&left, below);
    again();
    assert_eq!(mounted.location(new.path()), "primary");
    mounted.unmount();
    assert_unchanged(&workspace.folder("backup"), &folder);
}

#[test]
fn jobs_that_are_purged_at_random_do_not_run_again() {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let given = std::env::var("XPMFS_TEST_SEED").ok();
    let seed = given.map(|seed| seed.parse().unwrap());
    let rounds = if common::soak() { 6 } else { 1 };
    let first = seed.unwrap_or_else(|| now.unwrap().subsec_nanos().into());
    for seed in first..first + rounds {
        common::say(&format!("XPMFS_TEST_SEED={seed}"));
        purged_while_others_run(seed);
    }
}
