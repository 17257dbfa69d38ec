//! A command's end of the control socket.

use std::io::{self, IoSliceMut, Write};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout, socket_peercred};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketAddrUnix,
    SocketFlags, SocketType,
};
use serde_json::{Value, json};

use super::{LONGEST_FOREIGN_REPLY, LONGEST_REPLY, SocketName, VERSION, directory};
use crate::daemon::REPLY_TIMEOUT;
use crate::daemon::mounts::{Device, MountInfo};
use crate::sys::deadline::all_within;
use crate::sys::printable::printable;
use crate::sys::shell_word::shell_word;

/// Why the daemon did not answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No daemon listens for this mount.
    #[error("no daemon listens for this mount: it has ended, or belongs to another user")]
    NoDaemon,
    /// No daemon listens for this mount.
    #[error("{}", ended(.user.as_deref(), .mountpoint))]
    Ended {
        /// Whose the mount is, if it is another user's.
        user: Option<String>,
        /// Where it is.
        mountpoint: PathBuf,
    },
    /// The daemon runs as another user, and what it hands out cannot be compared with what the kernel has.
    #[error(
        "the mount belongs to the user `{user}`, and only that user's own word or the kernel's says what lies beneath it: run this as `{user}`, or as root with CAP_SYS_ADMIN"
    )]
    NotBelieved {
        /// Whose the mount is.
        user: String,
    },
    /// The daemon of another user hands out a directory that is not beneath its mount.
    #[error(
        "the daemon of the user `{user}` hands out another directory than the one that lies beneath {}: nothing is done there; unmount it first (`umount -l {}`)", printable(&.mountpoint.to_string_lossy()), printable(&shell_word(.mountpoint))
    )]
    OtherDirectory {
        /// Whose the mount is.
        user: String,
        /// Where it is.
        mountpoint: PathBuf,
    },
    /// It does not answer in time.
    #[error("the mount's daemon does not answer: look at its log")]
    Silent,
    /// It answered with an error.
    #[error("the mount's daemon answered: {0}")]
    Refused(String),
    /// It answered something that is not understood.
    #[error(
        "the mount's daemon answered something that is not understood: mount anew with this version of xpmfs"
    )]
    Nonsense,
    /// Any other trouble with the socket.
    #[error("cannot ask the mount's daemon: {0}")]
    Io(#[source] io::Error),
}

impl ClientError {
    /// Names the mount that no daemon listens for.
    #[must_use]
    pub fn of(self, mount: &MountInfo) -> Self {
        match self {
            Self::NoDaemon => Self::Ended {
                user: mount.other_owner(),
                mountpoint: mount.mountpoint.clone(),
            },
            error => error,
        }
    }
}

fn ended(user: Option<&str>, mountpoint: &Path) -> String {
    let mountpoint = printable(&shell_word(mountpoint)).into_owned();
    match user {
        None => format!("the daemon has ended: `xpmfs umount {mountpoint}` clears the dead mount"),
        Some(user) => format!(
            "the mount belongs to the user `{user}`, and its daemon has ended or is closed to this user: `{user}` or root \
             clears a dead mount with `xpmfs umount {mountpoint}`"
        ),
    }
}

impl From<io::Error> for ClientError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Self::Silent,
            io::ErrorKind::ConnectionReset
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::UnexpectedEof
            | io::ErrorKind::NotFound
            | io::ErrorKind::ConnectionRefused => Self::NoDaemon,
            _ => Self::Io(error),
        }
    }
}

/// How many processes that archive and mount nothing are asked.
const MOST_ARCHIVERS: usize = 64;

/// A connection to the daemon that serves a mount.
#[derive(Debug)]
pub struct Client {
    stream: UnixStream,
    /// The longest reply that is read, in bytes.
    longest: usize,
    pid: Option<i32>,
}

impl Client {
    /// Connects to the daemon of the mount with this device number, which runs as the user `owner`.
    /// A stale socket stays: the next daemon with this number replaces it, and removing it here could remove the replacement.
    ///
    /// # Errors
    ///
    /// [`ClientError::NoDaemon`] if there is none; the other kinds.
    pub fn connect(device: Device, owner: Option<u32>) -> Result<Self, ClientError> {
        let end = Instant::now() + REPLY_TIMEOUT;
        let mut problem = ClientError::NoDaemon;
        for (directory, user) in directory::of(owner) {
            let path = directory.join(SocketName::Mount(device).file_name());
            match connect(&path, end.saturating_duration_since(Instant::now())) {
                Ok(stream) => match Self::check(stream, user) {
                    Ok(client) => return Ok(client),
                    Err(error) => problem = error.into(),
                },
                Err(Errno::AGAIN) => problem = ClientError::Silent,
                Err(_) => {}
            }
        }
        Err(problem)
    }

    /// What each process of this user that archives and mounts nothing replies to `request`, with its connection. All are
    /// asked at once and within [`REPLY_TIMEOUT`]; those that do not reply are left out.
    #[must_use]
    pub fn ask_archivers(request: &'static str) -> Vec<(Self, Value)> {
        let sockets = directory::of(None).into_iter().flat_map(|(at, user)| {
            let paths = directory::archivers(&at).into_iter();
            paths.map(move |path| (path, user))
        });
        let questions = sockets.take(MOST_ARCHIVERS).map(|(path, user)| {
            move || {
                let stream = connect(&path, REPLY_TIMEOUT).ok()?;
                let mut client = Self::check(stream, user).ok()?;
                let reply = client.request(request).ok()?;
                Some((client, reply))
            }
        });
        let replies = all_within(REPLY_TIMEOUT, questions);
        replies.into_iter().flatten().flatten().collect()
    }

    /// Only the user whose directory a socket is in can be the daemon: a symlink in it could lead to the socket of another.
    fn check(stream: UnixStream, user: u32) -> io::Result<Self> {
        let peer = socket_peercred(&stream)?;
        if peer.uid.as_raw() != user {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        // 0 for a process that our pid namespace does not have.
        let pid = peer.pid.as_raw_pid();
        Ok(Self {
            stream,
            longest: match user == rustix::process::geteuid().as_raw() {
                true => LONGEST_REPLY,
                false => LONGEST_FOREIGN_REPLY,
            },
            pid: (pid > 0).then_some(pid),
        })
    }

    /// The daemon's process id, as this process's pid namespace has it.
    #[must_use]
    pub fn pid(&self) -> Option<i32> {
        self.pid
    }

    /// Asks, and gives the reply, within [`REPLY_TIMEOUT`].
    ///
    /// # Errors
    ///
    /// No reply in time, an error as the reply, or none that is understood.
    pub fn request(&mut self, request: &str) -> Result<Value, ClientError> {
        self.exchange(
            &json!({"version": VERSION, "request": request}),
            REPLY_TIMEOUT,
        )
        .map(|(reply, _)| reply)
    }

    /// The primary's root directory, which reaches what is beneath an in-place mount.
    ///
    /// # Errors
    ///
    /// As [`Client::request`].
    pub fn primary(&mut self) -> Result<OwnedFd, ClientError> {
        let request = json!({"version": VERSION, "request": "primary"});
        let (_, descriptor) = self.exchange(&request, REPLY_TIMEOUT)?;
        descriptor.ok_or(ClientError::Nonsense)
    }

    /// Sends any request (see the module's protocol) and gives the reply, and the descriptor that came with it.
    ///
    /// # Errors
    ///
    /// As [`Client::request`], with `limit` for the whole exchange.
    pub fn exchange(
        &mut self,
        request: &Value,
        limit: Duration,
    ) -> Result<(Value, Option<OwnedFd>), ClientError> {
        let end = Instant::now() + limit;
        let mut line = request.to_string().into_bytes();
        line.push(b'\n');
        self.stream.set_write_timeout(Some(limit))?;
        self.stream.write_all(&line)?;
        let (line, descriptor) = self.receive(end)?;
        let mut reply: Value = serde_json::from_slice(&line).map_err(|_| ClientError::Nonsense)?;
        if let Some(error) = reply.get("error") {
            let error = error
                .as_str()
                .map_or_else(|| error.to_string(), str::to_owned);
            return Err(ClientError::Refused(error));
        }
        let reply = reply.get_mut("reply").ok_or(ClientError::Nonsense)?;
        Ok((reply.take(), descriptor))
    }

    fn receive(&self, end: Instant) -> Result<(Vec<u8>, Option<OwnedFd>), ClientError> {
        let mut line = Vec::new();
        let mut descriptor = None;
        let mut buffer = vec![0; 64 * 1024];
        while line.last() != Some(&b'\n') {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(ClientError::Silent);
            }
            if line.len() > self.longest {
                return Err(ClientError::Nonsense);
            }
            self.stream.set_read_timeout(Some(left))?;
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let received = rustix::net::recvmsg(
                &self.stream,
                &mut [IoSliceMut::new(&mut buffer)],
                &mut control,
                RecvFlags::CMSG_CLOEXEC,
            )
            .map_err(io::Error::from)?;
            for message in control.drain() {
                if let RecvAncillaryMessage::ScmRights(mut descriptors) = message {
                    descriptor = descriptors.next();
                }
            }
            if received.bytes == 0 {
                return Err(ClientError::NoDaemon);
            }
            line.extend_from_slice(buffer.get(..received.bytes).unwrap_or_default());
        }
        Ok((line, descriptor))
    }
}

/// Whether a socket's process is gone.
pub(super) fn is_stale(path: &Path) -> bool {
    matches!(connect(path, REPLY_TIMEOUT), Err(Errno::CONNREFUSED))
}

/// Connects with a deadline: a stuck daemon accepts no client once its backlog is full.
fn connect(path: &Path, limit: Duration) -> Result<UnixStream, Errno> {
    // Zero would be no limit.
    let limit = limit.max(Duration::from_millis(1));
    let address = SocketAddrUnix::new(path)?;
    let socket = rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )?;
    set_socket_timeout(&socket, Timeout::Send, Some(limit))?;
    rustix::net::connect(&socket, &address)?;
    Ok(UnixStream::from(socket))
}
