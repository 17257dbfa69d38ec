//! Lists the mounts and their health.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::REPLY_TIMEOUT;
use super::control::{Client, Identity};
use super::health::{self, MountHealth};
use super::mounts::{self, MountInfo};
use super::sharing::register::HolderReport;
use crate::archive::job::trash::list::TrashCount;
use crate::sys::deadline::{all_within, within};
use crate::view::Hidden;
use crate::view::location::{NO_JOBS, OFFLINE, SLOW, is_device_error, why_not};

/// How long all mounts together may take to reply.
const ALL_REPLIES_TIMEOUT: Duration = Duration::from_secs(6);

/// A mount of xpmfs.
#[derive(Debug, Clone)]
pub struct Mounted {
    /// Its entry in the kernel's table.
    pub mount: MountInfo,
    /// Its health.
    pub health: MountHealth,
    /// The identity that its daemon reports, if it replies.
    pub identity: Option<Identity>,
    /// The state of its file system ([`super::StatusSource::status`]), if it replies.
    pub service: Option<Value>,
    /// The programs that share it.
    pub sharing: Sharing,
}

/// The programs that share a mount.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Sharing {
    /// Whether it was made with `mount --shared`.
    pub shared: bool,
    /// Those that hold it.
    pub holders: Vec<HolderReport>,
}

impl Mounted {
    /// Whether it shows the workspace with this directory. While a daemon replies, its id does not count: other
    /// settings and other users have the same ids. A dead mount has only a name, so `workspace` counts there, if this user
    /// mounted it.
    #[must_use]
    pub fn shows(&self, workspace: Option<&str>, primary: &Path) -> bool {
        let shown = primary.to_string_lossy();
        if let Some(identity) = &self.identity {
            return identity.primary.to_string_lossy() == shown;
        }
        let source = self.mount.source.to_string_lossy();
        self.mount.mountpoint == primary
            || source == shown
            || (self.health == MountHealth::Dead
                && self.mount.other_owner().is_none()
                && Some(source.as_ref()) == workspace)
    }
}

/// All our mounts of this mount namespace, in the kernel's order. All daemons are asked at once, so that it takes no longer
/// than the slowest, which is a few seconds at most.
///
/// # Errors
///
/// The table of mounts cannot be read.
pub fn take() -> io::Result<Vec<Mounted>> {
    let mounts = mounts::xpmfs()?;
    let question = |mount: &MountInfo| {
        let mount = mount.clone();
        || ask(mount)
    };
    let answers = all_within(ALL_REPLIES_TIMEOUT, mounts.iter().map(question));
    let given = mounts.into_iter().zip(answers);
    Ok(given
        .map(|(mount, answer)| {
            answer.unwrap_or(Mounted {
                mount,
                health: MountHealth::Silent { pid: None },
                identity: None,
                service: None,
                sharing: Sharing::default(),
            })
        })
        .collect())
}

/// The primary of the workspace whose mount is at a path.
#[must_use]
pub fn primary_of(path: &Path) -> Option<PathBuf> {
    let path = std::path::absolute(path).ok()?;
    let mounts = mounts::xpmfs().ok()?;
    let mut found = mounts.iter().filter(|mount| mount.mountpoint == path);
    let mount = match found.next_back() {
        Some(mount) => mount.clone(),
        // The path may have symlinks in it. A mount that does not answer must not keep this command waiting.
        None => {
            let canonical = within(REPLY_TIMEOUT, move || path.canonicalize().ok());
            let canonical = canonical.flatten()?;
            let mut found = mounts.into_iter();
            found.rfind(|mount| mount.mountpoint == canonical)?
        }
    };
    ask(mount).identity.map(|identity| identity.primary)
}

/// Asks the daemon of one mount.
#[must_use]
pub fn ask(mount: MountInfo) -> Mounted {
    let health = health::of(&mount);
    let mut mounted = Mounted {
        mount,
        health,
        identity: None,
        service: None,
        sharing: Sharing::default(),
    };
    if !matches!(health, MountHealth::Serving { .. }) {
        return mounted;
    }
    let connected = Client::connect(mounted.mount.device, mounted.mount.owner());
    if let Ok(mut status) = connected.and_then(|mut client| client.request("status")) {
        mounted.service = status.get_mut("service").map(Value::take);
        mounted.sharing = Sharing::deserialize(&status).unwrap_or_default();
        mounted.identity = serde_json::from_value(status).ok();
    }
    mounted
}

/// A location of a workspace, and its state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocationReport {
    /// `primary`, `use`, `backup` or `move`.
    pub mode: String,
    /// The directory.
    pub path: String,
    /// `ok`, or the problem.
    pub state: String,
    /// Why it is offline, if it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// Bytes that an ordinary user may still write there, if known.
    pub free: Option<u64>,
    /// Bytes in all, if known.
    pub total: Option<u64>,
    /// What of it does not show since it cannot be looked at, if anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hidden: Option<Hidden>,
    /// Of the primary: how many jobs are known to be purged, so that a folder serves them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub purged: Option<usize>,
    /// Deleted jobs, if it has any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trash: Option<TrashCount>,
}

impl LocationReport {
    /// Whether jobs can be read there, perhaps slowly.
    #[must_use]
    pub fn is_usable(&self) -> bool {
        ["ok", NO_JOBS, SLOW].contains(&self.state.as_str())
    }
}

/// A daemon's report of its locations, without those that cannot be understood.
#[must_use]
pub fn locations(service: &Value) -> Vec<LocationReport> {
    let listed = service.get("locations").and_then(Value::as_array);
    let listed = listed.map(Vec::as_slice).unwrap_or_default();
    listed
        .iter()
        .filter_map(|place| serde_json::from_value(place.clone()).ok())
        .collect()
}

/// Looks at directories, each given with its mode, all at once and no longer than [`REPLY_TIMEOUT`]. For workspaces that are not
/// mounted; the daemon reports on a mounted one.
#[must_use]
pub fn look_at(places: Vec<(String, PathBuf)>) -> Vec<LocationReport> {
    let question = |(_, path): &(String, PathBuf)| {
        let path = path.clone();
        move || look(&path)
    };
    let answers = all_within(REPLY_TIMEOUT, places.iter().map(question));
    places
        .into_iter()
        .zip(answers)
        .map(|((mode, path), answer)| {
            let answer = answer.unwrap_or(Err(Errno::TIMEDOUT));
            let state = match answer {
                Ok(_) => "ok".to_owned(),
                Err(errno) if is_device_error(errno) => OFFLINE.to_owned(),
                Err(errno) => why_not(errno),
            };
            let space = answer.ok();
            LocationReport {
                mode,
                path: path.to_string_lossy().into_owned(),
                state,
                why: answer
                    .err()
                    .filter(|errno| is_device_error(*errno))
                    .map(why_not),
                free: space.map(|(free, _)| free),
                total: space.map(|(_, total)| total),
                hidden: None,
                purged: None,
                trash: None,
            }
        })
        .collect()
}

/// Free and total bytes of the file system that a directory is on.
fn look(directory: &Path) -> Result<(u64, u64), Errno> {
    let flags = OFlags::DIRECTORY | OFlags::PATH | OFlags::CLOEXEC;
    let opened = rustix::fs::open(directory, flags, Mode::empty())?;
    // To look for anything in it takes a right that to open it by its name does not.
    rustix::fs::openat(&opened, ".", flags, Mode::empty())?;
    let space = rustix::fs::fstatvfs(&opened)?;
    Ok((
        space.f_bavail.saturating_mul(space.f_frsize),
        space.f_blocks.saturating_mul(space.f_frsize),
    ))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_directory_that_may_not_be_gone_into_is_not_ok() {
        let top = tempfile::tempdir().unwrap();
        let mode = |mode| std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(top.path(), mode(0o755)).unwrap();
        let directory = top.path().join("workspace");
        std::fs::create_dir(&directory).unwrap();
        let state = |permissions| {
            std::fs::set_permissions(&directory, mode(permissions)).unwrap();
            // Root may go into everything; this thread alone is another user.
            std::thread::scope(|scope| {
                let asked = scope.spawn(|| {
                    nix::unistd::setfsuid(nix::unistd::Uid::from_raw(65534));
                    look(&directory)
                });
                asked.join().unwrap()
            })
        };
        assert!(state(0o755).is_ok());
        assert_eq!(state(0o000).unwrap_err(), Errno::ACCESS);
    }

    fn dead(user: u32) -> Mounted {
        Mounted {
            mount: MountInfo {
                id: 36,
                parent: 22,
                device: mounts::Device {
                    major: 0,
                    minor: 52,
                },
                root: "/".into(),
                mountpoint: "/mnt".into(),
                options: "rw".to_owned(),
                fs_type: mounts::FS_TYPE.to_owned(),
                source: "nlp".into(),
                super_options: format!("rw,user_id={user},group_id=0"),
            },
            health: MountHealth::Dead,
            identity: None,
            service: None,
            sharing: Sharing::default(),
        }
    }

    #[test]
    fn a_dead_mount_of_another_user_is_not_this_workspace_for_its_name() {
        let this = rustix::process::geteuid().as_raw();
        let primary = Path::new("/ws");
        assert!(dead(this).shows(Some("nlp"), primary));
        assert!(!dead(this).shows(Some("other"), primary));
        assert!(!dead(this + 1).shows(Some("nlp"), primary));
    }
}
