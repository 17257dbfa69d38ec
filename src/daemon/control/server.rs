//! The daemon's end of the control socket.

use std::fs;
use std::io::{self, BufRead, BufReader, IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use rustix::fs::{FlockOperation, Mode, OFlags, flock};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};

use super::answers::{Answers, Response};
use super::client::is_stale;
use super::{LONGEST_REQUEST, SocketName, directory};
use crate::daemon::sharing::register::ClientId;
use crate::sys::deadline::wait_until;

/// A client that sends nothing, or receives nothing, for this long is disconnected.
pub const CLIENT_TIMEOUT: Duration = Duration::from_secs(10);
/// A client that unmounts is connected, and sends nothing, until the mount has gone.
const UNMOUNT_TIMEOUT: Duration = Duration::from_secs(120);
/// How long a daemon waits for the lock on the directory of sockets.
const LOCK_TIMEOUT: Duration = Duration::from_secs(1);
/// How many clients are served at the same time; further ones are disconnected.
const MOST_CLIENTS: usize = 32;

/// A listening control socket; its file goes when this is dropped.
#[derive(Debug)]
pub struct Server {
    path: PathBuf,
    /// Distinguishes the file from another one that has replaced it.
    file: Option<SocketFile>,
}

/// A file's inode number and the time of its last change: numbers are used again.
type SocketFile = (u64, i64, i64);

fn socket_file(path: &Path) -> Option<SocketFile> {
    let meta = fs::symlink_metadata(path).ok()?;
    Some((meta.ino(), meta.ctime(), meta.ctime_nsec()))
}

impl Server {
    /// Listens for requests under this name, and answers them from threads of its own.
    ///
    /// # Errors
    ///
    /// No directory can hold the socket. Commands can then not query this process; everything else works.
    pub fn start(name: SocketName, answers: Answers) -> io::Result<Self> {
        let is_shared = answers
            .register
            .as_ref()
            .is_some_and(|register| register.is_shared());
        let directories = match is_shared {
            true => directory::lasting(),
            false => directory::own(),
        };
        let (path, listener) = listen(name, directories)?;
        // From here on, dropping this removes the file, also if no thread can be started.
        let server = Self {
            file: socket_file(&path),
            path,
        };
        let answers = Arc::new(answers);
        thread::Builder::new()
            .name("control".into())
            .spawn(move || accept(&listener, &answers))?;
        Ok(server)
    }

    /// The socket's file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Removes the socket's file, for a process that is about to end at once.
    pub fn remove(&self) {
        let _lock = self.path.parent().and_then(lock);
        // Device numbers and process ids are reused: another daemon may have the name by now.
        if self.file.is_some() && socket_file(&self.path) == self.file {
            // A failure has no remedy, and clients recognise a stale socket.
            let _ = fs::remove_file(&self.path);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.remove();
    }
}

/// Listens in the first directory that can be had.
fn listen(name: SocketName, directories: Vec<PathBuf>) -> io::Result<(PathBuf, UnixListener)> {
    let mut problem = io::Error::from(io::ErrorKind::NotFound);
    for directory in directories {
        let path = directory.join(name.file_name());
        match directory::prepare(&directory).and_then(|()| bind(&directory, &path)) {
            Ok(listener) => return Ok((path, listener)),
            Err(error) => {
                problem = io::Error::new(error.kind(), format!("{}: {error}", path.display()));
            }
        }
    }
    Err(problem)
}

/// Listens at `path` from the moment it is there: in the place of the stale socket of a daemon whose device number has been
/// given out anew, if there is one.
fn bind(directory: &Path, path: &Path) -> io::Result<UnixListener> {
    let _lock = lock(directory);
    // Their names, process ids, are not reused soon.
    for stale in directory::archivers(directory)
        .iter()
        .filter(|path| is_stale(path))
    {
        // If it stays, it does no harm.
        let _ = fs::remove_file(stale);
    }
    // Made under another name: until it listens, it refuses clients, as one does whose daemon is gone.
    let new = path.with_extension("new");
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&new)?;
    fs::rename(&new, path)?;
    Ok(listener)
}

/// A lock on the directory of sockets, held until it is dropped. `None` if it cannot be taken in time: then two daemons may
/// change the directory at once, which is better than waiting for a daemon that hangs.
fn lock(directory: &Path) -> Option<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = rustix::fs::open(directory, flags, Mode::empty()).ok()?;
    wait_until(LOCK_TIMEOUT, || {
        flock(&directory, FlockOperation::NonBlockingLockExclusive).is_ok()
    })
    .then_some(directory)
}

fn accept(listener: &UnixListener, answers: &Arc<Answers>) {
    let clients = Arc::new(AtomicUsize::new(0));
    for stream in listener.incoming() {
        let Ok(stream) = stream else {
            // Out of descriptors, most likely: it passes.
            thread::sleep(Duration::from_millis(100));
            continue;
        };
        if clients.fetch_add(1, Ordering::Relaxed) >= MOST_CLIENTS {
            clients.fetch_sub(1, Ordering::Relaxed);
            continue;
        }
        static NEXT_CLIENT: AtomicU64 = AtomicU64::new(0);
        let client = NEXT_CLIENT.fetch_add(1, Ordering::Relaxed);
        let (answers, count) = (answers.clone(), clients.clone());
        let spawned = thread::Builder::new()
            .name("control-client".into())
            .spawn(move || {
                if let Err(error) = converse(&stream, &answers, client) {
                    tracing::debug!("control socket: {error}");
                }
                answers.client_ended(client);
                count.fetch_sub(1, Ordering::Relaxed);
            });
        if spawned.is_err() {
            clients.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// Answers one client until it hangs up.
fn converse(stream: &UnixStream, answers: &Answers, client: ClientId) -> io::Result<()> {
    let peer = rustix::net::sockopt::socket_peercred(stream)?;
    let own = rustix::process::geteuid();
    if peer.uid != own && !peer.uid.is_root() {
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            format!("user {} may not ask", peer.uid.as_raw()),
        ));
    }
    stream.set_read_timeout(Some(CLIENT_TIMEOUT))?;
    stream.set_write_timeout(Some(CLIENT_TIMEOUT))?;
    let mut reader = BufReader::new(stream);
    loop {
        let mut line = Vec::new();
        reader
            .by_ref()
            .take(LONGEST_REQUEST as u64)
            .read_until(b'\n', &mut line)?;
        if line.is_empty() {
            return Ok(());
        }
        if line.pop() != Some(b'\n') {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
        }
        let Some(reply) = answers.answer(&line, client, stream.as_fd()) else {
            return Ok(());
        };
        if reply.permits_unmount() {
            stream.set_read_timeout(Some(UNMOUNT_TIMEOUT))?;
        }
        send(stream, &reply)?;
    }
}

/// Sends a reply; a descriptor goes with its first byte.
fn send(mut stream: &UnixStream, reply: &Response) -> io::Result<()> {
    let mut line = serde_json::to_vec(&reply.body)?;
    line.push(b'\n');
    let mut sent = 0;
    if let Some(descriptor) = &reply.descriptor {
        let descriptors = [descriptor.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        control.push(SendAncillaryMessage::ScmRights(&descriptors));
        sent = rustix::net::sendmsg(
            stream,
            &[IoSlice::new(&line)],
            &mut control,
            SendFlags::NOSIGNAL,
        )?;
    }
    stream.write_all(line.get(sent..).unwrap_or_default())
}
