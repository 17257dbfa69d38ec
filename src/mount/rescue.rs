//! Bounds how long a request waits for a folder, and makes sure that it is answered once.
//!
//! The kernel holds the lock of a directory while it looks a name up in it, lists it, or makes, renames or removes an
//! entry in it. A request that waits for a folder blocks all requests that need this lock.
//!
//! 1. As soon as a folder is known not to answer, a waiting request is attempted again by another thread, which skips
//!    the folder. The attempt that claims the request first replies ([`Turn`]).
//! 2. A request that waits for [`FOLDER_REPLY_TIMEOUT`] fails with `ETIMEDOUT`, also if the folder answers other
//!    requests. This is not `ENOENT`: the contents of the folder are unknown.
//! 3. An attempt claims the request before it changes a file ([`commit`]). An attempt that lost the claim changes
//!    nothing.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::io::{Errno, Result};

use crate::view::View;

/// How often waiting requests are checked, and how long each waits at least before it is attempted again.
const INTERVAL: Duration = Duration::from_millis(500);

/// How long a request waits for a folder: longer than the detection of a folder that does not answer at all takes.
const FOLDER_REPLY_TIMEOUT: Duration = Duration::from_secs(15);

/// The same timeout while another request has timed out and still waits for its folder, since requests that wait for
/// one lock time out one after the other.
const NEXT_REPLY_TIMEOUT: Duration = Duration::from_secs(2);

type Act = Arc<dyn Fn() + Send + Sync>;

/// Requests that are being processed.
#[derive(Default)]
pub(super) struct Rescue {
    requests: Mutex<Requests>,
}

#[derive(Default)]
struct Requests {
    next: u64,
    waiting: HashMap<u64, Waiting>,
}

struct Waiting {
    begun: Instant,
    /// Attempts the request without the folders that do not answer; called once.
    again: Option<Act>,
    /// Replies that the request has timed out; called once.
    give_up: Option<Act>,
}

impl std::fmt::Debug for Rescue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rescue").finish_non_exhaustive()
    }
}

/// A request, as long as it is processed.
pub(super) struct Watched<'a> {
    rescue: &'a Rescue,
    number: u64,
}

impl Drop for Watched<'_> {
    fn drop(&mut self) {
        let done = self.rescue.requests.lock().waiting.remove(&self.number);
        // `done` may hold the last handle of a file, so it must not be dropped under the lock.
        drop(done);
    }
}

impl Rescue {
    /// Watches a request: calls `again` to attempt it again if it takes long and a folder does not answer, and
    /// `give_up` to answer it if it takes too long.
    pub(super) fn watch(
        &self,
        again: impl Fn() + Send + Sync + 'static,
        give_up: impl Fn() + Send + Sync + 'static,
    ) -> Watched<'_> {
        let waiting = Waiting {
            begun: Instant::now(),
            again: Some(Arc::new(again)),
            give_up: Some(Arc::new(give_up)),
        };
        let mut requests = self.requests.lock();
        requests.next += 1;
        let number = requests.next;
        requests.waiting.insert(number, waiting);
        Watched {
            rescue: self,
            number,
        }
    }

    /// Starts the thread that checks the waiting requests, until the view is gone.
    pub(super) fn start(self: &Arc<Self>, view: &Arc<View>) -> std::io::Result<()> {
        let (rescue, view) = (Arc::downgrade(self), Arc::downgrade(view));
        let thread = std::thread::Builder::new().name("xpmfs-rescue".to_owned());
        thread.spawn(move || look(&rescue, &view)).map(drop)
    }

    /// Returns the actions for requests that have timed out.
    fn timed_out(&self) -> Vec<Act> {
        let mut requests = self.requests.lock();
        let others = requests.waiting.values().any(|one| one.give_up.is_none());
        let timeout = match others {
            true => NEXT_REPLY_TIMEOUT,
            false => FOLDER_REPLY_TIMEOUT,
        };
        let waiting = requests.waiting.values_mut();
        let old = waiting.filter(|one| one.begun.elapsed() > timeout);
        old.filter_map(|one| {
            one.again = None;
            one.give_up.take()
        })
        .collect()
    }

    /// Returns the actions for requests that have waited for a while, with their numbers.
    fn slow(&self) -> Vec<(u64, Act)> {
        let requests = self.requests.lock();
        let waiting = requests.waiting.iter();
        let old = waiting.filter(|(_, one)| one.begun.elapsed() > INTERVAL);
        old.filter_map(|(number, one)| Some((*number, one.again.clone()?)))
            .collect()
    }
}

fn look(rescue: &Weak<Rescue>, view: &Weak<View>) {
    loop {
        std::thread::sleep(INTERVAL);
        let (Some(rescue), Some(view)) = (rescue.upgrade(), view.upgrade()) else {
            return;
        };
        for give_up in rescue.timed_out() {
            give_up();
        }
        if !view.has_silent_folder() {
            continue;
        }
        for (number, again) in rescue.slow() {
            let thread = std::thread::Builder::new().name("xpmfs-again".to_owned());
            match thread.spawn(move || again()) {
                // Once: the new attempt is watched separately.
                Ok(_) => {
                    let mut requests = rescue.requests.lock();
                    let request = requests.waiting.get_mut(&number);
                    let done = request.and_then(|request| request.again.take());
                    drop(requests);
                    drop(done);
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot attempt a request again: starting a thread failed");
                }
            }
        }
    }
}

/// A request that no attempt has claimed.
const FREE: u32 = 0;

thread_local! {
    /// The claim of the attempt that this thread processes, if it is one of several.
    static CURRENT: RefCell<Option<(Arc<AtomicU32>, u32)>> = const { RefCell::new(None) };
}

fn claim(claimed: &AtomicU32, by: u32) -> bool {
    match claimed.compare_exchange(FREE, by, Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => true,
        Err(other) => other == by,
    }
}

/// Claims the request that this thread processes, before a file is changed for it.
///
/// # Errors
///
/// `ETIMEDOUT` if the request has been answered, or another attempt has claimed it.
pub(super) fn commit() -> Result<()> {
    CURRENT.with_borrow(|current| match current {
        Some((claimed, by)) if !claim(claimed, *by) => Err(Errno::TIMEDOUT),
        _ => Ok(()),
    })
}

/// An attempt to answer a request.
#[derive(Debug)]
pub(super) struct Turn<R> {
    request: Arc<Request<R>>,
    claimed: Arc<AtomicU32>,
    number: u32,
}

#[derive(Debug)]
struct Request<R> {
    reply: Mutex<Option<R>>,
    attempts: AtomicU32,
}

/// Ends the attempt of this thread when it is dropped.
pub(super) struct Current;

impl Drop for Current {
    fn drop(&mut self) {
        let ended = CURRENT.take();
        drop(ended);
    }
}

impl<R> Turn<R> {
    pub(super) fn new(reply: R) -> Turn<R> {
        let request = Request {
            reply: Mutex::new(Some(reply)),
            attempts: AtomicU32::new(FREE + 1),
        };
        Turn {
            request: Arc::new(request),
            claimed: Arc::new(AtomicU32::new(FREE)),
            number: FREE + 1,
        }
    }

    /// Returns another attempt at the same request.
    pub(super) fn next(&self) -> Turn<R> {
        Turn {
            request: self.request.clone(),
            claimed: self.claimed.clone(),
            number: self.request.attempts.fetch_add(1, Ordering::Relaxed) + 1,
        }
    }

    /// Makes [`commit`] in this thread claim this attempt.
    pub(super) fn begin(&self) -> Current {
        CURRENT.set(Some((self.claimed.clone(), self.number)));
        Current
    }

    /// Whether another attempt has claimed the request.
    pub(super) fn is_lost(&self) -> bool {
        ![FREE, self.number].contains(&self.claimed.load(Ordering::Acquire))
    }

    /// Returns the reply, unless another attempt has claimed the request.
    pub(super) fn take(&self) -> Option<R> {
        match claim(&self.claimed, self.number) {
            true => self.request.reply.lock().take(),
            false => None,
        }
    }
}

/// A reply that the first finished attempt uses.
#[derive(Debug)]
pub(super) struct Slot<R>(Arc<Mutex<Option<R>>>);

impl<R> Clone for Slot<R> {
    fn clone(&self) -> Self {
        Slot(self.0.clone())
    }
}

impl<R> Slot<R> {
    pub(super) fn new(reply: R) -> Slot<R> {
        Slot(Arc::new(Mutex::new(Some(reply))))
    }

    /// Returns the reply, unless it has been used.
    pub(super) fn take(&self) -> Option<R> {
        self.0.lock().take()
    }

    /// Calls `act` with the reply if it has not been used.
    pub(super) fn with<T>(&self, act: impl FnOnce(&mut R) -> T) -> Option<T> {
        self.0.lock().as_mut().map(act)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_attempt_changes_something_and_replies() {
        let first = Turn::new("reply");
        let second = first.next();
        {
            let _current = second.begin();
            assert_eq!(commit(), Ok(()));
            assert_eq!(commit(), Ok(()), "it has claimed it already");
        }
        let _current = first.begin();
        assert_eq!(commit(), Err(Errno::TIMEDOUT));
        assert!(first.is_lost() && !second.is_lost());
        assert_eq!((first.take(), second.take()), (None, Some("reply")));
        assert_eq!(second.take(), None);
    }

    #[test]
    fn requests_time_out_sooner_while_another_waits_that_has() {
        let rescue = Rescue::default();
        let before = |time: Duration| Instant::now().checked_sub(time).unwrap();
        let first = rescue.watch(|| {}, || {});
        let second = rescue.watch(|| {}, || {});
        let set = |number: u64, begun| {
            let mut requests = rescue.requests.lock();
            requests.waiting.get_mut(&number).unwrap().begun = begun;
        };
        set(first.number, before(FOLDER_REPLY_TIMEOUT * 2));
        set(second.number, before(NEXT_REPLY_TIMEOUT * 2));
        assert_eq!(rescue.slow().len(), 2);
        assert_eq!(rescue.timed_out().len(), 1);
        assert_eq!(rescue.timed_out().len(), 1);
        assert_eq!(rescue.timed_out().len(), 0);
        drop(first);
        drop(second);
        let _third = rescue.watch(|| {}, || {});
        set(3, before(NEXT_REPLY_TIMEOUT * 2));
        assert_eq!(rescue.timed_out().len(), 0);
    }
}
