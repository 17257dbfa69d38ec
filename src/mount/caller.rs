//! Who asks: the umask and the ownership of what is made.

use std::cell::Cell;

use rustix::fs::Mode;
use rustix::io::Result;
use rustix::process::{Gid, Uid, getegid, geteuid};
use rustix::thread::{CapabilitySet, CapabilitySets};

use super::{Mount, sys};

thread_local! {
    /// The umask of this thread, once it has one of its own.
    static UMASK: Cell<Option<u32>> = const { Cell::new(None) };
}

/// Gives this thread a umask. The disk applies it, or a directory's default ACL in its place, as
/// it would for the caller.
pub(super) fn set_umask(umask: u32) -> Result<()> {
    let current = UMASK.get();
    if current == Some(umask) {
        return Ok(());
    }
    if current.is_none() {
        sys::own_umask()?;
    }
    rustix::process::umask(Mode::from_raw_mode(umask));
    UMASK.set(Some(umask));
    Ok(())
}

/// The caller's identity, taken on by this thread until it is dropped.
#[derive(Debug)]
pub(super) struct Identity {
    capabilities: CapabilitySets,
}

impl Mount {
    /// Lets what this thread makes belong to the caller. Needed only where the daemon is root and
    /// others may ask; the kernel has checked their rights then, so rights are not given up.
    pub(super) fn assume(&self, uid: u32, gid: u32) -> Result<Option<Identity>> {
        let daemon = (geteuid(), getegid());
        if !daemon.0.is_root() || (uid, gid) == (daemon.0.as_raw(), daemon.1.as_raw()) {
            return Ok(None);
        }
        let identity = Identity {
            capabilities: rustix::thread::capabilities(None)?,
        };
        rustix::thread::set_thread_res_gid(None, Some(Gid::from_raw(gid)), None)?;
        rustix::thread::set_thread_res_uid(None, Some(Uid::from_raw(uid)), None)?;
        // A change of the effective user has dropped them all from the effective set.
        let keep = CapabilitySet::DAC_OVERRIDE | CapabilitySet::DAC_READ_SEARCH;
        let kept = CapabilitySets {
            effective: identity.capabilities.effective & keep,
            ..identity.capabilities
        };
        rustix::thread::set_capabilities(None, kept)?;
        Ok(Some(identity))
    }
}

impl Drop for Identity {
    fn drop(&mut self) {
        let root = (Some(Uid::ROOT), Some(Gid::ROOT));
        let restored = rustix::thread::set_thread_res_uid(None, root.0, None)
            .and_then(|()| rustix::thread::set_thread_res_gid(None, root.1, None))
            .and_then(|()| rustix::thread::set_capabilities(None, self.capabilities));
        if let Err(error) = restored {
            // Going on as somebody else would be worse than stopping.
            tracing::error!(%error, "cannot take back root's identity");
            std::process::abort();
        }
    }
}
