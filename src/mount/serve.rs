//! Serves a mount: starts its threads, and answers requests until it is unmounted.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use crate::mount::Mount;
use crate::mount::activity::Activity;
use crate::mount::fuse::Fuse;
use crate::mount::mapped_files::Watch;
use crate::mount::recovery::Recover;
use crate::mount::tables::nodes::NodeRole;
use crate::mount::threads::LOOP_THREADS;

impl Mount {
    /// Serves the mount on an open `/dev/fuse` that has been mounted, until it is unmounted. Reports altered jobs of
    /// the primary to `activity`. If there is `recover`, archived jobs that are about to be changed are recovered. Calls `ready` after the handshake with the kernel, just before the first request is
    /// answered.
    ///
    /// # Errors
    ///
    /// The error of the handshake with the kernel or of its device.
    pub fn serve(
        mut self,
        fuse: OwnedFd,
        activity: Option<Arc<dyn Activity>>,
        recover: Option<Arc<dyn Recover>>,
        ready: &dyn Fn(),
    ) -> io::Result<()> {
        let mut config = fuser::Config::default();
        config.n_threads = Some(LOOP_THREADS);
        config.clone_fd = true;
        self.recover = recover;
        self.readahead.start(&self.view)?;
        self.timeouts.start(&self.view)?;
        if let Some(activity) = activity {
            self.activity.start(activity)?;
        }
        self.view.on_change(self.folder_closer());
        self.view.set_in_use({
            let handle = self.handle();
            // A request that waits for the recovery of a purged job does not make it a living one.
            move |job| handle.has_writers(job)
        });
        let (invalidate, recoveries) = (self.invalidate.clone(), self.recoveries.clone());
        let watch = Watch {
            handles: Arc::downgrade(&self.handles),
            nodes: self.nodes.clone(),
            passthrough: self.passthrough.clone(),
            invalidate: invalidate.clone(),
            own_writes: self.own_writes.clone(),
        };
        // The kernel itself keeps other users out unless `allow_other` is set.
        let acl = fuser::SessionACL::All;
        let session = fuser::Session::from_fd(Fuse::new(self), fuse, acl, config)?;
        invalidate.start(session.notifier())?;
        watch.start()?;
        ready();
        let served = session.run();
        recoveries.stop();
        served
    }

    /// Closes the descriptors kept for a folder, whose file system could not be unmounted otherwise, and makes the
    /// kernel look its jobs up anew.
    fn folder_closer(&self) -> impl Fn(u8) + Send + Sync + 'static {
        let (nodes, directories) = (self.nodes.clone(), self.dir_cache.clone());
        let (listings, invalidate) = (self.listings.clone(), self.invalidate.clone());
        let close_readahead = self.readahead.folder_closer();
        move |folder| {
            close_readahead();
            let mut kept = Vec::new();
            nodes.each(|id, node| {
                if node.role == NodeRole::Job && node.place == folder {
                    // With the job, the kernel forgets all nodes below it.
                    invalidate.node(id, node);
                }
                // Unions are kept open in every location, not only in their own.
                let union = matches!(node.role, NodeRole::Jobs | NodeRole::Task);
                if node.directory && (node.place == folder || union) {
                    kept.push(id);
                }
            });
            for id in kept {
                directories.close(id);
                listings.close(id);
            }
        }
    }
}
