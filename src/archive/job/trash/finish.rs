//! Goes on with what a crash has interrupted, and with deletions in folders that are back.
//!
//! Costs one look at a directory that is missing while nothing is left.

use super::delete::complete_decided;
use super::exclusive::exclusively;
use super::folder::{self, Completed};
use super::parts::Part;
use super::records::{self, RecordKind};
use super::undelete;
use crate::archive::env::Env;
use crate::archive::error::{Context, Result};
use crate::archive::places;
use crate::view::Location;
use crate::workspace::jobs::JobId;

/// Finishes everything that can be finished now. What fails is logged, and tried again by the next call.
pub fn all(env: &Env<'_>) {
    interrupted(env);
    for folder in places::archives(env.view) {
        in_folder(env, folder);
    }
}

/// Finishes interrupted deletions and undeletions. Of a deletion, asks no folder.
pub fn interrupted(env: &Env<'_>) {
    let primary = env.view.primary();
    for (kind, job) in records::unfinished(primary).unwrap_or_default() {
        if let Err(error) = sweep(env, &kind, &job) {
            tracing::warn!("cannot remove what an interrupted deletion has left: {error}");
        }
    }
    for job in left(env, RecordKind::Intents) {
        if let Err(error) = deletion(env, &job) {
            tracing::warn!("cannot finish a deletion: {error}");
        }
    }
    for job in left(env, RecordKind::Undeletions) {
        if let Err(error) = undelete::go_on(env, &job) {
            tracing::warn!("cannot finish an undeletion: {error}");
        }
    }
}

/// Completes deletions in a folder, if it can be used. Returns the jobs whose copies went to its trash.
pub fn in_folder(env: &Env<'_>, folder: &Location) -> usize {
    let mut moved = 0;
    for job in left(env, RecordKind::Marks(folder)) {
        if env.progress.is_cancelled() {
            break;
        }
        match folder::complete(env, folder, &job) {
            Ok(Completed::Moved) => {
                moved += 1;
                tracing::info!(
                    "{job} was deleted: its copy in {} is in the trash now",
                    folder.path().display()
                );
            }
            Ok(Completed::Nothing | Completed::Busy) => {}
            // So are the others.
            Ok(Completed::Away(_)) if folder::why_away(env, folder).is_some() => break,
            // The folder is another directory than before, and has neither this copy nor, perhaps, others.
            Ok(Completed::Away(_)) => {}
            Err(error) => tracing::warn!("cannot complete a deletion: {error}"),
        }
    }
    if moved > 0 {
        env.view.look_for_deleted();
    }
    moved
}

/// Removes what is left of a record that was being written, unless its process is still there.
fn sweep(env: &Env<'_>, kind: &str, job: &JobId) -> Result<()> {
    let swept = exclusively(env, job, |at| {
        let removed = records::remove_unfinished(env.view.primary(), kind, job);
        removed.tried(job, "remove the unfinished record of", at)
    });
    swept.map(drop)
}

fn left(env: &Env<'_>, kind: RecordKind<'_>) -> Vec<JobId> {
    let primary = env.view.primary();
    records::jobs(primary, kind).unwrap_or_else(|error| {
        tracing::debug!(
            "cannot look for unfinished deletions in {}: {error}",
            primary.path().display()
        );
        Vec::new()
    })
}

/// Finishes the deletion of a job, or rolls it back, unless another process is at it.
fn deletion(env: &Env<'_>, job: &JobId) -> Result<()> {
    let primary = env.view.primary();
    let finished = exclusively(env, job, |at| {
        let intent = records::read(primary, RecordKind::Intents, job);
        let Some(intent) = intent.tried(job, "read the intent to delete", at)? else {
            return Ok(());
        };
        let there = Part::Job.in_trash(primary, &intent.batch, job);
        let there = there.tried(job, "look for the deleted job of", at)?;
        if !intent.primary || there.is_some() {
            return complete_decided(env, job, &intent);
        }
        let removed = records::remove(primary, RecordKind::Intents, job);
        removed.tried(job, "remove the intent to delete", at)?;
        tracing::info!("{job} was about to be deleted when that was interrupted: it stays");
        Ok(())
    });
    finished.map(drop)
}
