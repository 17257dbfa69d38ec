//! Finds jobs that must be archived and that no mount has reported.
//!
//! Three passes go through the primary's jobs, since each costs another order of magnitude:
//!
//! - `scanner`, on every scan interval: jobs that a folder lacks. Lists only directories that changed; no system call per archived job.
//! - `markers`, when a task changes, hourly, and on request: jobs that were run again. Two `statx` per archived job.
//! - `recheck`, once a day: jobs that changed in another way. A full look at each archived job.
//!
//! `directory` detects whether a directory has changed, and reads it; `candidates` compares the two directories of one task; `walk` is how
//! the last two passes go through all jobs. The engine runs each pass in its own thread.

pub(super) mod candidates;
pub(super) mod directory;
pub(super) mod markers;
pub(super) mod recheck;
pub(super) mod scanner;
pub(super) mod walk;
