//! Reads without changing access times (`noatime`), by `O_NOATIME` on the daemon's own descriptors.

use std::os::fd::AsFd;

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

use crate::mount::Mount;

impl Mount {
    /// Under `noatime`, makes reading through `fd` leave the access time unchanged.
    pub(super) fn keep_atime_if_asked(&self, fd: impl AsFd) {
        if self.options.noatime {
            keep_atime(fd);
        }
    }
}

/// Makes reading through `fd` leave the access time unchanged, where that is permitted.
///
/// Set on the open descriptor, not when opening: there, a refusal after `O_CREAT` would leave a new file behind.
pub(super) fn keep_atime(fd: impl AsFd) {
    // Permitted to the file's owner and with CAP_FOWNER; for other users the disk still updates the time.
    let set = fcntl_getfl(&fd).and_then(|flags| fcntl_setfl(&fd, flags | OFlags::NOATIME));
    if let Err(error) = set {
        tracing::debug!(%error, "reading an open file moves its time of access");
    }
}
