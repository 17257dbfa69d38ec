//! The primary and the folders: opened, watched, reopened.
//!
//! - [`root`]: a location's open directory; `task_dirs`: descriptors of the directories on the way to a job
//! - [`health`]: how a location is; `status`: the same for a person
//! - `watcher`: asks a folder again and again; `ask`: asks it something, with a deadline; [`asking`]: what threads ask it now
//! - `disk`: on which disk a folder lies
//! - `times`: the times of its directories; [`unreadable`]: what cannot be read
//! - [`beneath`]: opens a folder that lies in a mount of xpmfs
//! - [`deleted`]: marks of deleted jobs whose copy in a folder does not count
//!
//! A folder's path may lead to a disk that is mounted, taken away or replaced while the view is used, and its server may stop
//! replying. So a folder has a watcher, a thread that opens its path again and again; no other thread opens the path.

mod ask;
pub mod asking;
pub(super) mod beneath;
pub mod deleted;
mod disk;
pub(super) mod health;
pub(super) mod root;
mod status;
mod task_dirs;
pub(super) mod times;
pub(super) mod unreadable;
pub(super) mod watcher;

use std::collections::HashSet;
use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use rustix::io::{Errno, Result};

use crate::settings::Mode;
use crate::sys::deadline::Asker;
use asking::{Asking, Mark, Question};
use beneath::{Beneath, Covered, NoBeneath};
use deleted::Marks;
pub(super) use disk::{DISK, Disk, KNOWN, known_dir};
use health::Health;
pub use health::{MISSING, NO_JOBS, OFFLINE, SLOW, explain, is_device_error, why_not};
use root::{Root, open_path};
pub use status::LocationStatus;
use times::Times;
use unreadable::Unreadable;

/// The number of the primary among a view's locations.
pub const PRIMARY: u8 = 0;

/// A folder to attach, in the order of the settings.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct FolderSpec {
    /// How it is used.
    pub mode: Mode,
    /// Its directory, absolute.
    #[serde(with = "crate::sys::path_bytes")]
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
    /// Of a folder: the primary, which has the records about it.
    primary: Option<Arc<Root>>,
    /// Whether its path leads to another disk than is recorded, on which it has no jobs: the empty mount point of its disk.
    is_mount_point: AtomicBool,
    /// Jobs that were asked for while the folder could not be used, and are reported already.
    missed: Mutex<HashSet<PathBuf>>,
    /// Whether it has copies of deleted jobs.
    marks: Marks,
}

/// The maximum number of such jobs that the log names, from one time that the folder is used to the next.
const MISSED_MAX: usize = 100;

/// The error of a folder that lies on another disk than is recorded.
pub const OTHER_DISK: Errno = Errno::MEDIUMTYPE;

/// Called with a folder's number when the folder is missing, or another directory than before.
pub type OnChange = Arc<dyn Fn(u8) + Send + Sync>;

/// The state of a location's directory.
#[derive(Debug, Clone)]
enum State {
    Open(Arc<Root>),
    Closed(Errno),
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
        health.replace_seen(root.look().ok());
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
            primary: None,
            is_mount_point: AtomicBool::new(false),
            missed: Mutex::default(),
            marks: Marks::default(),
        })
    }

    /// A folder that has not been opened yet: `watcher` does that.
    pub(super) fn folder(
        index: u8,
        spec: &FolderSpec,
        beneath: Arc<dyn Beneath>,
        timeout: Duration,
        primary: Option<Arc<Root>>,
    ) -> Location {
        let health = Health::default();
        health.set_timeout(timeout);
        Location {
            index,
            role: Role::Folder(spec.mode),
            path: spec.path.clone(),
            state: RwLock::new(State::Closed(Errno::TIMEDOUT)),
            health,
            unreadable: Unreadable::default(),
            asker: Asker::default(),
            times: Times::default(),
            on_change: OnceLock::new(),
            covered: Covered::new(beneath),
            primary,
            is_mount_point: AtomicBool::new(false),
            missed: Mutex::default(),
            marks: Marks::default(),
        }
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
    /// Why it is offline (`ETIMEDOUT` if it does not answer), or the error of the last attempt to open it.
    pub fn root(&self) -> Result<Arc<Root>> {
        if self.health.is_offline()
            && let Some(why) = self.health.why_offline()
        {
            return Err(why);
        }
        match &*self.state.read() {
            State::Open(root) => Ok(root.clone()),
            State::Closed(error) => Err(*error),
        }
    }

    /// Whether it does not answer, or its disk or server fails, so that only its watcher asks it.
    pub fn is_offline(&self) -> bool {
        self.health.is_offline()
    }

    /// Whether its jobs cannot be asked for now: it is offline, missing, or its disk is not mounted.
    pub fn is_away(&self) -> bool {
        self.root().is_err() || self.is_mount_point.load(Ordering::Acquire)
    }

    /// Whether a job is marked as deleted, so that the copy in this folder does not count ([`deleted`]). Never in a `use` folder, from which
    /// nothing is deleted.
    pub fn has_deleted(&self, task: &OsStr, hash: &OsStr) -> bool {
        match &self.primary {
            Some(primary) if self.role != Role::Folder(Mode::Use) => {
                self.marks.has(primary, &self.path, task, hash)
            }
            _ => false,
        }
    }

    /// Looks anew whether there are marks of deleted jobs.
    pub(super) fn forget_marks(&self) {
        self.marks.forget();
    }

    /// How many questions to it are late and not answered: each holds a thread.
    pub fn late_questions(&self) -> usize {
        self.health.late()
    }

    /// Marks that this thread asks it which jobs there are, until the value is dropped. The mark is for one system call or a few: not for
    /// anything that may wait for another location.
    pub fn asking(&self) -> Asking<'_> {
        Asking::new(self.index, &self.health, false)
    }

    /// As [`Location::asking`], for the inside of a job.
    pub fn asking_inside_job(&self) -> Asking<'_> {
        Asking::new(self.index, &self.health, true)
    }

    /// Checks the age of a question that a thread asks it, and goes offline if the answer is late. Waits for no file system.
    pub fn supervise(&self, mark: &Mark, question: Question) {
        if mark.is_late(question.age(), self.health.timeout())
            && mark.make_late(question)
            && self.health.late_question(question.is_inside_job())
        {
            self.go_offline(Errno::TIMEDOUT);
        }
    }

    /// Called with an error of a question to it: returns whether it is offline now, so that the error is its own and not that of one file or
    /// directory in it. Asks it again after errors that its disk or server may have caused.
    pub fn goes_offline_after(&self, root: &Root, error: Errno) -> bool {
        if self.index == PRIMARY || !is_device_error(error) {
            return false;
        }
        let _asking = self.asking();
        match root.check() {
            Err(why) if is_device_error(why) => {
                self.go_offline(why);
                true
            }
            _ => self.is_offline(),
        }
    }

    fn go_offline(&self, why: Errno) {
        if self.health.fail(why) {
            tracing::warn!(
                "the folder {} is offline: {}; it is used again as soon as it answers",
                self.path.display(),
                self.reason(why)
            );
        }
    }

    /// Why it is offline, for a person.
    fn reason(&self, why: Errno) -> String {
        match why {
            Errno::TIMEDOUT => format!(
                "it does not answer within {} s",
                self.health.timeout().as_secs_f64()
            ),
            why => why_not(why),
        }
    }

    /// Its tasks and jobs that cannot be read.
    pub(super) fn unreadable(&self) -> &Unreadable {
        &self.unreadable
    }

    /// The times of its directories.
    pub(super) fn times(&self) -> &Times {
        &self.times
    }

    /// The absolute paths under which symlinks may name its jobs directory, also while it cannot be used.
    pub fn jobs_paths(&self) -> Vec<PathBuf> {
        match &*self.state.read() {
            State::Open(root) => root.jobs_paths().to_vec(),
            State::Closed(_) => vec![self.path.join("jobs"), self.path.clone()],
        }
    }

    /// Reports that a job was asked for which only this folder has, while it cannot be used.
    pub(super) fn report_missed(&self, job: &Path) {
        let mut missed = self.missed.lock();
        if missed.len() >= MISSED_MAX || !missed.insert(job.to_owned()) {
            return;
        }
        drop(missed);
        tracing::warn!(
            "{}: only the folder {} has it, which cannot be used now: it can be neither read nor made anew until the folder is back",
            job.display(),
            self.path.display()
        );
    }
}
