//! Lets a command end although one of its threads waits for a file system that does not answer.
//!
//! Such a thread cannot be killed while a FUSE or NFS server has its request, and the kernel reports the end of a process to its parent
//! only after the last thread has gone. So the command runs in a child; this process, the front, asks no file system:
//!
//! 1. The child reports its exit status through a pipe, after it has replaced its standard streams by `/dev/null`: a thread that remains keeps
//!    all descriptors of the child open, and the reader of a pipe would wait for their end.
//! 2. Both are in one process group, so that signals from a terminal reach both, and Ctrl-Z stops both. Signals that another process sent
//!    to the front alone are forwarded; a signal sent to the group may reach the child twice, so [`SAME_SIGNAL`] is needed.
//! 3. A child that a signal ends has threads that remain, too. It has closed its streams before, if the signal can be caught.
//!    That it is about to end is read from `/proc`. The front then ends by the same signal.
//! 4. A front that is killed kills its child (`PR_SET_PDEATHSIG`).
//! 5. SIGTSTP sent to the front alone stops both. A dashboard that is stopped alone stops the front, too: the shell watches the front.
//! 6. The terminal of a dashboard that was killed or stopped by others is restored by the front ([`TerminalGuard`]).
//!
//! SIGSTOP sent to the front alone does not stop the child: it is to be sent to the group (`kill -STOP %1`). A dashboard stops when it notices
//! that the shell has the terminal.

use std::fs;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, SigmaskHow, Signal as Number};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pipe::PipeFlags;
use rustix::process::{self, Pid, Signal, WaitOptions};
use signal_hook::consts::{SIGHUP, SIGINT, SIGKILL, SIGQUIT, SIGTERM};
use signal_hook::flag::register_conditional_default;
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;

use super::process_end::End;
use super::process_status::{end_of, has, is_ending, is_stopped, is_traced, mask};
use super::terminal_guard::TerminalGuard;
use crate::daemon::descriptors;
use crate::sys::calls::fork;

/// Signals of the same number within this time count as one: the front forwards what a process group was sent, as `timeout` does.
pub(super) const SAME_SIGNAL: Duration = Duration::from_millis(250);

/// How long the front waits for the child's end once the child has reported its exit status.
const END_TIMEOUT: Duration = Duration::from_millis(200);

/// How often the front looks whether the child was killed while a thread of it remains; after a signal, more often.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
const LOOK_INTERVAL_AFTER_SIGNAL: Duration = Duration::from_millis(20);

/// How long the front waits for the child's end after SIGQUIT, whose core dump waits for all threads.
const QUIT_TIMEOUT: Duration = Duration::from_secs(1);

/// How long the front waits for the child to stop before it stops itself: threads that wait for a file system do not stop.
const STOP_TIMEOUT: Duration = Duration::from_millis(200);

/// The signals that a process which waits for another one passes on to it.
pub(super) const FORWARDED: [Number; 8] = [
    Number::SIGINT,
    Number::SIGTERM,
    Number::SIGHUP,
    Number::SIGQUIT,
    Number::SIGUSR1,
    Number::SIGUSR2,
    Number::SIGALRM,
    Number::SIGCONT,
];

/// Runs `work` in a child, and returns the exit status that it gave. Where no child can be started (few processes are allowed, `/proc` is not
/// mounted), and under a debugger or `strace`, this process does the work. It must have one thread, and must not have opened anything.
pub fn run(work: impl FnOnce() -> ExitCode) -> ExitCode {
    run_with(None, work)
}

/// As [`run`], for work that takes the terminal over.
pub fn run_dashboard(work: impl FnOnce() -> ExitCode) -> ExitCode {
    run_with(TerminalGuard::new(), work)
}

fn run_with(terminal: Option<TerminalGuard>, work: impl FnOnce() -> ExitCode) -> ExitCode {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    if is_traced(&status) {
        return work();
    }
    match split(terminal) {
        Some(Side::Front(front)) => front.wait(),
        Some(Side::Child(child)) => {
            child.end_by_signals();
            let status = work();
            child.finish(status)
        }
        None => work(),
    }
}

/// Which of the two processes this is.
enum Side {
    Front(Front),
    Child(Child),
}

/// Starts the child. `None` if there is none.
fn split(terminal: Option<TerminalGuard>) -> Option<Side> {
    let inherited = descriptors::inherited();
    let (status, report) =
        rustix::pipe::pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).ok()?;
    let (wait, ready) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).ok()?;
    let mut set: SigSet = FORWARDED.into_iter().collect();
    // The end of the child, and its stop.
    set.add(Number::SIGCHLD);
    set.add(Number::SIGTSTP);
    let signals =
        SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK).ok()?;
    let front = process::getpid();
    // Before the child starts, so that no signal is lost between.
    let before = set.thread_swap_mask(SigmaskHow::SIG_BLOCK).ok()?;
    let forked = fork();
    if let Ok(Some(child)) = forked {
        // The front keeps no mount busy that the child may unmount, and no pipe open that the child closes.
        close_streams(&inherited);
        let _ = process::chdir("/");
        drop(ready);
        return Some(Side::Front(Front {
            child,
            status,
            signals,
            terminal,
            last_signal: None,
            quit: None,
            stop: None,
            continued: None,
        }));
    }
    if forked.is_ok() {
        let _ = process::set_parent_process_death_signal(Some(Signal::KILL));
        if process::getppid() != Some(front) {
            // The front was killed before that call.
            std::process::exit(128 + SIGKILL);
        }
        drop(ready);
        // Returns at the end of the pipe, when the front has left everything.
        let _ = rustix::io::read(&wait, &mut [0]);
    }
    let _ = before.thread_set_mask();
    forked
        .is_ok()
        .then(|| Side::Child(Child { inherited, report }))
}

/// The process that does the work.
struct Child {
    inherited: Vec<i32>,
    report: OwnedFd,
}

impl Child {
    /// Closes the standard streams when a signal ends this process, unless the command handles signals itself.
    fn end_by_signals(&self) {
        let ignored =
            fs::read_to_string("/proc/self/status").map_or(0, |status| mask(&status, "SigIgn:"));
        let ending = [SIGINT, SIGTERM, SIGHUP, SIGQUIT];
        let ending = ending.into_iter().filter(|signal| !has(ignored, *signal));
        let Ok(mut signals) = Signals::new(ending.clone()) else {
            return;
        };
        let inherited = self.inherited.clone();
        let thread = std::thread::Builder::new().name("xpmfs-end".to_owned());
        let spawned = thread.spawn(move || {
            for signal in signals.forever() {
                if signal == SIGQUIT || !HANDLED.load(Ordering::SeqCst) {
                    close_streams(&inherited);
                    let _ = emulate_default_handler(signal);
                }
            }
        });
        if spawned.is_err() {
            // No thread may be started: the signals end this process with its output open.
            let always = Arc::new(AtomicBool::new(true));
            for signal in ending {
                let _ = register_conditional_default(signal, always.clone());
            }
        }
    }

    /// Reports the exit status and ends.
    fn finish(self, status: ExitCode) -> ! {
        let status = (0..=u8::MAX).find(|number| ExitCode::from(*number) == status);
        let status = status.unwrap_or(1);
        close_streams(&self.inherited);
        // If the front is gone, nothing waits for it.
        let _ = rustix::io::write(&self.report, &[status]);
        std::process::exit(status.into())
    }
}

/// Whether the command handles SIGINT, SIGTERM and SIGHUP itself.
static HANDLED: AtomicBool = AtomicBool::new(false);

/// While this exists, SIGINT, SIGTERM and SIGHUP do not end the child: the command handles them.
#[derive(Debug)]
pub(super) struct Handled(());

impl Handled {
    pub(super) fn new() -> Handled {
        HANDLED.store(true, Ordering::SeqCst);
        Handled(())
    }
}

impl Drop for Handled {
    fn drop(&mut self) {
        HANDLED.store(false, Ordering::SeqCst);
    }
}

/// Ends this process by a signal, as if nothing handled it, with its output closed.
pub(super) fn end_by(signal: i32) {
    close_streams(&[]);
    let _ = emulate_default_handler(signal);
}

/// Closes what this process was started with. Other threads may still print: to `/dev/null`.
fn close_streams(inherited: &[i32]) {
    let _ = std::io::stdout().flush();
    let _ = descriptors::close_input();
    let _ = descriptors::close_output();
    descriptors::close(inherited);
}

/// The process that a shell or a program has started, and waits for.
struct Front {
    child: Pid,
    status: OwnedFd,
    signals: SignalFd,
    /// The terminal that the child may take over.
    terminal: Option<TerminalGuard>,
    last_signal: Option<i32>,
    /// When SIGQUIT came.
    quit: Option<Instant>,
    /// When SIGTSTP came, until this process has stopped.
    stop: Option<Instant>,
    /// When SIGCONT came.
    continued: Option<Instant>,
}

impl Front {
    fn wait(mut self) -> ExitCode {
        let end = loop {
            if let Some(end) = self.reported() {
                break end;
            }
            if let Some(end) = self.ended() {
                // The child reports before it ends, perhaps since the pipe was last read. Without this, a command that
                // succeeded would seem to have been killed.
                break self.reported().unwrap_or(end);
            }
            self.wait_for_event(match (self.last_signal, self.stop) {
                (None, None) => LOOK_INTERVAL,
                _ => LOOK_INTERVAL_AFTER_SIGNAL,
            });
            self.forward();
            self.stop_with_child();
        };
        if let Some(terminal) = &self.terminal {
            terminal.restore();
        }
        end.repeat()
    }

    /// Stops this process, as SIGTSTP does, if it was sent that or if a dashboard was stopped alone. Returns when the process goes on.
    fn stop_with_child(&mut self) {
        let is_stopped = || {
            let status = fs::read_to_string(format!("/proc/{}/status", self.child.as_raw_pid()));
            status.is_ok_and(|status| is_stopped(&status))
        };
        let stops = match (self.stop, &self.terminal) {
            (Some(since), _) => since.elapsed() > STOP_TIMEOUT || is_stopped(),
            // A child that is about to go on, too, is not stopped any more.
            (None, Some(terminal)) => {
                let goes_on = self.continued.is_some_and(|it| it.elapsed() < SAME_SIGNAL);
                !goes_on && is_stopped() && terminal.is_taken()
            }
            (None, None) => false,
        };
        if !stops {
            return;
        }
        self.stop = None;
        if let Some(terminal) = &self.terminal {
            terminal.restore();
        }
        // The signal stops this process when it is no longer blocked; not in a process group that no shell could continue.
        let stop: SigSet = [Number::SIGTSTP].into_iter().collect();
        let _ = process::kill_process(process::getpid(), Signal::TSTP);
        let _ = stop.thread_unblock();
        let _ = stop.thread_block();
        self.continued = Some(Instant::now());
    }

    /// The exit status that the child has reported, once it has ended or [`END_TIMEOUT`] has passed.
    fn reported(&mut self) -> Option<End> {
        let mut status = [0];
        if rustix::io::read(&self.status, &mut status) != Ok(1) {
            return None;
        }
        let reported = Instant::now();
        while self.waited().is_none() {
            let left = END_TIMEOUT.saturating_sub(reported.elapsed());
            if left.is_zero() {
                break;
            }
            self.wait_for_event(left);
            while let Ok(Some(_)) = self.signals.read_signal() {}
        }
        let [status] = status;
        Some(End::Status(status))
    }

    /// How the child has ended without a report, if it has.
    fn ended(&self) -> Option<End> {
        let signal = self.last_signal.unwrap_or(SIGKILL);
        match self.waited() {
            Some(Some(end)) => return Some(end),
            Some(None) => return Some(End::Signal(signal)),
            None => {}
        }
        let quit = self.quit.is_some_and(|quit| quit.elapsed() > QUIT_TIMEOUT);
        let is_ending = fs::read_to_string(format!("/proc/{}/status", self.child.as_raw_pid()))
            .is_ok_and(|status| is_ending(&status));
        if !quit && !is_ending {
            return None;
        }
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.as_raw_pid()));
        let end = stat.ok().and_then(|stat| end_of(&stat));
        Some(end.unwrap_or(End::Signal(signal)))
    }

    /// What waiting for the child returns; `Some(None)` if the kernel kept no status of it.
    fn waited(&self) -> Option<Option<End>> {
        match process::waitpid(Some(self.child), WaitOptions::NOHANG) {
            Ok(None) | Err(rustix::io::Errno::INTR) => None,
            Ok(Some((_, status))) => {
                Some(match (status.exit_status(), status.terminating_signal()) {
                    (Some(status), _) => u8::try_from(status).ok().map(End::Status),
                    (None, signal) => signal.map(End::Signal),
                })
            }
            Err(_) => Some(None),
        }
    }

    /// Waits for a signal or a report.
    fn wait_for_event(&self, limit: Duration) {
        let Ok(limit) = Timespec::try_from(limit) else {
            return;
        };
        let mut events = [
            PollFd::new(&self.signals, PollFlags::IN),
            PollFd::new(&self.status, PollFlags::IN),
        ];
        if poll(&mut events, Some(&limit)).is_ok() {
            let [_, status] = &events;
            if status.revents() == PollFlags::HUP {
                // The child's last thread is ending; poll would return at once, again and again.
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }

    /// Sends on what others than a terminal have sent to this process.
    fn forward(&mut self) {
        while let Ok(Some(received)) = self.signals.read_signal() {
            let Ok(signal) = i32::try_from(received.ssi_signo) else {
                continue;
            };
            if signal == Number::SIGCHLD as i32 {
                continue;
            }
            // A dashboard that stops sends SIGTSTP to the group.
            let is_of_child = i32::try_from(received.ssi_pid) == Ok(self.child.as_raw_pid());
            if !is_of_child
                && !sent_to_group(signal, received.ssi_code)
                && let Some(number) = Signal::from_named_raw(signal)
            {
                let _ = process::kill_process(self.child, number);
            }
            if signal == Number::SIGTSTP as i32 {
                self.stop = Some(Instant::now());
            } else if signal == Number::SIGCONT as i32 {
                self.continued = Some(Instant::now());
            } else {
                self.last_signal = Some(signal);
            }
            if signal == SIGQUIT {
                self.quit = Some(Instant::now());
            }
        }
    }
}

/// Whether a signal, by its code (`sigaction(2)`), was sent to the whole process group: by a terminal. SIGHUP of a terminal that is gone is sent
/// to the leader of its session alone.
pub(super) fn sent_to_group(signal: i32, code: i32) -> bool {
    code == libc::SI_KERNEL && signal != SIGHUP
}
