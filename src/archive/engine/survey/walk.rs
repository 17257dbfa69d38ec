//! Walks through all of the primary's jobs, slowly, until the engine stops.

use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, select};

use super::directory::{self, JobEntry};
use crate::archive::engine::shared::Shared;
use crate::view::View;

/// How many jobs are looked at at a time.
const FEW: usize = 20;

/// No more jobs are handed over while this many are queued.
pub(in crate::archive::engine) const MANY: usize = 200;

/// A walk through the primary's jobs.
#[derive(Debug, Clone)]
pub(in crate::archive::engine) struct Walk {
    pub(in crate::archive::engine) view: Arc<View>,
    pub(in crate::archive::engine) shared: Arc<Shared>,
    /// Carries no message, and disconnects when the engine stops.
    pub(in crate::archive::engine) end: Receiver<()>,
    /// How long a pause is.
    pub(in crate::archive::engine) breath: Duration,
}

/// The engine is stopping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::archive::engine) struct Stopped;

/// A function that handles a few jobs of a task, whose directory is open.
pub(in crate::archive::engine) type Call<'a> =
    dyn FnMut(&OwnedFd, &[OsString]) -> Result<(), Stopped> + 'a;

impl Walk {
    /// The names of the primary's tasks.
    pub(in crate::archive::engine) fn tasks(&self) -> rustix::io::Result<Vec<OsString>> {
        let jobs = self.view.primary().root()?.jobs()?;
        let mut tasks = Vec::new();
        directory::read(directory::open(&*jobs, OsStr::new("."))?, |entry| {
            if let JobEntry::Directory(name) = entry {
                tasks.push(name.to_owned());
            }
        })?;
        Ok(tasks)
    }

    /// Calls `call` with a few jobs of a task at a time, and its directory. Returns whether all of it could be read.
    pub(in crate::archive::engine) fn each_few(
        &self,
        task: &OsStr,
        call: &mut Call<'_>,
    ) -> Result<bool, Stopped> {
        let jobs = self.view.primary().root().and_then(|root| root.jobs());
        let Ok(fd) = jobs.and_then(|jobs| directory::open(&*jobs, task)) else {
            return Ok(false);
        };
        // In pieces: a task may have a million jobs.
        loop {
            let mut names = Vec::new();
            let more = directory::read_on(&fd, |entry| {
                if let JobEntry::Directory(name) = entry {
                    names.push(name.to_owned());
                }
            });
            for few in names.chunks(FEW) {
                if self.shared.is_stopping() {
                    return Err(Stopped);
                }
                call(&fd, few)?;
            }
            match more {
                Ok(true) => {}
                Ok(false) => return Ok(true),
                Err(_) => return Ok(false),
            }
        }
    }

    /// Waits while many jobs are queued.
    pub(in crate::archive::engine) fn wait_for_room(&self) -> Result<(), Stopped> {
        while self.shared.state.lock().queue.jobs.len() > MANY {
            self.pause(self.breath)?;
        }
        Ok(())
    }

    /// Waits, unless the engine stops.
    pub(in crate::archive::engine) fn pause(&self, time: Duration) -> Result<(), Stopped> {
        match self.end.recv_timeout(time) {
            Err(RecvTimeoutError::Timeout) => Ok(()),
            _ => Err(Stopped),
        }
    }

    /// As [`Walk::pause`], but ends early when `woken` receives a message.
    pub(in crate::archive::engine) fn pause_unless(
        &self,
        woken: &Receiver<()>,
        time: Duration,
    ) -> Result<(), Stopped> {
        select! {
            recv(self.end) -> _ => Err(Stopped),
            recv(woken) -> wake => wake.map_err(|_| Stopped),
            default(time) => Ok(()),
        }
    }
}
