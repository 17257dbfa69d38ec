//! Opens folders, and asks each again and again, in a thread of its own: the only one that opens the folder's path.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use crossbeam_channel::bounded;
use rustix::io::{Errno, Result};

use super::beneath::COVERED;
use super::health::Seen;
use super::root::Root;
use super::{Disk, Location, OTHER_DISK, Role, State, is_device_error, why_not};
use crate::sys::at;
use crate::sys::deadline::Asker;
use crate::sys::starvation::Answerer;

impl Location {
    /// Looks at the folder's path again, and opens the directory there if it is another one. Never called for the primary,
    /// whose path may lead into the mount. Waits for the folder's file system without a limit.
    ///
    /// # Errors
    ///
    /// The folder's disk or server fails.
    fn refresh(&self) -> Result<()> {
        let was = self.state.read().clone();
        let now = match self.covered.open_dir(&self.path) {
            // A mount now covers the directory, which is open already.
            Err(COVERED) if let State::Open(root) = &was => {
                return self.look(root);
            }
            Err(error) => State::Closed(error),
            Ok((fd, canonical)) => match (at::stat_fd(&fd), &was) {
                (Err(error), _) => State::Closed(error),
                (Ok(stat), State::Open(root))
                    if root.is(&stat) && !self.is_mount_point_with_jobs(root) =>
                {
                    return self.look(root);
                }
                _ => self.opened(fd, canonical),
            },
        };
        self.log_change(&was, &now);
        let looked = match &now {
            State::Open(root) => self.look(root),
            State::Closed(error) => {
                self.health.replace_seen(None);
                match is_device_error(*error) {
                    true => Err(*error),
                    false => Ok(()),
                }
            }
        };
        self.unreadable.forget();
        if let State::Open(_) = now {
            self.missed.lock().clear();
        }
        *self.state.write() = now;
        if let State::Open(_) = was
            && let Some(on_change) = self.on_change.get()
        {
            on_change(self.index);
        }
        looked
    }

    /// The state of the folder whose path leads to a directory.
    fn opened(&self, fd: OwnedFd, canonical: PathBuf) -> State {
        let other = self.is_other_disk(&fd);
        match Root::new(fd, &self.path, Some(canonical)) {
            Ok(root) if other && !matches!(root.jobs(), Err(Errno::NOENT)) => {
                State::Closed(OTHER_DISK)
            }
            Ok(root) => {
                self.is_mount_point.store(other, Ordering::Release);
                State::Open(Arc::new(root))
            }
            Err(error) => State::Closed(error),
        }
    }

    /// Whether the mount point of the folder's disk, which had no jobs, has some now.
    fn is_mount_point_with_jobs(&self, root: &Root) -> bool {
        self.is_mount_point.load(Ordering::Acquire) && root.jobs().is_ok()
    }

    /// Whether a directory at the folder's path lies on another disk than is recorded.
    fn is_other_disk(&self, directory: &OwnedFd) -> bool {
        let Some(recorded) = self.recorded_disk() else {
            return false;
        };
        Disk::of(directory).is_ok_and(|now| now.is_other(&recorded))
    }

    fn log_change(&self, was: &State, now: &State) {
        match (was, now) {
            (State::Closed(_), State::Open(_)) => {
                tracing::info!("the folder {} is there", self.path.display());
            }
            (State::Open(_), State::Open(_)) => {
                tracing::warn!(
                    "the folder {} is another directory than before: a disk was mounted or unmounted there",
                    self.path.display()
                );
            }
            // Reported as offline.
            (_, State::Closed(error)) if is_device_error(*error) => {}
            // The first attempt: the command that mounts warns of it.
            (State::Closed(Errno::TIMEDOUT), State::Closed(error)) if *error != OTHER_DISK => {
                tracing::debug!("the folder {} is not there: {error}", self.path.display());
            }
            (State::Closed(before), State::Closed(after)) if before == after => {}
            (_, State::Closed(OTHER_DISK)) => {
                tracing::warn!("the folder {}: {}", self.path.display(), self.other_disk());
            }
            (_, State::Closed(error)) => {
                tracing::warn!(
                    "the folder {} is not there: {}",
                    self.path.display(),
                    why_not(*error)
                );
            }
        }
    }

    /// Updates what `status` reports. Waits for the file system.
    fn look(&self, root: &Root) -> Result<()> {
        let looked = root.look();
        let now = looked.as_ref().ok().copied();
        let was = self.health.replace_seen(now);
        let had = |seen: Option<Seen>| seen.is_some_and(|seen| seen.jobs);
        if had(was) && now.is_some_and(|now| !now.jobs) {
            tracing::warn!(
                "{} has no jobs directory any more: check that its disk is mounted",
                self.path.display()
            );
        }
        match looked {
            Err(error) if is_device_error(error) => Err(error),
            _ => Ok(()),
        }
    }

    /// Notes the folder's answer to its watcher.
    fn watcher_answered(&self, answer: Result<()>, in_time: bool) {
        if let Err(why) = answer {
            self.go_offline(why);
            return self.health.watcher_failed();
        }
        if let Some(outage) = self.health.watcher_answered(in_time) {
            tracing::info!(
                "the folder {} answers again, after {} s",
                self.path.display(),
                outage.as_secs()
            );
        }
    }
}

/// Opens folders, all at once, and waits for their replies for at most `timeout`. A folder that replies later is used from
/// then on.
pub(in crate::view) fn open_all(folders: &[Arc<Location>], timeout: Duration) {
    let question = |folder: &Arc<Location>| {
        let folder = folder.clone();
        move || {
            let answer = folder.refresh();
            folder.watcher_answered(answer, true);
        }
    };
    let answers = Asker::new(folders.len()).ask_all(timeout, folders.iter().map(question));
    for (folder, answer) in folders.iter().zip(answers) {
        if answer.is_none() {
            folder.go_offline(Errno::TIMEDOUT);
        }
    }
}

/// Starts a location's watcher, which ends with the view.
pub(in crate::view) fn watch(location: Weak<Location>, interval: Duration) {
    let spawned = std::thread::Builder::new()
        .name("xpmfs-folder".to_owned())
        .spawn(move || {
            let role = location.upgrade().map(|location| location.role);
            match role {
                Some(Role::Folder(_)) => watch_folder(&location, interval),
                Some(Role::Primary) => watch_primary(&location, interval),
                None => {}
            }
        });
    if let Err(error) = spawned {
        tracing::error!("cannot watch a directory: starting a thread failed: {error}");
    }
}

fn watch_primary(location: &Weak<Location>, interval: Duration) {
    loop {
        std::thread::sleep(interval);
        let Some(location) = location.upgrade() else {
            return;
        };
        if let Ok(root) = location.root() {
            // How full it is stays unknown.
            let _ = location.look(&root);
        }
    }
}

fn watch_folder(location: &Weak<Location>, interval: Duration) {
    // A second thread asks, so that this one can note that the answer does not come.
    let (ask, asked) = bounded::<Arc<Location>>(1);
    let (answer, answers) = bounded(1);
    let answerer = Answerer::default();
    let own = answerer.clone();
    let spawned = std::thread::Builder::new()
        .name("xpmfs-asker".to_owned())
        .spawn(move || {
            own.begin();
            for location in asked {
                let looked = location.refresh();
                drop(location);
                if answer.send(looked).is_err() {
                    return;
                }
            }
        });
    if let Err(error) = spawned {
        return tracing::error!("cannot watch a folder: starting a thread failed: {error}");
    }
    let pause = |location: &Location| location.health.pause(interval);
    let mut next = match location.upgrade() {
        Some(location) => Some(pause(&location)),
        None => return,
    };
    loop {
        if let Some((pause, wake)) = next.take() {
            // Both with a message and without one, it is time.
            let _ = wake.recv_timeout(pause);
        }
        let Some(folder) = location.upgrade() else {
            return;
        };
        folder.health.watcher_asks();
        if ask.send(folder.clone()).is_err() {
            return;
        }
        let deadline = Instant::now() + folder.health.timeout();
        if let Ok(answer) = answerer.receive(&answers, deadline) {
            folder.watcher_answered(answer, true);
            next = Some(pause(&folder));
            continue;
        }
        folder.go_offline(Errno::TIMEDOUT);
        drop(folder);
        let Ok(answer) = answers.recv() else { return };
        let Some(folder) = location.upgrade() else {
            return;
        };
        // It answers again, perhaps in time now: it is asked at once.
        folder.watcher_answered(answer, false);
    }
}
