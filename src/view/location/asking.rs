//! Notes which folder the request of a thread waits for, and since when, so that another thread can detect that it hangs.
//!
//! A system call that waits for a dead file server does not return. So each question to a folder is marked before the call, in
//! a word that belongs to the thread: this costs two atomic operations and one look at the clock, and no other thread. What
//! supervises the request reads the word ([`Mark::question`]), and may declare the question late ([`Mark::make_late`]). The end of a
//! late question is counted when the system call returns at last.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use super::health::Health;

/// The question has been declared late.
const LATE: u64 = 1 << 63;
/// The question is about the inside of a job.
const INSIDE: u64 = 1 << 62;
/// Where the folder's number begins.
const INDEX: u32 = 54;
/// The time of the question, in milliseconds.
const TIME: u64 = (1 << INDEX) - 1;

thread_local! {
    /// 0 while this thread asks no folder.
    static MARK: Arc<AtomicU64> = Arc::default();
}

/// What a thread asks now.
#[derive(Debug, Clone)]
pub struct Mark(Arc<AtomicU64>);

/// A question that a thread has not received the answer to.
#[derive(Debug, Clone, Copy)]
pub struct Question {
    word: u64,
}

impl Mark {
    /// That of the calling thread.
    #[must_use]
    pub fn of_this_thread() -> Mark {
        Mark(MARK.with(Arc::clone))
    }

    /// What the thread asks a folder now.
    #[must_use]
    pub fn question(&self) -> Option<Question> {
        let word = self.0.load(Ordering::Acquire);
        (word != 0).then_some(Question { word })
    }

    /// Declares a question late, unless its answer has come. Returns whether it is late only from now on.
    pub(super) fn make_late(&self, question: Question) -> bool {
        let Question { word } = question;
        let late = word | LATE;
        word & LATE == 0
            && self
                .0
                .compare_exchange(word, late, Ordering::AcqRel, Ordering::Relaxed)
                .is_ok()
    }
}

impl Question {
    /// The number of the folder.
    #[must_use]
    pub fn folder(self) -> u8 {
        // The bits of the flags are above those of the number.
        (self.word >> INDEX) as u8
    }

    /// Whether it is about the inside of a job, and not about which jobs there are.
    #[must_use]
    pub fn is_inside_job(self) -> bool {
        self.word & INSIDE != 0
    }

    /// How long the thread has waited for the answer.
    #[must_use]
    pub fn age(self) -> Duration {
        Duration::from_millis(now().saturating_sub(self.word & TIME))
    }
}

/// Milliseconds since the first question.
fn now() -> u64 {
    static BEGAN: OnceLock<Instant> = OnceLock::new();
    let elapsed = BEGAN.get_or_init(Instant::now).elapsed().as_millis();
    u64::try_from(elapsed).unwrap_or(TIME) & TIME
}

/// A question of this thread to a location, until it is dropped.
#[derive(Debug)]
pub struct Asking<'a> {
    health: &'a Health,
    /// The question in whose course this one is asked.
    outer: u64,
}

impl<'a> Asking<'a> {
    /// Marks that this thread asks the location with a number and this health.
    pub(super) fn new(index: u8, health: &'a Health, inside_job: bool) -> Asking<'a> {
        let word = match (index, inside_job) {
            // The primary has no deadline.
            (0, _) => 0,
            (folder, false) => u64::from(folder) << INDEX | now(),
            (folder, true) => INSIDE | u64::from(folder) << INDEX | now(),
        };
        Asking {
            health,
            outer: MARK.with(|mark| mark.swap(word, Ordering::AcqRel)),
        }
    }
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        let outer = match self.outer {
            0 => 0,
            // It has waited for this one, not for its own folder.
            outer => outer & !TIME | now(),
        };
        let ended = MARK.with(|mark| mark.swap(outer, Ordering::AcqRel));
        if ended & LATE != 0 {
            self.health.late_answer(ended & INSIDE != 0);
        }
    }
}
