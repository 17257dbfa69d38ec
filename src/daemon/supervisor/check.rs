//! Asks another program whether it can go on with a mount, before anything changes.
//!
//! The program is started with the arguments of the supervisor and [`CHECK_FLAG`], and a socket as its standard input. It reads a
//! [`Question`], and replies with a [`Verdict`]: a line of JSON each. Then it waits until it is killed, so that the supervisor can
//! open the file that was checked (`/proc/PID/exe`).
//!
//! The supervisor never waits for the program: its executable file or the settings may lie on a disk that does not answer.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use rustix::pipe::PipeFlags;
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::state::{CHECK_FLAG, HANDOVER_VERSION, SupervisorStart, with_flag};
use crate::daemon::descriptors;
use crate::sys::calls::fork;
use crate::sys::deadline::wait_until;
use crate::sys::printable::printable;

/// How long a program may take to reply.
const CHECK_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the supervisor waits for the end of a program that has closed its socket.
const END_TIMEOUT: Duration = Duration::from_millis(200);

/// The maximum length of a verdict in bytes.
const VERDICT_MAX: usize = 4 << 20;

/// How much of a program's messages is quoted, in bytes.
const MESSAGES_MAX: usize = 1000;

#[derive(Debug, Serialize, Deserialize)]
struct Question {
    version: u32,
    #[serde(with = "crate::sys::path_bytes")]
    primary: PathBuf,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    /// The plan with which the program goes on.
    Ready(Value),
    /// Why it cannot.
    Refused(String),
}

/// A program that is being asked.
#[derive(Debug)]
pub(super) struct Check {
    program: PathBuf,
    /// The connection to the command that waits.
    pub(super) client: OwnedFd,
    child: Pid,
    socket: OwnedFd,
    messages: OwnedFd,
    verdict: Vec<u8>,
    end: Instant,
}

/// A program that can go on with a mount.
#[derive(Debug)]
pub(super) struct Ready {
    /// Its executable file.
    pub(super) file: OwnedFd,
    pub(super) plan: Value,
}

impl Check {
    /// Starts to ask a program. `primary` is the directory of the mounted workspace.
    pub(super) fn start(
        program: PathBuf,
        client: OwnedFd,
        origin: &SupervisorStart,
        primary: &Path,
    ) -> io::Result<Check> {
        let (socket, theirs) = rustix::net::socketpair(
            AddressFamily::UNIX,
            SocketType::STREAM,
            SocketFlags::CLOEXEC,
            None,
        )?;
        let flags = PipeFlags::CLOEXEC | PipeFlags::NONBLOCK;
        let (messages, written) = rustix::pipe::pipe_with(flags)?;
        let question = Question {
            version: HANDOVER_VERSION,
            primary: primary.to_owned(),
        };
        let mut question = serde_json::to_vec(&question)?;
        question.push(b'\n');
        let Some(child) = fork()? else {
            become_program(&program, origin, theirs, written);
        };
        let check = Check {
            program,
            client,
            child,
            socket,
            messages,
            verdict: Vec::new(),
            end: Instant::now() + CHECK_TIMEOUT,
        };
        // A path is shorter than the socket's buffer.
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        rustix::net::send(&check.socket, &question, flags)?;
        Ok(check)
    }

    pub(super) fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Ends the program. Returns its process, which is to be waited for.
    pub(super) fn end(&self) -> Pid {
        // It has not been waited for, unless it ended just now.
        let _ = kill_process(self.child, Signal::KILL);
        self.child
    }

    /// What is known by now; `None` before the program has replied. Never waits.
    pub(super) fn verdict(&mut self) -> Option<Result<Ready, String>> {
        let mut part = [0; 16 * 1024];
        while !self.verdict.contains(&b'\n') {
            match rustix::net::recv(&self.socket, &mut part[..], RecvFlags::DONTWAIT) {
                Ok((0, _)) => return Some(Err(self.end_without_verdict())),
                Ok((count, _)) => {
                    let part = part.get(..count).unwrap_or_default();
                    self.verdict.extend_from_slice(part);
                    if self.verdict.len() > VERDICT_MAX {
                        return Some(Err(self.not_understood()));
                    }
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) if Instant::now() < self.end => return None,
                Err(rustix::io::Errno::AGAIN) => {
                    return Some(Err(format!(
                        "{} has not answered within {} s whether it can go on with the mount: does the disk of the program or of the settings answer?",
                        self.program.display(),
                        CHECK_TIMEOUT.as_secs()
                    )));
                }
                Err(_) => return Some(Err(self.end_without_verdict())),
            }
        }
        Some(match serde_json::from_slice(&self.verdict) {
            Ok(Verdict::Ready(plan)) => match self.file() {
                Ok(file) => Ok(Ready { file, plan }),
                Err(error) => Err(format!("cannot open {}: {error}", self.program.display())),
            },
            Ok(Verdict::Refused(why)) => Err(why),
            Err(_) => Err(self.not_understood()),
        })
    }

    /// The file that the program runs.
    fn file(&self) -> io::Result<OwnedFd> {
        let path = format!("/proc/{}/exe", self.child.as_raw_pid());
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        Ok(rustix::fs::open(path, flags, Mode::empty())?)
    }

    fn not_understood(&self) -> String {
        format!(
            "{} does not answer as a program that can go on with a mount: is it another version of xpmfs? Unmount the workspace and mount it again with that version",
            self.program.display()
        )
    }

    fn end_without_verdict(&self) -> String {
        let mut how = None;
        wait_until(END_TIMEOUT, || {
            match waitpid(Some(self.child), WaitOptions::NOHANG) {
                Ok(Some((_, status))) => {
                    how = match (status.exit_status(), status.terminating_signal()) {
                        (Some(status), _) => Some(format!("ended with exit status {status}")),
                        (None, signal) => signal.map(|it| format!("was killed by signal {it}")),
                    };
                    true
                }
                Ok(None) => false,
                Err(_) => true,
            }
        });
        let mut bytes = [0; MESSAGES_MAX];
        let count = rustix::io::read(&self.messages, &mut bytes).unwrap_or(0);
        let messages = String::from_utf8_lossy(bytes.get(..count).unwrap_or_default());
        // What follows are usage and tips.
        let message = messages.lines().find(|line| !line.trim().is_empty());
        let message = message.map_or_else(String::new, |line| format!(": {}", printable(line)));
        format!(
            "{} {} and did not answer whether it can go on with the mount{message}",
            self.program.display(),
            how.unwrap_or_else(|| "ended".to_owned()),
        )
    }
}

/// In the new process: runs the program. Without it, reports why not.
fn become_program(
    program: &Path,
    origin: &SupervisorStart,
    socket: OwnedFd,
    messages: OwnedFd,
) -> ! {
    // The program must not outlive a supervisor that is killed.
    let _ = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
    // A terminal sends its signals to the group of the supervisor.
    let _ = rustix::process::setpgid(None, None);
    let flag = format!("--{CHECK_FLAG}");
    let run = |socket: OwnedFd| {
        Command::new(program)
            .arg0("xpmfs")
            .args(with_flag(origin.arguments.clone(), &flag))
            .stdin(Stdio::from(socket))
            .stdout(Stdio::null())
            .stderr(Stdio::from(messages))
            .exec()
    };
    let report = socket.try_clone();
    let error = run(socket);
    if let Ok(report) = report {
        let user = rustix::process::geteuid();
        let verdict = Verdict::Refused(format!(
            "the mount's user (uid {}) cannot run {}: {error}",
            user.as_raw(),
            program.display()
        ));
        let mut line = serde_json::to_vec(&verdict).unwrap_or_default();
        line.push(b'\n');
        let _ = rustix::net::send(&report, &line, SendFlags::NOSIGNAL);
    }
    std::process::exit(1)
}

/// A program that was asked by [`Check`], in its own process.
#[derive(Debug)]
pub struct Program {
    stream: UnixStream,
    question: Question,
}

impl Program {
    /// Reads the question from the socket on standard input.
    ///
    /// # Errors
    ///
    /// This process was not started by [`Check`].
    pub fn from_stdin() -> io::Result<Program> {
        let stdin = rustix::stdio::stdin();
        rustix::net::sockopt::socket_peercred(stdin)?;
        let stream = UnixStream::from(stdin.try_clone_to_owned()?);
        descriptors::close_input()?;
        let mut line = String::new();
        BufReader::new((&stream).take(VERDICT_MAX as u64)).read_line(&mut line)?;
        Ok(Program {
            question: serde_json::from_str(&line)?,
            stream,
        })
    }

    /// Checks that this program understands what the other one leaves.
    ///
    /// # Errors
    ///
    /// It does not.
    pub fn check_version(&self) -> anyhow::Result<()> {
        let version = self.question.version;
        anyhow::ensure!(
            version == HANDOVER_VERSION,
            "xpmfs {} cannot go on with a mount of another version (what they pass on is in version {HANDOVER_VERSION}, not {version}): unmount the workspace and mount it again",
            env!("CARGO_PKG_VERSION")
        );
        Ok(())
    }

    /// The directory of the mounted workspace.
    #[must_use]
    pub fn primary(&self) -> &Path {
        &self.question.primary
    }

    /// Replies with the plan, or why there is none, and waits until the supervisor has read it.
    ///
    /// # Errors
    ///
    /// The supervisor has ended.
    pub fn answer(mut self, plan: Result<Value, String>) -> io::Result<()> {
        let verdict = match plan {
            Ok(plan) => Verdict::Ready(plan),
            Err(why) => Verdict::Refused(why),
        };
        let mut line = serde_json::to_vec(&verdict)?;
        line.push(b'\n');
        self.stream.write_all(&line)?;
        let _ = self.stream.read(&mut [0]);
        Ok(())
    }
}
