//! Lists the jobs of folders, from the narrowest set to the widest, and those that the primary has lost.
//!
//! - [`archived`]: a folder has a copy; [`recorded`]: or only its manifest; [`expected`]: or it has lost both, by the records in the primary
//! - [`lost`]: [`recorded`] jobs that the primary lacks

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use super::{folder_alias, places, state_dir};
use crate::archive::env::Env;
use crate::archive::job::manifests;
use crate::settings::Mode;
use crate::view::location::explain;
use crate::view::{InPrimary, Location, Unlisted};
use crate::workspace::jobs::JobId;
use crate::workspace::layout::XPMFS;

/// The result of a search for jobs.
#[derive(Debug, Default)]
pub struct FoundJobs {
    /// The jobs, in order.
    pub jobs: Vec<JobId>,
    /// What could not be read.
    pub unseen: Vec<Unseen>,
}

/// What could not be read, as a sentence.
#[derive(Debug)]
pub struct Unseen {
    text: String,
    /// The path that this user may not read, if that is the reason.
    pub denied: Option<PathBuf>,
}

impl Unseen {
    /// A sentence about a path, and the error of reading it, if that is the reason.
    #[must_use]
    pub fn new(text: String, path: &Path, errno: Option<Errno>) -> Unseen {
        let denied = matches!(errno, Some(Errno::ACCESS | Errno::PERM));
        Unseen {
            text,
            denied: denied.then(|| path.to_owned()),
        }
    }
}

impl From<&Unlisted> for Unseen {
    fn from(task: &Unlisted) -> Unseen {
        Unseen::new(task.to_string(), task.path(), task.errno())
    }
}

impl fmt::Display for Unseen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The jobs in any of these folders, given by their numbers.
#[must_use]
pub fn archived(env: &Env<'_>, folders: &[u8]) -> FoundJobs {
    let (mut jobs, mut unseen) = (BTreeSet::new(), Vec::new());
    for folder in folders {
        let Some(location) = places::folder(env.view, *folder) else {
            continue;
        };
        match jobs_of(env, location) {
            Ok((found, tasks)) => {
                jobs.extend(found);
                unseen.extend(tasks.iter().map(Unseen::from));
            }
            Err(why) => unseen.push(why),
        }
    }
    FoundJobs {
        jobs: jobs.into_iter().collect(),
        unseen,
    }
}

/// As [`archived`], with the jobs that have only a manifest: their copies are missing.
#[must_use]
pub fn recorded(env: &Env<'_>, folders: &[u8]) -> FoundJobs {
    let FoundJobs { jobs, mut unseen } = archived(env, folders);
    let mut jobs: BTreeSet<JobId> = jobs.into_iter().collect();
    for folder in folders {
        // A missing folder is already in `unseen`.
        let Some(location) = places::folder(env.view, *folder).filter(|it| it.root().is_ok())
        else {
            continue;
        };
        match manifests::jobs(location) {
            // Of a deleted job, the manifest goes to the trash as well.
            Ok(found) => jobs.extend(
                found
                    .into_iter()
                    .filter(|job| !location.has_deleted(job.task_id(), job.hash())),
            ),
            Err(errno) => {
                let place = location.path().join(XPMFS);
                let why = explain(errno);
                let text = format!("cannot look for manifests in {}: {why}", place.display());
                unseen.push(Unseen::new(text, &place, Some(errno)));
            }
        }
    }
    FoundJobs {
        jobs: jobs.into_iter().collect(),
        unseen,
    }
}

/// As [`recorded`], with the jobs of which a folder has lost both the copy and the manifest.
#[must_use]
pub fn expected(env: &Env<'_>, folders: &[u8]) -> FoundJobs {
    let FoundJobs { jobs, mut unseen } = recorded(env, folders);
    let mut jobs: BTreeSet<JobId> = jobs.into_iter().collect();
    let primary = env.view.primary();
    for folder in folders {
        let Some(location) = places::folder(env.view, *folder).filter(|it| !it.is_away()) else {
            continue;
        };
        match state_dir::damaged(primary, location, usize::MAX) {
            Ok(damaged) => jobs.extend(damaged.first.into_iter().map(|(job, _)| job)),
            Err(error) => {
                let text = state_dir::explain(primary, error);
                unseen.push(Unseen::new(text, primary.path(), Some(error)));
            }
        }
        match env.view.lost_since_recorded(location) {
            Ok(lost) => jobs.extend(lost),
            Err(error) => unseen.push(self::unseen(location, explain(error), Some(error))),
        }
    }
    FoundJobs {
        jobs: jobs.into_iter().collect(),
        unseen,
    }
}

/// The jobs that a purge has removed from the primary, or has left incomplete there ([`InPrimary::Purged`]): those in a `backup` folder that have no entry in the primary and are not in a
/// `move` folder, where they would be on purpose. With `from`, all jobs of that folder without an entry in the primary. Includes jobs of
/// which a folder has only the manifest.
///
/// # Errors
///
/// Fails if the primary or a `move` folder cannot be listed: then it is unknown which jobs are lost.
pub fn lost(env: &Env<'_>, from: Option<u8>) -> Result<FoundJobs, Unseen> {
    let of = |mode| {
        let folders = places::folders_of_mode(env.view, mode);
        folders.map(Location::index).collect::<Vec<u8>>()
    };
    let primary = env.view.primary();
    let (present, tasks) = primary
        .jobs()
        .map_err(|errno| unseen(primary, explain(errno), Some(errno)))?;
    let mut left: BTreeSet<JobId> = present.iter().cloned().collect();
    let mut listed = recorded(
        env,
        &from.map_or_else(|| of(Mode::Backup), |from| vec![from]),
    );
    listed.unseen.extend(tasks.iter().map(Unseen::from));
    if from.is_none() {
        let moved = archived(env, &of(Mode::Move));
        if let Some(why) = moved.unseen.into_iter().next() {
            return Err(why);
        }
        left.extend(moved.jobs);
    }
    let of_folder: BTreeSet<&JobId> = listed.jobs.iter().collect();
    let mut purged: Vec<JobId> = present
        .into_iter()
        .filter(|job| from.is_none() || of_folder.contains(job))
        .filter(|job| {
            let there = env.view.in_primary(job.task_id(), job.hash());
            matches!(there, Ok(InPrimary::Purged))
        })
        .collect();
    listed.jobs.retain(|job| !left.contains(job));
    listed.jobs.append(&mut purged);
    listed.jobs.sort_unstable();
    Ok(listed)
}

/// Whether a folder is on record as having a copy, which was not deleted: if it has none now, it is away or has lost it.
#[must_use]
pub fn is_on_record(env: &Env<'_>, folder: &Location, job: &JobId) -> bool {
    let (task, hash) = (job.task_id(), job.hash());
    let is_damaged = || state_dir::is_damaged(env.view.primary(), folder, job).unwrap_or(false);
    (env.view.has_on_record(folder, task, hash) || is_damaged()) && !folder.has_deleted(task, hash)
}

/// Why the jobs of a folder cannot be listed, if so.
#[must_use]
pub fn why_not(env: &Env<'_>, folder: &Location) -> Option<String> {
    let root = match folder.root() {
        Ok(root) => root,
        Err(errno) => return Some(explain(errno)),
    };
    if root.jobs().is_ok() {
        return folder_alias::shared(env.view, folder);
    }
    let primary = env.view.primary();
    match state_dir::is_known(primary, folder) {
        Ok(known) => known.then(|| places::NO_DISK.to_owned()),
        Err(error) => Some(state_dir::explain(primary, error)),
    }
}

fn jobs_of(env: &Env<'_>, folder: &Location) -> Result<(Vec<JobId>, Vec<Unlisted>), Unseen> {
    if let Some(why) = why_not(env, folder) {
        return Err(unseen(folder, why, folder.root().err()));
    }
    let jobs = folder.jobs();
    jobs.map_err(|errno| unseen(folder, explain(errno), Some(errno)))
}

fn unseen(location: &Location, why: String, errno: Option<Errno>) -> Unseen {
    let text = format!(
        "cannot look for jobs in {}: {why}",
        location.path().display()
    );
    // The location itself can be opened, and so its `jobs` cannot be listed.
    let jobs = location
        .root()
        .ok()
        .and_then(|_| location.jobs_paths().into_iter().next());
    let path = jobs.unwrap_or_else(|| location.path().to_owned());
    Unseen::new(text, &path, errno)
}
