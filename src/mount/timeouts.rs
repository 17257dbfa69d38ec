//! Bounds how long a request waits for a folder.
//!
//! The kernel holds the lock of a directory while it looks a name up in it, lists it, or makes, renames or removes an
//! entry in it. A request that waits for a folder blocks all requests that need this lock.
//!
//! 1. Each waiting request is checked for what its thread asks a folder (`view::location::asking`). A question about which jobs
//!    there are that is late takes the folder offline.
//! 2. A request that waits for a folder which is offline is attempted again by another thread, which skips the folder (`deferred`:
//!    each request is answered once).
//! 3. A request that waits for [`REQUEST_TIMEOUT`] fails with `ETIMEDOUT`, also if the folder answers other
//!    requests. This is not `ENOENT`: the contents of the folder are unknown.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::view::View;
use crate::view::location::asking::{Mark, Question};

/// How often waiting requests are checked.
const CHECK_INTERVAL: Duration = Duration::from_millis(100);

/// How long a request waits for a file in a job: longer than the detection of a folder that does not answer at all takes.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);

/// The same timeout while another request has timed out and still waits for its folder, since requests that wait for
/// one lock time out one after the other.
const NEXT_REPLY_TIMEOUT: Duration = Duration::from_secs(2);

type Act = Arc<dyn Fn() + Send + Sync>;

/// Requests that are being processed.
#[derive(Default)]
pub(super) struct Timeouts {
    requests: Mutex<Requests>,
}

#[derive(Default)]
struct Requests {
    next: u64,
    waiting: HashMap<u64, Waiting>,
}

struct Waiting {
    begun: Instant,
    /// What the thread of the request asks a folder.
    mark: Mark,
    /// Attempts the request without the folders that do not answer; called once.
    again: Option<Act>,
    /// Replies that the request has timed out; called once.
    give_up: Option<Act>,
}

impl std::fmt::Debug for Timeouts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Timeouts").finish_non_exhaustive()
    }
}

/// A request, as long as it is processed.
pub(super) struct Watched<'a> {
    timeouts: &'a Timeouts,
    number: u64,
}

impl Drop for Watched<'_> {
    fn drop(&mut self) {
        let done = self.timeouts.requests.lock().waiting.remove(&self.number);
        // `done` may hold the last handle of a file, so it must not be dropped under the lock.
        drop(done);
    }
}

impl Timeouts {
    /// Watches a request of this thread: calls `again` to attempt it again if the folder that it waits for is offline, and
    /// `give_up` to answer it if it takes too long. Neither may wait.
    pub(super) fn watch(
        &self,
        again: impl Fn() + Send + Sync + 'static,
        give_up: impl Fn() + Send + Sync + 'static,
    ) -> Watched<'_> {
        let waiting = Waiting {
            begun: Instant::now(),
            mark: Mark::of_this_thread(),
            again: Some(Arc::new(again)),
            give_up: Some(Arc::new(give_up)),
        };
        let mut requests = self.requests.lock();
        requests.next += 1;
        let number = requests.next;
        requests.waiting.insert(number, waiting);
        Watched {
            timeouts: self,
            number,
        }
    }

    /// Starts the thread that checks the waiting requests, until the view is gone.
    pub(super) fn start(self: &Arc<Self>, view: &Arc<View>) -> std::io::Result<()> {
        let (timeouts, view) = (Arc::downgrade(self), Arc::downgrade(view));
        let thread = std::thread::Builder::new().name("xpmfs-timeouts".to_owned());
        thread
            .spawn(move || check_requests(&timeouts, &view))
            .map(drop)
    }

    /// Returns the actions for requests that have timed out.
    fn timed_out(&self) -> Vec<Act> {
        let mut requests = self.requests.lock();
        let others = requests.waiting.values().any(|one| one.give_up.is_none());
        let timeout = match others {
            true => NEXT_REPLY_TIMEOUT,
            false => REQUEST_TIMEOUT,
        };
        let waiting = requests.waiting.values_mut();
        let old = waiting.filter(|one| one.mark.is_late(one.begun.elapsed(), timeout));
        old.filter_map(|one| {
            one.again = None;
            one.give_up.take()
        })
        .collect()
    }

    /// Returns what requests ask folders, with their numbers.
    fn questions(&self) -> Vec<(u64, Mark, Question)> {
        let requests = self.requests.lock();
        let waiting = requests.waiting.iter();
        let asking = waiting.filter_map(|(number, one)| Some((number, one, one.mark.question()?)));
        asking
            .map(|(number, one, question)| (*number, one.mark.clone(), question))
            .collect()
    }

    /// Returns the action that attempts a request again: once, since the new attempt is watched separately.
    fn again(&self, number: u64) -> Option<Act> {
        let mut requests = self.requests.lock();
        requests.waiting.get_mut(&number)?.again.take()
    }
}

fn check_requests(timeouts: &Weak<Timeouts>, view: &Weak<View>) {
    loop {
        std::thread::sleep(CHECK_INTERVAL);
        let (Some(timeouts), Some(view)) = (timeouts.upgrade(), view.upgrade()) else {
            return;
        };
        for give_up in timeouts.timed_out() {
            give_up();
        }
        let questions = timeouts.questions();
        for (_, mark, question) in &questions {
            if let Some(folder) = view.location(question.folder()) {
                folder.supervise(mark, *question);
            }
        }
        for (number, _, question) in questions {
            let folder = view.location(question.folder());
            if folder.is_some_and(|folder| folder.is_offline())
                && let Some(again) = timeouts.again(number)
            {
                again();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::deadline::wait_until;
    use crate::sys::starvation::is_runnable;

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn requests_time_out_sooner_behind_timed_out_request() {
        let timeouts = Timeouts::default();
        let before = |time: Duration| Instant::now().checked_sub(time).unwrap();
        let first = timeouts.watch(|| {}, || {});
        let second = timeouts.watch(|| {}, || {});
        let set = |number: u64, begun| {
            let mut requests = timeouts.requests.lock();
            requests.waiting.get_mut(&number).unwrap().begun = begun;
        };
        // The requests are those of this thread, which must wait.
        let tid = rustix::thread::gettid().as_raw_nonzero().get();
        let look = || {
            assert!(wait_until(LONG, || !is_runnable(tid)));
            timeouts.timed_out().len()
        };
        let timed_out = || std::thread::scope(|scope| scope.spawn(look).join().unwrap());
        set(first.number, before(REQUEST_TIMEOUT * 2));
        set(second.number, before(NEXT_REPLY_TIMEOUT * 2));
        assert_eq!(timed_out(), 1);
        assert_eq!(timed_out(), 1);
        assert_eq!(timed_out(), 0);
        drop(first);
        drop(second);
        let _third = timeouts.watch(|| {}, || {});
        set(3, before(NEXT_REPLY_TIMEOUT * 2));
        assert_eq!(timed_out(), 0);
    }
}
