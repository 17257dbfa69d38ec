//! Queues archived jobs for recovery in the background when programs read them, if the settings say so.

use std::ffi::OsStr;

use rustix::fs::{FileType, Statx};

use crate::archive::job::usage;
use crate::mount::Mount;
use crate::mount::tables::nodes::INTERNAL;
use crate::view::PRIMARY;

impl Mount {
    /// Notes that a file was opened for reading: its job is recovered in the background, if the settings say so.
    pub(in crate::mount) fn opened_for_reading(&self, id: u64, stat: &Statx) {
        let Some(recover) = &self.recover else {
            return;
        };
        let Some(node) = self.nodes.get(id) else {
            return;
        };
        if node.location == PRIMARY
            || node.location == INTERNAL
            || !recover.recovers_on_open(node.location)
        {
            return;
        }
        let regular = FileType::from_raw_mode(stat.stx_mode.into()) == FileType::RegularFile;
        // There is nothing to read in markers. A job that was recovered has nodes of before.
        if !regular || stat.stx_size == 0 || self.superseded.successor(id).is_some() {
            return;
        }
        let Some((job, path)) = self.nodes.path_in_job(node) else {
            return;
        };
        let mut names: Vec<&OsStr> = path.iter().collect();
        // A plan that is run again opens the locks of all jobs, and programs that list jobs read their `status.json`.
        let counts = names
            .pop()
            .is_some_and(|name| usage::counts_as_use(&job, &names, name, stat.stx_size));
        if counts {
            self.recoveries.read(recover, job);
        }
    }
}
