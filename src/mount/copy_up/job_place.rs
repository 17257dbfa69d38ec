//! Checks whether the job of a node is still where the node says: other processes move jobs, replace them, and purge them.

use std::ffi::OsStr;
use std::path::PathBuf;

use rustix::fs::Statx;
use rustix::io::{Errno, Result};

use super::Alteration;
use crate::mount::Mount;
use crate::mount::caller::Caller;
use crate::mount::tables::nodes::{INTERNAL, Node, NodeRole};
use crate::sys::at;
use crate::sys::file_id::FileId;
use crate::view::PRIMARY;
use crate::workspace::jobs::JobId;

/// That the job of a node was found in the primary a moment ago, or that the node belongs to no job of the primary.
#[derive(Debug, Clone, Copy)]
pub(in crate::mount) struct StillInPrimary {
    /// The attributes of the job's directory, if it was examined under the job's name.
    pub(in crate::mount) job: Option<Statx>,
}

impl Mount {
    /// Makes sure that the job of a node of the primary is still there: if another process has moved the job to a
    /// folder of the same disk, its files are the same nodes, but belong to an archive. What a purge has left of a job must not
    /// be changed either.
    pub(in crate::mount) fn still_in_primary(&self, node: &Node) -> Result<StillInPrimary> {
        self.job_in_primary(node)?.ok_or(Errno::STALE)
    }

    /// As [`Mount::still_in_primary`], before a change for which a purged job is recovered.
    pub(in crate::mount) fn changeable_in_primary(
        &self,
        caller: &Caller,
        id: u64,
        node: &Node,
        by: Alteration,
    ) -> Result<StillInPrimary> {
        if let Some(found) = self.job_in_primary(node)? {
            return Ok(found);
        }
        match by {
            Alteration::Contents => match self.check_rights_to_copy(caller, id, node) {
                // The purge has removed it: the kernel looks the recovered one up, and checks the rights to that.
                Err(Errno::STALE | Errno::NOENT) => self.check_rights_to_task(caller, node)?,
                checked => checked?,
            },
            Alteration::Attributes => self.check_rights_to_task(caller, node)?,
        }
        Err(self.recovery_needed(caller.tid, node))
    }

    /// Examines the job of a node. Returns `None` if what the primary has of it is only the rest that a purge has left.
    ///
    /// # Errors
    ///
    /// `ESTALE` if another process has moved the job: the kernel looks the path up again, and finds the new location.
    fn job_in_primary(&self, node: &Node) -> Result<Option<StillInPrimary>> {
        let unexamined = Some(StillInPrimary { job: None });
        if node.location != PRIMARY {
            return Ok(unexamined);
        }
        let mut job = node.clone();
        while job.role == NodeRole::Inside {
            job = self.node(job.parent)?;
        }
        if job.role != NodeRole::Job {
            return Ok(unexamined);
        }
        let dir = self.holding(job.parent, PRIMARY)?;
        match at::absent(at::stat(dir, &job.name))? {
            Some(stat) if FileId::of(&stat) == job.identity => {
                let task = self.node(job.parent)?.name;
                let purged = self.view.is_purged_by_now(&task, &job.name, &stat);
                Ok((!purged).then_some(StillInPrimary { job: Some(stat) }))
            }
            _ if self.find_renamed(&job).is_some() => Ok(unexamined),
            _ => Err(Errno::STALE),
        }
    }

    /// The error for a name that the directory `id` lacks: `ENOENT`, or `ESTALE` if the directory's job is elsewhere by now. The kernel
    /// looks the path up again then.
    pub(in crate::mount) fn absence(&self, id: u64, node: &Node, name: &OsStr) -> Errno {
        let Some((job_id, job)) = self.job_above(id, node) else {
            return Errno::NOENT;
        };
        let _asking = self.asking(node.location, NodeRole::Inside);
        let there = self.in_place_of(&job);
        if (node.location, job.location) == (PRIMARY, PRIMARY)
            && let Some(stat) = there
                .as_ref()
                .filter(|stat| FileId::of(stat) == job.identity)
            && let Some(task) = self.nodes.get(job.parent)
            && self.view.is_purged_by_now(&task.name, &job.name, stat)
        {
            // A name that the copy lacks may be about to be created, which ESTALE would make fail.
            let known = self.nodes.path_in_job_of_primary(id);
            let lacks = known.is_some_and(|(job, dir)| self.view.copy_lacks(&job, &dir.join(name)));
            return if lacks { Errno::NOENT } else { Errno::STALE };
        }
        // Another process removes the rest of a moved job, or of a copy that was replaced, name by name.
        match self.is_elsewhere(job_id, &job, |_| there) {
            true => Errno::STALE,
            false => Errno::NOENT,
        }
    }

    /// Whether another entry is in the place of the job of a directory: another process has moved the job from the primary, or has
    /// replaced its copy in a folder. Or whether a purge has left the directory. Returns `false` if the job was removed through the mount:
    /// then the directory is empty, as on a disk.
    pub(in crate::mount) fn is_moved(&self, id: u64, node: &Node) -> bool {
        let job = self.job_above(id, node);
        job.is_some_and(|(id, job)| self.is_elsewhere(id, &job, |job| self.in_place_of(job)))
    }

    /// The same, of the job itself. `there`: what is in its place.
    fn is_elsewhere(
        &self,
        id: u64,
        job: &Node,
        there: impl FnOnce(&Node) -> Option<Statx>,
    ) -> bool {
        if self.is_purged(id) {
            return true;
        }
        match there(job) {
            // Also if it was moved or released, and put back since.
            Some(stat) if FileId::of(&stat) == job.identity => false,
            _ if self.dir_cache.is_moved_job(id) => true,
            Some(_) => self.dir_cache.removed(id).is_none() && self.find_renamed(job).is_none(),
            None => false,
        }
    }

    /// The attributes of what has the name of a job, if it can be examined.
    fn in_place_of(&self, job: &Node) -> Option<Statx> {
        let dir = self.holding(job.parent, job.location).ok()?;
        at::stat(dir, &job.name).ok()
    }

    /// The job to which a directory belongs, with its number; itself, if it is one.
    fn job_above(&self, id: u64, node: &Node) -> Option<(u64, Node)> {
        if node.location == INTERNAL {
            return None;
        }
        let (mut id, mut job) = (id, node.clone());
        while job.role == NodeRole::Inside {
            id = job.parent;
            job = self.nodes.get(id)?;
        }
        (job.role == NodeRole::Job).then_some((id, job))
    }

    /// Whether a node of the primary belongs to a job that is known to be purged, so that a folder serves it.
    pub(in crate::mount) fn is_purged(&self, id: u64) -> bool {
        let is_it =
            |(job, _): (JobId, PathBuf)| self.view.is_known_purged(job.task_id(), job.hash());
        self.view.has_purged_jobs() && self.nodes.path_in_job_of_primary(id).is_some_and(is_it)
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    use rustix::fs::RenameFlags;

    use super::*;
    use crate::mount::ops::setattr::Changes;
    use crate::mount::testing::{Fixture, ROOT_CALLER};
    use crate::settings::Mode;

    const FILE: &str = "dir/file";

    /// The numbers of the directories and of the file in the moved job, and of another job.
    struct Ids {
        dir: u64,
        file: u64,
        other: u64,
    }

    type Operation = fn(&Mount, &Ids) -> Result<()>;

    fn name(name: &str) -> &OsStr {
        OsStr::new(name)
    }

    fn rename(mount: &Mount, from: (u64, &str), to: (u64, &str)) -> Result<()> {
        let (from_name, to_name) = (name(from.1), name(to.1));
        let flags = RenameFlags::empty();
        mount.rename(&ROOT_CALLER, from.0, from_name, to.0, to_name, flags)
    }

    fn change(mount: &Mount, ids: &Ids, changes: &Changes) -> Result<()> {
        let changed = mount.setattr(&ROOT_CALLER, ids.file, None, changes);
        changed.map(drop)
    }

    const OPERATIONS: &[(&str, Operation)] = &[
        ("unlink", |mount, ids| {
            mount.unlink(&ROOT_CALLER, ids.dir, name("file"))
        }),
        ("rmdir", |mount, ids| {
            mount.rmdir(&ROOT_CALLER, ids.dir, name("empty"))
        }),
        ("rename", |mount, ids| {
            rename(mount, (ids.dir, "file"), (ids.dir, "new"))
        }),
        ("rename out of it", |mount, ids| {
            rename(mount, (ids.dir, "file"), (ids.other, "new"))
        }),
        ("rename into it", |mount, ids| {
            rename(mount, (ids.other, "file"), (ids.dir, "new"))
        }),
        ("mkdir", |mount, ids| {
            let made = mount.mkdir(&ROOT_CALLER, ids.dir, name("new"), 0o755);
            made.map(drop)
        }),
        ("symlink", |mount, ids| {
            let made = mount.symlink(&ROOT_CALLER, ids.dir, name("new"), name("target"));
            made.map(drop)
        }),
        ("create", |mount, ids| {
            let flags = libc::O_WRONLY;
            let made = mount.create(&ROOT_CALLER, ids.dir, name("new"), 0o644, flags, None);
            made.map(drop)
        }),
        ("link", |mount, ids| {
            let made = mount.link(&ROOT_CALLER, ids.file, ids.dir, name("new"));
            made.map(drop)
        }),
        ("open to write", |mount, ids| {
            let opened = mount.open(&ROOT_CALLER, ids.file, libc::O_WRONLY | libc::O_TRUNC);
            opened.map(drop)
        }),
        ("truncate", |mount, ids| {
            let empty = Changes {
                size: Some(0),
                ..Changes::default()
            };
            change(mount, ids, &empty)
        }),
        ("chmod", |mount, ids| {
            let private = Changes {
                mode: Some(0o600),
                ..Changes::default()
            };
            change(mount, ids, &private)
        }),
    ];

    /// As the first operation after the move: the kernel has looked nothing up again.
    #[test]
    fn nothing_is_changed_in_a_job_that_another_process_has_moved() {
        for (what, operation) in OPERATIONS {
            let directories = [
                "primary/jobs/t/h/dir/empty",
                "primary/jobs/t/other",
                "folder/jobs/t",
            ];
            let fixture = Fixture::new(Mode::Backup, &directories);
            let (job, archived) = (
                fixture.primary("jobs/t/h"),
                fixture.top().join("folder/jobs/t/h"),
            );
            fs::write(job.join(FILE), "contents").unwrap();
            fs::set_permissions(job.join(FILE), Permissions::from_mode(0o644)).unwrap();
            fs::write(fixture.primary("jobs/t/other/file"), "").unwrap();
            let nodes = fixture.look_up("jobs/t/h/dir/file");
            let ids = Ids {
                dir: nodes[4],
                file: nodes[5],
                other: fixture.look_up("jobs/t/other")[3],
            };
            fixture.look_up("jobs/t/other/file");
            fixture.look_up("jobs/t/h/dir/empty");
            // On one disk, every file stays the inode that it is.
            fs::rename(&job, &archived).unwrap();
            let refused = operation(&fixture.mount, &ids);
            assert!(refused.is_err(), "{what}");
            let mut left: Vec<_> = fs::read_dir(archived.join("dir"))
                .unwrap()
                .map(|entry| entry.unwrap().file_name())
                .collect();
            left.sort();
            assert_eq!(left, ["empty", "file"], "{what}");
            assert_eq!(
                fs::read(archived.join(FILE)).unwrap(),
                b"contents",
                "{what}"
            );
            let mode = fs::metadata(archived.join(FILE)).unwrap().mode();
            assert_eq!(mode & 0o777, 0o644, "{what}");
        }
    }
}
