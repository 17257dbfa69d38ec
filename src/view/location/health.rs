//! Says how a location is: ok, silent, missing, without jobs; and how full its disk is. Asks no file system.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use parking_lot::RwLock;
use rustix::io::{Errno, Result};

use super::beneath::COVERED;

/// A folder whose watcher has had no reply for this long is excluded until it replies. A busy disk takes seconds, and a job
/// that is not found in its folder for a moment may be run again.
const SILENCE_MAX: Duration = Duration::from_secs(10);

/// The same, while many requests wait for replies.
const SILENCE_MAX_CROWDED: Duration = Duration::from_secs(5);

/// The state of a directory that exists and has no jobs directory, as the mount point of a disk that is not mounted.
pub const NO_JOBS: &str = "no jobs";

/// Returns whether so many requests wait for replies that no more should wait for a silent folder.
pub type Crowd = Arc<dyn Fn() -> bool + Send + Sync>;

/// What the watcher saw of a location when it last looked.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    /// Bytes that an ordinary user may still write to its disk.
    pub(super) free: u64,
    /// Bytes of its disk.
    pub(super) total: u64,
    /// Whether it has a jobs directory.
    pub(super) jobs: bool,
}

/// What a location's watcher knows of it.
#[derive(Default)]
pub(super) struct Health {
    seen: RwLock<Option<Seen>>,
    /// Since when the watcher has been waiting for the folder's reply, if it is.
    asked: RwLock<Option<Instant>>,
    crowd: OnceLock<Crowd>,
}

impl Health {
    /// Sets what decides whether many requests wait. Only the first call counts: a view is mounted once.
    pub(super) fn set_crowd(&self, crowd: Crowd) {
        let _ = self.crowd.set(crowd);
    }

    /// Notes that the watcher asks the folder now.
    pub(super) fn asking(&self) {
        *self.asked.write() = Some(Instant::now());
    }

    /// Notes that the folder has replied. Returns for how long it was excluded or nearly so, if the reply was late.
    pub(super) fn replied(&self) -> Option<Duration> {
        let silence = self.asked.write().take()?.elapsed();
        (silence > SILENCE_MAX).then_some(silence)
    }

    /// Whether the watcher has waited for a reply for too long.
    pub(super) fn is_silent(&self) -> bool {
        let silence = self.silence();
        silence.is_some_and(|silence| silence > SILENCE_MAX || self.is_refused(silence))
    }

    /// # Errors
    ///
    /// `ETIMEDOUT` if there has been no reply for a while, and many requests wait: another one could be the last that can be
    /// answered at all.
    pub(super) fn may_be_asked(&self) -> Result<()> {
        match self.silence() {
            Some(silence) if self.is_refused(silence) => Err(Errno::TIMEDOUT),
            _ => Ok(()),
        }
    }

    fn silence(&self) -> Option<Duration> {
        self.asked.read().map(|asked| asked.elapsed())
    }

    fn is_refused(&self, silence: Duration) -> bool {
        silence > SILENCE_MAX_CROWDED && self.crowd.get().is_some_and(|crowd| crowd())
    }

    /// Replaces what was seen; returns what was seen before.
    pub(super) fn replace_seen(&self, seen: Option<Seen>) -> Option<Seen> {
        std::mem::replace(&mut *self.seen.write(), seen)
    }

    pub(super) fn seen(&self) -> Option<Seen> {
        *self.seen.read()
    }
}

/// The state of a directory that cannot be opened, in a word or two where possible.
#[must_use]
pub fn why_not(error: Errno) -> String {
    match error {
        Errno::NOENT => "missing".to_owned(),
        Errno::NOTDIR => "not a directory".to_owned(),
        Errno::ACCESS | Errno::PERM => "not permitted".to_owned(),
        Errno::TIMEDOUT => "does not answer".to_owned(),
        COVERED => {
            "lies in an xpmfs mount that does not hand out what is beneath it: unmount it, or give the folder the directory itself"
                .to_owned()
        }
        error => in_words(error),
    }
}

/// The system's message for an error, without its number.
pub(super) fn in_words(error: Errno) -> String {
    let text = std::io::Error::from(error).to_string();
    match text.split_once(" (os error") {
        Some((words, _)) => words.to_owned(),
        None => text,
    }
}
