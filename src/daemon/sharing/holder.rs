//! The holder of a shared mount: a process, a session or a cgroup, and whether it is alive.

use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::sys::printable::printable;
use crate::sys::process_stat::ProcessStat;

/// A holder as it is given on a command line: `pid:N`, `session:N` or `cgroup:DIRECTORY`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Given {
    /// A process.
    Process(i32),
    /// All processes of a session.
    Session(i32),
    /// All processes of a cgroup and of those below it.
    Cgroup(PathBuf),
}

/// What identifies a holder for as long as the machine runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Holder {
    /// A process.
    Process {
        /// Its id.
        pid: i32,
        /// Its start ([`ProcessStat::start`]).
        start: u64,
    },
    /// A session.
    Session {
        /// Its id: the pid of its first process.
        session: i32,
        /// The start of that process; `None` if it had ended before.
        start: Option<u64>,
    },
    /// A cgroup.
    Cgroup {
        /// Its directory.
        directory: String,
        /// The directory's device and inode number.
        device: u64,
        /// See `device`.
        inode: u64,
    },
}

/// Why a holder cannot be registered.
#[derive(Debug, thiserror::Error)]
pub enum HolderError {
    /// Not one of the three forms.
    #[error("`{0}` names no holder: write pid:N, session:N or cgroup:DIRECTORY")]
    Form(String),
    /// It does not exist, or has ended.
    #[error("there is no {0}: name a holder that runs for as long as the mount is needed")]
    Absent(String),
    /// The directory is not a cgroup.
    #[error("{} is not the directory of a cgroup: see /proc/self/cgroup and /sys/fs/cgroup", .0.display())]
    NotACgroup(PathBuf),
    /// A name that is not UTF-8.
    #[error("the name of the cgroup {} is not UTF-8: name a process or a session", .0.display())]
    NotUtf8(PathBuf),
    /// The caller's process is not visible here.
    #[error(
        "the process that called this command is in another pid namespace: name a holder with --holder"
    )]
    NoCaller,
    /// `/proc` or the cgroup cannot be read.
    #[error("cannot look at {what}: {source}")]
    Io {
        /// What was looked at.
        what: String,
        /// Why.
        source: io::Error,
    },
}

impl FromStr for Given {
    type Err = HolderError;

    fn from_str(text: &str) -> Result<Given, HolderError> {
        let form = || HolderError::Form(text.to_owned());
        let number = |text: &str| match text.parse() {
            Ok(number) if number > 0 => Ok(number),
            _ => Err(form()),
        };
        match text.split_once(':').ok_or_else(form)? {
            ("pid", pid) => Ok(Given::Process(number(pid)?)),
            ("session", session) => Ok(Given::Session(number(session)?)),
            ("cgroup", path) if path.starts_with('/') => Ok(Given::Cgroup(path.into())),
            _ => Err(form()),
        }
    }
}

impl fmt::Display for Given {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Given::Process(pid) => write!(f, "process {pid}"),
            Given::Session(session) => write!(f, "session {session}"),
            Given::Cgroup(path) => write!(f, "cgroup {}", printable(&path.to_string_lossy())),
        }
    }
}

impl fmt::Display for Holder {
    /// In the form of the command line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Holder::Process { pid, .. } => write!(f, "pid:{pid}"),
            Holder::Session { session, .. } => write!(f, "session:{session}"),
            Holder::Cgroup { directory, .. } => write!(f, "cgroup:{directory}"),
        }
    }
}

impl Given {
    /// The holder that has this name now.
    ///
    /// # Errors
    ///
    /// There is none, or it cannot be looked at.
    pub fn identify(&self) -> Result<Holder, HolderError> {
        let absent = || HolderError::Absent(self.to_string());
        let failed = |source| HolderError::Io {
            what: self.to_string(),
            source,
        };
        let running = |pid: i32| {
            let stat = ProcessStat::of(pid).map_err(failed)?;
            Ok(stat.filter(|stat| !stat.has_ended))
        };
        match self {
            Given::Process(pid) => Ok(Holder::Process {
                pid: *pid,
                start: running(*pid)?.ok_or_else(absent)?.start,
            }),
            Given::Session(session) => {
                // A process of that number may belong to another session.
                let leader = running(*session)?.filter(|stat| stat.session == *session);
                let start = leader.map(|stat| stat.start);
                if start.is_none() && !has_processes(*session).map_err(failed)? {
                    return Err(absent());
                }
                Ok(Holder::Session {
                    session: *session,
                    start,
                })
            }
            Given::Cgroup(path) => {
                let directory = path.to_str().ok_or(HolderError::NotUtf8(path.clone()))?;
                let metadata = match fs::metadata(path) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(absent()),
                    metadata => metadata.map_err(failed)?,
                };
                if !path.join(PROCESSES).exists() {
                    return Err(HolderError::NotACgroup(path.clone()));
                }
                Ok(Holder::Cgroup {
                    directory: directory.to_owned(),
                    device: metadata.dev(),
                    inode: metadata.ino(),
                })
            }
        }
    }
}

impl Holder {
    /// Whether it is alive. A holder that cannot be looked at counts as alive: a mount that stays harms nothing.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        match self {
            Holder::Process { pid, start } => match ProcessStat::of(*pid) {
                Ok(Some(stat)) => stat.start == *start && !stat.has_ended,
                Ok(None) => false,
                Err(_) => true,
            },
            Holder::Session { session, start } => match ProcessStat::of(*session) {
                // As long as the session has a process, no other process receives its number.
                Ok(Some(stat)) if start.is_some_and(|start| start != stat.start) => false,
                Ok(Some(stat)) if !stat.has_ended => true,
                Ok(_) => has_processes(*session).unwrap_or(true),
                Err(_) => true,
            },
            Holder::Cgroup {
                directory,
                device,
                inode,
            } => match fs::metadata(directory) {
                Ok(metadata) => {
                    (metadata.dev(), metadata.ino()) == (*device, *inode)
                        && is_populated(Path::new(directory), &mut CGROUPS_MAX.to_owned())
                }
                Err(error) => error.kind() != io::ErrorKind::NotFound,
            },
        }
    }

    /// For people: its kind, its number or path, and the command of a process.
    #[must_use]
    pub fn description(&self) -> String {
        let (kind, pid) = match self {
            Holder::Process { pid, .. } => ("process", pid),
            Holder::Session { session, .. } => ("session", session),
            Holder::Cgroup { directory, .. } => return format!("cgroup {directory}"),
        };
        match command_line(*pid) {
            Some(command) => format!("{kind} {pid} ({command})"),
            None => format!("{kind} {pid}"),
        }
    }
}

/// The length in characters at which a command is cut off in messages.
const COMMAND_MAX: usize = 60;

/// The command of a process, for people.
fn command_line(pid: i32) -> Option<String> {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let words: Vec<_> = bytes
        .split(|byte| *byte == 0)
        .filter(|word| !word.is_empty())
        .map(String::from_utf8_lossy)
        .collect();
    let text = words.join(" ");
    if text.is_empty() {
        return None;
    }
    let mut shown: String = text.chars().take(COMMAND_MAX).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    Some(printable(&shown).into_owned())
}

/// Whether a session has a process that runs.
fn has_processes(session: i32) -> io::Result<bool> {
    let pids = fs::read_dir("/proc")?
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    for pid in pids {
        if let Ok(Some(stat)) = ProcessStat::of(pid)
            && stat.session == session
            && !stat.has_ended
        {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The file of a cgroup's processes.
const PROCESSES: &str = "cgroup.procs";

/// How many cgroups are looked at; with more, a cgroup counts as populated.
const CGROUPS_MAX: usize = 1000;

/// Whether a cgroup or one below it has a process.
fn is_populated(cgroup: &Path, left: &mut usize) -> bool {
    let Some(rest) = left.checked_sub(1) else {
        return true;
    };
    *left = rest;
    match fs::read(cgroup.join(PROCESSES)) {
        Ok(pids) if !pids.is_empty() => return true,
        // A threaded cgroup does not list its processes; a removed one has no such file.
        Err(error) if error.kind() != io::ErrorKind::NotFound => return true,
        _ => {}
    }
    let below = fs::read_dir(cgroup).into_iter().flatten().flatten();
    let mut below = below.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    below.any(|entry| is_populated(&entry.path(), left))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_holder_is_written_in_three_forms() {
        assert_eq!("pid:12".parse::<Given>().unwrap(), Given::Process(12));
        assert_eq!("session:7".parse::<Given>().unwrap(), Given::Session(7));
        let cgroup = "cgroup:/sys/fs/cgroup/a:b".parse::<Given>().unwrap();
        assert_eq!(cgroup, Given::Cgroup("/sys/fs/cgroup/a:b".into()));
        for wrong in [
            "", "12", "pid:", "pid:0", "pid:-1", "pid:x", "cgroup:a", "tty:1",
        ] {
            assert!(wrong.parse::<Given>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_process_is_a_holder_until_it_ends_and_its_successor_in_the_number_is_not() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let holder = Given::Process(pid).identify().unwrap();
        assert!(holder.is_alive());
        let Holder::Process { start, .. } = holder else {
            panic!("{holder:?}");
        };
        let other = Holder::Process {
            pid,
            start: start - 1,
        };
        assert!(!other.is_alive());
        child.kill().unwrap();
        // Not waited for yet.
        let limit = std::time::Duration::from_secs(60);
        assert!(crate::sys::deadline::wait_until(limit, || !holder.is_alive()));
        child.wait().unwrap();
        assert!(!holder.is_alive());
        assert!(Given::Process(pid).identify().is_err());
    }

    #[test]
    fn a_session_outlives_its_first_process() {
        let mut first = Command::new("setsid")
            .args(["sh", "-c", "sleep 60 & echo $!"])
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut pid = String::new();
        let mut stdout = std::io::BufReader::new(first.stdout.take().unwrap());
        std::io::BufRead::read_line(&mut stdout, &mut pid).unwrap();
        let pid: i32 = pid.trim().parse().unwrap();
        let session = ProcessStat::of(pid).unwrap().unwrap().session;
        first.wait().unwrap();
        let holder = Given::Session(session).identify().unwrap();
        assert!(holder.is_alive());
        let process = rustix::process::Pid::from_raw(pid).unwrap();
        rustix::process::kill_process(process, rustix::process::Signal::KILL).unwrap();
        let limit = std::time::Duration::from_secs(60);
        assert!(crate::sys::deadline::wait_until(limit, || !holder.is_alive()));
    }

    #[test]
    fn a_directory_that_is_not_a_cgroup_is_refused() {
        let error = Given::Cgroup("/proc".into()).identify().unwrap_err();
        assert!(error.to_string().contains("not the directory of a cgroup"));
        let error = Given::Cgroup("/never/there".into()).identify();
        assert!(matches!(error, Err(HolderError::Absent(_))));
    }
}
