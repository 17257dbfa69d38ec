//! Jobs that folders have, and that are run again beside the mount while it looks.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::common::{Workspace, is_mounted, run};
use crate::job;
use crate::stage::{at_once, status, until, watch};

/// Longer than it takes until what was compared is believed, and not compared again.
const RUN: Duration = Duration::from_secs(4);

/// A workspace whose only job has been archived.
fn archived(folders: &[&str]) -> Workspace {
    let workspace = Workspace::new();
    workspace.with_folders(folders);
    workspace.tune("{settle: 100ms, scan_interval: 100ms}");
    job::make(&workspace.primary(), 0);
    run(workspace
        .xpmfs()
        .args(["jobs", "archive", "-w", "test", "--all"]));
    assert!(has(&workspace, folders, "step 1\nstep 2\n"));
    workspace
}

/// The job in the primary.
fn at(workspace: &Workspace) -> PathBuf {
    workspace.primary().join(job::path(0))
}

/// Takes the job away, or what was left of it where it was moved to.
fn remove(job: &Path) {
    match job.is_symlink() {
        true => fs::remove_file(job).unwrap(),
        false => fs::remove_dir_all(job).unwrap(),
    }
}

/// Begins to run the job, in a directory that is new or is there.
fn begin(job: &Path) {
    if !job.exists() {
        job::write_unfinished(job, 0);
    }
    fs::write(job.join("train.out"), "again").unwrap();
    set_state(job, "running");
}

fn set_state(job: &Path, state: &str) {
    let status = format!("{{\"state\": \"{state}\"}}");
    fs::write(job.join(".experimaestro/status.json"), status).unwrap();
}

/// Ends it well.
fn finish(job: &Path) {
    let _ = fs::remove_file(job.join("train.failed"));
    fs::write(job.join("train.out"), "second").unwrap();
    fs::write(job.join("train.done"), "").unwrap();
    set_state(job, "done");
}

/// Whether all folders have the run with this output.
fn has(workspace: &Workspace, folders: &[&str], output: &str) -> bool {
    folders.iter().all(|mode| {
        let copy = workspace.folder(mode).join(job::path(0));
        let copy = fs::read_to_string(copy.join("train.out"));
        copy.is_ok_and(|copy| copy == output)
    })
}

/// How the run is seen to have been archived.
#[derive(Clone, Copy)]
enum Seen {
    InTime,
    ByWatcher,
    ByDrain,
}

/// Runs the job of a workspace again beside a mount or a watcher, and sees that this is archived.
fn runs_again(workspace: &Workspace, folders: &[&str], seen: Seen, again: impl FnOnce(&Path)) {
    let mountpoint = workspace.mountpoint("elsewhere");
    let job = at(workspace);
    let mut watching = None;
    let mounted = match seen {
        Seen::ByWatcher => {
            watching = Some(watch(workspace));
            None
        }
        Seen::InTime | Seen::ByDrain => {
            let mounted = workspace.mount_archiving(&mountpoint, &[]);
            until("it has looked", || {
                let status = status(workspace, &mountpoint);
                let folders = status["archive"]["folders"].as_array().unwrap();
                folders.iter().all(|folder| folder["last_scan"].is_string())
            });
            Some(mounted)
        }
    };
    again(&job);
    assert!(!has(workspace, &folders[..1], "second"));
    finish(&job);
    if matches!(seen, Seen::ByDrain) {
        run(workspace
            .xpmfs()
            .args(["umount", "--drain"])
            .arg(&mountpoint));
        assert!(!is_mounted(&mountpoint));
        assert!(has(workspace, folders, "second"), "{folders:?}");
    }
    until("it is archived", || has(workspace, folders, "second"));
    if folders.contains(&"move") {
        until("it is moved", || job.is_symlink());
    }
    drop((mounted, watching));
}

const FOLDERS: [&[&str]; 2] = [&["backup"], &["backup", "move"]];

#[test]
fn a_job_that_is_made_anew_and_takes_its_time_is_archived_when_it_is_done() {
    let cases = FOLDERS.map(|folders| [Seen::InTime, Seen::ByDrain].map(|seen| (folders, seen)));
    at_once(cases, |cases| {
        at_once(cases, |(folders, seen)| {
            let workspace = archived(folders);
            remove(&at(&workspace));
            runs_again(&workspace, folders, seen, |job| {
                begin(job);
                std::thread::sleep(RUN);
            });
        });
    });
}

#[test]
fn a_job_that_is_run_anew_is_archived_by_a_watcher() {
    at_once(FOLDERS, |folders| {
        let workspace = archived(folders);
        remove(&at(&workspace));
        runs_again(&workspace, folders, Seen::ByWatcher, |job| {
            begin(job);
            std::thread::sleep(RUN);
        });
    });
}

#[test]
fn a_job_that_fails_before_it_is_done_is_archived_then() {
    let cases = FOLDERS.map(|folders| [Seen::InTime, Seen::ByDrain].map(|seen| (folders, seen)));
    at_once(cases, |cases| {
        at_once(cases, |(folders, seen)| {
            let workspace = archived(folders);
            remove(&at(&workspace));
            runs_again(&workspace, folders, seen, |job| {
                begin(job);
                fs::write(job.join("train.failed"), "1").unwrap();
                set_state(job, "error");
                std::thread::sleep(RUN);
            });
        });
    });
}

/// Its directory is there all the time, and nothing changes in its task's: as when experimaestro finds that its output is missing.
#[test]
fn a_job_that_is_run_again_where_it_is_is_archived_before_a_drain_ends() {
    let workspace = archived(&["backup"]);
    runs_again(&workspace, &["backup"], Seen::ByDrain, |job| {
        std::thread::sleep(RUN);
        fs::remove_file(job.join("train.done")).unwrap();
        begin(job);
    });
}

/// Nobody waits for the next scan: it is far off.
#[test]
fn a_job_that_is_made_anew_at_once_is_archived_before_a_drain_ends() {
    at_once(FOLDERS, |folders| {
        let workspace = archived(folders);
        workspace.tune("{settle: 100ms, scan_interval: 1h}");
        runs_again(&workspace, folders, Seen::ByDrain, |job| {
            remove(job);
            begin(job);
        });
    });
}
