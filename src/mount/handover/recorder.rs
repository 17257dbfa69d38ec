//! Writes the changes of a mount's tables to a log that another process keeps.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::connection::{Agreed, Connection};
use super::image::{Image, append};
use super::record::Record;
use crate::sys::memory_log::MemoryLog;

/// The process that keeps what this one would leave.
pub trait Keeper: Send + Sync + 'static {
    /// Keeps the connection to the kernel.
    ///
    /// # Errors
    ///
    /// The other process does not reply.
    fn keep_connection(&self, connection: &Connection, agreed: &Agreed) -> std::io::Result<()>;

    /// Keeps this log from now on, in place of the one before.
    ///
    /// # Errors
    ///
    /// The other process does not reply.
    fn keep_log(&self, log: BorrowedFd<'_>) -> std::io::Result<()>;

    /// Keeps the counts of nodes.
    ///
    /// # Errors
    ///
    /// The other process does not reply.
    fn keep_counts(&self, counts: BorrowedFd<'_>) -> std::io::Result<()>;

    /// Keeps what this process is about to change.
    ///
    /// # Errors
    ///
    /// The other process does not reply.
    fn keep_intents(&self, intents: BorrowedFd<'_>) -> std::io::Result<()>;

    /// Keeps the nodes that the kernel has received last.
    ///
    /// # Errors
    ///
    /// The other process does not reply.
    fn keep_recent(&self, recent: BorrowedFd<'_>) -> std::io::Result<()>;

    /// Keeps a descriptor.
    fn keep_file(&self, key: KeptFile, file: BorrowedFd<'_>);

    /// Closes a descriptor that was kept by [`Keeper::keep_file`].
    fn drop_file(&self, key: KeptFile);

    /// Called once a request has been answered.
    fn answered(&self);
}

/// Whose descriptor is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum KeptFile {
    /// An open file's, by its number.
    Open(u64),
    /// A node's that has lost its name.
    Removed(u64),
}

/// A log is rewritten when it is longer than this, in bytes, and four times as long as it was when it was last rewritten.
const LENGTH_MIN: u64 = 1 << 20;
const GROWTH: u64 = 4;

/// Records changes, once it has been started; before that, and without another process, it does nothing.
#[derive(Debug, Default)]
pub(in crate::mount) struct Recorder {
    active: OnceLock<Active>,
    /// Whether a request has been answered.
    answered: AtomicBool,
}

struct Active {
    keeper: Arc<dyn Keeper>,
    log: Mutex<Log>,
    /// Whether a thread rewrites the log.
    rewriting: AtomicBool,
}

#[derive(Debug)]
struct Log {
    log: MemoryLog,
    rewrite_at: u64,
    /// Whether a record could not be written.
    broken: bool,
}

impl std::fmt::Debug for Active {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Active").finish_non_exhaustive()
    }
}

impl Recorder {
    /// Starts to record to a log that `keeper` has.
    pub(super) fn start(&self, log: MemoryLog, keeper: Arc<dyn Keeper>) {
        let rewrite_at = (log.length() * GROWTH).max(LENGTH_MIN);
        let log = Mutex::new(Log {
            log,
            rewrite_at,
            broken: false,
        });
        // A mount is served once.
        let _ = self.active.set(Active {
            keeper,
            log,
            rewriting: AtomicBool::new(false),
        });
    }

    /// Adds a record. Called under the lock of the table that changes, so that the records of one entry are in order.
    /// Waits for no disk.
    pub(in crate::mount) fn record(self: &Arc<Self>, record: &Record<'_>) {
        let Some(active) = self.active.get() else {
            return;
        };
        let mut log = active.log.lock();
        if let Err(error) = append(&mut log.log, record)
            && !log.broken
        {
            log.broken = true;
            tracing::error!(
                "cannot record what is open: if this process is killed, programs get errors: {error}"
            );
        }
        if log.log.length() > log.rewrite_at && !active.rewriting.swap(true, Ordering::AcqRel) {
            drop(log);
            let recorder = self.clone();
            let thread = std::thread::Builder::new().name("xpmfs-record".to_owned());
            if thread.spawn(move || recorder.rewrite()).is_err() {
                // It is tried again with the next record.
                active.rewriting.store(false, Ordering::Release);
            }
        }
    }

    /// Adds records that are made only if this process records.
    pub(in crate::mount) fn record_all<'a, R: Iterator<Item = Record<'a>>>(
        self: &Arc<Self>,
        records: impl FnOnce() -> R,
    ) {
        if self.active.get().is_some() {
            records().for_each(|record| self.record(&record));
        }
    }

    /// Notes that a request has been answered.
    pub(in crate::mount) fn answered(&self) {
        if !self.answered.load(Ordering::Relaxed)
            && let Some(active) = self.active.get()
            && !self.answered.swap(true, Ordering::Relaxed)
        {
            active.keeper.answered();
        }
    }

    /// Keeps a descriptor in the other process.
    pub(in crate::mount) fn keep_file(&self, key: KeptFile, file: BorrowedFd<'_>) {
        if let Some(active) = self.active.get() {
            active.keeper.keep_file(key, file);
        }
    }

    /// Closes a descriptor that was kept.
    pub(in crate::mount) fn drop_file(&self, key: KeptFile) {
        if let Some(active) = self.active.get() {
            active.keeper.drop_file(key);
        }
    }

    /// Replaces the log by a shorter one that says the same.
    fn rewrite(&self) {
        let Some(active) = self.active.get() else {
            return;
        };
        if let Err(error) = self.try_rewrite(active) {
            tracing::warn!("cannot shorten the record of what is open: {error}");
            let mut log = active.log.lock();
            log.rewrite_at = log.log.length() * GROWTH;
        }
        active.rewriting.store(false, Ordering::Release);
    }

    fn try_rewrite(&self, active: &Active) -> std::io::Result<()> {
        let fd: OwnedFd = {
            let log = active.log.lock();
            rustix::io::fcntl_dupfd_cloexec(log.log.fd(), 0)?
        };
        // Records that are added meanwhile are copied afterwards.
        let mut image = Image::default();
        let read = MemoryLog::read_at(&fd, 0, |record| image.apply(record))?;
        let mut short = MemoryLog::new()?;
        image.write(&mut short)?;
        drop(image);
        let mut log = active.log.lock();
        let mut copied = Ok(());
        log.log.read_from(read, |record| {
            if copied.is_ok() {
                copied = short.append(record);
            }
        })?;
        copied?;
        active.keeper.keep_log(short.fd())?;
        let before = std::mem::replace(&mut log.log, short);
        log.rewrite_at = (log.log.length() * GROWTH).max(LENGTH_MIN);
        drop(log);
        drop(before);
        Ok(())
    }
}
