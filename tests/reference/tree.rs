//! All that can be seen of a tree.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::{fs, io};

use rustix::buffer::spare_capacity;
use rustix::fs::{AtFlags, CWD};

use crate::world::{digest, shown};

/// One line for each path below `top`, in order; without what is below a path that `leave` names, and without
/// the path itself. What may not be looked at says so.
pub(crate) fn walk(top: &Path, leave: &dyn Fn(&Path) -> bool) -> Vec<String> {
    let mut lines = Vec::new();
    let mut pending = vec![PathBuf::new()];
    let mut first_names: HashMap<(u64, u64), PathBuf> = HashMap::new();
    while let Some(below) = pending.pop() {
        if leave(&below) {
            continue;
        }
        let path = top.join(&below);
        let stat = rustix::fs::statat(CWD, &path, AtFlags::SYMLINK_NOFOLLOW);
        let (stat, meta) = match (stat, fs::symlink_metadata(&path)) {
            (Ok(stat), Ok(meta)) => (stat, meta),
            (stat, meta) => {
                lines.push(format!("{below:?}: {:?} {:?}", stat.err(), meta.err()));
                continue;
            }
        };
        // How many directories are in these depends on where the jobs are.
        let of_union = ["", "jobs", "jobs/t.n"]
            .iter()
            .any(|one| below == Path::new(one));
        let mut line = match of_union {
            true => format!(
                "{below:?}: {:o} {}:{}",
                stat.st_mode, stat.st_uid, stat.st_gid
            ),
            false => format!("{below:?}: {}", shown(&stat, false)),
        };
        if meta.is_symlink() {
            line += &format!(" -> {:?}", fs::read_link(&path));
        } else {
            line += &attributes(&path);
        }
        if meta.is_dir() {
            match fs::read_dir(&path) {
                Ok(entries) => {
                    let name = |entry: io::Result<fs::DirEntry>| entry.unwrap().file_name();
                    let mut names: Vec<PathBuf> =
                        entries.map(|entry| below.join(name(entry))).collect();
                    names.sort();
                    names.reverse();
                    pending.extend(names);
                }
                Err(error) => line += &format!(" {error}"),
            }
        } else {
            let first = first_names
                .entry((meta.dev(), meta.ino()))
                .or_insert_with(|| below.clone());
            line += &format!(" same as {first:?}");
        }
        if meta.is_file() {
            match fs::read(&path) {
                Ok(bytes) => line += &format!(" {}", digest(&bytes)),
                Err(error) => line += &format!(" {error}"),
            }
        }
        lines.push(line);
    }
    lines
}

fn attributes(path: &Path) -> String {
    let mut names = Vec::with_capacity(64 * 1024);
    if rustix::fs::listxattr(path, spare_capacity(&mut names)).is_err() {
        return String::new();
    }
    let mut attributes: Vec<String> = names
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
        .map(|name| {
            let name = String::from_utf8_lossy(name);
            let mut value = Vec::with_capacity(64 * 1024);
            match rustix::fs::getxattr(path, &*name, spare_capacity(&mut value)) {
                Ok(_) => format!(" {name}={}", digest(&value)),
                Err(error) => format!(" {name}: {error}"),
            }
        })
        .collect();
    attributes.sort();
    attributes.concat()
}
