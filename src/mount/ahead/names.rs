//! The names of a task's jobs, in the order in which its listing has them.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use rustix::fs::{FileType, Mode, OFlags, RawDir};
use rustix::io::{Errno, Result};

use crate::sys::at;
use crate::sys::name::Name;
use crate::view::listing::Source;
use crate::view::{PRIMARY, View};
use crate::workspace::jobs;

/// How many names a walk is looked for among that does not begin with the first one.
const SEARCHED_MAX: usize = 4096;
/// How many names may lie between a job and the one that is listed after it: those that are no jobs.
const GAP_MAX: usize = 16;

const BUFFER: usize = 16 * 1024;

const OPEN: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::NONBLOCK)
    .union(OFlags::CLOEXEC);

/// What the listing of a task may show, in its order.
#[derive(Debug)]
pub(super) struct Names {
    /// The primary's directory, if it has one.
    primary: Option<Arc<OwnedFd>>,
    sources: VecDeque<Source>,
    /// The first of the sources, open to be read.
    open: Option<OwnedFd>,
    read: VecDeque<Next>,
}

pub(super) type Next = (Arc<OwnedFd>, Name, FileType);

impl Names {
    fn new(sources: Vec<Source>) -> Result<Names> {
        let mut names = Names {
            primary: sources
                .first()
                .filter(|source| source.location == PRIMARY)
                .map(|source| source.dir.clone()),
            sources: sources.into(),
            open: None,
            read: VecDeque::new(),
        };
        names.open()?;
        Ok(names)
    }

    fn open(&mut self) -> Result<()> {
        self.open = match self.sources.front() {
            Some(source) => Some(open(&source.dir, OsStr::new("."))?),
            None => None,
        };
        Ok(())
    }

    /// The names that come after `second`, if that comes after `first`.
    pub(super) fn after(
        view: &View,
        task: &OsStr,
        first: &OsStr,
        second: &OsStr,
    ) -> Result<Option<Names>> {
        let mut names = Names::new(view.task_sources(task)?)?;
        let found = names.find(first, SEARCHED_MAX)? && names.find(second, GAP_MAX)?;
        Ok(found.then_some(names))
    }

    /// Whether a name is among the next `max`; goes on to behind it.
    fn find(&mut self, name: &OsStr, max: usize) -> Result<bool> {
        for _ in 0..max {
            match self.next()? {
                Some((_, found, _)) if *found == *name => return Ok(true),
                Some(_) => {}
                None => break,
            }
        }
        Ok(false)
    }

    pub(super) fn next(&mut self) -> Result<Option<Next>> {
        while self.read.is_empty() {
            let (Some(source), Some(open)) = (self.sources.front(), &self.open) else {
                return Ok(None);
            };
            let read = &mut self.read;
            let primary = match source.location {
                PRIMARY => None,
                _ => self.primary.as_ref(),
            };
            let more = read_once(open, |name, kind| {
                let hidden = source.location != PRIMARY && !jobs::is_job_entry(name)
                    || primary.is_some_and(|primary| at::stat(primary, name).is_ok());
                let job = matches!(
                    kind,
                    FileType::Directory | FileType::Symlink | FileType::Unknown
                );
                if job && !hidden {
                    read.push_back((source.dir.clone(), Name::from(name), kind));
                }
            })?;
            if !more {
                self.sources.pop_front();
                self.open()?;
            }
        }
        Ok(self.read.pop_front())
    }
}

/// Opens a directory to be read, and leaves no trace of that if that is allowed: when something was
/// used is for those to say who use it.
pub(super) fn open(dir: impl AsFd, name: &OsStr) -> Result<OwnedFd> {
    match rustix::fs::openat(&dir, name, OPEN | OFlags::NOATIME, Mode::empty()) {
        // Allowed to the owner only.
        Err(Errno::PERM) => rustix::fs::openat(dir, name, OPEN, Mode::empty()),
        opened => opened,
    }
}

/// Reads entries once, as many as the kernel gives at a time; returns whether there were any.
pub(super) fn read_once(fd: impl AsFd, mut each: impl FnMut(&OsStr, FileType)) -> Result<bool> {
    let mut buffer = [MaybeUninit::uninit(); BUFFER];
    let mut entries = RawDir::new(fd, &mut buffer);
    let mut any = false;
    while !(any && entries.is_buffer_empty()) {
        let Some(entry) = entries.next() else {
            break;
        };
        let entry = entry?;
        any = true;
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        if name != "." && name != ".." {
            each(name, entry.file_type());
        }
    }
    Ok(any)
}
