//! Makes a deletion that is decided complete in the primary.

use super::batch::Batch;
use super::parts;
use super::records::{self, Record, RecordKind};
use crate::archive::env::Env;
use crate::archive::error::{Context, Result};
use crate::archive::places;
use crate::view::location::deleted::marks_of;
use crate::workspace::jobs::JobId;

/// The intent to delete a job now.
pub(super) fn intent(env: &Env<'_>, batch: &Batch, primary: bool) -> Record {
    let folders = places::archives(env.view).map(|folder| marks_of(folder.path()));
    Record {
        batch: batch.clone(),
        primary,
        folders: folders.collect(),
    }
}

/// Moves the rest of the job to the primary's trash, and writes a mark for every folder. The caller has the lock of the job's staging in the
/// primary.
pub(super) fn decided(env: &Env<'_>, job: &JobId, intent: &Record) -> Result<()> {
    let primary = env.view.primary();
    let at = places::path(primary, job);
    for part in parts::OF_PRIMARY {
        let moved = part.discard(primary, &intent.batch, job);
        moved.tried(job, "move to the trash what is recorded of", &at)?;
    }
    env.view.forget_standing(job);
    let mark = Record {
        primary: false,
        folders: Vec::new(),
        ..intent.clone()
    };
    let own = places::archives(env.view).map(|folder| marks_of(folder.path()));
    let mut folders: Vec<String> = own.chain(intent.folders.iter().cloned()).collect();
    folders.sort_unstable();
    folders.dedup();
    for folder in folders {
        let written = records::write(primary, RecordKind::MarksOf(&folder), job, &mark);
        written.tried(job, "write the mark of", &at)?;
    }
    let removed = records::remove(primary, RecordKind::Intents, job);
    removed.tried(job, "remove the intent to delete", &at)?;
    env.view.look_for_deleted();
    env.hooks.moved(job);
    Ok(())
}
