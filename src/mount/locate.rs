//! Finds the directory and the name where a node lies.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{Mode, OFlags, Statx};
use rustix::io::{Errno, Result};

use crate::mount::Mount;
use crate::mount::moved_jobs;
use crate::mount::tables::nodes::{INTERNAL, Node, NodeRole};
use crate::mount::tables::numbers::ROOT;
use crate::sys::at;
use crate::sys::file_id::FileId;
use crate::sys::name::Name;
use crate::view::internal::JobDir;
use crate::view::location::asking::Asking;
use crate::view::{Location, PRIMARY, Root};
use crate::workspace::layout;

/// How often a job that other processes move meanwhile is looked for.
pub(super) const MOVES_MAX: usize = 5;

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

/// A file by its name in an open directory.
#[derive(Debug)]
pub(super) struct NamedFile {
    pub(super) dir: Dir,
    pub(super) name: Name,
}

impl Mount {
    /// Returns a node. Fails if the node lies in a folder that must not be accessed now.
    pub(super) fn node(&self, id: u64) -> Result<Node> {
        let node = self.nodes.get(id).ok_or(Errno::STALE)?;
        // Entries below `jobs/` and a task may be in another location, which is checked when they are accessed.
        let union = matches!(node.role, NodeRole::Root | NodeRole::Jobs | NodeRole::Task);
        if !union && self.is_offline(node.location) {
            return Err(Errno::IO);
        }
        Ok(node)
    }

    pub(super) fn is_offline(&self, location: u8) -> bool {
        let folder = self.folder(location);
        folder.is_some_and(|folder| folder.is_offline())
    }

    /// The folder with this number; `None` for the primary.
    fn folder(&self, location: u8) -> Option<&Location> {
        match location {
            PRIMARY | INTERNAL => None,
            location => self.view.location(location),
        }
    }

    /// Whether an error of a question to a location means that the folder is offline.
    pub(super) fn goes_offline_after(&self, location: u8, error: Errno) -> bool {
        self.folder(location).is_some_and(|folder| {
            let root = folder.root();
            root.map_or(true, |root| folder.goes_offline_after(&root, error))
        })
    }

    /// Marks that this thread asks a location for a node with this role.
    pub(super) fn asking(&self, location: u8, role: NodeRole) -> Option<Asking<'_>> {
        let folder = self.folder(location)?;
        Some(match role {
            NodeRole::Inside => folder.asking_inside_job(),
            _ => folder.asking(),
        })
    }

    /// Whether a request for a node may wait for a folder.
    pub(super) fn may_wait(&self, id: u64) -> bool {
        if self.view.folders().is_empty() {
            return false;
        }
        self.nodes.link(id).is_some_and(|link| match link.location {
            PRIMARY | INTERNAL => {
                matches!(link.role, NodeRole::Jobs | NodeRole::Task | NodeRole::Job)
            }
            _ => true,
        })
    }

    /// Whether a node lies in a folder.
    pub(super) fn is_of_folder(&self, id: u64) -> bool {
        let link = self.nodes.link(id);
        link.is_some_and(|link| !matches!(link.location, PRIMARY | INTERNAL))
    }

    /// Whether a request for a name may wait for a folder.
    pub(super) fn may_wait_at(&self, parent: u64, name: &OsStr) -> bool {
        let jobs = parent == ROOT && name == "jobs" && !self.view.folders().is_empty();
        jobs || self.may_wait(parent)
    }

    /// Returns the node that has taken the place of a file of a recovered job, or the node itself.
    pub(super) fn recovered(&self, id: u64) -> u64 {
        self.superseded.successor(id).unwrap_or(id)
    }

    /// Notes that a request for the node `known` has changed another one, whose attributes the kernel may have cached.
    pub(super) fn note_changed_by(&self, known: u64, changed: u64) {
        if changed != known {
            self.invalidate.attributes_now(changed);
        }
    }

    /// Returns where a node lies, without checking which file is there now.
    pub(super) fn named_file(&self, node: &Node) -> Result<NamedFile> {
        match node.role {
            NodeRole::Root => Ok(as_named_file(self.primary_dir()?)),
            NodeRole::Jobs => Ok(as_named_file(self.root(node.location)?.jobs()?.into())),
            NodeRole::Task => Ok(as_named_file(
                self.root(node.location)?.task(&node.name)?.into(),
            )),
            NodeRole::Job | NodeRole::Inside | NodeRole::Outside => Ok(NamedFile {
                dir: self.holding(node.parent, node.location)?,
                name: node.name.clone(),
            }),
        }
    }

    /// Returns the directory in `location` that has the children of `parent`.
    pub(super) fn holding(&self, parent: u64, location: u8) -> Result<Dir> {
        let node = self.node(parent)?;
        match node.role {
            NodeRole::Root => self.primary_dir(),
            NodeRole::Jobs => Ok(self.root(location)?.jobs()?.into()),
            // The kernel has checked the caller's rights on this very directory.
            NodeRole::Task if (location, node.location) == (PRIMARY, PRIMARY) => {
                self.directory(parent)
            }
            NodeRole::Task => Ok(self.root(location)?.task(&node.name)?.into()),
            _ if location == INTERNAL && node.location != INTERNAL => {
                let holder = self.holder(&node)?.ok_or(Errno::STALE)?;
                let dir = self.view.internal_dir(&holder)?;
                Ok(dir.ok_or(Errno::NOENT)?.into())
            }
            _ => self.directory(parent),
        }
    }

    /// Returns the holder of internal files in the primary, for a directory of a job that a folder serves; `None` for
    /// any other node.
    pub(super) fn holder(&self, node: &Node) -> Result<Option<JobDir>> {
        if node.location == PRIMARY || node.location == INTERNAL {
            return Ok(None);
        }
        if node.role == NodeRole::Job {
            return Ok(Some(JobDir {
                task: self.node(node.parent)?.name,
                hash: node.name.clone(),
                nested: false,
            }));
        }
        if node.role != NodeRole::Inside || !node.directory || *node.name != *layout::JOB_STATE {
            return Ok(None);
        }
        let job = self.node(node.parent)?;
        if job.role != NodeRole::Job {
            return Ok(None);
        }
        Ok(Some(JobDir {
            task: self.node(job.parent)?.name,
            hash: job.name,
            nested: true,
        }))
    }

    /// Returns a descriptor of a directory node, to be kept.
    pub(super) fn directory_fd(&self, id: u64) -> Result<Arc<OwnedFd>> {
        match self.directory(id)? {
            Dir::Cached(fd) => Ok(fd),
            Dir::Location(root) => Ok(rustix::io::fcntl_dupfd_cloexec(root.fd(), 0)?.into()),
        }
    }

    /// Returns a descriptor of a directory node.
    pub(super) fn directory(&self, id: u64) -> Result<Dir> {
        if id == ROOT {
            return self.primary_dir();
        }
        if let Some(fd) = self.cached_directory(id) {
            return Ok(Dir::Cached(fd));
        }
        // From the top down, so that a deep tree needs no deep stack.
        let mut unopened = vec![id];
        let mut above = self.node(id)?.parent;
        while above != ROOT && self.cached_directory(above).is_none() {
            let node = self.node(above)?;
            if matches!(node.role, NodeRole::Jobs | NodeRole::Task) {
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

    /// Returns the cached descriptor of a directory node.
    pub(super) fn cached_directory(&self, id: u64) -> Option<Arc<OwnedFd>> {
        self.dir_cache.get(id, &self.nodes.identity(id)?)
    }

    fn open_directory(&self, id: u64) -> Result<Dir> {
        let (fd, stat) = self.open_with_stat(id, OFlags::PATH | OFlags::DIRECTORY)?;
        let fd = Arc::new(fd);
        self.dir_cache.insert(id, fd.clone(), FileId::of(&stat));
        Ok(Dir::Cached(fd))
    }

    /// Opens a node, and verifies that the opened file is this node. `O_PATH` opens any file without side effects. A
    /// file with several names is found under any known name.
    pub(super) fn open_verified(&self, id: u64, flags: OFlags) -> Result<OwnedFd> {
        self.open_with_stat(id, flags).map(|(fd, _)| fd)
    }

    /// As [`Mount::open_verified`], with the node's attributes at the time of the open.
    pub(super) fn open_with_stat(&self, id: u64, flags: OFlags) -> Result<(OwnedFd, Statx)> {
        self.under_any_name(id, |node, file| {
            // Non-blocking: a pipe may have replaced the file meanwhile.
            let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
            let opened = rustix::fs::openat(&file.dir, &*file.name, flags, Mode::empty());
            let fd = match opened {
                Ok(fd) => fd,
                // The error concerns the node only if the name still leads to the node.
                Err(error) => {
                    let stat = at::stat_at(&file.dir, &file.name)?;
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

    /// Returns a node and its present attributes; those of an open file if its names are gone.
    pub(super) fn stat(&self, id: u64) -> Result<(Node, Statx)> {
        let by_name = self.under_any_name(id, |node, file| {
            let stat = at::stat_at(&file.dir, &file.name)?;
            if FileId::of(&stat) == node.identity {
                Ok((node.clone(), stat))
            } else {
                Err(Errno::STALE)
            }
        });
        match by_name {
            Err(Errno::STALE) => self.stat_open(id),
            Err(error) => self.stat_of_recorded(id).unwrap_or(Err(error)),
            result => result,
        }
    }

    /// Returns the attributes of a task's directory that only a folder has which cannot be used now, as they were recorded. Fails with
    /// `ESTALE` if another location has the task.
    fn stat_of_recorded(&self, id: u64) -> Option<Result<(Node, Statx)>> {
        let node = self.nodes.get(id)?;
        let folder = self.folder(node.location)?;
        if node.role != NodeRole::Task || !folder.is_away() {
            return None;
        }
        let found = self.find_task(&node.name).ok()?;
        Some(match FileId::of(&found.stat) == node.identity {
            true => Ok((node, found.stat)),
            false => Err(Errno::STALE),
        })
    }

    /// Returns the attributes of a node whose names are gone but which is open.
    fn stat_open(&self, id: u64) -> Result<(Node, Statx)> {
        let node = self.node(id)?;
        let stat = self.with_open_fd(id, |fd| at::stat_fd(fd))?;
        Ok((node, stat))
    }

    /// Calls `work` with a descriptor of a node that is open, or was kept when its name was removed.
    pub(super) fn with_open_fd<T>(
        &self,
        id: u64,
        call: impl FnOnce(BorrowedFd<'_>) -> Result<T>,
    ) -> Result<T> {
        if let Some(file) = self.handles.file_of(id) {
            return call(file.fd.as_fd());
        }
        if let Some(fd) = self.dir_cache.removed(id) {
            return call(fd.as_fd());
        }
        let node = self.node(id)?;
        self.contended.note(node.parent, node.name);
        Err(Errno::STALE)
    }

    /// Calls `work` with a node under its name, and then under its other names, until it succeeds. Fails with `ESTALE`
    /// if the name is gone or leads to another file by now.
    fn under_any_name<T>(
        &self,
        id: u64,
        work: impl Fn(&Node, &NamedFile) -> Result<T>,
    ) -> Result<T> {
        let attempt = |node: &Node| {
            let _asking = self.asking(node.location, node.role);
            work(node, &self.named_file(node)?)
        };
        let node = self.node(id)?;
        let first = match attempt(&node) {
            Err(error @ (Errno::NOENT | Errno::NOTDIR | Errno::STALE | Errno::LOOP)) => error,
            result => return result,
        };
        if node.role == NodeRole::Job {
            for _ in 0..MOVES_MAX {
                let Some(there) = self.job_elsewhere(id) else {
                    break;
                };
                if let Ok(value) = attempt(&there) {
                    return Ok(value);
                }
            }
        }
        if let Some(aside) = set_aside(&node)
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
            return work(&self.node(id)?, &as_named_file(fd.into()));
        }
        tracing::trace!(id, name = ?node.name, %first, "a node is not at its last known place");
        Err(Errno::STALE)
    }

    /// Returns a job where it is now, if it is the same directory: another process may have renamed it to another location, or back.
    fn job_elsewhere(&self, id: u64) -> Option<Node> {
        let node = self.nodes.get(id)?;
        let found = self.find(node.parent, &node.name).ok()?;
        if FileId::of(&found.stat) != node.identity {
            return None;
        }
        let there = Node {
            location: found.location,
            ..node.clone()
        };
        if found.location != node.location {
            self.nodes.update(id, there.clone());
            self.job_changed_location(id, found.location);
        }
        Some(there)
    }

    /// Under `noatime`, makes reading through `fd` leave the access time unchanged.
    pub(super) fn apply_noatime(&self, fd: impl AsFd) {
        if self.options.noatime {
            at::keep_atime(fd);
        }
    }

    pub(super) fn primary_dir(&self) -> Result<Dir> {
        Ok(Dir::Location(self.root(PRIMARY)?))
    }

    pub(super) fn root(&self, location: u8) -> Result<Arc<Root>> {
        let location = self.view.location(location).ok_or(Errno::STALE)?;
        match location.root() {
            // Its jobs are not gone.
            Err(_) if location.is_offline() => Err(Errno::IO),
            root => root,
        }
    }
}

/// Returns a directory under the name `.` in itself.
fn as_named_file(dir: Dir) -> NamedFile {
    NamedFile {
        dir,
        name: Name::from(OsStr::new(".")),
    }
}

/// Returns where the directory of a job remains for a while after another process has moved the job from the primary to
/// a folder: processes that keep it open, or are in it, continue to work in it as on a disk.
fn set_aside(node: &Node) -> Option<Node> {
    (node.role == NodeRole::Job && node.location == PRIMARY).then(|| Node {
        name: Name::from(&*moved_jobs::staging(&node.name)),
        ..node.clone()
    })
}
