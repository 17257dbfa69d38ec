//! What a process was about to change for a request, in memory that outlives it.
//!
//! The kernel sends a request again that a process has read and not answered. By then the file may have been changed: a
//! second `mkdir` would fail, and a second append would add a second record. So each change is noted before and after it
//! is made. Of a change that was made, the next process returns the result; of one that may have been made, it looks at
//! the disk.
//!
//! Each thread has a slot of its own, which it uses again for its next request: by then, the kernel has received the reply
//! to the one before.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use rustix::fs::Statx;
use rustix::io::{Errno, Result};

use crate::sys::file_id::FileId;
use crate::sys::shared_words::SharedWords;

/// Set by the kernel in the number of a request that it sends again (`FUSE_UNIQUE_RESEND`).
const RESENT: u64 = 1 << 63;

/// The number that a request had when it was sent first.
pub(in crate::mount) fn first_number(request: u64) -> u64 {
    request & !RESENT
}

/// Whether a request is sent again.
pub(in crate::mount) fn is_resent(request: u64) -> bool {
    request & RESENT != 0
}

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
const PROCESSES: u64 = 8;

thread_local! {
    /// The number of the request that this thread processes, if the request changes anything.
    static CURRENT: Cell<Option<u64>> = const { Cell::new(None) };
    /// The slot of this thread.
    static OWN: RefCell<Option<Own>> = const { RefCell::new(None) };
}

/// The state of a file before a change: enough to see afterwards whether the change was made.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::mount) struct Before {
    /// The identity of the file that is changed, if that is known.
    pub(in crate::mount) identity: Option<FileId>,
    /// Its size in bytes.
    pub(in crate::mount) size: u64,
}

/// A change that an earlier process has begun.
#[derive(Debug, Clone, Copy)]
pub(in crate::mount) struct Begun {
    state: u64,
    result: u64,
    at: u64,
    identity: FileId,
    pub(in crate::mount) size: u64,
    slot: usize,
}

/// What an earlier process has made of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::mount) enum IntentOutcome {
    /// It has made the change.
    Made,
    /// It could not make the change.
    Failed(Errno),
    /// It was killed when it was about to make the change.
    Unknown,
}

impl Begun {
    fn error(&self) -> Errno {
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

/// The slots of all threads, once they are shared with another process.
#[derive(Debug, Default)]
pub(in crate::mount) struct Intents {
    shared: OnceLock<Arc<Shared>>,
    /// The changes of earlier processes, by the number of the request.
    earlier: Mutex<HashMap<u64, Begun>>,
    earlier_count: AtomicUsize,
}

#[derive(Debug)]
struct Shared {
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
    shared: Arc<Shared>,
    slot: usize,
}

impl Drop for Own {
    fn drop(&mut self) {
        self.shared.set(self.slot, Word::Request, 0);
        self.shared.free.lock().slots.push(self.slot);
    }
}

impl Shared {
    fn get(&self, slot: usize, word: Word) -> u64 {
        let word = self.words.word(slot * SLOT + word as usize);
        word.map_or(0, |word| word.load(Ordering::Acquire))
    }

    fn set(&self, slot: usize, word: Word, value: u64) {
        if let Some(word) = self.words.word(slot * SLOT + word as usize) {
            word.store(value, Ordering::Release);
        }
    }

    fn take_slot(&self) -> usize {
        let mut free = self.free.lock();
        free.slots.pop().unwrap_or_else(|| {
            free.next += 1;
            free.next - 1
        })
    }

    fn read(&self, slot: usize) -> Begun {
        let get = |word| self.get(slot, word);
        Begun {
            state: get(Word::State),
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
    fn write(&self, slot: usize, request: u64, begun: &Begun) {
        self.set(slot, Word::Request, 0);
        for (word, value) in [
            (Word::State, begun.state),
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
}

/// Marks that this thread processes a request that changes something, until it is dropped.
pub(in crate::mount) struct RequestGuard;

impl RequestGuard {
    pub(in crate::mount) fn new(request: u64) -> RequestGuard {
        CURRENT.set(Some(request));
        RequestGuard
    }
}

impl Drop for RequestGuard {
    fn drop(&mut self) {
        CURRENT.set(None);
    }
}

impl Intents {
    /// Begins to note changes in shared memory. `earlier` process's notes are in it.
    pub(super) fn start(&self, words: SharedWords) -> Result<()> {
        let slots = words.length()? / SLOT;
        let mut shared = Shared {
            words,
            free: Mutex::default(),
            process: 0,
        };
        let used = |shared: &Shared, slot| shared.get(slot, Word::Request) != 0;
        let processes = (0..slots)
            .filter(|slot| used(&shared, *slot))
            .map(|slot| shared.get(slot, Word::Process));
        shared.process = processes.max().map_or(0, |last| last + 1);
        let mut earlier = self.earlier.lock();
        let mut free = Free::default();
        for slot in 0..slots {
            let age = shared.process - shared.get(slot, Word::Process).min(shared.process);
            match shared.get(slot, Word::Request) {
                0 => free.slots.push(slot),
                _ if age > PROCESSES => {
                    shared.set(slot, Word::Request, 0);
                    free.slots.push(slot);
                }
                request => drop(earlier.insert(request, shared.read(slot))),
            }
        }
        free.slots.reverse();
        free.next = slots;
        shared.free = Mutex::new(free);
        self.earlier_count.store(earlier.len(), Ordering::Release);
        let _ = self.shared.set(Arc::new(shared));
        Ok(())
    }

    /// What an earlier process has made of the request of this thread; `None` for a request that is not sent again.
    pub(in crate::mount) fn outcome(&self) -> Option<IntentOutcome> {
        let request = CURRENT.get().filter(|request| is_resent(*request))?;
        if self.earlier_count.load(Ordering::Acquire) == 0 {
            return None;
        }
        let earlier = self.earlier.lock();
        let begun = earlier.get(&first_number(request))?;
        Some(match begun.state {
            SUCCEEDED => IntentOutcome::Made,
            FAILED => IntentOutcome::Failed(begun.error()),
            _ => IntentOutcome::Unknown,
        })
    }

    /// The change that an earlier process was about to make for the request of this thread.
    pub(in crate::mount) fn begun(&self) -> Option<Begun> {
        let request = CURRENT.get().filter(|request| is_resent(*request))?;
        let begun = *self.earlier.lock().get(&first_number(request))?;
        (begun.state == BEGUN).then_some(begun)
    }

    /// Makes a change for the request of this thread, unless an earlier process has made it; returns the result of the
    /// change. `look` says whether a change that an earlier process has begun was made: its result, if it was.
    pub(in crate::mount) fn change(
        &self,
        before: impl FnOnce() -> Result<Before>,
        look: impl FnOnce(&Begun) -> Result<Option<u64>>,
        change: impl FnOnce() -> Result<u64>,
    ) -> Result<u64> {
        let (Some(shared), Some(request)) = (self.shared.get(), CURRENT.get()) else {
            return change();
        };
        let number = first_number(request);
        let slot = own_slot(shared);
        if let Some(begun) = self.earlier(request) {
            // This process can be killed as well before it replies.
            shared.write(slot, number, &begun);
            shared.set(begun.slot, Word::Request, 0);
            let made = match begun.state {
                SUCCEEDED => Some(Ok(begun.result)),
                FAILED => Some(Err(begun.error())),
                _ => look(&begun)?.map(Ok),
            };
            if let Some(result) = made {
                note(shared, slot, &result);
                return result;
            }
        } else {
            let Before { identity, size } = before()?;
            let now = SystemTime::now().duration_since(UNIX_EPOCH);
            let begun = Begun {
                state: BEGUN,
                result: 0,
                at: now.map_or(0, |now| u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)),
                identity: identity.unwrap_or(FileId::UNKNOWN),
                size,
                slot,
            };
            shared.write(slot, number, &begun);
        }
        let result = change();
        note(shared, slot, &result);
        result
    }

    /// The change that an earlier process has begun for a request that the kernel has sent again.
    fn earlier(&self, request: u64) -> Option<Begun> {
        if !is_resent(request) || self.earlier_count.load(Ordering::Acquire) == 0 {
            return None;
        }
        let mut earlier = self.earlier.lock();
        let begun = earlier.remove(&first_number(request));
        self.earlier_count.store(earlier.len(), Ordering::Release);
        begun
    }
}

fn note(shared: &Shared, slot: usize, result: &Result<u64>) {
    let (state, result) = match result {
        Ok(value) => (SUCCEEDED, *value),
        Err(error) => (FAILED, u64::from(error.raw_os_error().unsigned_abs())),
    };
    shared.set(slot, Word::Result, result);
    shared.set(slot, Word::State, state);
}

fn own_slot(shared: &Arc<Shared>) -> usize {
    OWN.with_borrow_mut(|own| {
        own.get_or_insert_with(|| Own {
            slot: shared.take_slot(),
            shared: shared.clone(),
        })
        .slot
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn successor(intents: &Intents) -> Intents {
        let shared = intents.shared.get().unwrap();
        let fd = rustix::io::fcntl_dupfd_cloexec(shared.words.fd(), 0).unwrap();
        let next = Intents::default();
        next.start(SharedWords::open(fd)).unwrap();
        next
    }

    fn begin() -> Intents {
        let intents = Intents::default();
        intents.start(SharedWords::new().unwrap()).unwrap();
        intents
    }

    /// Changes something in a thread of its own, as each process does.
    fn change(
        intents: &Intents,
        request: u64,
        look: Option<u64>,
        change: impl Fn() -> Result<u64> + Sync,
        killed: bool,
    ) -> Result<u64> {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                let _current = RequestGuard::new(request);
                let result = intents.change(|| Ok(Before::default()), |_| Ok(look), &change);
                if killed {
                    // The slot stays as a killed process leaves it.
                    std::mem::forget(OWN.take());
                }
                result
            });
            thread.join().unwrap()
        })
    }

    #[test]
    fn what_was_changed_is_not_changed_again() {
        let first = begin();
        assert_eq!(change(&first, 2, None, || Ok(7), true), Ok(7));
        assert_eq!(
            change(&first, 4, None, || Err(Errno::EXIST), true),
            Err(Errno::EXIST)
        );
        let mut next = successor(&first);
        // Also if further processes are killed before they answer.
        for _ in 0..3 {
            let again = || panic!("changed again");
            assert_eq!(change(&next, 2 | RESENT, None, again, true), Ok(7));
            assert_eq!(
                change(&next, 4 | RESENT, None, again, true),
                Err(Errno::EXIST)
            );
            next = successor(&next);
        }
        assert_eq!(change(&next, 6, None, || Ok(8), false), Ok(8));
        assert_eq!(change(&next, 8 | RESENT, None, || Ok(9), false), Ok(9));
    }

    #[test]
    fn what_may_have_been_changed_is_looked_at() {
        let first = begin();
        let shared = first.shared.get().unwrap();
        for (request, slot) in [(2, 0), (4, 1)] {
            let begun = Begun {
                state: BEGUN,
                result: 0,
                at: 5,
                identity: FileId::UNKNOWN,
                size: 3,
                slot,
            };
            shared.write(slot, request, &begun);
        }
        let next = successor(&first);
        assert_eq!(change(&next, 2 | RESENT, Some(1), || Ok(7), false), Ok(1));
        assert_eq!(change(&next, 4 | RESENT, None, || Ok(7), false), Ok(7));
    }

    #[test]
    fn slots_are_used_again() {
        let intents = begin();
        for request in 0..10_000 {
            change(&intents, request * 2, None, || Ok(0), false).unwrap();
        }
        assert!(intents.shared.get().unwrap().free.lock().next <= 2);
        let mut next = successor(&intents);
        for process in 0..3 * PROCESSES {
            change(&next, process * 2, None, || Ok(0), true).unwrap();
            next = successor(&next);
        }
        let used = next.earlier.lock().len() as u64;
        assert!(used <= PROCESSES + 1, "{used}");
    }
}
