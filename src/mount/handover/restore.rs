//! Fills the tables of a mount from what another process has left.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::OFlags;
use rustix::io::{Errno, Result};

use super::image::{Image, append};
use super::record::{OpenedRecord, Record};
use super::recorder::{Keeper, KeptFile};
use crate::mount::Mount;
use crate::mount::tables::handles::{File, Kept, Lock};
use crate::mount::tables::numbers::ROOT;
use crate::mount::tables::positions::Positions;
use crate::sys::file_id::FileId;
use crate::sys::memory_log::MemoryLog;
use crate::sys::shared_words::SharedWords;

/// What a process that has served the mount before has left.
#[derive(Debug)]
pub struct Inheritance {
    /// Its log.
    pub log: OwnedFd,
    /// Its counts of nodes.
    pub counts: OwnedFd,
    /// What it was about to change.
    pub intents: OwnedFd,
    /// The nodes that the kernel has received last.
    pub recent: OwnedFd,
    /// Descriptors of what cannot be opened again.
    pub files: Vec<(KeptFile, OwnedFd)>,
}

impl Mount {
    /// Records changes from now on, for the process that serves this mount next. Called before the first request.
    ///
    /// # Errors
    ///
    /// No memory for the log, or the other process does not reply.
    pub(in crate::mount) fn record_for(&self, keeper: Arc<dyn Keeper>) -> std::io::Result<()> {
        let counts = SharedWords::new()?;
        keeper.keep_counts(counts.fd())?;
        self.nodes.counts().start(counts);
        let intents = SharedWords::new()?;
        keeper.keep_intents(intents.fd())?;
        self.intents.start(intents)?;
        let recent = SharedWords::new()?;
        keeper.keep_recent(recent.fd())?;
        self.nodes.recent().start(recent);
        let mut log = MemoryLog::new()?;
        append(&mut log, &Record::Folders(self.folder_paths()))?;
        keeper.keep_log(log.fd())?;
        self.recorder.start(log, keeper);
        Ok(())
    }

    /// Takes over what the previous process has left, and records changes behind it.
    ///
    /// # Errors
    ///
    /// The log cannot be read.
    pub(in crate::mount) fn inherit(
        &self,
        mut left: Inheritance,
        keeper: Arc<dyn Keeper>,
    ) -> std::io::Result<()> {
        let mut image = Image::default();
        let mut log = MemoryLog::resume(left.log, |record| image.apply(record))?;
        if image.folders != self.folder_paths() {
            log = self.renumber(&mut image, &mut left.files, &mut left.recent, &*keeper)?;
        }
        self.nodes
            .counts()
            .inherit(SharedWords::open(left.counts))?;
        self.intents.start(SharedWords::open(left.intents))?;
        self.devices.restore(image.devices);
        for (identity, number) in image.displaced {
            self.nodes.restore_number(identity.into(), number);
        }
        for (id, names) in image.nodes {
            if id != ROOT {
                self.nodes.restore(id, names);
            }
        }
        let recent = SharedWords::open(left.recent);
        for (id, node) in self.nodes.recent().inherit(recent)?.into_iter().rev() {
            self.nodes.restore_recent(id, node);
        }
        for (node, recovered) in image.superseded {
            match self.nodes.is_received(node) && self.nodes.is_received(recovered) {
                true => self.superseded.restore(node, recovered),
                // The previous process was killed while it forgot the node, whose number another file may get.
                false => append(&mut log, &Record::Current(node))?,
            }
        }
        for (node, (first, positions)) in image.positions {
            let positions = Positions::restored(first, &positions);
            self.listings.restore(node, positions);
        }
        self.handles.continue_after(image.last_handle);
        let mut kept = HashMap::new();
        for (key, fd) in left.files {
            match key {
                KeptFile::Open(handle) => drop(kept.insert(handle, fd)),
                KeptFile::Removed(id) if self.nodes.is_received(id) => {
                    self.dir_cache.restore_removed(id, fd.into());
                }
                // The previous process was killed while it forgot the node.
                KeptFile::Removed(_) => keeper.drop_file(key),
            }
        }
        let (mut opened, mut lost) = (0_usize, 0_usize);
        for (handle, record) in image.opened {
            match self.reopen_file(handle, &record, kept.remove(&handle)) {
                Ok(()) => {
                    opened += 1;
                    self.handles.restore_request(record.request, handle);
                }
                Err(error) => {
                    lost += 1;
                    self.handles.lose(handle);
                    let name = self.nodes.get(record.node).map(|node| node.name);
                    tracing::error!(
                        ?name,
                        "a file that was open cannot be opened again: {error}"
                    );
                }
            }
        }
        for handle in kept.into_keys() {
            // The previous process was killed while it opened or closed the file. A lock on it would never be released.
            keeper.drop_file(KeptFile::Open(handle));
        }
        tracing::info!(opened, lost, "took over what the previous process had open");
        self.recorder.start(log, keeper);
        Ok(())
    }

    /// Opens a file again under the number that the kernel has for it.
    fn reopen_file(&self, handle: u64, record: &OpenedRecord, kept: Option<OwnedFd>) -> Result<()> {
        let identity = FileId::from(record.identity);
        let is_kept = kept.is_some();
        let fd = match kept {
            Some(fd) => fd,
            None => {
                let access = match (record.readable, record.writable) {
                    (true, true) => OFlags::RDWR,
                    (false, true) => OFlags::WRONLY,
                    _ => OFlags::RDONLY,
                };
                let (fd, stat) = self.open_with_stat(record.node, access)?;
                match FileId::of(&stat) == identity {
                    true => fd,
                    false => return Err(Errno::STALE),
                }
            }
        };
        self.apply_noatime(&fd);
        self.open_limit.opened();
        let read_write = record.readable && record.writable;
        self.passthrough
            .restore(record.node, identity, read_write, record.backing);
        let lock = Lock::default();
        // Whether the kernel reports it is not recorded.
        lock.set_unreported();
        self.handles.restore(
            handle,
            File {
                fd,
                identity,
                node: record.node,
                readable: record.readable,
                writable: record.writable,
                only_lock: record.only_lock,
                lock,
                kept: Kept::default(),
            },
            is_kept,
            is_kept && record.locked,
        );
        Ok(())
    }
}
