//! Notes that the nodes of a job are being changed, so that an operation that fails with `ESTALE` meanwhile is attempted again.

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Mutex, MutexGuard};

/// The changes of the nodes of jobs that have moved.
#[derive(Debug, Default)]
pub(in crate::mount) struct NodeChanges {
    /// Odd while the nodes of a job are being changed.
    epoch: AtomicU64,
    changing: Mutex<()>,
}

/// The nodes of a job are being changed, until this is dropped.
#[derive(Debug)]
pub(in crate::mount) struct Changing<'a> {
    epoch: &'a AtomicU64,
    _one: MutexGuard<'a, ()>,
}

impl Drop for Changing<'_> {
    fn drop(&mut self) {
        self.epoch.fetch_add(1, Ordering::AcqRel);
    }
}

impl NodeChanges {
    /// Notes that the nodes of a job are about to be changed: requests that fail with `ESTALE` meanwhile are attempted
    /// again.
    pub(in crate::mount) fn begin(&self) -> Changing<'_> {
        let one = self.changing.lock();
        self.epoch.fetch_add(1, Ordering::AcqRel);
        Changing {
            epoch: &self.epoch,
            _one: one,
        }
    }

    /// As [`NodeChanges::begin`], but only if no nodes have been changed since [`NodeChanges::epoch`] returned this, nor were being
    /// changed then.
    pub(in crate::mount) fn begin_since(&self, epoch: u64) -> Option<Changing<'_>> {
        let one = self.changing.lock();
        (self.epoch() == epoch).then(|| {
            self.epoch.fetch_add(1, Ordering::AcqRel);
            Changing {
                epoch: &self.epoch,
                _one: one,
            }
        })
    }

    /// Changes whenever nodes of a job are changed; odd while that is so.
    pub(in crate::mount) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }
}
