//! Walking a path one name at a time, and never into a mount of xpmfs.
//!
//! A path may lead back into a mount: into our own, or into one whose daemon walks into ours at the same moment. Left to the
//! kernel, such a walk waits for the very name that it is made for, and nothing but aborting the connection ends that. So the
//! path is walked name by name here. What a symlink in a workspace leads to in such a mount counts as leading nowhere
//! ([`resolves`]); the directory of a folder is opened beneath that mount ([`open_dir`]).

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags, StatxFlags};
use rustix::io::{Errno, Result};

use super::links;

/// The type of our mounts in `/proc/self/mountinfo`.
const OURS: &[u8] = b"fuse.xpmfs";

/// The kernel's own limit for the symlinks of one path.
const LINKS_MAX: usize = 40;

/// Nothing here opens what it looks at, so neither devices nor pipes matter.
const LOOK: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// What stands under a name.
enum Step {
    Link(OsString),
    /// A directory to go on from, or anything at the end of the path.
    Object(OwnedFd),
}

/// Whether `path`, seen from the directory `dir`, leads to anything, following symlinks, without
/// going through a mount of xpmfs.
pub(super) fn resolves(dir: impl AsFd, path: &OsStr) -> bool {
    let walked = walk(dir, path);
    if let Err(error) = &walked {
        tracing::trace!(?path, %error, "a symlink leads nowhere");
    }
    walked.is_ok()
}

/// Opens the directory that an absolute path leads to (`O_PATH`), following symlinks; with the path that leads there
/// without symlinks. Where the path enters a mount of xpmfs, `beneath` gives the directory to go on from.
///
/// # Errors
///
/// `ENOTDIR` for anything but a directory; what `beneath` and `openat` give.
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
/// `ELOOP` if it leads through a mount of xpmfs; what `openat` gives.
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

/// How often a path may lead into a mount of xpmfs.
const MOUNTS_MAX: usize = 8;

/// A walk, and where it stands.
struct Walk<'a> {
    here: OwnedFd,
    device: (u32, u32),
    /// Where it stands, if it began at `/` or has been there.
    path: PathBuf,
    /// Whether it has to end at a directory.
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
            if self.device != now && is_ours(now) {
                mounts += 1;
                if mounts > MOUNTS_MAX {
                    return Err(Errno::LOOP);
                }
                self.here = (self.beneath)(&self.here)?;
                self.device = device_of(&self.here)?;
                if is_ours(self.device) {
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

/// Looks at one name. At the end of the path anything will do, before it only a directory.
fn step(here: &OwnedFd, name: &OsStr, last: bool) -> Result<Step> {
    // As in the kernel's own walk, an automounter is woken for a directory to go through only.
    let flags = if last { LOOK } else { LOOK | OFlags::DIRECTORY };
    match rustix::fs::openat(here, name, flags, Mode::empty()) {
        Ok(fd) if !last => Ok(Step::Object(fd)),
        Ok(fd) => match links::read(&fd, OsStr::new("")) {
            Ok(target) => Ok(Step::Link(target)),
            // No symlink.
            Err(Errno::NOENT | Errno::INVAL) => Ok(Step::Object(fd)),
            Err(error) => Err(error),
        },
        Err(Errno::NOTDIR) if !last => match links::read(here, name) {
            Ok(target) => Ok(Step::Link(target)),
            Err(Errno::INVAL) => Err(Errno::NOTDIR),
            Err(error) => Err(error),
        },
        Err(error) => Err(error),
    }
}

/// The number of the mount that an open file or directory is in (`STATX_MNT_ID`), as `/proc/self/mountinfo` has it; 0 where
/// the kernel does not say. Asks no server.
pub(super) fn mount_of(fd: &OwnedFd) -> Result<(u64, (u32, u32))> {
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
    let stat = rustix::fs::statx(fd, "", flags, StatxFlags::MNT_ID)?;
    Ok((stat.stx_mnt_id, (stat.stx_dev_major, stat.stx_dev_minor)))
}

/// The number of the device that an object is on. Asks no server, not even that of a mount which
/// the object is the root of.
fn device_of(fd: &OwnedFd) -> Result<(u32, u32)> {
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
    let stat = rustix::fs::statx(fd, "", flags, StatxFlags::empty())?;
    Ok((stat.stx_dev_major, stat.stx_dev_minor))
}

/// Whether a device is a mount of xpmfs. One that cannot be told counts as one.
fn is_ours(device: (u32, u32)) -> bool {
    // Every FUSE mount has major number 0.
    device.0 == 0
        && std::fs::read("/proc/self/mountinfo").map_or(true, |table| is_ours_in(&table, device))
}

/// Whether a table of mounts (proc_pid_mountinfo(5)) has a device as a mount of xpmfs.
fn is_ours_in(table: &[u8], (major, minor): (u32, u32)) -> bool {
    let device = format!("{major}:{minor}");
    table.split(|byte| *byte == b'\n').any(|line| {
        let mut fields = line.split(|byte| *byte == b' ');
        fields.nth(2) == Some(device.as_bytes())
            && fields.by_ref().any(|field| field == b"-")
            && fields.next() == Some(OURS)
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
    fn our_mounts_are_known_by_their_device() {
        let table = b"30 1 0:5 / / rw - ext4 /dev/a rw\n\
            31 30 0:6 / /x\\040- rw shared:1 - fuse.xpmfs nlp rw\n\
            32 30 0:7 / /fuse.xpmfs rw - fuse.sshfs fuse.xpmfs rw\n";
        assert!(is_ours_in(table, (0, 6)));
        for other in [(0, 5), (0, 7), (0, 8), (31, 30)] {
            assert!(!is_ours_in(table, other), "{other:?}");
        }
    }
}
