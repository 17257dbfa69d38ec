//! Remembers which runs a folder has, with their partials, so that a pass costs few system calls for each.
//!
//! In memory, and in the primary's `.xpmfs/archive/experiments/<BLAKE3 of the folder's path>/<BLAKE3 of the experiment>`: a line for each run that is in
//! the primary, with the hashes of its name and of its [`stamp`]. Without the record, the next pass compares the run and its partials.

use std::collections::{BTreeMap, HashMap};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use blake3::Hash;
use rustix::fs::{Mode, OFlags};

use super::RunName;
use crate::archive::places;
use crate::archive::state_dir::{self, ARCHIVE};
use crate::sys::at;
use crate::view::Location;
use crate::workspace::runs::Run;

/// The directory of the records, below `.xpmfs/archive`.
const EXPERIMENTS: &str = "experiments";

/// The most bytes of a record that are read: some 4,000 runs.
const RECORD_MAX: usize = 512 << 10;

/// The most runs that are remembered in memory: more are compared with the records in each pass.
const RUNS_MAX: usize = 100_000;

/// The files of a run whose change means that the run has changed. experimaestro replaces `status.json` by a rename, which changes the
/// directory, too.
const WATCHED: [&str; 6] = [
    ".",
    "status.json",
    "environment.json",
    "jobs.jsonl",
    "objects.jsonl",
    "jobs",
];

/// The state of a run, by the attributes of its files; `None` if it cannot be read.
pub(super) fn stamp(run: &Run) -> Option<Hash> {
    let directory = rustix::fs::open(
        &run.path,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
    );
    let directory = directory.ok()?;
    let mut hasher = blake3::Hasher::new();
    for name in WATCHED {
        let stat = at::absent(at::stat_at(&directory, OsStr::new(name))).ok()?;
        let seen = stat.map(|stat| {
            let (changed, status) = (stat.stx_mtime, stat.stx_ctime);
            (
                (stat.stx_ino, stat.stx_size),
                (changed.tv_sec, changed.tv_nsec),
                (status.tv_sec, status.tv_nsec),
            )
        });
        hasher.update(format!("{seen:?}").as_bytes());
    }
    Some(hasher.finalize())
}

/// The runs that a folder has.
#[derive(Debug, Default)]
pub(super) struct ArchivedRuns {
    runs: HashMap<RunName, Hash>,
}

/// The record of an experiment: the stamp of each run, by the hash of its name.
pub(super) type Record = BTreeMap<String, String>;

impl ArchivedRuns {
    /// Whether a run was archived in this state.
    pub(super) fn has(&self, run: &RunName, stamp: Hash) -> bool {
        self.runs.get(run) == Some(&stamp)
    }

    /// Remembers that a run was archived in this state.
    pub(super) fn add(&mut self, run: RunName, stamp: Hash) {
        if self.runs.len() >= RUNS_MAX {
            self.runs.clear();
        }
        self.runs.insert(run, stamp);
    }

    /// Forgets everything, so that the next pass compares everything that has no record.
    pub(super) fn clear(&mut self) {
        self.runs.clear();
    }
}

fn key(run: &OsStr) -> String {
    blake3::hash(run.as_bytes()).to_hex().to_string()
}

/// Whether a record has a run in this state.
pub(super) fn is_recorded(record: &Record, run: &OsStr, stamp: Hash) -> bool {
    record
        .get(&key(run))
        .is_some_and(|known| *known == stamp.to_hex().as_str())
}

/// Adds a run to a record.
pub(super) fn record(record: &mut Record, run: &OsStr, stamp: Hash) {
    record.insert(key(run), stamp.to_hex().to_string());
}

/// Removes the runs that are not in the primary any more from a record; returns whether there were any.
pub(super) fn prune(record: &mut Record, runs: &[Run]) -> bool {
    let keys: Vec<String> = runs.iter().map(|run| key(run.id.as_os_str())).collect();
    let before = record.len();
    record.retain(|known, _| keys.contains(known));
    record.len() < before
}

/// Reads the record of an experiment. A record that cannot be read is empty.
pub(super) fn read(primary: &Location, folder: &Location, experiment: &OsStr) -> Record {
    let folder = state_dir::folder_name(folder);
    let names = [OsStr::new(EXPERIMENTS), &folder];
    let read = || {
        let directory = state_dir::open(primary, &names).ok()??;
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = rustix::fs::openat(directory, file(experiment), flags, Mode::empty()).ok()?;
        let mut text = vec![0; RECORD_MAX];
        let length = rustix::io::pread(file, &mut text, 0).ok()?;
        text.truncate(length);
        String::from_utf8(text).ok()
    };
    let text = read().unwrap_or_default();
    let lines = text.lines().filter_map(|line| line.split_once(' '));
    lines
        .map(|(run, stamp)| (run.to_owned(), stamp.to_owned()))
        .collect()
}

/// Writes the record of an experiment. A failure costs the next start a comparison.
pub(super) fn write(primary: &Location, folder: &Location, experiment: &OsStr, record: &Record) {
    let folder = state_dir::folder_name(folder);
    let names = [OsStr::new(ARCHIVE), OsStr::new(EXPERIMENTS), &folder];
    let text: String = record
        .iter()
        .map(|(run, stamp)| format!("{run} {stamp}\n"))
        .collect();
    let written = places::make_own(primary, names).and_then(|directory| {
        state_dir::replace(primary, &directory, &file(experiment), text.as_bytes())
    });
    if let Err(errno) = written {
        let path = Path::new(EXPERIMENTS).join(experiment);
        tracing::debug!(
            "cannot record which runs of {} are archived: {errno}",
            path.display()
        );
    }
}

/// The name of an experiment's record. Names with a dot at the beginning are those of records that are being written.
fn file(experiment: &OsStr) -> OsString {
    key(experiment).into()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::workspace::runs::{Layout, RunId};

    fn run(path: &Path) -> Run {
        Run {
            id: RunId::new("20260101_000000"),
            layout: Layout::V2,
            path: path.to_owned(),
        }
    }

    #[test]
    fn a_status_that_is_rewritten_changes_the_stamp() {
        let top = tempfile::tempdir().unwrap();
        fs::write(top.path().join("status.json"), "{}").unwrap();
        let before = stamp(&run(top.path())).unwrap();
        assert_eq!(stamp(&run(top.path())), Some(before));
        fs::write(top.path().join("status.json.tmp"), "{}").unwrap();
        fs::rename(
            top.path().join("status.json.tmp"),
            top.path().join("status.json"),
        )
        .unwrap();
        assert_ne!(stamp(&run(top.path())), Some(before));
        assert_eq!(stamp(&run(&top.path().join("gone"))), None);
    }

    #[test]
    fn a_record_loses_the_runs_that_are_gone() {
        let top = tempfile::tempdir().unwrap();
        let run = run(top.path());
        let stamp = blake3::hash(b"a");
        let mut known = Record::new();
        record(&mut known, run.id.as_os_str(), stamp);
        assert!(is_recorded(&known, run.id.as_os_str(), stamp));
        assert!(!is_recorded(&known, run.id.as_os_str(), blake3::hash(b"b")));
        assert!(!prune(&mut known, std::slice::from_ref(&run)));
        assert!(prune(&mut known, &[]));
        assert!(known.is_empty());
    }
}
