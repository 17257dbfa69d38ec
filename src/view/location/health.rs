//! Says how a folder is (ok, slow, offline, missing) and why, and how full its disk is. Asks no file system.
//!
//! A folder goes offline when
//!
//! 1. a request that looks up or lists jobs has waited for it for longer than its timeout ([`Health::late_question`]), or many requests
//!    for files inside jobs have;
//! 2. its watcher has waited for that long;
//! 3. its directory fails with an error of its disk or server ([`is_device_error`]).
//!
//! Nothing but its watcher asks it then, at growing intervals. It is back when it answers the watcher in time and every question that
//! was late has been answered: a folder that answers some questions and never others would otherwise hold more and more threads.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};
use parking_lot::{Mutex, RwLock};
use rustix::io::Errno;

use super::beneath::COVERED;

/// How long a folder may take to answer a question about which jobs there are, if the settings have no other value.
const DEFAULT_TIMEOUT: Duration = crate::settings::DEFAULT_FOLDER_TIMEOUT;

/// So many requests for files inside jobs may be late before the folder is offline.
const LATE_INSIDE_MAX: usize = 256;

/// The longest pause between two questions of the watcher of a folder that is offline.
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// A folder that goes offline again within this time after it came back is asked at the same growing intervals as before.
const STABLE: Duration = Duration::from_secs(60);

/// The state of a directory that does not exist.
pub const MISSING: &str = "missing";

/// The state of a directory that exists and has no jobs directory, as the mount point of a disk that is not mounted.
pub const NO_JOBS: &str = "no jobs";

/// The state of a folder that does not answer, or whose disk or server fails.
pub const OFFLINE: &str = "offline";

/// The state of a folder that answers, but takes long.
pub const SLOW: &str = "slow";

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

/// How a location is.
#[derive(Debug)]
pub(in crate::view) struct Health {
    seen: RwLock<Option<Seen>>,
    /// In milliseconds.
    timeout: AtomicU64,
    /// Whether `outage` is `Some`, for each request.
    offline: AtomicBool,
    outage: Mutex<Outages>,
    /// Since when the watcher has been waiting for the folder's reply, if it is; or how long the last one took.
    watcher: Mutex<Asked>,
    /// Questions that are late and not answered: about which jobs there are, and about the insides of jobs.
    late: AtomicUsize,
    late_inside: AtomicUsize,
    /// Ends the pause of the watcher.
    wake: (Sender<()>, Receiver<()>),
}

#[derive(Debug, Default)]
struct Outages {
    now: Option<Outage>,
    /// When the last one ended.
    ended: Option<Instant>,
    /// How often the watcher has asked in vain, in this outage and in those that it follows closely.
    in_vain: u32,
}

#[derive(Debug, Clone, Copy)]
struct Outage {
    why: Errno,
    since: Instant,
}

#[derive(Debug, Clone, Copy)]
enum Asked {
    Since(Instant),
    Took(Duration),
}

impl Default for Health {
    fn default() -> Health {
        Health {
            seen: RwLock::default(),
            timeout: AtomicU64::new(millis(DEFAULT_TIMEOUT)),
            offline: AtomicBool::new(false),
            outage: Mutex::default(),
            watcher: Mutex::new(Asked::Took(Duration::ZERO)),
            late: AtomicUsize::new(0),
            late_inside: AtomicUsize::new(0),
            wake: bounded(1),
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl Health {
    pub(super) fn set_timeout(&self, timeout: Duration) {
        self.timeout.store(millis(timeout), Ordering::Relaxed);
    }

    pub(super) fn timeout(&self) -> Duration {
        Duration::from_millis(self.timeout.load(Ordering::Relaxed))
    }

    /// Whether the folder is to be asked by its watcher only.
    pub(super) fn is_offline(&self) -> bool {
        self.offline.load(Ordering::Acquire)
    }

    /// Why the folder is offline, if it is.
    pub(super) fn why_offline(&self) -> Option<Errno> {
        self.outage.lock().now.map(|outage| outage.why)
    }

    /// Takes the folder offline. Returns whether it was not.
    pub(super) fn fail(&self, why: Errno) -> bool {
        let mut outage = self.outage.lock();
        if outage.now.is_some() {
            return false;
        }
        if outage.ended.is_none_or(|ended| ended.elapsed() > STABLE) {
            outage.in_vain = 0;
        }
        let since = Instant::now();
        outage.now = Some(Outage { why, since });
        self.offline.store(true, Ordering::Release);
        true
    }

    /// Notes that a question is late. Returns whether the folder must go offline for that.
    pub(super) fn late_question(&self, inside_job: bool) -> bool {
        let late = self.count(inside_job).fetch_add(1, Ordering::AcqRel) + 1;
        !inside_job || late > LATE_INSIDE_MAX
    }

    /// Notes that a late question has been answered.
    pub(super) fn late_answer(&self, inside_job: bool) {
        self.count(inside_job).fetch_sub(1, Ordering::AcqRel);
        if self.is_offline() && self.answers_all() {
            // The channel has room for one, and one is enough.
            let _ = self.wake.0.try_send(());
        }
    }

    fn count(&self, inside_job: bool) -> &AtomicUsize {
        match inside_job {
            true => &self.late_inside,
            false => &self.late,
        }
    }

    fn answers_all(&self) -> bool {
        self.late.load(Ordering::Acquire) == 0
            && self.late_inside.load(Ordering::Acquire) <= LATE_INSIDE_MAX
    }

    /// How many questions are late and not answered: each holds a thread.
    pub(super) fn late(&self) -> usize {
        self.late.load(Ordering::Acquire) + self.late_inside.load(Ordering::Acquire)
    }

    /// Notes that the watcher asks the folder now.
    pub(super) fn watcher_asks(&self) {
        *self.watcher.lock() = Asked::Since(Instant::now());
    }

    /// Notes that the folder has answered the watcher. Returns how long it was offline if it is back with that.
    pub(super) fn watcher_answered(&self, in_time: bool) -> Option<Duration> {
        {
            let mut watcher = self.watcher.lock();
            if let Asked::Since(since) = *watcher {
                *watcher = Asked::Took(since.elapsed());
            }
        }
        let mut outage = self.outage.lock();
        let since = outage.now.as_ref()?.since;
        if !in_time || !self.answers_all() {
            outage.in_vain = outage.in_vain.saturating_add(1);
            return None;
        }
        outage.now = None;
        outage.ended = Some(Instant::now());
        self.offline.store(false, Ordering::Release);
        Some(since.elapsed())
    }

    /// Notes that the watcher's question failed, or is late.
    pub(super) fn watcher_failed(&self) {
        let mut outage = self.outage.lock();
        outage.in_vain = outage.in_vain.saturating_add(1);
    }

    /// How long the watcher is to pause: for `interval`, longer while the folder is offline. A message ends the pause early.
    pub(super) fn pause(&self, interval: Duration) -> (Duration, Receiver<()>) {
        let outage = self.outage.lock();
        let in_vain = outage.now.map_or(0, |_| outage.in_vain.min(16));
        let pause = (interval * 2_u32.pow(in_vain)).min(PAUSE_MAX.max(interval));
        (pause, self.wake.1.clone())
    }

    /// Whether the folder takes more than a quarter of its timeout to answer.
    pub(super) fn is_slow(&self) -> bool {
        let took = match *self.watcher.lock() {
            Asked::Since(since) => since.elapsed(),
            Asked::Took(took) => took,
        };
        took > self.timeout() / 4 || self.late() > 0
    }

    /// Replaces what was seen; returns what was seen before.
    pub(super) fn replace_seen(&self, seen: Option<Seen>) -> Option<Seen> {
        std::mem::replace(&mut *self.seen.write(), seen)
    }

    pub(super) fn seen(&self) -> Option<Seen> {
        *self.seen.read()
    }
}

/// Whether an error of a folder's directory means that its disk or server does not work, and not that the directory is missing.
#[must_use]
pub fn is_device_error(error: Errno) -> bool {
    matches!(
        error,
        Errno::IO
            | Errno::STALE
            | Errno::NOTCONN
            | Errno::CONNABORTED
            | Errno::NODEV
            | Errno::NXIO
            | Errno::TIMEDOUT
            | Errno::HOSTDOWN
            | Errno::HOSTUNREACH
    )
}

/// The state of a directory that cannot be opened, in a word or two where possible.
#[must_use]
pub fn why_not(error: Errno) -> String {
    match error {
        Errno::NOENT => MISSING.to_owned(),
        Errno::NOTDIR => "not a directory".to_owned(),
        Errno::ACCESS | Errno::PERM => "not permitted".to_owned(),
        Errno::TIMEDOUT => "does not answer".to_owned(),
        Errno::MEDIUMTYPE => "another disk".to_owned(),
        COVERED => {
            "lies in an xpmfs mount that does not hand out what is beneath it: unmount it, or give the folder the directory itself"
                .to_owned()
        }
        error => in_words(error),
    }
}

/// Why a location or something in it cannot be used, as a clause. Errors that the view itself returns for a folder ([`super::OTHER_DISK`],
/// [`COVERED`], `ETIMEDOUT`) are put in words, since the system's message for them explains nothing.
#[must_use]
pub fn explain(error: Errno) -> String {
    match error {
        Errno::MEDIUMTYPE => {
            "another disk than before is in its place: check that its own disk is mounted"
                .to_owned()
        }
        Errno::TIMEDOUT => "its disk or file server does not answer".to_owned(),
        COVERED => format!("it {}", why_not(COVERED)),
        error => std::io::Error::from(error).to_string(),
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
