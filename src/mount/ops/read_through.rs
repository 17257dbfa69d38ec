//! Queues archived jobs for recovery in the background when programs read them, if the settings say so.

use std::ffi::OsString;

use rustix::fs::{FileType, Statx};

use crate::archive::job::usage;
use crate::mount::Mount;
use crate::mount::tables::nodes::{INTERNAL, NodeRole};
use crate::view::PRIMARY;
use crate::workspace::jobs::JobId;

impl Mount {
    /// Notes that a file was opened for reading: its job is recovered in the background, if the settings say so.
    pub(in crate::mount) fn opened_for_reading(&self, id: u64, stat: &Statx) {
        let Some(recover) = &self.recover else {
            return;
        };
        let Some(node) = self.nodes.get(id) else {
            return;
        };
        if node.place == PRIMARY || node.place == INTERNAL || !recover.recovers_on_open(node.place)
        {
            return;
        }
        let regular = FileType::from_raw_mode(stat.stx_mode.into()) == FileType::RegularFile;
        // There is nothing to read in markers. A job that was recovered has nodes of before.
        if !regular || stat.stx_size == 0 || self.superseded.successor(id).is_some() {
            return;
        }
        let Some((job, mut path)) = self.archived_path(id) else {
            return;
        };
        // A plan that is run again opens the locks of all jobs, and programs that list jobs read their `status.json`.
        let counts = path
            .pop()
            .is_some_and(|name| usage::counts_as_use(&job, &path, &name, stat.stx_size));
        if counts {
            self.recoveries.read(recover, job);
        }
    }

    /// Returns the job of a node, and the names that lead to the node in it.
    fn archived_path(&self, id: u64) -> Option<(JobId, Vec<OsString>)> {
        let mut names = Vec::new();
        let mut node = self.nodes.get(id)?;
        while node.role == NodeRole::Inside {
            names.push(node.name.to_os_string());
            node = self.nodes.get(node.parent)?;
        }
        if node.role != NodeRole::Job {
            return None;
        }
        let task = self.nodes.get(node.parent)?;
        names.reverse();
        let job = JobId::new(&*task.name, &*node.name).ok()?;
        Some((job, names))
    }
}
