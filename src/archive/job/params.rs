//! Rewrites the paths in the `params.json` of a recovered job for this workspace, and compares a job with its copy through the same
//! rewriting.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags, Statx, Timespec, Timestamps};

use crate::archive::error::{Context, Result};
use crate::sys::at;
use crate::sys::disk_time::NOW;
use crate::workspace::jobs::JobId;
use crate::workspace::layout::PARAMS;
use crate::workspace::params_json::rebased;

/// The most bytes of a `params.json` that is rewritten: it is read as a whole.
const PARAMS_MAX: u64 = 64 << 20;

/// Lets the paths in the `params.json` of a job that is being recovered lead to the workspace at `workspace`. Changes neither the file's
/// time of change nor its attributes. A file that cannot be read, or has another format, stays as it is, with a warning. `staged` is the
/// job's directory in its staging, not yet published, and `at` its path in the primary.
///
/// # Errors
///
/// The file cannot be written: it may be torn now, and must not be published.
pub(super) fn rebase(job: &JobId, staged: &OwnedFd, at: &Path, workspace: &Path) -> Result<()> {
    let rewritten = match rewritten(staged, workspace) {
        Ok(rewritten) => rewritten,
        Err(why) => {
            tracing::warn!(
                "{job}: {PARAMS} is recovered as it is in the copy, with the paths of its former workspace: {why}"
            );
            None
        }
    };
    let Some((text, stat)) = rewritten else {
        return Ok(());
    };
    write(staged, &text, &stat).tried(job, "rewrite", &at.join(PARAMS))?;
    tracing::info!("{job}: {PARAMS} names {} now", workspace.display());
    Ok(())
}

/// The content that the file is to have, and its attributes; `None` if it stays as it is.
fn rewritten(
    staged: &OwnedFd,
    workspace: &Path,
) -> std::result::Result<Option<(Vec<u8>, Statx)>, String> {
    let Some((text, stat)) = read(staged).map_err(|error| error.to_string())? else {
        return Ok(None);
    };
    let text = rebased(&text, workspace).map_err(|error| error.to_string())?;
    Ok(text.map(|text| (text, stat)))
}

/// Whether a job's `params.json` is that of its archived copy, with the paths of the workspace at `workspace`.
pub(super) fn is_rebased(archived: &OwnedFd, job: &OwnedFd, workspace: &Path) -> bool {
    let (Ok(Some((theirs, _))), Ok(Some((ours, _)))) = (read(archived), read(job)) else {
        return false;
    };
    matches!(rebased(&theirs, workspace), Ok(Some(rebased)) if rebased == ours)
}

/// The content and the attributes of the file; `None` if it is missing.
fn read(job: &OwnedFd) -> std::io::Result<Option<(Vec<u8>, Statx)>> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let Some(file) = at::absent(at::open_noatime(job, PARAMS.as_ref(), flags))? else {
        return Ok(None);
    };
    let stat = at::stat_fd(&file)?;
    if FileType::from_raw_mode(stat.stx_mode.into()) != FileType::RegularFile {
        return Err(std::io::Error::other("it is not a regular file"));
    }
    if stat.stx_size > PARAMS_MAX {
        let why = format!("it is larger than {} MiB", PARAMS_MAX >> 20);
        return Err(std::io::Error::other(why));
    }
    let mut text = Vec::new();
    File::from(file)
        .take(PARAMS_MAX + 1)
        .read_to_end(&mut text)?;
    Ok(Some((text, stat)))
}

/// Replaces the content of the file, durably. Its names, attributes and time of change stay.
fn write(job: &OwnedFd, text: &[u8], stat: &Statx) -> std::io::Result<()> {
    let mode = Mode::from_raw_mode(u32::from(stat.stx_mode) & 0o7777);
    let file = open_to_write(job, mode)?;
    let mut file = File::from(file);
    file.rewind()?;
    file.write_all(text)?;
    file.set_len(text.len() as u64)?;
    // Writing clears set-id bits.
    if u32::from(at::stat_fd(&file)?.stx_mode) & 0o7777 != mode.as_raw_mode() {
        rustix::fs::fchmod(&file, mode)?;
    }
    let times = Timestamps {
        last_access: NOW,
        last_modification: Timespec {
            tv_sec: stat.stx_mtime.tv_sec,
            tv_nsec: stat.stx_mtime.tv_nsec.into(),
        },
    };
    rustix::fs::futimens(file.as_fd(), &times)?;
    file.sync_all()
}

/// Opens the file for writing; its owner may do that also where the mode forbids it.
fn open_to_write(job: &OwnedFd, mode: Mode) -> std::io::Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let open = || rustix::fs::openat(job, PARAMS, flags, Mode::empty());
    match open() {
        Err(rustix::io::Errno::ACCESS) => {}
        opened => return Ok(opened?),
    }
    let path = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let readable = rustix::fs::openat(job, PARAMS, path, Mode::empty())?;
    rustix::fs::fchmod(&readable, mode | Mode::WUSR)?;
    let opened = open();
    rustix::fs::fchmod(&readable, mode)?;
    Ok(opened?)
}
