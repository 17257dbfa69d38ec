//! What a purge has left of a job, and what a crash has left of its internal files, hide nothing when the job is recovered.

use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;

use crate::common::{Folders, Mounted, Workspace, eventually, run};
use crate::stage::{Beneath, TASK, assert_clean, contents};

/// A workspace with a job that was archived to a `backup` folder, and the job's directory in the primary.
fn archived() -> (Workspace, PathBuf) {
    let workspace = Workspace::builder()
        .folders(&["backup"])
        .keys("{settle: 1ms}")
        .build();
    for folder in ["use", "move"] {
        fs::create_dir(workspace.folder(folder)).unwrap();
    }
    let job = workspace.finished("primary", TASK, "a");
    fs::create_dir(job.join("data")).unwrap();
    fs::write(job.join("data/weights.bin"), vec![7; 100_000]).unwrap();
    run(workspace
        .xpmfs()
        .args(["jobs", "archive", "-w", "test", "--all"]));
    (workspace, job)
}

fn purge(job: &std::path::Path) {
    for name in ["train.done", "model.bin", "data/weights.bin"] {
        fs::remove_file(job.join(name)).unwrap();
    }
}

fn mount(workspace: &Workspace, archives: bool) -> Mounted<'_> {
    match archives {
        true => workspace.mount_archiving(&workspace.primary(), &[]),
        false => workspace.mount_in_place(),
    }
}

#[test]
fn a_change_of_a_purged_job_makes_it_whole() {
    for archives in [false, true] {
        let (workspace, job) = archived();
        workspace.write_settings(&["backup"], Some("{settle: 1h}"));
        purge(&job);
        let copy = workspace.folder("backup").join("jobs").join(TASK).join("a");
        let folders = Folders::of(&workspace);
        let beneath = Beneath::of(&workspace.primary());
        let mounted = mount(&workspace, archives);
        let shown = mounted.job(TASK, "a");
        eventually("the folder serves the job", || {
            mounted.location(&shown) == "backup"
        });
        // Several writers wait for the same recovery.
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let mut options = File::options();
                    let mut file = options.append(true).open(shown.join("train.out")).unwrap();
                    file.write_all(b"more\n").unwrap();
                });
            }
        });
        assert_eq!(mounted.location(&shown), "primary");
        let there = beneath.path().join("jobs").join(TASK).join("a");
        for job in [&shown, &there] {
            assert_eq!(
                contents(job, &["train.out"]),
                contents(&copy, &["train.out"])
            );
            let text = fs::read_to_string(job.join("train.out")).unwrap();
            assert_eq!(text, format!("step 1\nstep 2\n{}", "more\n".repeat(4)));
        }
        let log = workspace.log();
        assert_eq!(log.matches("recovered for a program").count(), 1, "{log}");
        folders.assert_unchanged();
        mounted.unmount();
        assert_clean(&workspace.primary());
    }
}

#[test]
fn two_mounts_recover_a_purged_job_once() {
    let (workspace, job) = archived();
    workspace.write_settings(&["backup"], Some("{settle: 1h, bandwidth: 100KiB}"));
    purge(&job);
    let places = ["one", "other"].map(|name| workspace.mountpoint(name));
    let mounts = places.each_ref().map(|place| workspace.mount_at(place));
    std::thread::scope(|scope| {
        for mounted in &mounts {
            let path = mounted.job(TASK, "a").join("train.out");
            scope.spawn(move || {
                let mut file = File::options().append(true).open(path).unwrap();
                file.write_all(b"more\n").unwrap();
            });
        }
    });
    assert_eq!(fs::read(job.join("model.bin")).unwrap(), [7; 10_000]);
    let text = fs::read_to_string(job.join("train.out")).unwrap();
    assert_eq!(text, "step 1\nstep 2\nmore\nmore\n");
    let log = workspace.log();
    assert_eq!(log.matches("recovered for a program").count(), 1, "{log}");
}

/// Leaves what a crash leaves after a recovered job has its name: an old name of a file that the job has replaced since.
fn leave_internal_file(workspace: &Workspace) -> PathBuf {
    let internal = workspace.primary().join(".xpmfs/internal").join(TASK);
    let state = internal.join("a/.experimaestro");
    fs::create_dir_all(&state).unwrap();
    fs::write(state.join("status.json"), "{\"state\": \"old\"}").unwrap();
    internal.join("a")
}

#[test]
fn what_a_crash_left_of_internal_files_is_removed_by_the_next_start() {
    let (workspace, job) = archived();
    let internal = leave_internal_file(&workspace);
    fs::write(job.with_file_name(".tmp.a.lock"), "").unwrap();
    // Not in place, where the mount hides it.
    let elsewhere = workspace.mountpoint("elsewhere");
    let mounted = workspace.mount_archiving(&elsewhere, &[]);
    eventually("the old names are removed", || !internal.exists());
    drop(mounted);
    let status = fs::read_to_string(job.join(".experimaestro/status.json")).unwrap();
    assert!(status.contains("done"), "{status}");
}

#[test]
fn old_names_of_internal_files_do_not_hide_the_archived_copy() {
    for mode in ["backup", "move"] {
        let (workspace, job) = archived();
        let internal = leave_internal_file(&workspace);
        if mode == "move" {
            workspace.write_settings(&["move"], Some("{settle: 1ms}"));
        }
        let what: &[&str] = match mode {
            "move" => &["archive", "-w", "test"],
            _ => &["release", "--yes", "-w", "test"],
        };
        let selected = format!("{TASK}/a");
        run(workspace.xpmfs().arg("jobs").args(what).arg(selected));
        assert!(!job.symlink_metadata().is_ok_and(|stat| stat.is_dir()));
        assert!(!internal.exists(), "{mode}");
        let mounted = mount(&workspace, false);
        let shown = mounted.job(TASK, "a");
        assert_eq!(mounted.location(&shown), mode);
        let status = fs::read_to_string(shown.join(".experimaestro/status.json")).unwrap();
        assert!(status.contains("done"), "{mode}: {status}");
    }
}
