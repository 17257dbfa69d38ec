//! The slots in shared memory in which threads note what they are about to change: one for each thread, used again when the thread has ended.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;
use rustix::fs::Statx;
use rustix::io::{Errno, Result};

use crate::sys::file_id::FileId;
use crate::sys::shared_words::SharedWords;

/// The words of a slot, in this order.
#[derive(Debug, Clone, Copy)]
enum Word {
    /// The number of the request; 0 for a free slot.
    Request,
    State,
    /// The error, or what a successful change has returned.
    Result,
    /// When the change was about to be made, in nanoseconds since 1970.
    Begun,
    Device,
    Inode,
    Birth,
    Size,
    /// How many processes had served the mount before the one that wrote the slot.
    Process,
}

/// A power of two, so that no slot lies in two pages.
const SLOT: usize = 16;

const BEGUN: u64 = 1;
const SUCCEEDED: u64 = 2;
const FAILED: u64 = 3;

/// Slots of this many processes ago are free: their requests were answered long since.
pub(super) const PROCESSES: u64 = 8;

thread_local! {
    /// The slot of this thread.
    static OWN: RefCell<Option<Own>> = const { RefCell::new(None) };
}

/// What became of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ChangeState {
    /// It was about to be made.
    Begun,
    Succeeded,
    Failed,
}

/// A change that was begun.
#[derive(Debug, Clone, Copy)]
pub(in crate::mount) struct Begun {
    pub(super) state: ChangeState,
    /// The error, or what a successful change has returned.
    pub(super) result: u64,
    /// When it was about to be made, in nanoseconds since 1970.
    pub(super) at: u64,
    pub(super) identity: FileId,
    pub(in crate::mount) size: u64,
    pub(super) slot: usize,
}

impl Begun {
    pub(super) fn error(&self) -> Errno {
        Errno::from_raw_os_error(i32::try_from(self.result).unwrap_or(libc::EIO))
    }

    /// Whether a file can be what the change has made: it was made since the change was begun.
    pub(in crate::mount) fn may_have_made(&self, stat: &Statx) -> bool {
        let time = match stat.stx_btime.tv_sec {
            0 => stat.stx_ctime,
            _ => stat.stx_btime,
        };
        let made =
            u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::from(time.tv_nsec);
        // The times of files are those of the kernel's last tick, of 10 ms at most.
        made + 10_000_000 >= self.at
    }

    /// Whether a file is the one that was to be changed.
    pub(in crate::mount) fn is_of(&self, stat: &Statx) -> bool {
        self.identity == FileId::of(stat)
    }
}

/// The slots of all threads.
#[derive(Debug)]
pub(super) struct Slots {
    words: SharedWords,
    free: Mutex<Free>,
    process: u64,
}

#[derive(Debug, Default)]
struct Free {
    slots: Vec<usize>,
    next: usize,
}

/// A thread's slot, until the thread ends.
struct Own {
    slots: Arc<Slots>,
    slot: usize,
}

impl Drop for Own {
    fn drop(&mut self) {
        self.slots.clear(self.slot);
        self.slots.free.lock().slots.push(self.slot);
    }
}

/// The slot of this thread.
pub(super) fn own_slot(slots: &Arc<Slots>) -> usize {
    OWN.with_borrow_mut(|own| {
        own.get_or_insert_with(|| Own {
            slot: slots.take(),
            slots: slots.clone(),
        })
        .slot
    })
}

impl Slots {
    /// Opens the slots in memory that this process has now, and returns the changes that earlier processes have noted there, by the numbers
    /// of their requests.
    pub(super) fn open(words: SharedWords) -> Result<(Slots, Vec<(u64, Begun)>)> {
        let count = words.length()? / SLOT;
        let mut slots = Slots {
            words,
            free: Mutex::default(),
            process: 0,
        };
        let used = |slots: &Slots, slot| slots.get(slot, Word::Request) != 0;
        let processes = (0..count)
            .filter(|slot| used(&slots, *slot))
            .map(|slot| slots.get(slot, Word::Process));
        slots.process = processes.max().map_or(0, |last| last + 1);
        let (mut earlier, mut free) = (Vec::new(), Free::default());
        for slot in 0..count {
            let age = slots.process - slots.get(slot, Word::Process).min(slots.process);
            match slots.get(slot, Word::Request) {
                0 => free.slots.push(slot),
                _ if age > PROCESSES => {
                    slots.clear(slot);
                    free.slots.push(slot);
                }
                request => earlier.push((request, slots.read(slot))),
            }
        }
        free.slots.reverse();
        free.next = count;
        slots.free = Mutex::new(free);
        Ok((slots, earlier))
    }

    fn get(&self, slot: usize, word: Word) -> u64 {
        let word = self.words.word(slot * SLOT + word as usize);
        word.map_or(0, |word| word.load(Ordering::Acquire))
    }

    fn set(&self, slot: usize, word: Word, value: u64) {
        if let Some(word) = self.words.word(slot * SLOT + word as usize) {
            word.store(value, Ordering::Release);
        }
    }

    fn take(&self) -> usize {
        let mut free = self.free.lock();
        free.slots.pop().unwrap_or_else(|| {
            free.next += 1;
            free.next - 1
        })
    }

    fn read(&self, slot: usize) -> Begun {
        let get = |word| self.get(slot, word);
        Begun {
            state: match get(Word::State) {
                SUCCEEDED => ChangeState::Succeeded,
                FAILED => ChangeState::Failed,
                _ => ChangeState::Begun,
            },
            result: get(Word::Result),
            at: get(Word::Begun),
            identity: FileId::new(
                u32::try_from(get(Word::Device)).unwrap_or(u32::MAX),
                get(Word::Inode),
                get(Word::Birth),
            ),
            size: get(Word::Size),
            slot,
        }
    }

    /// Writes what is known before a change; the number of the request comes last, since it makes the slot count.
    pub(super) fn write(&self, slot: usize, request: u64, begun: &Begun) {
        self.clear(slot);
        let state = match begun.state {
            ChangeState::Begun => BEGUN,
            ChangeState::Succeeded => SUCCEEDED,
            ChangeState::Failed => FAILED,
        };
        for (word, value) in [
            (Word::State, state),
            (Word::Result, begun.result),
            (Word::Begun, begun.at),
            (Word::Device, begun.identity.device().into()),
            (Word::Inode, begun.identity.inode()),
            (Word::Birth, begun.identity.birth()),
            (Word::Size, begun.size),
            (Word::Process, self.process),
        ] {
            self.set(slot, word, value);
        }
        self.set(slot, Word::Request, request);
    }

    /// Writes the result of the change in a slot; the state comes last, since it makes the result count.
    pub(super) fn note(&self, slot: usize, result: &Result<u64>) {
        let (state, result) = match result {
            Ok(value) => (SUCCEEDED, *value),
            Err(error) => (FAILED, u64::from(error.raw_os_error().unsigned_abs())),
        };
        self.set(slot, Word::Result, result);
        self.set(slot, Word::State, state);
    }

    /// Makes a slot free.
    pub(super) fn clear(&self, slot: usize) {
        self.set(slot, Word::Request, 0);
    }

    #[cfg(test)]
    pub(super) fn fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.words.fd()
    }

    /// How many slots were ever used.
    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.free.lock().next
    }
}

/// Leaves the slot of this thread as a killed process does.
#[cfg(test)]
pub(super) fn forget_slot() {
    std::mem::forget(OWN.take());
}
