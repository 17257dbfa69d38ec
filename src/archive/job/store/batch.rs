//! Defines a folder that jobs are copied to, and a batch of jobs that become durable together.

use std::collections::HashSet;
use std::ffi::OsString;
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};

use parking_lot::Mutex;
use rustix::io::Errno;

use super::outcome::Stored;
use crate::archive::env::Env;
use crate::archive::error::{Cause, Context, JobError, Result};
use crate::archive::job::{manifests, select};
use crate::archive::{obstacle, state_dir};
use crate::transfer::staging::Staging;
use crate::transfer::{Candidate, Copied, Durability, Manifest, Options, Writeback};
use crate::view::{Location, Root};
use crate::workspace::jobs::JobId;
use crate::workspace::markers;

/// Replaces the primary's directory of a job once its copy in a `move` folder is durable.
///
/// Called with the folder, the job, what was read of it, and its directory.
pub type Relocate<'a> = dyn Fn(&Location, &JobId, Copied, OwnedFd) -> Result<()> + Sync + 'a;

/// A folder that jobs are copied to.
pub(super) struct Store<'a> {
    pub(super) env: &'a Env<'a>,
    pub(super) folder: &'a Location,
    /// Where jobs are copied from: the primary, or the folder that a job was moved to.
    pub(super) source: &'a Location,
    /// Set for a `move` folder.
    pub(super) relocate: Option<&'a Relocate<'a>>,
    /// The tasks whose unfinished copies were removed.
    pub(super) swept: Mutex<HashSet<OsString>>,
    /// Whether the primary has a record that jobs were archived in the folder.
    pub(super) known: AtomicBool,
}

/// Jobs that become durable together.
pub(super) struct StoreBatch<'a> {
    store: &'a Store<'a>,
    /// The folder's directory when the batch began.
    pub(super) root: Arc<Root>,
    /// The batch's own: the kernel reports an error once to each watcher, and each batch discards only its own copies.
    pub(super) writeback: Writeback,
    /// Bytes that were staged.
    pub(super) bytes: AtomicU64,
}

/// The result of staging a job.
pub(super) enum Staged {
    /// There is nothing left to do.
    Done(Stored),
    /// The copy is complete, and gets its place next.
    Copy(Box<StagedCopy>),
}

/// A job that was read, with the lock on its name in the folder.
pub(super) struct StagedCopy {
    /// The manifest beside its place. Declared before `staging`, whose lock must be held while this is dropped.
    pub(super) manifest: Option<StagedManifest>,
    pub(super) staging: Staging,
    /// What was read of the source.
    pub(super) copied: Copied,
    /// The directory of the source.
    pub(super) source: OwnedFd,
    pub(super) existing: Existing,
}

impl StagedCopy {
    /// Whether the folder already had an identical copy.
    pub(super) fn is_there(&self) -> bool {
        matches!(self.existing, Existing::Same(_))
    }
}

/// The folder's existing copy of a job.
#[derive(Debug)]
pub(super) enum Existing {
    Nothing,
    /// An older copy, with its directory.
    Older(OwnedFd),
    /// An identical copy.
    Same(ComparedState),
}

/// The state of the source that was compared with its copy.
#[derive(Debug)]
pub(super) struct ComparedState(pub(super) Manifest);

/// The manifest of a staged copy, durable when the copy is. Dropping it removes the manifest, unless it was placed.
pub(super) struct StagedManifest {
    folder: Arc<Root>,
    job: JobId,
    pub(super) placed: bool,
}

impl Drop for StagedManifest {
    fn drop(&mut self) {
        if !self.placed {
            manifests::discard(&self.folder, self.job.task_id(), self.job.hash());
        }
    }
}

impl<'a> Store<'a> {
    pub(super) fn new(
        env: &'a Env<'a>,
        folder: &'a Location,
        source: &'a Location,
        relocate: Option<&'a Relocate<'a>>,
    ) -> Store<'a> {
        Store {
            env,
            folder,
            source,
            relocate,
            swept: Mutex::default(),
            known: AtomicBool::new(false),
        }
    }

    /// Begins a batch, which watches for write errors from now on.
    pub(super) fn batch(&self) -> io::Result<StoreBatch<'_>> {
        let root = self.folder.root()?;
        Ok(StoreBatch {
            store: self,
            writeback: Writeback::watch(root.fd())?,
            root,
            bytes: AtomicU64::new(0),
        })
    }

    /// Returns the error that the folder cannot be used.
    pub(super) fn unusable(&self, job: &JobId, why: &str) -> JobError {
        let folder = self.folder.path().to_owned();
        JobError::new(
            job,
            Cause::Folder {
                folder,
                why: why.to_owned(),
            },
        )
    }

    /// Returns the error that the folder cannot be opened.
    pub(super) fn not_opened(&self, job: &JobId, error: &io::Error) -> JobError {
        let folder = self.folder.path().to_owned();
        let cause = match Errno::from_io_error(error) {
            Some(errno) => Cause::FolderIo { folder, errno },
            None => Cause::Folder {
                folder,
                why: error.to_string(),
            },
        };
        JobError::new(job, cause)
    }

    /// Whether copied jobs are then moved.
    pub(super) fn moves(&self) -> bool {
        self.relocate.is_some()
    }

    /// Whether a job was recovered on request, and stays in the primary.
    pub(super) fn is_kept(&self, job: &JobId) -> Result<bool> {
        let primary = self.env.view.primary();
        let kept = state_dir::is_kept(primary, job);
        let kept = state_dir::checked(primary, job, "look up", kept)?;
        Ok(kept && !self.env.force)
    }
}

impl<'a> std::ops::Deref for StoreBatch<'a> {
    type Target = Store<'a>;

    fn deref(&self) -> &Store<'a> {
        self.store
    }
}

impl StoreBatch<'_> {
    /// Calls a function with the options for reading or copying a job.
    pub(super) fn with_options<T>(&self, job: &JobId, call: impl FnOnce(&Options<'_>) -> T) -> T {
        let done = markers::done(job.name());
        let select = |candidate: &Candidate<'_>| select::is_copied(job, candidate);
        call(&Options {
            last: Some(&done),
            durability: Durability::Together(&self.writeback),
            ..self.env.options(&select)
        })
    }

    /// Writes the manifest of a job's copy beside its place; [`manifests::place`] renames it.
    pub(super) fn stage_manifest(
        &self,
        job: &JobId,
        manifest: &Manifest,
    ) -> Result<StagedManifest> {
        let staged = manifests::stage(&self.root, job, manifest, !self.writeback.is_whole());
        self.explain_manifest_error(job, staged.map(drop))?;
        Ok(StagedManifest {
            folder: self.root.clone(),
            job: job.clone(),
            placed: false,
        })
    }

    /// Writes the manifest of a copy that has its place.
    pub(super) fn write_manifest(&self, job: &JobId, manifest: &Manifest) -> Result<()> {
        self.explain_manifest_error(job, manifests::write(&self.root, job, manifest))
    }

    /// Replaces `ENOTDIR` by an error that names the obstacle.
    fn explain_manifest_error(&self, job: &JobId, written: io::Result<()>) -> Result<()> {
        let obstacle = written.as_ref().err().and_then(|error| {
            let not_a_directory = error.kind() == ErrorKind::NotADirectory;
            not_a_directory.then(|| obstacle::of_manifest(self.folder, &self.root, job))?
        });
        if let Some(obstacle) = obstacle {
            return Err(JobError::new(job, Cause::Obstacle(obstacle)));
        }
        written.tried(job, "write", &manifests::path(self.folder, job))
    }
}
