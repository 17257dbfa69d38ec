//! Copies a job from a folder back into the primary.

use std::fmt;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{AtFlags, Mode, OFlags};

use super::skeleton::Skeleton;
use super::{internal_files, manifests, params, preconditions, publish, select};
use crate::archive::env::Env;
use crate::archive::error::{Cause, Context, CopyContext, JobError, Result, StagingContext};
use crate::archive::{obstacle, places};
use crate::sys::at;
use crate::transfer::staging::Staging;
use crate::transfer::{self, Candidate, Copied, Difference, Kind, Options, Originals};
use crate::view::location::explain;
use crate::view::{InPrimary, Location};
use crate::workspace::jobs::JobId;
use crate::workspace::{markers, partials};

/// How often to check whether another process has finished its work on the same job.
const OTHER_PROCESS_POLL: Duration = Duration::from_millis(50);

/// How often a recovery begins again because a purge or a program changed what was left of the job, or a purge removed files of the new copy.
const RESTARTS_MAX: usize = 4;

/// What can be done about a copy that differs from its manifest.
const FORCE: &str = "--force recovers it as it is";

/// The result of recovering a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recovered {
    /// The job was copied.
    Copied {
        /// The number of the folder that it was copied from.
        folder: u8,
        /// Files, including symlinks.
        files: u64,
        /// Bytes of files.
        bytes: u64,
        /// Whether it has its marker of success.
        finished: bool,
        /// The folders that are earlier in the settings and have the job, and why they were skipped.
        passed_over: Vec<(u8, &'static str)>,
    },
    /// The primary already has the job.
    Present,
}

/// How a copy differs from its manifest.
#[derive(Debug)]
struct Damage {
    at: PathBuf,
    first: Difference,
    more: usize,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.at.join(&self.first.path);
        write!(f, "{} {}", path.display(), self.first.what)?;
        match self.more {
            0 => Ok(()),
            1 => f.write_str(", and one more difference from its manifest"),
            more => write!(f, ", and {more} more differences from its manifest"),
        }
    }
}

/// The primary's entry of a job.
enum Present {
    Nothing,
    /// A symlink to a folder's copy, or a dangling one.
    Link(OwnedFd),
    /// What a purge has left of the job.
    Skeleton(Skeleton),
    Job,
}

/// Copies a job into the primary, atomically and durably: from the folder with the number `from`, or from the first folder that has it;
/// finished copies come before others, and copies with a manifest before those without. Waits while another process recovers or archives
/// the job. Skips a copy that does not match its manifest.
///
/// # Errors
///
/// Fails if no folder has an intact copy, or with the error of a file system.
pub fn recover(env: &Env<'_>, job: &JobId, from: Option<u8>) -> Result<Recovered> {
    let mut retries = RESTARTS_MAX;
    loop {
        let primary = env.view.primary();
        let at = places::path(primary, job);
        if matches!(present(env, job)?, Present::Job) {
            internal_files::remove_left(env.view, job);
            return Ok(Recovered::Present);
        }
        if env.progress.is_cancelled() {
            return Err(JobError::new(job, Cause::Cancelled));
        }
        let candidates = candidates(env, job, from)?;
        let _made = MadeTask::of(env, job);
        let task = preconditions::make_task(primary, job, primary)?;
        let Some(mut staging) = Staging::take(&*task, job.hash()).beside(job, &at)? else {
            if env.progress.is_cancelled() {
                return Err(JobError::new(job, Cause::Cancelled));
            }
            std::thread::sleep(OTHER_PROCESS_POLL);
            continue;
        };
        // Another process may have been faster.
        let there = present(env, job)?;
        if matches!(there, Present::Job) {
            return Ok(Recovered::Present);
        }
        let (chosen, copied) = copy_first(env, job, &candidates, &mut staging)?;
        let passed_over = passed_over(&candidates, chosen);
        let placed = match &there {
            Present::Skeleton(skeleton) => {
                publish::over_skeleton(env, job, skeleton, &task, &mut staging)
            }
            Present::Link(link) => publish::over_link(env, job, link, &task, &mut staging),
            Present::Nothing | Present::Job => publish::new(env, job, &task, &mut staging),
        };
        match (placed, &there) {
            (Err(error), Present::Skeleton(skeleton))
                if retries > 0 && (skeleton.is_gone() || error.is_changed()) =>
            {
                tracing::debug!("{error}; looking at the job again");
                retries -= 1;
                continue;
            }
            (placed, _) => placed?,
        }
        if retries > 0 && is_incomplete(env, job, &task, chosen.folder) {
            tracing::info!("{job}: a purge has removed files of the new copy; recovering it again");
            retries -= 1;
            staging.finish(None).beside(job, &at)?;
            continue;
        }
        env.view.forget_standing(job);
        env.hooks.moved(job);
        internal_files::remove_old_names(env.view, job);
        staging.sync().beside(job, &at)?;
        staging.finish(None).beside(job, &at)?;
        let done = markers::done(job.name());
        let is_done = |entry: &transfer::Entry| entry.parent == 0 && *entry.name == *done;
        return Ok(Recovered::Copied {
            folder: chosen.folder.index(),
            passed_over,
            files: copied.manifest.files(),
            bytes: copied.manifest.bytes(),
            finished: copied.manifest.entries().iter().skip(1).any(is_done),
        });
    }
}

/// Whether a purge has removed files of the copy that has just been given the job's name: the files have their old times.
fn is_incomplete(env: &Env<'_>, job: &JobId, task: &OwnedFd, folder: &Location) -> bool {
    let Ok(directory) = at::open_dir(task, job.hash()) else {
        return false;
    };
    let purged = env.view.purged_from(job, &directory, Some(folder.index()));
    matches!(purged, Ok(Some(_)))
}

/// The size of the copy that a recovery of a job would take, if it can be read.
pub(in crate::archive) fn size(env: &Env<'_>, job: &JobId) -> Option<transfer::Size> {
    let folder = candidates(env, job, None).ok()?.first()?.folder;
    if let Ok(Some(manifest)) = manifests::read(folder, job) {
        let (files, bytes) = (manifest.files(), manifest.bytes());
        return Some(transfer::Size { files, bytes });
    }
    let source = places::job(folder, job).ok()??;
    let select = |candidate: &Candidate<'_>| select::is_copied(job, candidate);
    let options = Options {
        select: Some(&select),
        threads: env.threads,
        ..Options::default()
    };
    Some(transfer::measure(&source, &options).ok()?.size)
}

/// The bytes that a recovery of a job takes at most on a disk that allocates space in units of `block` bytes: each entry takes one
/// more than its data. `None` if the copy cannot be read.
pub(in crate::archive) fn space_needed(env: &Env<'_>, job: &JobId, block: u64) -> Option<u64> {
    let folder = candidates(env, job, None).ok()?.first()?.folder;
    if let Ok(Some(manifest)) = manifests::read(folder, job) {
        let sizes = manifest.entries().iter().map(|entry| match entry.kind {
            Kind::File { size, .. } => size,
            _ => 0,
        });
        let blocks = sizes.map(|size| size.div_ceil(block).saturating_add(1).saturating_mul(block));
        return Some(blocks.fold(0, u64::saturating_add));
    }
    let size = size(env, job)?;
    let blocks = size.files.saturating_mul(2).saturating_mul(block);
    Some(size.bytes.saturating_add(blocks))
}

/// Removes the directory of a task again, if the caller made it and leaves nothing in it.
pub(super) struct MadeTask<'a>(Option<(&'a Location, &'a JobId)>);

impl<'a> MadeTask<'a> {
    /// To be called before the directory is made.
    pub(super) fn of(env: &Env<'a>, job: &'a JobId) -> MadeTask<'a> {
        let primary = env.view.primary();
        let is_new = matches!(places::task(primary, job), Ok(None));
        MadeTask(is_new.then_some((primary, job)))
    }
}

impl Drop for MadeTask<'_> {
    fn drop(&mut self) {
        let Some((primary, job)) = self.0 else {
            return;
        };
        if let Ok(root) = primary.root()
            && let Ok(jobs) = root.jobs()
            && rustix::fs::unlinkat(&*jobs, job.task_id(), AtFlags::REMOVEDIR).is_ok()
        {
            root.forget_tasks();
        }
    }
}

/// Returns the primary's entry of a job.
fn present(env: &Env<'_>, job: &JobId) -> Result<Present> {
    let primary = env.view.primary();
    let at = places::path(primary, job);
    match env
        .view
        .in_primary(job.task_id(), job.hash())
        .tried(job, "look up", &at)?
    {
        InPrimary::Nothing => return Ok(Present::Nothing),
        InPrimary::Job => {
            // Or a file; but a symlink may lead to a place where a user has put the job.
            return match obstacle::of(env.view.primary(), job) {
                Some(obstacle) if !obstacle.is_link => {
                    Err(JobError::new(job, Cause::Obstacle(obstacle)))
                }
                _ => Ok(Present::Job),
            };
        }
        InPrimary::Purged => {
            let left = Skeleton::open(env, job)?;
            if left.is_none() {
                env.view.forget_finding(job);
            }
            return Ok(left.map_or(Present::Job, Present::Skeleton));
        }
        InPrimary::Link => {}
    }
    let Some(task) = places::task(primary, job).tried(job, "open", &at)? else {
        return Ok(Present::Nothing);
    };
    let itself = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let link = rustix::fs::openat(&*task, job.hash(), itself, Mode::empty());
    let link = at::absent(link).tried(job, "open", &at)?;
    Ok(link.map_or(Present::Nothing, Present::Link))
}

/// A folder that has a job.
#[derive(Clone, Copy)]
pub(super) struct FolderCopy<'a> {
    pub(super) folder: &'a Location,
    /// Whether the copy has its marker of success.
    pub(super) finished: bool,
    /// Whether it has a manifest to compare with.
    manifest: bool,
}

/// The folders before the chosen one in the settings, and why each was skipped.
fn passed_over(candidates: &[FolderCopy<'_>], chosen: FolderCopy<'_>) -> Vec<(u8, &'static str)> {
    let earlier = |found: &&FolderCopy<'_>| found.folder.index() < chosen.folder.index();
    let why = |found: &FolderCopy<'_>| {
        let why = match (
            chosen.finished && !found.finished,
            chosen.manifest && !found.manifest,
        ) {
            (true, _) => "its copy is not finished",
            (false, true) => "its copy has no manifest",
            (false, false) => "its copy could not be used",
        };
        (found.folder.index(), why)
    };
    let mut passed: Vec<_> = candidates.iter().filter(earlier).map(why).collect();
    passed.sort_unstable();
    passed
}

/// The folders that have a job; those with a finished copy come first.
pub(super) fn candidates<'a>(
    env: &Env<'a>,
    job: &JobId,
    from: Option<u8>,
) -> Result<Vec<FolderCopy<'a>>> {
    let folders = env.view.folders().iter().map(AsRef::as_ref);
    let folders: Vec<&Location> = folders
        .filter(|folder| from.is_none_or(|from| from == folder.index()))
        .collect();
    let mut found = Vec::new();
    let mut asked = Vec::new();
    let mut unread = false;
    for folder in folders {
        let at = places::path(folder, job);
        if folder.has_deleted(job.task_id(), job.hash()) {
            asked.push(format!("deleted in {}", folder.path().display()));
            continue;
        }
        match places::job(folder, job) {
            Ok(Some(directory)) => {
                let finished = markers::is_done(&directory, job.name()).unwrap_or(false);
                let manifest = matches!(manifests::read(folder, job), Ok(Some(_)));
                found.push(FolderCopy {
                    folder,
                    finished,
                    manifest,
                });
            }
            Ok(None) => asked.push(format!("not in {}", at.display())),
            Err(errno) => {
                let why = explain(errno);
                unread = true;
                asked.push(format!("{} cannot be looked at ({why})", at.display()));
            }
        }
    }
    if found.is_empty() {
        let why = match asked.is_empty() {
            true => "it is not in the primary, and the workspace has no folders".to_owned(),
            false if unread => format!(
                "no folder that can be read now has it: {}",
                asked.join(", ")
            ),
            false => format!("no folder has it: {}", asked.join(", ")),
        };
        return Err(JobError::new(job, Cause::Absent(why)));
    }
    // A stable sort: equal copies stay in the order of the settings.
    found.sort_by_key(|found| (!found.finished, !found.manifest));
    Ok(found)
}

/// Copies from the first folder with an intact copy.
fn copy_first<'a>(
    env: &Env<'_>,
    job: &JobId,
    candidates: &[FolderCopy<'a>],
    staging: &mut Staging,
) -> Result<(FolderCopy<'a>, Copied)> {
    let mut problem = None;
    for found in candidates {
        match copy(env, job, found.folder, staging) {
            Ok(copied) => return Ok((*found, copied)),
            Err(error) if candidates.len() == 1 || error.is_cancelled() => return Err(error),
            Err(error) => {
                tracing::warn!("{error}; trying the next copy");
                problem.get_or_insert(error);
            }
        }
    }
    Err(problem.unwrap_or_else(|| JobError::new(job, Cause::Absent("no folder has it".to_owned()))))
}

fn copy(env: &Env<'_>, job: &JobId, folder: &Location, staging: &mut Staging) -> Result<Copied> {
    let primary = env.view.primary();
    let (at, to) = (places::path(folder, job), places::path(primary, job));
    let gone = || JobError::new(job, Cause::Changed(format!("{} is gone", at.display())));
    let source = places::job(folder, job)
        .tried(job, "open", &at)?
        .filter(|_| !folder.has_deleted(job.task_id(), job.hash()))
        .ok_or_else(gone)?;
    let done = markers::done(job.name());
    let select = |candidate: &Candidate<'_>| select::is_copied(job, candidate);
    let options = Options {
        last: Some(&done),
        ..env.options(&select)
    };
    let _claim = preconditions::claim_space(env, primary, job, None, || {
        let measured = transfer::measure(&source, &options).copying(job, &at)?;
        Ok(measured.taken)
    })?;
    let manifest = manifests::read(folder, job).unwrap_or_else(|error| {
        tracing::warn!("cannot use the manifest of {}: {error}", at.display());
        None
    });
    let originals = manifest
        .as_ref()
        .map_or_else(Originals::default, Originals::of);
    let options = Options {
        originals: Some(&originals),
        ..options
    };
    let staged = staging.make().beside(job, &to)?;
    // StagingContext the symlink of a moved job, what a crash leaves of the copy would look like the directory that was moved, written to since.
    if let Err(error) = staging.announce() {
        tracing::debug!("{job}: {error}");
    }
    let copied = transfer::copy(&source, &staged, &options).copying_between(job, &at, &to)?;
    for loss in &copied.losses {
        tracing::warn!("{job}: {loss}");
    }
    if let Some(manifest) = &manifest {
        match check(job, &at, (manifest, FORCE), &copied) {
            Err(error) if env.force => tracing::warn!("{error}"),
            checked => checked?,
        }
    }
    params::rebase(job, &staged, &to, env.view.primary_path())?;
    partials::rebase_links(&source, &staged, env.view.primary_path()).tried(
        job,
        "rewrite the symlinks to partials of",
        &to,
    )?;
    internal_files::link_into(env.view, job, &staged).tried(
        job,
        "link internal files into",
        &to,
    )?;
    Ok(copied)
}

/// Checks that the copied files match the manifest; `remedy` is what can be done if they do not.
pub(super) fn check(
    job: &JobId,
    at: &Path,
    (manifest, remedy): (&transfer::Manifest, &str),
    copied: &Copied,
) -> Result<()> {
    let differences = manifest.differences(&copied.manifest);
    let mut content = differences.into_iter().filter(select::is_of_content);
    let Some(first) = content.next() else {
        return Ok(());
    };
    let damaged = Damage {
        at: at.to_owned(),
        first,
        more: content.count(),
    };
    let why = format!("the copy is not what its manifest says ({remedy}): {damaged}");
    Err(JobError::new(job, Cause::Unsafe(why)))
}
