//! The errors of mounting and unmounting, as sentences that say what to do.

use std::io;
use std::path::PathBuf;

use crate::sys::shell_word::shell_word;

/// What works where fusermount3 does not mount.
const RUN: &str = "`xpmfs run -- COMMAND` mounts without fusermount3, for that command alone";

/// Why nothing was mounted.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// There is no `/dev/fuse`.
    #[error(
        "there is no /dev/fuse: load the kernel's module with `modprobe fuse` as root; in a container, start it with `--device /dev/fuse --cap-add SYS_ADMIN`"
    )]
    NoDevice,
    /// The device of this user is closed.
    #[error(
        "/dev/fuse may not be opened by this user: ask the administrator for `chmod 666 /dev/fuse` (the usual mode), or for a group that may; in a container, start it with `--device /dev/fuse --cap-add SYS_ADMIN`"
    )]
    DeviceDenied,
    /// The device cannot be opened, for another reason.
    #[error("cannot open /dev/fuse: {0}")]
    Device(#[source] io::Error),
    /// Root, but not allowed to mount.
    #[error(
        "mounting is not permitted here although this is root (CAP_SYS_ADMIN is missing): in a container, start it with `--device /dev/fuse --cap-add SYS_ADMIN` (and, with AppArmor, `--security-opt apparmor:unconfined`)"
    )]
    NotPermitted,
    /// No `fusermount3`, no `fusermount`.
    #[error(
        "there is no fusermount3, which mounts for ordinary users: install it (`apt-get install fuse3`, `dnf install fuse3`), or mount as root; {RUN}", RUN = RUN
    )]
    NoHelper,
    /// The helper is there but has no rights.
    #[error(
        "{path} may not mount, as it is not set-user-id root: ask the administrator for `chown root {path} && chmod u+s {path}`, or to install the package fuse3 anew; {RUN}", path = .0.display(), RUN = RUN
    )]
    HelperNotSetuid(PathBuf),
    /// The helper is set-user-id, but this process tree has given such rights up.
    #[error(
        "fusermount3 gets no rights here, as set-user-id programs have no effect in this process (no_new_privs, as in many containers and sandboxes): mount outside of it, or as root; {RUN}", RUN = RUN
    )]
    NoNewPrivileges,
    /// The helper failed for another reason.
    #[error("fusermount3 could not mount: {0}; {RUN}", RUN = RUN)]
    Helper(String),
    /// `allow_other` is not granted.
    #[error(
        "the option allow_other is not permitted to ordinary users here: ask the administrator to put the line `user_allow_other` into /etc/fuse.conf, or leave the option out"
    )]
    AllowOther,
    /// The administrator's limit on mounts is reached.
    #[error(
        "too many FUSE file systems are mounted: unmount some (`xpmfs status` lists those of xpmfs), or ask the administrator to raise `mount_max` in /etc/fuse.conf or `fs.mount-max`"
    )]
    TooMany,
    /// `fusermount3` mounts only on directories that the user owns or may write to.
    #[error(
        "{} does not belong to you or you may not write to it, and fusermount3 then refuses to mount there: mount elsewhere (`xpmfs mount DIRECTORY`, an empty directory of yours), or as root; {RUN}", .0.display(), RUN = RUN
    )]
    NotYours(PathBuf),
    /// The kernel refuses the helper, though the mount point is the user's.
    #[error(
        "fusermount3 may not mount on {} ({words}): the directory is not yours, or AppArmor's profile of fusermount3 does not allow mount points there (`journalctl -k | grep apparmor` says so): mount elsewhere, for instance below your home, or ask the administrator to allow it in /etc/apparmor.d/local/fusermount3; {RUN}", .mountpoint.display(), RUN = RUN
    )]
    Denied {
        /// Where.
        mountpoint: PathBuf,
        /// What the helper wrote.
        words: String,
    },
    /// `fusermount3` mounts on some file systems only.
    #[error(
        "fusermount3 does not mount on the kind of file system that {} is on: mount elsewhere (`xpmfs mount DIRECTORY`, for instance below /tmp or your home), or as root; {RUN}", .0.display(), RUN = RUN
    )]
    ForbiddenFileSystem(PathBuf),
    /// The mount point is missing.
    #[error("the mount point {} does not exist: create it with `mkdir -p`, or give another one", .0.display())]
    Missing(PathBuf),
    /// The mount point is something else.
    #[error("the mount point {} is not a directory: give another one", .0.display())]
    NotADirectory(PathBuf),
    /// The mount point would hide what is in it.
    #[error(
        "the mount point {} is not empty, and the mount would hide what is in it: give an empty directory, or the workspace's own directory to mount in place", .0.display()
    )]
    NotEmpty(PathBuf),
    /// Mounted already.
    #[error("{} already has an xpmfs mount{}: to mount anew, first `xpmfs umount {}`; to join it, `xpmfs mount --shared`", .mountpoint.display(), process(.pid), shell_word(.mountpoint))]
    AlreadyMounted {
        /// Where.
        mountpoint: PathBuf,
        /// Who serves it, if known.
        pid: Option<i32>,
    },
    /// Mounted already, by another user.
    #[error("{} already has an xpmfs mount of the user `{user}`, which only that user and root may unmount: mount elsewhere (`xpmfs mount DIRECTORY`, an empty directory of yours)", .mountpoint.display())]
    AnotherUsers {
        /// Where.
        mountpoint: PathBuf,
        /// Whose it is.
        user: String,
    },
    /// Mounted already, but without an answer.
    #[error("{} has an xpmfs mount that does not answer{}: detach it with `xpmfs umount --lazy {}`, and look at its log", .mountpoint.display(), process(.pid), shell_word(.mountpoint))]
    Silent {
        /// Where.
        mountpoint: PathBuf,
        /// Who serves it, if known.
        pid: Option<i32>,
    },
    /// A dead FUSE mount of another program is there.
    #[error("{} has a dead mount of the type {fs_type}: remove it with `fusermount3 -u -z {}` or `umount -l {}`", .mountpoint.display(), shell_word(.mountpoint), shell_word(.mountpoint))]
    DeadForeign {
        /// Where.
        mountpoint: PathBuf,
        /// What is mounted there.
        fs_type: String,
    },
    /// A dead mount could not be cleared.
    #[error("{} has a dead mount that cannot be cleared: {source}", .mountpoint.display())]
    Clear {
        /// Where.
        mountpoint: PathBuf,
        /// Why.
        source: DetachError,
    },
    /// A path that leads nowhere, and other trouble with the mount point.
    #[error("cannot use the mount point {}: {source}", .mountpoint.display())]
    Mountpoint {
        /// Where.
        mountpoint: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The kernel refused.
    #[error("cannot mount on {}: {source}", .mountpoint.display())]
    Mount {
        /// Where.
        mountpoint: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The table of mounts cannot be read.
    #[error(transparent)]
    Mounts(io::Error),
}

/// Why a mount is still there.
#[derive(Debug, thiserror::Error)]
pub enum DetachError {
    /// Something uses it.
    #[error("{} is in use", .0.display())]
    Busy(PathBuf),
    /// Nothing is mounted there.
    #[error("nothing is mounted on {}", .0.display())]
    NotMounted(PathBuf),
    /// It belongs to another user.
    #[error("{} was mounted by another user: only that user and root may unmount it", .0.display())]
    NotYours(PathBuf),
    /// No helper to do it.
    #[error(
        "there is no fusermount3, which unmounts for ordinary users: install it (`apt-get install fuse3`), or unmount as root"
    )]
    NoHelper,
    /// `fusermount3 -u` looks its mounts up in `/etc/mtab`; umount(8) does not.
    #[error(
        "fusermount3 cannot unmount {path}, as /etc/mtab is missing here: run `umount {word}`, or ask the administrator for `ln -s /proc/self/mounts /etc/mtab`", path = .0.display(), word = shell_word(.0)
    )]
    NoMtab(PathBuf),
    /// Any other reason.
    #[error("cannot unmount {}: {reason}", .mountpoint.display())]
    Other {
        /// What.
        mountpoint: PathBuf,
        /// Why.
        reason: String,
    },
}

fn process(pid: &Option<i32>) -> String {
    pid.map_or_else(String::new, |pid| format!(" (served by process {pid})"))
}
