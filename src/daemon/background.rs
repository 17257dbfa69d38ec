//! A daemon in the background: a process starts itself again, and waits until the mount answers.
//!
//! No fork: the daemon is a process of its own from the start. Its standard input is one end of a socket pair over which the two speak, a
//! JSON object a line:
//!
//! ```text
//! daemon → starter   {"attached": true}        mounted, and requests are being answered
//!                    {"failed": "a sentence"}  it could not be
//! starter → daemon   {"ready": true}           the mount has answered: write no more to the terminal
//! ```
//!
//! Until `ready`, the daemon stays in the starter's process group, and then begins a session of its own. Where autofs or a systemd
//! automount unit has called mount(8), only processes of that group may look at the mount point before the mount is there: every other
//! process waits in the kernel until the starter has ended.
//!
//! The starter asks the mount itself, since the daemon must not walk into its own mount. If the starter goes away
//! without `ready` (Ctrl-C), the daemon unmounts and ends. Until `ready` the daemon's standard error is the starter's.

use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};
use serde::{Deserialize, Serialize};
use signal_hook::consts::SIGTERM;

use super::attach::{How, detach};
use super::descriptors;
use super::health::{self, MountHealth};
use super::log;
use super::mounts::{self, MountInfo};
use super::signals::Stopper;
use super::supervisor::Link;
use crate::sys::deadline::wait_until;

/// How long a daemon may take until it has mounted, and how long the mount may take to reply.
const MOUNT_TIMEOUT: Duration = Duration::from_secs(60);

/// A message from the daemon.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Message {
    Attached(bool),
    Failed(String),
}

/// Why there is no mount in the background.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// What the daemon said.
    #[error("{0}")]
    Failed(String),
    /// It died.
    #[error("the process that was to serve {} {how} before the mount was ready: see its log ({log})", .mountpoint.display())]
    Died {
        /// Where.
        mountpoint: PathBuf,
        /// Its exit status.
        how: String,
        /// Where its log is.
        log: String,
    },
    /// It took too long.
    #[error("{} did not answer within {} s and was taken away again: is the disk beneath it slow or gone? See the log ({log})", .mountpoint.display(), MOUNT_TIMEOUT.as_secs())]
    TooSlow {
        /// Where.
        mountpoint: PathBuf,
        /// Where its log is.
        log: String,
    },
    /// Whether the mount answers could not be asked.
    #[error("the mount was taken away again: cannot start the process that asks it: {0}")]
    Probe(#[source] io::Error),
    /// It could not be started.
    #[error("cannot start the process that serves the mount: {0}")]
    Start(#[from] io::Error),
}

/// The processes of a launch.
#[derive(Debug)]
pub struct Launch {
    /// Serves the mount, and sends messages to this process through [`Parent`].
    pub daemon: Command,
    /// Ends with exit status 0 when the mount answers ([`health::answers`]). A separate process: a process
    /// that waits for a request that a daemon has read and does not answer cannot be killed, and this one must be able to end.
    pub probe: Command,
}

/// Starts a daemon that serves `mountpoint` (absolute), and waits until the mount answers. `log` is the path of its log, for
/// messages. Returns the daemon's process id.
///
/// # Errors
///
/// The daemon's reason, word for word, or what became of it; nothing stays mounted then.
pub fn launch(launch: Launch, mountpoint: &Path, log: &str) -> Result<u32, LaunchError> {
    let Launch { mut daemon, probe } = launch;
    let (ours, theirs) = UnixStream::pair()?;
    let mut child = daemon
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::null())
        .spawn()?;
    // Their end must be in the daemon alone, or its end would not be seen.
    drop(daemon);
    let too_slow = || LaunchError::TooSlow {
        mountpoint: mountpoint.to_owned(),
        log: log.to_owned(),
    };
    match listen(&ours) {
        Ok(Some(Message::Attached(_))) => match answers_in_time(probe, mountpoint) {
            Ok(true) => {
                // If it died this very moment, the mount says so itself.
                let _ = (&ours).write_all(b"{\"ready\":true}\n");
                Ok(child.id())
            }
            Ok(false) => {
                take_away(&mut child, mountpoint);
                Err(too_slow())
            }
            Err(error) => {
                take_away(&mut child, mountpoint);
                Err(LaunchError::Probe(error))
            }
        },
        Ok(Some(Message::Failed(reason))) => {
            end(&mut child);
            clear_dead(mountpoint);
            Err(LaunchError::Failed(reason))
        }
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            take_away(&mut child, mountpoint);
            Err(too_slow())
        }
        Ok(None) | Err(_) => {
            let how = end(&mut child).map_or_else(|| "does not answer".into(), describe);
            clear_dead(mountpoint);
            Err(LaunchError::Died {
                mountpoint: mountpoint.to_owned(),
                how,
                log: log.to_owned(),
            })
        }
    }
}

/// The daemon's next message; `None` if it ends without one.
fn listen(stream: &UnixStream) -> io::Result<Option<Message>> {
    stream.set_read_timeout(Some(MOUNT_TIMEOUT))?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    Ok(serde_json::from_str(&line).ok())
}

/// Whether an xpmfs mount at `mountpoint` answers the probe in time. A probe that hangs is left behind: it ends with the daemon.
///
/// # Errors
///
/// The probe cannot be started.
pub fn answers_in_time(mut probe: Command, mountpoint: &Path) -> io::Result<bool> {
    let mut probe = probe.stdin(Stdio::null()).stdout(Stdio::null()).spawn()?;
    let mut answered = false;
    wait_until(MOUNT_TIMEOUT, || match probe.try_wait() {
        Ok(None) => false,
        Ok(Some(status)) => {
            answered = status.success();
            true
        }
        Err(_) => true,
    });
    Ok(answered && matches!(mounts::top_at(mountpoint), Ok(Some(top)) if top.is_xpmfs()))
}

/// Ends a daemon that does not get ready, and what it has mounted.
fn take_away(child: &mut Child, mountpoint: &Path) {
    signal(child, Signal::TERM);
    if !wait_until(Duration::from_secs(2), || has_ended(child)) {
        signal(child, Signal::KILL);
    }
    end(child);
    clear_dead(mountpoint);
}

/// Takes away what a daemon that has ended has left mounted.
fn clear_dead(mountpoint: &Path) {
    if matches!(mounts::top_at(mountpoint), Ok(Some(top)) if is_dead(&top)) {
        // If it stays, the next mount finds it dead and clears it.
        let _ = detach(mountpoint, How::Lazy);
    }
}

fn is_dead(mount: &MountInfo) -> bool {
    mount.is_xpmfs() && health::of(mount) == MountHealth::Dead
}

/// Waits a little for the child's end, and then enforces it. Its exit status, if it came by itself.
fn end(child: &mut Child) -> Option<ExitStatus> {
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(5) {
        if let Ok(Some(status)) = child.try_wait() {
            return Some(status);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    signal(child, Signal::KILL);
    None
}

fn has_ended(child: &mut Child) -> bool {
    !matches!(child.try_wait(), Ok(None))
}

fn signal(child: &Child, signal: Signal) {
    if let Ok(pid) = i32::try_from(child.id())
        && let Some(pid) = Pid::from_raw(pid)
    {
        // It has not been waited for, so the number is still its own; it may have ended already.
        let _ = rustix::process::kill_process(pid, signal);
    }
}

fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("ended with exit status {code}"),
        (None, Some(signal)) => format!("was killed by signal {signal}"),
        (None, None) => "ended".to_owned(),
    }
}

/// The daemon's side: the process that started it and waits.
#[derive(Debug)]
pub struct Parent {
    stream: UnixStream,
}

impl Parent {
    /// Takes the socket on standard input.
    ///
    /// # Errors
    ///
    /// Standard input is not a socket: the process was not started by [`launch`].
    pub fn from_stdin() -> io::Result<Self> {
        let stdin = rustix::stdio::stdin();
        rustix::net::sockopt::socket_peercred(stdin)?;
        // Otherwise a file that a shell has left open (`exec 9>file`) would stay open for as long as the daemon serves.
        descriptors::close(&descriptors::inherited());
        let stream = UnixStream::from(stdin.try_clone_to_owned()?);
        descriptors::close_input()?;
        // Started as /proc/self/exe, its name would be `exe` in ps(1) and in the journal. A wrong name is not an error.
        let _ = rustix::thread::set_name(c"xpmfs");
        Ok(Self { stream })
    }

    /// Reports why the mount failed.
    pub fn failed(&self, reason: &str) {
        send(&self.stream, &Message::Failed(reason.to_owned()));
    }

    /// A second handle, to report a failure after `Parent::watch` has taken the first.
    ///
    /// # Errors
    ///
    /// Out of descriptors.
    pub fn try_clone(&self) -> io::Result<Self> {
        let stream = self.stream.try_clone()?;
        Ok(Self { stream })
    }

    /// Waits for the starter's `ready` in a thread, and then leaves its session and the terminal. If the starter ends without it, the mount is
    /// ended.
    pub(super) fn watch(
        self,
        stopper: Arc<Stopper>,
        link: Option<Arc<Link>>,
    ) -> io::Result<Announcer> {
        let stream = self.stream.try_clone()?;
        std::thread::Builder::new()
            .name("starter".into())
            .spawn(move || {
                let mut line = String::new();
                let heard = BufReader::new(&stream).read_line(&mut line);
                if heard.is_ok_and(|bytes| bytes > 0) {
                    // Fails only if it leads a session already.
                    let _ = rustix::process::setsid();
                    detach_terminal();
                    if let Some(link) = link {
                        link.close_terminal();
                    }
                } else {
                    tracing::warn!("the command that waited for the mount was ended");
                    stopper.stop(SIGTERM);
                    // No command has reported this mount to a user, so requests that still run do not keep it.
                    std::thread::sleep(Duration::from_secs(2));
                    stopper.stop(SIGTERM);
                }
            })?;
        Ok(Announcer {
            stream: self.stream,
        })
    }
}

/// Reports to the starter that the mount is attached.
#[derive(Debug)]
pub(super) struct Announcer {
    stream: UnixStream,
}

impl Announcer {
    pub(super) fn attached(&self) {
        send(&self.stream, &Message::Attached(true));
    }
}

fn send(mut stream: &UnixStream, message: &Message) {
    if let Ok(mut line) = serde_json::to_vec(message) {
        line.push(b'\n');
        // If the starter has ended, the watching thread notices it too.
        let _ = stream.write_all(&line);
    }
}

/// Opens nothing but `/dev/null`, which is not in the mount.
fn detach_terminal() {
    log::close_stderr();
    if let Err(error) = descriptors::close_output() {
        tracing::warn!("cannot close the terminal: {error}");
    }
}
