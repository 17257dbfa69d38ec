//! Which location serves a job.

use std::ffi::OsStr;
use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::Statx;
use rustix::io::{Errno, Result};

use super::location::{Role, is_device_error};
use super::{Location, PRIMARY, Root, View, walk};
use crate::settings::Mode;
use crate::sys::at;
use crate::workspace::{jobs, markers};

/// What `jobs/<task_id>/<hash>` is in the view.
#[derive(Debug, Clone)]
pub enum Served {
    /// A job: the directory of that name in a location, whole.
    Job {
        /// The location's number.
        location: u8,
        /// The directory's attributes.
        stat: Box<Statx>,
    },
    /// An entry that is not a job's directory, shown unchanged: a file, a symlink that leads out
    /// of the workspace's locations, a symlink to nothing.
    AsItIs {
        /// The location's number.
        location: u8,
        /// Its own attributes, never of what a symlink points to.
        stat: Box<Statx>,
    },
}

impl Served {
    /// The location that it lies in.
    pub fn location(&self) -> u8 {
        match self {
            Served::Job { location, .. } | Served::AsItIs { location, .. } => *location,
        }
    }

    /// Its attributes.
    pub fn stat(&self) -> &Statx {
        match self {
            Served::Job { stat, .. } | Served::AsItIs { stat, .. } => stat,
        }
    }
}

/// What the primary itself has under a job's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InPrimary {
    /// Nothing.
    Nothing,
    /// A symlink to a folder's copy of it, as a move leaves it, or to nothing.
    Link,
    /// What a purge has left of the job, which a folder has whole.
    Purged,
    /// The job, or something else that it serves as it is.
    Job,
}

/// What a location has under a job's name.
enum Candidate {
    Nothing,
    Serves(Served),
    /// A symlink whose target is gone: counts as absent, and is shown if nothing else is there.
    Dangling(Box<Statx>),
}

impl View {
    /// What `jobs/<task>/<hash>` is: the primary's if it has the job, as a directory that is not what a purge has left of it, or a
    /// symlink that resolves; else the first folder's that has it, in the order of the settings.
    ///
    /// A folder that cannot be asked is skipped, and is still watched.
    ///
    /// # Errors
    ///
    /// An error of the primary's file system, except that the entry is missing; `EIO` if only a folder that cannot be used now has the job.
    pub fn resolve(&self, task: &OsStr, hash: &OsStr) -> Result<Option<Served>> {
        let dangling = match self.ask_primary(task, hash, true)? {
            Candidate::Serves(served) => return Ok(Some(served)),
            Candidate::Dangling(stat) => Some(stat),
            Candidate::Nothing => None,
        };
        if let Some(served) = self.resolve_in_folders(task, hash, u8::MAX)? {
            return Ok(Some(served));
        }
        self.expect_unrecorded(task, hash)?;
        let Some(stat) = dangling else {
            return Ok(None);
        };
        // A job that was moved to a folder may have come back since: then it is there, and the symlink
        // is not any more.
        match self.ask_primary(task, hash, true)? {
            Candidate::Serves(served) => Ok(Some(served)),
            Candidate::Nothing => Ok(None),
            Candidate::Dangling(_) => Ok(Some(Served::AsItIs {
                location: PRIMARY,
                stat,
            })),
        }
    }

    /// The first folder that serves a job, among those up to number `last`.
    ///
    /// # Errors
    ///
    /// No folder serves it, and one failed to read it with an error of its disk or server: whether it has the job is unknown.
    pub(super) fn resolve_in_folders(
        &self,
        task: &OsStr,
        hash: &OsStr,
        last: u8,
    ) -> Result<Option<Served>> {
        if !jobs::is_job_entry(task) || !jobs::is_job_entry(hash) {
            return Ok(None);
        }
        let mut failed = None;
        let folders = self.folders().iter();
        for folder in folders.take_while(|folder| folder.index() <= last) {
            match self.ask_folder(folder, task, hash) {
                Ok(candidate) => {
                    folder.unreadable().clear(task, Some(hash));
                    if let Candidate::Serves(served) = candidate {
                        return Ok(Some(served));
                    }
                }
                Err(error) => {
                    let unreadable = folder.unreadable();
                    unreadable.note(folder.path(), task, Some(hash), error);
                    failed = failed.or(Some(error).filter(|error| is_device_error(*error)));
                }
            }
        }
        failed.map_or(Ok(None), Err)
    }

    /// Whether the primary has anything under the name of a job.
    pub(super) fn primary_names(&self, task: &OsStr, hash: &OsStr) -> bool {
        self.primary()
            .root()
            .and_then(|root| root.task(task))
            .and_then(|dir| at::stat(&dir, hash))
            .is_ok()
    }

    /// Whether a folder serves a job.
    ///
    /// # Errors
    ///
    /// That is unknown, because of an error of a folder's disk or server.
    pub fn served_by_folder(&self, task: &OsStr, hash: &OsStr) -> Result<bool> {
        let served = self.resolve_in_folders(task, hash, u8::MAX)?;
        Ok(served.is_some())
    }

    /// What the primary itself has under the name of a job.
    ///
    /// # Errors
    ///
    /// An error of its file system, except that the entry is missing.
    pub fn in_primary(&self, task: &OsStr, hash: &OsStr) -> Result<InPrimary> {
        Ok(match self.ask_primary(task, hash, false)? {
            Candidate::Nothing => InPrimary::Nothing,
            Candidate::Dangling(_) => InPrimary::Link,
            Candidate::Serves(Served::Job { location, .. }) if location != PRIMARY => {
                let task = self.primary().root()?.task(task)?;
                match at::stat(&*task, hash).is_ok_and(|stat| at::is_dir(&stat)) {
                    true => InPrimary::Purged,
                    false => InPrimary::Link,
                }
            }
            Candidate::Serves(_) => InPrimary::Job,
        })
    }

    /// If what is there is only the rest of a job, and the folder that has the job is away, the job cannot be served: `fails` says whether
    /// that is an error.
    fn ask_primary(&self, task: &OsStr, hash: &OsStr, fails: bool) -> Result<Candidate> {
        let root = self.primary().root()?;
        let Some(dir) = at::absent(root.task(task))? else {
            return Ok(Candidate::Nothing);
        };
        let Some(stat) = at::absent(at::stat(&dir, hash))?.map(Box::new) else {
            return Ok(Candidate::Nothing);
        };
        if at::is_dir(&stat) {
            let served = self.serves(&dir, task, hash, stat);
            if fails && served.location() == PRIMARY {
                self.expect_no_purge(&dir, task, hash, served.stat())?;
            }
            return Ok(Candidate::Serves(served));
        }
        if at::is_symlink(&stat) {
            return self.follow(PRIMARY, &dir, task, hash, stat);
        }
        Ok(Candidate::Serves(Served::AsItIs {
            location: PRIMARY,
            stat,
        }))
    }

    /// Which location serves a job that has a directory in the primary: a folder, if a purge has left the directory. `dir` is the
    /// directory of the task in the primary, and `stat` are the attributes of the job's.
    pub fn serves(&self, dir: impl AsFd, task: &OsStr, hash: &OsStr, stat: Box<Statx>) -> Served {
        let purged = self.purged_to(dir, task, hash, &stat);
        let archived = purged.and_then(|folder| Some((folder, self.job_in(folder, task, hash)?)));
        let (location, stat) = archived.unwrap_or((PRIMARY, stat));
        Served::Job { location, stat }
    }

    fn ask_folder(&self, folder: &Location, task: &OsStr, hash: &OsStr) -> Result<Candidate> {
        let root = match folder.root() {
            Ok(root) if !folder.has_deleted(task, hash) => root,
            _ => return Ok(Candidate::Nothing),
        };
        let asked = self.ask_root(folder, &root, task, hash);
        match asked {
            // It is skipped, as it will be from now on.
            Err(error) if folder.goes_offline_after(&root, error) => Ok(Candidate::Nothing),
            asked => asked,
        }
    }

    fn ask_root(
        &self,
        folder: &Location,
        root: &Root,
        task: &OsStr,
        hash: &OsStr,
    ) -> Result<Candidate> {
        let _asking = folder.asking();
        let Some(dir) = at::absent(root.task(task))? else {
            return Ok(Candidate::Nothing);
        };
        let Some(stat) = at::absent(at::stat(&dir, hash))?.map(Box::new) else {
            return Ok(Candidate::Nothing);
        };
        if at::is_symlink(&stat) {
            return self.follow(folder.index(), &dir, task, hash, stat);
        }
        if !at::is_dir(&stat) || !finished_enough(folder, &dir, task, hash)? {
            return Ok(Candidate::Nothing);
        }
        Ok(Candidate::Serves(Served::Job {
            location: folder.index(),
            stat,
        }))
    }

    /// What a symlink stands for that location `holder` has in place of a job.
    fn follow(
        &self,
        holder: u8,
        dir: impl AsFd,
        task: &OsStr,
        hash: &OsStr,
        link: Box<Statx>,
    ) -> Result<Candidate> {
        let target = match at::read_link(&dir, hash) {
            Ok(target) => target,
            // Replaced since it was looked at: the next lookup will see what is there then.
            Err(Errno::INVAL | Errno::NOENT) => return Ok(Candidate::Nothing),
            Err(error) => return Err(error),
        };
        if let Some(location) = self.moved_to(holder, task, hash, &target) {
            return Ok(match self.job_in(location, task, hash) {
                Some(stat) => Candidate::Serves(Served::Job { location, stat }),
                None => Candidate::Dangling(link),
            });
        }
        if !walk::resolves(dir, &self.proof(holder, task, hash)) {
            return Ok(Candidate::Dangling(link));
        }
        Ok(Candidate::Serves(Served::AsItIs {
            location: holder,
            stat: link,
        }))
    }

    /// The name that must resolve for a symlink of location `holder` to count.
    fn proof(&self, holder: u8, task: &OsStr, hash: &OsStr) -> std::ffi::OsString {
        let role = self.location(holder).map(Location::role);
        match role {
            Some(Role::Folder(Mode::Use)) => Path::new(hash)
                .join(markers::done(jobs::name(task)))
                .into_os_string(),
            _ => hash.to_owned(),
        }
    }

    /// The directory of a job in one location, if it is there.
    fn job_in(&self, location: u8, task: &OsStr, hash: &OsStr) -> Option<Box<Statx>> {
        let location = self.location(location)?;
        let root = location.root().ok()?;
        let _asking = location.asking();
        let dir = root.task(task).ok()?;
        let stat = at::stat(dir, hash).ok()?;
        at::is_dir(&stat).then(|| Box::new(stat))
    }
}

/// Whether a job's directory in a folder counts: in a `use` folder only with its marker; what
/// stands in the others has been put there by an atomic rename.
fn finished_enough(folder: &Location, dir: impl AsFd, task: &OsStr, hash: &OsStr) -> Result<bool> {
    if folder.role() != Role::Folder(Mode::Use) {
        return Ok(true);
    }
    let Some(job) = at::absent(at::open_dir(dir, hash))? else {
        return Ok(false);
    };
    let done = markers::is_done(job, jobs::name(task));
    done.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
}
