//! A purge by age does not take xpmfs's own records, as long as a mount renews them.

use std::fs::{self, File, FileTimes};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde_json::Value;

use crate::common::{Workspace, eventually, run};
use crate::mounted::{hash, job};
use crate::scratch::{Random, TASK, files, write_job};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// The age from which files are purged.
const PURGED: Duration = Duration::from_secs(30 * 24 * 3600);

fn id(number: usize) -> String {
    format!("{TASK}/{}", hash(number))
}

/// A workspace whose jobs are archived with manifests.
fn archived(jobs: usize) -> Workspace {
    let workspace = Workspace::builder()
        .folders(&["backup"])
        .keys("{settle: 0s, scan_interval: 1h}")
        .build();
    for number in 0..jobs {
        write_job(&job(&workspace, number), &mut Random(61 + number as u64));
    }
    command(&workspace, &["jobs", "archive", "--all"]);
    workspace
}

fn command(workspace: &Workspace, arguments: &[&str]) -> String {
    run(workspace.xpmfs().args(arguments).args(["-w", "test"]))
}

/// The records in the primary's `.xpmfs`.
fn records(workspace: &Workspace) -> Vec<PathBuf> {
    let top = workspace.primary().join(".xpmfs");
    let found = files(&top).into_iter().map(|name| top.join(name));
    found.collect()
}

fn make_old(workspace: &Workspace) {
    let then = SystemTime::now() - PURGED * 2;
    let times = FileTimes::new().set_accessed(then).set_modified(then);
    for record in records(workspace) {
        File::open(record).unwrap().set_times(times).unwrap();
    }
}

/// How long ago a file was last accessed or last changed, whichever is longer.
fn age(path: &Path) -> Duration {
    let meta = fs::metadata(path).unwrap();
    let times = [meta.accessed().unwrap(), meta.modified().unwrap()];
    let ages = times.map(|time| time.elapsed().unwrap_or_default());
    ages[0].max(ages[1])
}

/// Removes everything of the workspace that was not accessed for long, file by file; and records that were not changed for long.
fn purge_old(workspace: &Workspace) -> usize {
    let all = files(&workspace.primary()).into_iter();
    let is_old = |name: &PathBuf| {
        let path = workspace.primary().join(name);
        let by_access = || path.metadata().unwrap().accessed().unwrap().elapsed();
        let age = match name.starts_with(".xpmfs") {
            true => age(&path),
            false => by_access().unwrap_or_default(),
        };
        age > PURGED
    };
    let old = all
        .filter(|name| !workspace.primary().join(name).is_symlink() && is_old(name))
        .map(|name| workspace.primary().join(name));
    old.map(|path| fs::remove_file(path).unwrap()).count()
}

fn location(workspace: &Workspace, number: usize) -> String {
    let found = run(workspace
        .xpmfs()
        .args(["--json", "jobs", "where", "-w", "test", &id(number)]));
    let found: Value = serde_json::from_str(&found).unwrap();
    found[0]["served"].as_str().unwrap().to_owned()
}

fn assert_remembered(workspace: &Workspace) {
    assert_eq!(location(workspace, 0), "primary");
    let found = command(workspace, &["jobs", "where", &id(0)]);
    assert!(found.contains("data/model.bin"), "{found}");
    let released = workspace
        .xpmfs()
        .args(["--json", "jobs", "release", "--yes", "-w", "test", &id(1)])
        .output()
        .unwrap();
    let released: Value = serde_json::from_slice(&released.stdout).unwrap();
    assert!(released.to_string().contains("pinned"), "{released}");
    assert!(job(workspace, 1).join("params.json").exists());
}

#[test]
fn a_mount_keeps_records_that_a_purge_by_age_would_remove() {
    let workspace = archived(3);
    let mountpoint = workspace.mountpoint("elsewhere");
    let mounted = workspace.mount_at(&mountpoint);
    fs::remove_file(mounted.job(TASK, &hash(0)).join("data/model.bin")).unwrap();
    eventually("the jobs of the folder are recorded", || {
        let known = workspace.primary().join(".xpmfs/archive/known");
        known.exists() && !files(&known).is_empty()
    });
    mounted.unmount();
    command(&workspace, &["jobs", "pin", &id(1)]);
    make_old(&workspace);
    let needed: Vec<PathBuf> = records(&workspace)
        .into_iter()
        .filter(|path| !path.components().any(|name| name.as_os_str() == "stamps"))
        .collect();
    for kind in ["pins", "removed", "known", "folders"] {
        let is_there = |path: &PathBuf| path.to_string_lossy().contains(kind);
        assert!(needed.iter().any(is_there), "{kind}: {needed:?}");
    }
    let mounted = workspace.mount_at(&mountpoint);
    eventually("the records are renewed", || {
        needed.iter().all(|record| age(record) < DAY)
    });
    // The user still works with these two jobs.
    for number in [0, 1] {
        let now = SystemTime::now();
        for name in files(&job(&workspace, number)) {
            let path = job(&workspace, number).join(name);
            if !path.is_symlink() {
                let file = File::open(path).unwrap();
                let modified = file.metadata().unwrap().modified().unwrap();
                let times = FileTimes::new().set_accessed(now).set_modified(modified);
                file.set_times(times).unwrap();
            }
        }
    }
    fs::remove_file(job(&workspace, 0).join("train.out")).unwrap();
    assert!(purge_old(&workspace) > 0);
    assert!(needed.iter().all(|record| record.exists()));
    eventually("the purge is noticed", || {
        mounted.location(mounted.job(TASK, &hash(2))) == "backup"
    });
    assert_eq!(mounted.location(mounted.job(TASK, &hash(0))), "primary");
    mounted.unmount();
    assert_remembered(&workspace);
}

#[test]
fn an_archive_without_a_mount_keeps_them_too() {
    let workspace = archived(1);
    command(&workspace, &["jobs", "pin", &id(0)]);
    make_old(&workspace);
    let pin = workspace
        .primary()
        .join(".xpmfs/pins")
        .join(TASK)
        .join(hash(0));
    assert!(age(&pin) > PURGED);
    command(&workspace, &["archive"]);
    assert!(age(&pin) < DAY);
}

/// What is lost with the records, if no mount renewed them: removed files come back, and pinned jobs may be released. No more.
#[test]
fn without_its_records_a_workspace_loses_no_job() {
    let workspace = archived(3);
    let mountpoint = workspace.mountpoint("elsewhere");
    let mounted = workspace.mount_at(&mountpoint);
    let shown = |number| mounted.job(TASK, &hash(number));
    fs::remove_file(shown(0).join("data/model.bin")).unwrap();
    command(&workspace, &["jobs", "pin", &id(1)]);
    assert_eq!(mounted.location(shown(0)), "primary");
    for record in records(&workspace) {
        fs::remove_file(record).unwrap();
    }
    fs::remove_file(job(&workspace, 2).join("train.out")).unwrap();
    // Also while it is mounted: a new removal is recorded, and jobs of the folder are recorded again.
    fs::remove_file(shown(1).join("train.out")).unwrap();
    eventually("the jobs of the folder are recorded", || {
        let known = workspace.primary().join(".xpmfs/archive/known");
        known.exists() && !files(&known).is_empty()
    });
    for (number, expected) in [(0, "backup"), (1, "primary"), (2, "backup")] {
        eventually("the records are not missed", || {
            mounted.location(shown(number)) == expected
        });
    }
    assert!(shown(0).join("data/model.bin").exists());
    mounted.unmount();
    let mounted = workspace.mount_at(&mountpoint);
    for (number, expected) in [(0, "backup"), (1, "primary"), (2, "backup")] {
        let shown = mounted.job(TASK, &hash(number));
        assert_eq!(mounted.location(&shown), expected, "{number}");
    }
    mounted.unmount();
    command(&workspace, &["jobs", "recover", "--all"]);
    assert!(job(&workspace, 0).join("data/model.bin").exists());
    assert!(!job(&workspace, 1).join("train.out").exists());
}
