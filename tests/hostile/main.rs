//! What somebody can do who means harm, or has strange things on the disk: nothing outside of the
//! workspace's locations is reached through a mount, and nothing hangs.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod circles;
#[path = "../common/mod.rs"]
mod common;
mod life;
mod listing;
mod mutual;
mod race;
mod strange;

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use common::{FOLDERS, Mounted, Workspace, as_nobody, eventually, names, not_utf8, run, snapshot};
use rustix::fs::{
    AtFlags, CWD, FileType, FlockOperation, Mode, OFlags, RenameFlags, ResolveFlags, XattrFlags,
};
use rustix::io::{Errno, Result};

const TASK: &str = "my.module.train";

const RWX: Mode = Mode::from_raw_mode(0o777);

/// What must never be read through a mount.
const SECRET: &str = "SECRET";

/// How long anything at all may take that only asks, of a busy machine by many processes.
const PATIENCE: Duration = Duration::from_secs(60);

fn open(path: impl AsRef<Path>, flags: OFlags) -> Result<OwnedFd> {
    rustix::fs::open(path.as_ref(), flags | OFlags::CLOEXEC, RWX)
}

/// The directory of a job.
fn job(location: &Path, hash: &str) -> PathBuf {
    location.join("jobs").join(TASK).join(hash)
}

/// A tree outside of every location, laid out as one, with secrets wherever a symlink may lead.
fn outside(top: &Path, hash: &str) -> PathBuf {
    let outside = top.join("outside");
    let data = job(&outside, hash).join("data");
    fs::create_dir_all(&data).unwrap();
    for dir in data.ancestors().take_while(|dir| dir.starts_with(&outside)) {
        fs::write(dir.join("file"), SECRET).unwrap();
        fs::write(dir.join("train.done"), SECRET).unwrap();
        fs::write(dir.join("secret-name"), SECRET).unwrap();
    }
    outside
}

/// Opens below the mount without following a symlink that the mount shows.
fn beneath(mount: impl AsFd, path: &Path, flags: OFlags) -> Result<OwnedFd> {
    let resolve = ResolveFlags::NO_SYMLINKS | ResolveFlags::BENEATH;
    let mode = match flags.contains(OFlags::CREATE) {
        true => RWX,
        false => Mode::empty(),
    };
    rustix::fs::openat2(mount, path, flags | OFlags::CLOEXEC, mode, resolve)
}

fn contents(fd: OwnedFd) -> std::io::Result<String> {
    let mut contents = String::new();
    File::from(fd).take(1000).read_to_string(&mut contents)?;
    Ok(contents)
}

/// Asks something that must be answered at once. A call that waits for a mount cannot be
/// interrupted, so it is made in a process that is left behind.
fn promptly(workspace: &Workspace, script: &str, path: &Path) -> (bool, String) {
    let mut command = workspace.command("sh");
    command
        .args(["-c", script, "sh"])
        .arg(path)
        .env("LC_ALL", "C");
    let output = workspace.top().join(format!(
        "output-{}",
        OUTPUTS.fetch_add(1, Ordering::Relaxed)
    ));
    let file = File::create(&output).unwrap();
    command.stdout(file.try_clone().unwrap()).stderr(file);
    let mut child = command.spawn().unwrap();
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return (status.success(), fs::read_to_string(output).unwrap());
        }
        if Instant::now() > deadline {
            let _ = child.kill();
            panic!("{script} {} does not end", path.display());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

static OUTPUTS: AtomicUsize = AtomicUsize::new(0);
