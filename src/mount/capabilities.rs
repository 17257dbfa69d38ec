//! Agrees with the kernel on the capabilities of a mount.

use fuser::{InitFlags, KernelConfig};

use crate::mount::MountOptions;

/// How many background requests the kernel sends before it holds further ones back; from three quarters of that on, it
/// reads nothing ahead. Background requests are reads ahead, asynchronous direct reads and writes, and closes. The kernel's
/// default, 12, is for all readers of a mount together: a few that wait for a slow folder would keep all others from reading
/// ahead. And closes must not wait behind these and behind opens, or all descriptors are used up. The memory that this many
/// requests need is the readers' own page cache. The kernel lowers it to the administrator's limit for ordinary users.
const BACKGROUND_MAX: u16 = 8192;

/// The largest read or write request.
const TRANSFER_MAX: u32 = 1024 * 1024;

/// The capabilities that the kernel may lack.
#[derive(Debug)]
pub(super) struct Capabilities {
    /// Files that are read and written past the cache can be mapped.
    pub(super) maps_uncached: bool,
    /// The kernel can read and write files of the disk by itself.
    pub(super) passthrough: bool,
}

/// Requests the capabilities of a mount with these options.
pub(super) fn request(config: &mut KernelConfig, options: &MountOptions) -> Capabilities {
    // Without FUSE_ATOMIC_O_TRUNC: the daemon would empty a running program before the kernel reports that it is
    // busy (ETXTBSY).
    let mut wanted = vec![
        InitFlags::FUSE_ASYNC_DIO,
        InitFlags::FUSE_AUTO_INVAL_DATA,
        InitFlags::FUSE_DONT_MASK,
        // Always, and not when the kernel guesses that it helps: a process that walks a tree reads a directory to
        // the end before it examines the entries, and the guess is wrong then.
        InitFlags::FUSE_DO_READDIRPLUS,
        InitFlags::FUSE_PARALLEL_DIROPS,
        // The disk clears set-id bits, given the caller's rights: see `clearing_set_id_for`.
        InitFlags::FUSE_HANDLE_KILLPRIV_V2,
        // Without POSIX locks, so that every lock request is a flock.
        InitFlags::FUSE_FLOCK_LOCKS,
        // The daemon's node ids end with the mount, so a file handle would be lost with it, or as soon as the
        // kernel forgets the node: `name_to_handle_at` reports that handles are not supported.
        InitFlags::FUSE_NO_EXPORT_SUPPORT,
    ];
    if options.allow_other {
        wanted.push(InitFlags::FUSE_POSIX_ACL);
    }
    for flag in wanted {
        if config.add_capabilities(flag).is_err() {
            tracing::debug!(?flag, "the kernel lacks a capability");
        }
    }
    let maps_uncached = config
        .add_capabilities(InitFlags::FUSE_DIRECT_IO_ALLOW_MMAP)
        .is_ok();
    // The kernel reads the disk's file with the caller's flags, which would change its access time.
    let passthrough =
        !options.noatime && config.add_capabilities(InitFlags::FUSE_PASSTHROUGH).is_ok();
    let passthrough = passthrough && config.set_max_stack_depth(1).is_ok();
    if let Err(nearest) = config.set_max_background(BACKGROUND_MAX) {
        tracing::debug!(nearest, "the kernel accepts fewer background requests");
    }
    if let Err(nearest) = config.set_max_write(TRANSFER_MAX) {
        tracing::debug!(nearest, "the kernel accepts only smaller writes");
    }
    Capabilities {
        maps_uncached,
        passthrough,
    }
}
