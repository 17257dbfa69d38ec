//! Decides whether a job may be released: by its own state, by the manifest of its archived copy, and by that copy's bytes.

use std::collections::HashSet;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Instant;

use rustix::fs::OFlags;
use rustix::io::Errno;

use super::in_use::in_use;
use super::processes::Processes;
use super::{Reason, Refusal, refuse};
use crate::archive::env::Env;
use crate::archive::error::{Cause, Context, CopyContext, JobError, Result};
use crate::archive::job::ready::WRITTEN;
use crate::archive::job::usage::{self, DiskUsage};
use crate::archive::job::verify::manifest_remedy;
use crate::archive::job::{manifests, params, preconditions, select};
use crate::archive::{pins, places, state_dir};
use crate::settings::Mode;
use crate::sys::at;
use crate::sys::file_id::FileId;
use crate::transfer::{
    self, Candidate, Copied, Difference, Kind, Manifest, Options, What, writers,
};
use crate::view::Location;
use crate::view::location::{NO_JOBS, explain, why_not};
use crate::workspace::internal::is_bookkeeping;
use crate::workspace::jobs::JobId;
use crate::workspace::layout::{JOB_STATE, PARAMS};
use crate::workspace::markers::{self, State};
use crate::workspace::partials;

/// A job that may be released if its archived copy is intact, which [`ReleasePlan::verify`] checks.
#[derive(Debug)]
pub struct ReleasePlan {
    pub(super) job: JobId,
    pub(super) source: OwnedFd,
    /// The state of the job when it was compared with the manifest.
    looked: Copied,
    pub(super) folder: u8,
    archived: OwnedFd,
    manifest: Manifest,
    /// How the job uses the primary's disk.
    pub usage: DiskUsage,
}

/// Checks whether a job may be released, without reading the archived copy.
///
/// # Errors
///
/// Fails if the job cannot be looked at, or if it is unknown whether it is pinned.
pub fn assess(
    env: &Env<'_>,
    processes: &mut Processes,
    job: &JobId,
) -> Result<std::result::Result<ReleasePlan, Refusal>> {
    let primary = env.view.primary();
    let from = places::path(primary, job);
    let Some(source) = places::job(primary, job).tried(job, "open", &from)? else {
        return refuse(Reason::Absent, "the primary lacks it");
    };
    match pins::is_pinned(primary, job) {
        Ok(false) => {}
        Ok(true) => return refuse(Reason::Pinned, "it is pinned"),
        Err(error) => {
            let why = pins::explain(primary, job, error);
            return Err(JobError::new(job, Cause::Unsafe(why)));
        }
    }
    let found = markers::read(&source, job.name()).tried(job, "look into", &from)?;
    match found.state() {
        State::Done => {}
        State::Failed => return refuse(Reason::Failed, "it has failed"),
        State::Unfinished => return refuse(Reason::Unfinished, "it has not finished"),
    }
    if let Some(why) = in_use(env, job, &source, false)? {
        return refuse(Reason::Busy, why);
    }
    let looked = observe(env, job, &source, &from)?;
    let mut refusal = None;
    for folder in served_first(env) {
        let at = places::path(folder, job);
        let archived = match places::job(folder, job) {
            // A copy of a deleted job is about to go to the trash.
            Ok(Some(archived)) if !folder.has_deleted(job.task_id(), job.hash()) => archived,
            Ok(_) => continue,
            Err(error) => {
                let why = format!("{} cannot be looked at: {}", at.display(), explain(error));
                refusal.get_or_insert(Refusal {
                    reason: Reason::Offline,
                    why,
                });
                continue;
            }
        };
        match agrees(env, job, folder, &archived, &source, &looked.manifest)? {
            Ok(manifest) => {
                // Before every byte of the copy is read.
                if let Some(refusal) = unremovable(&source, &looked.manifest, job, &from)? {
                    return Ok(Err(refusal));
                }
                if let Some(why) = processes.user_lately(env, job) {
                    return refuse(Reason::Busy, why);
                }
                let usage = usage::of(job, &source).tried(job, "look at", &from)?;
                return Ok(Ok(ReleasePlan {
                    job: job.clone(),
                    source,
                    looked,
                    folder: folder.index(),
                    archived,
                    manifest,
                    usage,
                }));
            }
            // A change is more important than a missing manifest in another folder.
            Err(found) if found.reason == Reason::Changed => refusal = Some(found),
            // The primary is what can mend the copy.
            Err(found) if found.reason == Reason::Damaged => return Ok(Err(found)),
            Err(found) => drop(refusal.get_or_insert(found)),
        }
    }
    Ok(Err(refusal.unwrap_or_else(|| Refusal {
        reason: Reason::NoCopy,
        why: "no `backup` or `move` folder has it".to_owned(),
    })))
}

/// The folders whose copies count as archived; `move` folders first, whose copies keep the job's path by a symlink.
pub(super) fn served_first<'a>(env: &Env<'a>) -> impl Iterator<Item = &'a Location> {
    let moves = places::folders_of_mode(env.view, Mode::Move);
    moves.chain(places::folders_of_mode(env.view, Mode::Backup))
}

/// Which folders cannot be read, if no folder that jobs are archived to can.
#[must_use]
pub fn offline(env: &Env<'_>) -> Option<String> {
    let mut reasons = Vec::new();
    for folder in served_first(env) {
        let why = match folder.root().map(|root| root.jobs()) {
            Ok(Ok(_)) => return None,
            // As the mount point of a disk that is not mounted.
            Ok(Err(Errno::NOENT)) => NO_JOBS.to_owned(),
            Ok(Err(error)) | Err(error) => why_not(error),
        };
        reasons.push(format!("{}: {why}", folder.path().display()));
    }
    Some(match reasons.is_empty() {
        true => "there is no `backup` or `move` folder".to_owned(),
        false => reasons.join(", "),
    })
}

/// Why the directories of a job cannot be removed, if so.
fn unremovable(
    source: &OwnedFd,
    manifest: &Manifest,
    job: &JobId,
    from: &Path,
) -> Result<Option<Refusal>> {
    let path = writers::unremovable(source, manifest).copying(job, from)?;
    Ok(path.map(|path| Refusal {
        reason: Reason::Unsafe,
        why: format!(
            "{} belongs to another user, and could not be removed; its owner can release it",
            from.join(path).display()
        ),
    }))
}

fn observe(env: &Env<'_>, job: &JobId, source: &OwnedFd, from: &Path) -> Result<Copied> {
    let select = |candidate: &Candidate<'_>| select::is_copied(job, candidate);
    let options = Options {
        select: Some(&select),
        threads: env.threads,
        ..Options::default()
    };
    transfer::observe(source, &options).copying(job, from)
}

/// Checks that a folder's copy is finished, and that its manifest agrees with the primary's job; returns the manifest.
fn agrees(
    env: &Env<'_>,
    job: &JobId,
    folder: &Location,
    archived: &OwnedFd,
    source: &OwnedFd,
    ours: &Manifest,
) -> Result<std::result::Result<Manifest, Refusal>> {
    let at = places::path(folder, job);
    let primary = env.view.primary();
    if let Some(task) = places::task(folder, job).tried(job, "open", &at)? {
        preconditions::expect_distinct(env, folder, job, &task)?;
    }
    let ids = [source, archived].map(|fd| at::file_id(fd).tried(job, "look at", &at));
    let [one, other] = ids;
    if one? == other? {
        let why = format!("{} is the job itself, under another name", at.display());
        return refuse(Reason::Unsafe, why);
    }
    if !markers::is_done(archived, job.name()).tried(job, "look into", &at)? {
        let why = format!("the copy {} is not finished", at.display());
        return refuse(Reason::NoCopy, why);
    }
    // A copy that is known to be damaged is not read again each time that a rule selects the job.
    if let Ok(Some(finding)) = state_dir::damage_of(primary, folder, job) {
        let why = format!(
            "the copy {} was found damaged: {finding}; `xpmfs jobs archive --force {job}` makes a new one",
            at.display()
        );
        return refuse(Reason::Damaged, why);
    }
    let read = match manifests::read(folder, job) {
        Ok(Some(manifest)) => Ok(manifest),
        Ok(None) => Err(format!("the copy {} has no manifest", at.display())),
        Err(error) => Err(format!(
            "the manifest of {} cannot be read: {error}",
            at.display()
        )),
    };
    let manifest = match read {
        Ok(manifest) => manifest,
        Err(why) => {
            let remedy = manifest_remedy(env.view, job);
            return refuse(Reason::NoCopy, format!("{why}: {remedy}"));
        }
    };
    let is_rebased = |path: &Path| match path == Path::new(PARAMS) {
        true => params::is_rebased(archived, source, env.view.primary_path()),
        false => is_rebased_link(archived, source, path),
    };
    let change = changes(&manifest, ours, is_rebased).next();
    match change {
        None => Ok(Ok(manifest)),
        Some(Difference { path, what }) => {
            let path = places::path(primary, job).join(path);
            let why = format!(
                "it differs from its copy in {}: {} {what}",
                folder.path().display(),
                path.display()
            );
            refuse(Reason::Changed, why)
        }
    }
}

/// The differences of the primary's job from the manifest of its copy that would be lost. Not counted are times of directories and
/// symlinks, which locks and listings change, bookkeeping, and a `params.json` of another size and symlinks to partials that `is_rebased` accepts.
pub(super) fn changes(
    manifest: &Manifest,
    ours: &Manifest,
    is_rebased: impl Fn(&Path) -> bool,
) -> impl Iterator<Item = Difference> {
    let mut others: Option<HashSet<PathBuf>> = None;
    let mut is_file = move |path: &Path| {
        let others = others.get_or_insert_with(|| {
            let entries = manifest.entries().iter().enumerate();
            let others = entries.filter(|(_, entry)| !matches!(entry.kind, Kind::File { .. }));
            others.map(|(index, _)| manifest.path(index)).collect()
        });
        !others.contains(path)
    };
    let differences = manifest.differences(ours).into_iter();
    differences.filter(move |Difference { path, what }| match what {
        // Nothing of the job was read: a file of another content has another time or size.
        What::Content | What::Links | What::Fifo => false,
        _ if is_bookkeeping_path(path) || select::is_opt_out_path(path) => false,
        What::Mtime => is_file(path),
        What::Size { .. } | What::Target => !is_rebased(path),
        _ => true,
    })
}

/// Whether the two jobs have a symlink to the same partial here, each of its own workspace.
fn is_rebased_link(archived: &OwnedFd, source: &OwnedFd, path: &Path) -> bool {
    let target = |job: &OwnedFd| {
        let directory = at::open_below(job, path.parent()?, OFlags::PATH | OFlags::DIRECTORY);
        let target = at::read_link(directory.ok()?, path.file_name()?);
        Some(PathBuf::from(target.ok()?))
    };
    path.parent().is_some_and(partials::has_links)
        && target(archived)
            .zip(target(source))
            .is_some_and(|(one, other)| partials::is_same_in_another_workspace(&one, &other))
}

fn is_bookkeeping_path(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default();
    path.parent() == Some(Path::new(JOB_STATE)) && is_bookkeeping(name.as_encoded_bytes())
}

impl ReleasePlan {
    /// The number of the folder whose copy will serve the job.
    #[must_use]
    pub fn folder(&self) -> u8 {
        self.folder
    }

    /// The amount that the verification reads.
    #[must_use]
    pub fn to_read(&self) -> transfer::Size {
        transfer::Size {
            files: self.manifest.files(),
            bytes: self.manifest.bytes(),
        }
    }

    /// Reads every byte of the archived copy from its disk, and compares it with its manifest. Records for `status` what is wrong with it.
    ///
    /// # Errors
    ///
    /// Fails if the copy cannot be read, or the verification was cancelled.
    pub fn verify(&self, env: &Env<'_>) -> Result<Option<Refusal>> {
        let job = &self.job;
        let Some(folder) = places::folder(env.view, self.folder) else {
            return Err(JobError::new(
                job,
                Cause::Absent("its folder is gone".to_owned()),
            ));
        };
        let at = places::path(folder, job);
        let select = |candidate: &Candidate<'_>| select::is_copied(job, candidate);
        let options = env.options(&select);
        let found = transfer::verify(&self.archived, &self.manifest, &options).copying(job, &at)?;
        let Some(first) = found.iter().find(|found| select::is_of_content(found)) else {
            return Ok(None);
        };
        let why = format!("{} {}", at.join(&first.path).display(), first.what);
        if !matches!(first.what, What::Unreadable(_)) {
            let finding = format!(
                "the copy is damaged: {} {}",
                first.path.display(),
                first.what
            );
            // Only `status` would lack it.
            let _ = state_dir::set_damaged(env.view.primary(), folder, job, Some(&finding));
        }
        Ok(Some(Refusal {
            reason: Reason::Damaged,
            why: format!(
                "its archived copy is damaged: {why}; `xpmfs jobs archive --force {job}` makes a new one"
            ),
        }))
    }
}

impl ReleasePlan {
    /// Why the job may not be released after all, if so: it is used or changed since it was compared, or its copy is gone.
    pub(super) fn look_again(
        &self,
        env: &Env<'_>,
        processes: &mut Processes,
        task: &OwnedFd,
    ) -> Result<Option<Refusal>> {
        let job = &self.job;
        let from = places::path(env.view.primary(), job);
        let changed = |why: &str| {
            Some(Refusal {
                reason: Reason::Changed,
                why: why.to_owned(),
            })
        };
        let there = at::absent(at::stat(task, job.hash())).tried(job, "look at", &from)?;
        let source = at::file_id(&self.source).tried(job, "look at", &from)?;
        if there.is_none_or(|there| FileId::of(&there) != source) {
            return Ok(changed("another directory is in its place"));
        }
        if !matches!(pins::is_pinned(env.view.primary(), job), Ok(false)) {
            return Ok(Some(Refusal {
                reason: Reason::Pinned,
                why: "it is pinned".to_owned(),
            }));
        }
        match unremovable(&self.source, &self.looked.manifest, job, &from)? {
            None => self.use_or_change(env, processes, None),
            refusal => Ok(refusal),
        }
    }

    /// Why the job may not be released: a process uses it, it was changed since it was compared, or its copy is gone. `unused_since`: for a
    /// renamed job, when no process could find it any more.
    pub(super) fn use_or_change(
        &self,
        env: &Env<'_>,
        processes: &mut Processes,
        unused_since: Option<Instant>,
    ) -> Result<Option<Refusal>> {
        let job = &self.job;
        let from = places::path(env.view.primary(), job);
        let busy = |why: String| {
            Some(Refusal {
                reason: Reason::Busy,
                why,
            })
        };
        let used = in_use(env, job, &self.source, unused_since.is_some())?;
        let used = used.or_else(|| match unused_since {
            Some(since) => processes.user_since(env, job, since),
            None => processes.user_lately(env, job),
        });
        if let Some(why) = used {
            return Ok(busy(why));
        }
        // In this order: a process that closes a file between the two checks has changed the job, which the second detects.
        let written =
            writers::being_written(&self.source, &self.looked.manifest).copying(job, &from)?;
        if written.is_some() {
            return Ok(busy(WRITTEN.to_owned()));
        }
        let select = |candidate: &Candidate<'_>| select::is_copied(job, candidate);
        let unchanged = match unused_since.is_some() {
            true => self
                .looked
                .unchanged_but_renamed(&self.source, Some(&select)),
            false => self.looked.unchanged(&self.source, Some(&select)),
        };
        match unchanged {
            Ok(()) => {}
            Err(transfer::Error::Changed { path, how }) => {
                let why = format!("{} was changed meanwhile: {how}", from.join(path).display());
                return Ok(Some(Refusal {
                    reason: Reason::Changed,
                    why,
                }));
            }
            error => error.copying(job, &from)?,
        }
        if !self.stands(env) {
            let why = "its archived copy is not at its place any more".to_owned();
            return Ok(Some(Refusal {
                reason: Reason::NoCopy,
                why,
            }));
        }
        Ok(None)
    }

    /// Whether the path of the copy leads to what was verified. A folder's disk may have been unmounted since, while its open directory
    /// still works.
    fn stands(&self, env: &Env<'_>) -> bool {
        let Some(folder) = places::folder(env.view, self.folder) else {
            return false;
        };
        let path = places::path(folder, &self.job);
        let there = at::stat_path(&path).map(|stat| FileId::of(&stat));
        there.is_ok_and(|there| at::file_id(&self.archived) == Ok(there))
            && markers::is_done(&self.archived, self.job.name()).unwrap_or(false)
    }
}
