//! Another directory in a folder's place, and copies that were removed there by hand, do not hide that copies are lost.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::common::{Workspace, fails, run};
use crate::job;
use crate::stage::{has_all, is_drained, status, told, until};

const JOBS: usize = 3;

/// Whether so many jobs of the `backup` folder are on record.
fn is_recorded(workspace: &Workspace, jobs: usize) -> bool {
    let known = workspace.primary().join(".xpmfs/archive/known");
    let records = fs::read_dir(known).into_iter().flatten().flatten();
    let mut records = records.map(|folder| folder.path().join(job::TASK));
    records.any(|record| {
        let names = fs::read(record).unwrap_or_default();
        names.iter().filter(|byte| **byte == 0).count() == jobs
    })
}

/// A workspace whose jobs are all archived and on record, with its mount.
fn archived() -> (Workspace, std::path::PathBuf) {
    let workspace = Workspace::new();
    workspace.with_folders(&["backup"]);
    workspace.tune("{settle: 100ms, scan_interval: 1h}");
    for number in 0..JOBS {
        job::make(&workspace.primary(), number);
    }
    let mountpoint = workspace.mountpoint("elsewhere");
    (workspace, mountpoint)
}

/// Puts a fresh directory in the folder's place, with or without a `jobs`.
fn replace(workspace: &Workspace, with_jobs: bool) {
    let folder = workspace.folder("backup");
    fs::rename(&folder, workspace.top().join("away")).unwrap();
    fs::create_dir(&folder).unwrap();
    if with_jobs {
        fs::create_dir(folder.join("jobs")).unwrap();
    }
}

fn bring_back(workspace: &Workspace) {
    let folder = workspace.folder("backup");
    fs::rename(&folder, workspace.top().join("fresh")).unwrap();
    fs::rename(workspace.top().join("away"), folder).unwrap();
}

fn verify(workspace: &Workspace, succeeds: bool) -> Vec<Value> {
    let mut command = workspace.xpmfs();
    let command = command.args(["--json", "jobs", "verify", "-w", "test", "--all"]);
    let printed = match succeeds {
        true => run(command),
        false => String::from_utf8(fails(command).stdout).unwrap(),
    };
    serde_json::from_str(&printed).unwrap()
}

fn missing(entries: &[Value]) -> usize {
    let of = |entry: &&Value| entry["result"] == "missing";
    entries.iter().filter(of).count()
}

fn check(workspace: &Workspace, mountpoint: Option<&Path>) -> String {
    let mut command = workspace.xpmfs();
    command.args(["status", "--check"]);
    match mountpoint {
        Some(mountpoint) => command.arg(mountpoint),
        None => command.args(["-w", "test"]),
    };
    let output = fails(&mut command);
    String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap()
}

fn a_fresh_directory_is_reported(with_jobs: bool) {
    let (workspace, mountpoint) = archived();
    let mounted = workspace.mount_archiving(&mountpoint, &[]);
    let folder = workspace.folder("backup");
    until("all are archived", || {
        has_all(&folder, 0..JOBS) && is_drained(&workspace, &mountpoint)
    });
    until("they are on record", || is_recorded(&workspace, JOBS));
    replace(&workspace, with_jobs);
    until("status says so", || {
        let report = status(&workspace, &mountpoint);
        report["archive"]["damages"] == JOBS
    });
    let text = told(&workspace, &mountpoint);
    assert!(text.contains("3 copies are damaged or missing"), "{text}");
    assert!(text.contains("the folder had it before"), "{text}");
    assert!(!text.contains("all finished jobs are archived"), "{text}");
    let text = check(&workspace, Some(&mountpoint));
    assert!(text.contains("3 copies are damaged or missing"), "{text}");
    // What the record says has not become what the primary has lost.
    let output = workspace
        .xpmfs()
        .args(["jobs", "recover", "-w", "test", "--all", "--json"])
        .output()
        .unwrap();
    let entries: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    assert!(entries.iter().all(|it| it["job"].is_null()), "{entries:?}");
    // The old directory is back.
    bring_back(&workspace);
    until("nothing is missing any more", || {
        status(&workspace, &mountpoint)["archive"]["damages"] == 0
    });
    assert_eq!(missing(&verify(&workspace, true)), 0);
    mounted.unmount();
    // Not mounted, the fresh directory is seen at once.
    fs::remove_dir_all(workspace.top().join("fresh")).unwrap();
    replace(&workspace, with_jobs);
    let text = check(&workspace, None);
    assert!(text.contains("3 copies are damaged or missing"), "{text}");
    // Found again and again, until the copies are there.
    for _ in 0..2 {
        assert_eq!(missing(&verify(&workspace, false)), JOBS);
        check(&workspace, None);
    }
    fs::create_dir_all(folder.join("jobs")).unwrap();
    run(workspace
        .xpmfs()
        .args(["jobs", "archive", "-w", "test", "--all"]));
    assert_eq!(missing(&verify(&workspace, true)), 0);
    run(workspace.xpmfs().args(["status", "--check", "-w", "test"]));
}

#[test]
fn a_fresh_directory_in_a_folders_place_hides_no_loss() {
    a_fresh_directory_is_reported(false);
}

#[test]
fn a_fresh_directory_with_jobs_in_a_folders_place_hides_no_loss() {
    a_fresh_directory_is_reported(true);
}

/// What is removed through xpmfs is not missing; what is removed by hand, with its manifest, is.
#[test]
fn a_job_that_was_deleted_is_not_missing_and_one_that_was_removed_by_hand_is() {
    let (workspace, mountpoint) = archived();
    let mounted = workspace.mount_archiving(&mountpoint, &[]);
    let folder = workspace.folder("backup");
    until("all are archived", || {
        has_all(&folder, 0..JOBS) && is_drained(&workspace, &mountpoint)
    });
    until("they are on record", || is_recorded(&workspace, JOBS));
    run(workspace
        .xpmfs()
        .args(["jobs", "delete", "--yes", "-w", "test", &job::hash(0)]));
    let manifests = folder.join(".xpmfs/manifests").join(job::TASK);
    let by_hand = job::hash(1);
    fs::remove_dir_all(folder.join(job::path(1))).unwrap();
    fs::remove_file(manifests.join(format!("{by_hand}.json"))).unwrap();
    until("the copy is missing", || {
        status(&workspace, &mountpoint)["archive"]["damages"] == 1
    });
    let text = told(&workspace, &mountpoint);
    assert!(
        text.contains(&by_hand) && !text.contains(&job::hash(0)),
        "{text}"
    );
    // A person ends the report with the job.
    fs::remove_dir_all(workspace.primary().join(job::path(1))).unwrap();
    let named = format!("{}/{by_hand}", job::TASK);
    run(workspace
        .xpmfs()
        .args(["jobs", "delete", "--yes", "-w", "test", &named]));
    assert_eq!(status(&workspace, &mountpoint)["archive"]["damages"], 0);
    assert_eq!(missing(&verify(&workspace, true)), 0);
    mounted.unmount();
}
