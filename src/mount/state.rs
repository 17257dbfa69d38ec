//! The state of a mount: its tables, and the threads that work beside the requests.

use std::io;
use std::sync::Arc;

use crate::mount::activity::ActivityReports;
use crate::mount::handover::intents::{IntentOutcome, Intents};
use crate::mount::handover::recorder::Recorder;
use crate::mount::interrupts::Interrupts;
use crate::mount::lock_waiter::Waiter;
use crate::mount::open_limit::OpenLimit;
use crate::mount::readahead::Readahead;
use crate::mount::recovery::{Recover, Recoveries};
use crate::mount::tables::cached_listings::CachedListings;
use crate::mount::tables::dir_cache::DirCache;
use crate::mount::tables::handles::Handles;
use crate::mount::tables::invalidate::Invalidator;
use crate::mount::tables::listings::Listings;
use crate::mount::tables::lock_names::LockNames;
use crate::mount::tables::node_changes::NodeChanges;
use crate::mount::tables::nodes::Nodes;
use crate::mount::tables::numbers::Devices;
use crate::mount::tables::own_writes::OwnWrites;
use crate::mount::tables::passthrough::Passthrough;
use crate::mount::tables::stale::{Contended, NotFoundAgain, StaleRetries};
use crate::mount::tables::superseded::Superseded;
use crate::mount::tables::ttl::{Ttls, is_local};
use crate::mount::threads::Threads;
use crate::mount::timeouts::Timeouts;
use crate::sys::at;
use crate::sys::file_id::FileId;
use crate::view::View;

/// How a view is mounted.
#[derive(Debug, Clone, Default)]
pub struct MountOptions {
    /// Other users may use the mount: the kernel checks rights against the attributes, and new files belong to the user
    /// who made them.
    pub allow_other: bool,
    /// The kernel checks rights (`default_permissions`): opening a directory needs no request.
    pub default_permissions: bool,
    /// Reading leaves access times unchanged (`noatime`); the kernel then reads and writes no file by itself.
    pub noatime: bool,
    /// The primary is mounted in place, and no other mount of this machine serves it.
    pub alone: bool,
}

/// A view that is served to the kernel.
#[derive(Debug)]
pub struct Mount {
    pub(super) view: Arc<View>,
    pub(super) options: MountOptions,
    pub(super) nodes: Arc<Nodes>,
    pub(super) devices: Arc<Devices>,
    pub(super) dir_cache: Arc<DirCache>,
    pub(super) handles: Arc<Handles>,
    pub(super) open_limit: Arc<OpenLimit>,
    pub(super) passthrough: Arc<Passthrough>,
    pub(super) contended: Contended,
    pub(super) retries: StaleRetries,
    pub(super) renamed: NotFoundAgain,
    pub(super) timeouts: Arc<Timeouts>,
    pub(super) threads: Threads,
    pub(super) listings: Arc<Listings>,
    pub(super) cached_listings: CachedListings,
    pub(super) readahead: Readahead,
    pub(super) locks: Waiter,
    pub(super) lock_names: Arc<LockNames>,
    pub(super) invalidate: Arc<Invalidator>,
    pub(super) activity: ActivityReports,
    pub(super) ttls: Arc<Ttls>,
    /// The device of the primary, if it is a local disk: there, closing a file returns no error of its writes.
    pub(super) local_disk: Option<u32>,
    /// Recovers archived jobs that are about to be changed; without it, they cannot be changed.
    pub(super) recover: Option<Arc<dyn Recover>>,
    pub(super) recoveries: Arc<Recoveries>,
    pub(super) node_changes: Arc<NodeChanges>,
    pub(super) superseded: Arc<Superseded>,
    pub(super) own_writes: Arc<OwnWrites>,
    pub(super) recorder: Arc<Recorder>,
    pub(super) intents: Intents,
}

impl Mount {
    /// # Errors
    ///
    /// The error with which an earlier process has failed to make the change of this request.
    pub(super) fn not_failed(&self) -> rustix::io::Result<()> {
        match self.intents.outcome() {
            Some(IntentOutcome::Failed(error)) => Err(error),
            _ => Ok(()),
        }
    }

    /// Makes a mount of a view, which is served later. The process's limit of descriptors must not change any more: it
    /// bounds the mount's caches and open files.
    ///
    /// # Errors
    ///
    /// The primary is not open, or cannot be examined.
    pub fn new(view: Arc<View>, options: MountOptions) -> io::Result<Mount> {
        let root = view.primary().root()?;
        let stat = at::stat_fd(root.fd())?;
        let identity = FileId::of(&stat);
        let recorder = Arc::<Recorder>::default();
        let nodes = Arc::new(Nodes::new(identity, recorder.clone()));
        let handles = Arc::new(Handles::new(recorder.clone()));
        let lock_names = Arc::<LockNames>::default();
        let invalidate = Arc::<Invalidator>::default();
        let interrupts = Interrupts::default();
        Ok(Mount {
            view: view.clone(),
            activity: ActivityReports::new(nodes.clone()),
            ttls: Arc::new(Ttls::new(view.clone(), options.alone)),
            local_disk: is_local(root.fd()).then(|| identity.device()),
            locks: Waiter::new(
                handles.clone(),
                nodes.clone(),
                lock_names.clone(),
                invalidate.clone(),
                interrupts.clone(),
            ),
            options,
            nodes,
            devices: Arc::new(Devices::new(identity, recorder.clone())),
            dir_cache: Arc::new(DirCache::new(recorder.clone())),
            handles,
            open_limit: Arc::default(),
            passthrough: Arc::default(),
            contended: Contended::default(),
            retries: StaleRetries::default(),
            renamed: NotFoundAgain::default(),
            timeouts: Arc::default(),
            threads: Threads::new({
                let view = view.clone();
                move || view.late_questions()
            }),
            listings: Arc::default(),
            cached_listings: CachedListings::default(),
            readahead: Readahead::default(),
            lock_names,
            invalidate,
            recover: None,
            recoveries: Arc::new(Recoveries::new(interrupts)),
            node_changes: Arc::default(),
            superseded: Arc::new(Superseded::new(recorder.clone())),
            own_writes: Arc::default(),
            recorder,
            intents: Intents::default(),
        })
    }
}
