//! Counts the writes of this mount, so that the kernel is not made to drop contents that are being written.
//!
//! Before it sends a write, the kernel puts the data into its cache. If it drops the page before the data is on the disk, another program
//! may make it read the page again, without the data. If that program has the page mapped and changes it, the whole page is written,
//! and the first program's data is lost.

use std::sync::atomic::{AtomicU64, Ordering};

/// The number of counters, which nodes share: a write to one file may delay an invalidation of another.
const COUNTERS: usize = 256;

/// The writes of all files.
#[derive(Debug)]
pub(in crate::mount) struct OwnWrites {
    counters: Vec<Counter>,
}

#[derive(Debug, Default)]
struct Counter {
    begun: AtomicU64,
    ended: AtomicU64,
}

/// A write, which ends when this is dropped.
#[derive(Debug)]
pub(in crate::mount) struct OwnWrite<'a>(&'a Counter);

impl Default for OwnWrites {
    fn default() -> OwnWrites {
        OwnWrites {
            counters: (0..COUNTERS).map(|_| Counter::default()).collect(),
        }
    }
}

impl OwnWrites {
    /// Notes that a file is about to be written.
    pub(in crate::mount) fn begin(&self, node: u64) -> Option<OwnWrite<'_>> {
        let counter = self.counter(node)?;
        counter.begun.fetch_add(1, Ordering::AcqRel);
        Some(OwnWrite(counter))
    }

    /// A number that is the same as before if the file was not written since; `None` if it is being written.
    pub(in crate::mount) fn count(&self, node: u64) -> Option<u64> {
        self.counter(node)?.count()
    }

    /// The present numbers of all files.
    pub(in crate::mount) fn snapshot(&self) -> Snapshot {
        Snapshot(self.counters.iter().map(Counter::count).collect())
    }

    fn counter(&self, node: u64) -> Option<&Counter> {
        self.counters.get(index(node))
    }
}

impl Counter {
    fn count(&self) -> Option<u64> {
        // In this order: a write that begins and ends in between makes the two differ.
        let ended = self.ended.load(Ordering::Acquire);
        let begun = self.begun.load(Ordering::Acquire);
        (begun == ended).then_some(begun)
    }
}

/// The numbers of all files at some time.
#[derive(Debug)]
pub(in crate::mount) struct Snapshot(Vec<Option<u64>>);

impl Snapshot {
    /// Whether a file that has this number now was not written since.
    pub(in crate::mount) fn is_unchanged(&self, node: u64, count: u64) -> bool {
        self.0.get(index(node)) == Some(&Some(count))
    }
}

/// The counter of a node.
fn index(node: u64) -> usize {
    (node % COUNTERS as u64) as usize
}

impl Drop for OwnWrite<'_> {
    fn drop(&mut self) {
        self.0.ended.fetch_add(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_is_counted_and_noticed_while_it_lasts() {
        let writes = OwnWrites::default();
        let (before, snapshot) = (writes.count(7).unwrap(), writes.snapshot());
        assert_eq!(writes.count(7), Some(before));
        assert!(snapshot.is_unchanged(7, before));
        let write = writes.begin(7);
        assert_eq!(writes.count(7), None);
        assert!(writes.count(8).is_some());
        drop(write);
        let after = writes.count(7).unwrap();
        assert_ne!(after, before);
        assert!(
            !snapshot.is_unchanged(7, after) && snapshot.is_unchanged(8, writes.count(8).unwrap())
        );
    }
}
