//! How the primary's job is to the copy that a folder has.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use super::batch::{Batch, Compared};
use crate::archive::error::{Cause, InPlace, JobError, Result};
use crate::archive::job::compare::{Comparison, compare, is_newer_if_renamed, marked};
use crate::archive::job::{manifests, preconditions, select};
use crate::archive::{places, state_dir};
use crate::transfer::{self, Manifest, Time, What};
use crate::view::Location;
use crate::workspace::jobs::JobId;
use crate::workspace::markers;

impl Compared {
    /// Makes sure that what has been read of the job since is that state: if it is not, the copy is not to blame.
    pub(super) fn expect(&self, job: &JobId, read: &Manifest) -> Result<()> {
        match compare(read, &self.0, &markers::done(job.name())) {
            Comparison::Same => Ok(()),
            _ => Err(JobError::new(
                job,
                Cause::Changed("it changed after it was compared with its copy".to_owned()),
            )),
        }
    }
}

impl Batch<'_> {
    /// How the primary's job is to the copy that the folder has, and the state of the job that this holds for.
    pub(super) fn compare(
        &self,
        job: &JobId,
        source: &OwnedFd,
        archived: &OwnedFd,
    ) -> Result<(Comparison, Compared)> {
        let from = places::path(self.source, job);
        let at = places::path(self.folder, job);
        let done = markers::done(job.name());
        let ours = self
            .with_options(job, |options| transfer::outline(source, options))
            .copying(job, &from)
            .map(Compared)?;
        let known = manifests::read(self.folder, job).unwrap_or_else(|error| {
            tracing::warn!(
                "the manifest of {job} in {} is of no use, and is made anew: {error}",
                self.folder.path().display()
            );
            None
        });
        let theirs = self
            .with_options(job, |options| transfer::outline(archived, options))
            .copying(job, &at)?;
        let comparison = match known {
            // The manifest is believed only of the copy that it was written for.
            Some(manifest) if holds_as_much(&manifest, &theirs) => {
                let comparison = compare(&ours.0, &manifest, &done);
                let from = (source, &*from);
                match is_renamed(&comparison, &ours, &manifest, &done) {
                    true => compare(&self.read_again(job, from, &ours)?, &manifest, &done),
                    false => comparison,
                }
            }
            known => {
                let how =
                    self.compare_contents(job, (source, &from), (archived, &at), &ours, &theirs)?;
                let rerun = is_rerun(marked(&ours.0, &done), marked(&theirs, &done));
                let written = known.and_then(|manifest| written_since(&manifest, &theirs));
                match (how, written) {
                    // What somebody has written into the copy itself is nowhere else.
                    (Comparison::Newer, Some(example)) if !rerun => Comparison::Mixed { example },
                    (how, _) => how,
                }
            }
        };
        Ok((comparison, ours))
    }

    /// Whether the folder's copy of a job has a manifest that holds for it, and for the job as it is. Writes nothing.
    pub(super) fn has_same(
        &self,
        job: &JobId,
        source: &OwnedFd,
        archived: &OwnedFd,
    ) -> Result<bool> {
        let Ok(Some(manifest)) = manifests::read(self.folder, job) else {
            return Ok(false);
        };
        let outline = |tree: &OwnedFd, location: &Location| {
            self.with_options(job, |options| transfer::outline(tree, options))
                .copying(job, &places::path(location, job))
        };
        let ours = outline(source, self.source)?;
        let done = markers::done(job.name());
        let same = compare(&ours, &manifest, &done) == Comparison::Same;
        Ok(same && holds_as_much(&manifest, &outline(archived, self.folder)?))
    }

    /// Whether the folder's copy of a job, which has the same files, lacks modes, access control lists or extended attributes of
    /// the primary's. Of one that is to stay in the primary, it is of no importance.
    pub(super) fn lacks_attributes(
        &self,
        job: &JobId,
        source: &OwnedFd,
        archived: &OwnedFd,
    ) -> Result<bool> {
        if self.is_kept(job)? {
            return Ok(false);
        }
        let from = places::path(self.env.view.primary(), job);
        let ours = self
            .with_options(job, |options| transfer::outline(source, options))
            .copying(job, &from)?;
        let unlike = transfer::first_difference(source, archived, &ours).copying(job, &from)?;
        Ok(unlike.is_some())
    }

    /// The same, where there is no manifest: somebody else has archived it. Writes one if they hold the same.
    fn compare_contents(
        &self,
        job: &JobId,
        (source, from): (&OwnedFd, &Path),
        (archived, at): (&OwnedFd, &Path),
        ours: &Compared,
        theirs: &Manifest,
    ) -> Result<Comparison> {
        let done = markers::done(job.name());
        match compare(&ours.0, theirs, &done) {
            Comparison::Same => {}
            other if is_renamed(&other, ours, theirs, &done) => {
                let theirs = self.with_options(job, |options| transfer::scan(archived, options));
                let theirs = theirs.copying(job, at)?;
                let read = self.read_again(job, (source, from), ours)?;
                return Ok(compare(&read, &theirs, &done));
            }
            other => return Ok(other),
        }
        let read = self.read_again(job, (source, from), ours)?;
        let differences = self
            .with_options(job, |options| transfer::verify(archived, &read, options))
            .copying(job, at)?;
        if differences
            .iter()
            .any(|difference| difference.what.is_content())
        {
            return Ok(Comparison::Newer);
        }
        preconditions::expect_same_folder(self.folder, &self.root, job)?;
        self.write_manifest(job, &read)?;
        // That `verify` could not read it.
        let _ = state_dir::set_damaged(self.env.view.primary(), self.folder, job, None);
        Ok(Comparison::Same)
    }

    /// Reads the primary's job, which was compared in this state.
    fn read_again(
        &self,
        job: &JobId,
        (source, from): (&OwnedFd, &Path),
        ours: &Compared,
    ) -> Result<Manifest> {
        let read = self.with_options(job, |options| transfer::read(source, options));
        let read = read.copying(job, from)?.manifest;
        ours.expect(job, &read)?;
        Ok(read)
    }
}

/// Whether a job with this marker was run again after one with that marker was archived.
fn is_rerun(ours: Option<Time>, theirs: Option<Time>) -> bool {
    match (ours, theirs) {
        (Some(ours), Some(theirs)) => ours.order(theirs).is_gt(),
        _ => ours.is_some(),
    }
}

/// Whether all that seems to be missing may have another name now: what the files hold tells.
fn is_renamed(comparison: &Comparison, ours: &Compared, theirs: &Manifest, done: &OsStr) -> bool {
    matches!(comparison, Comparison::Mixed { .. }) && is_newer_if_renamed(&ours.0, theirs, done)
}

/// A file that is in a copy and not in its manifest, or has become longer since that was written.
fn written_since(manifest: &Manifest, copy: &Manifest) -> Option<PathBuf> {
    let differences = manifest.differences(copy).into_iter();
    let mut of_content = differences.filter(select::is_of_content);
    let written = of_content.find(|difference| match difference.what {
        What::Extra => true,
        What::Size { expected, found } => found > expected,
        _ => false,
    });
    written.map(|difference| difference.path)
}

/// Whether a tree has what a manifest says, as far as can be told from names and sizes.
fn holds_as_much(manifest: &Manifest, tree: &Manifest) -> bool {
    let differences = manifest.differences(tree);
    // The tree has not been read: its hashes are none.
    !differences.iter().any(|difference| {
        select::is_of_content(difference) && !matches!(difference.what, What::Content)
    })
}
