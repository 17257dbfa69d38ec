//! Gives a process mounts of its own, which no other process sees but its children.

use std::fs;
use std::io;
use std::sync::LazyLock;

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

/// The numbers that the kernel shows in place of a user and a group that this process's user namespace lacks, and this process's own.
static HIDDEN: LazyLock<[Option<Hidden>; 2]> = LazyLock::new(|| {
    [
        Hidden::find("uid", geteuid().as_raw()),
        Hidden::find("gid", getegid().as_raw()),
    ]
});

struct Hidden {
    shown_as: u32,
    own: u32,
}

impl Hidden {
    fn find(kind: &str, own: u32) -> Option<Hidden> {
        let map = fs::read_to_string(format!("/proc/self/{kind}_map")).ok()?;
        let number = fs::read_to_string(format!("/proc/sys/kernel/overflow{kind}")).ok()?;
        let shown_as = number.trim().parse().ok()?;
        (!has_number(&map, shown_as)).then_some(Hidden { shown_as, own })
    }

    fn or_own(hidden: Option<&Hidden>, number: u32) -> u32 {
        match hidden {
            Some(hidden) if hidden.shown_as == number => hidden.own,
            _ => number,
        }
    }
}

/// Whether a map of a user namespace has a number: each line has the first inside, the first outside, and how many.
fn has_number(map: &str, number: u32) -> bool {
    map.lines().any(|line| {
        let mut words = line.split_whitespace();
        let mut next = || words.next()?.parse::<u32>().ok();
        let (Some(first), Some(_), Some(count)) = (next(), next(), next()) else {
            return false;
        };
        number.checked_sub(first).is_some_and(|at| at < count)
    })
}

/// A user as `stat` returns it, or this process's own if the user namespace lacks the file's.
#[must_use]
pub fn known_user(user: u32) -> u32 {
    Hidden::or_own(HIDDEN[0].as_ref(), user)
}

/// A group as `stat` returns it, or this process's own if the user namespace lacks the file's.
#[must_use]
pub fn known_group(group: u32) -> u32 {
    Hidden::or_own(HIDDEN[1].as_ref(), group)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_a_namespace_are_those_of_its_map() {
        assert!(has_number("         0          0 4294967295\n", 65534));
        assert!(!has_number("      1000       1000          1\n", 65534));
        assert!(has_number("0 100000 65536\n70000 70000 1\n", 65534));
        assert!(!has_number("0 100000 65534\n", 65534));
        assert!(!has_number("", 0));
    }

    #[test]
    fn number_that_is_hidden_becomes_its_own() {
        let hidden = Hidden {
            shown_as: 65534,
            own: 1000,
        };
        assert_eq!(Hidden::or_own(Some(&hidden), 65534), 1000);
        assert_eq!(Hidden::or_own(Some(&hidden), 1001), 1001);
        assert_eq!(Hidden::or_own(None, 65534), 65534);
    }
}
