//! Goes through the source from the top down, makes directories in the copy, and queues their entries.

use std::ffi::OsStr;
use std::ops::ControlFlow;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{FileType, Mode, Statx};

use super::digest::Buffer;
use super::entry::{self, Task};
use super::work::{Excluded, Work};
use super::workers::Workers;
use crate::sys::at::{self, open_to_list};
use crate::sys::dir_stack::DirStack;
use crate::sys::read_dir::{self, EntryBuffer};
use crate::transfer::attributes::Attributes;
use crate::transfer::error::{Context, Failure};
use crate::transfer::manifest::Kind;
use crate::transfer::options::Candidate;
use crate::transfer::stamp;

/// Copies all entries below the top, or scans them if there is no copy. Failures are recorded.
pub(super) fn walk(work: &Work<'_>, source: OwnedFd, copy: Option<OwnedFd>) {
    let last = std::thread::scope(|scope| {
        let mut walk = Walk {
            work,
            workers: Workers::new(scope, work),
            source: DirStack::new(source),
            copy: copy.map(DirStack::new),
            entries: EntryBuffer::default(),
            above: Vec::new(),
            last: None,
        };
        walk.all();
        walk.workers.finish();
        walk.last
    });
    if let Some(task) = last {
        entry::copy(work, task, &mut Buffer::default());
    }
}

struct Walk<'scope, 'env> {
    work: &'env Work<'env>,
    workers: Workers<'scope, 'env>,
    source: DirStack,
    copy: Option<DirStack>,
    entries: EntryBuffer,
    /// The unfinished directories, the current one last.
    above: Vec<Directory>,
    /// The entry that the caller wants to be written last.
    last: Option<Task>,
}

/// A directory whose entries have been queued, except the directories in it.
struct Directory {
    index: usize,
    name: Box<OsStr>,
    waiting: Vec<Box<OsStr>>,
}

impl Walk<'_, '_> {
    fn all(&mut self) {
        let top = at::stat_fd(&**self.source.current()).source("look at");
        if let Err(failure) = top.and_then(|stat| self.enter(0, OsStr::new(""), &stat)) {
            return self.work.fail(failure, 0, OsStr::new(""));
        }
        while let Some(directory) = self.above.last_mut() {
            let index = directory.index;
            let result = match directory.waiting.pop() {
                Some(name) => self.down(index, &name).map_err(|failure| (failure, name)),
                None => self
                    .up()
                    .map_err(|failure| (failure, OsStr::new("").into())),
            };
            if let Err((failure, name)) = result {
                let lost = name.is_empty();
                self.work.fail(failure, index, &name);
                if lost {
                    // The position of the walk is unknown after a failure to go up.
                    return;
                }
            }
            if self.work.stopped() {
                return;
            }
        }
    }

    fn down(&mut self, parent: usize, name: &OsStr) -> Result<(), Failure> {
        self.work.go_on()?;
        let source = open_to_list(&**self.source.current(), name).listed("open")?;
        let stat = at::stat_fd(&source).source("look at")?;
        let copy = match &self.copy {
            Some(copy) => {
                let dir = &**copy.current();
                // Other users cannot reach the directory before the top has its mode. The owner's rights are needed
                // until the directory is complete.
                let mode = Mode::from_raw_mode(stat.stx_mode.into()) | Mode::RWXU;
                rustix::fs::mkdirat(dir, name, mode).copy("create")?;
                Some(open_to_list(dir, name).copy("open")?)
            }
            None => None,
        };
        self.source.down(source).source("look at")?;
        if let (Some(trail), Some(copy)) = (&mut self.copy, copy) {
            trail.down(copy).copy("look at")?;
        }
        self.enter(parent, name, &stat).inspect_err(|_| {
            // Returns to the directory where the failure is recorded. If that fails too, the next step up fails.
            let _ = self.source.up();
        })
    }

    fn up(&mut self) -> Result<(), Failure> {
        self.above.pop();
        if self.above.is_empty() {
            return Ok(());
        }
        self.source.up().listed("leave")?;
        if let Some(copy) = &mut self.copy {
            copy.up().copy("leave")?;
        }
        Ok(())
    }

    /// Records the directory that the walk has just entered, and queues its entries.
    fn enter(&mut self, parent: usize, name: &OsStr, stat: &Statx) -> Result<(), Failure> {
        let fd = self.source.current().clone();
        let index = self.work.add(parent, name, stat, Kind::Directory);
        if self.copy.is_some() {
            let attributes = Attributes::read(&*fd, stat)?;
            self.work.add_directory(index, attributes);
        }
        // From here on `up` leaves the directory, even after a failure.
        self.above.push(Directory {
            index,
            name: name.into(),
            waiting: Vec::new(),
        });
        if let Err(failure) = self.list(index, &fd) {
            self.work.fail(failure, index, OsStr::new(""));
        }
        Ok(())
    }

    fn list(&mut self, index: usize, fd: &OwnedFd) -> Result<(), Failure> {
        let mut buffer = std::mem::take(&mut self.entries);
        let ended = read_dir::read(fd, &mut buffer, |entry| {
            match self.hand_out(index, entry.name(), entry.kind()) {
                Ok(()) => ControlFlow::Continue(()),
                Err(failure) => ControlFlow::Break(failure),
            }
        });
        self.entries = buffer;
        // `ENOENT`: the directory was removed after it was opened.
        match ended.listed("list")? {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(failure) => Err(failure),
        }
    }

    fn hand_out(&mut self, parent: usize, name: &OsStr, kind: FileType) -> Result<(), Failure> {
        let source = self.source.current();
        let kind = match kind {
            FileType::Unknown => stamp::kind(&at::stat_at(&**source, name).listed("look at")?),
            kind => kind,
        };
        let depth = self.above.len().saturating_sub(1);
        let parent_name = self
            .above
            .last()
            .map_or(OsStr::new(""), |above| &above.name);
        if let Some(select) = self.work.options.select {
            let candidate = Candidate::new(source.as_fd(), (depth, parent_name), name, kind);
            if !select(&candidate) {
                self.work.add_excluded(Excluded {
                    parent,
                    name: name.into(),
                    kind,
                });
                return Ok(());
            }
        }
        if kind == FileType::Directory {
            if let Some(above) = self.above.last_mut() {
                above.waiting.push(name.into());
            }
            return Ok(());
        }
        let task = Task {
            source: source.clone(),
            copy: self.copy.as_ref().map(|copy| copy.current().clone()),
            parent,
            name: name.into(),
            kind,
            opened: None,
        };
        if depth == 0 && self.work.options.last == Some(name) {
            self.last = Some(task);
        } else {
            self.workers.give(task);
        }
        Ok(())
    }
}
