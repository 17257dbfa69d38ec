//! Iterates over the names of a task's jobs, in the order of its listing.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::FileType;
use rustix::io::Result;

use crate::sys::at;
use crate::sys::name::Name;
use crate::sys::read_dir::{self, EntryBuffer};
use crate::view::listing::ListingSource;
use crate::view::{PRIMARY, View};
use crate::workspace::jobs;

/// How many names are searched for the start of a walk that does not begin with the first one.
const SEARCHED_MAX: usize = 4096;
/// Limit of names, of entries other than jobs, between a job and the next one.
const GAP_MAX: usize = 16;

/// The names that the listing of a task may show, in its order.
#[derive(Debug)]
pub(super) struct Names {
    /// The primary's directory, if it has one.
    primary: Option<Arc<OwnedFd>>,
    sources: VecDeque<ListingSource>,
    /// The first of the sources, open for reading.
    open: Option<OwnedFd>,
    read: VecDeque<Next>,
    buffer: EntryBuffer,
}

pub(super) type Next = (Arc<OwnedFd>, Name, FileType);

impl Names {
    fn new(sources: Vec<ListingSource>) -> Result<Names> {
        let mut names = Names {
            primary: sources
                .first()
                .filter(|source| source.location == PRIMARY)
                .map(|source| source.dir.clone()),
            sources: sources.into(),
            open: None,
            read: VecDeque::new(),
            buffer: EntryBuffer::default(),
        };
        names.open()?;
        Ok(names)
    }

    fn open(&mut self) -> Result<()> {
        self.open = match self.sources.front() {
            Some(source) => Some(at::open_to_list(&source.dir, OsStr::new("."))?),
            None => None,
        };
        Ok(())
    }

    /// Returns the names that follow `second`, if `second` follows `first`.
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

    /// Whether a name is among the next `max`; skips all names up to it.
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
            let more = read_dir::read_once(open, &mut self.buffer, |entry| {
                let (name, kind) = (entry.name(), entry.kind());
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
