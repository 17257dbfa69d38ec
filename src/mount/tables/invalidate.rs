//! Makes the kernel drop cached names, attributes and contents.
//!
//! An invalidation may wait in the kernel for a lock that an unanswered request holds. So invalidations are sent by a
//! thread that answers no requests and holds none of our locks.

use std::sync::OnceLock;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender};
use fuser::{INodeNo, Notifier};

use crate::mount::tables::nodes::Node;
use crate::sys::name::Name;

/// The invalidations to be sent.
pub(in crate::mount) struct Invalidator {
    /// The channel to the thread that sends invalidations.
    sender: Sender<Invalidation>,
    queue: Receiver<Invalidation>,
    /// fuser makes the notifier from a session, which needs the mount first.
    connected: OnceLock<Connected>,
}

/// The connection to the kernel.
struct Connected {
    notifier: Notifier,
    /// The channel to the thread that makes the kernel drop names and attributes before a request is answered.
    before_reply: Sender<BeforeReply>,
}

impl Default for Invalidator {
    fn default() -> Invalidator {
        let (sender, queue) = crossbeam_channel::unbounded();
        Invalidator {
            sender,
            queue,
            connected: OnceLock::new(),
        }
    }
}

/// The cached state that the kernel must drop before a request is answered.
struct BeforeReply {
    /// The node whose attributes it must drop.
    node: u64,
    /// A name in a directory that it must drop.
    name: Option<(u64, Name)>,
    /// Answers the request.
    reply: Box<dyn FnOnce() + Send>,
}

/// How long a request is delayed for a name: the directory may be locked in the kernel for another request, which waits
/// for a folder.
const NAME_TIMEOUT: Duration = Duration::from_secs(1);

impl std::fmt::Debug for Invalidator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Invalidator")
    }
}

/// Cached state that the kernel must drop, since it may be wrong.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::mount) enum Invalidation {
    /// The contents of a file or directory.
    Pages(u64),
    /// The attributes of a node.
    Attributes(u64),
    /// The node that a name leads to.
    Name(u64, Name),
}

impl Invalidator {
    /// Starts the threads; they end with the mount.
    pub(in crate::mount) fn start(&self, notifier: Notifier) -> std::io::Result<()> {
        let connected = Connected {
            notifier: notifier.clone(),
            before_reply: start_before_reply(notifier.clone())?,
        };
        let queue = self.queue.clone();
        std::thread::Builder::new()
            .name("xpmfs-invalidate".to_owned())
            .spawn(move || {
                for invalidation in queue {
                    send(&notifier, &invalidation);
                }
            })?;
        // A mount is served once.
        let _ = self.connected.set(connected);
        Ok(())
    }

    /// Returns the invalidations that would be sent, in place of the thread that sends them.
    #[cfg(test)]
    pub(in crate::mount) fn intercept(&self) -> Receiver<Invalidation> {
        self.queue.clone()
    }

    /// Makes the kernel look a name up again, and request the attributes of its node again.
    pub(in crate::mount) fn node(&self, id: u64, node: &Node) {
        self.attributes(id);
        self.name(node.parent, &node.name);
    }

    /// Makes the kernel request the attributes of a node again.
    pub(in crate::mount) fn attributes(&self, id: u64) {
        self.send(Invalidation::Attributes(id));
    }

    /// Makes the kernel request the attributes of a node again, and returns after that. Unlike other invalidations, it
    /// takes no lock of an inode or a page in the kernel (`fuse_reverse_inval_inode` with a negative offset), so a
    /// thread that answers requests may send it while the file is held open or is being opened.
    pub(in crate::mount) fn attributes_now(&self, id: u64) {
        if let Some(connected) = self.connected.get() {
            send(&connected.notifier, &Invalidation::Attributes(id));
        }
    }

    /// Makes the kernel drop the contents and attributes of a node before this returns. Not to be called by a thread
    /// that answers requests.
    pub(in crate::mount) fn pages_now(&self, id: u64) {
        if let Some(connected) = self.connected.get() {
            send(&connected.notifier, &Invalidation::Pages(id));
        }
    }

    /// Makes the kernel drop the attributes of a node, and a name, and answers a request after that.
    pub(in crate::mount) fn before_reply(
        &self,
        node: u64,
        name: Option<(u64, Name)>,
        reply: impl FnOnce() + Send + 'static,
    ) {
        let reply = Box::new(reply);
        match self.connected.get() {
            // The thread ends only with the mount.
            Some(connected) => {
                drop(
                    connected
                        .before_reply
                        .send(BeforeReply { node, name, reply }),
                );
            }
            None => reply(),
        }
    }

    /// Makes the kernel look up a name in a directory again.
    pub(in crate::mount) fn name(&self, parent: u64, name: &Name) {
        self.send(Invalidation::Name(parent, name.clone()));
    }

    /// Makes the kernel drop the cached contents of a node.
    pub(in crate::mount) fn pages(&self, node: u64) {
        self.send(Invalidation::Pages(node));
    }

    fn send(&self, invalidation: Invalidation) {
        // The channel is open as long as this sender.
        let _ = self.sender.send(invalidation);
    }
}

/// Starts the threads that make the kernel drop names and attributes before a request is answered: separate ones, since
/// other invalidations may wait in the kernel for requests of other processes.
fn start_before_reply(notifier: Notifier) -> std::io::Result<Sender<BeforeReply>> {
    let (names, forgotten) = forgetting_names(notifier.clone())?;
    let (sender, requests) = crossbeam_channel::unbounded::<BeforeReply>();
    std::thread::Builder::new()
        .name("xpmfs-before-reply".to_owned())
        .spawn(move || {
            for request in requests {
                send(&notifier, &Invalidation::Attributes(request.node));
                if let Some((parent, name)) = request.name {
                    // Discards reports that came too late for earlier requests.
                    while forgotten.try_recv().is_ok() {}
                    if names.try_send(Invalidation::Name(parent, name)).is_ok() {
                        let _ = forgotten.recv_timeout(NAME_TIMEOUT);
                    }
                }
                (request.reply)();
            }
        })?;
    Ok(sender)
}

/// Starts a thread that makes the kernel drop names, one at a time, and reports each.
fn forgetting_names(notifier: Notifier) -> std::io::Result<(Sender<Invalidation>, Receiver<()>)> {
    // While the thread waits in the kernel, it accepts no further names.
    let (names, wanted) = crossbeam_channel::bounded(1);
    let (report, forgotten) = crossbeam_channel::unbounded();
    std::thread::Builder::new()
        .name("xpmfs-names".to_owned())
        .spawn(move || {
            for name in wanted {
                send(&notifier, &name);
                // The other thread ends only with the mount.
                let _ = report.send(());
            }
        })?;
    Ok((names, forgotten))
}

fn send(notifier: &Notifier, invalidation: &Invalidation) {
    let sent = match invalidation {
        Invalidation::Pages(node) => notifier.inval_inode(INodeNo(*node), 0, 0),
        Invalidation::Attributes(node) => notifier.inval_inode(INodeNo(*node), -1, 0),
        Invalidation::Name(parent, name) => notifier.inval_entry(INodeNo(*parent), name),
    };
    if let Err(error) = sent {
        tracing::debug!(?invalidation, %error, "the kernel rejects an invalidation");
    }
}
