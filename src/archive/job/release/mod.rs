//! Drops the primary's copy of a job that has a verified archived copy.
//!
//! 1. [`assess()`] (`in_use`, `processes`): is the job finished, unused and unpinned, and does the manifest of an archived copy agree with it?
//! 2. [`ReleasePlan::verify`]: every byte of that copy is read and compared with its manifest.
//! 3. [`Releases::begin`]: with the lock of the job's staging and the job's own locks held, the same is looked at again; then the
//!    directory is renamed to `.xpmfs/released/<task_id>/<hash>` in one step, durably. From then on, the archived copy is served.
//! 4. [`Releases::end`]: after a grace period, which processes need that were resolving a path into the directory, it is looked at once
//!    more: a directory that is in use or was changed is renamed back. Otherwise it is removed, the marker first: what a crash leaves of
//!    it never counts as a finished job.
//!
//! After a crash between 3 and 4, [`clear`] removes the directory if the archived copy stands, and otherwise puts it back.
//!
//! `assess`: steps 1 and 2, which decide; `aside`: steps 3 and 4, which act; `in_use`, `processes`: whether a program uses the job;
//! `crash_recovery`: what a crash has left

mod aside;
mod assess;
mod crash_recovery;
mod in_use;
mod processes;

use super::usage::DiskUsage;
use crate::archive::error::Result;

pub use self::aside::Releases;
pub use self::assess::{ReleasePlan, assess, offline};
pub use self::crash_recovery::clear;
pub(in crate::archive) use self::in_use::in_use;
pub use self::processes::Processes;

/// Why a job is not released.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// The primary lacks it.
    Absent,
    /// It has neither marker.
    Unfinished,
    /// It has failed.
    Failed,
    /// It is pinned.
    Pinned,
    /// A process runs it or uses it, or may do so.
    Busy,
    /// It differs from its archived copy.
    Changed,
    /// No folder has a finished copy with a manifest.
    NoCopy,
    /// A folder that may have a copy cannot be read now.
    Offline,
    /// The archived copy differs from its manifest.
    Damaged,
    /// It cannot be released as its directories are now.
    Unsafe,
}

impl Reason {
    /// The reason in a few words, for a summary.
    #[must_use]
    pub fn describe(self) -> &'static str {
        match self {
            Reason::Absent => "moved or removed meanwhile",
            Reason::Unfinished => "not finished",
            Reason::Failed => "failed",
            Reason::Pinned => "pinned",
            Reason::Busy => "in use",
            Reason::Changed => "changed since they were archived",
            Reason::NoCopy => "no archived copy with a manifest",
            Reason::Offline => "their folder cannot be read",
            Reason::Damaged => "the archived copy is damaged",
            Reason::Unsafe => "their directories do not permit it",
        }
    }
}

/// A job that is not released, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The kind of reason.
    pub reason: Reason,
    /// The reason, for people.
    pub why: String,
}

fn refuse<T>(reason: Reason, why: impl Into<String>) -> Result<std::result::Result<T, Refusal>> {
    let why = why.into();
    Ok(Err(Refusal { reason, why }))
}

/// A job that was released.
#[derive(Debug, Clone, Copy)]
pub struct Released {
    /// The number of the folder whose copy serves it now.
    pub folder: u8,
    /// How it used the primary's disk.
    pub usage: DiskUsage,
}

/// What became of a job.
pub type ReleaseOutcome = Result<std::result::Result<Released, Refusal>>;
