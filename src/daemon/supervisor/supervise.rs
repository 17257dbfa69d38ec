//! The supervisor's loop: keeps what the worker sends, passes signals on, replaces a worker that was killed, and goes on with another
//! program when it is asked to.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType};
use rustix::process::{Pid, WaitOptions, kill_process, waitpid};
use serde_json::{Value, json};

use super::check::{Check, Ready};
use super::estate::Estate;
use super::link::Link;
use super::message::{self, Message};
use super::state::{Origin, Passing, State, pass_on};
use crate::daemon::attach::{How, detach};
use crate::daemon::run::raise_descriptor_limit;
use crate::daemon::signals::SIGNALS;
use crate::daemon::{control, descriptors, log, service_manager};
use crate::sys::calls::fork;
use crate::sys::deadline::wait_until;

/// How many workers in a row may die without having answered a request.
const DEATHS_MAX: u32 = 3;

/// What a process is after [`start`] or [`resume`].
pub enum Side {
    /// It serves the mount, and returns at once.
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

/// Divides this process, which must have one thread, into a supervisor and a worker.
///
/// # Errors
///
/// No process, socket or signal descriptor can be made; `EBUSY` if there are several threads.
pub fn start(origin: Origin) -> io::Result<Side> {
    // It keeps descriptors for the worker.
    raise_descriptor_limit();
    Supervisor::new(origin)?.run()
}

/// Goes on in the place of the supervisor that has passed on `state`: ends its worker, and starts one of this program.
///
/// # Errors
///
/// As [`start`].
pub fn resume(state: State) -> io::Result<Side> {
    let mut supervisor = Supervisor {
        estate: state.estate,
        over: state.over,
        killed: state.killed,
        replacing: Some(Replacing {
            client: state.client,
            worker_ended: false,
        }),
        ..Supervisor::new(state.origin)?
    };
    if let Some((place, _)) = &supervisor.estate.place {
        tracing::info!(
            "xpmfs {} goes on with {}",
            env!("CARGO_PKG_VERSION"),
            place.mountpoint.display()
        );
    }
    // It may have ended already. If it waits in the kernel, it ends later, and answers no request any more.
    let _ = kill_process(state.worker, rustix::process::Signal::KILL);
    match supervisor.watch_to_end(state.worker, &state.socket)? {
        Some(code) => Ok(Side::Ended(code)),
        None => {
            drop(state.socket);
            supervisor.run()
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
    origin: Origin,
    signals: SignalFd,
    estate: Estate,
    stopping: bool,
    /// Whether the mount has ended, and the worker is about to.
    over: bool,
    /// How many workers have died since one has answered a request.
    deaths: u32,
    /// A program that may go on with the mount.
    check: Option<Check>,
    /// Until the first worker of this program serves the mount of the program before.
    replacing: Option<Replacing>,
    /// Children that were killed and may not have ended.
    killed: Vec<Pid>,
}

/// The change from one program to the next.
struct Replacing {
    /// The connection to the command that waits.
    client: OwnedFd,
    /// Whether the worker of the program before has ended.
    worker_ended: bool,
}

impl Supervisor {
    fn new(origin: Origin) -> io::Result<Supervisor> {
        let mask: SigSet = SIGNALS.into_iter().collect();
        // Also in workers, until they handle them ([`signals::take`](crate::daemon::signals::take)).
        mask.thread_block()?;
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        Ok(Supervisor {
            origin,
            signals: SignalFd::with_flags(&mask, flags)?,
            estate: Estate::default(),
            stopping: false,
            over: false,
            deaths: 0,
            check: None,
            replacing: None,
            killed: Vec::new(),
        })
    }

    /// Starts one worker after the other, until the mount has ended.
    fn run(mut self) -> io::Result<Side> {
        loop {
            let (ours, theirs) = rustix::net::socketpair(
                AddressFamily::UNIX,
                SocketType::SEQPACKET,
                SocketFlags::CLOEXEC,
                None,
            )?;
            let Some(worker) = fork_alone()? else {
                drop(ours);
                return Ok(self.into_worker(theirs));
            };
            drop(theirs);
            if let Some(code) = self.watch_to_end(worker, &ours)? {
                return Ok(Side::Ended(code));
            }
        }
    }

    /// In the new process: takes over what the one before has left.
    fn into_worker(self, socket: OwnedFd) -> Side {
        // A terminal sends its signals to the group of the supervisor, which passes them on.
        let _ = rustix::process::setpgid(None, None);
        service_manager::disable();
        Side::Worker(Link::new(socket, self.estate.inherit()))
    }

    /// Keeps what a worker sends until it has ended. Returns the status to end with, or `None` to start another one.
    fn watch_to_end(&mut self, worker: Pid, socket: &OwnedFd) -> io::Result<Option<ExitCode>> {
        let death = self.watch(worker, socket)?;
        reap();
        let code = self.end_of(death);
        if code.is_some() {
            let why = || "the mount has ended".to_owned();
            if let Some(check) = self.check.take() {
                check.end();
                answer(&check.client, Err(why()));
            }
            if let Some(replacing) = self.replacing.take() {
                answer(&replacing.client, Err(why()));
            }
        }
        Ok(code)
    }

    /// Keeps what a worker sends, until it has ended.
    fn watch(&mut self, worker: Pid, socket: &OwnedFd) -> io::Result<Death> {
        if self.stopping {
            let _ = kill_process(worker, rustix::process::Signal::TERM);
        }
        loop {
            let mut ready = vec![
                PollFd::new(socket, PollFlags::IN),
                PollFd::new(&self.signals, PollFlags::IN),
            ];
            if let Some(check) = &self.check {
                ready.push(PollFd::from_borrowed_fd(check.socket(), PollFlags::IN));
            }
            match poll(&mut ready, Some(&LOOK_INTERVAL)) {
                Err(rustix::io::Errno::INTR) => continue,
                Ok(0) if is_dying(worker) => return Ok(Death::Killed(Signal::SIGKILL as i32)),
                result => result?,
            };
            let is_ready = |at: usize| ready.get(at).is_some_and(|it| !it.revents().is_empty());
            let (from_worker, from_signals) = (is_ready(0), is_ready(1));
            if from_signals {
                self.pass_on(worker)?;
            }
            if from_worker {
                match message::receive(socket.as_fd()) {
                    Ok(Some((message, descriptor))) => {
                        self.keep(worker, socket, message, descriptor);
                    }
                    Ok(None) => break,
                    Err(error) => tracing::warn!("a message of the worker is lost: {error}"),
                }
            }
            self.look_at_check(worker, socket);
            let is_child = |pid: &Pid| matches!(waitpid(Some(*pid), WaitOptions::NOHANG), Ok(None));
            self.killed.retain(is_child);
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
    fn pass_on(&mut self, worker: Pid) -> io::Result<()> {
        while let Some(signal) = self.signals.read_signal()? {
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

    fn keep(
        &mut self,
        worker: Pid,
        socket: &OwnedFd,
        message: Message,
        descriptor: Option<OwnedFd>,
    ) {
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
                if let Some((place, _)) = &estate.place
                    && !self.origin.in_background
                {
                    service_manager::ready(&format!("serving {}", place.mountpoint.display()));
                }
                if let Some(replacing) = self.replacing.take() {
                    let reply = json!({
                        "pid": worker.as_raw_pid(),
                        "supervisor": std::process::id(),
                        "version": env!("CARGO_PKG_VERSION"),
                    });
                    answer(&replacing.client, Ok(reply));
                }
            }
            (Message::Reload(program), Some(client)) => {
                if let Err((client, why)) = self.start_check(program, client) {
                    answer(&client, Err(why));
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

    /// Starts to ask a program whether it can go on with the mount.
    fn start_check(&mut self, program: PathBuf, client: OwnedFd) -> Result<(), (OwnedFd, String)> {
        let why = match &self.estate.place {
            _ if self.over || self.stopping => "the mount is being unmounted",
            _ if self.check.is_some() || self.replacing.is_some() => {
                "another reload of this mount is running: wait until it has ended"
            }
            Some((place, _)) if self.estate.is_complete() => {
                let copy = client.try_clone();
                let check = copy.and_then(|client| {
                    Check::start(program, client, &self.origin, &place.workspace)
                });
                return match check {
                    Ok(check) => {
                        self.check = Some(check);
                        Ok(())
                    }
                    Err(error) => Err((client, format!("cannot start the new program: {error}"))),
                };
            }
            _ => {
                "the kernel cannot go on with a mount in another process (Linux 6.9 and later can): unmount it and mount it again"
            }
        };
        Err((client, why.to_owned()))
    }

    /// Goes on with the program that was asked, if it can. Does not return then.
    fn look_at_check(&mut self, worker: Pid, socket: &OwnedFd) {
        let Some(verdict) = self.check.as_mut().and_then(Check::verdict) else {
            return;
        };
        let Some(check) = self.check.take() else {
            return;
        };
        self.killed.push(check.end());
        let why = match verdict {
            Err(why) => why,
            Ok(_) if self.over || self.stopping => "the mount is being unmounted".to_owned(),
            Ok(Ready { file, plan }) => {
                let error = pass_on(
                    &file,
                    &self.estate,
                    Passing {
                        origin: &self.origin,
                        plan,
                        worker,
                        socket: socket.as_fd(),
                        client: check.client.as_fd(),
                        over: self.over,
                        killed: &self.killed,
                    },
                );
                format!("cannot start the new program: {error}")
            }
        };
        tracing::warn!("the mount goes on as before: {why}");
        answer(&check.client, Err(why));
    }

    /// What to do after a worker has ended: the status to end with, or `None` to start another one.
    fn end_of(&mut self, death: Death) -> Option<ExitCode> {
        if let Some(replacing) = &mut self.replacing
            && !replacing.worker_ended
            && matches!(death, Death::Killed(_))
            && !self.over
        {
            replacing.worker_ended = true;
            return None;
        }
        let signal = match death {
            // It could not go on with the mount.
            Death::Ended(code) if code != 0 && !self.over && self.estate.is_complete() => code,
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

/// Answers a command that waits for a reload, as the control socket does.
fn answer(client: &OwnedFd, result: Result<Value, String>) {
    let body = match result {
        Ok(reply) => json!({"version": control::VERSION, "reply": reply}),
        Err(error) => json!({"version": control::VERSION, "error": error}),
    };
    let line = format!("{body}\n");
    // The command may have ended.
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    let _ = rustix::net::send(client, line.as_bytes(), flags);
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
