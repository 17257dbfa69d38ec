//! Detects changes of an entry.

use rustix::fs::{FileType, Statx, StatxTimestamp};

use super::error::OTHER;
use super::manifest::Time;
use crate::sys::file_id::FileId;

/// The attributes of an entry by which a later change is detected.
///
/// A program cannot set the time of change (`ctime`), so a change that restores `mtime` is detected too. Before Linux
/// 6.13, and on some file systems since, these times advance in steps of some milliseconds: of two changes within one
/// step, one before and one after the entry is read, the second is not detected. So the archiver waits until a file has
/// been unchanged for longer than that.
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

    /// The time of the last change, of content or attributes.
    pub(super) fn newest(&self) -> Time {
        self.mtime.max(self.ctime)
    }

    /// The stamp after a rename, which counts as a change of attributes.
    pub(super) fn renamed(self, later: &Stamp) -> Stamp {
        Stamp {
            ctime: later.ctime,
            ..self
        }
    }

    /// The difference in a later stamp, if any.
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

/// The type of a file.
pub(super) fn kind(stat: &Statx) -> FileType {
    FileType::from_raw_mode(stat.stx_mode.into())
}

pub(super) fn time(stamp: StatxTimestamp) -> Time {
    Time {
        seconds: stamp.tv_sec,
        nanoseconds: stamp.tv_nsec,
    }
}
