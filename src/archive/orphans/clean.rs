//! Removes orphans from the primary: into its trash, from which they can be brought back.
//!
//! What a folder has stays there. A job that is deleted goes to the trash of each folder, too ([`crate::archive::job::trash`]); so one that a
//! folder has is not deleted here: only the symlink in its place goes, which leads to the copy and is made anew by archiving.

use parking_lot::Mutex;

use super::Orphan;
use crate::archive::env::Env;
use crate::archive::error::{Cause, Context, JobError, Result, StagingContext};
use crate::archive::job::release::{Processes, Refusal};
use crate::archive::job::trash::assess::{DeletionPlan, assess};
use crate::archive::job::trash::batch::Batch;
use crate::archive::job::trash::delete;
use crate::archive::parallel::in_parallel;
use crate::archive::places;
use crate::sys::at;
use crate::transfer::durable::sync_directory;
use crate::transfer::staging::Staging;
use crate::view::PRIMARY;

/// What happened to an orphan.
#[derive(Debug)]
pub enum CleanEvent {
    /// It would be removed.
    Would(Removal),
    /// It was removed.
    Removed(Removal),
    /// A folder has a copy of it: it stays.
    Archived,
    /// This folder, by its number, cannot be used now, and may have a copy: the job stays.
    Away(u8, String),
    /// It is used, pinned, or cannot be moved: it stays.
    Refused(Refusal),
    /// An error prevented its removal.
    Failed(JobError),
}

/// What is removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Removal {
    /// The bytes that are free when it is removed from the trash; none for a symlink.
    pub freed: u64,
    /// Whether the trash has it.
    pub in_trash: bool,
}

/// Removes orphans, several at a time, with the date `batch`; without one, only reports what would be removed. Ends early if the work is
/// cancelled.
pub fn clean(
    env: &Env<'_>,
    orphans: &[Orphan],
    batch: Option<&Batch>,
    report: &(dyn Fn(&Orphan, CleanEvent) + Sync),
) {
    let processes = Mutex::new(Processes::default());
    let threads = env.threads.min(orphans.len()).max(1);
    in_parallel(threads, orphans, |orphan| {
        if !env.progress.is_cancelled() {
            let event = clean_one(env, &processes, orphan, batch);
            report(orphan, event.unwrap_or_else(CleanEvent::Failed));
        }
    });
}

fn clean_one(
    env: &Env<'_>,
    processes: &Mutex<Processes>,
    orphan: &Orphan,
    batch: Option<&Batch>,
) -> Result<CleanEvent> {
    let job = &orphan.id;
    let plan = match assess(env, processes, job)? {
        Ok(plan) => plan,
        Err(refusal) => return Ok(CleanEvent::Refused(refusal)),
    };
    // A deletion would reach the copy in the folder when that is back.
    if let Some((folder, why)) = plan.away.first() {
        return Ok(CleanEvent::Away(*folder, why.clone()));
    }
    // Archived a moment ago, perhaps.
    let is_archived = orphan.is_archived || plan.copies.iter().any(|copy| copy.location != PRIMARY);
    let removal = Removal {
        freed: freed(&plan),
        in_trash: !is_archived,
    };
    match (is_archived, &orphan.link, batch) {
        (true, None, _) => Ok(CleanEvent::Archived),
        (_, _, None) => Ok(CleanEvent::Would(removal)),
        (true, Some(_), Some(_)) => {
            remove_link(env, orphan)?;
            Ok(CleanEvent::Removed(removal))
        }
        (false, _, Some(batch)) => Ok(match delete::delete(env, processes, &plan, batch)? {
            Ok(_) => CleanEvent::Removed(removal),
            Err(refusal) => CleanEvent::Refused(refusal),
        }),
    }
}

fn freed(plan: &DeletionPlan) -> u64 {
    let own = plan.copies.iter().filter(|copy| copy.location == PRIMARY);
    own.map(|copy| copy.usage.freed)
        .fold(0, u64::saturating_add)
}

/// Removes the symlink in the place of a job, if it is still the one that was found.
fn remove_link(env: &Env<'_>, orphan: &Orphan) -> Result<()> {
    let (primary, job) = (env.view.primary(), &orphan.id);
    let at = places::path(primary, job);
    let busy = |why: &'static str| JobError::new(job, Cause::Busy(why.into()));
    let Some(task) = places::task(primary, job).tried(job, "open", &at)? else {
        return Ok(());
    };
    let Some(staging) = Staging::take(&*task, job.hash()).beside(job, &at)? else {
        return Err(busy("another process archives, moves or recovers it"));
    };
    let target = at::read_link(&*task, job.hash()).ok();
    let removed = match target == orphan.link {
        true => {
            let flags = rustix::fs::AtFlags::empty();
            let removed = rustix::fs::unlinkat(&*task, job.hash(), flags);
            let list = |()| at::open_to_list(&*task, std::ffi::OsStr::new("."));
            removed
                .and_then(list)
                .and_then(sync_directory)
                .tried(job, "remove", &at)
        }
        false => Err(busy("it has changed meanwhile")),
    };
    staging.finish(None).beside(job, &at)?;
    removed?;
    env.hooks.moved(job);
    Ok(())
}
