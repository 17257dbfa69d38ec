//! Decides whether the copy of an item in a folder is replaced.

use std::collections::HashMap;
use std::path::PathBuf;

use super::Item;
use crate::transfer::{Entry, Kind, Manifest, Time};

/// How an item in the primary compares with its copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ItemComparison {
    /// They have the same content.
    Same,
    /// The primary's replaces the copy.
    Newer,
    /// The copy is kept: the primary's is an older state, or what a purge has left.
    Less,
}

/// Compares an item with its copy by types, sizes and modification times.
///
/// A run only gains files, so one that lacks a file never replaces its copy. A partial may lose files when a job goes on with it, as
/// checkpoints are rotated: it replaces its copy if something in it is newer than all of the copy.
pub(super) fn compare(item: &Item, ours: &Manifest, archived: &Manifest) -> ItemComparison {
    let (ours, archived) = (by_path(ours), by_path(archived));
    let is_missing = |path: &PathBuf| !ours.contains_key(path);
    let lacks = archived.keys().any(is_missing);
    let differs = ours.iter().any(|(path, entry)| {
        let other = archived.get(path);
        other.is_none_or(|other| !entry.looks_like(other))
    });
    if !lacks && !differs {
        return ItemComparison::Same;
    }
    let is_newer = match (newest(&ours), newest(&archived)) {
        (Some(ours), Some(archived)) => ours.order(archived).is_gt(),
        (ours, _) => ours.is_some(),
    };
    let may_lack = matches!(item, Item::Partial(_));
    match differs && (may_lack || !lacks) && (is_newer || !lacks && only_adds(&ours, &archived)) {
        true => ItemComparison::Newer,
        false => ItemComparison::Less,
    }
}

/// The files and symlinks of a tree: directories hold nothing themselves.
fn by_path(manifest: &Manifest) -> HashMap<PathBuf, &Entry> {
    let entries = manifest.entries().iter().enumerate();
    let files = entries.filter(|(_, entry)| !matches!(entry.kind, Kind::Directory));
    files
        .map(|(index, entry)| (manifest.path(index), entry))
        .collect()
}

fn newest(files: &HashMap<PathBuf, &Entry>) -> Option<Time> {
    files.values().map(|entry| entry.mtime).max()
}

/// Whether all files of the copy are the same, so that the item only has more.
fn only_adds(ours: &HashMap<PathBuf, &Entry>, archived: &HashMap<PathBuf, &Entry>) -> bool {
    archived
        .iter()
        .all(|(path, entry)| ours.get(path).is_some_and(|own| own.looks_like(entry)))
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::time::{Duration, SystemTime};

    use super::super::RunName;
    use super::*;
    use crate::transfer::{Options, outline};
    use crate::workspace::partials::PartialId;

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
        outline(File::open(top.path()).unwrap(), &Options::default()).unwrap()
    }

    #[test]
    fn no_copy_is_replaced_by_less() {
        let run = Item::Run(RunName {
            experiment: "xp".into(),
            run: "1".into(),
        });
        let name = std::ffi::OsStr::new("t");
        let partial = Item::Partial(PartialId::new(name, name, name).unwrap());
        let archived = [("status.json", 9), ("jobs.jsonl", 9)];
        for (ours, of_run, of_partial) in [
            (&archived[..], ItemComparison::Same, ItemComparison::Same),
            (&archived[..1], ItemComparison::Less, ItemComparison::Less),
            (&[], ItemComparison::Less, ItemComparison::Less),
            (
                &[("status.json", 1), ("jobs.jsonl", 9)],
                ItemComparison::Newer,
                ItemComparison::Newer,
            ),
            (
                &[("status.json", 19), ("jobs.jsonl", 9)],
                ItemComparison::Less,
                ItemComparison::Less,
            ),
            (
                &[("status.json", 9), ("jobs.jsonl", 9), ("events/0", 20)],
                ItemComparison::Newer,
                ItemComparison::Newer,
            ),
            // A purge, and then a rewritten status; for a partial, a checkpoint that replaces another one.
            (
                &[("status.json", 1)],
                ItemComparison::Less,
                ItemComparison::Newer,
            ),
        ] {
            let (ours, archived) = (tree(ours), tree(&archived));
            assert_eq!(compare(&run, &ours, &archived), of_run, "{ours:?}");
            assert_eq!(compare(&partial, &ours, &archived), of_partial, "{ours:?}");
        }
    }
}
