//! Reads and sets a file's owner, mode, times, extended attributes and access control lists.
//!
//! `access`: the mode of a copy that lacks its original's group or list; `compare`: the attributes of a copy and its original;
//! `loss`: those that a copy could not keep

mod access;
mod compare;
pub(super) mod loss;

pub use compare::first_difference;

pub use loss::{Loss, Lost};

use std::ffi::{CStr, CString, OsStr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, Statx, Timespec, Timestamps, UTIME_NOW, Uid, XattrFlags,
};
use rustix::io::Errno;

use crate::transfer::error::{Context, Failure};

use crate::sys::at;
use crate::transfer::manifest::Time;
use crate::transfer::stamp;

const ACCESS_LIST: &CStr = c"system.posix_acl_access";
const DEFAULT_LIST: &CStr = c"system.posix_acl_default";

const SET_ID: u32 = 0o6000;

/// The longest list of names, and the longest value, that Linux permits.
const LONGEST: usize = 64 << 10;

/// The attributes of a file that are set on its copy.
pub(super) struct Attributes {
    mode: u32,
    /// The bits of the mode that make a program run with its owner's or group's rights.
    set_id: u32,
    owner: (u32, u32),
    times: Timestamps,
    extended: Vec<(CString, Vec<u8>)>,
    /// Names of attributes that matter but cannot be copied, because they belong to the disk or were refused.
    left: Vec<CString>,
}

impl Attributes {
    /// Without extended attributes.
    fn plain(stat: &Statx) -> Attributes {
        let timespec = |stamp: rustix::fs::StatxTimestamp| Timespec {
            tv_sec: stamp.tv_sec,
            tv_nsec: stamp.tv_nsec.into(),
        };
        Attributes {
            mode: u32::from(stat.stx_mode) & 0o7777,
            set_id: match stamp::kind(stat) {
                FileType::Directory => 0,
                _ => SET_ID,
            },
            owner: (stat.stx_uid, stat.stx_gid),
            times: Timestamps {
                last_access: timespec(stat.stx_atime),
                last_modification: timespec(stat.stx_mtime),
            },
            extended: Vec::new(),
            left: Vec::new(),
        }
    }

    /// Reads the attributes of an open file or directory of the source.
    pub(super) fn read(fd: impl AsFd, stat: &Statx) -> Result<Attributes, Failure> {
        Attributes::read_of(Subject::Open(fd.as_fd()), stat)
    }

    /// Reads the attributes of a symlink or a fifo of the source, which is not opened.
    pub(super) fn read_at(
        dir: impl AsFd,
        name: &OsStr,
        stat: &Statx,
    ) -> Result<Attributes, Failure> {
        Attributes::read_of(Subject::Named(&named(&dir, name)), stat)
    }

    fn read_of(subject: Subject<'_>, stat: &Statx) -> Result<Attributes, Failure> {
        let mut attributes = Attributes::plain(stat);
        let mut short = [0; 512];
        let long;
        let names = match subject.list(&mut short) {
            Ok(length) => short.get(..length).unwrap_or_default(),
            Err(Errno::RANGE) => {
                let mut all = vec![0; LONGEST];
                let length = subject.list(&mut all).source(LIST)?;
                all.truncate(length);
                long = all;
                &long
            }
            Err(Errno::OPNOTSUPP) => return Ok(attributes),
            // The entry is gone, which the check at the end detects; or `/proc` is missing, and the names are unknown.
            Err(Errno::NOENT) if subject.is_named() => return Ok(attributes),
            Err(errno) => return Err(errno).source(LIST),
        };
        for name in names.split(|byte| *byte == 0) {
            let Ok(name) = CString::new(name) else {
                continue;
            };
            match treatment(name.as_bytes()) {
                Treatment::Ignore => {}
                Treatment::Lose => attributes.left.push(name),
                Treatment::Copy => match subject.value(&name) {
                    Ok(value) => attributes.extended.push((name, value)),
                    // Removed since it was listed: the check of `ctime` at the end detects that.
                    Err(Errno::NODATA) => {}
                    Err(Errno::PERM | Errno::ACCESS | Errno::OPNOTSUPP) => {
                        attributes.left.push(name);
                    }
                    Err(errno) => return Err(errno).source("read an extended attribute of"),
                },
            }
        }
        Ok(attributes)
    }

    /// Whether another file has the same attributes. Ignores times, and the owner where the caller cannot change
    /// owners.
    pub(super) fn are_those_of(&self, other: &Attributes) -> bool {
        let sorted = |attributes: &Attributes| {
            let mut extended = attributes.extended.clone();
            extended.sort_unstable();
            extended
        };
        let owners = !rustix::process::geteuid().is_root() || self.owner == other.owner;
        owners && self.mode == other.mode && sorted(self) == sorted(other)
    }

    /// The time of the last change of the content.
    pub(super) fn mtime(&self) -> Time {
        let time = self.times.last_modification;
        Time {
            seconds: time.tv_sec,
            nanoseconds: u32::try_from(time.tv_nsec).unwrap_or(0),
        }
    }

    /// Sets the time of access to now, and the time of change to `mtime`.
    pub(super) fn set_times(&mut self, mtime: Time) {
        self.times = Timestamps {
            last_access: Timespec {
                tv_sec: 0,
                tv_nsec: UTIME_NOW,
            },
            last_modification: Timespec {
                tv_sec: mtime.seconds,
                tv_nsec: mtime.nanoseconds.into(),
            },
        };
    }

    /// The mode to create a file with, often the final one, which saves a `chmod`. Other users cannot run the file with
    /// set-id rights before it has its owner, because these bits are set later; they cannot read it either, because the
    /// directories of the copy are private to the caller until they are complete.
    pub(super) fn mode_at_first(&self) -> Mode {
        match self.mode & SET_ID {
            0 => Mode::from_raw_mode(self.mode) | Mode::RUSR | Mode::WUSR,
            _ => Mode::RUSR | Mode::WUSR,
        }
    }

    /// Sets all attributes on an open file or directory of the copy, the times last. Returns the mode of the copy, and
    /// reports to `lose` each attribute that could not be kept. The order matters: changing the owner drops set-id bits
    /// and capabilities, and an access control list changes the mode.
    pub(super) fn apply(
        &self,
        created: &OnceLock<(u32, u32)>,
        fd: impl AsFd,
        mut lose: impl FnMut(Lost),
    ) -> Result<u32, Failure> {
        let mut mode = self.mode;
        let kept = self.apply_owner(
            created,
            || at::stat_fd(&fd),
            |user, group| rustix::fs::fchown(&fd, user, group),
        )?;
        if kept.report(&mut lose) {
            mode &= !self.set_id;
        }
        let original = self.access_list();
        let listed = self.apply_extended(Subject::Open(fd.as_fd()), kept, &mut lose)?;
        mode = access::mode(mode, original, kept.group, listed);
        let now = at::stat_fd(&fd).copy("look at")?.stx_mode;
        let now = u32::from(now) & 0o7777;
        if now != mode {
            match rustix::fs::fchmod(&fd, Mode::from_raw_mode(mode)) {
                // vfat, and mounts of other systems' disks, have one mode for all files.
                Err(Errno::PERM | Errno::OPNOTSUPP) => {
                    lose(Lost::Mode);
                    mode = now;
                }
                set => set.copy("set the mode of")?,
            }
        }
        rustix::fs::futimens(&fd, &self.times).copy("set the times of")?;
        Ok(mode)
    }

    /// The access control list of the original, if present.
    fn access_list(&self) -> Option<&[u8]> {
        let mut extended = self.extended.iter();
        let list = extended.find(|(name, _)| **name == *ACCESS_LIST);
        list.map(|(_, value)| &**value)
    }

    /// Returns whether an access control list was set.
    fn apply_extended(
        &self,
        subject: Subject<'_>,
        kept: Kept,
        lose: &mut impl FnMut(Lost),
    ) -> Result<bool, Failure> {
        let mut listed = false;
        for (attribute, value) in &self.extended {
            let is_list = **attribute == *ACCESS_LIST;
            let value = match is_list && !kept.group {
                true => &access::list(value, self.mode),
                false => value,
            };
            match subject.set(attribute, value) {
                Ok(()) => listed |= is_list,
                Err(Errno::PERM | Errno::ACCESS | Errno::OPNOTSUPP) => lose(lost(attribute)),
                Err(errno) => return Err(errno).copy("set an extended attribute of"),
            }
        }
        for attribute in &self.left {
            lose(lost(attribute));
        }
        Ok(listed)
    }

    /// Sets all attributes on a symlink of the copy but the mode, which a symlink lacks.
    pub(super) fn apply_to_link(
        &self,
        created: &OnceLock<(u32, u32)>,
        dir: impl AsFd,
        name: &OsStr,
        mut lose: impl FnMut(Lost),
    ) -> Result<(), Failure> {
        let itself = AtFlags::SYMLINK_NOFOLLOW;
        let kept = self.apply_owner(
            created,
            || at::stat_at(&dir, name),
            |user, group| rustix::fs::chownat(&dir, name, user, group, itself),
        )?;
        kept.report(&mut lose);
        self.apply_extended(Subject::Named(&named(&dir, name)), kept, &mut lose)?;
        match rustix::fs::utimensat(&dir, name, &self.times, itself) {
            // Some of FUSE, and CIFS, cannot.
            Err(Errno::PERM | Errno::OPNOTSUPP | Errno::NOSYS) => lose(Lost::LinkTimes),
            set => set.copy("set the times of")?,
        }
        Ok(())
    }

    /// Sets the owner of a new entry, unless it is right already. `created`, the owner of new entries, is queried once, for the
    /// first entry, and is the same for all, because all directories inherit from one parent.
    fn apply_owner(
        &self,
        created: &OnceLock<(u32, u32)>,
        stat: impl FnOnce() -> rustix::io::Result<Statx>,
        chown: impl Fn(Option<Uid>, Option<Gid>) -> rustix::io::Result<()>,
    ) -> Result<Kept, Failure> {
        let owner = match created.get() {
            Some(owner) => *owner,
            None => {
                let stat = stat().copy("look at")?;
                *created.get_or_init(|| (stat.stx_uid, stat.stx_gid))
            }
        };
        if owner == self.owner {
            return Ok(Kept::ALL);
        }
        let (user, group) = (Uid::from_raw(self.owner.0), Gid::from_raw(self.owner.1));
        match chown(Some(user), Some(group)) {
            Ok(()) => Ok(Kept::ALL),
            Err(Errno::PERM | Errno::INVAL | Errno::OPNOTSUPP) => {
                // The caller may set a group that it is a member of.
                let given = owner.1 == self.owner.1 || chown(None, Some(group)).is_ok();
                Ok(Kept {
                    user: owner.0 == self.owner.0,
                    group: given,
                })
            }
            Err(errno) => Err(errno).copy("set the owner of"),
        }
    }
}

/// Whether a copy has its original's user and group.
#[derive(Debug, Clone, Copy)]
struct Kept {
    user: bool,
    group: bool,
}

impl Kept {
    const ALL: Kept = Kept {
        user: true,
        group: true,
    };

    /// Reports to `lose` which of the two was not kept; returns whether any was not.
    fn report(self, lose: &mut impl FnMut(Lost)) -> bool {
        if !self.user {
            lose(Lost::Owner);
        }
        if !self.group {
            lose(Lost::Group);
        }
        !self.user || !self.group
    }
}

const LIST: &str = "list the extended attributes of";

/// Removes the inherited access control lists from the top of a copy, so that new entries in the copy do not inherit
/// them.
pub(super) fn shed_inherited(fd: impl AsFd) -> Result<(), Failure> {
    for list in [DEFAULT_LIST, ACCESS_LIST] {
        if let Err(Errno::NODATA | Errno::OPNOTSUPP) = Subject::Open(fd.as_fd()).value(list) {
            continue;
        }
        rustix::fs::fremovexattr(&fd, list).copy("remove the inherited access control list of")?;
    }
    Ok(())
}

enum Treatment {
    Copy,
    /// The attribute describes how the disk stores the file, and has no meaning elsewhere.
    Ignore,
    /// The attribute matters, and cannot be copied.
    Lose,
}

fn treatment(name: &[u8]) -> Treatment {
    let starts = |prefix: &str| name.starts_with(prefix.as_bytes());
    if name == ACCESS_LIST.to_bytes() || name == DEFAULT_LIST.to_bytes() {
        Treatment::Copy
    } else if starts("trusted.overlay.") || starts("security.evm") || starts("security.ima") {
        Treatment::Ignore
    } else if starts("user.") || starts("trusted.") || starts("security.") {
        Treatment::Copy
    } else if starts("system.") {
        Treatment::Lose
    } else {
        Treatment::Ignore
    }
}

/// An entry that has extended attributes.
#[derive(Clone, Copy)]
enum Subject<'a> {
    Open(BorrowedFd<'a>),
    /// A path ([`named`]) whose last name is not followed.
    Named(&'a Path),
}

/// The path of an entry that cannot be opened for its attributes. Only the descriptor in the path is followed.
fn named(dir: impl AsFd, name: &OsStr) -> PathBuf {
    let fd = dir.as_fd().as_raw_fd();
    PathBuf::from(format!("/proc/self/fd/{fd}")).join(name)
}

impl Subject<'_> {
    fn is_named(&self) -> bool {
        matches!(self, Subject::Named(_))
    }

    fn list(&self, names: &mut [u8]) -> rustix::io::Result<usize> {
        match self {
            Subject::Open(fd) => rustix::fs::flistxattr(fd, names),
            Subject::Named(path) => rustix::fs::llistxattr(*path, names),
        }
    }

    fn get(&self, name: &CStr, value: &mut [u8]) -> rustix::io::Result<usize> {
        match self {
            Subject::Open(fd) => rustix::fs::fgetxattr(fd, name, value),
            Subject::Named(path) => rustix::fs::lgetxattr(*path, name, value),
        }
    }

    fn set(&self, name: &CStr, value: &[u8]) -> rustix::io::Result<()> {
        let flags = XattrFlags::empty();
        match self {
            Subject::Open(fd) => rustix::fs::fsetxattr(fd, name, value, flags),
            Subject::Named(path) => rustix::fs::lsetxattr(*path, name, value, flags),
        }
    }

    fn value(&self, name: &CStr) -> rustix::io::Result<Vec<u8>> {
        let mut short = [0; 256];
        match self.get(name, &mut short) {
            Ok(length) => Ok(short.get(..length).unwrap_or_default().to_vec()),
            Err(Errno::RANGE) => {
                let mut long = vec![0; LONGEST];
                let length = self.get(name, &mut long)?;
                long.truncate(length);
                Ok(long)
            }
            Err(errno) => Err(errno),
        }
    }
}

fn lost(attribute: &CString) -> Lost {
    Lost::Attribute(attribute.to_string_lossy().into_owned())
}
