//! Copies one tree between this machine and another by `rsync` over `ssh`, and checks that the copy is complete.
//!
//! No path is an argument of rsync: it would read a `:` as a host, and would expand `*` in paths of the other machine. Both sides begin in
//! their directories, and copy `./`. The one here is entered by its descriptor. The one there is entered by the script that `ssh` runs,
//! which rsync takes for its remote shell: to the command of [`Connection::ssh`], rsync adds the host, which becomes the name of the
//! script, and its own command, which becomes the script's arguments.

use std::ffi::{OsStr, OsString};
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::said::Said;
use super::shell::{NAME, Script};
use super::ssh::{Connection, SshError, spawn};
use crate::transfer::Progress;
use crate::workspace::jobs::JobId;

/// What is kept: symlinks, permissions, times, groups, owners (as root), hard links, holes, fifos. As of experimaestro's `-aH`, but neither
/// devices nor set-id bits, which another machine should not be able to put here. Neither extended attributes nor access control lists,
/// which one of the two file systems may lack.
const OPTIONS: [&str; 8] = [
    "-rlptgoHS",
    "--specials",
    "--chmod=Fug-s",
    // Paths are sent by rsync's protocol, not as words of a command.
    "--protect-args",
    // Of files with one name, the first is copied, also if it is in a directory that has that name, too.
    "--no-inc-recursive",
    "--no-motd",
    "--no-human-readable",
    "--timeout=600",
];

/// How often it is checked whether the copy was cancelled.
const CANCEL_POLL: Duration = Duration::from_millis(200);

/// How often a copy begins again because the source changed.
const TRIES: usize = 3;

/// Exit statuses of rsync for files that vanished or changed meanwhile.
const CHANGED: [i32; 2] = [23, 24];

/// A tree on each machine.
pub(super) struct Trees<'a> {
    pub(super) connection: &'a Connection,
    /// Enters the directory of the tree there, and makes it if it is written.
    pub(super) there: Script,
    /// A descriptor of the directory of the tree here.
    pub(super) here: std::os::fd::BorrowedFd<'a>,
    /// Patterns of what is not copied.
    pub(super) excluded: Vec<OsString>,
}

/// The direction of a copy.
#[derive(Clone, Copy)]
pub(super) enum Direction<'a> {
    /// From this machine; entries of the directory `overlay` replace those of the tree.
    Up { overlay: Option<&'a Path> },
    /// To this machine.
    Down,
}

/// Copies a tree, until a second look finds no difference.
///
/// # Errors
///
/// rsync or the connection fails, or the source keeps changing.
pub(super) fn copy(
    trees: &Trees<'_>,
    direction: Direction<'_>,
    progress: &Progress,
) -> Result<(), String> {
    let mut counted = 0;
    for _ in 0..TRIES {
        let run = trees.run(direction, &["--info=progress2"], |bytes| {
            progress.add_bytes(bytes.saturating_sub(counted));
            counted = counted.max(bytes);
            progress.is_cancelled()
        })?;
        if let Some(why) = run.failure
            && !run.changed
        {
            return Err(why);
        }
        let looked = trees.run(
            direction,
            &["--dry-run", "--itemize-changes", "--delete"],
            |_| progress.is_cancelled(),
        )?;
        match looked.failure {
            None if looked.printed.is_empty() => return Ok(()),
            Some(why) if !looked.changed => return Err(why),
            _ => {}
        }
    }
    Err("it changed while it was copied: copy it again when it does not change".to_owned())
}

/// How rsync ended.
struct Ended {
    /// What it printed, its end.
    printed: String,
    failure: Option<String>,
    /// Whether it failed because files changed.
    changed: bool,
}

impl Trees<'_> {
    fn run(
        &self,
        direction: Direction<'_>,
        more: &[&str],
        mut seen: impl FnMut(u64) -> bool,
    ) -> Result<Ended, String> {
        let mut command = Command::new("rsync");
        command
            .env("LC_ALL", "C")
            .args(OPTIONS)
            .args(more)
            .arg("-e")
            .arg(self.remote_shell());
        for pattern in &self.excluded {
            let mut option = OsString::from("--exclude=");
            option.push(pattern);
            command.arg(option);
        }
        let there = format!("{NAME}:./");
        match direction {
            Direction::Up { overlay } => {
                if let Some(overlay) = overlay {
                    let mut overlay = overlay.as_os_str().to_owned();
                    overlay.push("/");
                    command.arg(overlay);
                }
                command.arg("./").arg(there);
            }
            Direction::Down => {
                command.arg(there).arg("./");
            }
        }
        // The descriptor is open in the child until the program begins.
        command.current_dir(format!("/proc/self/fd/{}", self.here.as_raw_fd()));
        let mut child = spawn("rsync", command.stdin(Stdio::null()))
            .map_err(|error: SshError| error.to_string())?;
        drop(child.stdin.take());
        let said = Said::read(&mut child);
        let printed = watch(&mut child, &mut seen);
        let status = child.wait().map_err(|error| error.to_string())?;
        let host = &self.connection.host;
        Ok(Ended {
            printed,
            changed: status.code().is_some_and(|code| CHANGED.contains(&code)),
            failure: (!status.success())
                .then(|| format!("{host}: {}", said.text(Some(status), "rsync failed"))),
        })
    }

    /// The value of `-e`: words in quotes, in which a quote is doubled.
    fn remote_shell(&self) -> OsString {
        let mut words = self.connection.ssh();
        let script = self.there.clone().add(" && exec \"$@\"");
        words.push(script.command().into());
        let mut text = Vec::new();
        for word in words {
            if !text.is_empty() {
                text.push(b' ');
            }
            text.push(b'\'');
            for byte in word.as_bytes() {
                match byte {
                    b'\'' => text.extend_from_slice(b"''"),
                    _ => text.push(*byte),
                }
            }
            text.push(b'\'');
        }
        OsString::from_vec(text)
    }
}

/// Reads what a program prints; returns its end. `seen` gets the number of bytes that the program reports, and returns whether to kill it.
fn watch(child: &mut Child, seen: &mut impl FnMut(u64) -> bool) -> String {
    let Some(mut output) = child.stdout.take() else {
        return String::new();
    };
    let mut tail: Vec<u8> = Vec::new();
    let mut buffer = [0; 4096];
    let mut bytes = 0;
    loop {
        let limit = Timespec::try_from(CANCEL_POLL).ok();
        let ready = {
            let mut events = [PollFd::new(&output, PollFlags::IN)];
            poll(&mut events, limit.as_ref()).unwrap_or(0)
        };
        if ready > 0 {
            match output.read(&mut buffer) {
                Ok(length @ 1..) => {
                    tail.extend_from_slice(buffer.get(..length).unwrap_or_default())
                }
                _ => break,
            }
            let excess = tail.len().saturating_sub(buffer.len());
            tail.drain(..excess);
            let lines = tail.split(|byte| b"\r\n".contains(byte));
            bytes = lines.filter_map(reported).max().unwrap_or(bytes);
        }
        if seen(bytes) {
            let _ = child.kill();
        }
    }
    String::from_utf8_lossy(&tail).trim().to_owned()
}

/// The number of bytes in a line of `--info=progress2`: `  1,234,567  12%    1.18MB/s    0:00:08`.
fn reported(line: &[u8]) -> Option<u64> {
    let mut words = std::str::from_utf8(line).ok()?.split_ascii_whitespace();
    let (bytes, percent) = (words.next()?, words.next()?);
    percent.strip_suffix('%')?.parse::<u8>().ok()?;
    bytes.replace(',', "").parse().ok()
}

/// The patterns of what is not copied of a job: internal files, and files that were removed while they were open.
pub(super) fn excluded_of_job(job: &JobId) -> Vec<OsString> {
    let mut lock = pattern(job.name());
    lock.push(".lock");
    let mut patterns = [
        "/*.pid",
        "/.lock",
        "/.scheduler",
        "/.experimaestro/no-backup",
        ".nfs0*",
        ".fuse_hidden0*",
    ]
    .map(OsString::from)
    .to_vec();
    for above in ["/", "/.experimaestro/"] {
        let mut pattern = OsString::from(above);
        pattern.push(&lock);
        patterns.push(pattern);
    }
    patterns
}

/// The patterns of what is not copied of a run: its symlinks to jobs, which are made anew, and locks.
pub(super) fn excluded_of_run() -> Vec<OsString> {
    ["/jobs", "/*.lock", ".nfs0*", ".fuse_hidden0*"]
        .map(OsString::from)
        .to_vec()
}

/// A pattern that only a name matches. rsync reads a backslash as itself, unless the pattern has a wildcard.
fn pattern(name: &OsStr) -> OsString {
    let bytes = name.as_bytes();
    let is_wild = |byte: &u8| b"*?[".contains(byte);
    if !bytes.iter().any(is_wild) {
        return name.to_owned();
    }
    let mut escaped = Vec::with_capacity(bytes.len() + 8);
    for byte in bytes {
        if is_wild(byte) || *byte == b'\\' {
            escaped.push(b'\\');
        }
        escaped.push(*byte);
    }
    OsString::from_vec(escaped)
}

impl<'a> Trees<'a> {
    pub(super) fn new(
        connection: &'a Connection,
        there: Script,
        here: &'a impl AsFd,
        excluded: Vec<OsString>,
    ) -> Trees<'a> {
        Trees {
            connection,
            there,
            here: here.as_fd(),
            excluded,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_read_from_whole_lines() {
        assert_eq!(
            reported(b"  1,234,567  12%    1.18MB/s    0:00:08"),
            Some(1_234_567)
        );
        assert_eq!(reported(b"0 0% 0.00kB/s 0:00:00"), Some(0));
        for line in ["", "12", ">f+++++++++ model.bin", "4,567  12", "x 12%"] {
            assert_eq!(reported(line.as_bytes()), None, "{line}");
        }
    }

    #[test]
    fn patterns_match_a_name_as_it_is() {
        assert_eq!(pattern(OsStr::new("a\\b")), OsStr::new("a\\b"));
        assert_eq!(
            pattern(OsStr::new("a\\[*?x]")),
            OsStr::new("a\\\\\\[\\*\\?x]")
        );
    }
}
