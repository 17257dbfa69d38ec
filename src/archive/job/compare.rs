//! Decides which of two copies of a job is kept: the primary's, or the archived one.
//!
//! An archived copy must never be replaced by one that holds less: the files that a purge of the primary's disk has left, or the older
//! state in another workspace that archives to the same folder.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use crate::transfer::{Entry, Hash, Kind, Manifest, Time};
use crate::workspace::internal::is_rewritten;
use crate::workspace::layout::PARAMS;
use crate::workspace::partials;

/// How the primary's copy of a job compares with the archived one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Comparison {
    /// They have the same content.
    Same,
    /// It is newer, and lacks no file of the archived copy; or the job was run again since.
    Newer,
    /// It has no newer file, and lacks a file or has an older version of one.
    Older,
    /// It has newer files, and others are missing or older.
    Mixed {
        /// An entry that is missing or older in the primary.
        example: PathBuf,
    },
}

/// Compares the primary's copy of a job with the archived one by types, sizes and modification times, at the precision that disks keep.
/// `done` is the name of the marker, whose time orders two runs.
///
/// A file that is found under another name, with the same size, time and hash, is not missing: `wandb sync` renames the directory of an
/// offline run. In a manifest without hashes, as that of an outline, no file is found under another name.
#[must_use]
pub fn compare(primary: &Manifest, archived: &Manifest, done: &OsStr) -> Comparison {
    compare_by(primary, archived, done, Content::read_of)
}

/// Whether the primary's copy is [`Comparison::Newer`] if files under other names, with the same size and time, also have the same content.
#[must_use]
pub(in crate::archive) fn is_newer_if_renamed(
    primary: &Manifest,
    archived: &Manifest,
    done: &OsStr,
) -> bool {
    compare_by(primary, archived, done, Content::seen_of) == Comparison::Newer
}

/// The content of a file or symlink, as far as it is known.
#[derive(PartialEq, Eq, Hash)]
enum Content<'a> {
    Read(u64, Hash),
    Seen(u64),
    Link(&'a OsStr),
}

impl<'a> Content<'a> {
    /// The content by hash; `None` without a hash.
    fn read_of(entry: &'a Entry) -> Option<Content<'a>> {
        match &entry.kind {
            Kind::File { hash, .. } if *hash.as_bytes() == [0; 32] => None,
            Kind::File { size, hash, .. } => Some(Content::Read(*size, *hash)),
            _ => Content::seen_of(entry),
        }
    }

    /// The content by size.
    fn seen_of(entry: &'a Entry) -> Option<Content<'a>> {
        match &entry.kind {
            Kind::File { size, .. } => Some(Content::Seen(*size)),
            Kind::Symlink { target } => Some(Content::Link(target)),
            Kind::Directory | Kind::Fifo => None,
        }
    }
}

fn compare_by<'a>(
    primary: &'a Manifest,
    archived: &'a Manifest,
    done: &OsStr,
    content: impl Fn(&'a Entry) -> Option<Content<'a>>,
) -> Comparison {
    // A copy without its marker was made too early, or is incomplete: it is replaced, unless it has files that the primary lacks.
    let early = match (marked(primary, done), marked(archived, done)) {
        (Some(ours), Some(theirs)) => match ours.order(theirs) {
            Ordering::Greater => return Comparison::Newer,
            Ordering::Less => return Comparison::Older,
            Ordering::Equal => false,
        },
        (ours, _) => ours.is_some(),
    };
    let mut by_name: HashMap<(usize, &OsStr), usize> = HashMap::new();
    for (index, entry) in archived.entries().iter().enumerate().skip(1) {
        by_name.insert((entry.parent, &entry.name), index);
    }
    let (mut newer, mut older) = (false, None);
    // Whether only bookkeeping is newer, which is also rewritten in what a purge has left of a job.
    let mut rewritten = false;
    // Modification times of files with new names in the primary, by content.
    let mut renamed: HashMap<Content<'_>, Vec<Time>> = HashMap::new();
    // The index of each entry in the archived copy.
    let mut there: Vec<Option<usize>> = vec![Some(0)];
    for (index, entry) in primary.entries().iter().enumerate().skip(1) {
        let parent = there.get(entry.parent).copied().flatten();
        let other = parent.and_then(|parent| by_name.remove(&(parent, &*entry.name)));
        there.push(other);
        match other.and_then(|other| archived.entries().get(other)) {
            // Not every file system has fifos, and they contain no data.
            None if matches!(entry.kind, Kind::Fifo) => {}
            None if is_bookkeeping(primary, index, done) => rewritten = true,
            None => {
                newer = true;
                if let Some(content) = content(entry) {
                    renamed.entry(content).or_default().push(entry.mtime);
                }
            }
            Some(other) if entry.looks_like(other) || is_rebased(entry, other) => {}
            Some(other) if is_rebased_link(primary, entry, other) => {}
            // A full disk or a crash leaves a file that is newer, but empty.
            Some(other) if (early || entry.mtime > other.mtime) && !is_emptied(entry, other) => {
                match is_bookkeeping(primary, index, done) {
                    true => rewritten = true,
                    false => newer = true,
                }
            }
            Some(_) => older = older.or(Some(primary.path(index))),
        }
    }
    // Missing directories do not count: the files in them do.
    let is_missing = |index: &usize| {
        let Some(entry) = archived.entries().get(*index) else {
            return false;
        };
        let times = content(entry).and_then(|content| renamed.get(&content));
        let mut times = times.into_iter().flatten();
        let is_found = times.any(|time| time.order(entry.mtime).is_eq());
        !is_found && !matches!(entry.kind, Kind::Directory | Kind::Fifo)
    };
    let missing = by_name.into_values().filter(is_missing).min();
    let older = older.or_else(|| missing.map(|index| archived.path(index)));
    match (newer, older) {
        (false, None) if rewritten => Comparison::Newer,
        (false, None) => Comparison::Same,
        (true, None) => Comparison::Newer,
        (false, Some(_)) => Comparison::Older,
        (true, Some(example)) => Comparison::Mixed { example },
    }
}

/// Whether an entry is bookkeeping, which is written in jobs that do not run.
fn is_bookkeeping(manifest: &Manifest, index: usize, done: &OsStr) -> bool {
    let Some(entry) = manifest.entries().get(index) else {
        return false;
    };
    let (is_dir, size) = match entry.kind {
        Kind::File { size, .. } => (false, size),
        Kind::Directory => (true, 0),
        Kind::Symlink { .. } | Kind::Fifo => return false,
    };
    let job_name = Path::new(done).file_stem().unwrap_or_default();
    let directory = manifest.path(entry.parent);
    is_rewritten(&directory, &entry.name, job_name, is_dir, size)
}

/// The modification time of the marker: the end of the job.
pub(in crate::archive) fn marked(manifest: &Manifest, done: &OsStr) -> Option<Time> {
    let entries = manifest.entries().iter().skip(1);
    let mut found = entries.filter(|entry| entry.parent == 0 && *entry.name == *done);
    found.next().map(|entry| entry.mtime)
}

/// Whether a file with content is empty now.
fn is_emptied(entry: &Entry, other: &Entry) -> bool {
    matches!(
        (&entry.kind, &other.kind),
        (Kind::File { size: 0, .. }, Kind::File { size: 1.., .. })
    )
}

/// Whether the two are a job's `params.json` with the same time of change, of which a recovery may have rewritten one for a workspace at
/// another path ([`params`](super::params)). A new copy of the job is not needed for that.
fn is_rebased(entry: &Entry, other: &Entry) -> bool {
    let is_params = |entry: &Entry| {
        entry.parent == 0 && *entry.name == *PARAMS && matches!(entry.kind, Kind::File { .. })
    };
    let same_time = entry.mtime.order(other.mtime) == Ordering::Equal;
    is_params(entry) && is_params(other) && same_time && !is_emptied(entry, other)
}

/// Whether the two are a job's symlink to the same partial, which a recovery lets lead to the workspace's.
fn is_rebased_link(primary: &Manifest, entry: &Entry, other: &Entry) -> bool {
    match (&entry.kind, &other.kind) {
        (Kind::Symlink { target }, Kind::Symlink { target: other }) => {
            let (target, other) = (Path::new(target), Path::new(other));
            partials::is_same_in_another_workspace(target, other)
                && partials::has_links(&primary.path(entry.parent))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::transfer::{Options, outline};

    /// Files with their age in seconds.
    fn tree(files: &[(&str, u64)]) -> Manifest {
        let top = tempfile::tempdir().unwrap();
        let base = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        for (name, age) in files {
            let path = top.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            let file = File::create(path).unwrap();
            file.set_modified(base - Duration::from_secs(*age)).unwrap();
        }
        let dir = File::open(top.path()).unwrap();
        outline(&dir, &Options::default()).unwrap()
    }

    fn compared(ours: &[(&str, u64)], archived: &[(&str, u64)]) -> Comparison {
        compare(&tree(ours), &tree(archived), OsStr::new("a.done"))
    }

    #[test]
    fn a_purged_job_is_older_than_its_copy() {
        let whole = [("a.done", 5), ("d/model", 9), ("out", 9)];
        assert_eq!(compared(&whole, &whole), Comparison::Same);
        assert_eq!(compared(&whole[..2], &whole), Comparison::Older);
        assert_eq!(compared(&[("a.done", 5)], &whole), Comparison::Older);
    }

    #[test]
    fn a_copy_with_times_in_whole_seconds_is_the_same() {
        let times = |nanoseconds| {
            let top = tempfile::tempdir().unwrap();
            for (name, seconds) in [("a.done", 105), ("out", 101)] {
                let file = File::create(top.path().join(name)).unwrap();
                let time = SystemTime::UNIX_EPOCH + Duration::new(seconds, nanoseconds);
                file.set_modified(time).unwrap();
            }
            outline(File::open(top.path()).unwrap(), &Options::default()).unwrap()
        };
        let (whole, cut) = (times(987_654_321), times(0));
        let done = OsStr::new("a.done");
        assert_eq!(compare(&whole, &cut, done), Comparison::Same);
        assert_eq!(compare(&cut, &whole, done), Comparison::Same);
    }

    #[test]
    fn new_and_newer_files_make_a_job_newer_and_older_files_do_not() {
        let archived = [("a.done", 5), ("out", 9)];
        for ours in [
            &[("a.done", 5), ("out", 1)][..],
            &[("a.done", 5), ("out", 9), ("d/more", 20)],
            // Run again, with other results.
            &[("a.done", 4), ("other", 4)],
        ] {
            assert_eq!(compared(ours, &archived), Comparison::Newer, "{ours:?}");
            assert_ne!(compared(&archived, ours), Comparison::Newer, "{ours:?}");
        }
        assert_eq!(
            compared(&[("a.done", 6), ("out", 1)], &archived),
            Comparison::Older
        );
    }

    #[test]
    fn newer_bookkeeping_makes_an_incomplete_job_no_newer() {
        let archived = [("a.done", 5), ("out", 9), (".experimaestro/status.json", 5)];
        let left = [("a.done", 5), (".experimaestro/status.json", 1)];
        assert_eq!(compared(&left, &archived), Comparison::Older);
        let left = [("a.done", 5), (".experimaestro/events/event-0.jsonl", 1)];
        assert_eq!(compared(&left, &archived), Comparison::Older);
        let whole = [("a.done", 5), ("out", 9), (".experimaestro/status.json", 1)];
        assert_eq!(compared(&whole, &archived), Comparison::Newer);
    }

    #[test]
    fn new_and_missing_files_together_are_mixed() {
        let example = PathBuf::from("out");
        let mixed = compared(&[("a.done", 5), ("note", 1)], &[("a.done", 5), ("out", 9)]);
        assert_eq!(mixed, Comparison::Mixed { example });
    }

    #[test]
    fn a_renamed_file_with_the_same_hash_is_not_missing() {
        let tree = |run: &str, content: &str, age| {
            let top = tempfile::tempdir().unwrap();
            let time = |age: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000 - age);
            let (run, done) = (top.path().join(run), top.path().join("a.done"));
            fs::create_dir(&run).unwrap();
            for (path, content, age) in [(run.join("log"), content, age), (done, "", 5)] {
                fs::write(&path, content).unwrap();
                let file = File::options().write(true).open(path).unwrap();
                file.set_modified(time(age)).unwrap();
            }
            let top = File::open(top.path()).unwrap();
            let read = crate::transfer::scan(&top, &Options::default()).unwrap();
            (read, outline(&top, &Options::default()).unwrap())
        };
        let done = OsStr::new("a.done");
        let mixed = Comparison::Mixed {
            example: PathBuf::from("offline/log"),
        };
        let (archived, seen) = tree("offline", "same", 9);
        let (renamed, outlined) = tree("online", "same", 9);
        assert_eq!(compare(&renamed, &archived, done), Comparison::Newer);
        assert_eq!(compare(&outlined, &archived, done), mixed);
        assert_eq!(compare(&outlined, &seen, done), mixed);
        assert!(is_newer_if_renamed(&outlined, &archived, done));
        for (content, age, may_be) in [
            ("some", 9, true),
            ("more than", 9, false),
            ("same", 1, false),
        ] {
            let (other, outlined) = tree("online", content, age);
            assert_eq!(compare(&other, &archived, done), mixed);
            assert_eq!(is_newer_if_renamed(&outlined, &archived, done), may_be);
        }
    }

    #[test]
    fn a_copy_without_its_marker_is_older_unless_the_primary_lacks_a_file_of_it() {
        let ours = [("a.done", 5), ("out", 9)];
        for archived in [&[][..], &[("out", 9)], &[("out", 1)], &[("out", 20)]] {
            assert_eq!(compared(&ours, archived), Comparison::Newer, "{archived:?}");
        }
        let example = PathBuf::from("model");
        let mixed = compared(&ours, &[("out", 9), ("model", 9)]);
        assert_eq!(mixed, Comparison::Mixed { example });
    }
}
