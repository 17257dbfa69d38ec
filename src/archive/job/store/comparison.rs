//! Compares a job with the folder's copy of it.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use super::batch::{ComparedState, StoreBatch};
use crate::archive::error::{Cause, CopyContext, JobError, Result};
use crate::archive::job::compare::{Comparison, compare, is_newer_if_renamed, marked};
use crate::archive::job::{manifests, preconditions, select};
use crate::archive::{places, state_dir};
use crate::transfer::{self, Manifest, Time, What};
use crate::view::Location;
use crate::workspace::jobs::JobId;
use crate::workspace::markers;

impl ComparedState {
    /// Checks that what was read of the job since is still that state: otherwise a difference would not mean damage.
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

impl StoreBatch<'_> {
    /// Returns how the job compares with the folder's copy, and the state of the job that was compared.
    pub(super) fn compare(
        &self,
        job: &JobId,
        source: &OwnedFd,
        archived: &OwnedFd,
    ) -> Result<(Comparison, ComparedState)> {
        let from = places::path(self.source, job);
        let at = places::path(self.folder, job);
        let done = markers::done(job.name());
        let ours = self
            .with_options(job, |options| transfer::outline(source, options))
            .copying(job, &from)
            .map(ComparedState)?;
        let known = manifests::read(self.folder, job).unwrap_or_else(|error| {
            tracing::warn!(
                "cannot use the manifest of {job} in {}, and writes a new one: {error}",
                self.folder.path().display()
            );
            None
        });
        let theirs = self
            .with_options(job, |options| transfer::outline(archived, options))
            .copying(job, &at)?;
        let comparison = match known {
            // The manifest counts only for the copy that it was written for.
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
                    // Data that was written into the copy itself exists nowhere else.
                    (Comparison::Newer, Some(example)) if !rerun => Comparison::Mixed { example },
                    (how, _) => how,
                }
            }
        };
        Ok((comparison, ours))
    }

    /// Whether the folder's copy of a job has a manifest that matches both the copy and the job. Writes nothing.
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

    /// Whether the folder's copy of a job, which has the same files, lacks modes, access control lists or extended attributes of the
    /// primary's. False for a job that stays in the primary.
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

    /// Compares a job with a copy that has no matching manifest, such as one of another program. Writes a manifest if both are the same.
    fn compare_contents(
        &self,
        job: &JobId,
        (source, from): (&OwnedFd, &Path),
        (archived, at): (&OwnedFd, &Path),
        ours: &ComparedState,
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
        // `verify` may have recorded that it cannot be read.
        let _ = state_dir::set_damaged(self.env.view.primary(), self.folder, job, None);
        Ok(Comparison::Same)
    }

    /// Reads a job, which must still be in the state that was compared.
    fn read_again(
        &self,
        job: &JobId,
        (source, from): (&OwnedFd, &Path),
        ours: &ComparedState,
    ) -> Result<Manifest> {
        let read = self.with_options(job, |options| transfer::read(source, options));
        let read = read.copying(job, from)?.manifest;
        ours.expect(job, &read)?;
        Ok(read)
    }
}

/// Whether a job with the marker `ours` was run again after the one with the marker `theirs` was archived.
fn is_rerun(ours: Option<Time>, theirs: Option<Time>) -> bool {
    match (ours, theirs) {
        (Some(ours), Some(theirs)) => ours.order(theirs).is_gt(),
        _ => ours.is_some(),
    }
}

/// Whether all files that seem to be missing may have other names now, which their content shows.
fn is_renamed(
    comparison: &Comparison,
    ours: &ComparedState,
    theirs: &Manifest,
    done: &OsStr,
) -> bool {
    matches!(comparison, Comparison::Mixed { .. }) && is_newer_if_renamed(&ours.0, theirs, done)
}

/// A file of a copy that is not in its manifest, or has become longer since.
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

/// Whether a tree matches a manifest in names and sizes.
fn holds_as_much(manifest: &Manifest, tree: &Manifest) -> bool {
    let differences = manifest.differences(tree);
    // The tree was not read, so it has no hashes.
    !differences.iter().any(|difference| {
        select::is_of_content(difference) && !matches!(difference.what, What::Content)
    })
}
