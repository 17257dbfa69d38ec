//! Distinguishes a thread that waits in the kernel, as for a disk that does not answer, from one that waits for a processor.
//!
//! On a busy machine a thread may get no processor for seconds. A question that it asks a disk is then late, but not by the disk's fault.

use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError};

/// How long after its deadline an answer is waited for at most, while the thread that is to give it waits for a processor.
pub const STARVED_MAX: Duration = Duration::from_secs(30);

/// How often such a thread is looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// Whether a thread of this process, by its id, waits for nothing but a processor, or has one. False if that cannot be found out.
#[must_use]
pub fn is_runnable(tid: i32) -> bool {
    let stat = std::fs::read(format!("/proc/self/task/{tid}/stat")).unwrap_or_default();
    // The state follows the name, which is in parentheses and may contain any character.
    let end = stat.iter().rposition(|byte| *byte == b')');
    end.is_some_and(|end| {
        stat.get(end + 1..)
            .is_some_and(|rest| rest.starts_with(b" R"))
    })
}

/// A thread that gives answers.
#[derive(Debug, Clone, Default)]
pub struct Answerer {
    /// 0 until it has begun to run.
    tid: Arc<AtomicI32>,
}

impl Answerer {
    /// Called by the thread itself.
    pub fn begin(&self) {
        let tid = rustix::thread::gettid().as_raw_nonzero().get();
        self.tid.store(tid, Ordering::Release);
    }

    /// Receives the thread's next answer.
    ///
    /// # Errors
    ///
    /// `Timeout` if it does not come before the deadline, nor within [`STARVED_MAX`] after it while the thread waits for a processor;
    /// `Disconnected` if none will come.
    pub fn receive<T>(
        &self,
        answers: &Receiver<T>,
        deadline: Instant,
    ) -> Result<T, RecvTimeoutError> {
        let mut until = deadline;
        loop {
            match answers.recv_deadline(until) {
                Err(RecvTimeoutError::Timeout) => {}
                received => return received,
            }
            let now = Instant::now();
            if now > deadline + STARVED_MAX || !self.is_starved() {
                return Err(RecvTimeoutError::Timeout);
            }
            until = now + LOOK_INTERVAL;
        }
    }

    fn is_starved(&self) -> bool {
        match self.tid.load(Ordering::Acquire) {
            0 => true,
            tid => is_runnable(tid),
        }
    }
}

#[cfg(test)]
mod tests {
    use crossbeam_channel::bounded;

    use super::*;

    /// The answer of a thread that does `work` first, expected at once.
    fn answer(work: impl FnOnce() + Send + 'static) -> Result<i32, RecvTimeoutError> {
        let answerer = Answerer::default();
        let (send, answers) = bounded(1);
        let own = answerer.clone();
        std::thread::spawn(move || {
            own.begin();
            work();
            let _ = send.send(1);
        });
        answerer.receive(&answers, Instant::now())
    }

    #[test]
    fn a_thread_that_can_run_is_waited_for() {
        let answered = answer(|| {
            let began = Instant::now();
            while began.elapsed() < LOOK_INTERVAL * 5 {
                std::hint::spin_loop();
            }
        });
        assert_eq!(answered, Ok(1));
    }

    #[test]
    fn a_thread_that_waits_in_the_kernel_is_late() {
        let (release, held) = bounded::<()>(0);
        let answered = answer(move || {
            let _ = held.recv();
        });
        assert_eq!(answered, Err(RecvTimeoutError::Timeout));
        drop(release);
    }

    #[test]
    fn a_thread_that_has_ended_does_not_run() {
        assert!(!is_runnable(i32::MAX));
    }
}
