//! Asks what may never answer (a hung mount, a dead NFS server), and waits for at most a given time.
//!
//! A thread that waits in the kernel for such a server cannot be ended. So each question has a thread, which is left behind
//! when the time is over, and ends when the answer comes; the answer is dropped. An [`Asker`] bounds the number of these
//! threads: with too many, it asks nothing until one has ended.
//!
//! A thread is used for one question only, unless the asker is made for many: a question may change its thread's namespace, and the process
//! may be about to fork or to enter a namespace, which it can only with one thread.
//!
//! A thread that waits for a processor is not late ([`starvation`](super::starvation)).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, bounded};
use parking_lot::Mutex;
use rustix::io::{Errno, Result};

use super::cached_threads::CachedThreads;
use super::starvation::Answerer;

/// The maximum number of questions of [`within`] and [`all_within`] whose answers are late. Each is for another mount or
/// directory, so healthy ones are still queried while some tens hang.
const LATE_MAX: usize = 256;

/// For questions to any file system.
static ANY: Mutex<Option<Asker>> = Mutex::new(None);

/// The name of the threads that ask.
const THREADS: &str = "xpmfs-ask";

/// Asks questions, of which a limited number may be without an answer after their time.
#[derive(Debug, Clone)]
pub struct Asker {
    late: Arc<AtomicUsize>,
    late_max: usize,
    /// Threads that ask one question after another.
    cached: Option<CachedThreads>,
}

impl Default for Asker {
    /// For one file system: while one answer is late, nothing else is asked.
    fn default() -> Asker {
        Asker::new(1)
    }
}

/// The state of a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Asked,
    Answered,
    /// The time is over.
    Late,
}

/// A question whose thread has been started.
struct Asked<T> {
    thread: Answerer,
    answer: Receiver<T>,
    state: Arc<Mutex<State>>,
}

impl Asker {
    /// With at most `late_max` questions without an answer after their time.
    #[must_use]
    pub fn new(late_max: usize) -> Asker {
        Asker {
            late: Arc::default(),
            late_max,
            cached: None,
        }
    }

    /// As [`Asker::new`], for many short questions: a thread that has asked one waits for the next. A question must leave its thread as it was.
    #[must_use]
    pub fn with_cached_threads(late_max: usize) -> Asker {
        Asker {
            cached: Some(CachedThreads::new(THREADS)),
            ..Asker::new(late_max)
        }
    }

    /// Runs `question` in a thread, and waits for its answer.
    ///
    /// # Errors
    ///
    /// `ETIMEDOUT` if the answer does not come in time, or if nothing was asked because other answers are late; an error of
    /// starting a thread; `EIO` if the question panicked.
    pub fn ask<T: Send + 'static>(
        &self,
        timeout: Duration,
        question: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T> {
        let deadline = Instant::now() + timeout;
        self.wait(&self.start(question)?, deadline)
    }

    /// Runs all questions at the same time, each in a thread, and waits for at most `timeout` in all. `None` for each
    /// question without an answer.
    pub fn ask_all<T: Send + 'static, Q: FnOnce() -> T + Send + 'static>(
        &self,
        timeout: Duration,
        questions: impl IntoIterator<Item = Q>,
    ) -> Vec<Option<T>> {
        let deadline = Instant::now() + timeout;
        let asked: Vec<_> = questions.into_iter().map(|one| self.start(one)).collect();
        let answer = |asked: Result<Asked<T>>| self.wait(&asked.ok()?, deadline).ok();
        asked.into_iter().map(answer).collect()
    }

    fn start<T: Send + 'static>(
        &self,
        question: impl FnOnce() -> T + Send + 'static,
    ) -> Result<Asked<T>> {
        if self.late.load(Ordering::SeqCst) >= self.late_max {
            return Err(Errno::TIMEDOUT);
        }
        let state = Arc::new(Mutex::new(State::Asked));
        let (sender, answer) = bounded(1);
        let (own_state, late) = (state.clone(), self.late.clone());
        let answerer = Answerer::default();
        let own = answerer.clone();
        let work = move || {
            own.begin();
            // The channel has room for one answer; nothing receives one that is late.
            let _ = sender.send(question());
            if std::mem::replace(&mut *own_state.lock(), State::Answered) == State::Late {
                late.fetch_sub(1, Ordering::SeqCst);
            }
        };
        let started = match &self.cached {
            Some(threads) => threads.run(work),
            None => {
                let thread = thread::Builder::new().name(THREADS.to_owned());
                thread.spawn(work).map(drop)
            }
        };
        match started {
            Ok(()) => Ok(Asked {
                thread: answerer,
                answer,
                state,
            }),
            Err(error) => Err(Errno::from_io_error(&error).unwrap_or(Errno::AGAIN)),
        }
    }

    fn wait<T>(&self, asked: &Asked<T>, deadline: Instant) -> Result<T> {
        match asked.thread.receive(&asked.answer, deadline) {
            Ok(answer) => return Ok(answer),
            Err(RecvTimeoutError::Disconnected) => return Err(Errno::IO),
            Err(RecvTimeoutError::Timeout) => {}
        }
        let mut state = asked.state.lock();
        // The answer came after the timeout and before the lock.
        if *state == State::Answered {
            return asked.answer.try_recv().map_err(|_| Errno::TIMEDOUT);
        }
        *state = State::Late;
        self.late.fetch_add(1, Ordering::SeqCst);
        Err(Errno::TIMEDOUT)
    }
}

fn any() -> Asker {
    ANY.lock()
        .get_or_insert_with(|| Asker::new(LATE_MAX))
        .clone()
}

/// Runs `question` in a thread, and waits for its answer for at most `timeout`. `None` without an answer.
pub fn within<T: Send + 'static>(
    timeout: Duration,
    question: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    any().ask(timeout, question).ok()
}

/// Runs all questions at the same time, as [`Asker::ask_all`].
pub fn all_within<T: Send + 'static, Q: FnOnce() -> T + Send + 'static>(
    timeout: Duration,
    questions: impl IntoIterator<Item = Q>,
) -> Vec<Option<T>> {
    any().ask_all(timeout, questions)
}

/// Checks a condition repeatedly, at growing intervals, for at most `timeout`; returns whether it became true.
pub fn wait_until(timeout: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    let mut pause = Duration::from_millis(1);
    loop {
        if condition() {
            return true;
        }
        if start.elapsed() >= timeout {
            return false;
        }
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);
    const SHORT: Duration = Duration::from_millis(10);

    #[test]
    fn an_answer_in_time_is_returned() {
        assert_eq!(within(LONG, || 7), Some(7));
        assert_eq!(Asker::default().ask(LONG, || 7), Ok(7));
    }

    #[test]
    fn a_thread_asks_one_question_unless_it_is_cached() {
        let asked_by = |asker: &Asker| asker.ask(LONG, || thread::current().id()).unwrap();
        let once = Asker::default();
        let threads: HashSet<_> = (0..20).map(|_| asked_by(&once)).collect();
        assert_eq!(threads.len(), 20);
        let cached = Asker::with_cached_threads(1);
        assert!(wait_until(LONG, || asked_by(&cached) == asked_by(&cached)));
    }

    #[test]
    fn while_an_answer_is_late_nothing_else_is_asked() {
        let asker = Asker::default();
        let (release, held) = bounded::<()>(0);
        let hang = move || held.recv().is_err();
        assert_eq!(asker.ask(SHORT, hang), Err(Errno::TIMEDOUT));
        let began = Instant::now();
        assert_eq!(asker.ask(LONG, || true), Err(Errno::TIMEDOUT));
        assert!(began.elapsed() < LONG / 2, "the second question was asked");
        drop(release);
        assert!(wait_until(LONG, || asker.ask(LONG, || 3) == Ok(3)));
    }

    #[test]
    fn many_late_answers_take_no_longer_than_one() {
        let began = Instant::now();
        let (release, held) = bounded::<()>(0);
        let questions = (0..20).map(|number| {
            let held = held.clone();
            move || match number {
                7 => 7,
                _ => i32::from(held.recv().is_ok()),
            }
        });
        let asker = Asker::new(19);
        let answers = asker.ask_all(Duration::from_millis(300), questions);
        assert!(began.elapsed() < LONG / 2);
        assert_eq!(answers.len(), 20);
        assert_eq!(answers.iter().flatten().collect::<Vec<_>>(), [&7]);
        assert_eq!(asker.ask(LONG, || 1), Err(Errno::TIMEDOUT));
        drop(release);
        assert!(wait_until(LONG, || asker.ask(LONG, || 1) == Ok(1)));
    }

    #[test]
    fn waiting_ends_when_the_condition_is_true_or_the_time_is_over() {
        let mut checks = 0;
        assert!(wait_until(LONG, || {
            checks += 1;
            checks == 3
        }));
        assert!(!wait_until(Duration::from_millis(5), || false));
    }
}
