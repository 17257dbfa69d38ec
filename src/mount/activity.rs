//! Reports to the archiver which jobs of the primary are altered, or may now be settled.
//!
//! The first alteration of a job is reported at once, further ones at most once per [`REPORT_INTERVAL`]: an alteration
//! that is not reported at once is reported at the end of the interval, so that a report always follows the last
//! alteration. The last things that a program does with a job are reported at once, too: it closes a file after writing
//! to it, releases a lock, or creates a marker.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender};
use parking_lot::Mutex;
use rustc_hash::FxHashMap;

use crate::archive::engine::Archiver;
use crate::mount::tables::nodes::{NodeRole, Nodes};
use crate::view::PRIMARY;
use crate::workspace::jobs::JobId;

/// Receives reports of jobs of the primary that are altered through the mount.
pub trait Activity: Send + Sync {
    /// Reports that a job in the primary has been altered, or may now be settled: an entry was made, renamed, linked or
    /// removed, attributes were changed, a file was opened for writing or closed after that, or a lock was released.
    /// The job may be gone by now. A report follows the last alteration within half a second.
    ///
    /// Called by threads that answer requests: it must neither block nor use the mount.
    fn touched(&self, job: JobId);
}

impl Activity for Archiver {
    fn touched(&self, job: JobId) {
        Archiver::touched(self, job);
    }
}

impl fmt::Debug for dyn Activity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Activity")
    }
}

/// Interval between reports of a job that is altered all the time.
const REPORT_INTERVAL: Duration = Duration::from_millis(500);

const SHARDS: usize = 16;

/// The jobs that were reported recently.
#[derive(Debug)]
pub(super) struct ActivityReports {
    nodes: Arc<Nodes>,
    receiver: Option<Arc<dyn Activity>>,
    recent: Arc<[Mutex<FxHashMap<u64, Recent>>; SHARDS]>,
    /// Wakes the thread that sends delayed reports; without the thread, everything is reported at once.
    wake: Option<Sender<()>>,
}

/// A job that was reported in this interval, keyed by its node.
#[derive(Debug)]
struct Recent {
    job: JobId,
    /// Whether it has been altered since that report.
    again: bool,
}

impl ActivityReports {
    /// Returns reports that have no receiver yet.
    pub(super) fn new(nodes: Arc<Nodes>) -> ActivityReports {
        ActivityReports {
            nodes,
            receiver: None,
            recent: Arc::default(),
            wake: None,
        }
    }

    /// Starts the thread that sends delayed reports to `receiver`; it ends with the mount.
    pub(super) fn start(&mut self, receiver: Arc<dyn Activity>) -> std::io::Result<()> {
        let (wake, woken) = crossbeam_channel::bounded(1);
        self.receiver = Some(receiver.clone());
        self.wake = Some(wake);
        let (recent, nodes) = (self.recent.clone(), self.nodes.clone());
        std::thread::Builder::new()
            .name("xpmfs-activity".to_owned())
            .spawn(move || report_all(&woken, &recent, &nodes, &*receiver))?;
        Ok(())
    }

    /// Reports that a known node has been altered.
    pub(super) fn altered(&self, id: u64) {
        if let Some(receiver) = &self.receiver {
            self.nodes
                .each_job_of(id, |job| self.report(&**receiver, job));
        }
    }

    /// Reports that a known node may have been altered for the last time.
    pub(super) fn altered_for_good(&self, id: u64) {
        if let Some(receiver) = &self.receiver {
            self.nodes
                .each_job_of(id, |job| self.report_now(&**receiver, job));
        }
    }

    /// Reports that the entry `name` of a directory has been made, replaced or removed in `location`.
    pub(super) fn entry_altered(&self, parent: u64, name: &OsStr, location: u8) {
        let Some(receiver) = &self.receiver else {
            return;
        };
        if location != PRIMARY {
            return;
        }
        let Some(node) = self.nodes.get(parent) else {
            return;
        };
        match node.role {
            // The job itself.
            NodeRole::Task => {
                if let Ok(job) = JobId::new(&*node.name, name) {
                    receiver.touched(job);
                }
            }
            NodeRole::Job if is_marker(name) => self.altered_for_good(parent),
            NodeRole::Job | NodeRole::Inside => self.altered(parent),
            NodeRole::Root | NodeRole::Jobs | NodeRole::Outside => {}
        }
    }

    /// Reports the job of a node at once, or at the end of the interval if it has already been reported in this one.
    fn report(&self, receiver: &dyn Activity, id: u64) {
        let mut recent = self.shard(id).lock();
        if let Some(known) = recent.get_mut(&id) {
            known.again = true;
            return;
        }
        drop(recent);
        self.report_now(receiver, id);
    }

    /// Reports the job of a node at once.
    fn report_now(&self, receiver: &dyn Activity, id: u64) {
        let Some(job) = self.nodes.job_id(id) else {
            return;
        };
        if let Some(wake) = &self.wake {
            let again = false;
            let known = Recent {
                job: job.clone(),
                again,
            };
            self.shard(id).lock().insert(id, known);
            // If the channel is full, the thread is about to wake up anyway.
            let _ = wake.try_send(());
        }
        receiver.touched(job);
    }

    fn shard(&self, id: u64) -> &Mutex<FxHashMap<u64, Recent>> {
        &self.recent[(id % SHARDS as u64) as usize]
    }
}

fn report_all(
    woken: &Receiver<()>,
    recent: &[Mutex<FxHashMap<u64, Recent>>; SHARDS],
    nodes: &Nodes,
    receiver: &dyn Activity,
) {
    for () in woken {
        let mut left = true;
        while left {
            std::thread::sleep(REPORT_INTERVAL);
            left = false;
            for shard in recent {
                let again = next_interval(&mut shard.lock());
                left |= !again.is_empty();
                for (id, job) in again {
                    // A job that was renamed since is reported under both names, since the receiver may know it under
                    // either.
                    let now = nodes.job_id(id).filter(|now| *now != job);
                    receiver.touched(job);
                    if let Some(now) = now {
                        receiver.touched(now);
                    }
                }
            }
        }
    }
}

/// Returns the jobs that were altered since their last report, and removes the others.
fn next_interval(recent: &mut FxHashMap<u64, Recent>) -> Vec<(u64, JobId)> {
    recent.retain(|_, known| known.again);
    let again = recent.iter_mut().map(|(id, known)| {
        known.again = false;
        (*id, known.job.clone())
    });
    again.collect()
}

/// Whether a name may be the name of a marker.
fn is_marker(name: &OsStr) -> bool {
    let name = name.as_bytes();
    name.ends_with(b".done") || name.ends_with(b".failed")
}
