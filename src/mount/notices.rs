//! What the kernel is told without having asked.
//!
//! A notice may wait for a lock in the kernel that a request holds which we have not answered yet.
//! So notices are sent by a thread that answers no requests and holds no lock of ours.

use std::ffi::OsStr;
use std::sync::{Arc, OnceLock};

use crossbeam_channel::Sender;
use fuser::{INodeNo, Notifier};

use super::nodes::Node;

/// The way to the thread that sends notices; nothing is sent before there is one.
#[derive(Debug, Default)]
pub(super) struct Notices {
    sender: OnceLock<Sender<Notice>>,
}

#[derive(Debug)]
enum Notice {
    /// What the kernel keeps of the contents of a file or directory may be wrong.
    ForgetPages(u64),
    /// What it keeps of attributes may be wrong.
    ForgetAttributes(u64),
    /// What it keeps of a name may be wrong.
    ForgetName(u64, Arc<OsStr>),
}

impl Notices {
    /// Starts the thread; it ends with the mount.
    pub(super) fn start(&self, notifier: Notifier) -> std::io::Result<()> {
        let (sender, notices) = crossbeam_channel::unbounded();
        std::thread::Builder::new()
            .name("xpmfs-notices".to_owned())
            .spawn(move || {
                for notice in notices {
                    send(&notifier, &notice);
                }
            })?;
        if self.sender.set(sender).is_err() {
            tracing::warn!("notices were started twice");
        }
        Ok(())
    }

    /// Makes the kernel ask anew for a name and the attributes of what it leads to.
    pub(super) fn forget(&self, id: u64, node: &Node) {
        if let Some(sender) = self.sender.get() {
            let _ = sender.send(Notice::ForgetAttributes(id));
            let _ = sender.send(Notice::ForgetName(node.parent, node.name.clone()));
        }
    }

    /// Makes the kernel forget the contents that it keeps of a node.
    pub(super) fn forget_pages(&self, node: u64) {
        if let Some(sender) = self.sender.get() {
            // The thread is gone only when the mount is.
            let _ = sender.send(Notice::ForgetPages(node));
        }
    }
}

fn send(notifier: &Notifier, notice: &Notice) {
    let sent = match notice {
        Notice::ForgetPages(node) => notifier.inval_inode(INodeNo(*node), 0, 0),
        Notice::ForgetAttributes(node) => notifier.inval_inode(INodeNo(*node), -1, 0),
        Notice::ForgetName(parent, name) => notifier.inval_entry(INodeNo(*parent), name),
    };
    if let Err(error) = sent {
        tracing::debug!(?notice, %error, "the kernel does not take a notice");
    }
}
