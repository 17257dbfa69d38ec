//! Serving one mount, from attaching to the end.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{FlockOperation, Mode, OFlags, flock};

use super::attach::{AttachError, Attachment, How, attach, detach};
use super::background::Parent;
use super::control::{Answers, Client, Identity, Reload, Server, SocketName};
use super::mounts::{self, Device, MountInfo, UniqueId};
use super::private_mount;
use super::service_manager;
use super::sharing::register::Register;
use super::signals::{self, Stopper};
use super::supervisor::{Link, MountPlace, Resumed};
use super::{Kept, Service};
use crate::mount::{Connection, Keeper};
use crate::sys::deadline::wait_until;
use crate::sys::shell_word::shell_word;

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

/// The supervisor of the process that serves a mount, and what that process takes over.
#[derive(Debug)]
pub struct Supervised {
    /// The supervisor.
    pub link: Arc<Link>,
    /// What a process has left that has died.
    pub resumed: Option<Resumed>,
    /// Whether no other mount of this machine serves the primary.
    pub alone: bool,
    /// The primary's directory, beneath the mount.
    pub primary: OwnedFd,
    /// The programs that hold the mount.
    pub register: Arc<Register>,
}

/// Who waits for the mount to be ready.
#[derive(Debug)]
pub enum Launcher {
    /// No process: another worker has reported it before.
    Resumed {
        /// Whether the mount was made in the background.
        in_background: bool,
    },
    /// A terminal, or a service manager (`mount -f`).
    Foreground,
    /// The process that started this one to go to the background.
    Background(Parent),
}

impl Launcher {
    /// The same, once a worker has reported that the mount is ready.
    #[must_use]
    pub fn resumed(self) -> Launcher {
        Launcher::Resumed {
            in_background: self.is_in_background(),
        }
    }

    fn is_in_background(&self) -> bool {
        match self {
            Launcher::Resumed { in_background } => *in_background,
            Launcher::Foreground => false,
            Launcher::Background(_) => true,
        }
    }
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

/// Mounts and serves until it is unmounted, by a signal or from outside; or serves on what a process served that has died. With a
/// `link`, a supervisor keeps what another process would need for that.
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
    supervised: Option<Supervised>,
) -> Result<(), RunError> {
    let setup = |what| move |source| RunError::Setup { what, source };
    rustix::process::chdir("/")
        .map_err(|errno| setup("change to the directory /")(errno.into()))?;
    let taken = signals::take().map_err(setup("take signals"))?;
    let link = supervised.as_ref().map(|with| with.link.clone());
    let register = supervised.as_ref().map(|with| with.register.clone());
    let continues = (supervised.as_ref()).is_some_and(|with| with.resumed.is_some());
    let Begun {
        kept,
        device,
        mount_id,
        id,
        since,
    } = match supervised {
        Some(Supervised {
            link,
            resumed: Some(resumed),
            ..
        }) => resume(resumed, link),
        supervised => begin(attachment, about, supervised)?,
    };
    let control = listen(
        &service,
        device,
        since,
        link.as_ref(),
        attachment,
        about,
        register,
    );
    let place = attachment.mountpoint.clone();
    let stopper = Arc::new(Stopper::new(place, (device, id), control));
    let in_background = caller.is_in_background();
    let prepared = signals::obey(taken, stopper.clone(), in_background, link.is_some())
        .map_err(setup("start a thread"))
        .and_then(|()| match attachment.private {
            true => private_mount::start(stopper.clone()).map_err(setup("start a thread")),
            false => Ok(()),
        })
        .and_then(|()| {
            let announcer = announcer(caller, &stopper, attachment, link.clone());
            announcer.map_err(setup("start a thread"))
        });
    let served = prepared.and_then(|announce| {
        let served = service.serve(kept, &*announce);
        served.map_err(|source| RunError::Serve {
            mountpoint: attachment.mountpoint.clone(),
            source,
        })
    });
    let served = match served {
        Err(error) if was_unmounted(&error, device, id) => Ok(()),
        served => served,
    };
    // The supervisor starts another worker if this one could not go on with the mount.
    if served.is_err() && continues && link.is_some_and(|link| !link.is_serving()) {
        return served;
    }
    service_manager::stopping("unmounted");
    // At once: the next mount may be given the number of our device.
    stopper.clean_up();
    service.stop();
    if let Some(mount_id) = mount_id
        && served.is_err()
        && !stopper.is_stopping()
    {
        clear(attachment, (mount_id, id));
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

/// A mount that is about to be served.
struct Begun {
    kept: Kept,
    device: Device,
    /// Its number in the table of mounts, if it is there.
    mount_id: Option<u64>,
    id: UniqueId,
    /// When it was mounted, in seconds since 1970.
    since: i64,
}

/// Mounts.
fn begin(
    attachment: &Attachment,
    about: &About,
    supervised: Option<Supervised>,
) -> Result<Begun, RunError> {
    let turn = MountLock::take(attachment)?;
    let fuse = attach(attachment)?;
    let mount = find(attachment)?;
    drop(turn);
    let id = UniqueId::of(&attachment.mountpoint);
    let since = jiff::Timestamp::now().as_second();
    let mut keeper = None;
    if let Some(with) = supervised {
        let place = MountPlace {
            mountpoint: attachment.mountpoint.clone(),
            workspace: about.primary.clone(),
            device: mount.device,
            id,
            since,
            alone: with.alone,
        };
        match with.link.keep_place(&place, with.primary.as_fd()) {
            Ok(()) => keeper = Some(with.link as Arc<dyn Keeper>),
            Err(error) => tracing::warn!(
                "the supervisor does not answer, so nothing would replace this process: {error}"
            ),
        }
    }
    Ok(Begun {
        kept: Kept {
            connection: Connection::new(fuse),
            keeper,
            inheritance: None,
        },
        device: mount.device,
        mount_id: Some(mount.id),
        id,
        since,
    })
}

/// Takes over a mount whose process has died.
fn resume(resumed: Resumed, link: Arc<Link>) -> Begun {
    let device = resumed.place.device;
    let mounts = mounts::xpmfs().unwrap_or_default();
    let mount = mounts.iter().find(|mount| mount.device == device);
    Begun {
        kept: Kept {
            connection: resumed.connection,
            keeper: Some(link),
            inheritance: Some(resumed.inheritance),
        },
        device,
        mount_id: mount.map(|mount| mount.id),
        id: resumed.place.id,
        since: resumed.place.since,
    }
}

/// Whether serving ended because of an unmount, although with an error: the kernel returns `ECONNABORTED` in place of `ENODEV`
/// to a thread that has just taken a request when the connection ends. After an abort, the mount is still in the table.
fn was_unmounted(error: &RunError, device: Device, id: UniqueId) -> bool {
    let RunError::Serve { mountpoint, source } = error else {
        return false;
    };
    let is_gone = || match mounts::top_at(mountpoint) {
        // The next mount of this place has the same number.
        Ok(Some(top)) if top.device == device => id.is_gone_from(mountpoint),
        _ => mounts::xpmfs().is_ok_and(|mounts| mounts.iter().all(|mount| mount.device != device)),
    };
    source.raw_os_error() == Some(libc::ECONNABORTED) && is_gone()
}

/// Takes away our mount that is not served any more, and would answer every look at the workspace with an error. With few processes
/// allowed, the helper can be started only when other processes or threads have ended.
fn clear(attachment: &Attachment, (mount_id, id): (u64, UniqueId)) {
    let mountpoint = &attachment.mountpoint;
    let is_gone = || match mounts::top_at(mountpoint) {
        Ok(Some(top)) => top.id != mount_id || id.is_gone_from(mountpoint),
        Ok(None) => true,
        Err(_) => false,
    };
    if !wait_until(CLEAR, || is_gone() || detach(mountpoint, How::Lazy).is_ok()) {
        tracing::error!(
            "{} stays mounted and is dead: `xpmfs umount {}` takes it away",
            mountpoint.display(),
            shell_word(mountpoint)
        );
    }
}

/// For how long a daemon that cannot serve tries to take its mount away. Less than the process that started it waits for its end.
const CLEAR: Duration = Duration::from_secs(3);

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
    device: Device,
    since: i64,
    link: Option<&Arc<Link>>,
    attachment: &Attachment,
    about: &About,
    register: Option<Arc<Register>>,
) -> Option<Server> {
    let workspace = about.workspace.as_deref();
    let supervisor = link.and_then(|_| rustix::process::getppid());
    let answers = Answers {
        asked: service.clone(),
        reload: link.cloned().map(|link| -> Reload {
            Box::new(move |program, client| link.reload(program, client))
        }),
        identity: Identity {
            read_only: attachment.read_only,
            log: about.log.clone(),
            since,
            supervisor: supervisor.map(|pid| pid.as_raw_pid().unsigned_abs()),
            ..Identity::of_this_process(Some(&attachment.mountpoint), workspace, &about.primary)
        },
        register,
    };
    Server::start(SocketName::Mount(device), answers)
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
    link: Option<Arc<Link>>,
) -> io::Result<Box<dyn Fn()>> {
    let status = format!("serving {}", attachment.mountpoint.display());
    Ok(match caller {
        Launcher::Resumed { .. } => Box::new(move || {
            tracing::info!("{status}");
            if let Some(link) = &link {
                link.serving();
            }
        }),
        Launcher::Foreground => Box::new(move || {
            tracing::info!("{status}");
            service_manager::ready(&status);
            if let Some(link) = &link {
                link.serving();
            }
        }),
        Launcher::Background(parent) => {
            let announce = parent.watch(stopper.clone(), link)?;
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
        let id = UniqueId::of(std::path::Path::new("/mnt"));
        // No file system has this number.
        let gone = Device {
            major: 0,
            minor: u32::MAX,
        };
        assert!(was_unmounted(&error(libc::ECONNABORTED), gone, id));
        assert!(!was_unmounted(&error(libc::EIO), gone, id));
    }
}
