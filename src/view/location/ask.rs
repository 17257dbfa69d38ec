//! Asks a location something in a thread, so that a location that does not answer holds that thread and not the caller's.

use std::time::{Duration, Instant};

use crossbeam_channel::{RecvTimeoutError, bounded};
use rustix::io::{Errno, Result};

use super::root::Root;
use super::{Location, PRIMARY};
use crate::sys::starvation::Answerer;

/// How many answers to one question may wait to be read.
const ANSWERS_MAX: usize = 64;

impl Location {
    /// Asks its file system something in a thread, and waits for the answer for at most `timeout`.
    ///
    /// # Errors
    ///
    /// As [`Location::root`]; `ETIMEDOUT` if the answer does not come in time, or that of another question is late.
    pub fn answer<T: Send + 'static>(
        &self,
        timeout: Duration,
        question: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T> {
        self.root()?;
        self.asker.ask(timeout, question)
    }

    /// How long it may take to answer; `None` for the primary, which has no deadline.
    pub fn reply_timeout(&self) -> Option<Duration> {
        (self.index != PRIMARY).then(|| self.health.timeout())
    }

    /// Asks its file system something that has many answers, in a thread. A folder that does not give the next answer in time goes
    /// offline, and what it has answered so far counts. The question ends when its function of an answer returns false.
    ///
    /// # Errors
    ///
    /// As [`Location::answer`], and the error of the question.
    pub(in crate::view) fn answers<T: Send + 'static>(
        &self,
        question: impl FnOnce(&dyn Fn(T) -> bool) -> Result<()> + Send + 'static,
        mut each: impl FnMut(T),
    ) -> Result<()> {
        self.root()?;
        let (send, answers) = bounded::<std::result::Result<T, Result<()>>>(ANSWERS_MAX);
        let answerer = Answerer::default();
        let own = answerer.clone();
        let thread = std::thread::Builder::new().name("xpmfs-ask".to_owned());
        let spawned = thread.spawn(move || {
            own.begin();
            let ended = question(&|answer| send.send(Ok(answer)).is_ok());
            // The receiver has gone if the answer is late.
            let _ = send.send(Err(ended));
        });
        spawned.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::AGAIN))?;
        loop {
            let answer = match self.reply_timeout() {
                Some(timeout) => answerer.receive(&answers, Instant::now() + timeout),
                None => answers.recv().map_err(RecvTimeoutError::from),
            };
            match answer {
                Ok(Ok(answer)) => each(answer),
                Ok(Err(ended)) => return ended,
                Err(RecvTimeoutError::Timeout) => {
                    self.go_offline(Errno::TIMEDOUT);
                    return Err(Errno::TIMEDOUT);
                }
                // It panicked.
                Err(RecvTimeoutError::Disconnected) => return Err(Errno::IO),
            }
        }
    }

    /// Makes sure that it answers a question about its jobs, in a thread; goes offline if it does not answer in time. The primary is not
    /// asked: it has no deadline. For commands, whose own thread must not wait.
    ///
    /// # Errors
    ///
    /// As [`Location::answer`], and the error of the question.
    pub(in crate::view) fn expect_answer(
        &self,
        question: impl FnOnce(&Root) -> Result<()> + Send + 'static,
    ) -> Result<()> {
        let root = self.root()?;
        if self.index == PRIMARY {
            return Ok(());
        }
        let asked = self
            .asker
            .ask(self.health.timeout(), move || question(&root));
        if let Err(Errno::TIMEDOUT) = asked {
            self.go_offline(Errno::TIMEDOUT);
        }
        asked?
    }
}
