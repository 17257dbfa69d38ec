//! Answers requests to list a directory.
//!
//! Unlike other requests (`deferred`), a listing is answered by the attempt that ends first: the entries that are in the reply by then are
//! right, and the kernel requests the rest.

use std::sync::Arc;

use fuser::{INodeNo, ReplyDirectory, ReplyDirectoryPlus};
use parking_lot::Mutex;
use rustix::io::{Errno, Result};

use crate::mount::Mount;
use crate::mount::attributes::{self, errno};

/// The reply to the listing of a directory, to which entries are added until it is full.
pub(super) trait ListReply: Send + Sized + 'static {
    /// Adds the entries from a position on. Returns as [`Mount::list`].
    fn fill(mount: &Mount, node: u64, from: u64, to: &Partial<Self>) -> Result<bool>;

    fn end(self);

    fn refuse(self, error: Errno);
}

/// A reply to which entries are added, unless another attempt has sent it.
pub(super) struct Partial<R>(Arc<Mutex<Option<(R, bool)>>>);

impl<R: ListReply> Partial<R> {
    /// Adds an entry by `add`, which returns whether there is no room for it; returns whether to go on.
    fn add(&self, add: impl FnOnce(&mut R) -> bool) -> bool {
        match &mut *self.0.lock() {
            Some((reply, begun)) => {
                let added = !add(reply);
                *begun |= added;
                added
            }
            None => false,
        }
    }

    /// Returns the reply, and whether it has entries, unless another attempt has sent it.
    fn take(&self) -> Option<(R, bool)> {
        self.0.lock().take()
    }
}

impl Mount {
    /// Lists a directory, in another thread if that may wait for a folder.
    pub(super) fn list_deferred<R: ListReply>(
        self: &Arc<Self>,
        may_wait: bool,
        node: u64,
        from: u64,
        reply: R,
    ) {
        if !may_wait {
            return self.list_into(node, from, reply);
        }
        let mount = self.clone();
        self.threads.run(move || mount.list_into(node, from, reply));
    }

    /// Lists a directory into a reply. If a folder does not answer, begins the listing anew without the folder.
    fn list_into<R: ListReply>(self: &Arc<Self>, node: u64, from: u64, reply: R) {
        let reply = Partial(Arc::new(Mutex::new(Some((reply, false)))));
        // Without folders, no request waits for one.
        let _watched = match self.view.folders().is_empty() {
            true => None,
            false => {
                let (mount, begun) = (self.clone(), Partial(reply.0.clone()));
                let again = move || match begun.take() {
                    Some((reply, true)) => reply.end(),
                    Some((reply, false)) => {
                        let this = mount.clone();
                        mount.threads.run_outside(move || {
                            this.listings.close(node);
                            this.list_into(node, from, reply);
                        });
                    }
                    None => {}
                };
                let last = Partial(reply.0.clone());
                let give_up = move || match last.take() {
                    Some((reply, true)) => reply.end(),
                    Some((reply, false)) => reply.refuse(Errno::TIMEDOUT),
                    None => {}
                };
                Some(self.timeouts.watch(again, give_up))
            }
        };
        let listed = R::fill(self, node, from, &reply);
        match (listed, reply.take()) {
            (_, None) => {}
            (Ok(true), Some((reply, _))) => {
                self.invalidate.listing_before_reply(node, || reply.end());
            }
            (Ok(false), Some((reply, _))) => reply.end(),
            (Err(error), Some((reply, _))) => reply.refuse(error),
        }
    }
}

impl ListReply for ReplyDirectory {
    fn fill(mount: &Mount, node: u64, from: u64, to: &Partial<Self>) -> Result<bool> {
        mount.list(node, from, |item| {
            let kind = attributes::kind(item.kind.as_raw_mode());
            to.add(|reply| reply.add(INodeNo(item.inode), item.next, kind, item.name))
        })
    }

    fn end(self) {
        self.ok();
    }

    fn refuse(self, error: Errno) {
        self.error(errno(error));
    }
}

impl ListReply for ReplyDirectoryPlus {
    fn fill(mount: &Mount, node: u64, from: u64, to: &Partial<Self>) -> Result<bool> {
        mount.list_plus(node, from, |name, next, entry| {
            let (attributes, generation) = (&entry.attributes, entry.generation);
            to.add(|reply| {
                reply.add(
                    attributes.ino,
                    next,
                    name,
                    &entry.ttl,
                    attributes,
                    generation,
                )
            })
        })
    }

    fn end(self) {
        self.ok();
    }

    fn refuse(self, error: Errno) {
        self.error(errno(error));
    }
}
