//! The numbers of locations, which the next process may assign anew: the settings may list other folders then.
//!
//! 1. A log says which folder has which number ([`Record::Folders`](super::record::Record::Folders)), so that it means the same in
//!    whatever process reads it.
//! 2. If the folders are others now, their numbers in the image are replaced, and the image is written to a new log, which takes the
//!    place of the old one in one step ([`Mount::renumber`]).
//! 3. A node of a folder that is gone is stale: the kernel looks its path up again. Files of it that are open are opened once more by
//!    their paths beneath the folder, and kept by the supervisor.

use std::ffi::OsString;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{Mode, OFlags};

use super::image::Image;
use super::recent_nodes::Recent;
use super::record::OpenedRecord;
use super::recorder::{Keeper, KeptFile};
use crate::mount::Mount;
use crate::mount::tables::node::{Node, NodeRole, REMOVED};
use crate::mount::tables::nodes::INTERNAL;
use crate::sys::at;
use crate::sys::deadline::within;
use crate::sys::file_id::FileId;
use crate::sys::memory_log::MemoryLog;
use crate::sys::shared_words::SharedWords;
use crate::view::PRIMARY;
use crate::workspace::layout::JOBS;

/// How long it may take to open the files of folders that are gone.
const OPEN_TIMEOUT: Duration = Duration::from_secs(2);

/// The most names on the way from a job to a file in it.
const DEPTH_MAX: usize = 256;

/// From the numbers of before to those of now.
struct Numbers {
    /// By the number of before, less one.
    now: Vec<u8>,
    /// Whether the folders that are left have the same order.
    ordered: bool,
}

impl Numbers {
    fn new(before: &[Vec<u8>], now: &[Vec<u8>]) -> Numbers {
        let number = |path: &Vec<u8>| {
            let at = now.iter().position(|it| it == path);
            at.and_then(|at| u8::try_from(at + 1).ok())
                .unwrap_or(REMOVED)
        };
        let now: Vec<u8> = before.iter().map(number).collect();
        let left: Vec<u8> = now.iter().copied().filter(|it| *it != REMOVED).collect();
        Numbers {
            ordered: left.is_sorted(),
            now,
        }
    }

    fn of(&self, before: u8) -> u8 {
        match before {
            PRIMARY | INTERNAL => before,
            number => {
                let now = self.now.get(usize::from(number) - 1);
                now.copied().unwrap_or(REMOVED)
            }
        }
    }

    /// Of a position in a listing: a listing that cannot be continued begins again.
    fn of_position(&self, before: u8) -> u8 {
        match self.ordered {
            true => self.of(before),
            false => REMOVED,
        }
    }
}

impl Mount {
    /// The paths of the folders, in the order of their numbers.
    pub(super) fn folder_paths(&self) -> Vec<Vec<u8>> {
        let folders = self.view.folders().iter();
        let path = folders.map(|folder| folder.path().as_os_str().as_bytes().to_vec());
        path.collect()
    }

    /// Makes the image, and what else is left, one of the folders that this process has. Returns the new log, which `keeper` has
    /// already. Adds to `files` those that are open in folders that are gone.
    pub(super) fn renumber(
        &self,
        image: &mut Image,
        files: &mut Vec<(KeptFile, OwnedFd)>,
        recent: &mut OwnedFd,
        keeper: &dyn Keeper,
    ) -> std::io::Result<MemoryLog> {
        let folders = self.folder_paths();
        let numbers = Numbers::new(&image.folders, &folders);
        for (handle, file) in reopen(image, &numbers) {
            let key = KeptFile::Open(handle);
            if files.iter().all(|(known, _)| *known != key) {
                keeper.keep_file(key, file.as_fd());
                files.push((key, file));
            }
        }
        for node in image.nodes.values_mut().flatten() {
            node.location = numbers.of(node.location);
        }
        for (_, positions) in image.positions.values_mut() {
            for (at, (location, offset)) in (0_u64..).zip(positions) {
                let now = numbers.of_position(*location);
                if now == REMOVED {
                    // Positions of one table differ from each other.
                    *offset = at;
                }
                *location = now;
            }
        }
        image.folders = folders;
        let mut log = MemoryLog::new()?;
        image.write(&mut log)?;
        // Empty until the log is kept: if this process is killed meanwhile, its numbers are not those of the old log.
        let words = SharedWords::new()?;
        keeper.keep_recent(words.fd())?;
        let copy = rustix::io::fcntl_dupfd_cloexec(words.fd(), 0)?;
        let before = SharedWords::open(std::mem::replace(recent, copy));
        keeper.keep_log(log.fd())?;
        let now = Recent::default();
        now.start(words);
        for (id, mut node) in Recent::default().inherit(before)? {
            node.location = numbers.of(node.location);
            now.note(id, &node);
        }
        Ok(log)
    }
}

/// Opens the files that are open in folders that are gone.
fn reopen(image: &Image, numbers: &Numbers) -> Vec<(u64, OwnedFd)> {
    let mut wanted = Vec::new();
    for (handle, record) in &image.opened {
        let Some(node) = image.nodes.get(&record.node).and_then(|names| names.last()) else {
            continue;
        };
        if numbers.of(node.location) == REMOVED
            && let Some(paths) = paths(image, node)
        {
            wanted.push((*handle, *record, paths));
        }
    }
    if wanted.is_empty() {
        return Vec::new();
    }
    let opened = within(OPEN_TIMEOUT, move || {
        let each = wanted.iter().filter_map(|(handle, record, paths)| {
            let mut files = paths.iter().filter_map(|path| open(path, record));
            Some((*handle, files.next()?))
        });
        each.collect::<Vec<_>>()
    });
    opened.unwrap_or_default()
}

/// The possible paths of a file in a folder of before: the folder may be a directory of jobs itself.
fn paths(image: &Image, node: &Node) -> Option<[PathBuf; 2]> {
    let folder = image
        .folders
        .get(usize::from(node.location).checked_sub(1)?)?;
    let mut names = vec![&*node.name];
    let mut above = node;
    while above.role != NodeRole::Task {
        above = image.nodes.get(&above.parent)?.last()?;
        names.push(&*above.name);
        if names.len() > DEPTH_MAX {
            return None;
        }
    }
    let below: PathBuf = names.iter().rev().collect();
    let folder = PathBuf::from(OsString::from_vec(folder.clone()));
    Some([folder.join(JOBS).join(&below), folder.join(&below)])
}

fn open(path: &Path, record: &OpenedRecord) -> Option<OwnedFd> {
    let access = match (record.readable, record.writable) {
        (true, true) => OFlags::RDWR,
        (false, true) => OFlags::WRONLY,
        _ => OFlags::RDONLY,
    };
    let flags = access | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = rustix::fs::open(path, flags, Mode::empty()).ok()?;
    let stat = at::stat_fd(&file).ok()?;
    (FileId::of(&stat) == FileId::from(record.identity)).then_some(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(before: &[&str], now: &[&str]) -> Numbers {
        let bytes = |paths: &[&str]| -> Vec<Vec<u8>> {
            paths.iter().map(|path| path.as_bytes().to_vec()).collect()
        };
        Numbers::new(&bytes(before), &bytes(now))
    }

    #[test]
    fn a_folder_keeps_its_nodes_under_another_number() {
        let added = numbers(&["/a", "/b"], &["/new", "/a", "/b"]);
        assert_eq!(
            [0, 1, 2, INTERNAL].map(|it| added.of(it)),
            [0, 2, 3, INTERNAL]
        );
        assert_eq!([0, 1, 2].map(|it| added.of_position(it)), [0, 2, 3]);
        let removed = numbers(&["/a", "/b"], &["/b"]);
        assert_eq!(
            [0, 1, 2, 9].map(|it| removed.of(it)),
            [0, REMOVED, 1, REMOVED]
        );
        let turned = numbers(&["/a", "/b"], &["/b", "/a"]);
        assert_eq!([0, 1, 2].map(|it| turned.of(it)), [0, 2, 1]);
        assert_eq!([0, 1, 2].map(|it| turned.of_position(it)), [REMOVED; 3]);
    }
}
