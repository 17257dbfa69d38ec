//! Finds jobs that must be archived and that no mount has reported.
//!
//! Three passes go through the primary's jobs, each in a thread of its own and at its own intervals, since their costs differ by orders of
//! magnitude: a pass over all markers of a large folder takes minutes, and must not delay the search for new jobs.
//!
//! - `scanner`, on every scan interval: jobs that a folder lacks. Lists only directories that changed; no system call per archived job.
//!   [`moved`](super::moved) has one more for each `move` folder.
//! - `markers`, when a task changes, at most hourly (the pause is 100 times as long as the comparison, up to 30 days), and on request: jobs that were run again. Two `statx` per archived job.
//! - `recheck`, once a day: jobs that changed in another way. A full look at each archived job, in the primary alone: it waits for no folder.
//!
//! `directory` detects whether a directory has changed, and reads it; `candidates` compares the two directories of one task; `walk` is how
//! the last two passes go through all jobs.

pub(super) mod candidates;
pub(super) mod directory;
pub(super) mod markers;
pub(super) mod recheck;
pub(super) mod scanner;
pub(super) mod walk;
