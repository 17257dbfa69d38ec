//! Serving one mount, from attaching to the end.

use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{FlockOperation, Mode, OFlags, flock};

use rustix::process::{Resource, getrlimit, setrlimit};

use super::Service;
use super::attach::{AttachError, Attachment, How, attach, detach};
use super::background::Parent;
use super::control::{Answers, Client, Identity, Server, SocketName};
use super::mounts::{self, Device, MountInfo};
use super::service_manager;
use super::signals::{self, Stopper};
use crate::sys::deadline::wait_until;

/// What is served, for `status`.
#[derive(Debug, Clone)]
pub struct About {
    /// The workspace's id, if it has one.
    pub workspace: Option<String>,
    /// The workspace's own directory, absolute.
    pub primary: PathBuf,
    /// Where the log goes, for a person.
    pub log: String,
}

/// Who waits for the mount to be ready.
#[derive(Debug)]
pub enum Launcher {
    /// A terminal, or a service manager (`mount -f`).
    Foreground,
    /// The process that started this one to go to the background.
    Background(Parent),
}

/// Why a mount could not be served.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// It could not be attached.
    #[error(transparent)]
    Attach(#[from] AttachError),
    /// It was attached but does not appear.
    #[error(
        "{} was mounted but is not in /proc/self/mountinfo: something else unmounted it at once, or the mount point was moved", .0.display()
    )]
    Vanished(PathBuf),
    /// Serving broke off.
    #[error("serving {} broke off: {source}", .mountpoint.display())]
    Serve {
        /// Where.
        mountpoint: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The process could not be set up.
    #[error("cannot {what}: {source}")]
    Setup {
        /// What was tried.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
}

/// Mounts and serves until it is unmounted, by a signal or from outside.
///
/// Changes the process's directory to `/`: from here on no path is walked that could lead into the mount.
/// All paths in `attachment` and `about` are therefore absolute, and `service` has opened what it needs.
///
/// # Errors
///
/// Why nothing is mounted, or why serving broke off; nothing stays mounted then.
pub fn run(
    service: Arc<dyn Service>,
    attachment: &Attachment,
    about: &About,
    caller: Launcher,
) -> Result<(), RunError> {
    let setup = |what| move |source| RunError::Setup { what, source };
    rustix::process::chdir("/")
        .map_err(|errno| setup("change to the directory /")(errno.into()))?;
    let taken = signals::take().map_err(setup("take signals"))?;
    let turn = MountLock::take(attachment)?;
    let fuse = attach(attachment)?;
    let mount = find(attachment)?;
    drop(turn);
    let control = listen(&service, &mount, attachment, about);
    let stopper = Arc::new(Stopper::new(
        attachment.mountpoint.clone(),
        mount.device,
        control,
    ));
    let in_background = matches!(caller, Launcher::Background(_));
    let prepared = signals::obey(taken, stopper.clone(), in_background)
        .map_err(setup("start a thread"))
        .and_then(|()| announcer(caller, &stopper, attachment).map_err(setup("start a thread")));
    let served = prepared.and_then(|announce| {
        let served = service.serve(fuse, &*announce);
        served.map_err(|source| RunError::Serve {
            mountpoint: attachment.mountpoint.clone(),
            source,
        })
    });
    let served = match served {
        Err(error) if was_unmounted(&error, mount.device) => Ok(()),
        served => served,
    };
    service_manager::stopping("unmounted");
    // At once: the next mount may be given the number of our device.
    stopper.clean_up();
    service.stop();
    if served.is_err() && !stopper.is_stopping() {
        clear(attachment, mount.id);
    }
    match served {
        // Unmounted before the kernel was greeted.
        Err(RunError::Serve { .. }) if stopper.is_stopping() => Ok(()),
        served => {
            tracing::info!("{} is unmounted", attachment.mountpoint.display());
            served
        }
    }
}

/// Whether serving ended because of an unmount, although with an error: the kernel returns `ECONNABORTED` in place of `ENODEV`
/// to a thread that has just taken a request when the connection ends. After an abort, the mount is still in the table.
fn was_unmounted(error: &RunError, device: Device) -> bool {
    let RunError::Serve { source, .. } = error else {
        return false;
    };
    source.raw_os_error() == Some(libc::ECONNABORTED)
        && mounts::xpmfs().is_ok_and(|mounts| mounts.iter().all(|mount| mount.device != device))
}

/// Takes away our mount that is not served any more, and would answer every look at the workspace with an error. With few processes
/// allowed, the helper can be started only when other processes or threads have ended.
fn clear(attachment: &Attachment, id: u64) {
    let mountpoint = &attachment.mountpoint;
    let is_gone = || match mounts::top_at(mountpoint) {
        Ok(Some(top)) => top.id != id,
        Ok(None) => true,
        Err(_) => false,
    };
    if !wait_until(CLEAR, || is_gone() || detach(mountpoint, How::Lazy).is_ok()) {
        tracing::error!(
            "{} stays mounted and is dead: `xpmfs umount {}` takes it away",
            mountpoint.display(),
            mountpoint.display()
        );
    }
}

/// For how long a daemon that cannot serve tries to take its mount away. Less than the process that started it waits for its end.
const CLEAR: Duration = Duration::from_secs(3);

/// Raises the soft limit of open files to the hard one: every file that is open in the mount is open here.
pub fn raise_descriptor_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::debug!(%error, "the limit of open files stays as it is");
    }
}

/// How long a daemon waits for the lock on a mount point.
const LOCK_TIMEOUT: Duration = Duration::from_secs(10);

/// A lock on a directory, so that of two daemons only one mounts there.
struct MountLock {
    /// Closing it unlocks.
    _directory: Option<OwnedFd>,
}

impl MountLock {
    /// Waits for the lock, and checks that no other process has mounted meanwhile.
    fn take(attachment: &Attachment) -> Result<Self, AttachError> {
        let mountpoint = &attachment.mountpoint;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        // Where it cannot be locked (no right to read it, no locks on that file system), the risk remains; attaching reports
        // what is wrong with the directory.
        let directory = rustix::fs::open(&**mountpoint, flags, Mode::empty())
            .ok()
            .filter(|directory| {
                // Another process may keep the lock; attaching reports whether it has mounted.
                wait_until(LOCK_TIMEOUT, || {
                    flock(directory, FlockOperation::NonBlockingLockExclusive).is_ok()
                })
            });
        let top = mounts::top_at(mountpoint).map_err(AttachError::Mounts)?;
        match top.filter(MountInfo::is_xpmfs) {
            None => Ok(Self {
                _directory: directory,
            }),
            Some(mount) => Err(AttachError::AlreadyMounted {
                mountpoint: mountpoint.clone(),
                pid: Client::connect(mount.device, mount.owner())
                    .ok()
                    .and_then(|client| client.pid()),
            }),
        }
    }
}

/// Our mount in the table, for its device number; the table walks no mount.
fn find(attachment: &Attachment) -> Result<MountInfo, RunError> {
    let mountpoint = &attachment.mountpoint;
    match mounts::top_at(mountpoint) {
        Ok(Some(mount)) if mount.is_xpmfs() => Ok(mount),
        found => {
            if found.is_err() {
                // No process would serve it. If this fails too, nothing more can be done.
                let _ = detach(mountpoint, How::Lazy);
            }
            Err(RunError::Vanished(mountpoint.clone()))
        }
    }
}

/// Opens the control socket; a mount without one still works.
fn listen(
    service: &Arc<dyn Service>,
    mount: &MountInfo,
    attachment: &Attachment,
    about: &About,
) -> Option<Server> {
    let workspace = about.workspace.as_deref();
    let answers = Answers {
        asked: service.clone(),
        identity: Identity {
            read_only: attachment.read_only,
            log: about.log.clone(),
            ..Identity::of_this_process(Some(&attachment.mountpoint), workspace, &about.primary)
        },
    };
    Server::start(SocketName::Mount(mount.device), answers)
        .inspect_err(|error| {
            tracing::warn!("no control socket, so `xpmfs status` will show little: {error}");
        })
        .ok()
}

/// What to do when requests are being answered.
fn announcer(
    caller: Launcher,
    stopper: &Arc<Stopper>,
    attachment: &Attachment,
) -> io::Result<Box<dyn Fn()>> {
    let status = format!("serving {}", attachment.mountpoint.display());
    Ok(match caller {
        Launcher::Foreground => Box::new(move || {
            tracing::info!("{status}");
            service_manager::ready(&status);
        }),
        Launcher::Background(parent) => {
            let announce = parent.watch(stopper.clone())?;
            Box::new(move || {
                tracing::info!("{status}");
                announce.attached();
            })
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_that_ends_with_its_mount_was_unmounted() {
        let error = |number| RunError::Serve {
            mountpoint: "/mnt".into(),
            source: io::Error::from_raw_os_error(number),
        };
        // No file system has this number.
        let gone = Device {
            major: 0,
            minor: u32::MAX,
        };
        assert!(was_unmounted(&error(libc::ECONNABORTED), gone));
        assert!(!was_unmounted(&error(libc::EIO), gone));
    }
}
