//! One of the two places, and doing things in it.

use std::hash::{DefaultHasher, Hasher};
use std::os::fd::OwnedFd;
use std::path;
use std::sync::Arc;

use rustix::fs::{Mode, OFlags, Stat};
use rustix::io::Result;
use rustix::process::{Gid, Uid};

use crate::common::ORDINARY;
use crate::operation::{Operation, SLOTS};
use crate::thread::Mapping;

/// Who does things in turn: user, group, further groups. Root first.
pub(crate) const USERS: [(u32, u32, &[u32]); 4] = [
    (0, 0, &[]),
    (65534, 65534, &[]),
    (12, 12, &[65534]),
    (65534, 12, &[0]),
];

/// A mapping, and the file that it is of.
#[derive(Debug)]
pub(crate) struct Mapped {
    pub(crate) mapping: Mapping,
    pub(crate) file: Arc<OwnedFd>,
    pub(crate) write: bool,
}

/// A tree, and what is open in it.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) root: OwnedFd,
    pub(crate) files: [Option<Arc<OwnedFd>>; SLOTS],
    pub(crate) directories: [Option<OwnedFd>; SLOTS],
    pub(crate) mappings: [Option<Mapped>; SLOTS],
}

impl World {
    pub(crate) fn new(root: &path::Path) -> World {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        World {
            root: rustix::fs::open(root, flags, Mode::empty()).unwrap(),
            files: Default::default(),
            directories: Default::default(),
            mappings: Default::default(),
        }
    }

    /// Does something, and tells what is to be seen of it.
    pub(crate) fn perform(&mut self, operation: &Operation) -> Result<String> {
        match operation {
            Operation::Umask(_) | Operation::Become(_) => Ok(String::new()),
            _ => match self.with_open_files(operation) {
                Some(result) => result,
                None => self.by_name(operation),
            },
        }
    }
}

/// Becomes one of the users, with this thread alone.
pub(crate) fn become_user(index: usize) {
    let (uid, gid, groups) = USERS[index];
    let set_user = |uid| rustix::thread::set_thread_res_uid(None, Some(Uid::from_raw(uid)), None);
    set_user(0).unwrap();
    let groups: Vec<Gid> = groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
    rustix::thread::set_thread_groups(&groups).unwrap();
    rustix::thread::set_thread_res_gid(None, Some(Gid::from_raw(gid)), None).unwrap();
    set_user(uid).unwrap();
}

/// Becomes an ordinary user, with this thread alone, for good.
pub(crate) fn become_ordinary() {
    let (uid, gid) = (Uid::from_raw(ORDINARY), Gid::from_raw(ORDINARY));
    rustix::thread::set_thread_groups(&[]).unwrap();
    rustix::thread::set_thread_res_gid(Some(gid), Some(gid), Some(gid)).unwrap();
    rustix::thread::set_thread_res_uid(Some(uid), Some(uid), Some(uid)).unwrap();
}

/// What can be seen of attributes. Times only where they have been set to something past.
pub(crate) fn shown(stat: &Stat, access: bool) -> String {
    let kind = stat.st_mode & libc::S_IFMT;
    let size = match kind {
        libc::S_IFDIR => 0,
        _ => stat.st_size,
    };
    let mut shown = format!(
        "{:o} links {} owner {}:{} size {size} device {:x} mtime {}",
        stat.st_mode,
        stat.st_nlink,
        stat.st_uid,
        stat.st_gid,
        stat.st_rdev,
        match kind {
            // The kernel itself reads and writes pipes and devices, and does not tell of it.
            libc::S_IFIFO | libc::S_IFCHR => "of its own".to_owned(),
            _ => time(stat.st_mtime, stat.st_mtime_nsec),
        }
    );
    if access && kind != libc::S_IFIFO && kind != libc::S_IFCHR {
        shown += &format!(" atime {}", time(stat.st_atime, stat.st_atime_nsec));
    }
    shown
}

fn time(seconds: i64, nanoseconds: u64) -> String {
    // No operation sets a time after this.
    if seconds > 1_500_000_000 {
        return "lately".to_owned();
    }
    format!("{seconds}.{nanoseconds:09}")
}

/// The bytes that are written: never the same at two places near each other.
pub(crate) fn pattern(length: usize, byte: u8) -> Vec<u8> {
    (0..length)
        .map(|at| byte.wrapping_add((at % 251) as u8))
        .collect()
}

/// Stands for bytes.
pub(crate) fn digest(bytes: &[u8]) -> String {
    let mut hasher = DefaultHasher::new();
    hasher.write(bytes);
    format!("{} bytes {:x}", bytes.len(), hasher.finish())
}
