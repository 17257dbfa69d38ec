//! Archiving, beside a mount or without one.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::io::Errno;

use super::peers::Peers;
use crate::archive::engine::{Archiver, Config};
use crate::archive::env::{Env, Hooks, Writing};
use crate::archive::job::recover::Recovered;
use crate::archive::releases::space_by_rule;
use crate::archive::{manual, places};
use crate::mount::{Handle, Recover};
use crate::settings::{Folder, Mode, Release, Tuning};
use crate::transfer::{Bandwidth, Progress};
use crate::view::{Location, View};
use crate::workspace::jobs::JobId;

/// How jobs of a workspace are archived, as the settings say; `folders` in the order of the view's.
#[must_use]
pub fn config(tuning: &Tuning, folders: &[Folder]) -> Config {
    let excluded: HashMap<_, _> = (1..)
        .zip(folders)
        .map(|(index, folder)| (index, folder.exclude.clone()))
        .collect();
    Config {
        settle: tuning.settle(),
        scan_interval: tuning.scan_interval(),
        exclude: tuning.exclude.clone(),
        folder_exclude: excluded,
        bandwidth: tuning.bandwidth,
        threads: threads(),
        release: tuning.release,
    }
}

/// How many threads copy: few, so that other work is not slowed.
fn threads() -> usize {
    let processors = std::thread::available_parallelism().map_or(2, usize::from);
    processors.clamp(2, 8)
}

/// Whether anything is archived to one of these folders.
#[must_use]
pub fn is_wanted(folders: &[Folder]) -> bool {
    folders.iter().any(|folder| folder.mode != Mode::Use)
}

/// What other work on the jobs of a mount asks of it and of the workspace's other mounts, and reports to them.
///
/// # Errors
///
/// The table of mounts cannot be read.
pub fn hooks(view: &Arc<View>, mount: Handle) -> io::Result<Arc<dyn Hooks>> {
    Ok(Arc::new(Served {
        mount,
        elsewhere: view.elsewhere().map(Path::to_owned),
        peers: Peers::of(view.primary_path())?,
    }))
}

/// Starts archiving beside a mount that is about to be served.
///
/// # Errors
///
/// No thread can be started, or the table of mounts cannot be read.
pub fn beside(view: &Arc<View>, config: Config, mount: Handle) -> io::Result<Arc<Archiver>> {
    Archiver::start(view.clone(), config, hooks(view, mount)?)
}

/// Recovers jobs that programs change through a mount, with the limits of archiving; with `on_open`, in the background also
/// jobs of `backup` and `move` folders that programs read.
///
/// # Errors
///
/// The table of mounts cannot be read.
pub fn recovery(
    view: &Arc<View>,
    config: &Config,
    on_open: bool,
    mount: Handle,
) -> io::Result<Arc<dyn Recover>> {
    let archives = places::archives(view).map(Location::index);
    Ok(Arc::new(Recovery {
        view: view.clone(),
        hooks: Served {
            mount,
            elsewhere: view.elsewhere().map(Path::to_owned),
            peers: Peers::of(view.primary_path())?,
        },
        bandwidth: Bandwidth::new(config.bandwidth),
        threads: config.threads,
        release: config.release,
        on_open: archives.filter(|_| on_open).collect(),
        is_full: AtomicBool::new(false),
    }))
}

struct Recovery {
    view: Arc<View>,
    hooks: Served,
    bandwidth: Bandwidth,
    threads: usize,
    release: Release,
    /// The folders whose jobs are recovered when they are read.
    on_open: Vec<u8>,
    /// Whether the last job that was to be recovered for readers did not fit.
    is_full: AtomicBool,
}

impl Recovery {
    fn env<'a>(&'a self, progress: &'a Progress, threads: usize) -> Env<'a> {
        Env {
            view: &self.view,
            hooks: &self.hooks,
            progress,
            bandwidth: Some(&self.bandwidth),
            out: None,
            settle: Duration::ZERO,
            threads,
            force: false,
        }
    }
}

/// How many threads copy a job that is recovered for readers.
const READ_THROUGH_THREADS: usize = 2;

/// A copy for readers is cancelled if so many bytes less are free than it needs: others write to the disk. What is counted as
/// copied and what the disk counts as used differ by less.
const SPACE_TOLERANCE: u64 = 64 << 20;

impl Recover for Recovery {
    fn has_silent_folder(&self) -> bool {
        self.view.has_offline_folder()
    }

    fn recovers_on_open(&self, folder: u8) -> bool {
        self.on_open.contains(&folder)
    }

    fn recover_for_readers(&self, job: &JobId, progress: &Progress) -> rustix::io::Result<()> {
        let env = self.env(progress, READ_THROUGH_THREADS);
        match manual::recover_for_readers(&env, job, self.release) {
            Ok(Recovered::Copied { files, bytes, .. }) => {
                self.is_full.store(false, Ordering::Relaxed);
                tracing::info!(
                    "{job}: recovered for programs that read it ({files} files, {bytes} bytes)"
                );
                Ok(())
            }
            Ok(Recovered::Present) => {
                self.hooks.mount.moved(job);
                Ok(())
            }
            Err(error) => {
                let error_number = error.for_program();
                if error.is_cancelled() {
                    tracing::info!("{job}: the recovery for programs that read it was cancelled");
                } else if error_number != Errno::NOSPC {
                    tracing::warn!("cannot recover a job that programs read: {error}");
                } else if self.is_full.swap(true, Ordering::Relaxed) {
                    tracing::debug!("a job that programs read stays in its folder: {error}");
                } else {
                    tracing::info!(
                        "a job that programs read stays in its folder, and so do others until there is space: {error}"
                    );
                }
                Err(error_number)
            }
        }
    }

    fn lacks_space(&self, progress: &Progress) -> bool {
        let (Ok(Some(space)), Some(size)) =
            (space_by_rule(&self.view, self.release), progress.expected())
        else {
            return false;
        };
        let left = size.bytes.saturating_sub(progress.bytes());
        space.lacking() > 0 || space.usable().saturating_add(SPACE_TOLERANCE) < left
    }

    fn recover(&self, job: &JobId, progress: &Progress) -> rustix::io::Result<()> {
        let env = self.env(progress, self.threads);
        match manual::recover_for_change(&env, job) {
            Ok(Recovered::Copied { files, bytes, .. }) => {
                tracing::info!(
                    "{job}: recovered for a program that changes it ({files} files, {bytes} bytes)"
                );
                Ok(())
            }
            Ok(Recovered::Present) => {
                // Another process recovered it, and may not have reported that to this mount.
                self.hooks.mount.moved(job);
                Ok(())
            }
            Err(error) if error.is_cancelled() => Err(error.for_program()),
            Err(error) => {
                tracing::warn!("cannot recover a job that a program changes: {error}");
                Err(error.for_program())
            }
        }
    }
}

/// The mount beside which jobs are archived, and the other mounts of the workspace.
struct Served {
    mount: Handle,
    /// Its mount point, unless the mount is in place.
    elsewhere: Option<PathBuf>,
    peers: Peers,
}

impl Hooks for Served {
    fn writing(&self, job: &JobId) -> Writing {
        match self.mount.is_written(job) {
            true => Writing::Yes,
            false => self.peers.writing(job),
        }
    }

    fn open_for_writing(&self, job: &JobId) -> Writing {
        match self.mount.has_writers(job) {
            true => Writing::Yes,
            false => self.peers.open_for_writing(job),
        }
    }

    fn mountpoints(&self) -> Vec<PathBuf> {
        let mut mountpoints = self.peers.mountpoints();
        mountpoints.extend(self.elsewhere.clone());
        mountpoints
    }

    fn moved(&self, job: &JobId) {
        self.mount.moved(job);
        self.peers.moved(job);
    }
}
