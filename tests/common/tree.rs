//! A tree with every attribute that a copy must keep, for comparing.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs::{self, File};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::SeekFrom;

/// One entry, as it is on the disk.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    mode: u32,
    owner: (u32, u32),
    mtime: (i64, i64),
    size: u64,
    content: Option<Vec<u8>>,
    target: Option<Vec<u8>>,
    /// Where there is data.
    extents: Vec<(u64, u64)>,
    attributes: BTreeMap<Vec<u8>, Vec<u8>>,
    /// The first path of the same file.
    same: PathBuf,
}

impl Entry {
    /// The size of a file, in bytes.
    #[allow(dead_code)]
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// What it holds, in short: no attributes.
    #[allow(dead_code)]
    pub(crate) fn hold(&self) -> String {
        let content = self.content.as_deref().map(blake3::hash);
        format!("{content:?} {:?}", self.target)
    }
}

/// All below a directory, and itself, by relative path.
pub(crate) fn tree(top: &Path) -> BTreeMap<PathBuf, Entry> {
    let mut entries = BTreeMap::new();
    let mut waiting = vec![top.to_owned()];
    let mut paths = Vec::new();
    while let Some(path) = waiting.pop() {
        if fs::symlink_metadata(&path).unwrap().is_dir() {
            waiting.extend(
                fs::read_dir(&path)
                    .unwrap()
                    .map(|entry| entry.unwrap().path()),
            );
        }
        paths.push(path);
    }
    paths.sort();
    let mut first = BTreeMap::new();
    for path in paths {
        let relative = path.strip_prefix(top).unwrap().to_owned();
        let meta = fs::symlink_metadata(&path).unwrap();
        let kind = meta.file_type();
        let file = kind.is_file().then(|| File::open(&path).unwrap());
        let identity = (meta.dev(), meta.ino());
        let same = first
            .entry(identity)
            .or_insert_with(|| relative.clone())
            .clone();
        entries.insert(
            relative,
            Entry {
                mode: meta.mode(),
                owner: (meta.uid(), meta.gid()),
                mtime: (meta.mtime(), meta.mtime_nsec()),
                // A directory's size is the disk's affair.
                size: if kind.is_dir() { 0 } else { meta.size() },
                content: file.is_some().then(|| fs::read(&path).unwrap()),
                target: kind
                    .is_symlink()
                    .then(|| fs::read_link(&path).unwrap().into_os_string().into_vec()),
                extents: file
                    .map(|file| extents(&file, meta.size()))
                    .unwrap_or_default(),
                attributes: attributes(&path),
                same,
            },
        );
    }
    entries
}

/// Asserts that two trees are the same in everything, and says of one entry in what they are not.
pub(crate) fn assert_same(expected: &Path, found: &Path) {
    let (expected, found) = (tree(expected), tree(found));
    let paths = |tree: &BTreeMap<PathBuf, Entry>| tree.keys().cloned().collect::<Vec<_>>();
    assert_eq!(paths(&expected), paths(&found));
    for (path, entry) in &expected {
        let other = &found[path];
        assert_eq!(
            entry.content.as_deref().map(blake3::hash),
            other.content.as_deref().map(blake3::hash),
            "content of {path:?}"
        );
        let brief = |entry: &Entry| Entry {
            content: None,
            same: entry.same.clone(),
            target: entry.target.clone(),
            extents: entry.extents.clone(),
            attributes: entry.attributes.clone(),
            ..*entry
        };
        assert_eq!(brief(entry), brief(other), "{path:?}");
    }
}

fn extents(file: &File, size: u64) -> Vec<(u64, u64)> {
    let mut extents = Vec::new();
    let mut offset = 0;
    while offset < size {
        let Ok(data) = rustix::fs::seek(file, SeekFrom::Data(offset)) else {
            break;
        };
        let hole = rustix::fs::seek(file, SeekFrom::Hole(data)).unwrap();
        extents.push((data, hole));
        offset = hole;
    }
    extents
}

fn attributes(path: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut names = vec![0; 65536];
    let length = rustix::fs::llistxattr(path, &mut *names).unwrap();
    let names = names[..length].split(|byte| *byte == 0);
    names
        .filter(|name| !name.is_empty())
        .map(|name| {
            let mut value = vec![0; 65536];
            let c_name = CString::new(name).unwrap();
            let length = rustix::fs::lgetxattr(path, &*c_name, &mut *value).unwrap();
            value.truncate(length);
            (name.to_vec(), value)
        })
        .collect()
}

/// A path as bytes, for names that are not text.
pub(crate) fn bytes(bytes: &[u8]) -> &std::ffi::OsStr {
    std::ffi::OsStr::from_bytes(bytes)
}
