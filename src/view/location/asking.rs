//! Notes which folder the request of a thread waits for, and since when, so that another thread can detect that it hangs.
//!
//! A system call that waits for a dead file server does not return. So each question to a folder is marked before the call, in
//! a word that belongs to the thread: this costs two atomic operations and one look at the clock, and no other thread. What
//! supervises the request reads the word ([`Mark::question`]), and may declare the question late ([`Mark::make_late`]). The end of a
//! late question is counted when the system call returns at last.
//!
//! A thread that waits for a processor does not wait for a folder ([`starvation`](crate::sys::starvation)).

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use super::health::Health;
use crate::sys::starvation::{STARVED_MAX, is_runnable};

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
    static TID: i32 = rustix::thread::gettid().as_raw_nonzero().get();
}

/// What a thread asks now.
#[derive(Debug, Clone)]
pub struct Mark {
    word: Arc<AtomicU64>,
    tid: i32,
}

/// A question that a thread has not received the answer to.
#[derive(Debug, Clone, Copy)]
pub struct Question {
    word: u64,
}

impl Mark {
    /// That of the calling thread.
    #[must_use]
    pub fn of_this_thread() -> Mark {
        Mark {
            word: MARK.with(Arc::clone),
            tid: TID.with(|tid| *tid),
        }
    }

    /// What the thread asks a folder now.
    #[must_use]
    pub fn question(&self) -> Option<Question> {
        let word = self.word.load(Ordering::Acquire);
        (word != 0).then_some(Question { word })
    }

    /// Whether the thread has waited for longer than `timeout`, and not for a processor. `waited`: how long it has waited.
    pub fn is_late(&self, waited: Duration, timeout: Duration) -> bool {
        waited > timeout && (waited > timeout + STARVED_MAX || !is_runnable(self.tid))
    }

    /// Declares a question late, unless its answer has come. Returns whether it is late only from now on.
    pub(super) fn make_late(&self, question: Question) -> bool {
        let Question { word } = question;
        let late = word | LATE;
        word & LATE == 0
            && self
                .word
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use crossbeam_channel::bounded;

    use super::*;
    use crate::sys::deadline::wait_until;

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn a_thread_that_waits_for_a_processor_is_not_late() {
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let (send, mark) = bounded(1);
            let over = &over;
            scope.spawn(move || {
                send.send(Mark::of_this_thread()).unwrap();
                while !over.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
            let mark = mark.recv().unwrap();
            let is_late = |waited| mark.is_late(waited, Duration::from_secs(2));
            let in_time = wait_until(LONG, || !is_late(Duration::from_secs(3)));
            let at_last = is_late(Duration::from_secs(3) + STARVED_MAX);
            over.store(true, Ordering::Relaxed);
            assert!(in_time && at_last);
        });
    }

    #[test]
    fn a_thread_that_waits_for_its_disk_is_late() {
        let (release, held) = bounded::<()>(0);
        let (send, mark) = bounded(1);
        let thread = std::thread::spawn(move || {
            send.send(Mark::of_this_thread()).unwrap();
            let _ = held.recv();
        });
        let mark = mark.recv().unwrap();
        let is_late = |waited| mark.is_late(waited, Duration::from_secs(2));
        assert!(!is_late(Duration::from_secs(1)));
        assert!(wait_until(LONG, || is_late(Duration::from_secs(3))));
        drop(release);
        thread.join().unwrap();
    }
}
