//! Finds the processes and mounts that prevent an unmount.
//!
//! Nothing here walks into the mount: links in `/proc` are read as text first, and what they lead to is asked only
//! for its device number, from the kernel's cache.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, StatxFlags};

use super::mounts::{self, Device, MountInfo};

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

/// The processes but this one that use `mount`, as far as this user may look into them, in the order of their ids.
#[must_use]
pub fn of(mount: &MountInfo) -> Vec<BusyProcess> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let own = rustix::process::getpid().as_raw_pid();
    let mut busy_processes: Vec<BusyProcess> = entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| *pid != own)
        .filter_map(|pid| holder(pid, mount))
        .collect();
    busy_processes.sort_by_key(|holder| holder.pid);
    busy_processes
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

fn holder(pid: i32, mount: &MountInfo) -> Option<BusyProcess> {
    let process = PathBuf::from(format!("/proc/{pid}"));
    let (path, how) = use_of(&process, mount)?;
    let name = fs::read(process.join("comm")).unwrap_or_default();
    Some(BusyProcess {
        pid,
        name: String::from_utf8_lossy(&name).trim().to_owned(),
        path,
        how,
    })
}

fn use_of(process: &Path, mount: &MountInfo) -> Option<(PathBuf, &'static str)> {
    for (link, how) in [
        ("cwd", "current directory"),
        ("root", "root directory"),
        ("exe", "program"),
    ] {
        if let Some(path) = leads_into(&process.join(link), mount) {
            return Some((path, how));
        }
    }
    if let Ok(descriptors) = fs::read_dir(process.join("fd")) {
        for descriptor in descriptors.flatten() {
            if let Some(path) = leads_into(&descriptor.path(), mount) {
                return Some((path, "open file"));
            }
        }
    }
    mapped(process, mount.device).map(|path| (path, "mapped file"))
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

/// The first file of `device` in the process's memory: `start-end perms offset dev inode path`.
fn mapped(process: &Path, device: Device) -> Option<PathBuf> {
    let maps = fs::read(process.join("maps")).ok()?;
    let device = format!("{:02x}:{:02x}", device.major, device.minor);
    maps.split(|byte| *byte == b'\n').find_map(|line| {
        let mut fields = line.splitn(6, |byte| *byte == b' ');
        (fields.nth(3)? == device.as_bytes()).then(|| {
            let path = fields.nth(1).unwrap_or_default().trim_ascii_start();
            PathBuf::from(std::ffi::OsStr::from_bytes(path))
        })
    })
}
