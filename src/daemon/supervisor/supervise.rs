//! The supervisor's loop: keeps what the worker sends, passes signals on, and replaces a worker that was killed.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;
use std::time::Duration;

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::process::{Pid, WaitOptions, kill_process, waitpid};

use super::link::{Link, Resumed};
use super::message::{self, Message, Place};
use crate::daemon::attach::{How, detach};
use crate::daemon::run::raise_descriptor_limit;
use crate::daemon::{descriptors, log, service_manager};
use crate::mount::{Agreed, Connection, Inheritance, KeptFile};
use crate::sys::calls::fork;
use crate::sys::deadline::wait_until;

/// How many workers in a row may die without having answered a request.
const DEATHS_MAX: u32 = 3;

/// The signals that the supervisor takes; it ends when its worker does.
const SIGNALS: [Signal; 8] = [
    Signal::SIGTERM,
    Signal::SIGINT,
    Signal::SIGHUP,
    Signal::SIGQUIT,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGALRM,
    Signal::SIGXFSZ,
];

/// What a process is after [`start`].
pub enum Side {
    /// It serves the mount, and returns from [`start`] at once.
    Worker(Link),
    /// It was the supervisor, and the mount has ended with this status.
    Ended(ExitCode),
}

/// How a worker has ended.
enum Death {
    /// With an exit status: the mount has ended.
    Ended(i32),
    /// By a signal.
    Killed(i32),
}

/// How often the supervisor looks whether the worker was killed while a thread of it remains.
const LOOK_INTERVAL: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 500_000_000,
};

/// Whether a worker was killed and a thread of it remains, in a call of the kernel that cannot be interrupted. Such a thread may wait
/// for what only the next worker can answer, and keeps the socket open.
fn is_dying(worker: Pid) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", worker.as_raw_pid()));
    // Without `/proc`, or out of descriptors, it must count as alive: two workers on one connection would both change files.
    let Ok(stat) = stat else {
        return false;
    };
    // The state follows the name, which is in parentheses.
    let rest = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    rest.trim_start().starts_with(['Z', 'X'])
}

/// Waits for earlier workers whose last thread has ended by now.
fn reap() {
    while let Ok(Some(_)) = waitpid(None, WaitOptions::NOHANG) {}
}

/// What outlives a worker.
#[derive(Default)]
struct Estate {
    connection: Option<(OwnedFd, Agreed)>,
    place: Option<(Place, OwnedFd)>,
    log: Option<OwnedFd>,
    counts: Option<OwnedFd>,
    intents: Option<OwnedFd>,
    holders: Option<OwnedFd>,
    recent: Option<OwnedFd>,
    files: BTreeMap<KeptFile, OwnedFd>,
}

impl Estate {
    /// Whether another worker can serve on with it.
    fn is_complete(&self) -> bool {
        let memory = [&self.log, &self.counts, &self.intents, &self.recent];
        self.connection.is_some() && self.place.is_some() && memory.into_iter().all(Option::is_some)
    }

    /// What a worker takes over; `None` if it must begin.
    fn inherit(self) -> Option<Resumed> {
        let (device, agreed) = self.connection?;
        let (place, primary) = self.place?;
        Some(Resumed {
            connection: Connection::continued(device, agreed),
            inheritance: Inheritance {
                log: self.log?,
                counts: self.counts?,
                intents: self.intents?,
                recent: self.recent?,
                files: self.files.into_iter().collect(),
            },
            primary,
            holders: self.holders,
            place,
        })
    }
}

/// Divides this process, which must have one thread, into a supervisor and a worker.
///
/// # Errors
///
/// No process, socket or signal descriptor can be made; `EBUSY` if there are several threads.
pub fn start() -> io::Result<Side> {
    // It keeps descriptors for the worker.
    raise_descriptor_limit();
    let mask: SigSet = SIGNALS.into_iter().collect();
    mask.thread_block()?;
    let signals = SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
    let mut supervisor = Supervisor {
        estate: Estate::default(),
        stopping: false,
        over: false,
        deaths: 0,
    };
    loop {
        let (ours, theirs) = rustix::net::socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )?;
        let Some(worker) = fork_alone()? else {
            drop(ours);
            return supervisor.into_worker(theirs, &mask);
        };
        drop(theirs);
        let death = supervisor.watch(worker, &ours, &signals)?;
        reap();
        if let Some(code) = supervisor.end_of(death) {
            return Ok(Side::Ended(code));
        }
    }
}

/// How long a thread of this process may take to end before the first fork.
const THREADS_TIMEOUT: Duration = Duration::from_secs(5);

/// Forks, once a thread that has asked a file system something has ended.
fn fork_alone() -> io::Result<Option<Pid>> {
    let mut forked = Err(rustix::io::Errno::BUSY);
    wait_until(THREADS_TIMEOUT, || {
        forked = fork();
        forked != Err(rustix::io::Errno::BUSY)
    });
    Ok(forked?)
}

struct Supervisor {
    estate: Estate,
    stopping: bool,
    /// Whether the mount has ended, and the worker is about to.
    over: bool,
    /// How many workers have died since one has answered a request.
    deaths: u32,
}

impl Supervisor {
    /// In the new process: takes over what the one before has left.
    fn into_worker(self, socket: OwnedFd, mask: &SigSet) -> io::Result<Side> {
        // A terminal sends its signals to the group of the supervisor, which passes them on.
        let _ = rustix::process::setpgid(None, None);
        mask.thread_unblock()?;
        service_manager::disable();
        let resumed = self.estate.inherit();
        Ok(Side::Worker(Link::new(socket, resumed)))
    }

    /// Keeps what a worker sends, until it has ended.
    fn watch(&mut self, worker: Pid, socket: &OwnedFd, signals: &SignalFd) -> io::Result<Death> {
        if self.stopping {
            let _ = kill_process(worker, rustix::process::Signal::TERM);
        }
        loop {
            let mut ready = [
                PollFd::new(socket, PollFlags::IN),
                PollFd::new(signals, PollFlags::IN),
            ];
            match poll(&mut ready, Some(&LOOK_INTERVAL)) {
                Err(rustix::io::Errno::INTR) => continue,
                Ok(0) if is_dying(worker) => return Ok(Death::Killed(Signal::SIGKILL as i32)),
                result => result?,
            };
            let [from_worker, from_signals] = ready.map(|one| !one.revents().is_empty());
            if from_signals {
                self.pass_on(worker, signals)?;
            }
            if from_worker {
                match message::receive(socket.as_fd()) {
                    Ok(Some((message, descriptor))) => self.keep(socket, message, descriptor),
                    Ok(None) => break,
                    Err(error) => tracing::warn!("a message of the worker is lost: {error}"),
                }
            }
        }
        loop {
            match waitpid(Some(worker), WaitOptions::empty()) {
                Err(rustix::io::Errno::INTR) | Ok(None) => {}
                Ok(Some((_, status))) => {
                    return Ok(match status.terminating_signal() {
                        Some(signal) => Death::Killed(signal),
                        None => Death::Ended(status.exit_status().unwrap_or(1)),
                    });
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Passes signals on to the worker.
    fn pass_on(&mut self, worker: Pid, signals: &SignalFd) -> io::Result<()> {
        while let Some(signal) = signals.read_signal()? {
            let number = i32::try_from(signal.ssi_signo).unwrap_or_default();
            match Signal::try_from(number) {
                Ok(Signal::SIGTERM | Signal::SIGINT | Signal::SIGQUIT) => {
                    self.stopping = true;
                    service_manager::stopping("unmounting");
                }
                Ok(Signal::SIGHUP) => {}
                _ => continue,
            }
            if let Some(signal) = rustix::process::Signal::from_named_raw(number) {
                // It may have ended already.
                let _ = kill_process(worker, signal);
            }
        }
        Ok(())
    }

    fn keep(&mut self, socket: &OwnedFd, message: Message, descriptor: Option<OwnedFd>) {
        let estate = &mut self.estate;
        let acknowledged = message.is_acknowledged() && descriptor.is_some();
        match (message, descriptor) {
            (Message::Connection(agreed), Some(device)) => {
                estate.connection = Some((device, agreed));
            }
            (Message::Place(place), Some(primary)) => estate.place = Some((place, primary)),
            (Message::Log, Some(log)) => estate.log = Some(log),
            (Message::Counts, Some(counts)) => estate.counts = Some(counts),
            (Message::Intents, Some(intents)) => estate.intents = Some(intents),
            (Message::Holders, Some(holders)) => estate.holders = Some(holders),
            (Message::Recent, Some(recent)) => estate.recent = Some(recent),
            (Message::File(key), Some(file)) => {
                estate.files.insert(key, file);
            }
            (Message::DropFile(key), _) => {
                estate.files.remove(&key);
            }
            (Message::Serving, _) => {
                if let Some((place, _)) = &estate.place {
                    service_manager::ready(&format!("serving {}", place.mountpoint.display()));
                }
            }
            (Message::Answered, _) => self.deaths = 0,
            (Message::Over, _) => self.over = true,
            (Message::LeaveTerminal, _) => {
                log::close_stderr();
                if let Err(error) = descriptors::close_output() {
                    tracing::warn!("cannot close the terminal: {error}");
                }
            }
            (message, None) => tracing::warn!(?message, "a message lacks its descriptor"),
        }
        if acknowledged {
            message::acknowledge(socket.as_fd());
        }
    }

    /// What to do after a worker has ended: the status to end with, or `None` to start another one.
    fn end_of(&mut self, death: Death) -> Option<ExitCode> {
        let signal = match death {
            Death::Ended(code) => return Some(ExitCode::from(u8::try_from(code).unwrap_or(1))),
            // A thread of it may wait for a folder that does not answer.
            Death::Killed(_) if self.over => return Some(ExitCode::SUCCESS),
            Death::Killed(signal) => signal,
        };
        let (Some((place, _)), true) = (&self.estate.place, self.estate.is_complete()) else {
            // Nothing is mounted that could be served on. The process that waits for the mount is to see the signal.
            let _ = kill_process(
                rustix::process::getpid(),
                rustix::process::Signal::from_named_raw(signal)
                    .unwrap_or(rustix::process::Signal::KILL),
            );
            return Some(ExitCode::FAILURE);
        };
        let mountpoint = place.mountpoint.clone();
        self.deaths += 1;
        if !self.stopping && self.deaths < DEATHS_MAX {
            tracing::error!(
                "the process that served {} was killed by signal {signal}; another one takes over",
                mountpoint.display()
            );
            return None;
        }
        if !self.stopping {
            tracing::error!(
                "{DEATHS_MAX} processes that were to serve {} have died before they answered a request: unmounting it",
                mountpoint.display()
            );
        }
        if let Err(error) = detach(&mountpoint, How::Lazy) {
            tracing::error!("{error}");
        }
        Some(ExitCode::FAILURE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_process_that_is_seen_to_be_dead_is_dying() {
        assert!(!is_dying(rustix::process::getpid()));
        // No process has this number: its state cannot be read.
        assert!(!is_dying(Pid::from_raw(i32::MAX).unwrap()));
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
        assert!(wait_until(Duration::from_secs(60), || is_dying(pid)));
        child.wait().unwrap();
    }
}
