//! Whether a symlink that points out of the workspace leads to anything.
//!
//! That can only be found out by following it, and it may lead back into a mount: into our own, or
//! into one whose daemon follows a symlink into ours at the same moment. Left to the kernel, such a
//! walk waits for the very name that it is made for, and nothing but breaking the mount off ends
//! that. So the path is walked one name at a time here, and never into a mount of xpmfs: what
//! leads there counts as leading nowhere.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

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

fn walk(dir: impl AsFd, path: &OsStr) -> Result<()> {
    let mut here = rustix::io::fcntl_dupfd_cloexec(dir, 0)?;
    let mut device = Some(device_of(&here)?);
    // The names that are still to be walked, the next one last.
    let mut rest = names(path);
    let mut links = 0;
    while let Some(name) = rest.pop() {
        match step(&here, &name, rest.is_empty())? {
            Step::Object(fd) => here = fd,
            Step::Link(_) if links == LINKS_MAX => return Err(Errno::LOOP),
            Step::Link(target) => {
                links += 1;
                if target.as_bytes().starts_with(b"/") {
                    let root = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
                    here = rustix::fs::open("/", root, Mode::empty())?;
                }
                rest.extend(names(&target));
            }
        }
        let now = device_of(&here)?;
        if device.replace(now) != Some(now) && is_ours(now) {
            return Err(Errno::LOOP);
        }
    }
    Ok(())
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
