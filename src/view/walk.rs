//! Walks a path one name at a time, and never into a mount of xpmfs.
//!
//! A path may lead into the mount of this process, or into a mount whose daemon walks into this one at the same time. In the
//! kernel, such a walk waits for the name that it resolves, and only aborting the connection ends that. So the path is
//! walked here. A symlink in a workspace that leads into such a mount counts as dangling ([`resolves`]); the directory of a
//! folder is opened beneath that mount ([`open_dir`]).

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags, StatxFlags};
use rustix::io::{Errno, Result};

use crate::sys::at;

/// The type of xpmfs mounts in `/proc/self/mountinfo`.
const XPMFS_TYPE: &[u8] = b"fuse.xpmfs";

/// The kernel's own limit for the symlinks of one path.
const LINKS_MAX: usize = 40;

/// Without opening: devices and fifos do no harm.
const LOOK: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// The entry of a name.
enum Step {
    Link(OsString),
    /// A directory on the way, or any entry at the end of the path.
    Object(OwnedFd),
}

/// Whether `path`, relative to the directory `dir`, leads to an entry, following symlinks, and not through a mount of xpmfs.
pub(super) fn resolves(dir: impl AsFd, path: &OsStr) -> bool {
    let walked = walk(dir, path);
    if let Err(error) = &walked {
        tracing::trace!(?path, %error, "a symlink leads nowhere");
    }
    walked.is_ok()
}

/// Opens the directory that an absolute path leads to (`O_PATH`), following symlinks; with the path that leads there
/// without symlinks. Where the path enters a mount of xpmfs, `beneath` returns the directory to go on from.
///
/// # Errors
///
/// `ENOTDIR` for anything but a directory; errors of `beneath` and `openat`.
pub(super) fn open_dir(
    path: &Path,
    beneath: &mut dyn FnMut(&OwnedFd) -> Result<OwnedFd>,
) -> Result<(OwnedFd, PathBuf)> {
    let mut walk = Walk::new(root()?, true, beneath)?;
    walk.go(path.as_os_str())?;
    Ok((walk.here, walk.path))
}

/// Opens the directory that a path leads to from `dir`, unless it leads through a mount of xpmfs.
///
/// # Errors
///
/// `ELOOP` if it leads through a mount of xpmfs; errors of `openat`.
pub(super) fn open_dir_from(dir: impl AsFd, path: &OsStr) -> Result<OwnedFd> {
    let mut refuse = |_: &OwnedFd| Err(Errno::LOOP);
    let here = rustix::io::fcntl_dupfd_cloexec(dir, 0)?;
    let mut walk = Walk::new(here, true, &mut refuse)?;
    walk.go(path)?;
    Ok(walk.here)
}

fn walk(dir: impl AsFd, path: &OsStr) -> Result<()> {
    let mut refuse = |_: &OwnedFd| Err(Errno::LOOP);
    let here = rustix::io::fcntl_dupfd_cloexec(dir, 0)?;
    Walk::new(here, false, &mut refuse)?.go(path)
}

fn root() -> Result<OwnedFd> {
    let root = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open("/", root, Mode::empty())
}

/// How often one path may lead into a mount of xpmfs.
const MOUNTS_MAX: usize = 8;

/// A walk, and its current directory.
struct Walk<'a> {
    here: OwnedFd,
    device: (u32, u32),
    /// The path of `here`, if the walk began at `/` or has been there.
    path: PathBuf,
    /// Whether it must end at a directory.
    directory: bool,
    beneath: &'a mut dyn FnMut(&OwnedFd) -> Result<OwnedFd>,
}

impl<'a> Walk<'a> {
    fn new(
        here: OwnedFd,
        directory: bool,
        beneath: &'a mut dyn FnMut(&OwnedFd) -> Result<OwnedFd>,
    ) -> Result<Walk<'a>> {
        Ok(Walk {
            device: device_of(&here)?,
            here,
            path: PathBuf::from("/"),
            directory,
            beneath,
        })
    }

    fn go(&mut self, path: &OsStr) -> Result<()> {
        // The names that are still to be walked, the next one last.
        let mut rest = names(path);
        let (mut links, mut mounts) = (0, 0);
        while let Some(name) = rest.pop() {
            let last = rest.is_empty() && !self.directory;
            match step(&self.here, &name, last)? {
                Step::Object(fd) => {
                    self.here = fd;
                    match name.as_bytes() {
                        b".." => drop(self.path.pop()),
                        _ => self.path.push(&name),
                    }
                }
                Step::Link(_) if links == LINKS_MAX => return Err(Errno::LOOP),
                Step::Link(target) => {
                    links += 1;
                    if target.as_bytes().starts_with(b"/") {
                        self.here = root()?;
                        self.path = PathBuf::from("/");
                    }
                    rest.extend(names(&target));
                }
            }
            let now = device_of(&self.here)?;
            if self.device != now && is_xpmfs(now) {
                mounts += 1;
                if mounts > MOUNTS_MAX {
                    return Err(Errno::LOOP);
                }
                self.here = (self.beneath)(&self.here)?;
                self.device = device_of(&self.here)?;
                if is_xpmfs(self.device) {
                    return Err(Errno::LOOP);
                }
            } else {
                self.device = now;
            }
        }
        Ok(())
    }
}

/// The names of a path, the first one last.
fn names(path: &OsStr) -> Vec<OsString> {
    path.as_bytes()
        .split(|byte| *byte == b'/')
        .filter(|name| !name.is_empty() && *name != b".")
        .map(|name| OsString::from_vec(name.to_vec()))
        .rev()
        .collect()
}

/// Looks up one name: at the end of the path any entry, before only a directory.
fn step(here: &OwnedFd, name: &OsStr, last: bool) -> Result<Step> {
    // As in the kernel's own walk, only a directory on the way triggers an automount.
    let flags = if last { LOOK } else { LOOK | OFlags::DIRECTORY };
    match rustix::fs::openat(here, name, flags, Mode::empty()) {
        Ok(fd) if !last => Ok(Step::Object(fd)),
        Ok(fd) => match at::read_link(&fd, OsStr::new("")) {
            Ok(target) => Ok(Step::Link(target)),
            // Not a symlink.
            Err(Errno::NOENT | Errno::INVAL) => Ok(Step::Object(fd)),
            Err(error) => Err(error),
        },
        Err(Errno::NOTDIR) if !last => match at::read_link(here, name) {
            Ok(target) => Ok(Step::Link(target)),
            Err(Errno::INVAL) => Err(Errno::NOTDIR),
            Err(error) => Err(error),
        },
        Err(error) => Err(error),
    }
}

/// The number of the mount that an open file or directory is in (`STATX_MNT_ID`), as `/proc/self/mountinfo` has it; 0 if
/// unknown. Asks no server.
pub(super) fn mount_of(fd: &OwnedFd) -> Result<(u64, (u32, u32))> {
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
    let stat = rustix::fs::statx(fd, "", flags, StatxFlags::MNT_ID)?;
    Ok((stat.stx_mnt_id, (stat.stx_dev_major, stat.stx_dev_minor)))
}

/// The device number of an entry. Asks no server, not even that of a mount whose root the entry is.
fn device_of(fd: &OwnedFd) -> Result<(u32, u32)> {
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
    let stat = rustix::fs::statx(fd, "", flags, StatxFlags::empty())?;
    Ok((stat.stx_dev_major, stat.stx_dev_minor))
}

/// Whether a device is a mount of xpmfs; if unknown, it counts as one.
fn is_xpmfs(device: (u32, u32)) -> bool {
    // Every FUSE mount has major number 0.
    device.0 == 0
        && std::fs::read("/proc/self/mountinfo").map_or(true, |table| is_xpmfs_in(&table, device))
}

/// Whether a table of mounts (proc_pid_mountinfo(5)) has this device as a mount of xpmfs.
fn is_xpmfs_in(table: &[u8], (major, minor): (u32, u32)) -> bool {
    let device = format!("{major}:{minor}");
    table.split(|byte| *byte == b'\n').any(|line| {
        let mut fields = line.split(|byte| *byte == b' ');
        fields.nth(2) == Some(device.as_bytes())
            && fields.by_ref().any(|field| field == b"-")
            && fields.next() == Some(XPMFS_TYPE)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, File};
    use std::os::unix::fs::symlink;

    #[test]
    fn symlinks_are_followed_to_their_end() {
        let top = tempfile::tempdir().unwrap();
        let path = |name: &str| top.path().join(name);
        fs::create_dir_all(path("a/b")).unwrap();
        fs::write(path("a/b/file"), "").unwrap();
        symlink(path("a"), path("absolute")).unwrap();
        symlink("../a/./b//", path("a/relative")).unwrap();
        symlink("absolute/relative/../b/file", path("chain")).unwrap();
        symlink("gone", path("dangling")).unwrap();
        symlink("a/b/file/x", path("through-a-file")).unwrap();
        symlink("loop", path("loop")).unwrap();
        let dir = File::open(top.path()).unwrap();
        let resolves = |name: &str| resolves(&dir, OsStr::new(name));
        for name in ["a", "absolute", "absolute/relative/file", "chain"] {
            assert!(resolves(name), "{name}");
        }
        for name in ["gone", "dangling", "through-a-file", "loop", "chain/x"] {
            assert!(!resolves(name), "{name}");
        }
    }

    #[test]
    fn xpmfs_mounts_are_recognized_by_their_device() {
        let table = b"30 1 0:5 / / rw - ext4 /dev/a rw\n\
            31 30 0:6 / /x\\040- rw shared:1 - fuse.xpmfs nlp rw\n\
            32 30 0:7 / /fuse.xpmfs rw - fuse.sshfs fuse.xpmfs rw\n";
        assert!(is_xpmfs_in(table, (0, 6)));
        for other in [(0, 5), (0, 7), (0, 8), (31, 30)] {
            assert!(!is_xpmfs_in(table, other), "{other:?}");
        }
    }
}
