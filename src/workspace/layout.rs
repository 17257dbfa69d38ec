//! The fixed names at the top of a workspace, and whether a directory is one.

use std::io;
use std::os::fd::AsFd;

use rustix::fs::{AtFlags, FileType, statat};
use rustix::io::Errno;

/// The empty file by which experimaestro knows its workspaces; written when a first run starts.
pub const MARKER: &str = ".__experimaestro__";
/// The jobs, `jobs/<task_id>/<hash>/`; also in folders.
pub const JOBS: &str = "jobs";
/// The experiments of the present layout (v2), `experiments/<id>/<run>/`.
pub const EXPERIMENTS: &str = "experiments";
/// The experiments of the old layout (v1), `xp/<id>/`.
pub const XP: &str = "xp";
/// In an experiment of the old layout: the jobs of the run before.
pub const JOBS_BAK: &str = "jobs.bak";
/// Event files of what runs now.
pub const EVENTS: &str = ".events";
/// Logs of experimaestro's scheduler.
pub const SCHEDULER: &str = ".scheduler";
/// What experimaestro keeps in a job about it.
pub const JOB_STATE: &str = ".experimaestro";
/// xpmfs's own state, in a primary and in the folders that it writes to.
pub const XPMFS: &str = ".xpmfs";
/// How the name of a copy that still grows starts: `.tmp.<hash>`.
pub const STAGING_PREFIX: &str = ".tmp.";

/// What a directory looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Recognition {
    /// experimaestro has marked it as a workspace.
    Workspace,
    /// Not marked, but it has a directory of jobs or experiments: a folder, or a workspace without its
    /// marker.
    Unmarked,
    /// Nothing of a workspace is there, as in a new, empty one.
    Neither,
}

/// Tells whether `directory` is a workspace.
///
/// The marker counts as in experimaestro's `check_xp_path`; symlinks are not followed.
///
/// # Errors
///
/// The system's, if it cannot tell.
pub fn recognise(directory: impl AsFd) -> io::Result<Recognition> {
    if kind(&directory, MARKER)? == Some(FileType::RegularFile) {
        return Ok(Recognition::Workspace);
    }
    for name in [JOBS, EXPERIMENTS, XP] {
        // People put `jobs` itself on another disk: a symlink counts, whatever it leads to.
        let kind = kind(&directory, name)?;
        if matches!(kind, Some(FileType::Directory | FileType::Symlink)) {
            return Ok(Recognition::Unmarked);
        }
    }
    Ok(Recognition::Neither)
}

fn kind(directory: impl AsFd, name: &str) -> io::Result<Option<FileType>> {
    match statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(FileType::from_raw_mode(stat.st_mode))),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, File};

    #[test]
    fn a_workspace_is_recognised_by_its_marker_or_its_directories() {
        let dir = tempfile::tempdir().unwrap();
        let look = || recognise(File::open(dir.path()).unwrap()).unwrap();
        assert_eq!(look(), Recognition::Neither);
        fs::write(dir.path().join(JOBS), "a file").unwrap();
        assert_eq!(look(), Recognition::Neither);
        fs::create_dir(dir.path().join(XP)).unwrap();
        assert_eq!(look(), Recognition::Unmarked);
        fs::create_dir(dir.path().join(MARKER)).unwrap();
        assert_eq!(look(), Recognition::Unmarked);
        fs::remove_dir(dir.path().join(MARKER)).unwrap();
        fs::write(dir.path().join(MARKER), "").unwrap();
        assert_eq!(look(), Recognition::Workspace);
    }

    #[test]
    fn what_is_no_directory_is_an_error() {
        assert!(recognise(tempfile::tempfile().unwrap()).is_err());
    }
}
