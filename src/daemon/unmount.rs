//! Unmounting from another process.

use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::REPLY_TIMEOUT;
use super::attach::{DetachError, How, detach, resolve};
use super::busy_processes::{self, BusyProcess};
use super::control::Client;
use super::health::{self, MountHealth};
use super::mounts::{self, MountInfo};
use crate::sys::deadline::{wait_until, within};
use crate::sys::printable::printable;
use crate::sys::shell_word::shell_word;

/// How long a daemon may take to end after the unmount.
const END_TIMEOUT: Duration = Duration::from_secs(30);
/// After this long, the user is shown what the command waits for, or what is in the way.
const QUIET_WAIT: Duration = Duration::from_secs(2);
/// How long the threads of a process that is ending must have waited for a disk before the process counts as stuck.
const STUCK_FOR: Duration = Duration::from_millis(500);
/// How often is tried.
const PAUSE: Duration = Duration::from_millis(50);
/// How many processes a message names.
const MOST_NAMED: usize = 8;

/// Why a mount is still there.
#[derive(Debug, thiserror::Error)]
pub enum UnmountError {
    /// Something uses it.
    #[error("{}", busy(.mountpoint, .busy_processes, .mounts))]
    Busy {
        /// Where.
        mountpoint: PathBuf,
        /// The processes that use it, as far as this user may see them.
        busy_processes: Vec<BusyProcess>,
        /// The mounts that lie on it.
        mounts: Vec<PathBuf>,
    },
    /// No xpmfs mount there.
    #[error("no xpmfs mount on {}: `xpmfs status` lists them all", .0.display())]
    NotMounted(PathBuf),
    /// Any other reason.
    #[error(transparent)]
    Detach(#[from] DetachError),
    /// The table of mounts cannot be read.
    #[error(transparent)]
    Mounts(io::Error),
}

/// What became of the daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unmounted {
    /// It has ended.
    Ended,
    /// It was dead before.
    WasDead,
    /// It is ending, and threads of it wait in the kernel for a folder that does not answer: until then, it keeps files open.
    Stuck {
        /// Its process.
        pid: i32,
    },
    /// It goes on for what is still open, or in another mount namespace.
    StillServing {
        /// Its process, if known.
        pid: Option<i32>,
        /// The process that would start another one, if there is one.
        supervisor: Option<i32>,
    },
}

/// Our mount at `path`, which may be relative or lead there by symlinks.
///
/// # Errors
///
/// None is there.
pub fn mount_at(path: &Path) -> Result<MountInfo, UnmountError> {
    let not_mounted = || UnmountError::NotMounted(path.to_owned());
    // As it is written first: that walks no path, and so works whatever hangs.
    let written = std::path::absolute(path).map_err(|_| not_mounted())?;
    let written: PathBuf = written.components().collect();
    if let Some(mount) = top(&written)? {
        return Ok(mount);
    }
    let resolved = within(REPLY_TIMEOUT, move || resolve(&written))
        .and_then(Result::ok)
        .ok_or_else(not_mounted)?;
    top(&resolved)?.ok_or_else(not_mounted)
}

fn top(path: &Path) -> Result<Option<MountInfo>, UnmountError> {
    let top = mounts::top_at(path).map_err(UnmountError::Mounts)?;
    Ok(top.filter(MountInfo::is_xpmfs))
}

/// Unmounts `mount` and waits until its daemon has ended.
///
/// Changes this process's directory to `/`. A dead mount is always taken away. With [`How::Lazy`] nothing is waited for.
/// Calls `waiting` with the daemon's process if that takes long to end.
///
/// # Errors
///
/// [`UnmountError::Busy`] with who is in the way; otherwise why it stays.
pub fn unmount(
    mount: &MountInfo,
    how: How,
    waiting: impl FnOnce(i32),
) -> Result<Unmounted, UnmountError> {
    let health = health::of(mount);
    let client = Client::connect(mount.device, mount.owner()).ok();
    let pid = client.as_ref().and_then(Client::pid);
    let supervisor = pid.and_then(supervisor_of);
    if health == MountHealth::Dead {
        detach(&mount.mountpoint, How::Lazy)?;
        return Ok(Unmounted::WasDead);
    }
    // This very process must not be what keeps it, when it is called from a directory in the mount.
    let _ = rustix::process::chdir("/");
    unmount_idle(mount, how)?;
    let limit = match how {
        How::Clean => END_TIMEOUT,
        How::Lazy => Duration::from_millis(500),
    };
    let Some(pid) = pid else {
        return Ok(Unmounted::StillServing {
            pid: None,
            supervisor: None,
        });
    };
    // Both keep the directory of the workspace open.
    let has_ended = || has_ended(pid) && supervisor.is_none_or(has_ended);
    let soon = limit.min(QUIET_WAIT);
    if wait_until(soon, has_ended) {
        return Ok(Unmounted::Ended);
    }
    let process = PathBuf::from(format!("/proc/{pid}"));
    let mut stuck_since = None;
    let is_stuck_long = || {
        let now = Instant::now();
        let since = match is_stuck(&process) {
            true => *stuck_since.get_or_insert(now),
            false => {
                stuck_since = None;
                now
            }
        };
        now.duration_since(since) >= STUCK_FOR
    };
    if soon < limit && wait_until(STUCK_FOR * 2, is_stuck_long) {
        return Ok(Unmounted::Stuck { pid });
    }
    if soon < limit && !has_ended() {
        waiting(pid);
    }
    if wait_until(limit - soon, has_ended) {
        Ok(Unmounted::Ended)
    } else {
        Ok(Unmounted::StillServing {
            pid: Some(pid),
            supervisor,
        })
    }
}

/// Whether a process is ending, and each thread that is left waits in the kernel without a way to interrupt it.
fn is_stuck(process: &Path) -> bool {
    let state_of = |path: PathBuf| {
        let stat = std::fs::read_to_string(path.join("stat")).ok()?;
        let (_, rest) = stat.rsplit_once(')')?;
        rest.trim_start().chars().next()
    };
    if !matches!(state_of(process.to_owned()), Some('Z')) {
        return false;
    }
    let threads = std::fs::read_dir(process.join("task"))
        .into_iter()
        .flatten();
    let states: Vec<_> = threads
        .flatten()
        .filter_map(|thread| state_of(thread.path()))
        .filter(|state| !matches!(state, 'Z' | 'X'))
        .collect();
    !states.is_empty() && states.iter().all(|state| *state == 'D')
}

/// Unmounts. If a mount is in use and no process is seen to use it, the use is short, such as a check of its health, and is
/// waited for.
fn unmount_idle(mount: &MountInfo, how: How) -> Result<(), UnmountError> {
    let deadline = Instant::now() + QUIET_WAIT;
    loop {
        let mountpoint = match detach(&mount.mountpoint, how) {
            Err(DetachError::Busy(mountpoint)) => mountpoint,
            detached => return Ok(detached?),
        };
        let (busy_processes, mounts) =
            (busy_processes::of(mount), busy_processes::mounts_on(mount));
        if !busy_processes.is_empty() || !mounts.is_empty() || Instant::now() >= deadline {
            return Err(UnmountError::Busy {
                mountpoint,
                busy_processes,
                mounts,
            });
        }
        std::thread::sleep(PAUSE);
    }
}

/// The supervisor of the process that serves a mount; `None` if there is none.
fn supervisor_of(pid: i32) -> Option<i32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(')')?;
    let parent: i32 = rest.split_whitespace().nth(1)?.parse().ok()?;
    // Without its supervisor, a process has been given to another parent.
    let name = std::fs::read_to_string(format!("/proc/{parent}/comm")).ok()?;
    (name.trim_end() == NAME).then_some(parent)
}

/// The name of a daemon's processes.
const NAME: &str = "xpmfs";

/// Whether a process has ended, also if its parent has not waited for it yet.
fn has_ended(pid: i32) -> bool {
    match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
        Ok(stat) => is_ended(&stat),
        Err(_) => true,
    }
}

/// Whether a line of `/proc/PID/stat` is of a process without threads that run: as long as there are others than the first, its files
/// are open, and the disk of the workspace cannot be unmounted.
fn is_ended(stat: &str) -> bool {
    // The state follows the name, which is in parentheses and may hold any character.
    let Some((_, rest)) = stat.rsplit_once(')') else {
        return false;
    };
    let mut fields = rest.split_whitespace();
    let state = fields.next().unwrap_or_default();
    let threads = fields.nth(16).and_then(|count| count.parse::<u32>().ok());
    state.starts_with(['Z', 'X']) && threads.is_none_or(|count| count <= 1)
}

fn busy(mountpoint: &Path, busy_processes: &[BusyProcess], mounts: &[PathBuf]) -> String {
    let shown = |path: &Path| printable(&path.to_string_lossy()).into_owned();
    let word = printable(&shell_word(mountpoint)).into_owned();
    let mountpoint = shown(mountpoint);
    let mut text = format!("{mountpoint} is in use");
    if busy_processes.is_empty() && mounts.is_empty() {
        text.push_str(match rustix::process::geteuid().is_root() {
            // Root sees every process of its PID namespace.
            true => {
                ", and no process is seen that uses it: look for a loop device (`losetup`) or a swap file (`swapon --show`) in it, and in containers"
            }
            false => {
                " by processes that this user may not look into (as root, this command names them)"
            }
        });
    }
    for path in mounts {
        let _ = write!(text, "\n  another mount is at {}", shown(path));
    }
    for holder in busy_processes.iter().take(MOST_NAMED) {
        let BusyProcess {
            pid,
            name,
            path,
            how,
        } = holder;
        let (name, path) = (printable(name), shown(path));
        let _ = write!(text, "\n  process {pid} ({name}): {how} {path}");
    }
    if busy_processes.len() > MOST_NAMED {
        let _ = write!(
            text,
            "\n  and {} more processes",
            busy_processes.len() - MOST_NAMED
        );
    }
    let _ = write!(
        text,
        "\nEnd them, leave the directory, or detach it at once with `xpmfs umount --lazy {word}`: what is open is served until it is closed"
    );
    text
}

#[cfg(test)]
mod tests {
    use super::is_ended;

    #[test]
    fn a_process_has_ended_when_its_last_thread_has() {
        let line = |state: &str, threads: u32| {
            format!(
                "25985 (a) Z (b) {state} 1 2 3 0 -1 4194304 101 0 0 0 0 0 0 0 20 0 {threads} 0 109 0"
            )
        };
        for (state, threads, ended) in [
            ("S", 1, false),
            ("R", 9, false),
            ("Z", 2, false),
            ("Z", 1, true),
            ("X", 0, true),
        ] {
            assert_eq!(is_ended(&line(state, threads)), ended, "{state} {threads}");
        }
        assert!(!is_ended(""));
    }
}
