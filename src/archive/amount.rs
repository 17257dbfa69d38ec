//! Measures how much a verification or a recovery will read, for its progress.

use super::places;
use crate::archive::env::Env;
use crate::archive::job::manifests;
use crate::transfer::Size;
use crate::view::InPrimary;
use crate::workspace::jobs::JobId;

/// What the verification of a folder's copy reads, according to its manifest: the copy, and the primary's job.
#[must_use]
pub fn to_verify(env: &Env<'_>, folder: u8, job: &JobId) -> Size {
    let Some(location) = places::folder(env.view, folder) else {
        return Size::default();
    };
    let size = recorded(env, folder, job).unwrap_or_default();
    let has = |location| matches!(places::job(location, job), Ok(Some(_)));
    let reads = [has(location), has(env.view.primary())].into_iter();
    reads.filter(|reads| *reads).map(|_| size).sum()
}

/// What the recovery of a job copies, according to the first manifest of the folder `from`, or of any folder.
#[must_use]
pub fn to_recover(env: &Env<'_>, job: &JobId, from: Option<u8>) -> Size {
    let present = env.view.in_primary(job.task_id(), job.hash());
    if matches!(present, Ok(InPrimary::Job)) {
        return Size::default();
    }
    let folders = env.view.folders().iter().map(|folder| folder.index());
    let mut folders = folders.filter(|index| from.is_none_or(|from| from == *index));
    folders
        .find_map(|folder| recorded(env, folder, job))
        .unwrap_or_default()
}

fn recorded(env: &Env<'_>, folder: u8, job: &JobId) -> Option<Size> {
    let folder = places::folder(env.view, folder)?;
    manifests::recorded(folder, job).ok()??.size
}
