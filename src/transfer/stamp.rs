//! By what a change is noticed.

use rustix::fs::{FileType, Statx, StatxTimestamp};

use super::error::OTHER;
use super::manifest::Time;
use crate::sys::file_id::FileId;

/// What is remembered of an entry to see later whether it has changed.
///
/// The time of change (`ctime`) cannot be set by a program, so that a change that hides behind a restored `mtime` is seen
/// too. Before Linux 6.13, and on some file systems since, these times advance in steps of some
/// milliseconds: what is changed twice within one step, once before and once after it is read, looks the
/// same. Whoever archives waits until a file has been left alone for longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    identity: FileId,
    kind: FileType,
    size: u64,
    mtime: Time,
    ctime: Time,
}

impl Stamp {
    pub(super) fn of(stat: &Statx) -> Stamp {
        Stamp {
            identity: FileId::of(stat),
            kind: kind(stat),
            size: stat.stx_size,
            mtime: time(stat.stx_mtime),
            ctime: time(stat.stx_ctime),
        }
    }

    /// When anything about it was last changed, content or attributes.
    pub(super) fn newest(&self) -> Time {
        self.mtime.max(self.ctime)
    }

    /// Whether it is the same after its name was changed, which counts as a change of attributes.
    pub(super) fn renamed(self, later: &Stamp) -> Stamp {
        Stamp {
            ctime: later.ctime,
            ..self
        }
    }

    /// What is different later.
    pub(super) fn change(&self, later: &Stamp) -> Option<&'static str> {
        if (self.identity, self.kind) != (later.identity, later.kind) {
            Some(OTHER)
        } else if self.size != later.size {
            Some("its size is different")
        } else if self.mtime != later.mtime {
            Some("it was written to")
        } else if self.ctime != later.ctime {
            Some("its attributes were changed")
        } else {
            None
        }
    }
}

/// What a file is.
pub(super) fn kind(stat: &Statx) -> FileType {
    FileType::from_raw_mode(stat.stx_mode.into())
}

pub(super) fn time(stamp: StatxTimestamp) -> Time {
    Time {
        seconds: stamp.tv_sec,
        nanoseconds: stamp.tv_nsec,
    }
}
