//! Finds the processes and mounts that prevent an unmount.
//!
//! Nothing here walks into the mount: links in `/proc` are read as text first, and what they lead to is asked only
//! for its device number, from the kernel's cache.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rustix::fs::{AtFlags, CWD, StatxFlags};

use super::mounts::{self, Device, MountInfo};
use crate::sys::deadline::within;

/// A process that uses a mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BusyProcess {
    /// Its id.
    pub pid: i32,
    /// Its name.
    pub name: String,
    /// One of the paths that it uses.
    pub path: PathBuf,
    /// How: `current directory`, `root directory`, `program`, `open file`, `mapped file`.
    pub how: &'static str,
}

/// How long the search may take: what a process has mapped cannot be read while the process hangs in certain system calls.
const SEARCH_TIMEOUT: Duration = Duration::from_secs(5);

/// The processes but this one that use `mount`, as far as this user may look into them, in the order of their ids. Those that were found
/// until a process that hangs ended the search.
#[must_use]
pub fn of(mount: &MountInfo) -> Vec<BusyProcess> {
    let found = Arc::new(Mutex::new(Vec::new()));
    let (mount, finds) = (mount.clone(), found.clone());
    let search = move || each(&mount, |process| finds.lock().push(process));
    if within(SEARCH_TIMEOUT, search).is_none() {
        tracing::debug!("not all processes could be looked at: one of them hangs");
    }
    let mut busy_processes = std::mem::take(&mut *found.lock());
    busy_processes.sort_by_key(|holder| holder.pid);
    busy_processes
}

/// Passes the processes that use `mount` to `found`. What processes have mapped is read last, since that may hang.
fn each(mount: &MountInfo, found: impl Fn(BusyProcess)) {
    let Ok(entries) = fs::read_dir("/proc") else {
        return;
    };
    let own = rustix::process::getpid().as_raw_pid();
    let pids = entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let mut others: Vec<i32> = pids.filter(|pid| *pid != own).collect();
    for uses in [opened as fn(&Path, &MountInfo) -> Option<_>, mapped] {
        others.retain(|pid| match holder(*pid, mount, uses) {
            Some(holder) => {
                found(holder);
                false
            }
            None => true,
        });
    }
}

/// Other mounts that lie on `mount`; they keep it as processes do.
#[must_use]
pub fn mounts_on(mount: &MountInfo) -> Vec<PathBuf> {
    mounts::on_top_of(mount.id)
        .unwrap_or_default()
        .into_iter()
        .map(|mount| mount.mountpoint)
        .collect()
}

/// A path in the mount that a process uses, and how.
type Use = (PathBuf, &'static str);

fn holder(
    pid: i32,
    mount: &MountInfo,
    uses: impl Fn(&Path, &MountInfo) -> Option<Use>,
) -> Option<BusyProcess> {
    let process = PathBuf::from(format!("/proc/{pid}"));
    let (path, how) = uses(&process, mount)?;
    let name = fs::read(process.join("comm")).unwrap_or_default();
    Some(BusyProcess {
        pid,
        name: String::from_utf8_lossy(&name).trim().to_owned(),
        path,
        how,
    })
}

fn opened(process: &Path, mount: &MountInfo) -> Option<Use> {
    for (link, how) in [
        ("cwd", "current directory"),
        ("root", "root directory"),
        ("exe", "program"),
    ] {
        if let Some(path) = leads_into(&process.join(link), mount) {
            return Some((path, how));
        }
    }
    let descriptors = fs::read_dir(process.join("fd")).ok()?;
    descriptors.flatten().find_map(|descriptor| {
        let path = leads_into(&descriptor.path(), mount)?;
        Some((path, "open file"))
    })
}

/// The path of `link` if it leads into the mount, and not to what an in-place mount hides.
fn leads_into(link: &Path, mount: &MountInfo) -> Option<PathBuf> {
    let path = fs::read_link(link).ok()?;
    if !path.starts_with(&mount.mountpoint) {
        return None;
    }
    let flags = AtFlags::STATX_DONT_SYNC | AtFlags::NO_AUTOMOUNT;
    // An empty mask asks for nothing that the daemon would have to answer; the device number always comes.
    let known = rustix::fs::statx(CWD, link, flags, StatxFlags::empty()).ok()?;
    let device = Device {
        major: known.stx_dev_major,
        minor: known.stx_dev_minor,
    };
    (device == mount.device).then_some(path)
}

/// The first file of the mount in the process's memory: `start-end perms offset dev inode path`.
fn mapped(process: &Path, mount: &MountInfo) -> Option<Use> {
    let maps = fs::read(process.join("maps")).ok()?;
    let Device { major, minor } = mount.device;
    let device = format!("{major:02x}:{minor:02x}");
    maps.split(|byte| *byte == b'\n').find_map(|line| {
        let mut fields = line.splitn(6, |byte| *byte == b' ');
        (fields.nth(3)? == device.as_bytes()).then(|| {
            let path = fields.nth(1).unwrap_or_default().trim_ascii_start();
            (PathBuf::from(OsStr::from_bytes(path)), "mapped file")
        })
    })
}
