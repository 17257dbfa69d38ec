//! Applies the caller's umask, ownership and rights to requests.

use std::cell::Cell;

use rustix::fs::{Access, AtFlags, Mode, Statx};
use rustix::io::{Errno, Result};
use rustix::process::{Gid, Uid, getegid, geteuid};
use rustix::thread::{CapabilitySet, CapabilitySets};

use crate::mount::Mount;
use crate::sys::{at, calls};

thread_local! {
    /// The umask of this thread, once the thread has its own.
    static UMASK: Cell<Option<u32>> = const { Cell::new(None) };
}

/// Sets the umask of this thread. The disk applies it, or a directory's default ACL in its place, as for the caller.
pub(super) fn set_umask(umask: u32) -> Result<()> {
    let current = UMASK.get();
    if current == Some(umask) {
        return Ok(());
    }
    if current.is_none() {
        calls::own_umask()?;
    }
    rustix::process::umask(Mode::from_raw_mode(umask));
    UMASK.set(Some(umask));
    Ok(())
}

/// The process that sends a request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Caller {
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// The calling thread; 0 if it is in a foreign process namespace.
    pub(super) tid: u32,
    /// Set for requests that create an entry.
    pub(super) umask: u32,
}

impl Caller {
    /// Returns the caller unless it is root, which keeps set-id bits of the files that it changes.
    pub(super) fn unprivileged(&self) -> Option<&Caller> {
        (self.uid != 0).then_some(self)
    }

    /// Returns the supplementary groups.
    fn groups(&self) -> Vec<Gid> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.tid));
        groups(&status.unwrap_or_default())
    }
}

fn groups(status: &str) -> Vec<Gid> {
    let line = status.lines().find_map(|line| line.strip_prefix("Groups:"));
    let numbers = line.unwrap_or_default().split_whitespace();
    numbers
        .filter_map(|number| Some(Gid::from_raw(number.parse().ok()?)))
        .collect()
}

/// The caller's identity, assumed by this thread until it is dropped.
#[derive(Debug)]
pub(super) struct AssumedIdentity {
    gid: Gid,
    groups: Option<Vec<Gid>>,
    capabilities: CapabilitySets,
}

impl Mount {
    /// Makes new files of this thread belong to the caller. Needed only where the daemon is root and other users may
    /// send requests; the kernel has checked their rights then, so the daemon keeps its rights.
    pub(super) fn assume(&self, caller: &Caller) -> Result<Option<AssumedIdentity>> {
        self.assume_keeping(caller, CapabilitySet::empty())
    }

    /// The same for a rename that leaves a whiteout, a device, under the old name. The kernel has checked that the caller
    /// may rename in a sticky directory; before Linux 5.8 also that the caller may create devices.
    pub(super) fn assume_for_whiteout(&self, caller: &Caller) -> Result<Option<AssumedIdentity>> {
        self.assume_keeping(caller, CapabilitySet::FOWNER | CapabilitySet::MKNOD)
    }

    fn assume_keeping(
        &self,
        caller: &Caller,
        more: CapabilitySet,
    ) -> Result<Option<AssumedIdentity>> {
        if !geteuid().is_root() {
            return Ok(None);
        }
        let gid = getegid();
        if (caller.uid, caller.gid) == (0, gid.as_raw()) {
            return Ok(None);
        }
        let identity = AssumedIdentity {
            gid,
            groups: None,
            capabilities: rustix::thread::capabilities(None)?,
        };
        identity.assume_ids(caller)?;
        // A change of the effective user has dropped all capabilities from the effective set.
        let keep = CapabilitySet::DAC_OVERRIDE | CapabilitySet::DAC_READ_SEARCH | more;
        let kept = CapabilitySets {
            effective: identity.capabilities.effective & keep,
            ..identity.capabilities
        };
        rustix::thread::set_capabilities(None, kept)?;
        Ok(Some(identity))
    }

    /// Checks that the caller may work in the workspace: write in the primary's own directory.
    ///
    /// The kernel cannot decide whether a user may create internal files in a job that a folder serves: they are
    /// created elsewhere than the kernel assumes.
    pub(super) fn check_write_access(&self, caller: &Caller) -> Result<()> {
        let Some(_rights) = self.rights_of(caller)? else {
            return Ok(());
        };
        let root = self.primary_dir()?;
        let wanted = Access::WRITE_OK | Access::EXEC_OK;
        rustix::fs::accessat(&root, ".", wanted, AtFlags::EACCESS)
    }

    /// Limits this thread to the caller's rights. Returns `None` if the daemon has no others.
    ///
    /// Fails with `EACCES` if the daemon cannot assume the caller's rights.
    pub(super) fn rights_of(&self, caller: &Caller) -> Result<Option<AssumedIdentity>> {
        if !self.options.allow_other || caller.uid == geteuid().as_raw() {
            return Ok(None);
        }
        if !geteuid().is_root() {
            return Err(Errno::ACCESS);
        }
        let identity = AssumedIdentity {
            gid: getegid(),
            groups: Some(rustix::process::getgroups()?),
            capabilities: rustix::thread::capabilities(None)?,
        };
        rustix::thread::set_thread_groups(&caller.groups())?;
        // A change of the effective user drops all capabilities.
        identity.assume_ids(caller)?;
        Ok(Some(identity))
    }
}

/// States that this thread may not keep set-id bits of a file that it writes, until it is dropped.
#[derive(Debug)]
pub(super) struct WithoutFsetid {
    capabilities: CapabilitySets,
}

impl Mount {
    /// Makes the disk clear all set-id bits of files that this thread writes. Needed only where the daemon is root.
    pub(super) fn clearing_set_id(&self) -> Result<Option<WithoutFsetid>> {
        if !geteuid().is_root() {
            return Ok(None);
        }
        let capabilities = rustix::thread::capabilities(None)?;
        let fewer = CapabilitySets {
            effective: capabilities.effective - CapabilitySet::FSETID,
            ..capabilities
        };
        rustix::thread::set_capabilities(None, fewer)?;
        Ok(Some(WithoutFsetid { capabilities }))
    }

    /// Makes the disk clear the set-id bits of the file described by this `stat`, if the disk would for the caller. The
    /// disk keeps set-group-ID without group execute for members of the file's group, so the caller's groups count.
    pub(super) fn clearing_set_id_for(
        &self,
        caller: &Caller,
        stat: &Statx,
    ) -> Result<Option<AssumedIdentity>> {
        if stat.stx_mode & at::SET_ID == 0 || !geteuid().is_root() {
            return Ok(None);
        }
        let capabilities = rustix::thread::capabilities(None)?;
        let identity = AssumedIdentity {
            gid: getegid(),
            groups: Some(rustix::process::getgroups()?),
            capabilities,
        };
        rustix::thread::set_thread_groups(&caller.groups())?;
        rustix::thread::set_thread_res_gid(None, Some(Gid::from_raw(caller.gid)), None)?;
        let fewer = CapabilitySets {
            effective: capabilities.effective - CapabilitySet::FSETID,
            ..capabilities
        };
        rustix::thread::set_capabilities(None, fewer)?;
        Ok(Some(identity))
    }
}

impl Drop for WithoutFsetid {
    fn drop(&mut self) {
        if let Err(error) = rustix::thread::set_capabilities(None, self.capabilities) {
            // Clearing bits too often does no harm.
            tracing::error!(%error, "cannot restore a capability");
        }
    }
}

impl AssumedIdentity {
    fn assume_ids(&self, caller: &Caller) -> Result<()> {
        rustix::thread::set_thread_res_gid(None, Some(Gid::from_raw(caller.gid)), None)?;
        rustix::thread::set_thread_res_uid(None, Some(Uid::from_raw(caller.uid)), None)
    }

    fn restore(&self) -> Result<()> {
        rustix::thread::set_thread_res_uid(None, Some(Uid::ROOT), None)?;
        rustix::thread::set_thread_res_gid(None, Some(self.gid), None)?;
        rustix::thread::set_capabilities(None, self.capabilities)?;
        match &self.groups {
            Some(groups) => rustix::thread::set_thread_groups(groups),
            None => Ok(()),
        }
    }
}

impl Drop for AssumedIdentity {
    fn drop(&mut self) {
        if let Err(error) = self.restore() {
            // Continuing with another user's identity would be worse than stopping.
            tracing::error!(%error, "cannot restore the daemon's identity");
            std::process::abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_parsed_from_process_status() {
        let status = "Name:\tx\nUid:\t0\nGroups:\t4 24 1000 \nNStgid:\t7\n";
        let numbers: Vec<u32> = groups(status).iter().map(|gid| gid.as_raw()).collect();
        assert_eq!(numbers, [4, 24, 1000]);
        assert!(groups("Groups:\t\n").is_empty());
        assert!(groups("").is_empty());
    }
}
