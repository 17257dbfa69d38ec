//! The primary and the folders: opened, watched, reopened.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use parking_lot::RwLock;
use rustix::io::{Errno, Result};

use super::covered::{Beneath, COVERED, Covered, NoBeneath};
use super::root::{Root, open_path};
use super::times::Times;
use super::unreadable::{Hidden, Unreadable};
use super::{FolderSpec, PRIMARY};
use crate::settings::Mode;
use crate::sys::at;
use crate::sys::deadline::Asker;

/// How long a folder may take to answer whoever watches it, before it is left out until it does. A disk that is busy takes
/// seconds, and a job that is not seen in it for a moment may be run again.
const SILENCE: Duration = Duration::from_secs(10);

/// The same, while those who wait for an answer from somewhere are many.
const SHORT_SILENCE: Duration = Duration::from_secs(5);

/// What a location is to its workspace.
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
    seen: RwLock<Option<Seen>>,
    /// Since when an answer of a folder is waited for, if one is.
    asked: RwLock<Option<Instant>>,
    unreadable: Unreadable,
    asker: Asker,
    times: Times,
    on_change: OnceLock<OnChange>,
    crowd: OnceLock<Crowd>,
    covered: Covered,
}

/// What to do when a folder has gone or is another directory than before; given its number.
pub type OnChange = Arc<dyn Fn(u8) + Send + Sync>;

/// Tells whether many wait for an answer, so that nobody else should.
pub type Crowd = Arc<dyn Fn() -> bool + Send + Sync>;

/// What was seen of a location when it was last looked at.
#[derive(Debug, Clone, Copy)]
struct Seen {
    /// Bytes that an ordinary user may still write to its disk.
    free: u64,
    /// Bytes that its disk has.
    total: u64,
    /// Whether it has a jobs directory.
    jobs: bool,
}

/// What is known of a location's directory.
#[derive(Debug, Clone)]
enum State {
    Open(Arc<Root>),
    Closed(Errno),
}

/// How a location does, for `status`.
#[derive(Debug, Clone, serde::Serialize)]
pub struct LocationStatus {
    /// `primary`, `use`, `backup` or `move`.
    pub mode: String,
    /// Its directory.
    pub path: PathBuf,
    /// `ok`, or what is the matter.
    pub state: String,
    /// Bytes that an ordinary user may still write there, if known.
    pub free: Option<u64>,
    /// Bytes in all, if known.
    pub total: Option<u64>,
    /// What of it does not show since it cannot be looked at, if anything.
    pub hidden: Option<Hidden>,
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
        Ok(Location {
            index: PRIMARY,
            role: Role::Primary,
            path: path.to_owned(),
            seen: RwLock::new(look(&root)),
            state: RwLock::new(State::Open(Arc::new(root))),
            asked: RwLock::default(),
            unreadable: Unreadable::default(),
            asker: Asker::default(),
            times: Times::default(),
            on_change: OnceLock::new(),
            crowd: OnceLock::new(),
            covered: Covered::new(Arc::new(NoBeneath)),
        })
    }

    /// A folder that has not been looked at yet; see [`open_all`].
    pub(super) fn folder(index: u8, spec: &FolderSpec, beneath: Arc<dyn Beneath>) -> Location {
        Location {
            index,
            role: Role::Folder(spec.mode),
            path: spec.path.clone(),
            state: RwLock::new(State::Closed(Errno::TIMEDOUT)),
            seen: RwLock::default(),
            asked: RwLock::default(),
            unreadable: Unreadable::default(),
            asker: Asker::default(),
            times: Times::default(),
            on_change: OnceLock::new(),
            crowd: OnceLock::new(),
            covered: Covered::new(beneath),
        }
    }

    /// Who tells whether many wait; only the first one counts.
    pub(super) fn is_crowded_by(&self, crowd: Crowd) {
        // A view is mounted once.
        let _ = self.crowd.set(crowd);
    }

    /// What to do when the directory that is open now has gone; only the first one counts.
    pub(super) fn on_change(&self, on_change: OnChange) {
        // A view is mounted once.
        let _ = self.on_change.set(on_change);
    }

    /// Its number in the view: 0 is the primary.
    pub fn index(&self) -> u8 {
        self.index
    }

    /// What it is to the workspace.
    pub fn role(&self) -> Role {
        self.role
    }

    /// Its path, as in the settings.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What `user.xpmfs.location` says of what is served from here: `primary`, or the mode and
    /// the path.
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

    /// Its directory, if it could be opened. This waits for no file system.
    ///
    /// # Errors
    ///
    /// What the last attempt to open it gave; `ETIMEDOUT` for a folder that does not answer.
    pub fn root(&self) -> Result<Arc<Root>> {
        match &*self.state.read() {
            State::Open(_) if self.is_silent() => Err(Errno::TIMEDOUT),
            State::Open(root) => Ok(root.clone()),
            State::Closed(error) => Err(*error),
        }
    }

    /// Whether its watcher has been waiting for a reply for long.
    pub fn is_silent(&self) -> bool {
        self.silence()
            .is_some_and(|silence| silence > SILENCE || self.is_refused(silence))
    }

    /// Makes sure that it may be asked for something: so many may wait already, for it or for another, that nobody else would be
    /// answered by anybody if one more did.
    ///
    /// # Errors
    ///
    /// `ETIMEDOUT` if it has not answered for a while, and many wait.
    pub fn may_be_asked(&self) -> Result<()> {
        match self.silence() {
            Some(silence) if self.is_refused(silence) => Err(Errno::TIMEDOUT),
            _ => Ok(()),
        }
    }

    /// Asks its file system something, for those who must not wait for it for long: from a thread of its own.
    ///
    /// # Errors
    ///
    /// That it is not there, as [`Location::root`] says; `ETIMEDOUT` if it does not answer for so long, or has not answered another
    /// question yet.
    pub fn answer<T: Send + 'static>(
        &self,
        patience: Duration,
        question: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T> {
        self.root()?;
        self.asker.ask(patience, question)
    }

    /// For how long whoever watches it has been waiting for an answer, if so.
    fn silence(&self) -> Option<Duration> {
        self.asked.read().map(|asked| asked.elapsed())
    }

    fn is_refused(&self, silence: Duration) -> bool {
        silence > SHORT_SILENCE && self.crowd.get().is_some_and(|crowd| crowd())
    }

    /// What of it cannot be looked at.
    pub(super) fn unreadable(&self) -> &Unreadable {
        &self.unreadable
    }

    /// The times of its directories.
    pub(super) fn times(&self) -> &Times {
        &self.times
    }

    /// Where its jobs are, for a person.
    fn jobs_path(&self) -> PathBuf {
        let known = self.root().ok();
        let path = known.and_then(|root| root.jobs_paths().first().cloned());
        path.unwrap_or_else(|| self.path.join("jobs"))
    }

    /// Looks at the folder's path again, and opens what is there now if that is something else.
    /// Never called for the primary, whose path may lead into the mount. Waits for the folder's
    /// file system, however long that takes.
    fn refresh(&self) {
        *self.asked.write() = Some(Instant::now());
        self.ask();
        let asked = self.asked.write().take();
        if let Some(silence) = asked.map(|asked| asked.elapsed())
            && silence > SILENCE
        {
            tracing::warn!(
                "the folder {} did not answer for {} s, and was left out meanwhile",
                self.path.display(),
                silence.as_secs()
            );
        }
    }

    fn ask(&self) {
        let was = self.state.read().clone();
        let now = match self.covered.open_dir(&self.path) {
            // A mount has come to lie over the directory, which is open here already.
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
                    "the folder {} is another directory than before: a disk was mounted there or taken away",
                    self.path.display()
                );
            }
            // Before it was looked at: whoever mounts has warned of it.
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
            State::Closed(_) => *self.seen.write() = None,
        }
        self.unreadable.forget();
        *self.state.write() = now;
        if let State::Open(_) = was
            && let Some(on_change) = self.on_change.get()
        {
            on_change(self.index);
        }
    }

    /// Looks at what `status` tells of. Waits for the file system.
    fn look(&self, root: &Root) {
        let now = look(root);
        let was = std::mem::replace(&mut *self.seen.write(), now);
        let had = |seen: Option<Seen>| seen.is_some_and(|seen| seen.jobs);
        if had(was) && !had(now) {
            tracing::warn!(
                "{} has no jobs any more: is its disk still mounted?",
                self.path.display()
            );
        }
    }

    /// How it does, as far as is known: this waits for no file system.
    pub fn status(&self) -> LocationStatus {
        let seen = *self.seen.read();
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
        }
    }
}

/// What is the matter with a directory that cannot be opened, in a word or two where there are some.
#[must_use]
pub fn why_not(error: Errno) -> String {
    match error {
        Errno::NOENT => "missing".to_owned(),
        Errno::NOTDIR => "not a directory".to_owned(),
        Errno::ACCESS | Errno::PERM => "not permitted".to_owned(),
        Errno::TIMEDOUT => "does not answer".to_owned(),
        COVERED => {
            "lies in an xpmfs mount that does not hand out what is beneath it: unmount it, or give the folder the directory itself"
                .to_owned()
        }
        error => in_words(error),
    }
}

/// The state of a directory that is there and has no jobs directory, as the mount point has of a disk that is not
/// mounted.
pub const NO_JOBS: &str = "no jobs";

/// An error as a person would say it, without its number.
pub(super) fn in_words(error: Errno) -> String {
    let text = std::io::Error::from(error).to_string();
    match text.split_once(" (os error") {
        Some((words, _)) => words.to_owned(),
        None => text,
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

/// Opens folders, all at once, and waits for those that answer until `patience` is over. One that
/// answers later is there from then on.
pub(super) fn open_all(folders: &[Arc<Location>], patience: Duration) {
    let question = |folder: &Arc<Location>| {
        let folder = folder.clone();
        move || folder.refresh()
    };
    Asker::new(folders.len()).ask_all(patience, folders.iter().map(question));
    for folder in folders {
        if let Err(Errno::TIMEDOUT) = folder.root() {
            // Whoever mounts has warned of it.
            tracing::info!("the folder {} does not answer", folder.path.display());
        }
    }
}

/// Watches a location from a thread of its own until its view is gone.
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
