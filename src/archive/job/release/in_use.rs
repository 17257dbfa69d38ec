//! Finds a process that runs a job of the primary or writes to it.

use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags};
use serde::Deserialize;

use crate::archive::env::{Env, Writing};
use crate::archive::error::{Context, Result};
use crate::archive::job::ready::{LOCKED, WRITTEN, is_locked, no_reply};
use crate::archive::places;
use crate::sys::open_files;
use crate::workspace::jobs::JobId;

/// How a process runs a job or writes to it, if one does or may do so. `renamed`: whether a folder serves the job by now. Programs that wait
/// for its recovery have opened the copy then.
pub(in crate::archive) fn in_use(
    env: &Env<'_>,
    job: &JobId,
    source: &OwnedFd,
    renamed: bool,
) -> Result<Option<String>> {
    let from = places::path(env.view.primary(), job);
    if is_locked(source, job).tried(job, "look at the lock of", &from)? {
        return Ok(Some(LOCKED.to_owned()));
    }
    if let Some(pid) = running(source, job) {
        return Ok(Some(format!("its process {pid} runs")));
    }
    let writing = match renamed {
        true => env.hooks.open_for_writing(job),
        false => env.hooks.writing(job),
    };
    match writing {
        Writing::No => {}
        Writing::Yes => return Ok(Some(WRITTEN.to_owned())),
        Writing::Unknown(mount) => return Ok(Some(no_reply(&mount))),
    }
    Ok(None)
}

/// The process that experimaestro has started for the job on this machine, if it still exists.
fn running(source: &OwnedFd, job: &JobId) -> Option<i32> {
    /// What experimaestro writes into `<name>.pid`.
    #[derive(Deserialize)]
    struct PidFile {
        #[serde(rename = "type")]
        kind: String,
        pid: i32,
    }
    let mut file = job.name().to_owned();
    file.push(".pid");
    let mut text = [0; 1024];
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let opened = rustix::fs::openat(source, &file, flags, Mode::empty()).ok()?;
    let length = rustix::io::pread(opened, &mut text, 0).ok()?;
    let read: PidFile = serde_json::from_slice(text.get(..length)?).ok()?;
    // The ids of other launchers (Slurm) are not those of processes here.
    let local = read.kind == "local" && open_files::is_alive(read.pid);
    local.then_some(read.pid)
}
