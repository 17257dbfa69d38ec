//! Finishes releases that a crash has interrupted: removes the directories in `.xpmfs/released`, or puts them back.
//!
//! | the archived copy | the directory | what happens |
//! | --- | --- | --- |
//! | stands: finished, with a manifest, every file in its size | has nothing that the manifest lacks | it is removed |
//! | stands | was changed since | it is put back |
//! | is gone | | it is put back; without its marker, if the removal had begun |
//! | in a folder that does not answer | | it is kept until the folder answers |

use std::ffi::OsStr;

use super::aside::{link, put_back, released_path, remove};
use super::assess::{changes, served_first};
use crate::archive::env::Env;
use crate::archive::error::{Context, CopyContext, Result, StagingContext};
use crate::archive::job::ready::hold_locks;
use crate::archive::job::{manifests, preconditions, select};
use crate::archive::places;
use crate::sys::at;
use crate::transfer::staging::Staging;
use crate::transfer::{self, Candidate, Manifest, Options, What};
use crate::view::Location;
use crate::view::jobs::names;
use crate::workspace::jobs::JobId;
use crate::workspace::layout::RELEASED;
use crate::workspace::markers;

/// Finishes all interrupted releases of a workspace.
pub fn clear(env: &Env<'_>) {
    let jobs = match left(env) {
        Ok(jobs) => jobs,
        Err(error) => {
            let primary = env.view.primary().path().display();
            return tracing::warn!("cannot look for interrupted releases in {primary}: {error}");
        }
    };
    for job in jobs {
        if let Err(error) = finish(env, &job) {
            tracing::warn!("{error}");
        }
    }
}

/// The jobs that have a directory in `.xpmfs/released`.
fn left(env: &Env<'_>) -> rustix::io::Result<Vec<JobId>> {
    let mut jobs = Vec::new();
    let released = OsStr::new(RELEASED);
    let Some(tasks) = places::own(env.view.primary(), [released])? else {
        return Ok(jobs);
    };
    for task in names(&tasks)? {
        let Some(directory) = at::absent(at::open_dir(&tasks, &task))? else {
            continue;
        };
        let hashes = names(&directory)?.into_iter();
        jobs.extend(hashes.filter_map(|hash| JobId::new(&task, hash).ok()));
    }
    Ok(jobs)
}

fn finish(env: &Env<'_>, job: &JobId) -> Result<()> {
    let primary = env.view.primary();
    let left = released_path(primary, job);
    let task = preconditions::make_task(primary, job, primary)?;
    // A process that releases the job now has the lock.
    let Some(mut staging) = Staging::take(&*task, job.hash()).beside(job, &left)? else {
        return Ok(());
    };
    let names = [OsStr::new(RELEASED), job.task_id()];
    let Some(aside) = places::own(primary, names).tried(job, "open", &left)? else {
        return staging.finish(None).beside(job, &left);
    };
    let aside = at::open_to_list(&aside, OsStr::new(".")).tried(job, "open", &left)?;
    let Some(directory) = places::open(&aside, job.hash()).tried(job, "open", &left)? else {
        return staging.finish(None).beside(job, &left);
    };
    let select = |candidate: &Candidate<'_>| select::is_copied(job, candidate);
    let options = Options {
        select: Some(&select),
        ..Options::default()
    };
    let ours = transfer::outline(&directory, &options).copying(job, &left)?;
    let mut unknown = false;
    let mut stands = None;
    for folder in served_first(env) {
        match standing(folder, job, &options) {
            Ok(Some(manifest)) if !has_changed(&manifest, &ours) => {
                stands = Some(true);
                link(env, job, folder, &mut staging);
                break;
            }
            Ok(Some(_)) => stands = Some(false),
            Ok(None) => {}
            Err(error) => {
                tracing::debug!("{}: {error}", places::path(folder, job).display());
                unknown = true;
            }
        }
    }
    match stands {
        Some(true) => {
            remove(job, &aside).tried(job, "remove", &left)?;
            tracing::info!("removed what an interrupted release has left of {job}");
        }
        None if unknown => {
            tracing::info!(
                "{} is kept until the folder of its copy answers",
                left.display()
            );
        }
        Some(false) | None => {
            tracing::warn!(
                "{job} was being released, and is put back: {}",
                match stands {
                    None => "no folder has a copy of it any more",
                    Some(_) => "it was changed",
                }
            );
            let locks = hold_locks(&directory, job).tried(job, "lock", &left)?;
            // Otherwise a program holds a lock of the directory itself.
            let keep = locks.is_some();
            put_back(env, job, &aside, &directory, keep)?;
        }
    }
    staging.finish(None).beside(job, &left)
}

/// Whether a directory has something that the manifest lacks. What the removal has taken is missing.
fn has_changed(manifest: &Manifest, ours: &Manifest) -> bool {
    // The rewriting of `params.json` was compared when the job was released.
    let mut changes = changes(manifest, ours, |_| true);
    changes.any(|change| !matches!(change.what, What::Missing))
}

/// The manifest of a folder's copy that is finished and has every file in its size; `None` if there is no such copy.
fn standing(
    folder: &Location,
    job: &JobId,
    options: &Options<'_>,
) -> rustix::io::Result<Option<Manifest>> {
    let Some(copy) = places::job(folder, job)? else {
        return Ok(None);
    };
    if folder.has_deleted(job.task_id(), job.hash()) {
        return Ok(None);
    }
    let is_done = markers::is_done(&copy, job.name()).unwrap_or(false);
    let Ok(Some(manifest)) = manifests::read(folder, job) else {
        return Ok(None);
    };
    let Ok(found) = transfer::outline(&copy, options) else {
        return Ok(None);
    };
    let whole = holds(&manifest, &found);
    Ok((is_done && whole).then_some(manifest))
}

fn holds(manifest: &Manifest, found: &Manifest) -> bool {
    // Nothing was read, so there are no hashes.
    !manifest.differences(found).iter().any(|difference| {
        select::is_of_content(difference) && !matches!(difference.what, What::Content)
    })
}
