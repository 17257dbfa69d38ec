//! Keeps the queued jobs in a file on the primary, for the next process.
//!
//! `<primary>/.xpmfs/archive/<host>-<pid>-<start>.jsonl`, one per process, locked with `flock` by its owner as long as
//! that lives, on any node. If the lock is free, the owner is gone: another process takes over the jobs of the journal,
//! and removes it.
//!
//! A line is a JSON object: `{"queued": "task/hash"}`, `{"done": "task/hash"}`, or
//! `{"failed": "task/hash", "folder": "/slow/backup", "tries": 3, "next": 1795000000, "why": "…"}`; `next` is in seconds
//! since 1970, and what is not UTF-8 is in hexadecimal, under a name that ends in `_hex`. Lines are only added, and the
//! last may be torn. Nothing is lost with a journal but time: a scan finds those without a copy, and the daily recheck the others.
//!
//! - `file`: the journal of this process; `writer`: keeps it in step with the queue
//! - `ownerless`: journals whose owner is gone, and jobs that are left to the next process
//! - `line`: one line

mod file;
mod line;
mod ownerless;
mod writer;

pub(super) use self::ownerless::queue_for_next_start;
pub(super) use self::writer::JournalWriter;
#[cfg(test)]
pub(super) use self::{file::Journal, line::Line};

#[cfg(test)]
mod tests;
