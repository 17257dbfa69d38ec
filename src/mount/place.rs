//! From a node to the directory and the name where it lies.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{Mode, OFlags, Statx};
use rustix::io::{Errno, Result};

use super::identity::ROOT;
use super::nodes::{INTERNAL, Node, Role};
use super::{Mount, places};
use crate::sys::at;
use crate::sys::file_id::FileId;
use crate::sys::name::Name;
use crate::view::internal::Holder;
use crate::view::{PRIMARY, Root};
use crate::workspace::layout;

/// A directory to work in.
#[derive(Debug, Clone)]
pub(super) enum Dir {
    Cached(Arc<OwnedFd>),
    Location(Arc<Root>),
}

impl From<OwnedFd> for Dir {
    fn from(fd: OwnedFd) -> Dir {
        Dir::Cached(Arc::new(fd))
    }
}

impl From<Arc<OwnedFd>> for Dir {
    fn from(fd: Arc<OwnedFd>) -> Dir {
        Dir::Cached(fd)
    }
}

impl AsFd for Dir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Dir::Cached(fd) => fd.as_fd(),
            Dir::Location(root) => root.fd(),
        }
    }
}

/// Where something lies: a name in a directory.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) dir: Dir,
    pub(super) name: Name,
}

impl Mount {
    /// What is known of a node. Fails if it lies in a folder that must not be asked now.
    pub(super) fn node(&self, id: u64) -> Result<Node> {
        let node = self.nodes.get(id).ok_or(Errno::STALE)?;
        self.may_be_asked(node.place)?;
        // What is below `jobs/` and a task may be another location's, which is asked then.
        let union = matches!(node.role, Role::Root | Role::Jobs | Role::Task);
        if !union && self.is_silent(node.place) {
            return Err(Errno::TIMEDOUT);
        }
        Ok(node)
    }

    fn is_silent(&self, place: u8) -> bool {
        let location = self.view.location(place);
        location.is_some_and(|location| location.is_silent())
    }

    /// Whether a request for a node may wait for a folder.
    pub(super) fn may_wait(&self, id: u64) -> bool {
        if self.view.folders().is_empty() {
            return false;
        }
        self.nodes.way(id).is_some_and(|way| match way.place {
            PRIMARY | INTERNAL => matches!(way.role, Role::Jobs | Role::Task | Role::Job),
            _ => true,
        })
    }

    /// Whether a node is a folder's.
    pub(super) fn is_of_folder(&self, id: u64) -> bool {
        let way = self.nodes.way(id);
        way.is_some_and(|way| !matches!(way.place, PRIMARY | INTERNAL))
    }

    /// Whether a request for a name may wait for a folder.
    pub(super) fn may_wait_at(&self, parent: u64, name: &OsStr) -> bool {
        let jobs = parent == ROOT && name == "jobs" && !self.view.folders().is_empty();
        jobs || self.may_wait(parent)
    }

    /// Makes sure that what lies there may be asked for.
    pub(super) fn may_be_asked(&self, place: u8) -> Result<()> {
        match place {
            PRIMARY | INTERNAL => Ok(()),
            place => self
                .view
                .location(place)
                .map_or(Ok(()), |place| place.may_be_asked()),
        }
    }

    /// Where a node lies. Nothing is said of what is there now.
    pub(super) fn place_of(&self, node: &Node) -> Result<Place> {
        match node.role {
            Role::Root => Ok(itself(self.primary_dir()?)),
            Role::Jobs => Ok(itself(self.root(node.place)?.jobs()?.into())),
            Role::Task => Ok(itself(self.root(node.place)?.task(&node.name)?.into())),
            Role::Job | Role::Inside | Role::Outside => Ok(Place {
                dir: self.holding(node.parent, node.place)?,
                name: node.name.clone(),
            }),
        }
    }

    /// The directory in which the children of `parent` lie that `place` has.
    pub(super) fn holding(&self, parent: u64, place: u8) -> Result<Dir> {
        let node = self.node(parent)?;
        match node.role {
            Role::Root => self.primary_dir(),
            Role::Jobs => Ok(self.root(place)?.jobs()?.into()),
            // The kernel has judged the caller's rights by this very directory.
            Role::Task if (place, node.place) == (PRIMARY, PRIMARY) => self.directory(parent),
            Role::Task => Ok(self.root(place)?.task(&node.name)?.into()),
            _ if place == INTERNAL && node.place != INTERNAL => {
                let holder = self.holder(&node)?.ok_or(Errno::STALE)?;
                let dir = self.view.internal_dir(&holder)?;
                Ok(dir.ok_or(Errno::NOENT)?.into())
            }
            _ => self.directory(parent),
        }
    }

    /// A node as a directory, of a job that a folder serves, whose internal files live in the
    /// primary; `None` if it is no such directory.
    pub(super) fn holder(&self, node: &Node) -> Result<Option<Holder>> {
        if node.place == PRIMARY || node.place == INTERNAL {
            return Ok(None);
        }
        if node.role == Role::Job {
            return Ok(Some(Holder {
                task: self.node(node.parent)?.name,
                hash: node.name.clone(),
                nested: false,
            }));
        }
        if node.role != Role::Inside || !node.directory || *node.name != *layout::JOB_STATE {
            return Ok(None);
        }
        let job = self.node(node.parent)?;
        if job.role != Role::Job {
            return Ok(None);
        }
        Ok(Some(Holder {
            task: self.node(job.parent)?.name,
            hash: job.name,
            nested: true,
        }))
    }

    /// A descriptor of a node that is a directory, to be kept.
    pub(super) fn directory_fd(&self, id: u64) -> Result<Arc<OwnedFd>> {
        match self.directory(id)? {
            Dir::Cached(fd) => Ok(fd),
            Dir::Location(root) => Ok(rustix::io::fcntl_dupfd_cloexec(root.fd(), 0)?.into()),
        }
    }

    /// A descriptor of a node that is a directory.
    pub(super) fn directory(&self, id: u64) -> Result<Dir> {
        if id == ROOT {
            return self.primary_dir();
        }
        if let Some(fd) = self.directories.get(id) {
            return Ok(Dir::Cached(fd));
        }
        // From the top down, so that a deep tree needs no deep stack.
        let mut unopened = vec![id];
        let mut above = self.node(id)?.parent;
        while above != ROOT && self.directories.get(above).is_none() {
            let node = self.node(above)?;
            if matches!(node.role, Role::Jobs | Role::Task) {
                break;
            }
            unopened.push(above);
            above = node.parent;
        }
        for id in unopened.into_iter().skip(1).rev() {
            self.open_directory(id)?;
        }
        self.open_directory(id)
    }

    fn open_directory(&self, id: u64) -> Result<Dir> {
        let fd = Arc::new(self.open_verified(id, OFlags::PATH | OFlags::DIRECTORY)?);
        self.directories.insert(id, fd.clone());
        Ok(Dir::Cached(fd))
    }

    /// Opens a node, and makes sure that it is what was opened. `O_PATH` opens anything without
    /// touching it. A file with several names is found under any that is known.
    pub(super) fn open_verified(&self, id: u64, flags: OFlags) -> Result<OwnedFd> {
        self.open_with_stat(id, flags).map(|(fd, _)| fd)
    }

    /// Like [`Mount::open_verified`], with the attributes that it had when it was opened.
    pub(super) fn open_with_stat(&self, id: u64, flags: OFlags) -> Result<(OwnedFd, Statx)> {
        self.under_any_name(id, |node, place| {
            // Not blocking: what was a file may have become a pipe meanwhile.
            let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
            let opened = rustix::fs::openat(&place.dir, &*place.name, flags, Mode::empty());
            let fd = match opened {
                Ok(fd) => fd,
                // The error is only the node's if the name still is.
                Err(error) => {
                    let stat = at::stat_at(&place.dir, &place.name)?;
                    let is_it = FileId::of(&stat) == node.identity;
                    return Err(if is_it { error } else { Errno::STALE });
                }
            };
            let stat = at::stat_fd(&fd)?;
            if FileId::of(&stat) == node.identity {
                Ok((fd, stat))
            } else {
                Err(Errno::STALE)
            }
        })
    }

    /// A node and its attributes as they are now; those of an open file if its names are gone.
    pub(super) fn stat(&self, id: u64) -> Result<(Node, Statx)> {
        let by_name = self.under_any_name(id, |node, place| {
            let stat = at::stat_at(&place.dir, &place.name)?;
            if FileId::of(&stat) == node.identity {
                Ok((node.clone(), stat))
            } else {
                Err(Errno::STALE)
            }
        });
        match by_name {
            Err(Errno::STALE) => self.stat_open(id),
            result => result,
        }
    }

    /// The attributes of a node whose names are gone but which is open.
    fn stat_open(&self, id: u64) -> Result<(Node, Statx)> {
        let node = self.node(id)?;
        let stat = self.on_open(id, |fd| at::stat_fd(fd))?;
        Ok((node, stat))
    }

    /// Calls with a descriptor of a node that is open, or was kept when its name was taken away.
    pub(super) fn on_open<T>(
        &self,
        id: u64,
        call: impl FnOnce(BorrowedFd<'_>) -> Result<T>,
    ) -> Result<T> {
        if let Some(file) = self.handles.file_of(id) {
            return call(file.fd.as_fd());
        }
        if let Some(fd) = self.directories.removed(id) {
            return call(fd.as_fd());
        }
        let node = self.node(id)?;
        self.contended.note(node.parent, node.name);
        Err(Errno::STALE)
    }

    /// Tries something with a node where it lies under its name, and then under its other names, until it works.
    /// That the name is gone or is another's by now is `ESTALE`.
    fn under_any_name<T>(&self, id: u64, work: impl Fn(&Node, &Place) -> Result<T>) -> Result<T> {
        let attempt = |node: &Node| work(node, &self.place_of(node)?);
        let node = self.node(id)?;
        let first = match attempt(&node) {
            Err(error @ (Errno::NOENT | Errno::NOTDIR | Errno::STALE | Errno::LOOP)) => error,
            result => return result,
        };
        if node.role == Role::Job
            && let Some(there) = self.job_elsewhere(id, &node)
            && let Ok(value) = attempt(&there)
        {
            return Ok(value);
        }
        if let Some(aside) = put_aside(&node)
            && let Ok(value) = attempt(&aside)
        {
            return Ok(value);
        }
        for other in self.nodes.other_names(id) {
            if let Ok(value) = attempt(&other) {
                self.nodes.update(id, other);
                return Ok(value);
            }
        }
        if let Some(fd) = self.find_renamed(&node) {
            return work(&self.node(id)?, &itself(fd.into()));
        }
        tracing::trace!(id, name = ?node.name, %first, "node is not where it was");
        Err(Errno::STALE)
    }

    /// A job that has changed place since it was looked up, by renaming: the same directory.
    fn job_elsewhere(&self, id: u64, node: &Node) -> Option<Node> {
        let found = self.find(node.parent, &node.name).ok()?;
        if FileId::of(&found.stat) != node.identity || found.place == node.place {
            return None;
        }
        let there = Node {
            place: found.place,
            ..node.clone()
        };
        self.nodes.update(id, there.clone());
        self.job_changed_place(id, found.place);
        Some(there)
    }

    pub(super) fn primary_dir(&self) -> Result<Dir> {
        Ok(Dir::Location(self.root(PRIMARY)?))
    }

    pub(super) fn root(&self, place: u8) -> Result<Arc<Root>> {
        self.view.location(place).ok_or(Errno::STALE)?.root()
    }
}

/// A directory as its own place.
fn itself(dir: Dir) -> Place {
    Place {
        dir,
        name: Name::from(OsStr::new(".")),
    }
}

/// Where the directory of a job stands for a while that has been moved from the primary to a folder: who has it
/// open, or is in it, goes on with it as on a disk.
fn put_aside(node: &Node) -> Option<Node> {
    (node.role == Role::Job && node.place == PRIMARY).then(|| Node {
        name: Name::from(&*places::staging(&node.name)),
        ..node.clone()
    })
}
