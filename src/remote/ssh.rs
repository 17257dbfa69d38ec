//! Runs scripts on another machine by `ssh`.
//!
//! One `ssh` keeps the connection for as long as a copy lasts, and the others share it (`ControlMaster`): a password is asked for once, and
//! a job takes no new connection. That first `ssh` runs a script that waits for the end of its input; so it ends, and cleans up on the
//! other machine, also when this process is killed.
//!
//! What the other machine prints before the script begins, as some profiles do, is skipped: each script begins with a line that no other
//! program prints.

use std::collections::hash_map::RandomState;
use std::ffi::{OsStr, OsString};
use std::hash::{BuildHasher, Hasher};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use super::private_dir::PrivateDir;
use super::said::Said;
use super::shell::Script;

/// Options after those of the settings: of two values of an option, `ssh` uses the first.
const DEFAULTS: [&str; 3] = [
    "ConnectTimeout=30",
    "ServerAliveInterval=15",
    "ServerAliveCountMax=4",
];

/// The command for scripts on standard input. Messages are in English, and bytes are characters.
const SHELL: &str = "exec env LC_ALL=C sh -s";

/// The longest line before a script's first line.
const LINE_MAX: u64 = 1 << 20;

/// The longest path of a socket, without the random part that `ssh` adds while it makes it.
const SOCKET_MAX: usize = 80;

/// Why a script did not run to its end.
#[derive(Debug, thiserror::Error)]
pub enum SshError {
    /// The name of the host would be an option of `ssh`.
    #[error(
        "`{host}` is not a host: {} must not begin with `-`",
        host_source(workspace)
    )]
    Host {
        /// The name.
        host: String,
        /// The id of the workspace, or an empty one.
        workspace: String,
    },
    /// The program did not start.
    #[error("cannot run {program}: {cause}{}", advice(cause))]
    Start {
        /// The program.
        program: &'static str,
        /// The system's error.
        cause: io::Error,
    },
    /// The program, or the script, failed.
    #[error("{host}: {said}")]
    Failed {
        /// The host.
        host: String,
        /// What it wrote to standard error, or how it ended.
        said: String,
    },
}

fn host_source(workspace: &str) -> String {
    match workspace {
        "" => "its name".to_owned(),
        workspace => format!("`ssh.host` of {workspace}"),
    }
}

fn advice(cause: &io::Error) -> &'static str {
    match cause.kind() {
        io::ErrorKind::NotFound => ": it is not installed here",
        _ => "",
    }
}

/// A connection to another machine. Dropping it ends the script that keeps it.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) host: String,
    options: Vec<OsString>,
    /// A private directory on this machine, for the socket and other files.
    directory: PrivateDir,
    /// Scripts that run until the end; the first has the connection that the others share.
    keepers: Mutex<Vec<(Child, ChildStdin)>>,
    /// Whether `ssh` may ask for passwords at the terminal.
    asks: AtomicBool,
}

impl Connection {
    /// Prepares a connection; connects when the first script runs.
    ///
    /// # Errors
    ///
    /// The host is an option, or no private directory can be made.
    pub(super) fn new(
        workspace: &str,
        host: &str,
        options: &[String],
    ) -> Result<Connection, SshError> {
        if host.starts_with('-') || host.is_empty() {
            return Err(SshError::Host {
                host: host.to_owned(),
                workspace: workspace.to_owned(),
            });
        }
        let directory = PrivateDir::make().map_err(|cause| SshError::Start {
            program: "ssh",
            cause,
        })?;
        let mut options: Vec<OsString> = options.iter().map(OsString::from).collect();
        options.extend(
            DEFAULTS
                .iter()
                .flat_map(|option| ["-o".into(), OsString::from(option)]),
        );
        let socket = directory.path().join("s");
        if socket.as_os_str().len() <= SOCKET_MAX {
            let mut path = OsString::from("ControlPath=");
            path.push(&socket);
            options.extend(["-o".into(), path]);
        }
        Ok(Connection {
            host: host.to_owned(),
            options,
            directory,
            keepers: Mutex::default(),
            asks: AtomicBool::new(true),
        })
    }

    /// From now on, `ssh` fails where it would ask for a password: something else has the terminal.
    pub(super) fn ask_no_more(&self) {
        self.asks.store(false, Ordering::Relaxed);
    }

    /// Starts a command whose standard streams are pipes. Others share its connection for as long as it runs.
    ///
    /// # Errors
    ///
    /// `ssh` does not start.
    pub(super) fn spawn_first(&self, text: &str) -> Result<Child, SshError> {
        let mut command = self.command(["-o", "ControlMaster=yes", "-o", "ControlPersist=no"]);
        spawn("ssh", command.arg(text))
    }

    /// Starts a command whose standard streams are pipes, which shares a connection if there is one.
    ///
    /// # Errors
    ///
    /// `ssh` does not start.
    pub(super) fn spawn_another(&self, text: &str) -> Result<Child, SshError> {
        let mut command = self.command(["-o", "ControlMaster=no"]);
        spawn("ssh", command.arg(text))
    }

    /// A private directory on this machine, which is removed with the connection.
    pub(super) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The program and arguments that run a command on the host.
    pub(super) fn ssh(&self) -> Vec<OsString> {
        let mut words = vec![OsString::from("ssh")];
        words.extend(self.options.iter().cloned());
        words.extend(["-T".into(), "--".into(), OsString::from(&self.host)]);
        words
    }

    /// Starts a script that runs for as long as the connection: it prints `ready`, and then runs until its input ends. Returns what it printed
    /// before.
    ///
    /// # Errors
    ///
    /// The connection or the script fails.
    pub(super) fn keep(&self, script: &Script) -> Result<Vec<u8>, SshError> {
        let master = match self.is_connected() {
            true => "ControlMaster=no",
            false => "ControlMaster=yes",
        };
        let mut command = self.command(["-o", master, "-o", "ControlPersist=no"]);
        let mut child = spawn("ssh", command.arg(SHELL))?;
        let (Some(mut input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(self.failed("no pipe to ssh".to_owned()));
        };
        let said = Said::read(&mut child);
        let nonce = nonce();
        let sent = input
            .write_all(&started(&nonce, script, false))
            .and_then(|()| input.flush());
        let mut output = BufReader::new(output);
        let mut printed = Vec::new();
        let read = sent
            .and_then(|()| skip_to(&mut output, &nonce))
            .and_then(|found| match found {
                true => read_until_ready(&mut output, &mut printed),
                false => Ok(false),
            });
        if !matches!(read, Ok(true)) {
            drop(input);
            let status = child.wait();
            return Err(self.failed(said.text(status.ok(), "the shell there printed nothing")));
        }
        // Nothing more is read; the script prints nothing.
        self.keepers.lock().push((child, input));
        Ok(printed)
    }

    /// Whether a script keeps the connection.
    pub(super) fn is_connected(&self) -> bool {
        !self.keepers.lock().is_empty()
    }

    /// Ends the scripts that were started with [`Connection::keep`], the last one first, and waits for them.
    fn end(&self) {
        while let Some((mut child, input)) = self.keepers.lock().pop() {
            drop(input);
            let _ = child.wait();
        }
    }

    /// Ends the last script that was started with [`Connection::keep`], unless it is the one that has the connection.
    pub(super) fn end_last(&self) {
        let last = {
            let mut keepers = self.keepers.lock();
            match keepers.len() {
                0 | 1 => None,
                _ => keepers.pop(),
            }
        };
        if let Some((mut child, input)) = last {
            drop(input);
            let _ = child.wait();
        }
    }

    /// Runs a script, and gives its output to a function.
    ///
    /// # Errors
    ///
    /// The connection, the script or the function fails.
    pub(super) fn run<T>(
        &self,
        script: &Script,
        read: impl FnOnce(&mut dyn BufRead) -> io::Result<T>,
    ) -> Result<T, SshError> {
        let mut command = self.command(["-o", "ControlMaster=no"]);
        let mut child = spawn("ssh", command.arg(SHELL))?;
        let nonce = nonce();
        let text = started(&nonce, script, true);
        let input = child.stdin.take();
        let Some(output) = child.stdout.take() else {
            return Err(self.failed("no pipe to ssh".to_owned()));
        };
        let said = Said::read(&mut child);
        let result = std::thread::scope(|scope| {
            // In a thread: the script may print while it is still being sent.
            scope.spawn(move || {
                if let Some(mut input) = input {
                    // If this fails, the shell has ended, and its status says why.
                    let _ = input.write_all(&text);
                }
            });
            let mut output = BufReader::new(output);
            match skip_to(&mut output, &nonce) {
                Ok(true) => Some(read(&mut output)),
                _ => None,
            }
            // Here the output is closed, so that a script that is not read to its end stops.
        });
        let status = child.wait().ok();
        match (result, status.is_some_and(|status| status.success())) {
            (Some(Ok(result)), true) => Ok(result),
            (Some(Err(error)), true) => Err(self.failed(error.to_string())),
            (Some(Err(_)), false) | (Some(Ok(_)), false) => {
                Err(self.failed(said.text(status, "the script failed")))
            }
            (None, _) => Err(self.failed(said.text(status, "the shell there printed nothing"))),
        }
    }

    /// Runs a script that prints little, and returns that.
    ///
    /// # Errors
    ///
    /// As [`Connection::run`].
    pub(super) fn output(&self, script: &Script) -> Result<Vec<u8>, SshError> {
        self.run(script, |output| {
            let mut printed = Vec::new();
            output.take(LINE_MAX).read_to_end(&mut printed)?;
            Ok(printed)
        })
    }

    fn command<const N: usize>(&self, options: [&str; N]) -> Command {
        let mut words = self.ssh().into_iter();
        let mut command = Command::new(words.next().unwrap_or_default());
        if !self.asks.load(Ordering::Relaxed) {
            command.args(["-o", "BatchMode=yes"]);
        }
        // Before those of the settings, which may have a master of their own.
        command.args(options).args(words);
        command
    }

    pub(super) fn failed(&self, said: String) -> SshError {
        SshError::Failed {
            host: self.host.clone(),
            said,
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.end();
    }
}

/// Starts a program with pipes.
pub(super) fn spawn(program: &'static str, command: &mut Command) -> Result<Child, SshError> {
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
        .spawn()
        .map_err(|cause| SshError::Start { program, cause })
}

/// A line that no other program prints.
pub(super) fn nonce() -> String {
    format!("xpmfs {:016x}", RandomState::new().build_hasher().finish())
}

/// A script that first prints a line. It is a function, so that none of it runs if only a part of it arrives.
fn started(nonce: &str, script: &Script, without_input: bool) -> Vec<u8> {
    let mut text = Vec::new();
    text.extend_from_slice(b"main() {\n");
    text.extend_from_slice(script.as_bytes());
    text.extend_from_slice(format!("\n}}\nprintf '%s\\n' '{nonce}'\nmain").as_bytes());
    text.extend_from_slice(match without_input {
        true => b" </dev/null\nexit $?\n",
        false => b"\nexit $?\n",
    });
    text
}

/// Skips what is printed up to a line; returns false if the line does not come.
pub(super) fn skip_to(output: &mut impl BufRead, line: &str) -> io::Result<bool> {
    loop {
        let mut read = Vec::new();
        if output
            .by_ref()
            .take(LINE_MAX)
            .read_until(b'\n', &mut read)?
            == 0
        {
            return Ok(false);
        }
        // A profile may have printed without a newline before it.
        if read
            .strip_suffix(b"\n")
            .is_some_and(|read| read.ends_with(line.as_bytes()))
        {
            return Ok(true);
        }
    }
}

fn read_until_ready(output: &mut impl BufRead, printed: &mut Vec<u8>) -> io::Result<bool> {
    const READY: &[u8] = b"ready\0";
    loop {
        let before = printed.len();
        if output.by_ref().take(LINE_MAX).read_until(0, printed)? == 0 {
            return Ok(false);
        }
        if printed.get(before..) == Some(READY) {
            printed.truncate(before);
            return Ok(true);
        }
    }
}

/// The next text that ends with NUL; `None` at the end.
pub(super) fn record(output: &mut dyn BufRead) -> io::Result<Option<OsString>> {
    use std::os::unix::ffi::OsStringExt;
    let mut text = Vec::new();
    let mut output = output.take(LINE_MAX);
    if output.read_until(0, &mut text)? == 0 {
        return Ok(None);
    }
    match text.pop() {
        Some(0) => Ok(Some(OsString::from_vec(text))),
        _ => Err(io::Error::other("the output ended too early")),
    }
}

/// As [`record`], where the output must not end.
pub(super) fn expect_record(output: &mut dyn BufRead) -> io::Result<OsString> {
    record(output)?.ok_or_else(|| io::Error::other("the output ended too early"))
}

/// A number that was printed.
pub(super) fn number(text: &OsStr) -> io::Result<u64> {
    let text = text.to_string_lossy();
    // Times have a fraction.
    let whole = text.split('.').next().unwrap_or_default();
    let number = whole.parse::<i64>().map(|number| number.unsigned_abs());
    number.map_err(|_| io::Error::other(format!("{text:?} is not a number")))
}
