//! Jobs are copied to a folder: each appears there whole or not at all, and is durable before it does.
//!
//! The steps are those of experimaestro's `folders.py`, with its names and its locks; but several jobs go together (see
//! [`groups`](super::groups)), so that one `syncfs` makes all of them durable.
//!
//! - `outcome`: which jobs are to be stored, and what becomes of each
//! - `standing`: how a job is to the copy that the folder has
//! - `fit`: whether the folder can take it

mod fit;
mod outcome;
mod standing;

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;

pub use self::outcome::{Due, Left, Stored};
use self::standing::Compared;
use super::compare::Comparison;
use super::error::{Beside, Cause, Context, Error, InPlace, Result};
use super::groups::{self, in_parallel, in_parallel_while};
use super::ready::{LOCKED, WRITTEN, expect_unwritten, is_locked};
use super::{Env, Writing, apart, backups, manifests, obstacle, places, select, state_dir, swap};
use crate::settings;
use crate::transfer::staging::{Staging, sweep_with};
use crate::transfer::{
    self, Candidate, Copied, Difference, Durability, Options, Originals, Writeback, writers,
};
use crate::view::location::Role;
use crate::view::{Location, Root};
use crate::workspace::jobs::JobId;
use crate::workspace::markers;

/// A job that has been read, and the right to its name in the folder.
pub(super) struct Staged {
    /// The manifest, beside its place. Before `staging`, whose lock is held while this is dropped.
    manifest: Option<StagedManifest>,
    pub(super) staging: Staging,
    /// What was read of the primary's job.
    pub(super) copied: Copied,
    /// The primary's job.
    pub(super) source: OwnedFd,
    found: Found,
}

/// The manifest of a copy, which is durable when the copy is. If it does not get its place, it is removed.
struct StagedManifest {
    folder: Arc<Root>,
    job: JobId,
    placed: bool,
}

impl Drop for StagedManifest {
    fn drop(&mut self) {
        if !self.placed {
            manifests::discard(&self.folder, self.job.task_id(), self.job.hash());
        }
    }
}

/// What the folder had of a job.
#[derive(Debug)]
enum Found {
    Nothing,
    /// An older copy: its directory.
    Older(OwnedFd),
    /// The same.
    Same(Compared),
}

impl Staged {
    /// Whether the folder had the same before.
    fn is_there(&self) -> bool {
        matches!(self.found, Found::Same(_))
    }
}

pub(super) enum Step {
    Done(Stored),
    Staged(Box<Staged>),
}

/// A folder that jobs are copied to.
pub(super) struct Store<'a> {
    env: &'a Env<'a>,
    folder: &'a Location,
    /// Where jobs are copied from: the primary, or the folder that a job was moved to.
    source: &'a Location,
    moves: bool,
    /// The tasks whose leftovers have been removed.
    swept: Mutex<std::collections::HashSet<std::ffi::OsString>>,
    /// Whether the primary remembers that jobs were archived there.
    known: AtomicBool,
}

/// Jobs that go together.
pub(super) struct Group<'a> {
    store: &'a Store<'a>,
    /// The folder's directory, as it was when the group began.
    root: Arc<Root>,
    /// Its own: an error is told once to each who watches, and whoever is told gives up what it has written, and no more.
    writeback: Writeback,
    staged: AtomicU64,
}

/// Copies jobs of the primary to one folder, those that it does not have yet, or in an older state; from a `move` folder's
/// on, the primary has a symlink to each. Gives what became of each, in their order. That they are ready is for the caller
/// to see to.
///
/// # Errors
///
/// For each job its own; none leaves anything half done.
pub fn store(env: &Env<'_>, folder: u8, jobs: &[Due]) -> Vec<Result<Stored>> {
    let unusable = |why: String, path: &Path| {
        let error = |due: &Due| {
            let folder = path.to_owned();
            Err(Error::new(
                &due.job,
                Cause::Folder {
                    folder,
                    why: why.clone(),
                },
            ))
        };
        jobs.iter().map(error).collect()
    };
    let Some(location) = places::folder(env.view, folder) else {
        return unusable("there is no such folder".to_owned(), Path::new(""));
    };
    let moves = match location.role() {
        Role::Folder(settings::Mode::Backup) => false,
        Role::Folder(settings::Mode::Move) => true,
        _ => return unusable("nothing is archived there".to_owned(), location.path()),
    };
    let store = Store {
        env,
        folder: location,
        source: env.view.primary(),
        moves,
        swept: Mutex::default(),
        known: AtomicBool::new(false),
    };
    groups::store(
        jobs,
        || store.group(),
        |error, jobs| {
            let error = error.to_string();
            let each = jobs.iter();
            each.map(|due| Err(store.unusable(&due.job, &error)))
                .collect()
        },
    )
}

/// Copies a job that was moved to the folder `source` from there to a `backup` folder.
///
/// # Errors
///
/// As [`store`]; or the copy in `source` has no manifest, or is not what its manifest says.
pub(super) fn store_from(
    env: &Env<'_>,
    source: &Location,
    folder: u8,
    job: &JobId,
) -> Result<Stored> {
    let no_backup = || Error::new(job, Cause::Absent("there is no such folder".to_owned()));
    let folder = places::folder(env.view, folder).ok_or_else(no_backup)?;
    let store = Store {
        env,
        folder,
        source,
        moves: false,
        swept: Mutex::default(),
        known: AtomicBool::new(false),
    };
    let group = store
        .group()
        .map_err(|error| store.unusable(job, &error.to_string()))?;
    let due = [Due::from(job.clone())];
    let staged = group.stage_all(&due, u64::MAX);
    let mut stored = group.complete(&due, staged);
    stored
        .pop()
        .unwrap_or_else(|| Err(Error::new(job, Cause::Cancelled)))
}

impl Store<'_> {
    /// Begins a group: what is written from now on is its affair.
    fn group(&self) -> std::io::Result<Group<'_>> {
        let root = self.folder.root()?;
        Ok(Group {
            store: self,
            writeback: Writeback::watch(root.fd())?,
            root,
            staged: AtomicU64::new(0),
        })
    }

    fn unusable(&self, job: &JobId, why: &str) -> Error {
        let folder = self.folder.path().to_owned();
        Error::new(
            job,
            Cause::Folder {
                folder,
                why: why.to_owned(),
            },
        )
    }
}

impl<'a> std::ops::Deref for Group<'a> {
    type Target = Store<'a>;

    fn deref(&self) -> &Store<'a> {
        self.store
    }
}

impl Group<'_> {
    /// Copies jobs to staging, those at the beginning of `jobs`: no more than `limit` bytes, and what the last of them
    /// has beyond that. One at least.
    pub(super) fn stage_all(&self, jobs: &[Due], limit: u64) -> Vec<Result<Step>> {
        let threads = self.env.threads.min(jobs.len());
        let room = || self.staged.load(Ordering::Relaxed) < limit;
        in_parallel_while(threads, jobs, room, |due| self.stage(due))
    }

    /// Makes what was staged durable, and gives it its place; what became of each job, in their order.
    pub(super) fn complete(&self, jobs: &[Due], staged: Vec<Result<Step>>) -> Vec<Result<Stored>> {
        let threads = self.env.threads.min(jobs.len());
        let synced = self.sync(&staged);
        let staged: Vec<_> = jobs
            .iter()
            .zip(staged.into_iter().map(|step| Mutex::new(Some(step))))
            .collect();
        let placed = in_parallel(threads, &staged, |(Due { job, .. }, step)| {
            let step = step.lock().take();
            let step = step.unwrap_or_else(|| Err(Error::new(job, Cause::Cancelled)))?;
            match step {
                Step::Done(stored) => Ok(Step::Done(stored)),
                Step::Staged(staged) => {
                    if let Some(why) = &synced {
                        return Err(self.unusable(job, why));
                    }
                    self.place(job, *staged)
                }
            }
        });
        // The names, and the manifests; nothing of the primary's goes before these stand.
        let synced = self.sync(&placed);
        let placed = jobs.iter().zip(placed);
        placed
            .map(|(Due { job, .. }, step)| match (step?, &synced) {
                (Step::Done(stored), _) => Ok(stored),
                (Step::Staged(_), Some(why)) => Err(self.unusable(job, why)),
                (Step::Staged(staged), None) => self.finish(job, *staged),
            })
            .collect()
    }

    /// Makes all that was written durable, if anything was; gives why that failed.
    fn sync(&self, steps: &[Result<Step>]) -> Option<String> {
        let written = steps
            .iter()
            .any(|step| matches!(step, Ok(Step::Staged(staged)) if !staged.is_there()));
        let error = written.then(|| self.writeback.sync().err()).flatten()?;
        Some(format!("cannot make what was copied durable: {error}"))
    }

    /// Copies a job to staging, unless the folder has it; then it is not waited for.
    fn stage(&self, due: &Due) -> Result<Step> {
        let step = self.stage_if_due(due);
        if let (false, Some(size)) = (matches!(step, Ok(Step::Staged(_))), due.size) {
            self.env.progress.forgo(size);
        }
        step
    }

    fn stage_if_due(&self, due: &Due) -> Result<Step> {
        let Due { job, .. } = due;
        let progress = self.env.progress;
        if progress.is_cancelled() {
            return Err(Error::new(job, Cause::Cancelled));
        }
        let from = places::path(self.source, job);
        let Some(source) = places::job(self.source, job).tried(job, "open", &from)? else {
            return Ok(Step::Done(Stored::Left(Left::Gone)));
        };
        if !markers::is_done(&source, job.name()).tried(job, "look into", &from)? {
            return Ok(Step::Done(Stored::Left(Left::Unfinished)));
        }
        if self.moves {
            // Asked again before the job is moved; here, so that nothing is copied in vain.
            expect_unwritten(self.env, job)?;
            backups::expect(self.env, job, &source, None)?;
        }
        let at = places::path(self.folder, job);
        self.expect_disk(job)?;
        let task = obstacle::make_task(self.folder, job, self.source)?;
        self.expect_apart(job, &task)?;
        self.sweep(job, &task);
        let taken = Staging::take(&*task, job.hash()).beside(job, &at);
        if let Err(error) = &taken
            && error.is_denied_writing()
            && self.is_up_to_date(job, &source, &task)
        {
            return Ok(Step::Done(Stored::Already));
        }
        let Some(mut staging) = taken? else {
            return Err(Error::new(
                job,
                Cause::Busy("another process copies it to the same folder".into()),
            ));
        };
        let found = match obstacle::open(self.folder, &task, job)? {
            None => Found::Nothing,
            Some(archived) if apart::is_one(&source, &archived).tried(job, "look at", &at)? => {
                return Err(
                    self.unusable(job, "the workspace's own job is there under another name")
                );
            }
            Some(archived) => {
                let (comparison, compared) = self.compare(job, &source, &archived)?;
                match comparison {
                    // Whoever insists gets a new copy: of what has been damaged, nothing else tells.
                    Comparison::Same if self.env.force => Found::Older(archived),
                    // What is given up is not to be the only one that has them.
                    Comparison::Same
                        if self.moves && self.lacks_attributes(job, &source, &archived)? =>
                    {
                        Found::Older(archived)
                    }
                    Comparison::Same => Found::Same(compared),
                    Comparison::Newer => Found::Older(archived),
                    _ if self.env.force => Found::Older(archived),
                    Comparison::Older => return Ok(Step::Done(Stored::Left(Left::Older))),
                    Comparison::Mixed { example } => {
                        return Err(Error::new(
                            job,
                            Cause::Unsafe(format!(
                                "something in it is newer than its copy in {}, which has {} that the primary lacks or has in an older state: \
                         `xpmfs jobs archive --force` puts the primary's in place of it",
                                self.folder.path().display(),
                                example.display(),
                            )),
                        ));
                    }
                }
            }
        };
        let copied = match &found {
            Found::Same(_) if !self.moves => return Ok(Step::Done(Stored::Already)),
            Found::Same(_) if self.is_kept(job)? => {
                return Ok(Step::Done(Stored::Left(Left::Kept)));
            }
            // Read, so that it is known what is given up; but not with each try while a process writes to it.
            Found::Same(compared) => {
                let written = writers::written(&source, &compared.0).copying(job, &from)?;
                if written.is_some() {
                    return Err(Error::new(job, Cause::Busy(WRITTEN.into())));
                }
                let copied = self
                    .with_options(job, |options| transfer::read(&source, options))
                    .copying(job, &from)?;
                compared.expect(job, &copied.manifest)?;
                copied
            }
            Found::Nothing | Found::Older(_) => {
                self.expect_space(job, due.taken, &source, &from)?;
                let to = staging.make().beside(job, &at)?;
                self.copy(job, (&source, &from), (&to, &at))?
            }
        };
        for loss in &copied.losses {
            tracing::warn!("{job} in {}: {loss}", self.folder.path().display());
        }
        let manifest = match &found {
            Found::Same(_) => None,
            // With the copy, one `syncfs` makes it durable.
            Found::Nothing | Found::Older(_) => Some(self.stage_manifest(job, &copied.manifest)?),
        };
        let bytes = copied.manifest.bytes();
        self.staged.fetch_add(bytes, Ordering::Relaxed);
        Ok(Step::Staged(Box::new(Staged {
            manifest,
            staging,
            copied,
            source,
            found,
        })))
    }

    /// Copies a job to staging. One that was moved is compared with the manifest of the copy that it was moved to.
    fn copy(
        &self,
        job: &JobId,
        (source, from): (&OwnedFd, &Path),
        (to, at): (&OwnedFd, &Path),
    ) -> Result<Copied> {
        if self.source.role() == Role::Primary {
            let copied = self.with_options(job, |options| transfer::copy(source, to, options));
            return copied.copying_between(job, from, at);
        }
        let refused = |why: String| {
            let why = format!("{} is not copied: {why}", from.display());
            Error::new(job, Cause::Unsafe(why))
        };
        let manifest =
            manifests::read(self.source, job).map_err(|error| refused(error.to_string()))?;
        let Some(manifest) = manifest else {
            let why = "it has no manifest, so that nothing says whether it is whole";
            return Err(refused(why.to_owned()));
        };
        let originals = Originals::of(&manifest);
        let copied = self.with_options(job, |options| {
            let options = Options {
                originals: Some(&originals),
                ..*options
            };
            transfer::copy(source, to, &options)
        });
        let copied = copied.copying_between(job, from, at)?;
        let differences = manifest.differences(&copied.manifest);
        match differences.iter().find(|it| select::is_of_content(it)) {
            Some(Difference { path, what }) => {
                let path = path.display();
                Err(refused(format!("it is damaged: {path} {what}")))
            }
            None => Ok(copied),
        }
    }

    /// Whether the folder, which cannot be written to, has a job as it is.
    fn is_up_to_date(&self, job: &JobId, source: &OwnedFd, task: &OwnedFd) -> bool {
        if self.moves || self.env.force {
            return false;
        }
        match places::open(task, job.hash()) {
            Ok(Some(archived)) => self.has_same(job, source, &archived).unwrap_or(false),
            _ => false,
        }
    }

    fn with_options<T>(&self, job: &JobId, call: impl FnOnce(&Options<'_>) -> T) -> T {
        let done = markers::done(job.name());
        let select = |candidate: &Candidate<'_>| select::is_copied(job, candidate);
        call(&Options {
            select: Some(&select),
            last: Some(&done),
            progress: Some(self.env.progress),
            bandwidth: self.env.bandwidth,
            durability: Durability::Together(&self.writeback),
            originals: None,
            threads: self.env.threads,
        })
    }

    /// Removes what the dead have left, once for each task.
    fn sweep(&self, job: &JobId, task: &Arc<OwnedFd>) {
        if !self.swept.lock().insert(job.task_id().to_owned()) {
            return;
        }
        let manifest = &mut |hash: &OsStr| manifests::discard(&self.root, job.task_id(), hash);
        match sweep_with(&**task, &|_| false, manifest) {
            Ok(0) => {}
            Ok(count) => tracing::info!(
                "removed {count} copies of {} in {} that were never completed",
                job.task_id().display(),
                self.folder.path().display()
            ),
            Err(error) => tracing::warn!(
                "cannot clear {} in {}: {error}",
                job.task_id().display(),
                self.folder.path().display()
            ),
        }
    }

    fn is_kept(&self, job: &JobId) -> Result<bool> {
        let primary = self.env.view.primary();
        let kept = state_dir::is_kept(primary, job);
        let kept = state_dir::checked(primary, job, "look up", kept)?;
        Ok(kept && !self.env.force)
    }

    /// Gives a staged copy its name, if the source is still what was copied, and writes its manifest.
    fn place(&self, job: &JobId, mut staged: Staged) -> Result<Step> {
        let at = places::path(self.folder, job);
        self.still(job, &staged)?;
        if !staged.is_there() {
            self.expect_same_folder(job)?;
            let placed = match &staged.found {
                Found::Nothing | Found::Same(_) => staged.staging.publish(),
                Found::Older(archived) => staged.staging.exchange(archived).map(|_| ()),
            };
            placed.beside(job, &at)?;
            let each = !self.writeback.is_whole();
            if each {
                staged.staging.sync().beside(job, &at)?;
            }
            let placed = manifests::place(&self.root, job, each);
            placed.tried(job, "write", &manifests::path(self.folder, job))?;
            if let Some(manifest) = &mut staged.manifest {
                manifest.placed = true;
            }
            // From now on, that it has no jobs tells that its disk is missing.
            if !self.known.load(Ordering::Relaxed)
                && state_dir::make_known(self.env.view.primary(), self.folder).is_ok()
            {
                self.known.store(true, Ordering::Relaxed);
            }
            let _ = state_dir::set_kept(self.env.view.primary(), job, false);
            let _ = state_dir::set_damaged(self.env.view.primary(), self.folder, job, None);
        }
        Ok(Step::Staged(Box::new(staged)))
    }

    /// Makes sure that the source is what was read of it, and that nobody is at it.
    fn still(&self, job: &JobId, staged: &Staged) -> Result<()> {
        let from = places::path(self.source, job);
        if self.moves {
            expect_unwritten(self.env, job)?;
        } else if self.env.hooks.writing(job) == Writing::Yes {
            return Err(Error::new(job, Cause::Busy(WRITTEN.into())));
        }
        if is_locked(&staged.source, job).tried(job, "look at the lock of", &from)? {
            return Err(Error::new(job, Cause::Busy(LOCKED.into())));
        }
        let select = |candidate: &Candidate<'_>| select::is_copied(job, candidate);
        staged
            .copied
            .unchanged(&staged.source, Some(&select))
            .copying(job, &from)
    }

    /// The copy stands: the primary's gives way, in a `move` folder's favour.
    fn finish(&self, job: &JobId, staged: Staged) -> Result<Stored> {
        let (files, bytes) = (
            staged.copied.manifest.files(),
            staged.copied.manifest.bytes(),
        );
        let stored = match staged.found {
            Found::Nothing => Stored::Copied { files, bytes },
            Found::Older(_) => Stored::Replaced { files, bytes },
            Found::Same(_) => Stored::Already,
        };
        let at = places::path(self.folder, job);
        let Staged {
            staging,
            copied,
            source,
            ..
        } = staged;
        staging.finish(None).beside(job, &at)?;
        if self.moves {
            swap::swap(self.env, self.folder, job, copied, source)?;
        }
        Ok(stored)
    }
}
