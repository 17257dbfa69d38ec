//! Archiving, beside a mount or without one.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::peers::Peers;
use crate::archive::engine::{Archiver, Config};
use crate::archive::env::{Env, Hooks, Writing};
use crate::archive::job::recover::Recovered;
use crate::archive::manual;
use crate::mount::{Handle, Recover};
use crate::settings::{Folder, Mode, Tuning};
use crate::transfer::{Bandwidth, Progress};
use crate::view::View;
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

/// Starts archiving beside a mount that is about to be served.
///
/// # Errors
///
/// No thread can be started, or the table of mounts cannot be read.
pub fn beside(view: &Arc<View>, config: Config, mount: Handle) -> io::Result<Arc<Archiver>> {
    let hooks = Arc::new(Served {
        mount,
        elsewhere: view.elsewhere().map(Path::to_owned),
        peers: Peers::of(view.primary_path())?,
    });
    Archiver::start(view.clone(), config, hooks)
}

/// Recovers jobs that programs change through a mount, with the limits of archiving.
///
/// # Errors
///
/// The table of mounts cannot be read.
pub fn recovery(view: &Arc<View>, config: &Config, mount: Handle) -> io::Result<Arc<dyn Recover>> {
    Ok(Arc::new(Recovery {
        view: view.clone(),
        hooks: Served {
            mount,
            elsewhere: view.elsewhere().map(Path::to_owned),
            peers: Peers::of(view.primary_path())?,
        },
        bandwidth: Bandwidth::new(config.bandwidth),
        threads: config.threads,
    }))
}

struct Recovery {
    view: Arc<View>,
    hooks: Served,
    bandwidth: Bandwidth,
    threads: usize,
}

impl Recover for Recovery {
    fn has_silent_folder(&self) -> bool {
        self.view.has_silent_folder()
    }

    fn recover(&self, job: &JobId, progress: &Progress) -> rustix::io::Result<()> {
        let env = Env {
            view: &self.view,
            hooks: &self.hooks,
            progress,
            bandwidth: Some(&self.bandwidth),
            out: None,
            settle: Duration::ZERO,
            threads: self.threads,
            force: false,
        };
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
