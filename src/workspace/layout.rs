//! The fixed names at the top of a workspace, and whether a directory is one.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{AtFlags, FileType, statat};
use rustix::io::Errno;

/// The empty file by which experimaestro recognises its workspaces; its first run writes it.
pub const MARKER: &str = ".__experimaestro__";
/// The jobs, `jobs/<task_id>/<hash>/`; also in folders.
pub const JOBS: &str = "jobs";
/// The experiments of the present layout (v2), `experiments/<id>/<run>/`.
pub const EXPERIMENTS: &str = "experiments";
/// Directories that jobs share, `partials/<task_id>/<partial>/<identifier>/`.
pub const PARTIALS: &str = "partials";
/// The experiments of the old layout (v1), `xp/<id>/`.
pub const XP: &str = "xp";
/// In an experiment of the old layout: the jobs of the previous run.
pub const JOBS_BAK: &str = "jobs.bak";
/// Event files of running jobs.
pub const EVENTS: &str = ".events";
/// Logs of experimaestro's scheduler.
pub const SCHEDULER: &str = ".scheduler";
/// The directory in a job that experimaestro keeps about it.
pub const JOB_STATE: &str = ".experimaestro";
/// The file in a job with its parameters and the path of its workspace.
pub const PARAMS: &str = "params.json";
/// The file in [`JOB_STATE`] that opts a job out of archiving.
pub const OPT_OUT_FILE: &str = "no-backup";
/// xpmfs's own state, in a primary and in the folders to which it writes.
pub const XPMFS: &str = ".xpmfs";
/// Below [`XPMFS`]: the internal files of jobs that a folder serves.
pub const INTERNAL_DIR: &str = "internal";
/// Below [`XPMFS`]: the directories of released jobs, until they are removed: `<task_id>/<hash>`.
pub const RELEASED: &str = "released";
/// Below [`XPMFS`]: deleted jobs, until they are removed for good.
pub const TRASH: &str = "trash";
/// The directory of manifests, in a folder's `.xpmfs`.
pub const MANIFESTS: &str = "manifests";
/// Below [`XPMFS`] in a primary: the state of archiving.
pub const ARCHIVE: &str = "archive";
/// Below [`ARCHIVE`]: the times of the directories of archived jobs, by which a purge shows.
pub const STAMPS: &str = "stamps";
/// The start of the name of an unfinished copy: `.tmp.<hash>`.
pub const STAGING_PREFIX: &str = ".tmp.";

/// The name of a folder in [`ARCHIVE`]: other nodes may have other folders in another order.
#[must_use]
pub fn folder_name(folder: &Path) -> String {
    let hash = blake3::hash(folder.as_os_str().as_bytes());
    hash.to_hex().to_string()
}

/// Whether a directory is a workspace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Recognition {
    /// experimaestro has marked it as a workspace.
    Workspace,
    /// Not marked, but it has a directory of jobs or experiments: a folder, or a workspace without its
    /// marker.
    Unmarked,
    /// It has nothing of a workspace, as a new, empty one.
    Neither,
}

/// Returns whether `directory` is a workspace.
///
/// The marker counts as in experimaestro's `check_xp_path`; symlinks are not followed.
///
/// # Errors
///
/// The system's error, if the directory cannot be read.
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
    fn a_file_in_place_of_the_directory_is_an_error() {
        assert!(recognise(tempfile::tempfile().unwrap()).is_err());
    }
}
