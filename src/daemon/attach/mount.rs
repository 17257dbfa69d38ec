//! Mounts: with `mount(2)`, which requires `CAP_SYS_ADMIN` in the user namespace of the mounts, or through `fusermount3`.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::MountFlags;

use super::error::AttachError;
use super::{Attachment, fusermount};
use crate::daemon::mounts::FS_TYPE;
use crate::sys::namespaces::may_mount;

/// Mounts, and returns the `/dev/fuse` descriptor from which the kernel's requests are read.
///
/// Root mounts with `mount(2)`, also the root of a user namespace, and so does who may mount in a namespace of `xpmfs run`; other users, and a root without `CAP_SYS_ADMIN`, through
/// `fusermount3`. Until the descriptor is served, every use of the mount point waits; when it is closed, the mount is dead
/// but stays.
///
/// # Errors
///
/// [`AttachError`]; nothing is mounted then.
pub fn attach(attachment: &Attachment) -> Result<OwnedFd, AttachError> {
    let device = open_device()?;
    let mounts_itself = attachment.private && may_mount();
    if !rustix::process::geteuid().is_root() && !mounts_itself {
        return fusermount::attach(attachment);
    }
    match by_syscall(attachment, device) {
        Err(AttachError::NotPermitted) => {
            fusermount::attach(attachment).map_err(|error| match error {
                // The privilege is missing, not the helper.
                AttachError::NoHelper | AttachError::Helper(_) => AttachError::NotPermitted,
                other => other,
            })
        }
        attached => attached,
    }
}

/// Opens `/dev/fuse`; `fusermount3` needs it too, and opens it with the caller's rights.
fn open_device() -> Result<OwnedFd, AttachError> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    rustix::fs::open("/dev/fuse", flags, Mode::empty()).map_err(|errno| match errno {
        rustix::io::Errno::NOENT | rustix::io::Errno::NODEV | rustix::io::Errno::NXIO => {
            AttachError::NoDevice
        }
        rustix::io::Errno::ACCESS | rustix::io::Errno::PERM => AttachError::DeviceDenied,
        other => AttachError::Device(io::Error::from(other)),
    })
}

/// Mounts `device` (an open `/dev/fuse`) and returns it.
///
/// # Errors
///
/// [`AttachError::NotPermitted`] if `mount(2)` requires rights that this process lacks; otherwise the reason.
fn by_syscall(attachment: &Attachment, device: OwnedFd) -> Result<OwnedFd, AttachError> {
    let failed = |source: io::Error| AttachError::Mount {
        mountpoint: attachment.mountpoint.clone(),
        source,
    };
    let data =
        CString::new(data(attachment, device.as_raw_fd())).map_err(|error| failed(error.into()))?;
    rustix::mount::mount(
        &*attachment.source,
        &*attachment.mountpoint,
        FS_TYPE,
        flags(attachment),
        data.as_c_str(),
    )
    .map_err(|errno| match errno {
        Errno::PERM => AttachError::NotPermitted,
        Errno::NODEV => AttachError::NoDevice,
        Errno::NOENT => AttachError::Missing(attachment.mountpoint.clone()),
        Errno::NOTDIR => AttachError::NotADirectory(attachment.mountpoint.clone()),
        // More mounts than `fs.mount-max` allows in one namespace.
        Errno::NOSPC => AttachError::TooMany,
        other => failed(other.into()),
    })?;
    Ok(device)
}

/// The kernel's own options (Documentation/filesystems/fuse): the ids as this user namespace sees them.
fn data(attachment: &Attachment, fd: i32) -> String {
    let user = rustix::process::geteuid().as_raw();
    let group = rustix::process::getegid().as_raw();
    let mut data = format!("fd={fd},rootmode=40000,user_id={user},group_id={group}");
    if attachment.allow_other {
        data.push_str(",allow_other");
    }
    if attachment.default_permissions {
        data.push_str(",default_permissions");
    }
    if let Some(max_read) = attachment.max_read {
        data.push_str(&format!(",max_read={max_read}"));
    }
    data
}

fn flags(attachment: &Attachment) -> MountFlags {
    let mut flags = MountFlags::empty();
    flags.set(MountFlags::RDONLY, attachment.read_only);
    flags.set(MountFlags::NODEV, !attachment.dev);
    flags.set(MountFlags::NOSUID, !attachment.suid);
    flags.set(MountFlags::NOEXEC, !attachment.exec);
    flags.set(MountFlags::NOATIME, !attachment.atime);
    flags
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_become_flags_and_data() {
        let mut attachment = Attachment::new("/m", "nlp");
        assert_eq!(flags(&attachment), MountFlags::NODEV | MountFlags::NOSUID);
        assert!(data(&attachment, 7).starts_with("fd=7,rootmode=40000,user_id="));
        attachment.read_only = true;
        attachment.exec = false;
        attachment.atime = false;
        attachment.dev = true;
        attachment.suid = true;
        attachment.allow_other = true;
        attachment.default_permissions = true;
        attachment.max_read = Some(131_072);
        assert_eq!(
            flags(&attachment),
            MountFlags::RDONLY | MountFlags::NOEXEC | MountFlags::NOATIME
        );
        let data = data(&attachment, 7);
        assert!(data.ends_with(",allow_other,default_permissions,max_read=131072"));
    }
}
