//! Ends a mount: on SIGTERM and SIGINT, and when the command that waits for it ends.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, Signal};
use parking_lot::Mutex;
use signal_hook::consts::{SIGALRM, SIGHUP, SIGUSR1, SIGUSR2, SIGXFSZ};
use signal_hook::iterator::Signals;

use super::attach::{DetachError, How, detach};
use super::control::Server;
use super::health::{self, MountHealth};
use super::mounts::{self, Device, UniqueId};
use super::service_manager;

/// Signals of the same number within this time count as one if there is a supervisor: a service manager sends them to all processes of a mount, and the
/// supervisor passes its own on.
const SAME_SIGNAL: Duration = Duration::from_millis(250);

/// The signals that a daemon handles. A supervisor blocks them before it starts a worker, so that none ends a worker that does not
/// handle them yet.
pub const SIGNALS: [Signal; 8] = [
    Signal::SIGTERM,
    Signal::SIGINT,
    Signal::SIGHUP,
    Signal::SIGQUIT,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGALRM,
    Signal::SIGXFSZ,
];

/// Takes the signals that would end the process from now on, to be obeyed once [`obey`] is called. Before attaching, so that
/// no signal can leave a dead mount behind. Unblocks them.
///
/// # Errors
///
/// The handlers cannot be set.
pub fn take() -> io::Result<Signals> {
    let taken = Signals::new(SIGNALS.map(|signal| signal as i32))?;
    let mask: SigSet = SIGNALS.into_iter().collect();
    mask.thread_unblock()?;
    Ok(taken)
}

/// Ends the mount on SIGTERM, SIGINT, SIGQUIT and, unless `in_background`, on SIGHUP (the terminal has gone), from a thread of
/// its own: it answers no requests, so it may wait for the unmounting.
///
/// # Errors
///
/// No thread can be started.
pub fn obey(
    mut signals: Signals,
    stopper: Arc<Stopper>,
    in_background: bool,
    supervised: bool,
) -> io::Result<()> {
    thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            let mut last: Option<(i32, Instant)> = None;
            for signal in signals.forever() {
                let same = supervised
                    && last
                        .is_some_and(|(number, at)| number == signal && at.elapsed() < SAME_SIGNAL);
                last = Some((signal, Instant::now()));
                if same {
                    continue;
                }
                let means_nothing = match signal {
                    SIGHUP => in_background,
                    // Ending on them would leave a dead mount. SIGXFSZ comes with EFBIG, which the caller gets.
                    SIGUSR1 | SIGUSR2 | SIGALRM | SIGXFSZ => true,
                    _ => false,
                };
                if means_nothing {
                    continue;
                }
                stopper.stop(signal);
            }
        })?;
    Ok(())
}

/// Knows how to end one mount.
#[derive(Debug)]
pub struct Stopper {
    mountpoint: PathBuf,
    device: Device,
    id: UniqueId,
    control: Mutex<Option<Server>>,
    stopping: AtomicBool,
    /// The mount is no longer there, or no longer ours. Its place and the number of its device may be another's by now.
    gone: AtomicBool,
}

impl Stopper {
    /// For the mount with this device number and id, which was made at `mountpoint`.
    #[must_use]
    pub fn new(
        mountpoint: PathBuf,
        (device, id): (Device, UniqueId),
        control: Option<Server>,
    ) -> Self {
        Self {
            mountpoint,
            device,
            id,
            control: Mutex::new(control),
            stopping: AtomicBool::new(false),
            gone: AtomicBool::new(false),
        }
    }

    /// Whether the mount is being ended.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// Unmounts; what is in use is detached at once and served until it is closed. The second time, ends the
    /// process on the spot.
    pub fn stop(&self, signal: i32) {
        if self.stopping.swap(true, Ordering::AcqRel) {
            tracing::warn!("ending at once, with files still open");
            drop(self.control.lock().take());
            self.detach_what_is_left();
            std::process::exit(128 + signal);
        }
        service_manager::stopping("unmounting");
        if self.gone.load(Ordering::Acquire) {
            return;
        }
        tracing::info!("unmounting {}", self.mountpoint.display());
        let detached = match self.detach(How::Clean) {
            Err(DetachError::Busy(_)) => self.detach(How::Lazy).inspect(|()| {
                tracing::warn!(
                    "{} was in use: it is detached, and what is open is served until it is closed; a second signal ends at once",
                    self.mountpoint.display()
                );
            }),
            detached => detached,
        };
        match detached {
            // Or another process unmounted it first; open files are served until they are closed.
            Ok(()) | Err(DetachError::NotMounted(_)) => self.gone.store(true, Ordering::Release),
            Err(error) => self.give_up(&error),
        }
    }

    /// Still mounted, so still serving: better than a dead mount.
    fn give_up(&self, error: &DetachError) {
        tracing::error!("{error}; still serving; a second signal ends at once");
    }

    /// Detaches our own mount and no other.
    fn detach(&self, how: How) -> Result<(), DetachError> {
        let mine = mounts::all()
            .unwrap_or_default()
            .into_iter()
            .find(|mount| mount.device == self.device && mount.mountpoint == self.mountpoint);
        let Some(mine) = mine else {
            return Err(DetachError::NotMounted(self.mountpoint.clone()));
        };
        match mounts::top_at(&self.mountpoint) {
            Ok(Some(top)) if top.id != mine.id => Err(DetachError::Other {
                mountpoint: self.mountpoint.clone(),
                reason: format!(
                    "another mount ({} from {}) lies on top of it: unmount that first",
                    top.fs_type,
                    top.source.to_string_lossy()
                ),
            }),
            // The next mount of this place has the same numbers.
            _ if self.id.is_gone_from(&self.mountpoint) => {
                Err(DetachError::NotMounted(self.mountpoint.clone()))
            }
            _ => detach(&self.mountpoint, how),
        }
    }

    /// Removes what is left of a mount whose serving has ended: the socket, and the mount itself where the connection broke
    /// but the mount still stands.
    pub fn clean_up(&self) {
        drop(self.control.lock().take());
        // Numbers of devices and mounts are reused: a mount that replies, or that is not there yet, is another one.
        let is_left = mounts::top_at(&self.mountpoint)
            .is_ok_and(|top| top.is_some_and(|top| health::of(&top) == MountHealth::Dead));
        if is_left {
            self.detach_what_is_left();
        }
        self.gone.store(true, Ordering::Release);
    }

    /// Detaches our mount if it still exists.
    fn detach_what_is_left(&self) {
        if self.gone.load(Ordering::Acquire) {
            return;
        }
        match self.detach(How::Lazy) {
            Ok(()) | Err(DetachError::NotMounted(_)) => {}
            Err(error) => tracing::error!("{error}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::process::Command;

    use super::*;

    fn mount(at: &Path) -> (Device, UniqueId) {
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "none"]).arg(at);
        assert!(mount.status().unwrap().success());
        let top = mounts::top_at(at).unwrap().unwrap();
        (top.device, UniqueId::of(at))
    }

    #[test]
    fn the_next_mount_of_a_place_stays() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("SKIPPED: needs root");
            return;
        }
        let directory = tempfile::Builder::new().prefix("xpmfs-test-").tempdir();
        let directory = directory.unwrap();
        let at = directory.path().canonicalize().unwrap();
        let (_, id) = mount(&at);
        let (umount, lazily) = (|| detach(&at, How::Clean), How::Lazy);
        umount().unwrap();
        let (device, next) = mount(&at);
        // As if it had got the number of the first one, which it often does.
        let first = Stopper::new(at.clone(), (device, id), None);
        let kept = first.detach(lazily);
        first.clean_up();
        let is_there = mounts::top_at(&at).unwrap().is_some();
        let detached = Stopper::new(at.clone(), (device, next), None).detach(lazily);
        let is_gone = mounts::top_at(&at).unwrap().is_none();
        if next == UniqueId::of(Path::new("/nowhere")) {
            eprintln!("SKIPPED: the kernel gives mounts no unique ids");
            return;
        }
        assert!(matches!(kept, Err(DetachError::NotMounted(_))), "{kept:?}");
        assert!(is_there && is_gone && detached.is_ok());
    }
}
