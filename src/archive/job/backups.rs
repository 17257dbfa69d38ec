//! No job is moved away before each `backup` folder that is to have it has it, as it is then.
//!
//! It may change between its backup and its move, which wait for folders that are full or away, and for somebody who writes; and a disk may be
//! taken away meanwhile.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use rustix::fs::{Mode as FileMode, OFlags};
use rustix::io::Errno;

use super::compare::{Comparison, compare};
use super::{manifests, select};
use crate::archive::env::Env;
use crate::archive::error::{Cause, Context, JobError, Result};
use crate::archive::places;
use crate::settings::Mode;
use crate::sys::at;
use crate::sys::file_id::FileId;
use crate::transfer::Manifest;
use crate::view::Location;
use crate::view::location::{Role, why_not};
use crate::workspace::jobs::JobId;
use crate::workspace::markers;

/// How long another folder may take to answer. It is no matter of whoever moves jobs if it hangs.
const FOLDER_REPLY_TIMEOUT: Duration = Duration::from_secs(5);

/// Makes sure that each `backup` folder that is to have a job has a finished copy of it where its path leads now: its disk may have been
/// taken away, or changed, since the job was copied. `source` is the primary's directory of the job, and `read`, where that is known, what
/// was read of it: that is what they must have.
///
/// # Errors
///
/// One has not, or does not say: the job is to be archived there first ([`Scope::Again`](super::Scope::Again)). Or nothing but
/// the content of a file tells that it has not.
pub(in crate::archive) fn expect(
    env: &Env<'_>,
    job: &JobId,
    source: &OwnedFd,
    read: Option<&Manifest>,
) -> Result<()> {
    for folder in env.view.folders() {
        let excluded = env
            .out
            .is_some_and(|out| out.is_excluded_from(folder.index(), job));
        if folder.role() != Role::Folder(Mode::Backup) || excluded {
            continue;
        }
        let mut lacks = lacks(env, folder, job, source)?;
        if let (None, Some(read)) = (&lacks, read) {
            lacks = is_behind(folder, job, read)?;
        }
        if let Some(why) = lacks {
            let folder = folder.path().to_owned();
            return Err(JobError::new(job, Cause::NoBackup { folder, why }));
        }
    }
    Ok(())
}

/// Why a folder does not count as one that has a job, if so.
fn lacks(
    env: &Env<'_>,
    folder: &Location,
    job: &JobId,
    source: &OwnedFd,
) -> Result<Option<String>> {
    let path = places::path(folder, job);
    let theirs = job.clone();
    let copy = match folder.answer(FOLDER_REPLY_TIMEOUT, move || copy(&path, &theirs)) {
        Ok(Ok(copy)) => copy,
        Ok(Err(error)) | Err(error) => return Ok(Some(why_not(error))),
    };
    let Some(copy) = copy else {
        return Ok(Some("see whether its disk is mounted".to_owned()));
    };
    let primary = env.view.primary().path();
    let source = at::file_id(source).tried(job, "look at", primary)?;
    let is_one = || "the workspace's own job is there under another name".to_owned();
    Ok((copy == source).then(is_one))
}

/// Why a folder's copy of a job is not what was read of the job, if it is not.
fn is_behind(folder: &Location, job: &JobId, read: &Manifest) -> Result<Option<String>> {
    let Ok(Some(theirs)) = manifests::read(folder, job) else {
        return Ok(Some("its copy there has no manifest".to_owned()));
    };
    let differences = theirs.differences(read);
    let Some(first) = differences.iter().find(|it| select::is_of_content(it)) else {
        return Ok(None);
    };
    match compare(read, &theirs, &markers::done(job.name())) {
        // To archive it there again would change nothing.
        Comparison::Same => {
            let why = format!(
                "its backup has another content, with the same size and time of change (`xpmfs jobs archive --force` makes a new one): {}",
                places::path(folder, job).join(&first.path).display()
            );
            Err(JobError::new(job, Cause::Unsafe(why)))
        }
        _ => Ok(Some("it has changed since it was copied there".to_owned())),
    }
}

/// Which directory is the finished copy of a job at a path, if there is one. By the path, and not from what is open of the folder; but
/// what is there in place of the job's directory is not followed.
fn copy(path: &Path, job: &JobId) -> rustix::io::Result<Option<FileId>> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let task = path.parent().unwrap_or(path);
    let Some(task) = at::absent(rustix::fs::open(task, flags, FileMode::empty()))? else {
        return Ok(None);
    };
    let Some(copy) = places::open(&task, job.hash())? else {
        return Ok(None);
    };
    let done = markers::is_done(&copy, job.name());
    match done.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))? {
        true => at::file_id(&copy).map(Some),
        false => Ok(None),
    }
}
