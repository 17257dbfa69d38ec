//! Changing the flags of a live mount, for root: `remount,ro`, `remount,nosuid` and so on.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf, absolute};

use rustix::io::Errno;
use rustix::mount::MountFlags;

use super::{AttachError, expect_no_silent_mount, resolve};
use crate::daemon::mounts::{self, MountInfo};
use crate::daemon::options::{OptionError, RequestedOptions};
use crate::sys::shell_word::shell_word;

/// `MS_NOSYMFOLLOW`, which rustix has no name for.
const NO_SYMLINK_FOLLOW: MountFlags = MountFlags::from_bits_retain(1 << 8);

/// Why a mount stays as it is.
#[derive(Debug, thiserror::Error)]
pub enum RemountError {
    /// An ordinary user, or root without the right to mount.
    #[error(
        "only root (with CAP_SYS_ADMIN) can change the options of a mount: unmount it with `xpmfs umount {}`, and mount it again with the new ones", shell_word(.0)
    )]
    NotPermitted(PathBuf),
    /// No mount of ours there.
    #[error("{} has no xpmfs mount that could be changed: mount it without `remount`", .0.display())]
    NotMounted(PathBuf),
    /// Options that are not understood.
    #[error(transparent)]
    Options(#[from] OptionError),
    /// An option that is decided when mounting.
    #[error("`{option}` cannot be changed while {} is mounted: unmount it with `xpmfs umount {}`, and mount it again with `-o {option}`", .mountpoint.display(), shell_word(.mountpoint))]
    Fixed {
        /// Where.
        mountpoint: PathBuf,
        /// The option, as it was asked for.
        option: &'static str,
    },
    /// Files are open for writing.
    #[error("{} cannot be made read-only while files in it are open for writing: `fuser -vm {}` lists the processes that use it", .0.display(), shell_word(.0))]
    Busy(PathBuf),
    /// The daemon does not answer, or the table of mounts cannot be read.
    #[error(transparent)]
    Attach(#[from] AttachError),
    /// The kernel refused, or the path leads nowhere.
    #[error("cannot change the mount on {}: {source}", .mountpoint.display())]
    Other {
        /// Where.
        mountpoint: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Changes the flags of the mount at `mountpoint` to those that each of `given` (one `-o` each) asks for; what is not
/// named stays. `sloppy` leaves unknown options out.
///
/// # Errors
///
/// Why the mount stays as it is, and what to do.
pub fn remount(mountpoint: &Path, given: &[&OsStr], sloppy: bool) -> Result<(), RemountError> {
    let other = |mountpoint: &Path| {
        let mountpoint = mountpoint.to_owned();
        |source| RemountError::Other { mountpoint, source }
    };
    if !rustix::process::geteuid().is_root() {
        return Err(RemountError::NotPermitted(mountpoint.to_owned()));
    }
    expect_no_silent_mount(&absolute(mountpoint).map_err(other(mountpoint))?)?;
    let path = resolve(mountpoint).map_err(other(mountpoint))?;
    let mount = mounts::top_at(&path)
        .map_err(AttachError::Mounts)?
        .filter(MountInfo::is_xpmfs)
        .ok_or_else(|| RemountError::NotMounted(path.clone()))?;
    let present = RequestedOptions::of(&mount);
    let mut wanted = present.clone();
    for text in given {
        if sloppy {
            wanted.add_sloppily(text)?;
        } else {
            wanted.add_to(&mount, text)?;
        }
    }
    // A daemon of another user would decide what runs as root.
    if mount.owner() != Some(0) {
        wanted.suid = present.suid;
        wanted.dev = present.dev;
    }
    if let Some(option) = fixed(&present, &wanted) {
        return Err(RemountError::Fixed {
            mountpoint: path,
            option,
        });
    }
    rustix::mount::mount_remount(&path, flags(&mount, &wanted), c"").map_err(|errno| match errno {
        Errno::PERM => RemountError::NotPermitted(path.clone()),
        Errno::BUSY => RemountError::Busy(path.clone()),
        errno => other(&path)(errno.into()),
    })
}

/// The first option that differs and that the kernel and the daemon know from the start only.
fn fixed(present: &RequestedOptions, wanted: &RequestedOptions) -> Option<&'static str> {
    [
        (
            present.noatime != wanted.noatime,
            if wanted.noatime { "noatime" } else { "atime" },
        ),
        (present.allow_other != wanted.allow_other, "allow_other"),
        (
            present.default_permissions != wanted.default_permissions,
            "default_permissions",
        ),
    ]
    .into_iter()
    .find_map(|(differs, option)| differs.then_some(option))
}

/// Without a flag for times of access, the kernel keeps those of the mount.
fn flags(mount: &MountInfo, wanted: &RequestedOptions) -> MountFlags {
    let mut flags = MountFlags::empty();
    flags.set(MountFlags::RDONLY, wanted.read_only);
    flags.set(MountFlags::NODEV, !wanted.dev);
    flags.set(MountFlags::NOSUID, !wanted.suid);
    flags.set(MountFlags::NOEXEC, wanted.noexec);
    flags.set(NO_SYMLINK_FOLLOW, mount.has_option("nosymfollow"));
    flags
}
