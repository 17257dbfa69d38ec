//! The connection to the kernel, and what was agreed with the kernel when it began.
//!
//! The kernel begins a connection with one request (`FUSE_INIT`) and never repeats it. fuser waits for this request. So
//! the request is passed to fuser through a socket, as it was or, for a connection that is continued, limited to what
//! was agreed; then the device takes the place of the socket.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use crate::sys::fuse::replace_descriptor;

/// An open `/dev/fuse` that has been mounted.
#[derive(Debug)]
pub struct Connection {
    device: Arc<OwnedFd>,
    agreed: Option<Agreed>,
}

/// What the kernel and the first process have agreed on.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Agreed {
    /// The kernel's request.
    request: Vec<u8>,
    /// The first process's reply.
    reply: Vec<u8>,
}

/// The lengths of the headers, and the places of fields in `struct fuse_init_in` and `fuse_init_out`, with their headers
/// (the kernel's `fuse.h`).
const REQUEST_MINOR: usize = 44;
const REQUEST_FLAGS: usize = 52;
const REQUEST_FLAGS2: usize = 56;
const REPLY_FLAGS: usize = 28;
const REPLY_FLAGS2: usize = 48;

/// `FUSE_INIT_EXT`: the second word of flags is valid.
const INIT_EXT: u32 = 1 << 30;

/// The minor version of the protocol since which the kernel sends pending requests again when it is asked
/// (`FUSE_NOTIFY_RESEND`).
const RESEND_SINCE: u32 = 40;

/// The codes of notifications.
const NOTIFY_INVAL_INODE: i32 = 2;
const NOTIFY_RESEND: i32 = 7;
const NOTIFY_INC_EPOCH: i32 = 8;

/// The length of the header of a message to the kernel.
const HEADER: usize = 16;

/// The kernel refuses to send a request to a smaller buffer.
const BUFFER: usize = 64 * 1024;

impl Connection {
    /// A connection that begins.
    #[must_use]
    pub fn new(device: OwnedFd) -> Connection {
        Connection {
            device: Arc::new(device),
            agreed: None,
        }
    }

    /// A connection that another process has begun.
    #[must_use]
    pub fn continued(device: OwnedFd, agreed: Agreed) -> Connection {
        Connection {
            device: Arc::new(device),
            agreed: Some(agreed),
        }
    }

    /// The device.
    #[must_use]
    pub fn device(&self) -> &Arc<OwnedFd> {
        &self.device
    }

    /// Makes fuser's session of this connection. Returns what was agreed.
    ///
    /// # Errors
    ///
    /// The connection has ended, or the kernel's version is not supported.
    pub fn session<F: fuser::Filesystem>(
        &self,
        file_system: F,
        config: fuser::Config,
    ) -> io::Result<(fuser::Session<F>, Agreed)> {
        let (ours, theirs) = rustix::net::socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )?;
        let request = match &self.agreed {
            Some(agreed) => agreed.limited(),
            None => receive(self.device.as_fd())?,
        };
        send(ours.as_fd(), &request)?;
        // The kernel itself keeps other users out unless `allow_other` is set.
        let acl = fuser::SessionACL::All;
        let session = fuser::Session::from_fd(file_system, theirs, acl, config)?;
        let reply = receive(ours.as_fd())?;
        let agreed = match &self.agreed {
            Some(agreed) => agreed.clone(),
            None => {
                send(self.device.as_fd(), &reply)?;
                Agreed { request, reply }
            }
        };
        replace_descriptor(session.as_fd(), &*self.device)?;
        Ok((session, agreed))
    }

    /// Makes the kernel look all names up anew, and send the requests again that the previous process has not answered.
    ///
    /// # Errors
    ///
    /// The kernel cannot do so.
    pub(in crate::mount) fn take_over(&self) -> io::Result<()> {
        // Before 6.16, cached names are used until their time is over.
        if let Err(error) = notify(self.device.as_fd(), NOTIFY_INC_EPOCH, &[]) {
            tracing::debug!(%error, "the kernel keeps cached names");
        }
        notify(self.device.as_fd(), NOTIFY_RESEND, &[])
    }
}

/// Returns whether the kernel knows a node, whose attributes it requests again. fuser does not pass this answer on.
pub(super) fn is_known(device: impl AsFd, node: u64) -> bool {
    // `struct fuse_notify_inval_inode_out`: the node, a negative offset to keep the contents, and a length.
    let [node, offset, length] = [node, u64::MAX, 0].map(u64::to_ne_bytes);
    let body = [node, offset, length].concat();
    let sent = notify(device.as_fd(), NOTIFY_INVAL_INODE, &body);
    !sent.is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
}

fn notify(device: BorrowedFd<'_>, code: i32, body: &[u8]) -> io::Result<()> {
    // `struct fuse_out_header`: length, code, and 0 in place of a request's number.
    let mut message = vec![0; HEADER];
    let length = u32::try_from(HEADER + body.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    message[..4].copy_from_slice(&length.to_ne_bytes());
    message[4..8].copy_from_slice(&code.to_ne_bytes());
    message.extend_from_slice(body);
    send(device, &message)
}

impl Agreed {
    /// Whether the kernel can continue this connection with another process.
    #[must_use]
    pub fn can_be_continued(&self) -> bool {
        word(&self.request, REQUEST_MINOR).is_some_and(|minor| minor >= RESEND_SINCE)
    }

    /// The kernel's request, with the capabilities only that were agreed.
    fn limited(&self) -> Vec<u8> {
        let mut request = self.request.clone();
        for (ask, got, always) in [
            (REQUEST_FLAGS, REPLY_FLAGS, INIT_EXT),
            (REQUEST_FLAGS2, REPLY_FLAGS2, 0),
        ] {
            let agreed = word(&self.reply, got).unwrap_or(0) | always;
            if let Some(offered) = word(&request, ask)
                && let Some(bytes) = request.get_mut(ask..ask + 4)
            {
                bytes.copy_from_slice(&(offered & agreed).to_ne_bytes());
            }
        }
        request
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at + 4)?.try_into().ok()?;
    Some(u32::from_ne_bytes(bytes))
}

fn receive(from: BorrowedFd<'_>) -> io::Result<Vec<u8>> {
    let mut buffer = vec![0; BUFFER];
    loop {
        match rustix::io::read(from, &mut buffer) {
            Ok(count) if count < 16 => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => {
                buffer.truncate(count);
                return Ok(buffer);
            }
            // The kernel returns ENOENT for a request that was interrupted.
            Err(Errno::INTR | Errno::NOENT | Errno::AGAIN) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn send(to: BorrowedFd<'_>, message: &[u8]) -> io::Result<()> {
    rustix::io::write(to, message)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_continued_connection_offers_what_was_agreed() {
        let mut request = vec![0_u8; 104];
        let mut reply = vec![0_u8; 80];
        let set = |bytes: &mut Vec<u8>, at: usize, value: u32| {
            bytes[at..at + 4].copy_from_slice(&value.to_ne_bytes());
        };
        set(&mut request, REQUEST_MINOR, 44);
        set(&mut request, REQUEST_FLAGS, u32::MAX);
        set(&mut request, REQUEST_FLAGS2, u32::MAX);
        set(&mut reply, REPLY_FLAGS, 0b101);
        set(&mut reply, REPLY_FLAGS2, 0b10);
        let agreed = Agreed { request, reply };
        assert!(agreed.can_be_continued());
        let limited = agreed.limited();
        assert_eq!(word(&limited, REQUEST_FLAGS), Some(0b101 | INIT_EXT));
        assert_eq!(word(&limited, REQUEST_FLAGS2), Some(0b10));
        assert_eq!(limited.len(), 104);
    }
}
