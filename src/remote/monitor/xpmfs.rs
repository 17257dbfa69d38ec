//! Asks `xpmfs` on the other machine, where it is installed: what it prints, over the connection of the monitor.
//!
//! The program at the given path is not trusted either:
//!
//! 1. It may print anything, in any amount: no more than a limit is read, and what `shell_init` printed before is skipped.
//! 2. It may never end. When its time is over, `ssh` is killed here. The script there reads a standard input that `ssh` keeps open, so it
//!    notices this, and kills the program: no two of them run at the same time.

use std::ffi::{OsStr, OsString};
use std::io::{self, BufReader, Read};
use std::process::{Child, ChildStdout};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::Builder;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, bounded};

use super::super::said::Said;
use super::super::shell::Script;
use super::super::ssh::{Connection, SshError, nonce, skip_to};
use super::MonitorServer;

/// The most that it may print.
const PRINTED_MAX: u64 = 4 << 20;

/// How often it is looked whether the answer is still wanted.
const TICK: Duration = Duration::from_millis(100);

/// How often it is looked whether `ssh` has ended, once it has printed everything.
const END_TICK: Duration = Duration::from_millis(5);

/// Why `xpmfs` there did not answer.
#[derive(Debug, thiserror::Error)]
pub enum RemoteXpmfsError {
    /// `ssh` cannot be run, or the program failed.
    #[error(transparent)]
    Ssh(#[from] SshError),
    /// It printed too much.
    #[error("{program} printed more than {} MiB", PRINTED_MAX >> 20)]
    TooMuch {
        /// The program.
        program: String,
    },
    /// It did not end in time.
    #[error("{program} has not answered within {} s", waited.as_secs_f64())]
    Silent {
        /// The program.
        program: String,
        /// For how long.
        waited: Duration,
    },
    /// What it printed cannot be read.
    #[error("cannot read what {program} printed: {cause}")]
    Read {
        /// The program.
        program: String,
        /// The system's error.
        cause: io::Error,
    },
    /// No thread can be started.
    #[error("cannot start a thread")]
    Thread,
    /// Nothing waits for it any more.
    #[error("the dashboard ends")]
    Ended,
}

/// `xpmfs` on another machine.
#[derive(Debug, Clone)]
pub struct RemoteXpmfs {
    connection: Arc<Connection>,
    server: MonitorServer,
    /// Its path there.
    program: OsString,
    /// How long it may take to end.
    timeout: Duration,
    /// Whether the dashboard ends.
    ends: Arc<AtomicBool>,
}

impl RemoteXpmfs {
    pub(super) fn new(
        connection: Arc<Connection>,
        server: MonitorServer,
        program: OsString,
        timeout: Duration,
    ) -> RemoteXpmfs {
        RemoteXpmfs {
            connection,
            server,
            program,
            timeout,
            ends: Arc::default(),
        }
    }

    /// Its path there, for a person.
    #[must_use]
    pub fn program(&self) -> String {
        self.program.to_string_lossy().into_owned()
    }

    /// What ends a question under way when it is set.
    #[must_use]
    pub fn ends(&self) -> Arc<AtomicBool> {
        self.ends.clone()
    }

    /// The status of the workspace, as JSON.
    ///
    /// # Errors
    ///
    /// There is no connection, the program fails or does not end in time, or it prints too much.
    pub fn status(&self) -> Result<Vec<u8>, RemoteXpmfsError> {
        let arguments = Script::new()
            .add(" --json status --workdir ")
            .path(&self.server.workdir);
        self.output(&arguments)
    }

    /// What it prints about its version.
    ///
    /// # Errors
    ///
    /// As [`RemoteXpmfs::status`].
    pub fn version(&self) -> Result<String, RemoteXpmfsError> {
        let printed = self.output(&Script::new().add(" --version"))?;
        Ok(String::from_utf8_lossy(&printed).trim().to_owned())
    }

    fn output(&self, arguments: &Script) -> Result<Vec<u8>, RemoteXpmfsError> {
        let nonce = nonce();
        let script = script(&nonce, &self.program, arguments);
        let deadline = Instant::now() + self.timeout;
        let command = self.server.command_of(script);
        let mut running = Running(self.connection.spawn_another(&command)?);
        let failed = |said: String| RemoteXpmfsError::Ssh(self.connection.failed(said));
        let Some(output) = running.0.stdout.take() else {
            return Err(failed("no pipe to ssh".to_owned()));
        };
        let said = Said::read(&mut running.0);
        let printed = match self.before(deadline, read(output, nonce))? {
            Ok(printed) => printed,
            Err(cause) => {
                let program = self.program();
                return Err(RemoteXpmfsError::Read { program, cause });
            }
        };
        if printed
            .as_ref()
            .is_some_and(|it| it.len() as u64 > PRINTED_MAX)
        {
            let program = self.program();
            return Err(RemoteXpmfsError::TooMuch { program });
        }
        let status = loop {
            match running.0.try_wait() {
                Ok(None) => self.check(deadline)?,
                Ok(Some(status)) => break Some(status),
                Err(_) => break None,
            }
            std::thread::sleep(END_TICK);
        };
        match (printed, status.is_some_and(|status| status.success())) {
            (Some(printed), true) => Ok(printed),
            (Some(_), false) => Err(failed(said.text(status, "it failed"))),
            (None, _) => Err(failed(said.text(status, "the shell there printed nothing"))),
        }
    }

    /// Waits for what a thread sends, until a time.
    fn before<T>(&self, deadline: Instant, sent: Receiver<T>) -> Result<T, RemoteXpmfsError> {
        loop {
            match sent.recv_timeout(TICK) {
                Ok(received) => return Ok(received),
                Err(RecvTimeoutError::Timeout) => self.check(deadline)?,
                // The thread could not be started.
                Err(RecvTimeoutError::Disconnected) => return Err(RemoteXpmfsError::Thread),
            }
        }
    }

    /// Fails when the answer is late, or is wanted no more.
    fn check(&self, deadline: Instant) -> Result<(), RemoteXpmfsError> {
        if self.ends.load(Ordering::Relaxed) {
            return Err(RemoteXpmfsError::Ended);
        }
        match Instant::now() < deadline {
            true => Ok(()),
            false => Err(RemoteXpmfsError::Silent {
                program: self.program(),
                waited: self.timeout,
            }),
        }
    }
}

/// A program that does not outlive the question.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Reads what is printed after a line, up to the limit and a byte more; `None` if the line does not come.
fn read(output: ChildStdout, nonce: String) -> Receiver<io::Result<Option<Vec<u8>>>> {
    let (send, printed) = bounded(1);
    let read = move || {
        let mut output = BufReader::new(output);
        let printed = skip_to(&mut output, &nonce).and_then(|found| {
            let mut printed = Vec::new();
            let mut output = output.take(PRINTED_MAX + 1);
            found
                .then(|| output.read_to_end(&mut printed))
                .transpose()?;
            Ok(found.then_some(printed))
        });
        let _ = send.send(printed);
    };
    // Without a thread, the channel is closed.
    let _ = Builder::new()
        .name("xpmfs-remote-status".to_owned())
        .spawn(read);
    printed
}

/// The script that runs the program until it ends, or the input does.
fn script(nonce: &str, program: &OsStr, arguments: &Script) -> Script {
    Script::new()
        .add("echo ")
        .word(nonce)
        // Commands in the background have no input otherwise.
        .add("\nexec 3<&0 </dev/null\n")
        .path(program)
        .add_script(arguments)
        .add(" 3<&- &\np=$!\n{ read -r x <&3; kill \"$p\"; } >/dev/null 2>&1 &\n")
        .add("k=$!\nwait \"$p\"\ns=$?\nkill \"$k\" 2>/dev/null\nexit \"$s\"\n")
}

#[cfg(test)]
mod tests {
    use std::io::BufRead;
    use std::path::Path;
    use std::process::{Command, Stdio};

    use super::super::server::tests::{ODD, shells};
    use super::*;
    use crate::settings::Ssh;

    /// The command that runs a program of a home directory there, as `sshd` does.
    fn command(shell: &str, home: &Path, program: &str, init: Option<&str>) -> Command {
        let program = home.join(program);
        let below = program.strip_prefix(home).unwrap().to_str().unwrap();
        let server = MonitorServer {
            workspace: String::new(),
            workdir: OsString::from("/w"),
            ssh: Ssh {
                shell_init: init.map(str::to_owned),
                ..Ssh::default()
            },
        };
        let arguments = Script::new().add(" status").words([ODD]);
        let script = script("nonce", format!("~/{below}").as_ref(), &arguments);
        let mut command = Command::new(shell);
        command
            .args(["-c", &server.command_of(script)])
            .env("HOME", home)
            .env("SHELL", shell)
            .current_dir(home)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        command
    }

    fn install(home: &Path, program: &str, text: &str) {
        let path = home.join(program);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(home.join("text"), format!("#!/bin/sh\n{text}\n")).unwrap();
        // By another process: a program that this one has open for writing is busy in children of other threads.
        let mut install = Command::new("install");
        let installed = install.arg(home.join("text")).arg(path).status();
        assert!(installed.unwrap().success());
    }

    #[test]
    fn the_path_and_the_arguments_are_words_in_every_shell() {
        let home = tempfile::tempdir().unwrap();
        let program = format!("{ODD}/{ODD}");
        let prints = "read x && exit 9; for word; do printf '%s\\0' \"$word\"; done; exit 5";
        install(home.path(), &program, prints);
        for shell in shells() {
            for init in [None, Some("echo loaded; true # a comment")] {
                let mut child = command(shell, home.path(), &program, init).spawn().unwrap();
                let input = child.stdin.take();
                let output = child.wait_with_output().unwrap();
                drop(input);
                let mut printed = &*output.stdout;
                assert!(skip_to(&mut printed, "nonce").unwrap(), "{shell}");
                let words = String::from_utf8_lossy(printed);
                assert_eq!(words, format!("status\0{ODD}\0"), "{shell} {init:?}");
                assert_eq!(output.status.code(), Some(5), "{shell} {init:?}");
            }
        }
        assert!(!home.path().join("PWNED").exists());
        assert!(!home.path().join(ODD).join("PWNED").exists());
    }

    #[test]
    fn the_program_ends_with_the_input() {
        let home = tempfile::tempdir().unwrap();
        install(home.path(), "sleeps", "echo $$; exec sleep 1000");
        for init in [None, Some("true")] {
            let mut child = command("/bin/sh", home.path(), "sleeps", init)
                .spawn()
                .unwrap();
            let mut output = BufReader::new(child.stdout.take().unwrap());
            assert!(skip_to(&mut output, "nonce").unwrap());
            let mut pid = String::new();
            output.read_line(&mut pid).unwrap();
            drop(child.stdin.take());
            // The output ends when no process has it any more.
            let mut rest = String::new();
            output.read_to_string(&mut rest).unwrap();
            assert!(!child.wait().unwrap().success());
            assert!(!Path::new("/proc").join(pid.trim()).exists(), "{pid}");
        }
    }
}
