//! Takes the lock of a job in the primary, against other deletions, archiving and recoveries of it.

use std::path::Path;

use crate::archive::env::Env;
use crate::archive::error::{Result, StagingContext};
use crate::archive::job::preconditions;
use crate::archive::job::recover::MadeTask;
use crate::archive::places;
use crate::transfer::staging::Staging;
use crate::workspace::jobs::JobId;

/// Calls `work`, with the job's path in the primary, while this process has the lock of the job's staging there. Returns `None` if another process
/// has it.
pub(super) fn exclusively<T>(
    env: &Env<'_>,
    job: &JobId,
    work: impl FnOnce(&Path) -> Result<T>,
) -> Result<Option<T>> {
    let primary = env.view.primary();
    let at = places::path(primary, job);
    let _made = MadeTask::of(env, job);
    let task = preconditions::make_task(primary, job, primary)?;
    let Some(staging) = Staging::take(&*task, job.hash()).beside(job, &at)? else {
        return Ok(None);
    };
    let done = work(&at).map_err(|error| preconditions::name_own_obstacle(primary, error))?;
    staging.finish(None).beside(job, &at)?;
    Ok(Some(done))
}
