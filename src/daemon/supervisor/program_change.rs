//! The change from one program to the next while a mount is served, as the command that waits for it sees it: one at a time, and each
//! is answered.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use rustix::net::SendFlags;
use rustix::process::Pid;
use serde_json::{Value, json};

use super::check::{Check, Ready};
use super::estate::Estate;
use super::state::SupervisorStart;
use crate::daemon::control;

const IS_UNMOUNTED: &str = "the mount is being unmounted";

/// The change that is under way, if one is.
#[derive(Debug, Default)]
pub(super) enum ProgramChange {
    #[default]
    None,
    /// A program is asked whether it can go on with the mount.
    Asking(Check),
    /// This program goes on with the mount of the program before, and its first worker does not serve it yet.
    Replacing {
        /// The connection to the command that waits.
        client: OwnedFd,
        /// Whether the worker of the program before has ended.
        worker_ended: bool,
    },
}

/// A program that can go on with the mount, and the command that waits for it.
#[derive(Debug)]
pub(super) struct NextProgram {
    pub(super) program: Ready,
    pub(super) client: OwnedFd,
}

impl ProgramChange {
    /// What becomes readable when the program that is asked replies.
    pub(super) fn socket(&self) -> Option<BorrowedFd<'_>> {
        match self {
            ProgramChange::Asking(check) => Some(check.socket()),
            _ => None,
        }
    }

    /// Starts to ask a program whether it can go on with the mount, or answers `client` why not.
    pub(super) fn start(
        &mut self,
        program: PathBuf,
        client: OwnedFd,
        origin: &SupervisorStart,
        estate: &Estate,
        is_ending: bool,
    ) {
        let why = match &estate.place {
            _ if is_ending => IS_UNMOUNTED,
            _ if !matches!(self, ProgramChange::None) => {
                "another reload of this mount is running: wait until it has ended"
            }
            Some((place, _)) if estate.is_complete() => {
                let copy = client.try_clone();
                let check =
                    copy.and_then(|copy| Check::start(program, copy, origin, &place.workspace));
                match check {
                    Ok(check) => *self = ProgramChange::Asking(check),
                    Err(error) => {
                        refuse(&client, format!("cannot start the new program: {error}"));
                    }
                }
                return;
            }
            _ => {
                "the kernel cannot go on with a mount in another process (Linux 6.9 and later can): unmount it and mount it again"
            }
        };
        refuse(&client, why.to_owned());
    }

    /// The program that was asked, once it has replied that it can go on. Its process is killed then, and added to `killed`.
    pub(super) fn next_program(
        &mut self,
        is_ending: bool,
        killed: &mut Vec<Pid>,
    ) -> Option<NextProgram> {
        let ProgramChange::Asking(check) = self else {
            return None;
        };
        let verdict = check.verdict()?;
        killed.push(check.end());
        let ProgramChange::Asking(Check { client, .. }) = std::mem::take(self) else {
            return None;
        };
        match verdict {
            Ok(_) if is_ending => goes_on_as_before(&client, IS_UNMOUNTED.to_owned()),
            Ok(program) => return Some(NextProgram { program, client }),
            Err(why) => goes_on_as_before(&client, why),
        }
        None
    }

    /// A worker of this program serves the mount.
    pub(super) fn serving(&mut self, worker: Pid) {
        if let ProgramChange::Replacing { client, .. } = self {
            let reply = json!({
                "pid": worker.as_raw_pid(),
                "supervisor": std::process::id(),
                "version": env!("CARGO_PKG_VERSION"),
            });
            answer(client, Ok(reply));
            *self = ProgramChange::None;
        }
    }

    /// A worker was killed. Returns whether it is the one of the program before.
    pub(super) fn worker_of_before_was_killed(&mut self) -> bool {
        match self {
            ProgramChange::Replacing { worker_ended, .. } => !std::mem::replace(worker_ended, true),
            _ => false,
        }
    }

    /// The mount has ended: nothing goes on with it.
    pub(super) fn mount_ended(&mut self) {
        let client = match std::mem::take(self) {
            ProgramChange::None => return,
            ProgramChange::Asking(check) => {
                check.end();
                check.client
            }
            ProgramChange::Replacing { client, .. } => client,
        };
        refuse(&client, "the mount has ended".to_owned());
    }
}

impl NextProgram {
    /// It could not be executed.
    pub(super) fn not_started(self, error: &std::io::Error) {
        goes_on_as_before(
            &self.client,
            format!("cannot start the new program: {error}"),
        );
    }
}

fn goes_on_as_before(client: &OwnedFd, why: String) {
    tracing::warn!("the mount goes on as before: {why}");
    refuse(client, why);
}

fn refuse(client: &OwnedFd, why: String) {
    answer(client, Err(why));
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
    let _ = rustix::net::send(client.as_fd(), line.as_bytes(), flags);
}
