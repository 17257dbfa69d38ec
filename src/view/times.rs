//! Shows the newest times of `jobs/` and of `jobs/<task_id>/`, which several locations may have.
//!
//! Programs compare the mtime of a directory to detect new entries, so a directory shows the newest times of all locations.

use std::ffi::OsStr;

use rustix::fs::{Statx, StatxTimestamp};

use super::View;
use crate::workspace::jobs;

impl View {
    /// Sets the times in `stat`, of `jobs/` or of a task in the location `place`, to the newest of all locations.
    pub fn make_newest(&self, stat: &mut Statx, place: u8, task: Option<&OsStr>) {
        if task.is_some_and(|task| !jobs::is_job_entry(task)) {
            return;
        }
        for folder in self.folders() {
            if folder.index() == place {
                continue;
            }
            let root = folder.root().ok();
            if let Some((mtime, ctime)) = folder.times().get(root, task.unwrap_or(OsStr::new(""))) {
                stat.stx_mtime = later(stat.stx_mtime, mtime);
                stat.stx_ctime = later(stat.stx_ctime, ctime);
            }
        }
    }

    /// Asks each folder once for the times of several tasks, before they are listed with their attributes.
    pub fn ask_times<'a>(&self, tasks: impl Iterator<Item = &'a OsStr> + Clone) {
        for folder in self.folders() {
            let tasks = tasks.clone().filter(|task| jobs::is_job_entry(task));
            folder.times().ask(folder.root().ok(), tasks);
        }
    }
}

fn later(one: StatxTimestamp, other: StatxTimestamp) -> StatxTimestamp {
    match (one.tv_sec, one.tv_nsec) >= (other.tv_sec, other.tv_nsec) {
        true => one,
        false => other,
    }
}
