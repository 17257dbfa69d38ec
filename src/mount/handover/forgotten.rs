//! Finds the nodes that the kernel has forgotten without the knowledge of this process.
//!
//! A process that is killed takes with it its unread messages about forgotten nodes, and the replies that were not sent: the kernel
//! sends those requests again, and each node in them is counted twice. Such a node, and a removed file that is open for it, would
//! be kept for ever. So the next process asks the kernel, for each node that only earlier processes have sent to the kernel.
//!
//! The kernel may not know a node of which a message is still to be read. If that message came after a new reply with the same node, the
//! reply would be taken back. So the kernel is asked twice, with a pause in which such messages are read.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::connection;
use crate::mount::Mount;
use crate::mount::threads;
use crate::sys::debug_setting;

/// The pause before each time that the kernel is asked.
const PAUSE: Duration = Duration::from_secs(30);

/// [`PAUSE`], or the milliseconds that a test of a debug build sets.
fn pause() -> Duration {
    debug_setting::milliseconds("XPMFS_TEST_FORGOTTEN_MS", PAUSE)
}

/// How many nodes the kernel is asked for in a row. Then other threads may write to its device.
const PART: usize = 256;
const BREAK: Duration = Duration::from_millis(1);

/// Starts the thread that asks the kernel, once, and forgets what the kernel does not know.
///
/// # Errors
///
/// No thread can be started.
pub(in crate::mount) fn start(mount: &Arc<Mount>, device: &Arc<OwnedFd>) -> io::Result<()> {
    let (mount, device) = (Arc::downgrade(mount), Arc::downgrade(device));
    threads::start("xpmfs-forgotten", move || {
        let forgotten = ask_twice(&mount, &device);
        tracing::debug!(forgotten, "asked the kernel which nodes it knows");
    })
}

/// Returns how many nodes were forgotten; `None` if the mount has ended.
fn ask_twice(mount: &Weak<Mount>, device: &Weak<OwnedFd>) -> Option<usize> {
    std::thread::sleep(pause());
    let inherited = mount.upgrade()?.nodes.inherited();
    let unknown = ask(device, &inherited)?;
    drop(inherited);
    std::thread::sleep(pause());
    let unknown = ask(device, &unknown)?;
    let mount = mount.upgrade()?;
    for node in &unknown {
        mount.forget_inherited(*node);
    }
    Some(unknown.len())
}

/// Returns which of these nodes the kernel does not know; `None` if the mount has ended.
fn ask(device: &Weak<OwnedFd>, nodes: &[u64]) -> Option<Vec<u64>> {
    let mut unknown = Vec::new();
    for part in nodes.chunks(PART) {
        let device = device.upgrade()?;
        let nodes = part.iter().copied();
        unknown.extend(nodes.filter(|node| !connection::is_known(&*device, *node)));
        drop(device);
        std::thread::sleep(BREAK);
    }
    Some(unknown)
}
