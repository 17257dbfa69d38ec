//! Gives a process mounts of its own, which no other process sees but its children.

use std::fs;
use std::io;

use rustix::io::Errno;
use rustix::mount::{MountPropagationFlags, mount_change};
use rustix::process::{getegid, geteuid};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set,
    configure_capability_in_ambient_set, set_capabilities,
};

use super::calls::{own_mount_namespace, own_user_namespace};

/// Enters a mount namespace of this process's own; without the right to do so, in a user namespace of its own. This process must have
/// one thread. Mounts that are made outside later appear in it; mounts that are made in it appear in it alone.
///
/// In a user namespace, this user and group are the only ones: the files of others seem to belong to `nobody`.
///
/// # Errors
///
/// `EPERM`, `EACCES` or `ENOSPC` if the machine lets this user do neither; `EINVAL` if there are several threads.
pub fn enter() -> io::Result<()> {
    match own_mount_namespace() {
        Err(Errno::PERM) => {
            let (user, group) = (geteuid().as_raw(), getegid().as_raw());
            own_user_namespace()?;
            // Without this, an ordinary user may not map a group.
            fs::write("/proc/self/setgroups", "deny")?;
            fs::write("/proc/self/uid_map", format!("{user} {user} 1"))?;
            fs::write("/proc/self/gid_map", format!("{group} {group} 1"))?;
            // With more capabilities than it passes on to the daemon, this process would be hidden from the daemon, which looks for
            // processes that use the namespace.
            let mount = CapabilitySet::SYS_ADMIN;
            let sets = CapabilitySets {
                effective: mount,
                permitted: mount,
                inheritable: CapabilitySet::empty(),
            };
            set_capabilities(None, sets)?;
        }
        entered => entered?,
    }
    let propagation = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
    Ok(mount_change("/", propagation)?)
}

/// Whether this process is in a user namespace in which some users are unknown: all these seem to be `nobody`.
#[must_use]
pub fn hides_users() -> bool {
    known_users().is_some_and(|count| count < u32::MAX)
}

/// Whether this process is in a user namespace of one user, as [`enter`] makes it for a user who is not root.
#[must_use]
pub fn is_of_one_user() -> bool {
    known_users() == Some(1)
}

/// How many users this process's user namespace knows.
fn known_users() -> Option<u32> {
    let map = fs::read_to_string("/proc/self/uid_map").ok()?;
    // Each line has the first number inside, the first outside, and how many.
    let mut counts = map
        .lines()
        .map(|line| line.split_whitespace().nth(2)?.parse().ok());
    counts.try_fold(0_u32, |sum, count: Option<u32>| {
        Some(sum.saturating_add(count?))
    })
}

/// Whether this process may mount.
#[must_use]
pub fn may_mount() -> bool {
    capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::SYS_ADMIN))
}

/// Lets the programs that this process executes mount as it does, or no longer. Only for a user who is not root.
///
/// # Errors
///
/// This process may not mount.
pub fn let_programs_mount(mount: bool) -> io::Result<()> {
    if geteuid().is_root() {
        return Ok(());
    }
    let mut sets = capabilities(None)?;
    sets.inheritable.set(CapabilitySet::SYS_ADMIN, mount);
    if !mount {
        clear_ambient_capability_set()?;
    }
    set_capabilities(None, sets)?;
    if mount {
        configure_capability_in_ambient_set(CapabilitySet::SYS_ADMIN, true)?;
    }
    Ok(())
}

/// The mount namespace of a process, as the kernel names it; `None` for a process that has ended, or that this user may not look into.
#[must_use]
pub fn mounts_of(pid: i32) -> Option<std::ffi::OsString> {
    let name = fs::read_link(format!("/proc/{pid}/ns/mnt")).ok()?;
    Some(name.into())
}
