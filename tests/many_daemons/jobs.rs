//! The jobs: what is in them, what the programs know of each, and what has failed.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use parking_lot::{Mutex, RwLock};

use crate::common::job;
use crate::node::Node;

/// The file of a job's notes.
pub(crate) const NOTES: &str = "notes.txt";

/// The files of a job without its marker and its notes.
pub(crate) fn files(number: usize) -> [(&'static str, Vec<u8>); 4] {
    [
        ("train.out", format!("step {number}\n").into_bytes()),
        ("model.bin", job::model(number)),
        ("data/uv.lock", b"version = 1\n".to_vec()),
        (
            ".experimaestro/status.json",
            b"{\"state\": \"done\"}".to_vec(),
        ),
    ]
}

/// A line of a job's notes.
#[derive(Debug, Clone)]
pub(crate) struct Note {
    pub(crate) line: String,
    /// When the program has seen it written; `None` if its daemon was killed, and it may be there or not.
    pub(crate) written: Option<Instant>,
}

/// What the programs know of a job.
#[derive(Debug, Default)]
pub(crate) struct Known {
    /// When a program has run it to its end.
    pub(crate) completed: Option<Instant>,
    pub(crate) notes: Vec<Note>,
    /// When the job was deleted by the command; `None` once it is run again.
    pub(crate) deleted: Option<Instant>,
    /// When a program has begun to remove it last, in either way.
    pub(crate) removed: Option<Instant>,
    /// Which node has its lock, and in which generation.
    pub(crate) holder: Option<(usize, u64)>,
}

/// All jobs, and what happened.
pub(crate) struct Jobs {
    pub(crate) known: Vec<Mutex<Known>>,
    /// Held by programs that use a job, so that no program removes it meanwhile: daemons and releases may be at work on it.
    pub(crate) users: Vec<RwLock<()>>,
    pub(crate) releases: bool,
    /// Jobs, and what was wrong with them.
    failures: Mutex<Vec<(usize, String)>>,
    pub(crate) runs: AtomicUsize,
    pub(crate) changes: AtomicUsize,
    pub(crate) reads: AtomicUsize,
    pub(crate) released: AtomicUsize,
    pub(crate) deleted: AtomicUsize,
    pub(crate) removed: AtomicUsize,
    pub(crate) broken_off: AtomicUsize,
    /// Calls that failed with `ESTALE`.
    pub(crate) stale: AtomicUsize,
}

impl Jobs {
    pub(crate) fn new(count: usize, releases: bool) -> Jobs {
        Jobs {
            known: (0..count).map(|_| Mutex::default()).collect(),
            users: (0..count).map(|_| RwLock::default()).collect(),
            releases,
            failures: Mutex::default(),
            runs: AtomicUsize::new(0),
            changes: AtomicUsize::new(0),
            reads: AtomicUsize::new(0),
            released: AtomicUsize::new(0),
            deleted: AtomicUsize::new(0),
            removed: AtomicUsize::new(0),
            broken_off: AtomicUsize::new(0),
            stale: AtomicUsize::new(0),
        }
    }

    pub(crate) fn fail(&self, number: usize, what: &str) {
        let now = jiff::Timestamp::now();
        // The caller may hold it.
        let known = self.known[number].try_lock();
        let known = known.map_or_else(String::new, |known| format!(" ({known:?})"));
        let text = format!("{now} {what}{known}");
        self.failures.lock().push((number, text));
    }

    pub(crate) fn has_failed(&self) -> bool {
        !self.failures.lock().is_empty()
    }

    pub(crate) fn expect_no_failure(&self, nodes: &[Node<'_>]) {
        let failures = self.failures.lock();
        let jobs: Vec<String> = failures
            .iter()
            .map(|(number, _)| job::hash(*number))
            .collect();
        for node in nodes.iter().filter(|_| !jobs.is_empty()) {
            let log = node.log();
            let about =
                |line: &&str| line.contains("signal") || jobs.iter().any(|job| line.contains(job));
            let lines: Vec<&str> = log.lines().filter(about).collect();
            eprintln!(
                "of the log of {}:\n{}",
                node.top().display(),
                lines.join("\n")
            );
        }
        assert!(failures.is_empty(), "{failures:#?}");
        let count = |count: &AtomicUsize| count.load(Ordering::Relaxed);
        let steps = count(&self.runs) + count(&self.changes) + count(&self.reads);
        let stale = count(&self.stale);
        assert!(
            stale <= 2 + steps / 50,
            "{stale} of {steps} calls are stale"
        );
    }

    pub(crate) fn summary(&self) -> String {
        let count = |count: &AtomicUsize| count.load(Ordering::Relaxed);
        format!(
            "{} jobs run, {} changes of finished jobs, {} reads, {} releases, {} deletions, {} removals by hand, {} calls broken off by kills, {} stale",
            count(&self.runs),
            count(&self.changes),
            count(&self.reads),
            count(&self.released),
            count(&self.deleted),
            count(&self.removed),
            count(&self.broken_off),
            count(&self.stale)
        )
    }
}
