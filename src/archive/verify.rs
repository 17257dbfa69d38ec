//! An archived copy is read again, and compared with its manifest and with the primary.

use std::os::fd::OwnedFd;

use super::error::{Cause, Context, Error, InPlace, Result};
use super::{Env, manifests, places, select};
use crate::transfer::{self, Candidate, Difference, Manifest, Options};
use crate::view::Location;
use crate::workspace::jobs::JobId;
use crate::workspace::markers;

/// What was found out about one copy.
#[derive(Debug)]
pub struct Verified {
    /// The number of the folder that has it.
    pub folder: u8,
    /// How many files it should have, symlinks among them.
    pub files: u64,
    /// How many bytes they should have.
    pub bytes: u64,
    /// Whether it is there; if not, it has a manifest, and was lost.
    pub present: bool,
    /// Whether it has a manifest; without one, it can only be compared with the primary.
    pub manifest: bool,
    /// Whether it has the job's marker of success.
    pub finished: bool,
    /// In what the copy differs from its manifest: damage.
    pub differences: Vec<Difference>,
    /// In what the primary differs from it, if the primary has the job: it has changed since.
    pub primary: Option<Vec<Difference>>,
}

impl Verified {
    /// Whether the copy is what it should be, where something says what that is: attributes do not count. One without a manifest and
    /// without its marker, which is copied last, was never completed.
    #[must_use]
    pub fn is_whole(&self) -> Option<bool> {
        if !self.present {
            return Some(false);
        }
        match (self.manifest, self.finished) {
            (true, _) => Some(!self.differences.iter().any(select::is_of_content)),
            (false, true) => None,
            (false, false) => Some(false),
        }
    }

    /// What is wrong with the copy, in a few words; `None` if nothing is, or nothing says what should be in it.
    #[must_use]
    pub fn finding(&self) -> Option<String> {
        if self.is_whole() != Some(false) {
            return None;
        }
        if !self.present {
            return Some("the copy is missing".to_owned());
        }
        if self.is_incomplete() {
            return Some("the copy is incomplete".to_owned());
        }
        let mut damage = self
            .differences
            .iter()
            .filter(|it| select::is_of_content(it));
        let first = damage
            .next()
            .map(|Difference { path, what }| format!(": {} {what}", path.display()));
        let first = first.unwrap_or_default();
        Some(match damage.count() {
            0 => format!("the copy is damaged{first}"),
            more => format!("the copy is damaged{first}, and {more} more"),
        })
    }

    /// Whether it was never completed.
    #[must_use]
    pub fn is_incomplete(&self) -> bool {
        !self.manifest && !self.finished
    }
}

/// Reads a folder's copy of a job from its disk. `None` if the folder has neither that nor a manifest of it.
///
/// # Errors
///
/// It or its manifest cannot be read.
pub fn verify(env: &Env<'_>, folder: u8, job: &JobId) -> Result<Option<Verified>> {
    let Some(location) = places::folder(env.view, folder) else {
        return Ok(None);
    };
    let at = places::path(location, job);
    let known = manifest(location, job, &at)?;
    let Some(archived) = places::job(location, job).tried(job, "open", &at)? else {
        return Ok(known.map(|manifest| Verified {
            folder,
            files: manifest.files(),
            bytes: manifest.bytes(),
            present: false,
            manifest: true,
            finished: false,
            differences: Vec::new(),
            primary: None,
        }));
    };
    let primary = env.view.primary();
    let from = places::path(primary, job);
    // It says nothing of the copy if the primary cannot be read.
    let source = places::job(primary, job).unwrap_or_else(|errno| {
        tracing::warn!(
            "{job}: its copies are not compared with {}: {errno}",
            from.display()
        );
        None
    });
    let select = |candidate: &Candidate<'_>| select::is_copied(job, candidate);
    let options = Options {
        select: Some(&select),
        progress: Some(env.progress),
        bandwidth: env.bandwidth,
        threads: env.threads,
        ..Options::default()
    };
    let (manifest, differences) = match &known {
        Some(manifest) => {
            let mut differences =
                transfer::verify(&archived, manifest, &options).copying(job, &at)?;
            // Copies of earlier versions may hold it.
            differences.retain(|difference| !select::is_opt_out_path(&difference.path));
            (manifest.clone(), differences)
        }
        None => (
            transfer::scan(&archived, &options).copying(job, &at)?,
            Vec::new(),
        ),
    };
    let against =
        |source: &OwnedFd| transfer::verify(source, &manifest, &options).copying(job, &from);
    Ok(Some(Verified {
        folder,
        finished: markers::is_done(&archived, job.name()).tried(job, "look into", &at)?,
        files: manifest.files(),
        bytes: manifest.bytes(),
        present: true,
        manifest: known.is_some(),
        differences,
        primary: source.as_ref().map(against).transpose()?,
    }))
}

fn manifest(folder: &Location, job: &JobId, at: &std::path::Path) -> Result<Option<Manifest>> {
    manifests::read(folder, job).map_err(|error| {
        let why = format!("the manifest of {} cannot be read: {error}", at.display());
        Error::new(job, Cause::Unsafe(why))
    })
}
