//! The directory beneath a mount of another user, as the kernel has it: that user's daemon is not trusted.
//!
//! A daemon hands out a descriptor of its primary. Root would work there with root's rights, wherever the daemon's user has
//! opened it. So root looks by itself: in a private mount namespace without that mount.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags, StatxFlags};
use rustix::io::Errno;
use rustix::mount::{MountPropagationFlags, OpenTreeFlags, UnmountFlags};

use super::REPLY_TIMEOUT;
use super::control::{Client, ClientError};
use super::health::{self, MountHealth};
use super::mounts::{self, Device, MountInfo};
use crate::sys::at;
use crate::sys::calls::own_mount_namespace;
use crate::sys::deadline::within;
use crate::sys::file_id::FileId;
use crate::view::{Beneath, COVERED, MountId};

/// The directory beneath an xpmfs mount at `path` (absolute, without symlinks), from the daemon that serves it.
///
/// `None` when no xpmfs mount is there, so that the path itself leads to the directory.
///
/// # Errors
///
/// There is a mount, and its daemon does not reply, or is another user's and not believed.
pub fn beneath(path: &Path) -> Result<Option<OwnedFd>, ClientError> {
    let Some(mount) = mounts::top_at(path)
        .map_err(ClientError::Io)?
        .filter(MountInfo::is_xpmfs)
    else {
        return Ok(None);
    };
    beneath_mount(&mount).map(Some)
}

/// The directory beneath a mount in place: from its daemon, if that runs as this user; otherwise from the kernel, if the
/// daemon hands out the same directory.
///
/// # Errors
///
/// The daemon does not answer, is not believed, or hands out another directory.
fn beneath_mount(mount: &MountInfo) -> Result<OwnedFd, ClientError> {
    // It is asked in any case: from then on it expects others to change the directory.
    let ask = || {
        let connected = Client::connect(mount.device, mount.owner());
        connected.and_then(|mut client| client.primary())
    };
    let handed = match ask() {
        // A daemon listens shortly after it has mounted, and before it serves: the check waits for the latter.
        Err(ClientError::NoDaemon) if health::of(mount) != MountHealth::Dead => ask(),
        handed => handed,
    };
    let handed = handed.map_err(|error| error.of(mount))?;
    let Some(user) = mount.other_owner() else {
        return Ok(handed);
    };
    if !rustix::process::geteuid().is_root() {
        return Err(ClientError::NotBelieved { user });
    }
    let mountpoint = mount.mountpoint.clone();
    // Directories of other users are walked, which may be on file systems that do not answer.
    let opened = within(REPLY_TIMEOUT, move || {
        let fd = open_uncovered(&mountpoint)?;
        let identity = identity(&fd)?;
        Ok((fd, identity))
    });
    let (fd, there) = match opened {
        None => return Err(ClientError::Silent),
        Some(Err(error)) if is_denied(&error) => return Err(ClientError::NotBelieved { user }),
        Some(opened) => opened.map_err(ClientError::Io)?,
    };
    if identity(&handed).map_err(ClientError::Io)? != there {
        return Err(ClientError::OtherDirectory {
            user,
            mountpoint: mount.mountpoint.clone(),
        });
    }
    Ok(fd)
}

/// Opens folders that lie in mounts of xpmfs: beneath them, with the help of their daemons.
#[derive(Debug)]
pub struct Uncovered;

impl Beneath for Uncovered {
    fn open(&self, mount: MountId) -> rustix::io::Result<OwnedFd> {
        let mounts = mounts::xpmfs().map_err(|_| COVERED)?;
        let (major, minor) = mount.device;
        let mut candidates = mounts
            .into_iter()
            .filter(|found| found.device == Device { major, minor });
        let found = match mount.id {
            0 => candidates.next(),
            id => candidates.find(|found| found.id == id),
        };
        let found = found.ok_or(COVERED)?;
        if is_own(&found) {
            return Err(Errno::LOOP);
        }
        let root = beneath_mount(&found).map_err(|error| {
            tracing::debug!("{}: {error}", found.mountpoint.display());
            COVERED
        })?;
        // A bind mount may show a part only.
        let part: Vec<&OsStr> = found.root.iter().filter(|name| *name != "/").collect();
        match part.as_slice() {
            [] => Ok(root),
            names => at::open_dirs(&root, names.iter().copied()),
        }
    }
}

/// Whether this process serves a mount.
fn is_own(mount: &MountInfo) -> bool {
    let client = Client::connect(mount.device, mount.owner());
    client.is_ok_and(|client| client.pid() == i32::try_from(std::process::id()).ok())
}

fn is_denied(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::PermissionDenied
}

/// Opens the directory beneath the top-most mount at a path, with the mounts that lie in it. Changes the mount namespace of the
/// thread, which must end after it.
fn open_uncovered(mountpoint: &Path) -> io::Result<OwnedFd> {
    // With a root directory and a current directory of its own, which a mount namespace asks for.
    own_mount_namespace()?;
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", private)?;
    rustix::mount::unmount(mountpoint, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)?;
    let path: PathBuf = mountpoint.to_owned();
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = rustix::fs::openat2(
        CWD,
        &path,
        flags,
        Mode::empty(),
        ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS,
    )?;
    // A copy of the tree of mounts keeps those that lie in the directory when this namespace ends with the thread.
    let copy = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH
        | OpenTreeFlags::AT_RECURSIVE;
    Ok(rustix::mount::open_tree(&fd, "", copy)?)
}

/// Asks no server of a file system, which may be the other user's.
fn identity(fd: impl AsFd) -> io::Result<FileId> {
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
    let wanted = StatxFlags::INO | StatxFlags::BTIME;
    Ok(FileId::of(&rustix::fs::statx(fd, "", flags, wanted)?))
}
