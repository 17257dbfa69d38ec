//! Jobs of plans are archived by themselves, and experimaestro recovers them from what was archived.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::common::{Workspace, eventually, run};
use crate::plan::{Job, Plan};

/// The files of a job that are not experimaestro's own, by their path in it, with what they hold.
fn contents(job: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    fn add(found: &mut BTreeMap<PathBuf, Vec<u8>>, top: &Path, directory: &Path) {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            if path.is_dir() {
                add(found, top, &path);
            } else if !name.ends_with(".lock") && !name.ends_with(".pid") {
                let relative = path.strip_prefix(top).unwrap().to_owned();
                found.insert(relative, fs::read(&path).unwrap());
            }
        }
    }
    let mut found = BTreeMap::new();
    add(&mut found, job, job);
    found
}

/// Asserts that a folder has a job, whole, as it stands at the end: with its final status and its events.
fn assert_archived(folder: &Path, job: &Job) {
    let copy = folder.join(job.path());
    let found = contents(&copy);
    let names: Vec<&str> = found.keys().filter_map(|path| path.to_str()).collect();
    for name in ["params.json", ".experimaestro/status.json"] {
        assert!(names.contains(&name), "{job:?} lacks {name}: {names:?}");
    }
    for ending in ["done", "out", "err", "py"] {
        let name = format!("{}.{ending}", job.name());
        assert!(names.contains(&&*name), "{job:?} lacks {name}: {names:?}");
    }
    assert!(
        names
            .iter()
            .any(|name| name.starts_with(".experimaestro/events/")),
        "{job:?} has no events: {names:?}"
    );
    let status: Value =
        serde_json::from_slice(&found[Path::new(".experimaestro/status.json")]).unwrap();
    assert_eq!(status["state"], "done", "{job:?}");
    assert!(
        status["ended_time"].is_string() || status["ended_time"].is_number(),
        "{status}"
    );
}

/// Whether all is archived that is finished: asked of the mount's daemon.
fn drained(workspace: &Workspace, mountpoint: &Path) -> bool {
    let status = run(workspace.xpmfs().args(["--json", "status"]).arg(mountpoint));
    let status: Value = serde_json::from_str(&status).unwrap();
    status["mounts"][0]["archive"]["queued"] == 0
}

fn verify_all(workspace: &Workspace) -> Value {
    let printed = run(workspace
        .xpmfs()
        .args(["--json", "jobs", "verify", "-w", "test", "--all"]));
    serde_json::from_str(&printed).unwrap()
}

/// A plan in the mount at `mountpoint`, and one beside it.
fn plans_are_archived(workspace: &Workspace, mountpoint: &Path) {
    let Some(plan) = Plan::of(workspace) else {
        return;
    };
    workspace.with_folders(&["backup", "move"]);
    workspace.tune("{settle: 500ms, scan_interval: 300ms}");
    let mounted = workspace.mount_archiving(mountpoint, &[]);
    // One job of it fails, and must not be archived.
    let running = plan.start(mountpoint, &["2", "--failing"]);
    running.open_gate();
    let through = running.finish_failing();
    let (failed, done) = through.jobs.split_last().unwrap();
    let both = ["backup", "move"].map(|mode| workspace.folder(mode));
    let stands = |jobs: &[Job]| {
        let present = |job: &Job, folder: &PathBuf| folder.join(job.path()).is_dir();
        jobs.iter()
            .all(|job| both.iter().all(|folder| present(job, folder)))
    };
    eventually("the plan's jobs are archived", || {
        stands(done) && drained(workspace, mountpoint)
    });
    // While one runs, it is not archived; and when it has ended, it is, also beside the mount.
    let beside = match mountpoint == workspace.primary() {
        // What is beneath is not to be seen; a plan in the mount again.
        true => mountpoint.to_owned(),
        false => workspace.primary(),
    };
    let mut running = plan.start(&beside, &["3"]);
    let new = running.wait_for_a_job();
    assert!(both.iter().all(|folder| !folder.join(new.path()).exists()));
    running.open_gate();
    let second = running.finish();
    assert_eq!(second.executed.len(), 1, "what was archived ran again");
    eventually("the new job is archived", || {
        stands(&second.jobs) && drained(workspace, mountpoint)
    });
    for job in &second.jobs {
        for folder in &both {
            assert_archived(folder, job);
        }
        if !workspace.is_of_another_user() {
            assert_eq!(mounted.location(job.path()), "move");
        }
    }
    let archived = |job: &Job| both.iter().any(|folder| folder.join(job.path()).exists());
    assert!(!archived(failed), "a failed job was archived");
    run(workspace
        .xpmfs()
        .arg("umount")
        .arg("--drain")
        .arg(mountpoint));
    let report = verify_all(workspace);
    let report = report.as_array().unwrap();
    // Two runs as well, in the `backup` folder.
    let of_jobs = report.iter().filter(|copy| copy["job"].is_string());
    assert_eq!(of_jobs.count(), 2 * second.jobs.len(), "{report:?}");
    assert_eq!(report.len(), 2 * second.jobs.len() + 2, "{report:?}");
    assert!(
        report
            .iter()
            .all(|copy| copy["whole"] == true && copy["manifest"] == true),
        "{report:?}"
    );
    for folder in &both {
        let listed = run(Command::new("find").arg(folder).args(["-name", ".tmp.*"]));
        assert_eq!(listed, "", "staging is left");
    }
}

#[test]
fn jobs_of_plans_in_a_mount_in_place_are_archived() {
    let workspace = Workspace::new();
    plans_are_archived(&workspace, &workspace.primary());
}

#[test]
fn jobs_of_plans_in_a_mount_elsewhere_and_beside_it_are_archived() {
    let workspace = Workspace::new();
    let mountpoint = workspace.mountpoint("elsewhere");
    plans_are_archived(&workspace, &mountpoint);
}

#[test]
fn an_ordinary_user_s_jobs_are_archived() {
    let workspace = Workspace::of_ordinary_user();
    let mountpoint = workspace.mountpoint("elsewhere");
    plans_are_archived(&workspace, &mountpoint);
}

/// experimaestro, with folders in its own settings, recovers from what xpmfs has archived.
#[test]
fn experimaestro_recovers_archived_jobs_and_runs_nothing() {
    let workspace = Workspace::new();
    let Some(plan) = Plan::of(&workspace) else {
        return;
    };
    workspace.with_folders(&["backup"]);
    let first = plan.run(&workspace.primary(), &["2"]);
    let before: Vec<_> = first
        .jobs
        .iter()
        .map(|job| contents(&workspace.primary().join(job.path())))
        .collect();
    run(workspace.xpmfs().args(["archive", "-w", "test"]));
    for job in &first.jobs {
        assert_archived(&workspace.folder("backup"), job);
        fs::remove_dir_all(workspace.primary().join(job.path())).unwrap();
    }
    // The settings of xpmfs are experimaestro's own.
    let settings = workspace.top().join(".config/experimaestro");
    fs::create_dir_all(&settings).unwrap();
    fs::copy(workspace.settings(), settings.join("settings.yaml")).unwrap();
    let again = plan.start(&workspace.primary(), &["2", "--id", "test"]);
    again.open_gate();
    let again = again.finish_complaining();
    assert_eq!(again.executed, [], "archived jobs ran again");
    for (job, before) in first.jobs.iter().zip(before) {
        let recovered = contents(&workspace.primary().join(job.path()));
        for (path, bytes) in before {
            // experimaestro may write its own status anew.
            if !path.ends_with("status.json") {
                assert_eq!(
                    recovered.get(&path),
                    Some(&bytes),
                    "{job:?}: {}",
                    path.display()
                );
            }
        }
    }
}

/// By the command, from either folder.
#[test]
fn jobs_are_recovered_byte_for_byte_from_either_folder() {
    let workspace = Workspace::new();
    let Some(plan) = Plan::of(&workspace) else {
        return;
    };
    workspace.with_folders(&["backup", "move"]);
    let first = plan.run(&workspace.primary(), &["2"]);
    let at = |job: &Job| workspace.primary().join(job.path());
    let before: Vec<_> = first.jobs.iter().map(|job| contents(&at(job))).collect();
    run(workspace.xpmfs().args(["archive", "-w", "test"]));
    for from in ["backup", "move"] {
        for (job, before) in first.jobs.iter().zip(&before) {
            assert!(at(job).is_symlink(), "{job:?} was not moved");
            let mut recover = workspace.xpmfs();
            recover.args(["jobs", "recover", "-w", "test", &job.hash[..12], "--from"]);
            run(recover.arg(workspace.folder(from)));
            assert!(!at(job).is_symlink());
            assert_eq!(&contents(&at(job)), before, "{job:?} from {from}");
            // Named, it is moved again.
            run(workspace
                .xpmfs()
                .args(["jobs", "archive", "-w", "test", &job.hash[..12]]));
        }
    }
}
