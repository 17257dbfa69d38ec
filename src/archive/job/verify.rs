//! Reads an archived copy, and compares it with its manifest and with the primary.

use std::os::fd::OwnedFd;

use rustix::io::Errno;

use super::{manifests, select};
use crate::archive::env::Env;
use crate::archive::error::{Cause, Context, CopyContext, JobError, Result};
use crate::archive::{archived_jobs, places};
use crate::settings::Mode;
use crate::sys::at;
use crate::transfer::{self, Candidate, Difference, Manifest, What};
use crate::view::location::Role;
use crate::view::{Location, View};
use crate::workspace::jobs::JobId;
use crate::workspace::markers;

/// The result of verifying one copy.
#[derive(Debug)]
pub struct Verified {
    /// The number of the folder.
    pub folder: u8,
    /// How many files it should have, including symlinks.
    pub files: u64,
    /// How many bytes they should have.
    pub bytes: u64,
    /// Whether the copy exists; if not, it has a manifest or is on record, and was lost.
    pub present: bool,
    /// Whether it has a manifest; without one, it can only be compared with the primary.
    pub manifest: bool,
    /// Whether it has the job's marker of success.
    pub finished: bool,
    /// The differences from its manifest: damage.
    pub differences: Vec<Difference>,
    /// The differences of the primary's job, if it has one: it has changed since.
    pub primary: Option<Vec<Difference>>,
}

impl Verified {
    /// Whether the copy matches its manifest; attributes do not count. False without a manifest and without the marker, which is copied
    /// last: such a copy was never completed. `None` without a manifest, or if this user may not read all of the copy.
    #[must_use]
    pub fn is_whole(&self) -> Option<bool> {
        if !self.present {
            return Some(false);
        }
        match (self.manifest, self.finished) {
            (true, _) if self.damage().next().is_some() => Some(false),
            (true, _) => (!self.is_denied()).then_some(true),
            (false, true) => None,
            (false, false) => Some(false),
        }
    }

    /// Whether this user may not read all of the copy, and the rest is intact.
    #[must_use]
    pub fn is_denied(&self) -> bool {
        self.manifest
            && self.damage().next().is_none()
            && self.differences.iter().any(is_denied_entry)
    }

    fn damage(&self) -> impl Iterator<Item = &Difference> {
        let of_content = self
            .differences
            .iter()
            .filter(|it| select::is_of_content(it));
        of_content.filter(|it| !is_denied_entry(it))
    }

    /// What is wrong with the copy, in a few words; `None` if it is intact, or this is unknown.
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
        let mut damage = self.damage();
        let first = damage
            .next()
            .map(|Difference { path, what }| format!(": {} {what}", path.display()));
        let first = first.unwrap_or_default();
        Some(match damage.count() {
            0 => format!("the copy is damaged{first}"),
            more => format!("the copy is damaged{first}, and {more} more"),
        })
    }

    /// Whether the copy is complete and has no manifest.
    #[must_use]
    pub fn lacks_manifest(&self) -> bool {
        self.present && !self.manifest && self.finished
    }

    /// Whether the copy was never completed.
    #[must_use]
    pub fn is_incomplete(&self) -> bool {
        self.present && !self.manifest && !self.finished
    }

    /// A copy that is lost, with the manifest that is left of it, if any.
    fn lost(folder: u8, manifest: Option<&Manifest>) -> Verified {
        Verified {
            folder,
            files: manifest.map_or(0, Manifest::files),
            bytes: manifest.map_or(0, Manifest::bytes),
            present: false,
            manifest: manifest.is_some(),
            finished: false,
            differences: Vec::new(),
            primary: None,
        }
    }
}

/// Whether this user may not read an entry, so that its state is unknown.
fn is_denied_entry(difference: &Difference) -> bool {
    match &difference.what {
        What::Unreadable(error) => error
            .io()
            .and_then(Errno::from_io_error)
            .is_some_and(denies),
        _ => false,
    }
}

fn denies(errno: Errno) -> bool {
    matches!(errno, Errno::ACCESS | Errno::PERM)
}

/// Why a copy could not be read, if the copy may be intact.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unread {
    /// This user may not read the copy, its manifest or the workspace's job.
    Denied,
    /// The file system does not reply, or this process lacks memory or descriptors.
    Unavailable,
}

/// Whether an error of [`verify`] does not mean damage: another user, or the same user later, may read it.
#[must_use]
pub fn unread(error: &JobError) -> Option<Unread> {
    if let Cause::Folder { .. } | Cause::FolderIo { .. } = &*error.cause {
        return Some(Unread::Unavailable);
    }
    match error.errno()? {
        errno if denies(errno) => Some(Unread::Denied),
        Errno::STALE
        | Errno::NOTCONN
        | Errno::NODEV
        | Errno::TIMEDOUT
        | Errno::HOSTDOWN
        | Errno::HOSTUNREACH
        | Errno::MFILE
        | Errno::NFILE
        | Errno::NOMEM => Some(Unread::Unavailable),
        _ => None,
    }
}

/// Reads a folder's copy of a job from its disk. Returns `None` if the folder has neither the copy nor its manifest, and is not on record as
/// having it.
///
/// # Errors
///
/// Fails if the copy or its manifest cannot be read.
pub fn verify(env: &Env<'_>, folder: u8, job: &JobId) -> Result<Option<Verified>> {
    let Some(location) = places::folder(env.view, folder) else {
        return Ok(None);
    };
    if let Err(errno) = location.root() {
        // An error of the folder, and not of this copy.
        let folder = location.path().to_owned();
        return Err(JobError::new(job, Cause::FolderIo { folder, errno }));
    }
    let at = places::path(location, job);
    let known = manifest(location, job)?;
    let Some(archived) = places::job(location, job).tried(job, "open", &at)? else {
        let is_lost = known.is_some()
            || !location.is_away() && archived_jobs::is_on_record(env, location, job);
        return Ok(is_lost.then(|| Verified::lost(folder, known.as_ref())));
    };
    let primary = env.view.primary();
    let from = places::path(primary, job);
    // The copy is verified even if the primary cannot be read.
    let source = places::job(primary, job).unwrap_or_else(|errno| {
        tracing::warn!(
            "{job}: its copies are not compared with {}: {errno}",
            from.display()
        );
        None
    });
    let select = |candidate: &Candidate<'_>| select::is_copied(job, candidate);
    let options = env.options(&select);
    let (manifest, differences) = match &known {
        Some(manifest) => {
            let mut differences =
                transfer::verify(&archived, manifest, &options).copying(job, &at)?;
            // Copies of earlier versions may contain the opt-out file.
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

fn manifest(folder: &Location, job: &JobId) -> Result<Option<Manifest>> {
    let at = manifests::path(folder, job);
    match manifests::read(folder, job) {
        Err(manifests::ManifestError::Io(error)) => Err(error).tried(job, "open", &at),
        Err(error) => {
            let at = places::path(folder, job);
            let why = format!("the manifest of {} cannot be read: {error}", at.display());
            Err(JobError::new(job, Cause::Unsafe(why)))
        }
        Ok(manifest) => Ok(manifest),
    }
}

/// The place of a job, according to the primary's own directory.
enum Place {
    Primary,
    /// The job was moved to a folder.
    Moved,
    Unknown,
}

/// Returns a clause with the command that recreates a folder's copy of a job. Reads only the primary's disk.
#[must_use]
pub fn remedy(view: &View, folder: &Location, job: &JobId) -> String {
    let backup = folder.role() == Role::Folder(Mode::Backup);
    match place(view, job) {
        Place::Primary => {
            format!("`xpmfs jobs archive --force {job}` copies it again from the workspace")
        }
        Place::Moved if backup => format!(
            "`xpmfs jobs archive --force {job}` copies it again from the folder that the job was moved to"
        ),
        Place::Moved | Place::Unknown => format!(
            "`xpmfs jobs recover {job}` brings the job back from another folder that has it whole, and \
             `xpmfs jobs archive --force {job}` then copies it again"
        ),
    }
}

/// Returns a clause with the commands that write a manifest for a folder's copy of a job. Reads only the primary's disk.
#[must_use]
pub fn manifest_remedy(view: &View, job: &JobId) -> String {
    match place(view, job) {
        Place::Primary => format!(
            "`xpmfs jobs archive {job}` compares the copy with the workspace's job, and writes a manifest if they are the same"
        ),
        Place::Moved | Place::Unknown => format!(
            "`xpmfs jobs recover {job}` brings the job back to the workspace, and `xpmfs jobs archive {job}` then writes a manifest"
        ),
    }
}

fn place(view: &View, job: &JobId) -> Place {
    let Ok(Some(task)) = places::task(view.primary(), job) else {
        return Place::Unknown;
    };
    match at::stat(&*task, job.hash()) {
        Ok(stat) if at::is_dir(&stat) => Place::Primary,
        Ok(stat) if at::is_symlink(&stat) => Place::Moved,
        _ => Place::Unknown,
    }
}
