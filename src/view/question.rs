//! Asking a file system that may hang: whoever asks waits for a while, and no longer.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crossbeam_channel::{RecvTimeoutError, bounded};
use parking_lot::Mutex;
use rustix::io::{Errno, Result};

/// Questions to one file system.
#[derive(Debug, Default)]
pub(super) struct Questions {
    /// Those that nobody waits for any more, and that have no answer yet.
    given_up: Arc<AtomicUsize>,
}

/// What has become of a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Asked,
    Answered,
    GivenUp,
}

impl Questions {
    /// Asks from a thread of its own, and waits for so long. While another question that was given up has no answer, none is asked,
    /// so that threads that hang are few.
    ///
    /// # Errors
    ///
    /// `ETIMEDOUT` if there is no answer; what starting a thread gave.
    pub(super) fn ask<T: Send + 'static>(
        &self,
        patience: Duration,
        question: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T> {
        if self.given_up.load(Ordering::SeqCst) > 0 {
            return Err(Errno::TIMEDOUT);
        }
        let fate = Arc::new(Mutex::new(Fate::Asked));
        let (tell, answer) = bounded(1);
        let (theirs, given_up) = (fate.clone(), self.given_up.clone());
        let thread = std::thread::Builder::new().name("xpmfs-ask".to_owned());
        let spawned = thread.spawn(move || {
            // There is room for one.
            let _ = tell.send(question());
            if std::mem::replace(&mut *theirs.lock(), Fate::Answered) == Fate::GivenUp {
                given_up.fetch_sub(1, Ordering::SeqCst);
            }
        });
        spawned.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::AGAIN))?;
        match answer.recv_timeout(patience) {
            Ok(answer) => return Ok(answer),
            Err(RecvTimeoutError::Disconnected) => return Err(Errno::IO),
            Err(RecvTimeoutError::Timeout) => {}
        }
        let mut fate = fate.lock();
        // In this very moment.
        if *fate == Fate::Answered {
            return answer.try_recv().map_err(|_| Errno::TIMEDOUT);
        }
        *fate = Fate::GivenUp;
        self.given_up.fetch_add(1, Ordering::SeqCst);
        Err(Errno::TIMEDOUT)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn one_that_hangs_is_waited_for_once_until_it_answers() {
        let questions = Questions::default();
        let (long, short) = (Duration::from_secs(60), Duration::from_millis(10));
        assert_eq!(questions.ask(long, || 1), Ok(1));
        let (answer, hangs) = bounded::<()>(0);
        let hang = move || hangs.recv().is_err();
        assert_eq!(questions.ask(short, hang), Err(Errno::TIMEDOUT));
        let began = Instant::now();
        assert_eq!(questions.ask(long, || 2), Err(Errno::TIMEDOUT));
        assert!(began.elapsed() < long / 2, "it was asked, too");
        drop(answer);
        while questions.ask(long, || 3) != Ok(3) {
            assert!(began.elapsed() < long, "it has answered");
            std::thread::sleep(short);
        }
    }
}
