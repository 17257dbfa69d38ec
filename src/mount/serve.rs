//! Serves a mount: starts its threads, and answers requests until it is unmounted.

use std::io;
use std::sync::Arc;

use crate::mount::Mount;
use crate::mount::activity::Activity;
use crate::mount::fuse::Fuse;
use crate::mount::handover::connection::Connection;
use crate::mount::handover::forgotten;
use crate::mount::handover::recorder::Keeper;
use crate::mount::handover::restore::Inheritance;
use crate::mount::mapped_files::Watch;
use crate::mount::recovery::Recover;
use crate::mount::tables::nodes::NodeRole;
use crate::mount::threads::LOOP_THREADS;

/// With what a mount is served.
pub struct Serving {
    /// The connection to the kernel.
    pub connection: Connection,
    /// Keeps what the next process needs to serve the mount on.
    pub keeper: Option<Arc<dyn Keeper>>,
    /// What a process has left that has served the mount before.
    pub inheritance: Option<Inheritance>,
    /// Receives reports of altered jobs of the primary.
    pub activity: Option<Arc<dyn Activity>>,
    /// Recovers archived jobs that are about to be changed.
    pub recover: Option<Arc<dyn Recover>>,
}

impl Mount {
    /// Serves the mount on a connection to the kernel, until it is unmounted. Calls `ready` after the handshake with the
    /// kernel, just before the first request is answered.
    ///
    /// # Errors
    ///
    /// The error of the handshake with the kernel or of its device.
    pub fn serve(mut self, with: Serving, ready: &dyn Fn()) -> io::Result<()> {
        let Serving {
            connection,
            keeper,
            inheritance,
            activity,
            recover,
        } = with;
        let mut config = fuser::Config::default();
        config.n_threads = Some(LOOP_THREADS);
        // Requests that were read from another descriptor of the device would fail when this process ends.
        config.clone_fd = keeper.is_none();
        self.recover = recover;
        self.passthrough.connect(connection.device().clone());
        let continues = inheritance.is_some();
        if let (Some(left), Some(keeper)) = (inheritance, &keeper) {
            self.inherit(left, keeper.clone())?;
        }
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
        let fuse = Fuse::new(self);
        let mount = fuse.mount();
        let (session, agreed) = connection.session(fuse, config)?;
        if let Some(keeper) = keeper.filter(|_| !continues)
            && agreed.can_be_continued()
        {
            keeper.keep_connection(&connection, &agreed)?;
            mount.record_for(keeper)?;
        }
        invalidate.start(session.notifier())?;
        watch.start()?;
        if continues {
            connection.take_over()?;
            forgotten::start(&mount, connection.device())?;
        }
        drop(mount);
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
                if node.role == NodeRole::Job && node.location == folder {
                    // With the job, the kernel forgets all nodes below it.
                    invalidate.node(id, node);
                }
                // Unions are kept open in every location, not only in their own.
                let union = matches!(node.role, NodeRole::Jobs | NodeRole::Task);
                if node.directory && (node.location == folder || union) {
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
