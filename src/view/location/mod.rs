//! The primary and the folders: opened, watched, reopened.
//!
//! - [`root`]: a location's open directory; `task_dirs`: descriptors of the directories on the way to a job
//! - [`health`]: how a location is, in words; `times`: the times of its directories; [`unreadable`]: what cannot be read
//! - [`beneath`]: opens a folder that lies in a mount of xpmfs
//!
//! A folder's path may lead to a disk that is mounted, taken away or replaced while the view is used, and its server may stop
//! replying. So a folder has a watcher, a thread that opens its path again and again; no other thread opens the path.

pub(super) mod beneath;
pub(super) mod health;
pub(super) mod root;
mod task_dirs;
pub(super) mod times;
pub(super) mod unreadable;

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use parking_lot::RwLock;
use rustix::io::{Errno, Result};

use crate::settings::Mode;
use crate::sys::at;
use crate::sys::deadline::Asker;
use beneath::{Beneath, COVERED, Covered, NoBeneath};
pub use health::{Crowd, NO_JOBS, why_not};
use health::{Health, Seen};
use root::{Root, open_path};
use times::Times;
use unreadable::{Hidden, Unreadable};

/// The number of the primary among a view's locations.
pub const PRIMARY: u8 = 0;

/// A folder to attach, in the order of the settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FolderSpec {
    /// How it is used.
    pub mode: Mode,
    /// Its directory, absolute.
    pub path: PathBuf,
}

/// The role of a location in its workspace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The workspace's own directory.
    Primary,
    /// A folder.
    Folder(Mode),
}

impl std::fmt::Display for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Role::Primary => f.write_str("primary"),
            Role::Folder(mode) => mode.fmt(f),
        }
    }
}

/// One directory that jobs are served from.
pub struct Location {
    index: u8,
    role: Role,
    path: PathBuf,
    state: RwLock<State>,
    health: Health,
    unreadable: Unreadable,
    asker: Asker,
    times: Times,
    on_change: OnceLock<OnChange>,
    covered: Covered,
}

/// Called with a folder's number when the folder is missing, or another directory than before.
pub type OnChange = Arc<dyn Fn(u8) + Send + Sync>;

/// The state of a location's directory.
#[derive(Debug, Clone)]
enum State {
    Open(Arc<Root>),
    Closed(Errno),
}

/// The health of a location, for `status`.
#[derive(Debug, Clone, serde::Serialize)]
pub struct LocationStatus {
    /// `primary`, `use`, `backup` or `move`.
    pub mode: String,
    /// Its directory.
    pub path: PathBuf,
    /// `ok`, or the problem.
    pub state: String,
    /// Bytes that an ordinary user may still write there, if known.
    pub free: Option<u64>,
    /// Bytes in all, if known.
    pub total: Option<u64>,
    /// The tasks and jobs that do not show because they cannot be read, if any.
    pub hidden: Option<Hidden>,
    /// Of the primary: how many jobs are known to be purged, so that a folder serves them; `None` if none are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub purged: Option<usize>,
}

impl std::fmt::Debug for Location {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Location")
            .field("role", &self.role)
            .field("path", &self.path)
            .field("state", &*self.state.read())
            .finish_non_exhaustive()
    }
}

impl Location {
    /// Opens the primary by its path.
    pub(super) fn primary(path: &Path) -> Result<Location> {
        Location::primary_from(path, open_path(path)?)
    }

    /// The primary, from a descriptor that the caller has opened.
    pub(super) fn primary_from(path: &Path, fd: OwnedFd) -> Result<Location> {
        let root = Root::new(fd, path, None)?;
        let health = Health::default();
        health.replace_seen(look(&root));
        Ok(Location {
            index: PRIMARY,
            role: Role::Primary,
            path: path.to_owned(),
            health,
            state: RwLock::new(State::Open(Arc::new(root))),
            unreadable: Unreadable::default(),
            asker: Asker::default(),
            times: Times::default(),
            on_change: OnceLock::new(),
            covered: Covered::new(Arc::new(NoBeneath)),
        })
    }

    /// A folder that has not been opened yet: [`open_all`] does that.
    pub(super) fn folder(index: u8, spec: &FolderSpec, beneath: Arc<dyn Beneath>) -> Location {
        Location {
            index,
            role: Role::Folder(spec.mode),
            path: spec.path.clone(),
            state: RwLock::new(State::Closed(Errno::TIMEDOUT)),
            health: Health::default(),
            unreadable: Unreadable::default(),
            asker: Asker::default(),
            times: Times::default(),
            on_change: OnceLock::new(),
            covered: Covered::new(beneath),
        }
    }

    /// Sets what decides whether many requests wait for replies.
    pub(super) fn set_crowd(&self, crowd: Crowd) {
        self.health.set_crowd(crowd);
    }

    /// Sets what is called when the open directory is missing or replaced. Only the first call counts.
    pub(super) fn on_change(&self, on_change: OnChange) {
        // A view is mounted once.
        let _ = self.on_change.set(on_change);
    }

    /// Its number in the view; [`PRIMARY`] is the primary's.
    pub fn index(&self) -> u8 {
        self.index
    }

    /// Its role in the workspace.
    pub fn role(&self) -> Role {
        self.role
    }

    /// Its path, as in the settings.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The value of `user.xpmfs.location` for what it serves: `primary`, or the mode and the path.
    pub fn label(&self) -> Vec<u8> {
        use std::os::unix::ffi::OsStrExt;
        match self.role {
            Role::Primary => b"primary".to_vec(),
            Role::Folder(mode) => {
                let mut label = mode.to_string().into_bytes();
                label.push(b':');
                label.extend_from_slice(self.path.as_os_str().as_bytes());
                label
            }
        }
    }

    /// Its open directory. Waits for no file system.
    ///
    /// # Errors
    ///
    /// The error of the last attempt to open it; `ETIMEDOUT` for a folder that does not reply.
    pub fn root(&self) -> Result<Arc<Root>> {
        match &*self.state.read() {
            State::Open(_) if self.is_silent() => Err(Errno::TIMEDOUT),
            State::Open(root) => Ok(root.clone()),
            State::Closed(error) => Err(*error),
        }
    }

    /// Whether its watcher has had no reply for too long, so that it is excluded.
    pub fn is_silent(&self) -> bool {
        self.health.is_silent()
    }

    /// Checks whether a request may wait for it.
    ///
    /// # Errors
    ///
    /// `ETIMEDOUT` if it has not replied for a while, and many requests wait.
    pub fn may_be_asked(&self) -> Result<()> {
        self.health.may_be_asked()
    }

    /// Asks its file system something in a thread, and waits for the answer for at most `timeout`.
    ///
    /// # Errors
    ///
    /// As [`Location::root`]; `ETIMEDOUT` if the answer does not come in time, or that of another question is late.
    pub fn answer<T: Send + 'static>(
        &self,
        timeout: Duration,
        question: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T> {
        self.root()?;
        self.asker.ask(timeout, question)
    }

    /// Its tasks and jobs that cannot be read.
    pub(super) fn unreadable(&self) -> &Unreadable {
        &self.unreadable
    }

    /// The times of its directories.
    pub(super) fn times(&self) -> &Times {
        &self.times
    }

    /// The path of its jobs, for messages.
    fn jobs_path(&self) -> PathBuf {
        let known = self.root().ok();
        let path = known.and_then(|root| root.jobs_paths().first().cloned());
        path.unwrap_or_else(|| self.path.join("jobs"))
    }

    /// Looks at the folder's path again, and opens the directory there if it is another one. Never called for the primary,
    /// whose path may lead into the mount. Waits for the folder's file system without a limit.
    fn refresh(&self) {
        self.health.asking();
        self.reopen();
        if let Some(silence) = self.health.replied() {
            tracing::warn!(
                "the folder {} did not answer for {} s, and was excluded meanwhile",
                self.path.display(),
                silence.as_secs()
            );
        }
    }

    fn reopen(&self) {
        let was = self.state.read().clone();
        let now = match self.covered.open_dir(&self.path) {
            // A mount now covers the directory, which is open already.
            Err(COVERED) if let State::Open(root) = &was => {
                return self.look(root);
            }
            Err(error) => State::Closed(error),
            Ok((fd, canonical)) => match (at::stat_fd(&fd), &was) {
                (Err(error), _) => State::Closed(error),
                (Ok(stat), State::Open(root)) if root.is(&stat) => return self.look(root),
                _ => match Root::new(fd, &self.path, Some(canonical)) {
                    Ok(root) => State::Open(Arc::new(root)),
                    Err(error) => State::Closed(error),
                },
            },
        };
        let changed = match (&was, &now) {
            (State::Closed(before), State::Closed(after)) => before != after,
            _ => true,
        };
        match (&was, &now) {
            (State::Closed(_), State::Open(_)) => {
                tracing::info!("the folder {} is there", self.path.display());
            }
            (State::Open(_), State::Open(_)) => {
                tracing::warn!(
                    "the folder {} is another directory than before: a disk was mounted or unmounted there",
                    self.path.display()
                );
            }
            // The first attempt: the command that mounts warns of it.
            (State::Closed(Errno::TIMEDOUT), State::Closed(error)) => {
                tracing::debug!("the folder {} is not there: {error}", self.path.display());
            }
            (_, State::Closed(error)) if changed => {
                tracing::warn!(
                    "the folder {} is not there: {}",
                    self.path.display(),
                    why_not(*error)
                );
            }
            _ => {}
        }
        match &now {
            State::Open(root) => self.look(root),
            State::Closed(_) => drop(self.health.replace_seen(None)),
        }
        self.unreadable.forget();
        *self.state.write() = now;
        if let State::Open(_) = was
            && let Some(on_change) = self.on_change.get()
        {
            on_change(self.index);
        }
    }

    /// Updates what `status` reports. Waits for the file system.
    fn look(&self, root: &Root) {
        let now = look(root);
        let was = self.health.replace_seen(now);
        let had = |seen: Option<Seen>| seen.is_some_and(|seen| seen.jobs);
        if had(was) && !had(now) {
            tracing::warn!(
                "{} has no jobs directory any more: check that its disk is mounted",
                self.path.display()
            );
        }
    }

    /// Its health, as last seen. Waits for no file system.
    pub fn status(&self) -> LocationStatus {
        let seen = self.health.seen();
        LocationStatus {
            mode: self.role.to_string(),
            path: self.path.clone(),
            state: match self.root() {
                Ok(_) if seen.is_some_and(|seen| !seen.jobs) => NO_JOBS.to_owned(),
                Ok(_) => "ok".to_owned(),
                Err(error) => why_not(error),
            },
            free: seen.map(|seen| seen.free),
            total: seen.map(|seen| seen.total),
            hidden: self.unreadable.hidden(&self.jobs_path()),
            purged: None,
        }
    }
}

fn look(root: &Root) -> Option<Seen> {
    let stat = rustix::fs::fstatvfs(root.fd()).ok()?;
    Some(Seen {
        free: stat.f_bavail.saturating_mul(stat.f_frsize),
        total: stat.f_blocks.saturating_mul(stat.f_frsize),
        jobs: !matches!(root.jobs(), Err(Errno::NOENT)),
    })
}

/// Opens folders, all at once, and waits for their replies for at most `timeout`. A folder that replies later is used from
/// then on.
pub(super) fn open_all(folders: &[Arc<Location>], timeout: Duration) {
    let question = |folder: &Arc<Location>| {
        let folder = folder.clone();
        move || folder.refresh()
    };
    Asker::new(folders.len()).ask_all(timeout, folders.iter().map(question));
    for folder in folders {
        if let Err(Errno::TIMEDOUT) = folder.root() {
            // The command that mounts warns of it.
            tracing::info!("the folder {} does not answer", folder.path.display());
        }
    }
}

/// Starts a location's watcher, which ends with the view.
pub(super) fn watch(location: Weak<Location>, interval: Duration) {
    let spawned = std::thread::Builder::new()
        .name("xpmfs-folder".to_owned())
        .spawn(move || {
            loop {
                std::thread::sleep(interval);
                let Some(location) = location.upgrade() else {
                    return;
                };
                match (location.role, location.root()) {
                    (Role::Primary, Ok(root)) => location.look(&root),
                    (Role::Primary, Err(_)) => {}
                    (Role::Folder(_), _) => location.refresh(),
                }
            }
        });
    if let Err(error) = spawned {
        tracing::error!("cannot watch a directory: starting a thread failed: {error}");
    }
}
