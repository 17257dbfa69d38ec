//! The threads of one copy. Few files are copied by the thread that walks; others join it when work piles up.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread::{Builder, Scope};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};

use super::data::Buffer;
use super::entry::{self, Opened};
use super::work::Work;
use rustix::fs::FileType;

/// How many entries wait at most. Each is open, and keeps its directories open, so that this bounds the descriptors.
const WAITING: usize = 32;

/// How many wait before another thread starts: a small job is copied sooner than a thread is started.
const PILE: usize = 24;

/// One entry to copy.
pub(super) struct Task {
    /// The directory that it is in.
    pub(super) source: Arc<OwnedFd>,
    /// The directory that it is copied to.
    pub(super) copy: Option<Arc<OwnedFd>>,
    /// The position of the directory.
    pub(super) parent: usize,
    pub(super) name: Box<OsStr>,
    pub(super) kind: FileType,
    /// The file, if the disk has been asked for it.
    pub(super) opened: Option<Opened>,
}

/// Hands tasks to threads.
pub(super) struct Crew<'scope, 'env> {
    scope: &'scope Scope<'scope, 'env>,
    work: &'env Work<'env>,
    sender: Sender<Task>,
    receiver: Receiver<Task>,
    threads: usize,
    buffer: Buffer,
}

impl<'scope, 'env> Crew<'scope, 'env> {
    pub(super) fn new(
        scope: &'scope Scope<'scope, 'env>,
        work: &'env Work<'env>,
    ) -> Crew<'scope, 'env> {
        let (sender, receiver) = bounded(WAITING);
        Crew {
            scope,
            work,
            sender,
            receiver,
            threads: 0,
            buffer: Buffer::default(),
        }
    }

    /// Has a task done, by another thread or by this one. Never waits for another.
    pub(super) fn give(&mut self, mut task: Task) {
        // The disk brings it while it waits, as it does others.
        task.opened = Opened::ahead(self.work, &task);
        match self.sender.try_send(task) {
            Ok(()) => {
                if self.receiver.len() >= PILE && self.threads + 1 < self.work.options.threads {
                    self.join();
                }
            }
            Err(TrySendError::Full(task) | TrySendError::Disconnected(task)) => {
                entry::copy(self.work, task, &mut self.buffer);
            }
        }
    }

    /// Works along until no task waits. Others may still be at their last.
    pub(super) fn finish(mut self) {
        while let Ok(task) = self.receiver.try_recv() {
            entry::copy(self.work, task, &mut self.buffer);
        }
    }

    fn join(&mut self) {
        let (work, receiver) = (self.work, self.receiver.clone());
        let thread = move || {
            let mut buffer = Buffer::default();
            // Ends when no task waits and the walk is over.
            for task in receiver {
                entry::copy(work, task, &mut buffer);
            }
        };
        let builder = Builder::new().name("xpmfs-copy".to_owned());
        // Where no thread may be had, it takes longer.
        if builder.spawn_scoped(self.scope, thread).is_ok() {
            self.threads += 1;
        }
    }
}
