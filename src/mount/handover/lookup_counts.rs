//! How often the kernel has received each node, in memory that outlives this process.
//!
//! The kernel says how many of the replies that had a node it forgets. A process that counted fewer would forget a node
//! that the kernel still uses, and one that counted more would keep the node for ever.

use std::collections::HashMap;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use crate::sys::shared_words::SharedWords;

/// The slot of a node's count; `NONE` without one. Its highest bits say whether the node is recorded as well, and whether it is
/// inherited: one is kept per node of a mount, so no byte is spent on that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::mount) struct Slot(u32);

/// The bits of a slot's number.
const NUMBER: u32 = u32::MAX >> 2;
/// Set for a node that is recorded.
const RECORDED: u32 = 1 << 31;
/// Set for a node that this process has not sent to the kernel.
const INHERITED: u32 = 1 << 30;

impl Slot {
    pub(in crate::mount) const NONE: Slot = Slot(NUMBER);

    /// The word that has the number of the node, and the one that has the count; `None` without a slot.
    fn words(self) -> Option<(usize, usize)> {
        let number = self.0 & NUMBER;
        (number != NUMBER).then_some((number as usize * 2, number as usize * 2 + 1))
    }

    /// The same slot of a node that is recorded, or not.
    pub(in crate::mount) fn recorded(self, recorded: bool) -> Slot {
        self.with(RECORDED, recorded)
    }

    /// The same slot of a node that only earlier processes have sent to the kernel, or that this one has sent, too.
    pub(in crate::mount) fn inherited(self, inherited: bool) -> Slot {
        self.with(INHERITED, inherited)
    }

    fn with(self, bit: u32, set: bool) -> Slot {
        Slot(self.0 & !bit | if set { bit } else { 0 })
    }

    /// Whether the node is recorded.
    pub(in crate::mount) fn is_recorded(self) -> bool {
        self.0 & RECORDED != 0
    }

    /// Whether only earlier processes have sent the node to the kernel.
    pub(in crate::mount) fn is_inherited(self) -> bool {
        self.0 & INHERITED != 0
    }
}

/// The counts of all nodes, once they are shared with another process; before that, it keeps nothing.
#[derive(Debug, Default)]
pub(in crate::mount) struct LookupCounts {
    words: OnceLock<SharedWords>,
    free: Mutex<Free>,
    /// The nodes that an earlier process has counted, and that this one has not needed yet.
    unclaimed: Mutex<HashMap<u64, Slot>>,
    /// How many there are of these: none in a process that began the mount.
    unclaimed_count: AtomicUsize,
}

#[derive(Debug, Default)]
struct Free {
    slots: Vec<Slot>,
    next: u32,
}

impl LookupCounts {
    /// Begins to count in shared memory.
    pub(super) fn start(&self, words: SharedWords) {
        let _ = self.words.set(words);
    }

    /// Continues the counts of another process.
    pub(super) fn inherit(&self, words: SharedWords) -> rustix::io::Result<()> {
        let slots = words.length()? / 2;
        let mut unclaimed = self.unclaimed.lock();
        let mut free = self.free.lock();
        for slot in (0..u32::try_from(slots).unwrap_or(NUMBER).min(NUMBER)).map(Slot) {
            let word = slot.words().and_then(|(number, _)| words.word(number));
            match word.map_or(0, |word| word.load(Ordering::Relaxed)) {
                0 => free.slots.push(slot),
                id => drop(unclaimed.insert(id, slot)),
            }
        }
        // The lowest first, which are in memory already.
        free.slots.reverse();
        free.next = u32::try_from(slots).unwrap_or(NUMBER).min(NUMBER);
        self.unclaimed_count
            .store(unclaimed.len(), Ordering::Release);
        let _ = self.words.set(words);
        Ok(())
    }

    /// The count of a node in an earlier process, which this one continues; `None` if there was none.
    pub(in crate::mount) fn claim(&self, id: u64) -> Option<(Slot, u32)> {
        if self.unclaimed_count.load(Ordering::Acquire) == 0 {
            return None;
        }
        let slot = {
            let mut unclaimed = self.unclaimed.lock();
            let slot = unclaimed.remove(&id)?;
            self.unclaimed_count
                .store(unclaimed.len(), Ordering::Release);
            slot
        };
        let count = self.words.get()?.word(slot.words()?.1)?;
        let count = count.load(Ordering::Relaxed);
        Some((slot, u32::try_from(count).unwrap_or(u32::MAX)))
    }

    /// Begins to count a node.
    pub(in crate::mount) fn begin(&self, id: u64, count: u32) -> Slot {
        let Some(words) = self.words.get() else {
            return Slot::NONE;
        };
        let slot = {
            let mut free = self.free.lock();
            match free.slots.pop() {
                Some(slot) => slot,
                None => {
                    let slot = Slot(free.next);
                    free.next = free.next.saturating_add(1).min(NUMBER);
                    slot
                }
            }
        };
        let Some((number, counted)) = slot.words() else {
            return Slot::NONE;
        };
        let (Some(number), Some(counted)) = (words.word(number), words.word(counted)) else {
            return Slot::NONE;
        };
        counted.store(count.into(), Ordering::Relaxed);
        // Last: a slot with a number counts.
        number.store(id, Ordering::Release);
        slot
    }

    /// Sets the count of a node.
    pub(in crate::mount) fn set(&self, slot: Slot, count: u32) {
        if let (Some((_, counted)), Some(words)) = (slot.words(), self.words.get())
            && let Some(counted) = words.word(counted)
        {
            counted.store(count.into(), Ordering::Relaxed);
        }
    }

    /// Ends counting a node.
    pub(in crate::mount) fn end(&self, slot: Slot) {
        if let (Some((number, _)), Some(words)) = (slot.words(), self.words.get())
            && let Some(number) = words.word(number)
        {
            number.store(0, Ordering::Release);
            self.free.lock().slots.push(Slot(slot.0 & NUMBER));
        }
    }

    /// Notes that the kernel forgets a node that this process has not needed. Returns whether the kernel no longer knows it.
    pub(in crate::mount) fn forget_unclaimed(&self, id: u64, count: u64) -> bool {
        let Some((slot, known)) = self.claim(id) else {
            return false;
        };
        let left = u64::from(known).saturating_sub(count);
        if left == 0 {
            self.end(slot);
            return true;
        }
        self.set(slot, u32::try_from(left).unwrap_or(u32::MAX));
        let mut unclaimed = self.unclaimed.lock();
        unclaimed.insert(id, slot);
        self.unclaimed_count
            .store(unclaimed.len(), Ordering::Release);
        false
    }

    /// Whether an earlier process has counted a node that this one has not needed yet.
    pub(in crate::mount) fn is_unclaimed(&self, id: u64) -> bool {
        self.unclaimed_count() > 0 && self.unclaimed.lock().contains_key(&id)
    }

    /// The nodes that an earlier process has counted, and that this one has not needed yet.
    pub(in crate::mount) fn unclaimed(&self) -> Vec<u64> {
        self.unclaimed.lock().keys().copied().collect()
    }

    /// How many of these there are.
    pub(in crate::mount) fn unclaimed_count(&self) -> usize {
        self.unclaimed_count.load(Ordering::Acquire)
    }
}
