//! The files of the records that this room keeps in `<primary>/.xpmfs/archive`: their directories, rights and bytes.
//!
//! Several users read and write these files: so each has the group and mode of its directory.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, Mode};
use rustix::io::{Errno, Result};

use super::Root;
use crate::sys::{at, shared_dir};
use crate::workspace::jobs::JobId;
use crate::workspace::layout::{ARCHIVE, XPMFS};

/// Removes a file of a job in a directory of `.xpmfs/archive`, if it exists.
pub(super) fn unlink(primary: &Root, kind: &str, job: &JobId) -> Result<()> {
    let names = [XPMFS, ARCHIVE, kind].map(OsStr::new);
    let names = names.into_iter().chain([job.task_id()]);
    let Some(dir) = at::absent(at::open_dirs(primary.fd(), names))? else {
        return Ok(());
    };
    at::absent(rustix::fs::unlinkat(dir, job.hash(), AtFlags::empty())).map(drop)
}

/// The directory of a task in a directory of `.xpmfs/archive`, made if it is missing, with the mode of the primary's own directory.
pub(super) fn make_dir(primary: &Root, kind: &str, task: &OsStr) -> Result<OwnedFd> {
    let own = rustix::fs::fstat(primary.fd())?;
    let rights = Mode::from_raw_mode(own.st_mode & 0o7777);
    let mut dir = rustix::io::fcntl_dupfd_cloexec(primary.fd(), 0)?;
    for name in [XPMFS, ARCHIVE, kind]
        .map(OsStr::new)
        .into_iter()
        .chain([task])
    {
        dir = shared_dir::make_shared(&dir, name, own.st_gid, rights)?;
    }
    Ok(dir)
}

/// Gives a new file the group and mode that fit its directory.
pub(super) fn share(primary: &Root, dir: &OwnedFd, file: &OwnedFd) -> Result<()> {
    let mut model = at::stat_fd(dir)?;
    if shared_dir::is_new(&model) {
        model = at::stat_fd(primary.fd())?;
    }
    let rights = Mode::from_raw_mode(u32::from(model.stx_mode) & 0o666);
    shared_dir::share(file, model.stx_gid, rights | Mode::RUSR | Mode::WUSR)
}

/// Writes all bytes.
pub(super) fn write_all(file: &OwnedFd, mut bytes: &[u8]) -> Result<()> {
    while !bytes.is_empty() {
        match rustix::io::write(file, bytes) {
            Ok(0) => return Err(Errno::IO),
            Ok(count) => bytes = bytes.get(count..).unwrap_or_default(),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
