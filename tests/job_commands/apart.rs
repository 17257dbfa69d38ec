//! Folders that are the workspace, or each other, under another name: no job is moved to where it lies, and nobody says that it
//! has a second copy.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use super::common::is_root;
use super::common::run;
use super::stage::{Stage, TASK, assert_tree, job_id, said, whole, write_job};

/// Something mounted at a second place, until this is dropped.
struct Bound<'a>(&'a Path);

impl Bound<'_> {
    fn new<'a>(directory: &Path, at: &'a Path) -> Bound<'a> {
        let mut mount = std::process::Command::new("mount");
        run(mount.arg("--bind").arg(directory).arg(at));
        Bound(at)
    }
}

impl Drop for Bound<'_> {
    fn drop(&mut self) {
        let mut umount = std::process::Command::new("umount");
        let _ = umount.arg("-l").arg(self.0).output();
    }
}

/// Archives in every way, which must fail and say why, and leave the job alone.
fn assert_refused(stage: &Stage, what: &str) {
    let job = whole(&stage.job()).unwrap();
    let named = job_id();
    for arguments in [
        &["archive", "--all"][..],
        &["archive", &named],
        &["archive", "--force", &named],
        &["verify", "--all"],
    ] {
        let output = stage.jobs(arguments);
        assert_eq!(output.status.code(), Some(1), "{what}: {arguments:?}");
        let text = String::from_utf8_lossy(&output.stdout).into_owned() + &said(&output);
        assert!(
            text.contains("under another name"),
            "{what}: {arguments:?}: {text}"
        );
        assert!(!stage.job().is_symlink(), "{what}");
        assert_tree(what, &job, whole(&stage.job()).as_ref());
    }
}

#[test]
fn a_folder_whose_jobs_are_the_workspace_s_own_takes_none() {
    for mode in ["backup", "move"] {
        let stage = Stage::new(&[mode]);
        write_job(&stage.job());
        let (jobs, theirs) = (
            stage.primary().join("jobs"),
            stage.folder(mode).join("jobs"),
        );
        symlink(&jobs, &theirs).unwrap();
        assert_refused(&stage, "a symlink in the folder");
        // The other way round: the jobs of the workspace lie on a larger disk.
        fs::remove_file(&theirs).unwrap();
        fs::rename(&jobs, &theirs).unwrap();
        symlink(&theirs, &jobs).unwrap();
        assert_refused(&stage, "a symlink in the workspace");
    }
}

#[test]
fn a_folder_that_is_mounted_from_the_workspace_takes_no_job() {
    if !is_root() {
        return;
    }
    for mode in ["backup", "move"] {
        let stage = Stage::new(&[mode]);
        write_job(&stage.job());
        let (folder, primary) = (stage.folder(mode), stage.primary());
        {
            let _bound = Bound::new(&primary, &folder);
            assert_refused(&stage, "the workspace");
        }
        let task = folder.join("jobs").join(TASK);
        fs::create_dir_all(&task).unwrap();
        let _bound = Bound::new(&primary.join("jobs").join(TASK), &task);
        let output = stage.jobs(&["archive", "--all"]);
        assert!(!output.status.success() && said(&output).contains("under another name"));
        assert!(!stage.job().is_symlink() && whole(&stage.job()).is_some());
    }
}

#[test]
fn two_folders_that_are_one_are_not_taken_for_two_copies() {
    let stage = Stage::new(&["backup", "move"]);
    write_job(&stage.job());
    fs::create_dir(stage.folder("backup").join("jobs")).unwrap();
    symlink(
        stage.folder("backup").join("jobs"),
        stage.folder("move").join("jobs"),
    )
    .unwrap();
    assert_refused(&stage, "two folders");
}
