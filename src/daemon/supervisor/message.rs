//! Messages from a worker to its supervisor: a packet of JSON each, with at most one descriptor.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};
use serde::{Deserialize, Serialize};

use crate::daemon::mounts::{Device, UniqueId};
use crate::mount::{Agreed, KeptFile};

/// What a worker sends. The supervisor acknowledges by one byte what a worker waits for ([`Message::is_acknowledged`]).
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Message {
    /// Keep the connection to the kernel (the descriptor).
    Connection(Agreed),
    /// Where the mount is; the descriptor is the primary's directory, beneath it.
    Place(MountPlace),
    /// Keep the log (the descriptor), in place of the one before.
    Log,
    /// Keep the counts of nodes (the descriptor).
    Counts,
    /// Keep what the worker is about to change (the descriptor).
    Intents,
    /// Keep the programs that hold the mount (the descriptor), in place of those before.
    Holders,
    /// Keep the nodes that the kernel has received last (the descriptor).
    Recent,
    /// Keep a descriptor.
    File(KeptFile),
    /// Close a descriptor.
    DropFile(KeptFile),
    /// Requests are being answered.
    Serving,
    /// A request has been answered.
    Answered,
    /// The mount has ended; the worker is about to.
    Over,
    /// The command that started the mount has ended: leave its terminal.
    LeaveTerminal,
    /// Go on with another program; the descriptor is the connection to the command that waits for it.
    Reload(#[serde(with = "crate::sys::path_bytes")] PathBuf),
}

impl Message {
    /// Whether the worker waits until the supervisor has it.
    pub(super) fn is_acknowledged(&self) -> bool {
        match self {
            Message::Connection(_)
            | Message::Place(_)
            | Message::Log
            | Message::Counts
            | Message::Intents
            | Message::Holders
            | Message::Recent
            | Message::Reload(_) => true,
            Message::File(_)
            | Message::DropFile(_)
            | Message::Serving
            | Message::Answered
            | Message::Over
            | Message::LeaveTerminal => false,
        }
    }
}

/// Where a mount is, and what it was found to be when it was made.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct MountPlace {
    /// The mount point, absolute and without symlinks.
    #[serde(with = "crate::sys::path_bytes")]
    pub mountpoint: PathBuf,
    /// The directory of the workspace.
    #[serde(with = "crate::sys::path_bytes")]
    pub workspace: PathBuf,
    /// The number of the mount's device.
    pub device: Device,
    /// Which mount it is.
    pub id: UniqueId,
    /// When it was mounted, in seconds since 1970.
    pub since: i64,
    /// Whether no other mount of this machine served the primary.
    pub alone: bool,
}

/// The longest message, in bytes: the kernel's request for a connection is a few hundred, as JSON.
const LENGTH_MAX: usize = 64 * 1024;

/// Sends a message.
pub(super) fn send(
    to: BorrowedFd<'_>,
    message: &Message,
    descriptor: Option<BorrowedFd<'_>>,
) -> io::Result<()> {
    let bytes = serde_json::to_vec(message)?;
    let descriptors: Vec<BorrowedFd<'_>> = descriptor.into_iter().collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() {
        control.push(SendAncillaryMessage::ScmRights(&descriptors));
    }
    let part = [IoSlice::new(&bytes)];
    rustix::net::sendmsg(to, &part, &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// Memory for the longest message, so that none is allocated when memory is short.
pub(super) fn buffer() -> Vec<u8> {
    vec![0; LENGTH_MAX]
}

/// The next message; `None` if the worker has ended. Its descriptor is missing if this process has too many open.
pub(super) fn receive(
    from: BorrowedFd<'_>,
    bytes: &mut [u8],
) -> io::Result<Option<(Message, Option<OwnedFd>)>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = loop {
        let mut part = [IoSliceMut::new(bytes)];
        match rustix::net::recvmsg(from, &mut part, &mut control, RecvFlags::CMSG_CLOEXEC) {
            Err(Errno::INTR) => {}
            Err(Errno::CONNRESET) => return Ok(None),
            result => break result?,
        }
    };
    if received.bytes == 0 {
        return Ok(None);
    }
    let mut descriptor = None;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(descriptors) = message {
            descriptor = descriptors.last();
        }
    }
    let bytes = bytes.get(..received.bytes).unwrap_or_default();
    Ok(Some((serde_json::from_slice(bytes)?, descriptor)))
}

/// The answers to a message.
const KEPT: u8 = b'+';
const NOT_KEPT: u8 = b'-';

/// Answers a message that a worker waits for.
pub(super) fn acknowledge(to: BorrowedFd<'_>, is_kept: bool) {
    let answer = if is_kept { KEPT } else { NOT_KEPT };
    // A worker that has ended needs none.
    let _ = rustix::net::send(to, &[answer], SendFlags::NOSIGNAL | SendFlags::DONTWAIT);
}

/// Waits until a message is acknowledged. Fails if the supervisor could not keep its descriptor.
pub(super) fn wait_for_acknowledgement(from: &impl AsFd) -> io::Result<()> {
    let mut byte = [0];
    match rustix::net::recv(from, &mut byte[..], RecvFlags::empty())?.0 {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ if byte == [KEPT] => Ok(()),
        _ => Err(rustix::io::Errno::MFILE.into()),
    }
}
