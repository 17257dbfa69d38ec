//! Checks once a day whether archived jobs have changed since.
//!
//! A change inside a job does not show in its task's directory, and a mount does not notice writes that bypass it. So
//! all finished jobs are handed over once a day, slowly; this reads the primary alone, and waits for no folder. Only one
//! of several machines rechecks (`archive::turn`).

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::Sender;

use super::candidates;
use super::walk::{Stopped, Walk};
use crate::archive::engine::route::Route;
use crate::archive::engine::shared::Event;
use crate::archive::turn;
use crate::workspace::JobId;

const FILE_NAME: &str = "rechecked";

/// How often to check whether a recheck is due: clocks may jump, and other machines recheck as well.
const DUE_CHECK_INTERVAL: Duration = Duration::from_secs(60 * 60);

/// Checks all finished jobs again, periodically.
pub(in crate::archive::engine) struct Recheck {
    pub(in crate::archive::engine) walk: Walk,
    pub(in crate::archive::engine) route: Arc<Route>,
    pub(in crate::archive::engine) events: Sender<Event>,
    /// How often all jobs are checked.
    pub(in crate::archive::engine) period: Duration,
    /// The last recheck, for a primary that cannot be written to.
    pub(in crate::archive::engine) last: Instant,
}

impl Recheck {
    /// Rechecks whenever it is due, until the engine stops.
    pub(in crate::archive::engine) fn run(mut self) {
        while self.walk.pause(DUE_CHECK_INTERVAL.min(self.period)).is_ok() {
            let file = match turn::file(&self.walk.view, FILE_NAME) {
                Ok(file) => Some(file),
                Err(error) => {
                    tracing::debug!("cannot record the time of the last recheck: {error}");
                    None
                }
            };
            if self.is_due(file.as_ref()) && self.everything().is_err() {
                return;
            }
        }
    }

    /// Whether a recheck is due. The file is locked then.
    fn is_due(&self, file: Option<&File>) -> bool {
        let Some(file) = file else {
            return self.last.elapsed() >= self.period;
        };
        turn::lock(file) && turn::is_due(file, self.period)
    }

    /// Hands over every finished job in the primary. Begins at any task, so that daemons that always stop before the
    /// end do not always leave out the same tasks.
    fn everything(&mut self) -> Result<(), Stopped> {
        let mut tasks = self.walk.tasks().unwrap_or_default();
        let nanos = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
        let any = nanos.subsec_nanos() as usize;
        if let Some(start) = any.checked_rem(tasks.len()) {
            tasks.rotate_left(start);
        }
        for task in tasks {
            let hand_over = &mut |fd: &OwnedFd, few: &[OsString]| self.hand_over(fd, &task, few);
            self.walk.each_few(&task, hand_over)?;
        }
        self.last = Instant::now();
        if let Ok(file) = turn::file(&self.walk.view, FILE_NAME) {
            turn::record(&file);
        }
        Ok(())
    }

    fn hand_over(&self, fd: impl AsFd, task: &OsStr, names: &[OsString]) -> Result<(), Stopped> {
        self.walk.wait_for_room()?;
        let finished = names.iter().filter_map(|hash| {
            let job = JobId::new(task, hash).ok()?;
            let wanted = !self.route.of(&job).is_empty();
            (wanted && candidates::is_done(&fd, task, hash)).then_some(job)
        });
        let jobs = finished.collect();
        self.events
            .send(Event::Routine(jobs))
            .map_err(|_| Stopped)?;
        self.walk.pause(self.walk.breath)
    }
}
