//! What must not change in a tree.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use super::workspace::{FOLDERS, Workspace};

/// Everything about a tree that must not change: for each path its kind, mode, owner, times but for that of access (a
/// changed extended attribute shows there), number of links, target and contents.
pub fn snapshot(top: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    let mut pending = vec![top.to_owned()];
    while let Some(path) = pending.pop() {
        let meta = fs::symlink_metadata(&path).unwrap();
        let mut line = format!(
            "{:?} {:o} {}:{} {} {}.{} {}.{} {}",
            path.strip_prefix(top).unwrap(),
            meta.mode(),
            meta.uid(),
            meta.gid(),
            meta.nlink(),
            meta.mtime(),
            meta.mtime_nsec(),
            meta.ctime(),
            meta.ctime_nsec(),
            meta.ino(),
        );
        if meta.is_symlink() {
            line += &format!(" -> {:?}", fs::read_link(&path).unwrap());
        } else if meta.is_dir() {
            let entries = fs::read_dir(&path).unwrap();
            pending.extend(entries.map(|entry| entry.unwrap().path()));
        } else if meta.is_file() {
            line += &format!(" {:?}", OsString::from_vec(fs::read(&path).unwrap()));
        }
        lines.push(line);
    }
    lines.sort();
    lines
}

/// The folders of a workspace, as they were.
pub struct Folders<'a> {
    workspace: &'a Workspace,
    before: [Vec<String>; 3],
}

impl<'a> Folders<'a> {
    pub fn of(workspace: &'a Workspace) -> Folders<'a> {
        Folders {
            workspace,
            before: FOLDERS.map(|folder| snapshot(&workspace.folder(folder))),
        }
    }

    pub fn assert_unchanged(&self) {
        for (folder, before) in FOLDERS.iter().zip(&self.before) {
            assert_unchanged(&self.workspace.folder(folder), before);
        }
    }
}

/// Asserts that a tree is as it was when the snapshot was taken; what is not is said, in short.
pub fn assert_unchanged(top: &Path, before: &[String]) {
    let after = snapshot(top);
    let short = |line: &String| line.chars().take(300).collect::<String>();
    let missing = |of: &[String], other: &[String]| -> Vec<String> {
        of.iter()
            .filter(|line| !other.contains(line))
            .map(short)
            .collect()
    };
    let (gone, come) = (missing(before, &after), missing(&after, before));
    assert!(
        gone.is_empty() && come.is_empty(),
        "{} has changed: was {gone:#?}\nis {come:#?}",
        top.display()
    );
}
