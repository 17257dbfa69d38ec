//! Work that one process of a workspace does at a time, and periodically: a file in the primary has its lock and its time.
//!
//! The file is `<primary>/.xpmfs/archive/<name>`. The process that works holds a `flock` on it. Its time of change records when
//! the work was last done, so that several machines do not repeat it.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::time::{Duration, SystemTime};

use rustix::fs::{FlockOperation, Mode, OFlags, Timestamps, flock};

use super::{places, state_dir};
use crate::sys::disk_time::NOW;
use crate::sys::shared_dir;
use crate::view::View;

/// Opens the file of a kind of work; makes it if it is missing.
pub(in crate::archive) fn file(view: &View, name: &str) -> io::Result<File> {
    let directory = places::make_own(view.primary(), [OsStr::new(state_dir::ARCHIVE)])?;
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    if let Ok(fd) = rustix::fs::openat(&directory, name, flags, Mode::empty()) {
        return Ok(File::from(fd));
    }
    let made = rustix::fs::openat(
        &directory,
        name,
        flags | OFlags::CREATE,
        Mode::from_raw_mode(0o600),
    )?;
    let sharing = places::sharing(view.primary().root()?.fd(), &directory)?;
    shared_dir::share(&made, sharing.group, sharing.of_file())?;
    Ok(File::from(made))
}

/// Locks the file until it is closed; returns whether no other process has it locked.
pub(in crate::archive) fn lock(file: &File) -> bool {
    flock(file, FlockOperation::NonBlockingLockExclusive).is_ok()
}

/// Records that the work was done now. If this fails, it is done again sooner.
pub(in crate::archive) fn record(file: &File) {
    let times = Timestamps {
        last_access: NOW,
        last_modification: NOW,
    };
    if let Err(error) = rustix::fs::futimens(file, &times) {
        tracing::debug!("cannot record the time of periodic work: {error}");
    }
}

/// Whether the work was last done longer ago than `period`, by any process.
pub(in crate::archive) fn is_due(file: &File, period: Duration) -> bool {
    let last = file.metadata().and_then(|metadata| metadata.modified());
    last.is_ok_and(|last| is_past(last, SystemTime::now(), period))
}

/// Whether the period has passed, or the time is too far in the future, as after a jump of a clock.
fn is_past(last: SystemTime, now: SystemTime, period: Duration) -> bool {
    match now.duration_since(last) {
        Ok(age) => age >= period,
        Err(ahead) => ahead.duration() >= period,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_due_once_per_period_also_after_clock_jumps() {
        let (now, day) = (SystemTime::now(), Duration::from_secs(86_400));
        assert!(is_past(now - day, now, day));
        assert!(!is_past(now - day / 2, now, day));
        assert!(!is_past(now + day / 2, now, day));
        assert!(is_past(now + 20 * day, now, day));
    }
}
