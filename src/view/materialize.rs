//! Directories that the view shows because a folder has them, made in the primary when something
//! is to be put there.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::Mode;
use rustix::io::{Errno, Result};

use super::location::Role;
use super::{Location, View};
use crate::settings;
use crate::sys::{at, shared_dir};

impl View {
    /// The primary's `jobs/`, made if need be, with the rights and the group of the primary's own directory.
    ///
    /// # Errors
    ///
    /// The error of the primary's file system.
    pub fn make_jobs(&self) -> Result<Arc<OwnedFd>> {
        let root = self.primary().root()?;
        match root.jobs() {
            Err(Errno::NOENT) => {
                let rights = Mode::from_raw_mode(rustix::fs::fstat(root.fd())?.st_mode & 0o7777);
                shared_dir::make_dir(root.fd(), OsStr::new("jobs"), rights)?;
                root.jobs()
            }
            result => result,
        }
    }

    /// The primary's `jobs/<task>/`, made if need be, with the rights and the group that it shows as served by `location`, so
    /// that the view goes on showing them. A `use` folder says only who may look: the primary's `jobs/` says who may write.
    ///
    /// # Errors
    ///
    /// The error of the primary's file system.
    pub fn make_task(&self, task: &OsStr, location: u8) -> Result<OwnedFd> {
        // Not a kept one: what is made in a directory that was removed meanwhile is lost.
        let jobs = self.make_jobs()?;
        if let Some(found) = at::absent(at::open_dir(&jobs, task))? {
            shared_dir::await_shared(&found);
            return Ok(found);
        }
        let stat = rustix::fs::fstat(&*jobs)?;
        let shown = self
            .location(location)
            .and_then(|folder| Shown::of(folder, task));
        let (group, rights) = match shown {
            Some(shown) => shown.in_primary(stat.st_mode, stat.st_gid),
            None => (stat.st_gid, Mode::from_raw_mode(stat.st_mode & 0o7777)),
        };
        shared_dir::make_shared(&jobs, task, group, rights)
    }
}

/// The rights and the group of a task's directory in a folder.
#[derive(Debug)]
struct Shown {
    mode: u32,
    group: u32,
    /// Whether it is a `use` folder's.
    used: bool,
}

/// The rights to write of all.
const WRITE: u32 = 0o222;

impl Shown {
    /// `None` if the folder does not have the task any more.
    fn of(folder: &Location, task: &OsStr) -> Option<Shown> {
        let root = folder.root().ok()?;
        let _asking = folder.asking();
        let dir = root.task(task).ok()?;
        let stat = rustix::fs::fstat(&*dir).ok()?;
        Some(Shown {
            mode: stat.st_mode & 0o7777,
            group: stat.st_gid,
            used: folder.role() == Role::Folder(settings::Mode::Use),
        })
    }

    /// The group and the rights that the task has in the primary, whose `jobs/` has this mode and group.
    fn in_primary(&self, jobs: u32, jobs_group: u32) -> (u32, Mode) {
        let rights = match self.used {
            false => return (self.group, Mode::from_raw_mode(self.mode | 0o700)),
            // To the folder, a group of another number is among all others.
            true if self.group != jobs_group => self.mode & 0o707 | (self.mode & 0o007) << 3,
            true => self.mode & 0o777,
        };
        // Users who may enter it may also write to it, if `jobs/` permits that.
        let write = (rights & 0o111) << 1 & jobs & WRITE;
        (
            jobs_group,
            Mode::from_raw_mode(rights | write | jobs & 0o7000 | 0o700),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_keeps_the_rights_that_a_folder_shows() {
        let lab = 7;
        for (mode, group, used, jobs, expected) in [
            // A folder of the workspace's own: exactly.
            (0o2775, lab, false, 0o2775, (lab, 0o2775)),
            (0o2750, lab, false, 0o2775, (lab, 0o2750)),
            (0o2770, 8, false, 0o2775, (8, 0o2770)),
            (0o555, lab, false, 0o755, (lab, 0o755)),
            // A colleague's: who may look there, and who may write here.
            (0o755, lab, true, 0o2775, (lab, 0o2775)),
            (0o755, 8, true, 0o2775, (lab, 0o2775)),
            (0o750, 8, true, 0o2775, (lab, 0o2700)),
            (0o555, lab, true, 0o755, (lab, 0o755)),
        ] {
            let shown = Shown { mode, group, used };
            let (group, rights) = shown.in_primary(jobs, lab);
            assert_eq!(
                (group, rights.as_raw_mode()),
                expected,
                "{shown:?} {jobs:o}"
            );
        }
    }
}
