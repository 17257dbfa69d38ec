//! Makes the kernel drop cached names, attributes and contents.
//!
//! An invalidation may wait in the kernel for a lock that an unanswered request holds. So invalidations are sent by a
//! thread that answers no requests and holds none of our locks.

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use fuser::{INodeNo, Notifier};
use parking_lot::Mutex;

use crate::mount::tables::nodes::Node;
use crate::mount::tables::ttl::SHORT_TTL;
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
    /// The channel to the thread that makes the kernel drop the listing of a directory before a request is answered.
    listings: Sender<ListingToDrop>,
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
    /// Names that it must drop, each with its directory.
    names: Vec<(u64, Name)>,
    reply: Answer,
}

/// Answers a request; the argument is whether the kernel has dropped what it must.
type Answer = Box<dyn FnOnce(bool) + Send>;

/// How long a request is delayed for its names: the directory may be locked in the kernel for another request, which waits
/// for a folder. The names of an archived job's internal files are not cached for longer than this.
const NAMES_TIMEOUT: Duration = SHORT_TTL;

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
            listings: start_dropping_listings(notifier.clone())?,
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

    /// Makes the kernel drop its cached listing of a directory that it holds locked for a change, before this returns. A thread that answers
    /// requests may send it: no process lists the directory, so no request holds a page of the listing.
    pub(in crate::mount) fn listing_now(&self, directory: u64) {
        self.pages_now(directory);
    }

    /// Makes the kernel drop its cached listing of a directory, and answers a request after that.
    pub(in crate::mount) fn listing_before_reply(
        &self,
        directory: u64,
        reply: impl FnOnce() + Send + 'static,
    ) {
        match self.connected.get() {
            // The thread ends only with the mount.
            Some(connected) => drop(connected.listings.send((directory, Box::new(reply)))),
            None => reply(),
        }
    }

    /// Makes the kernel drop the attributes of a node, and names, and answers a request after that.
    pub(in crate::mount) fn before_reply(
        &self,
        node: u64,
        names: Vec<(u64, Name)>,
        reply: impl FnOnce(bool) + Send + 'static,
    ) {
        let reply = Box::new(reply);
        match self.connected.get() {
            // The thread ends only with the mount.
            Some(connected) => {
                drop(
                    connected
                        .before_reply
                        .send(BeforeReply { node, names, reply }),
                );
            }
            None => reply(false),
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

/// A request that waits until the kernel has dropped names; empty once it is answered.
type Unanswered = Arc<Mutex<Option<Answer>>>;

/// Names that the kernel must drop, each with its directory, and the request that waits for it.
type NamesToDrop = (Vec<(u64, Name)>, Unanswered);

fn answer(request: &Unanswered, dropped: bool) {
    let reply = request.lock().take();
    if let Some(reply) = reply {
        reply(dropped);
    }
}

/// Starts the threads that make the kernel drop names and attributes before a request is answered: separate ones, since
/// other invalidations may wait in the kernel for requests of other processes.
fn start_before_reply(notifier: Notifier) -> std::io::Result<Sender<BeforeReply>> {
    let dropped = start_dropping_names(notifier.clone())?;
    let (sender, requests) = crossbeam_channel::unbounded::<BeforeReply>();
    std::thread::Builder::new()
        .name("xpmfs-before-reply".to_owned())
        .spawn(move || {
            let mut waiting = VecDeque::<(Instant, Unanswered)>::new();
            loop {
                while let Some((until, request)) = waiting.front()
                    && (*until <= Instant::now() || request.lock().is_none())
                {
                    answer(request, false);
                    waiting.pop_front();
                }
                let request = match waiting.front() {
                    Some((until, _)) => requests.recv_deadline(*until),
                    None => requests.recv().map_err(RecvTimeoutError::from),
                };
                let request = match request {
                    Ok(request) => request,
                    Err(RecvTimeoutError::Timeout) => continue,
                    Err(RecvTimeoutError::Disconnected) => return,
                };
                send(&notifier, &Invalidation::Attributes(request.node));
                if request.names.is_empty() {
                    (request.reply)(true);
                    continue;
                }
                let reply = Unanswered::new(Mutex::new(Some(request.reply)));
                waiting.push_back((Instant::now() + NAMES_TIMEOUT, reply.clone()));
                // The other thread ends only with this one.
                let _ = dropped.send((request.names, reply));
            }
        })?;
    Ok(sender)
}

/// A directory whose cached listing the kernel must drop, and what answers the request that waits for it.
type ListingToDrop = (u64, Box<dyn FnOnce() + Send>);

/// Starts a thread that makes the kernel drop listings, and answers the requests that wait for it: a separate one, since other invalidations
/// may wait in the kernel for requests.
fn start_dropping_listings(notifier: Notifier) -> std::io::Result<Sender<ListingToDrop>> {
    let (sender, wanted) = crossbeam_channel::unbounded::<ListingToDrop>();
    std::thread::Builder::new()
        .name("xpmfs-listings".to_owned())
        .spawn(move || {
            for (directory, reply) in wanted {
                send(&notifier, &Invalidation::Pages(directory));
                reply();
            }
        })?;
    Ok(sender)
}

/// Starts a thread that makes the kernel drop names, and answers the requests that wait for it.
fn start_dropping_names(notifier: Notifier) -> std::io::Result<Sender<NamesToDrop>> {
    let (sender, wanted) = crossbeam_channel::unbounded::<NamesToDrop>();
    std::thread::Builder::new()
        .name("xpmfs-names".to_owned())
        .spawn(move || {
            for (names, request) in wanted {
                for (parent, name) in names {
                    send(&notifier, &Invalidation::Name(parent, name));
                }
                answer(&request, true);
            }
        })?;
    Ok(sender)
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
