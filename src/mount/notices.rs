//! What the kernel is told without having asked.
//!
//! A notice may wait for a lock in the kernel that a request holds which we have not answered yet.
//! So notices are sent by a thread that answers no requests and holds no lock of ours.

use std::sync::OnceLock;

use crossbeam_channel::Sender;
use fuser::{INodeNo, Notifier};

use super::nodes::Node;
use crate::view::name::Name;

/// The way to the thread that sends notices; nothing is sent before there is one.
#[derive(Debug, Default)]
pub(super) struct Notices {
    sender: OnceLock<Sender<Notice>>,
}

/// What the kernel is to forget, since it may be wrong.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Notice {
    /// The contents of a file or directory.
    Pages(u64),
    /// The attributes of a node.
    Attributes(u64),
    /// What a name leads to.
    Name(u64, Name),
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

    /// What would be sent, in place of a thread that sends it.
    #[cfg(test)]
    pub(super) fn intercept(&self) -> crossbeam_channel::Receiver<Notice> {
        let (sender, notices) = crossbeam_channel::unbounded();
        self.sender.set(sender).unwrap();
        notices
    }

    /// Makes the kernel ask anew for a name and the attributes of what it leads to.
    pub(super) fn forget(&self, id: u64, node: &Node) {
        self.forget_attributes(id);
        self.forget_name(node.parent, &node.name);
    }

    /// Makes the kernel ask anew for the attributes of a node.
    pub(super) fn forget_attributes(&self, id: u64) {
        self.send(Notice::Attributes(id));
    }

    /// Makes the kernel ask anew for what a name in a directory leads to.
    pub(super) fn forget_name(&self, parent: u64, name: &Name) {
        self.send(Notice::Name(parent, name.clone()));
    }

    /// Makes the kernel forget the contents that it keeps of a node.
    pub(super) fn forget_pages(&self, node: u64) {
        self.send(Notice::Pages(node));
    }

    fn send(&self, notice: Notice) {
        if let Some(sender) = self.sender.get() {
            // The thread is gone only when the mount is.
            let _ = sender.send(notice);
        }
    }
}

fn send(notifier: &Notifier, notice: &Notice) {
    let sent = match notice {
        Notice::Pages(node) => notifier.inval_inode(INodeNo(*node), 0, 0),
        Notice::Attributes(node) => notifier.inval_inode(INodeNo(*node), -1, 0),
        Notice::Name(parent, name) => notifier.inval_entry(INodeNo(*parent), name),
    };
    if let Err(error) = sent {
        tracing::debug!(?notice, %error, "the kernel does not take a notice");
    }
}
