//! Lists what is in the trash of a workspace: of the primary, and of its `backup` and `move` folders.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use rustix::fs::StatxTimestamp;
use serde::{Deserialize, Serialize};

use super::batch::Batch;
use super::folder::{lacks_in_another_directory, why_away};
use super::parts::Part;
use super::records::{self, RecordKind};
use crate::archive::env::Env;
use crate::archive::job::usage;
use crate::archive::places;
use crate::sys::at;
use crate::transfer::Size;
use crate::view::Location;
use crate::view::jobs::names;
use crate::view::location::explain;
use crate::workspace::jobs::JobId;
use crate::workspace::layout::TRASH;

/// A deleted job.
#[derive(Debug)]
pub struct InTrash {
    /// The job.
    pub job: JobId,
    /// When it was deleted.
    pub batch: Batch,
    /// What is left of it, and where.
    pub copies: Vec<TrashedCopy>,
    /// The folders in which its deletion is not complete, by their numbers.
    pub waits: Vec<u8>,
}

/// A copy in a trash.
#[derive(Debug, Clone)]
pub struct TrashedCopy {
    /// The number of its location.
    pub location: u8,
    /// Where it is.
    pub path: PathBuf,
    /// When it was moved there, if that is later than the deletion, as in a folder that was away.
    since: SystemTime,
}

impl InTrash {
    /// When the last copy may be removed for good, if a deleted job is kept for so long.
    #[must_use]
    pub fn until(&self, keep: Duration) -> SystemTime {
        let last = self.copies.iter().map(|copy| copy.since).max();
        let last = last.unwrap_or_else(|| self.batch.at().into());
        last.checked_add(keep).unwrap_or(last)
    }
}

/// The deleted jobs of a workspace.
#[derive(Debug, Default)]
pub struct Listed {
    /// The jobs, in the order of their deletion.
    pub jobs: Vec<InTrash>,
    /// What could not be read, as sentences.
    pub unseen: Vec<String>,
}

/// Lists the deleted jobs in every location that can be used.
#[must_use]
pub fn list_trash(env: &Env<'_>) -> Listed {
    let mut found: BTreeMap<(Batch, JobId), InTrash> = BTreeMap::new();
    let mut unseen = Vec::new();
    let primary = env.view.primary();
    let mut entry = |batch: &Batch, job: &JobId, change: &dyn Fn(&mut InTrash)| {
        let key = (batch.clone(), job.clone());
        change(found.entry(key).or_insert_with(|| InTrash {
            job: job.clone(),
            batch: batch.clone(),
            copies: Vec::new(),
            waits: Vec::new(),
        }));
    };
    for location in std::iter::once(primary).chain(places::archives(env.view)) {
        if location.index() != primary.index() {
            let mut replaced = None;
            for job in records::jobs(primary, RecordKind::Marks(location)).unwrap_or_default() {
                replaced = replaced.or_else(|| lacks_in_another_directory(env, location, &job));
                if is_waited_for(env, location, &job)
                    && let Ok(Some(mark)) =
                        records::read(primary, RecordKind::Marks(location), &job)
                {
                    let waits = |it: &mut InTrash| it.waits.push(location.index());
                    entry(&mark.batch, &job, &waits);
                }
            }
            let path = location.path().display();
            if let Some(why) = replaced {
                unseen.push(format!("a deletion in {path} is not complete: {why}"));
            }
            if let Some(why) = why_away(env, location) {
                unseen.push(format!("cannot look into the trash of {path}: {why}"));
                continue;
            }
        }
        let read = each(location, &mut |copy, batch, job| {
            entry(batch, job, &|it: &mut InTrash| it.copies.push(copy.clone()));
        });
        if let Err(error) = read {
            let path = location.path().display();
            let cause = explain(error);
            unseen.push(format!("cannot look into the trash of {path}: {cause}"));
        }
    }
    Listed {
        jobs: found.into_values().collect(),
        unseen,
    }
}

/// Whether a folder with the mark of a job still has the copy, or may still have it in the directory that another one has replaced. A mark may stay for a while after the copy went to the trash.
fn is_waited_for(env: &Env<'_>, folder: &Location, job: &JobId) -> bool {
    why_away(env, folder).is_some()
        || places::task(folder, job)
            .ok()
            .flatten()
            .is_some_and(|task| at::stat(&*task, job.hash()).is_ok())
        || lacks_in_another_directory(env, folder, job).is_some()
}

/// The dates of the deletions in a location's trash, in order.
pub(super) fn batches(location: &Location) -> rustix::io::Result<Vec<Batch>> {
    let Some(trash) = places::own(location, [OsStr::new(TRASH)])? else {
        return Ok(Vec::new());
    };
    let mut batches: Vec<Batch> = names(&trash)?
        .iter()
        .filter_map(|name| Batch::parse(name))
        .collect();
    batches.sort_unstable();
    Ok(batches)
}

/// Calls `found` for each job in a location's trash.
fn each(
    location: &Location,
    found: &mut dyn FnMut(&TrashedCopy, &Batch, &JobId),
) -> rustix::io::Result<()> {
    for batch in batches(location)? {
        each_of(location, &batch, Part::Job, &mut |copy, job| {
            found(copy, &batch, job);
        })?;
    }
    Ok(())
}

/// Calls `found` for each job of one date of which a location's trash has this part.
pub(super) fn each_of(
    location: &Location,
    batch: &Batch,
    part: Part,
    found: &mut dyn FnMut(&TrashedCopy, &JobId),
) -> rustix::io::Result<()> {
    let Some(tasks) = part.tasks_in_trash(location, batch)? else {
        return Ok(());
    };
    for task in names(&tasks)? {
        let Some(dir) = at::absent(at::open_dir(&tasks, &task))? else {
            continue;
        };
        for name in names(&dir)? {
            let Some(job) = part.job(&task, &name) else {
                continue;
            };
            let Some(stat) = at::absent(at::stat(&dir, &name))? else {
                continue;
            };
            let copy = TrashedCopy {
                location: location.index(),
                path: part.path_in_trash(location, batch, &job),
                // A rename sets the time of the last change, which no program can set. Nor does a clock that was wrong when the job was
                // deleted make a copy expire at once.
                since: time(stat.stx_ctime).max(batch.at().into()),
            };
            found(&copy, &job);
        }
    }
    Ok(())
}

/// How many deleted jobs a location has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrashCount {
    /// Jobs in its trash.
    pub jobs: usize,
    /// Of a folder: jobs whose deletion is not complete there.
    pub pending: usize,
}

/// Counts the deleted jobs of a location. What cannot be read is not counted.
#[must_use]
pub fn count(primary: &Location, location: &Location) -> TrashCount {
    let mut jobs = 0;
    for batch in batches(location).unwrap_or_default() {
        let Ok(Some(tasks)) = Part::Job.tasks_in_trash(location, &batch) else {
            continue;
        };
        for task in names(&tasks).unwrap_or_default() {
            let dir = at::open_dir(&tasks, &task);
            jobs += dir.and_then(names).map_or(0, |names| names.len());
        }
    }
    let pending = match location.index() == primary.index() {
        true => 0,
        false => records::jobs(primary, RecordKind::Marks(location)).map_or(0, |jobs| jobs.len()),
    };
    TrashCount { jobs, pending }
}

impl TrashedCopy {
    /// Whether it has been in the trash for so long.
    pub(super) fn is_older_than(&self, keep: Duration) -> bool {
        let age = SystemTime::now().duration_since(self.since);
        age.is_ok_and(|age| age >= keep)
    }

    /// Files and bytes, and the bytes that are free when it is removed. `None` if it cannot be read.
    #[must_use]
    pub fn usage(&self, env: &Env<'_>, deleted: &InTrash) -> Option<(Size, u64)> {
        let location = env.view.location(self.location)?;
        let tasks = Part::Job.tasks_in_trash(location, &deleted.batch).ok()??;
        let task = at::open_dir(tasks, deleted.job.task_id()).ok()?;
        match places::open(&task, deleted.job.hash()).ok()? {
            Some(directory) => {
                let usage = usage::of(&deleted.job, &directory).ok()?;
                Some((usage.size, usage.freed))
            }
            None => Some((Size::default(), 0)),
        }
    }
}

fn time(time: StatxTimestamp) -> SystemTime {
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    SystemTime::UNIX_EPOCH + Duration::new(seconds, time.tv_nsec)
}
