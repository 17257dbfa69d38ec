//! The state of a supervisor, as it is passed to the program that goes on in its place (`execve`).
//!
//! The process stays the same, so that its number, its children and its descriptors stay. A file in memory says which descriptor is
//! which; its number is an argument of the program.

use std::ffi::{CString, OsString};
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use rustix::fs::MemfdFlags;
use rustix::io::FdFlags;
use rustix::process::Pid;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::estate::Estate;
use super::message::MountPlace;
use crate::daemon::log;
use crate::mount::{Agreed, KeptFile};
use crate::sys::calls::{execute, take_inherited};

/// The version of all that one program leaves to another: this state, the messages of workers, and the records of `mount`. A
/// program goes on with a mount only if its own version is the same. Increase it with each change of any of these.
pub(super) const HANDOVER_VERSION: u32 = 3;

/// The flags with which a program is started: to check whether it can go on with a mount, and to do so.
pub const CHECK_FLAG: &str = "check-reload";
/// See [`CHECK_FLAG`].
pub const RESUME_FLAG: &str = "resume";

/// Puts `flag` among arguments, where it is not taken for a path.
#[must_use]
pub fn with_flag(mut arguments: Vec<OsString>, flag: &str) -> Vec<OsString> {
    let end = arguments
        .iter()
        .position(|argument| argument == "--")
        .unwrap_or(arguments.len());
    arguments.insert(end, flag.into());
    arguments
}

/// How a supervisor was started.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SupervisorStart {
    /// Its arguments, without its name.
    pub arguments: Vec<OsString>,
    /// Whether the mount was made in the background.
    pub in_background: bool,
}

/// The state, with numbers for descriptors.
#[derive(Serialize, Deserialize)]
struct Record {
    version: u32,
    origin: SupervisorStart,
    plan: serde_json::Value,
    connection: (i32, Agreed),
    place: (MountPlace, i32),
    log: i32,
    counts: i32,
    intents: i32,
    recent: i32,
    holders: Option<i32>,
    files: Vec<(KeptFile, i32)>,
    over: bool,
    killed: Vec<i32>,
    worker: i32,
    socket: i32,
    client: i32,
    /// The log file of the program.
    written: Option<(Bytes, i32)>,
}

/// A path.
#[derive(Serialize, Deserialize)]
struct Bytes(#[serde(with = "crate::sys::path_bytes")] PathBuf);

/// What a program has received from the one before.
#[derive(Debug)]
pub struct PassedState {
    pub(super) origin: SupervisorStart,
    pub(super) estate: Estate,
    pub(super) over: bool,
    pub(super) killed: Vec<Pid>,
    /// The worker of the program before, and the socket to it.
    pub(super) worker: Pid,
    pub(super) socket: OwnedFd,
    /// The connection to the command that waits.
    pub(super) client: OwnedFd,
    plan: serde_json::Value,
    log: Option<(PathBuf, OwnedFd)>,
}

impl PassedState {
    /// The plan that this program has made when it was checked.
    ///
    /// # Errors
    ///
    /// It is another program's.
    pub fn plan<T: DeserializeOwned>(&mut self) -> io::Result<T> {
        Ok(serde_json::from_value(self.plan.take())?)
    }

    /// The log file that the program before has written, and its path.
    pub fn take_log(&mut self) -> Option<(PathBuf, OwnedFd)> {
        self.log.take()
    }

    /// Whether the mount was made in the background.
    #[must_use]
    pub fn is_in_background(&self) -> bool {
        self.origin.in_background
    }
}

/// Receives the state that the program before has passed on with this descriptor. Called before anything else is opened.
///
/// # Errors
///
/// It is not such a state.
pub fn receive(number: i32) -> io::Result<PassedState> {
    let mut file = File::from(take_inherited(number)?);
    file.rewind()?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    let record: Record = serde_json::from_slice(&bytes)?;
    if record.version != HANDOVER_VERSION {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let take = |number: i32| -> io::Result<OwnedFd> { Ok(take_inherited(number)?) };
    let (device, agreed) = record.connection;
    let (place, primary) = record.place;
    let mut estate = Estate {
        connection: Some((take(device)?, agreed)),
        place: Some((place, take(primary)?)),
        log: Some(take(record.log)?),
        counts: Some(take(record.counts)?),
        intents: Some(take(record.intents)?),
        recent: Some(take(record.recent)?),
        ..Estate::default()
    };
    estate.holders = record.holders.map(take).transpose()?;
    for (key, number) in record.files {
        estate.files.insert(key, take(number)?);
    }
    let log = match record.written {
        Some((Bytes(path), number)) => Some((path, take(number)?)),
        None => None,
    };
    // The name of a program that was executed by a descriptor would be the descriptor's number.
    let _ = rustix::thread::set_name(c"xpmfs");
    Ok(PassedState {
        origin: record.origin,
        estate,
        over: record.over,
        killed: record
            .killed
            .into_iter()
            .filter_map(Pid::from_raw)
            .collect(),
        worker: Pid::from_raw(record.worker).ok_or(io::ErrorKind::InvalidData)?,
        socket: take(record.socket)?,
        client: take(record.client)?,
        plan: record.plan,
        log,
    })
}

/// What is passed on beside the estate.
pub(super) struct Passing<'a> {
    pub(super) origin: &'a SupervisorStart,
    pub(super) plan: serde_json::Value,
    pub(super) worker: Pid,
    pub(super) socket: BorrowedFd<'a>,
    pub(super) client: BorrowedFd<'a>,
    pub(super) over: bool,
    /// Children that were killed and may not have ended.
    pub(super) killed: &'a [Pid],
}

/// Replaces this process by `program`, an open executable file. Returns the error if that fails; nothing has changed then.
pub(super) fn pass_on(program: &OwnedFd, estate: &Estate, with: Passing<'_>) -> io::Error {
    let mut open = Vec::new();
    match try_pass_on(program, estate, with, &mut open) {
        Ok(never) => match never {},
        Err(error) => {
            for descriptor in open {
                // As it was; a failure has no remedy.
                let _ = rustix::io::fcntl_setfd(descriptor, FdFlags::CLOEXEC);
            }
            error
        }
    }
}

fn try_pass_on<'a>(
    program: &OwnedFd,
    estate: &'a Estate,
    with: Passing<'a>,
    open: &mut Vec<BorrowedFd<'a>>,
) -> io::Result<std::convert::Infallible> {
    let mut pass = |descriptor: BorrowedFd<'a>| -> io::Result<i32> {
        rustix::io::fcntl_setfd(descriptor, FdFlags::empty())?;
        open.push(descriptor);
        Ok(descriptor.as_raw_fd())
    };
    let missing = || io::Error::from(io::ErrorKind::InvalidInput);
    let (device, agreed) = estate.connection.as_ref().ok_or_else(missing)?;
    let (place, primary) = estate.place.as_ref().ok_or_else(missing)?;
    let memory = |memory: &'a Option<OwnedFd>| memory.as_ref().map(AsFd::as_fd).ok_or_else(missing);
    let files = estate.files.iter();
    let log = match log::file() {
        Some((path, file)) => Some((Bytes(path.to_owned()), pass(file)?)),
        None => None,
    };
    let record = Record {
        version: HANDOVER_VERSION,
        origin: with.origin.clone(),
        plan: with.plan,
        connection: (pass(device.as_fd())?, agreed.clone()),
        place: (place.clone(), pass(primary.as_fd())?),
        log: pass(memory(&estate.log)?)?,
        counts: pass(memory(&estate.counts)?)?,
        intents: pass(memory(&estate.intents)?)?,
        recent: pass(memory(&estate.recent)?)?,
        holders: estate
            .holders
            .as_ref()
            .map(|it| pass(it.as_fd()))
            .transpose()?,
        files: files
            .map(|(key, file)| Ok((*key, pass(file.as_fd())?)))
            .collect::<io::Result<_>>()?,
        over: with.over,
        killed: with.killed.iter().map(|pid| pid.as_raw_pid()).collect(),
        worker: with.worker.as_raw_pid(),
        socket: pass(with.socket)?,
        client: pass(with.client)?,
        written: log,
    };
    let mut state = File::from(rustix::fs::memfd_create("xpmfs", MemfdFlags::empty())?);
    state.write_all(&serde_json::to_vec(&record)?)?;
    let flag = format!("--{RESUME_FLAG}={}", state.as_raw_fd());
    let arguments = with_flag(with.origin.arguments.clone(), &flag);
    let mut list = vec![CString::from(c"xpmfs")];
    for argument in arguments {
        list.push(CString::new(argument.into_vec())?);
    }
    // By its descriptor, so that it is the same file that was checked.
    let path = CString::new(format!("/proc/self/fd/{}", program.as_raw_fd()))?;
    Err(execute(&path, &list).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flag_stands_before_paths() {
        let with = with_flag(vec!["mount".into(), "--".into(), "/m".into()], "--x");
        assert_eq!(with, ["mount", "--x", "--", "/m"]);
        assert_eq!(with_flag(vec!["mount".into()], "--x"), ["mount", "--x"]);
    }

    #[test]
    fn only_a_state_of_this_version_is_received() {
        let state = |bytes: &[u8]| {
            let file = rustix::fs::memfd_create("test", MemfdFlags::CLOEXEC).unwrap();
            let mut file = File::from(file);
            file.write_all(bytes).unwrap();
            use std::os::fd::IntoRawFd;
            file.into_raw_fd()
        };
        assert!(receive(state(b"")).is_err());
        assert!(receive(state(b"{\"version\": 0}")).is_err());
        // The standard streams belong to the standard library.
        assert!(receive(1).is_err());
        assert!(receive(-1).is_err());
        assert!(receive(i32::MAX).is_err());
    }
}
