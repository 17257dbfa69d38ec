//! The one place that decides what becomes of a change to a job that a folder serves.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags, Statx};
use rustix::io::{Errno, Result};

use super::Mount;
use super::identity::Identity;
use super::nodes::{INTERNAL, Node, Role};
use super::place::{Dir, Job};
use crate::view::change::{Change, Verdict, judge};
use crate::view::{PRIMARY, beneath};

/// Where something is going to be made.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) dir: Dir,
    pub(super) place: u8,
    /// The role of the node that it is made below; see [`Target::role`].
    parent: Role,
}

impl Target {
    /// A directory and the place it belongs to, below a parent of this role.
    pub(super) fn known(dir: Dir, place: u8, parent: Role) -> Target {
        Target { dir, place, parent }
    }

    /// What the thing that is made is to the view.
    pub(super) fn role(&self, name: &OsStr, directory: bool) -> Role {
        match self.parent {
            Role::Root if directory && name == "jobs" => Role::Jobs,
            Role::Jobs if directory => Role::Task,
            Role::Task if directory => Role::Job,
            Role::Job | Role::Inside => Role::Inside,
            _ => Role::Outside,
        }
    }
}

impl Mount {
    /// Where a new `name` below `parent` is to be made; `directory` tells what it will be. Nothing
    /// is said of whether the name is free, other than by a folder.
    pub(super) fn target(&self, parent: u64, name: &OsStr, directory: bool) -> Result<Target> {
        let node = self.node(parent)?;
        let in_primary = |dir| Target {
            dir,
            place: PRIMARY,
            parent: node.role,
        };
        match node.role {
            Role::Root if name == crate::view::internal::STATE_DIR => Err(Errno::PERM),
            Role::Root => Ok(in_primary(self.primary_dir()?)),
            Role::Jobs => Ok(in_primary(self.view.make_jobs()?.into())),
            Role::Task => Ok(in_primary(self.view.make_task(&node.name)?.into())),
            Role::Job | Role::Inside | Role::Outside => {
                self.target_inside(parent, &node, name, directory)
            }
        }
    }

    fn target_inside(
        &self,
        parent: u64,
        node: &Node,
        name: &OsStr,
        directory: bool,
    ) -> Result<Target> {
        if node.place == PRIMARY || node.place == INTERNAL {
            return Ok(Target {
                dir: self.directory(parent)?,
                place: node.place,
                parent: node.role,
            });
        }
        let internal = node.role == Role::Job && self.would_be_internal(node, name, directory)?;
        match judge(node.place, internal, Change::Alter) {
            Verdict::Internal => {
                let job = self.job(node)?;
                let dir = self.view.make_internal_dir(&job.task, &job.hash)?;
                Ok(Target {
                    dir: dir.into(),
                    place: INTERNAL,
                    parent: node.role,
                })
            }
            Verdict::Refuse(error) => Err(error),
            Verdict::Go | Verdict::Recover => {
                self.recover(node)?;
                self.target(parent, name, directory)
            }
        }
    }

    fn would_be_internal(&self, job: &Node, name: &OsStr, directory: bool) -> Result<bool> {
        use std::os::unix::ffi::OsStrExt;
        let task = self.node(job.parent)?.name;
        let job_name = crate::workspace::job_name(&task);
        Ok(crate::workspace::is_internal(
            name.as_bytes(),
            job_name,
            directory,
            0,
        ))
    }

    /// Makes sure that a node may be changed where it lies, and returns it as it is then.
    pub(super) fn alterable(&self, id: u64) -> Result<Node> {
        let node = self.node(id)?;
        if node.place == PRIMARY || node.place == INTERNAL {
            return Ok(node);
        }
        let parent = self.node(node.parent)?;
        let internal = parent.role == Role::Job && {
            let stat = self.stat(id)?.1;
            !node.directory && self.is_internal(&parent, &node.name, Some(&stat))?
        };
        match judge(node.place, internal, Change::Alter) {
            Verdict::Internal => self.internalize(id, &node, &parent),
            Verdict::Refuse(error) => Err(error),
            Verdict::Go | Verdict::Recover => {
                self.recover(&node)?;
                self.node(id)
            }
        }
    }

    /// Brings the job back that a node belongs to, once, so that it can be changed in the primary.
    /// Until that can be done, an archived job cannot be changed through the view.
    #[allow(clippy::unused_self, clippy::unnecessary_wraps)]
    fn recover(&self, _node: &Node) -> Result<()> {
        Err(Errno::ROFS)
    }

    /// Gives a job that a folder serves an internal file of its own, in the primary, with the
    /// contents of the one that the folder has.
    fn internalize(&self, id: u64, node: &Node, job: &Node) -> Result<Node> {
        let archived = self.open_verified(id, OFlags::RDONLY)?;
        let Job { task, hash } = self.job(job)?;
        let dir = self.view.make_internal_dir(&task, &hash)?;
        let stat = match beneath::absent(beneath::stat(&dir, &node.name))? {
            Some(stat) => stat,
            None => copy_small(&archived, &dir, &node.name)?,
        };
        let internal = Node {
            identity: Identity::of(&stat),
            place: INTERNAL,
            ..node.clone()
        };
        self.nodes.update(id, internal);
        self.node(id)
    }
}

/// Copies an internal file; it appears under its name when it is whole.
fn copy_small(from: &OwnedFd, dir: &OwnedFd, name: &OsStr) -> Result<Statx> {
    let mode = rustix::fs::fstat(from)?.st_mode & 0o777 | 0o600;
    let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC;
    let to = rustix::fs::openat(dir, ".", flags, Mode::from_raw_mode(mode))?;
    let mut buffer = vec![0; 64 * 1024];
    let mut offset = 0;
    loop {
        let count = rustix::io::pread(from, &mut *buffer, offset)?;
        if count == 0 {
            break;
        }
        let mut rest = buffer.get(..count).ok_or(Errno::IO)?;
        while !rest.is_empty() {
            let written = rustix::io::write(&to, rest)?;
            rest = rest.get(written..).ok_or(Errno::IO)?;
        }
        offset += count as u64;
    }
    let flags = rustix::fs::AtFlags::SYMLINK_FOLLOW;
    match rustix::fs::linkat(
        rustix::fs::CWD,
        super::sys::proc_path(&to),
        dir,
        name,
        flags,
    ) {
        // Another was faster; its file is the job's now.
        Ok(()) | Err(Errno::EXIST) => beneath::stat(dir, name),
        Err(error) => Err(error),
    }
}
