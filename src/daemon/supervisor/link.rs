//! The worker's end of the connection to its supervisor.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use rustix::net::sockopt::{Timeout, set_socket_timeout};

use super::message::{self, Message, MountPlace};
use crate::mount::{Agreed, Connection, Inheritance, Keeper, KeptFile};

/// How long a worker waits for its supervisor.
const TIMEOUT: Duration = Duration::from_secs(2);

/// What a worker takes over from one that has died.
#[derive(Debug)]
pub struct Resumed {
    /// The connection to the kernel.
    pub connection: Connection,
    /// What the other one had open.
    pub inheritance: Inheritance,
    /// The primary's directory, beneath the mount.
    pub primary: OwnedFd,
    /// The programs that hold the mount.
    pub holders: Option<OwnedFd>,
    /// Where the mount is.
    pub place: MountPlace,
}

/// A worker's connection to its supervisor.
#[derive(Debug)]
pub struct Link {
    socket: Mutex<OwnedFd>,
    resumed: Mutex<Option<Resumed>>,
    serving: AtomicBool,
}

impl Link {
    pub(super) fn new(socket: OwnedFd, resumed: Option<Resumed>) -> Link {
        for direction in [Timeout::Send, Timeout::Recv] {
            // Without a limit, a supervisor that was stopped would hold up requests.
            let _ = set_socket_timeout(&socket, direction, Some(TIMEOUT));
        }
        Link {
            socket: Mutex::new(socket),
            resumed: Mutex::new(resumed),
            serving: AtomicBool::new(false),
        }
    }

    /// What this worker takes over; `None` for a new mount, and after the first call.
    pub fn take_resumed(&self) -> Option<Resumed> {
        self.resumed.lock().take()
    }

    /// Keeps where the mount is, and the primary's directory beneath it.
    ///
    /// # Errors
    ///
    /// The supervisor does not reply.
    pub fn keep_place(&self, place: &MountPlace, primary: BorrowedFd<'_>) -> io::Result<()> {
        self.keep(&Message::Place(place.clone()), primary)
    }

    /// Keeps the programs that hold the mount.
    ///
    /// # Errors
    ///
    /// The supervisor does not reply.
    pub fn keep_holders(&self, holders: BorrowedFd<'_>) -> io::Result<()> {
        self.keep(&Message::Holders, holders)
    }

    /// Reports that requests are being answered.
    pub fn serving(&self) {
        self.serving.store(true, Ordering::Release);
        self.report(&Message::Serving, None);
    }

    /// Whether [`Link::serving`] was called.
    pub fn is_serving(&self) -> bool {
        self.serving.load(Ordering::Acquire)
    }

    /// Asks the supervisor to go on with another program. The supervisor answers the command at the other end of `client`.
    ///
    /// # Errors
    ///
    /// The supervisor has ended, or has too many descriptors open (`EMFILE`).
    pub fn reload(&self, program: &Path, client: BorrowedFd<'_>) -> io::Result<()> {
        self.keep(&Message::Reload(program.to_owned()), client)
    }

    /// Reports that the mount has ended.
    pub fn over(&self) {
        self.report(&Message::Over, None);
    }

    /// Reports that the command that started the mount has ended.
    pub fn close_terminal(&self) {
        self.report(&Message::LeaveTerminal, None);
    }

    fn keep(&self, message: &Message, descriptor: BorrowedFd<'_>) -> io::Result<()> {
        let socket = self.socket.lock();
        message::send(socket.as_fd(), message, Some(descriptor))?;
        message::wait_for_acknowledgement(&*socket)
    }

    /// Sends what is not acknowledged. Without a supervisor, this process serves the mount alone.
    fn report(&self, message: &Message, descriptor: Option<BorrowedFd<'_>>) {
        let socket = self.socket.lock();
        if let Err(error) = message::send(socket.as_fd(), message, descriptor) {
            tracing::debug!("the supervisor cannot be reached: {error}");
        }
    }
}

impl Keeper for Link {
    fn keep_connection(&self, connection: &Connection, agreed: &Agreed) -> io::Result<()> {
        let message = Message::Connection(agreed.clone());
        self.keep(&message, connection.device().as_fd())
    }

    fn keep_log(&self, log: BorrowedFd<'_>) -> io::Result<()> {
        self.keep(&Message::Log, log)
    }

    fn keep_counts(&self, counts: BorrowedFd<'_>) -> io::Result<()> {
        self.keep(&Message::Counts, counts)
    }

    fn keep_intents(&self, intents: BorrowedFd<'_>) -> io::Result<()> {
        self.keep(&Message::Intents, intents)
    }

    fn keep_recent(&self, recent: BorrowedFd<'_>) -> io::Result<()> {
        self.keep(&Message::Recent, recent)
    }

    fn keep_file(&self, key: KeptFile, file: BorrowedFd<'_>) {
        self.report(&Message::File(key), Some(file));
    }

    fn drop_file(&self, key: KeptFile) {
        self.report(&Message::DropFile(key), None);
    }

    fn answered(&self) {
        self.report(&Message::Answered, None);
    }
}
