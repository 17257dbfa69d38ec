//! Runs the threads of one copy: the walking thread copies few files alone, others join for many.

use std::thread::{Builder, Scope};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};

use super::digest::Buffer;
use super::entry::{self, Opened, Task};
use super::work::Work;

/// The maximum number of queued entries. Each is open, and keeps its directories open, so this limits the descriptors.
const WAITING: usize = 32;

/// The queue length at which another thread starts: a small job is copied faster than a thread starts.
const PILE: usize = 24;

/// Distributes tasks to threads.
pub(super) struct Workers<'scope, 'env> {
    scope: &'scope Scope<'scope, 'env>,
    work: &'env Work<'env>,
    sender: Sender<Task>,
    receiver: Receiver<Task>,
    threads: usize,
    buffer: Buffer,
}

impl<'scope, 'env> Workers<'scope, 'env> {
    pub(super) fn new(
        scope: &'scope Scope<'scope, 'env>,
        work: &'env Work<'env>,
    ) -> Workers<'scope, 'env> {
        let (sender, receiver) = bounded(WAITING);
        Workers {
            scope,
            work,
            sender,
            receiver,
            threads: 0,
            buffer: Buffer::default(),
        }
    }

    /// Queues a task for another thread, or runs it if the queue is full. Never waits for another thread.
    pub(super) fn give(&mut self, mut task: Task) {
        // The disk reads the file while the task is queued, in parallel with those of other tasks.
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

    /// Runs queued tasks until the queue is empty. Other threads may still run their last one.
    pub(super) fn finish(mut self) {
        while let Ok(task) = self.receiver.try_recv() {
            entry::copy(self.work, task, &mut self.buffer);
        }
    }

    fn join(&mut self) {
        let (work, receiver) = (self.work, self.receiver.clone());
        let thread = move || {
            let mut buffer = Buffer::default();
            // Ends when the queue is empty and the walk is over.
            for task in receiver {
                entry::copy(work, task, &mut buffer);
            }
        };
        let builder = Builder::new().name("xpmfs-copy".to_owned());
        // If no thread can be started, the copy only takes longer.
        if builder.spawn_scoped(self.scope, thread).is_ok() {
            self.threads += 1;
        }
    }
}
