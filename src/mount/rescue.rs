//! Answers requests anew that wait for a folder which has turned out not to answer.
//!
//! The kernel holds the lock of a directory while it looks a name up in it or lists it. A request that was begun before a
//! folder is known not to answer waits for that folder, and with it everybody who wants that lock: every later listing of
//! `jobs/`, and every new task. So the request is worked on once more from another thread, which leaves the folder out, and
//! the first one to be done replies. Only for requests that change nothing.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use crossbeam_channel::RecvTimeoutError;
use parking_lot::Mutex;
use rustix::io::{Errno, Result};

use crate::view::View;

/// How often waiting requests are looked at, and how long each waits at least.
const INTERVAL: Duration = Duration::from_millis(500);

type Again = Arc<dyn Fn() + Send + Sync>;

/// Requests that are being worked on.
#[derive(Default)]
pub(super) struct Rescue {
    requests: Mutex<Requests>,
}

#[derive(Default)]
struct Requests {
    next: u64,
    waiting: HashMap<u64, (Instant, Again)>,
}

impl std::fmt::Debug for Rescue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rescue").finish_non_exhaustive()
    }
}

/// A request, as long as it is worked on.
pub(super) struct Watched<'a> {
    rescue: &'a Rescue,
    number: u64,
}

impl Drop for Watched<'_> {
    fn drop(&mut self) {
        let done = self.rescue.requests.lock().waiting.remove(&self.number);
        // It may hold the last handle of something: not under the lock.
        drop(done);
    }
}

impl Rescue {
    /// Has a request worked on by `again` if it takes long and a folder does not answer.
    pub(super) fn watch(&self, again: impl Fn() + Send + Sync + 'static) -> Watched<'_> {
        let mut requests = self.requests.lock();
        requests.next += 1;
        let number = requests.next;
        let waiting = (Instant::now(), Arc::new(again) as Again);
        requests.waiting.insert(number, waiting);
        Watched {
            rescue: self,
            number,
        }
    }

    /// Starts the thread that looks at what waits, until the view is gone.
    pub(super) fn start(self: &Arc<Self>, view: &Arc<View>) -> std::io::Result<()> {
        let (rescue, view) = (Arc::downgrade(self), Arc::downgrade(view));
        let thread = std::thread::Builder::new().name("xpmfs-rescue".to_owned());
        thread.spawn(move || look(&rescue, &view)).map(drop)
    }

    fn begun_before(&self, begun: Instant) -> Vec<(u64, Again)> {
        let requests = self.requests.lock();
        let old = requests.waiting.iter().filter(|(_, (at, _))| *at < begun);
        old.map(|(number, (_, again))| (*number, again.clone()))
            .collect()
    }
}

fn look(rescue: &Weak<Rescue>, view: &Weak<View>) {
    loop {
        std::thread::sleep(INTERVAL);
        let (Some(rescue), Some(view)) = (rescue.upgrade(), view.upgrade()) else {
            return;
        };
        if !view.has_silent_folder() {
            continue;
        }
        let Some(begun) = Instant::now().checked_sub(INTERVAL) else {
            continue;
        };
        for (number, again) in rescue.begun_before(begun) {
            let thread = std::thread::Builder::new().name("xpmfs-again".to_owned());
            match thread.spawn(move || again()) {
                // Once: the new attempt is watched by itself.
                Ok(_) => drop(rescue.requests.lock().waiting.remove(&number)),
                Err(error) => {
                    tracing::warn!(%error, "cannot answer a request anew: starting a thread failed");
                }
            }
        }
    }
}

/// Asks the folders something, for a request that changes something afterwards: from threads of their own, and anew without a
/// folder that has turned out not to answer.
///
/// # Errors
///
/// `ETIMEDOUT` if one folder after the other does not answer.
pub(super) fn ask<T: Send + 'static>(
    view: &Arc<View>,
    question: impl Fn(&View) -> T + Clone + Send + 'static,
) -> Result<T> {
    if view.folders().is_empty() {
        return Ok(question(view));
    }
    for _ in 0..=view.folders().len() {
        let (tell, answer) = crossbeam_channel::bounded(1);
        let (theirs, asked) = (view.clone(), question.clone());
        let thread = std::thread::Builder::new().name("xpmfs-ask".to_owned());
        // Nobody listens any more if it took too long.
        let spawned = thread.spawn(move || drop(tell.send(asked(&theirs))));
        spawned.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::AGAIN))?;
        loop {
            match answer.recv_timeout(INTERVAL) {
                Ok(answer) => return Ok(answer),
                Err(RecvTimeoutError::Disconnected) => return Err(Errno::IO),
                Err(RecvTimeoutError::Timeout) if view.has_silent_folder() => break,
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }
    Err(Errno::TIMEDOUT)
}

/// A reply that the first to be done takes.
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

    /// The reply, unless it has been taken.
    pub(super) fn take(&self) -> Option<R> {
        self.0.lock().take()
    }

    /// Does something with the reply while it is there.
    pub(super) fn with<T>(&self, act: impl FnOnce(&mut R) -> T) -> Option<T> {
        self.0.lock().as_mut().map(act)
    }
}
