//! Threads for work that may wait without end: as many as are needed at the same time, each used again for a while.
//!
//! Unlike in a pool of a fixed size, work never waits for other work to end, which a dead file server may prevent. The caller bounds how much
//! work runs at the same time.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

/// How long a thread without work waits for more before it ends.
const IDLE_MAX: Duration = Duration::from_secs(1);

type Work = Box<dyn FnOnce() + Send>;

/// Runs work in threads.
#[derive(Debug, Clone)]
pub struct CachedThreads {
    name: &'static str,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    idle: Mutex<Idle>,
    more: Condvar,
}

/// The threads without work.
#[derive(Default)]
struct Idle {
    threads: usize,
    /// Work for some of these threads, which they have not taken yet.
    work: VecDeque<Work>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

impl CachedThreads {
    /// Threads with this name, of which none has been started.
    #[must_use]
    pub fn new(name: &'static str) -> CachedThreads {
        CachedThreads {
            name,
            shared: Arc::default(),
        }
    }

    /// Runs `work` in a thread, and returns at once.
    ///
    /// # Errors
    ///
    /// No thread can be started; the work is dropped.
    pub fn run(&self, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
        let mut idle = self.shared.idle.lock();
        if idle.work.len() < idle.threads {
            idle.work.push_back(Box::new(work));
            self.shared.more.notify_one();
            return Ok(());
        }
        drop(idle);
        let shared = self.shared.clone();
        let thread = thread::Builder::new().name(self.name.to_owned());
        let spawned = thread.spawn(move || {
            work();
            while let Some(work) = shared.next() {
                work();
            }
        });
        spawned.map(drop)
    }
}

impl Shared {
    /// Waits for work; `None` if none has come for [`IDLE_MAX`].
    fn next(&self) -> Option<Work> {
        let deadline = Instant::now() + IDLE_MAX;
        let mut idle = self.idle.lock();
        idle.threads += 1;
        while idle.work.is_empty() {
            if self.more.wait_until(&mut idle, deadline).timed_out() {
                break;
            }
        }
        idle.threads -= 1;
        // Work that has come at the last moment is counted on.
        idle.work.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use crossbeam_channel::bounded;

    use super::*;
    use crate::sys::deadline::wait_until;

    const LIMIT: Duration = Duration::from_secs(60);

    impl CachedThreads {
        fn idle(&self) -> usize {
            self.shared.idle.lock().threads
        }

        fn thread_of_next(&self) -> thread::ThreadId {
            let (send, answer) = bounded(1);
            self.run(move || send.send(thread::current().id()).unwrap())
                .unwrap();
            answer.recv_timeout(LIMIT).unwrap()
        }
    }

    #[test]
    fn an_idle_thread_is_used_again_and_ends_later() {
        let threads = CachedThreads::new("test");
        // A thread is idle only some time after it has answered.
        let used_again = || threads.thread_of_next() == threads.thread_of_next();
        assert!(wait_until(LIMIT, used_again));
        assert!(wait_until(LIMIT, || threads.idle() == 0));
    }

    #[test]
    fn work_does_not_wait_for_other_work() {
        let threads = CachedThreads::new("test");
        let (end, ends) = bounded::<()>(0);
        let (begin, begins) = bounded(8);
        for _ in 0..8 {
            let (begin, ends) = (begin.clone(), ends.clone());
            let work = move || {
                begin.send(()).unwrap();
                let _ = ends.recv();
            };
            threads.run(work).unwrap();
        }
        for _ in 0..8 {
            begins.recv_timeout(LIMIT).unwrap();
        }
        drop(end);
    }

    #[test]
    fn work_that_panics_ends_its_thread_alone() {
        let threads = CachedThreads::new("test");
        threads.run(|| panic!("on purpose")).unwrap();
        let thread = threads.thread_of_next();
        assert_ne!(thread, thread::current().id());
    }
}
