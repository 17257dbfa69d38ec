//! Brings a deleted job back from the trash.

use std::path::Path;

use super::batch::Batch;
use super::exclusive::exclusively;
use super::folder::{Completed, complete, why_away};
use super::parts::{self, Part, Restored};
use super::records::{self, Record, RecordKind};
use crate::archive::env::Env;
use crate::archive::error::{Context, Result, StagingContext};
use crate::archive::job::preconditions;
use crate::archive::places;
use crate::sys::at;
use crate::transfer::staging::Staging;
use crate::view::Location;
use crate::workspace::jobs::JobId;

/// A job that was brought back.
#[derive(Debug, Default)]
pub struct Undeleted {
    /// The locations whose copies are at their places again, by their numbers.
    pub restored: Vec<u8>,
    /// The folders that cannot be used now, and why: a copy in their trash stays there.
    pub away: Vec<(u8, String)>,
}

/// Why a job is not brought back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotUndeleted {
    /// A location has a job of this name again.
    Exists(String),
    /// No trash that can be read has it.
    Absent(String),
    /// Another process works on it.
    Busy(String),
}

impl NotUndeleted {
    /// The reason, for people.
    #[must_use]
    pub fn why(&self) -> &str {
        match self {
            NotUndeleted::Exists(why) | NotUndeleted::Absent(why) | NotUndeleted::Busy(why) => why,
        }
    }
}

/// What became of a job.
pub type UndeletionOutcome = Result<std::result::Result<Undeleted, NotUndeleted>>;

/// Brings back what was deleted of a job on this date.
///
/// # Errors
///
/// Fails with the error of a location's file system; the next command goes on.
pub fn undelete(env: &Env<'_>, job: &JobId, batch: &Batch) -> UndeletionOutcome {
    let undeleted = exclusively(env, job, |at| {
        if let Some(refusal) = expect_no_job(env, job)? {
            return Ok(Err(refusal));
        }
        if let Some(refusal) = expect_deleted(env, job, batch)? {
            return Ok(Err(refusal));
        }
        let record = Record {
            batch: batch.clone(),
            primary: false,
            folders: Vec::new(),
        };
        let written = records::write(env.view.primary(), RecordKind::Undeletions, job, &record);
        written.tried(job, "record the undeletion of", at)?;
        restore(env, job, batch, at).map(Ok)
    })?;
    let busy = || Err(NotUndeleted::Busy("another process works on it".to_owned()));
    Ok(undeleted.unwrap_or_else(busy))
}

/// Goes on with an interrupted undeletion, unless another process is at it.
///
/// # Errors
///
/// As [`undelete`].
pub(super) fn go_on(env: &Env<'_>, job: &JobId) -> Result<()> {
    let finished = exclusively(env, job, |at| {
        let record = records::read(env.view.primary(), RecordKind::Undeletions, job);
        if let Some(record) = record.tried(job, "read the undeletion of", at)? {
            restore(env, job, &record.batch, at)?;
            tracing::info!("{job}: its undeletion was interrupted, and is finished now");
        }
        Ok(())
    });
    finished.map(drop)
}

/// Checks that no location has a job of this name, and that no deletion of it is under way.
fn expect_no_job(env: &Env<'_>, job: &JobId) -> Result<Option<NotUndeleted>> {
    let primary = env.view.primary();
    let at = places::path(primary, job);
    let intent = records::read(primary, RecordKind::Intents, job);
    if intent.tried(job, "look for a deletion of", &at)?.is_some() {
        let why = "its deletion is not finished: try again".to_owned();
        return Ok(Some(NotUndeleted::Busy(why)));
    }
    let folders = places::archives(env.view).filter(|folder| why_away(env, folder).is_none());
    for location in std::iter::once(primary).chain(folders) {
        let at = places::path(location, job);
        // A copy that was deleted, and is not in the trash yet.
        if location.has_deleted(job.task_id(), job.hash())
            && complete(env, location, job)? == Completed::Busy
        {
            let why = format!("another process works on {}", at.display());
            return Ok(Some(NotUndeleted::Busy(why)));
        }
        let task = places::task(location, job).tried(job, "open", &at)?;
        let there = task.map(|task| at::absent(at::stat(&*task, job.hash())));
        if there
            .transpose()
            .tried(job, "look at", &at)?
            .flatten()
            .is_some()
        {
            let why = format!(
                "{} exists: the job was made again since it was deleted. Delete or rename that one first, or leave the deleted one in the trash",
                at.display()
            );
            return Ok(Some(NotUndeleted::Exists(why)));
        }
    }
    Ok(None)
}

/// Checks that a trash has the job.
fn expect_deleted(env: &Env<'_>, job: &JobId, batch: &Batch) -> Result<Option<NotUndeleted>> {
    let mut away = Vec::new();
    for location in locations(env) {
        if let Some(why) = why_away(env, location) {
            away.push(format!("{}: {why}", location.path().display()));
            continue;
        }
        let at = Part::Job.path_in_trash(location, batch, job);
        let there = Part::Job.in_trash(location, batch, job);
        if there.tried(job, "look at", &at)?.is_some() {
            return Ok(None);
        }
    }
    let why = match away.as_slice() {
        [] => "it is not in the trash any more".to_owned(),
        away => format!(
            "it is in no trash that can be read now; {}",
            away.join(", ")
        ),
    };
    Ok(Some(NotUndeleted::Absent(why)))
}

/// The locations with a trash: the folders first, so that the primary's symlink leads somewhere when it is back.
fn locations<'a>(env: &Env<'a>) -> impl Iterator<Item = &'a Location> {
    places::archives(env.view).chain([env.view.primary()])
}

/// Renames the job back from each trash, and removes the record of the undeletion. The caller has the lock of the job's staging in the
/// primary.
fn restore(env: &Env<'_>, job: &JobId, batch: &Batch, at: &Path) -> Result<Undeleted> {
    let primary = env.view.primary();
    let mut undeleted = Undeleted::default();
    for folder in places::archives(env.view) {
        let removed = records::remove(primary, RecordKind::Marks(folder), job);
        removed.tried(job, "remove the mark of", at)?;
        if let Some(why) = why_away(env, folder) {
            undeleted.away.push((folder.index(), why));
            continue;
        }
        let place = places::path(folder, job);
        let there = Part::Job.in_trash(folder, batch, job);
        if there.tried(job, "look in the trash for", &place)?.is_none() {
            continue;
        }
        let task = preconditions::make_task(folder, job, primary)?;
        let Some(staging) = Staging::take(&*task, job.hash()).beside(job, &place)? else {
            // Its archived copy is made anew.
            continue;
        };
        let manifest = Part::Manifest.restore(folder, batch, job, primary);
        manifest.tried(job, "bring back the manifest of", &place)?;
        let copy = Part::Job.restore(folder, batch, job, primary);
        if copy.tried(job, "bring back", &place)? == Restored::Done {
            undeleted.restored.push(folder.index());
        }
        staging.finish(None).beside(job, &place)?;
        parts::tidy(folder, batch, job.task_id());
    }
    env.view.look_for_deleted();
    for part in parts::OF_PRIMARY {
        let restored = part.restore(primary, batch, job, primary);
        restored.tried(job, "bring back what is recorded of", at)?;
    }
    let entry = Part::Job.restore(primary, batch, job, primary);
    if entry.tried(job, "bring back", at)? == Restored::Done {
        undeleted.restored.insert(0, primary.index());
    }
    parts::tidy(primary, batch, job.task_id());
    let removed = records::remove(primary, RecordKind::Undeletions, job);
    removed.tried(job, "remove the record of the undeletion of", at)?;
    env.view.forget_finding(job);
    env.hooks.moved(job);
    Ok(undeleted)
}
