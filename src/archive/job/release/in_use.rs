//! Finds a process that uses a job of the primary: that runs it, writes to it, or has a file of it open.

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use rustix::fs::{Mode, OFlags};
use serde::Deserialize;

use crate::archive::env::{Env, Writing};
use crate::archive::error::{Context, Result};
use crate::archive::job::ready::{LOCKED, WRITTEN, is_locked, no_reply};
use crate::archive::places;
use crate::sys::at;
use crate::sys::open_files::{self, User};
use crate::workspace::jobs::JobId;
use crate::workspace::layout::{JOBS, RELEASED, XPMFS};

/// How a process runs a job or writes to it, if one does or may do so.
pub(super) fn in_use(env: &Env<'_>, job: &JobId, source: &OwnedFd) -> Result<Option<String>> {
    let from = places::path(env.view.primary(), job);
    if is_locked(source, job).tried(job, "look at the lock of", &from)? {
        return Ok(Some(LOCKED.to_owned()));
    }
    if let Some(pid) = running(source, job) {
        return Ok(Some(format!("its process {pid} runs")));
    }
    match env.hooks.writing(job) {
        Writing::No => {}
        Writing::Yes => return Ok(Some(WRITTEN.to_owned())),
        Writing::Unknown(mount) => return Ok(Some(no_reply(&mount))),
    }
    Ok(None)
}

/// Which process has a file of the job open, if one does. Looks at all processes, so it is asked last.
pub(super) fn opened_by(env: &Env<'_>, job: &JobId) -> Option<String> {
    let User { pid, name, path } = user_of(env, job)?;
    Some(format!(
        "the process {name} ({pid}) uses {}",
        path.display()
    ))
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

/// A process other than those of xpmfs that has a file of the job open, by its path in the primary or in a mount.
fn user_of(env: &Env<'_>, job: &JobId) -> Option<User> {
    let primary = env.view.primary();
    let below = |root: PathBuf| root.join(JOBS).join(job.path());
    let mut paths: Vec<PathBuf> = env.hooks.mountpoints().into_iter().map(below).collect();
    let mut roots = vec![primary.path().to_owned()];
    // The settings may lead to the primary through a symlink.
    let root = primary.root().ok();
    let real = root.and_then(|root| std::fs::read_link(at::proc_path(root.fd())).ok());
    roots.extend(real);
    for root in roots {
        paths.push(root.join(XPMFS).join(RELEASED).join(job.path()));
        paths.push(below(root));
    }
    paths.push(places::path(primary, job));
    open_files::user_of(&paths, is_xpmfs)
}

/// Whether a process of this name is one of ours: a daemon keeps directories open, and the programs that use them through its mount
/// are found by themselves. The kernel keeps 15 bytes of a name.
fn is_xpmfs(name: &str) -> bool {
    name.starts_with("xpmfs") || name.starts_with("mount.fuse.xpmf")
}
