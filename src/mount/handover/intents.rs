//! What a process was about to change for a request, in memory that outlives it.
//!
//! The kernel sends a request again that a process has read and not answered. By then the file may have been changed: a
//! second `mkdir` would fail, and a second append would add a second record. So each change is noted before and after it
//! is made. Of a change that was made, the next process returns the result; of one that may have been made, it looks at
//! the disk.
//!
//! Each thread notes them in a slot of its own ([`intent_slots`](super::intent_slots)), which it uses again for its next request: by
//! then, the kernel has received the reply to the one before.

use std::cell::Cell;
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use rustix::io::{Errno, Result};

use super::intent_slots::{Begun, ChangeState, Slots, own_slot};
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

thread_local! {
    /// The number of the request that this thread processes, if the request changes anything.
    static CURRENT: Cell<Option<u64>> = const { Cell::new(None) };
}

/// The state of a file before a change: enough to see afterwards whether the change was made.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::mount) struct Before {
    /// The identity of the file that is changed, if that is known.
    pub(in crate::mount) identity: Option<FileId>,
    /// Its size in bytes.
    pub(in crate::mount) size: u64,
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

/// The changes that are noted, once they are shared with another process.
#[derive(Debug, Default)]
pub(in crate::mount) struct Intents {
    slots: OnceLock<Arc<Slots>>,
    /// The changes of earlier processes, by the number of the request.
    earlier: Mutex<HashMap<u64, Begun>>,
    earlier_count: AtomicUsize,
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
    /// Begins to note changes in shared memory. The notes of earlier processes are in it.
    pub(super) fn start(&self, words: SharedWords) -> Result<()> {
        let (slots, begun) = Slots::open(words)?;
        let mut earlier = self.earlier.lock();
        earlier.extend(begun);
        self.earlier_count.store(earlier.len(), Ordering::Release);
        let _ = self.slots.set(Arc::new(slots));
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
            ChangeState::Succeeded => IntentOutcome::Made,
            ChangeState::Failed => IntentOutcome::Failed(begun.error()),
            ChangeState::Begun => IntentOutcome::Unknown,
        })
    }

    /// The change that an earlier process was about to make for the request of this thread.
    pub(in crate::mount) fn begun(&self) -> Option<Begun> {
        let request = CURRENT.get().filter(|request| is_resent(*request))?;
        let begun = *self.earlier.lock().get(&first_number(request))?;
        (begun.state == ChangeState::Begun).then_some(begun)
    }

    /// Makes a change for the request of this thread, unless an earlier process has made it; returns the result of the
    /// change. `look` says whether a change that an earlier process has begun was made: its result, if it was.
    pub(in crate::mount) fn change(
        &self,
        before: impl FnOnce() -> Result<Before>,
        look: impl FnOnce(&Begun) -> Result<Option<u64>>,
        change: impl FnOnce() -> Result<u64>,
    ) -> Result<u64> {
        let (Some(slots), Some(request)) = (self.slots.get(), CURRENT.get()) else {
            return change();
        };
        let number = first_number(request);
        let slot = own_slot(slots);
        if let Some(begun) = self.earlier(request) {
            // This process can be killed as well before it replies.
            slots.write(slot, number, &begun);
            slots.clear(begun.slot);
            let made = match begun.state {
                ChangeState::Succeeded => Some(Ok(begun.result)),
                ChangeState::Failed => Some(Err(begun.error())),
                ChangeState::Begun => look(&begun)?.map(Ok),
            };
            if let Some(result) = made {
                slots.note(slot, &result);
                return result;
            }
        } else {
            let Before { identity, size } = before()?;
            let now = SystemTime::now().duration_since(UNIX_EPOCH);
            let begun = Begun {
                state: ChangeState::Begun,
                result: 0,
                at: now.map_or(0, |now| u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)),
                identity: identity.unwrap_or(FileId::UNKNOWN),
                size,
                slot,
            };
            slots.write(slot, number, &begun);
        }
        let result = change();
        slots.note(slot, &result);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mount::handover::intent_slots::{PROCESSES, forget_slot};

    fn successor(intents: &Intents) -> Intents {
        let slots = intents.slots.get().unwrap();
        let fd = rustix::io::fcntl_dupfd_cloexec(slots.fd(), 0).unwrap();
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
                    forget_slot();
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
        let slots = first.slots.get().unwrap();
        for (request, slot) in [(2, 0), (4, 1)] {
            let begun = Begun {
                state: ChangeState::Begun,
                result: 0,
                at: 5,
                identity: FileId::UNKNOWN,
                size: 3,
                slot,
            };
            slots.write(slot, request, &begun);
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
        assert!(intents.slots.get().unwrap().count() <= 2);
        let mut next = successor(&intents);
        for process in 0..3 * PROCESSES {
            change(&next, process * 2, None, || Ok(0), true).unwrap();
            next = successor(&next);
        }
        let used = next.earlier.lock().len() as u64;
        assert!(used <= PROCESSES + 1, "{used}");
    }
}
