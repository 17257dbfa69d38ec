//! What a power cut leaves in a folder is put in order by the next start, also of jobs that nothing is copied of any more.

use std::fs;
use std::path::PathBuf;

use crate::common::{Workspace, fails, run};
use crate::job::{self, hash};
use crate::stage::{assert_whole, is_drained, staging, until, verify_all};

fn manifest(workspace: &Workspace, mode: &str, number: usize) -> PathBuf {
    let name = format!("{}.json", hash(number));
    let manifests = workspace.folder(mode).join(".xpmfs/manifests");
    manifests.join(job::TASK).join(name)
}

fn archive_all(workspace: &Workspace) {
    let mut archive = workspace.xpmfs();
    run(archive.args(["jobs", "archive", "--all", "-w", "test"]));
}

/// Mounts, and unmounts when all is archived.
fn start_and_drain(workspace: &Workspace) {
    let mountpoint = workspace.mountpoint("elsewhere");
    let mounted = workspace.mount_archiving(&mountpoint, &[]);
    run(workspace
        .xpmfs()
        .args(["umount", "--drain"])
        .arg(&mountpoint));
    drop(mounted);
}

#[test]
fn copies_that_were_never_completed_are_removed_where_all_jobs_are_moved() {
    let workspace = Workspace::new();
    workspace.with_folders(&["move"]);
    workspace.tune("{settle: 0s, scan_interval: 1h}");
    job::make(&workspace.primary(), 0);
    let expected = job::tree(&workspace.primary().join(job::path(0)));
    archive_all(&workspace);
    assert!(workspace.primary().join(job::path(0)).is_symlink());
    let folder = workspace.folder("move");
    let left = || {
        job::make(&folder, 1);
        let task = folder.join("jobs").join(job::TASK);
        fs::rename(task.join(hash(1)), task.join(format!(".tmp.{}", hash(1)))).unwrap();
        fs::write(task.join(format!(".tmp.{}.lock", hash(1))), "").unwrap();
        let staged = manifest(&workspace, "move", 0).with_file_name(format!(".{}.new", hash(1)));
        fs::write(&staged, "").unwrap();
        staged
    };
    let gone = |staged: PathBuf| {
        assert_eq!(staging(&folder), [] as [String; 0]);
        assert!(!staged.exists());
        assert_whole(&folder, 0..1, |_| expected.clone());
    };
    let staged = left();
    start_and_drain(&workspace);
    gone(staged);
    let staged = left();
    archive_all(&workspace);
    gone(staged);
}

#[test]
fn manifests_that_are_empty_are_made_anew() {
    let workspace = Workspace::new();
    workspace.with_folders(&["backup"]);
    workspace.tune("{settle: 0s, scan_interval: 1h}");
    for number in 0..4 {
        job::make(&workspace.primary(), number);
    }
    archive_all(&workspace);
    let as_it_was = fs::read(manifest(&workspace, "backup", 0)).unwrap();
    let cut = || {
        for (number, left) in [
            (0, &b""[..]),
            (1, &[0; 300]),
            (2, b"{\"version\": 1, \"ha"),
            (3, b""),
        ] {
            fs::write(manifest(&workspace, "backup", number), left).unwrap();
        }
    };
    // One that the primary has, one that it has lost, one that a purge has left a part of, and one whose other run has not ended.
    fs::remove_dir_all(workspace.primary().join(job::path(1))).unwrap();
    fs::remove_file(workspace.primary().join(job::path(2)).join("model.bin")).unwrap();
    fs::remove_file(workspace.primary().join(job::path(3)).join("train.done")).unwrap();
    cut();
    fails(
        workspace
            .xpmfs()
            .args(["jobs", "verify", "--all", "-w", "test"]),
    );
    start_and_drain(&workspace);
    verify_all(&workspace, 4);
    assert_eq!(
        fs::read(manifest(&workspace, "backup", 0)).unwrap(),
        as_it_was
    );
    cut();
    archive_all(&workspace);
    verify_all(&workspace, 4);
}

#[test]
fn a_damaged_copy_does_not_become_its_own_proof() {
    let workspace = Workspace::new();
    workspace.with_folders(&["backup"]);
    workspace.tune("{settle: 0s, scan_interval: 1h}");
    job::make(&workspace.primary(), 0);
    archive_all(&workspace);
    let model = workspace
        .folder("backup")
        .join(job::path(0))
        .join("model.bin");
    let time = fs::metadata(&model).unwrap().modified().unwrap();
    let mut content = fs::read(&model).unwrap();
    content[0] ^= 1;
    fs::write(&model, content).unwrap();
    let file = fs::File::options().write(true).open(&model).unwrap();
    file.set_modified(time).unwrap();
    fs::write(manifest(&workspace, "backup", 0), "").unwrap();
    let mountpoint = workspace.mountpoint("elsewhere");
    let mounted = workspace.mount_archiving(&mountpoint, &[]);
    // The primary has it whole, and so it is copied again.
    until("the copy is what the job is", || {
        is_drained(&workspace, &mountpoint) && job::look_at(&model.with_file_name(""), 0).is_ok()
    });
    drop(mounted);
    archive_all(&workspace);
    verify_all(&workspace, 1);
}
