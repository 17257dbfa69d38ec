//! The supervisor's loop: keeps what the worker sends, passes signals on, replaces a worker that was killed, and goes on with another
//! program when it is asked to.

use std::fmt::Display;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, WaitOptions, kill_process, waitpid};

use super::estate::Estate;
use super::link::Link;
use super::message::{self, Message};
use super::program_change::ProgramChange;
use super::state::{PassedState, Passing, SupervisorStart, pass_on};
use super::workers::{Death, Look, ended, fork_alone, reap, sockets};
use crate::daemon::attach::{How, detach};
use crate::daemon::limits::raise_descriptor_limit;
use crate::daemon::signals::SIGNALS;
use crate::daemon::{descriptors, log, service_manager};

/// How many workers in a row may die without having answered a request.
const DEATHS_MAX: u32 = 3;

/// What a process is after [`start`] or [`resume`].
pub enum ForkResult {
    /// It serves the mount, and returns at once.
    Worker(Box<Link>),
    /// It was the supervisor, and the mount has ended with this status.
    Ended(ExitCode),
}

/// How often the supervisor looks whether the worker was killed while a thread of it remains.
const LOOK_INTERVAL: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 500_000_000,
};

/// Divides this process, which must have one thread, into a supervisor and a worker.
///
/// # Errors
///
/// No process, socket or signal descriptor can be made; `EBUSY` if there are several threads.
pub fn start(origin: SupervisorStart) -> io::Result<ForkResult> {
    // It keeps descriptors for the worker.
    raise_descriptor_limit();
    Supervisor::new(origin)?.run()
}

/// Goes on in the place of the supervisor that has passed on `state`: ends its worker, and starts one of this program.
///
/// # Errors
///
/// As [`start`].
pub fn resume(state: PassedState) -> io::Result<ForkResult> {
    let mut supervisor = Supervisor {
        estate: state.estate,
        over: state.over,
        killed: state.killed,
        in_starters_group: false,
        program_change: ProgramChange::Replacing {
            client: state.client,
            worker_ended: false,
        },
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
        Some(code) => Ok(ForkResult::Ended(code)),
        None => {
            drop(state.socket);
            supervisor.run()
        }
    }
}

/// For how long the supervisor tries to replace a worker that has died, while no process or descriptor can be had.
const START_TIMEOUT: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(100);

struct Supervisor {
    origin: SupervisorStart,
    signals: SignalFd,
    estate: Estate,
    stopping: bool,
    /// Whether the mount has ended, and the worker is about to.
    over: bool,
    /// How many workers have died since one has answered a request.
    deaths: u32,
    program_change: ProgramChange,
    /// Children that were killed and may not have ended.
    killed: Vec<Pid>,
    /// The sockets of the next worker, made in advance: later, this process may have too many descriptors.
    sockets: Option<(OwnedFd, OwnedFd)>,
    buffer: Vec<u8>,
    /// Whether a shortage of descriptors or memory was reported.
    is_short: bool,
    /// Whether this process is still in the process group of the command that started the mount, as [`crate::daemon::background`] explains.
    in_starters_group: bool,
}

impl Supervisor {
    fn new(origin: SupervisorStart) -> io::Result<Supervisor> {
        let mask: SigSet = SIGNALS.into_iter().collect();
        // Also in workers, until they handle them ([`signals::take`](crate::daemon::signals::take)).
        mask.thread_block()?;
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        Ok(Supervisor {
            in_starters_group: origin.in_background,
            origin,
            signals: SignalFd::with_flags(&mask, flags)?,
            estate: Estate::default(),
            stopping: false,
            over: false,
            deaths: 0,
            program_change: ProgramChange::None,
            killed: Vec::new(),
            sockets: Some(sockets()?),
            buffer: message::buffer(),
            is_short: false,
        })
    }

    /// Reports a shortage of descriptors or memory, once.
    fn report_shortage(&mut self, what: &str, error: &dyn Display) {
        if !std::mem::replace(&mut self.is_short, true) {
            tracing::warn!(
                "{what}: {error}; if the process that serves the mount is killed now, locks and removed files that are open may be lost"
            );
        }
    }

    /// Starts one worker after the other, until the mount has ended.
    fn run(mut self) -> io::Result<ForkResult> {
        loop {
            let (worker, ours) = match self.start_worker() {
                Ok((Some(worker), ours, theirs)) => {
                    drop(theirs);
                    (worker, ours)
                }
                Ok((None, ours, theirs)) => {
                    drop(ours);
                    return Ok(self.into_worker(theirs));
                }
                Err(error) => match &self.estate.place {
                    None => return Err(error),
                    Some((place, _)) => {
                        let mountpoint = place.mountpoint.clone();
                        tracing::error!(
                            "cannot start a process that serves {}: {error}: unmounting it",
                            mountpoint.display()
                        );
                        return Ok(ForkResult::Ended(self.give_up(&mountpoint)));
                    }
                },
            };
            self.sockets = sockets().ok();
            if let Some(code) = self.watch_to_end(worker, &ours)? {
                return Ok(ForkResult::Ended(code));
            }
            self.begin_session();
        }
    }

    /// Starts a worker, and tries so for some time if another one has died: programs wait for it. Returns the ends of its connection,
    /// ours first, in both processes.
    fn start_worker(&mut self) -> io::Result<(Option<Pid>, OwnedFd, OwnedFd)> {
        let end = Instant::now() + START_TIMEOUT;
        loop {
            if self.sockets.is_none() {
                self.sockets = sockets().ok();
            }
            let started = match &self.sockets {
                Some(_) => fork_alone(),
                None => Err(rustix::io::Errno::MFILE.into()),
            };
            match (started, self.sockets.take()) {
                (Ok(worker), Some((ours, theirs))) => return Ok((worker, ours, theirs)),
                (Err(error), _) if self.estate.place.is_none() || Instant::now() > end => {
                    return Err(error);
                }
                (started, sockets) => {
                    self.sockets = sockets;
                    if let Err(error) = started {
                        self.report_shortage(
                            "cannot start a process that serves the mount",
                            &error,
                        );
                    }
                    std::thread::sleep(PAUSE);
                }
            }
        }
    }

    /// Begins a session of its own, unless it has done so.
    fn begin_session(&mut self) {
        if std::mem::take(&mut self.in_starters_group) {
            let _ = rustix::process::setsid();
        }
    }

    /// In the new process: takes over what the one before has left.
    fn into_worker(self, socket: OwnedFd) -> ForkResult {
        // A terminal sends its signals to the group of the supervisor, which passes them on.
        if !self.in_starters_group {
            let _ = rustix::process::setpgid(None, None);
        }
        service_manager::disable();
        ForkResult::Worker(Box::new(Link::new(socket, self.estate.inherit())))
    }

    /// Keeps what a worker sends until it has ended. Returns the status to end with, or `None` to start another one.
    fn watch_to_end(&mut self, worker: Pid, socket: &OwnedFd) -> io::Result<Option<ExitCode>> {
        let death = self.watch(worker, socket)?;
        reap();
        let code = self.end_of(death);
        if code.is_some() {
            self.program_change.mount_ended();
        }
        Ok(code)
    }

    /// Keeps what a worker sends, until it has ended.
    fn watch(&mut self, worker: Pid, socket: &OwnedFd) -> io::Result<Death> {
        if self.stopping {
            let _ = kill_process(worker, rustix::process::Signal::TERM);
        }
        let mut look = Look::new(worker);
        loop {
            let mut ready = vec![
                PollFd::new(socket, PollFlags::IN),
                PollFd::new(&self.signals, PollFlags::IN),
            ];
            if let Some(socket) = self.program_change.socket() {
                ready.push(PollFd::from_borrowed_fd(socket, PollFlags::IN));
            }
            match poll(&mut ready, Some(&LOOK_INTERVAL)) {
                Err(rustix::io::Errno::INTR) => continue,
                Ok(0) if look.is_dying() => return Ok(Death::Killed(Signal::SIGKILL as i32)),
                Ok(_) => {}
                Err(error) => {
                    drop(ready);
                    // Out of memory.
                    self.report_shortage(
                        "cannot wait for the process that serves the mount",
                        &error,
                    );
                    if let Some(death) = ended(worker, WaitOptions::NOHANG)? {
                        return Ok(death);
                    }
                    std::thread::sleep(PAUSE);
                    continue;
                }
            };
            let is_ready = |at: usize| ready.get(at).is_some_and(|it| !it.revents().is_empty());
            let (from_worker, from_signals) = (is_ready(0), is_ready(1));
            if from_signals {
                self.pass_on(worker)?;
            }
            if from_worker {
                match message::receive(socket.as_fd(), &mut self.buffer) {
                    Ok(Some((message, descriptor))) => {
                        self.keep(worker, socket, message, descriptor);
                    }
                    Ok(None) => break,
                    Err(error) => {
                        self.report_shortage("a message of the worker is lost", &error);
                        std::thread::sleep(PAUSE);
                    }
                }
            }
            self.go_on_with_next_program(worker, socket);
            let is_child = |pid: &Pid| matches!(waitpid(Some(*pid), WaitOptions::NOHANG), Ok(None));
            self.killed.retain(is_child);
        }
        loop {
            if let Some(death) = ended(worker, WaitOptions::empty())? {
                return Ok(death);
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
        let acknowledged = message.is_acknowledged();
        let is_kept = descriptor.is_some();
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
                self.program_change.serving(worker);
            }
            (Message::Reload(program), Some(client)) => {
                let is_ending = self.over || self.stopping;
                self.program_change
                    .start(program, client, &self.origin, estate, is_ending);
            }
            (Message::Answered, _) => self.deaths = 0,
            (Message::Over, _) => self.over = true,
            (Message::LeaveTerminal, _) => {
                self.begin_session();
                log::close_stderr();
                if let Err(error) = descriptors::close_output() {
                    tracing::warn!("cannot close the terminal: {error}");
                }
            }
            (_, None) => self.report_shortage(
                "the supervisor cannot keep what the process that serves the mount has open",
                &"too many descriptors are open (`ulimit -n`)",
            ),
        }
        if acknowledged {
            message::acknowledge(socket.as_fd(), is_kept);
        }
    }

    /// Goes on with the program that was asked, if it can. Does not return then.
    fn go_on_with_next_program(&mut self, worker: Pid, socket: &OwnedFd) {
        let is_ending = self.over || self.stopping;
        let Some(next) = self
            .program_change
            .next_program(is_ending, &mut self.killed)
        else {
            return;
        };
        let with = Passing {
            origin: &self.origin,
            plan: next.program.plan.clone(),
            worker,
            socket: socket.as_fd(),
            client: next.client.as_fd(),
            over: self.over,
            killed: &self.killed,
        };
        let error = pass_on(&next.program.file, &self.estate, with);
        next.not_started(&error);
    }

    /// What to do after a worker has ended: the status to end with, or `None` to start another one.
    fn end_of(&mut self, death: Death) -> Option<ExitCode> {
        if matches!(death, Death::Killed(_))
            && !self.over
            && self.program_change.worker_of_before_was_killed()
        {
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
        match place.id.is_gone_from(&mountpoint) {
            true => Some(ExitCode::FAILURE),
            false => Some(self.give_up(&mountpoint)),
        }
    }

    /// Takes away a mount that no process will serve.
    fn give_up(&self, mountpoint: &Path) -> ExitCode {
        if let Err(error) = detach(mountpoint, How::Lazy) {
            tracing::error!("{error}");
        }
        ExitCode::FAILURE
    }
}
