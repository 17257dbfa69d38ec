//! Walking through all of the primary's jobs, slowly: in nobody's way, and not past the end of all.

use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, select};

use super::scan::directory::{self, Entry};
use super::shared::Shared;
use crate::view::View;

/// How many jobs are looked at at a time.
const FEW: usize = 20;

/// No more are handed over while so many are on their way.
pub(super) const MANY: usize = 200;

/// Whoever walks.
#[derive(Debug, Clone)]
pub(super) struct Walk {
    pub(super) view: Arc<View>,
    pub(super) shared: Arc<Shared>,
    /// Says nothing, and ends when all does.
    pub(super) end: Receiver<()>,
    /// How long a pause is.
    pub(super) breath: Duration,
}

/// That all is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ended;

/// What is done with a few jobs of a task, whose directory is open.
pub(super) type Call<'a> = dyn FnMut(&OwnedFd, &[OsString]) -> Result<(), Ended> + 'a;

impl Walk {
    /// The names of the primary's tasks.
    pub(super) fn tasks(&self) -> rustix::io::Result<Vec<OsString>> {
        let jobs = self.view.primary().root()?.jobs()?;
        let mut tasks = Vec::new();
        directory::read(directory::open(&*jobs, OsStr::new("."))?, |entry| {
            if let Entry::Directory(name) = entry {
                tasks.push(name.to_owned());
            }
        })?;
        Ok(tasks)
    }

    /// Calls with a few jobs of a task at a time, and with its directory. Gives whether all of it could be read.
    pub(super) fn each_few(&self, task: &OsStr, call: &mut Call<'_>) -> Result<bool, Ended> {
        let jobs = self.view.primary().root().and_then(|root| root.jobs());
        let Ok(fd) = jobs.and_then(|jobs| directory::open(&*jobs, task)) else {
            return Ok(false);
        };
        // In pieces: a task may have a million jobs.
        loop {
            let mut names = Vec::new();
            let more = directory::read_on(&fd, |entry| {
                if let Entry::Directory(name) = entry {
                    names.push(name.to_owned());
                }
            });
            for few in names.chunks(FEW) {
                if self.shared.is_stopping() {
                    return Err(Ended);
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

    /// Waits while many jobs are on their way.
    pub(super) fn wait_for_room(&self) -> Result<(), Ended> {
        while self.shared.state.lock().queue.jobs.len() > MANY {
            self.pause(self.breath)?;
        }
        Ok(())
    }

    /// Waits, unless all ends.
    pub(super) fn pause(&self, time: Duration) -> Result<(), Ended> {
        match self.end.recv_timeout(time) {
            Err(RecvTimeoutError::Timeout) => Ok(()),
            _ => Err(Ended),
        }
    }

    /// As [`Walk::pause`]; but not any longer than until somebody wakes.
    pub(super) fn pause_unless(&self, woken: &Receiver<()>, time: Duration) -> Result<(), Ended> {
        select! {
            recv(self.end) -> _ => Err(Ended),
            recv(woken) -> wake => wake.map_err(|_| Ended),
            default(time) => Ok(()),
        }
    }
}
