//! Changes attributes: mode, owner, size, times.

use std::os::fd::OwnedFd;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{FileAttr, TimeOrNow};
use rustix::fs::{AtFlags, Gid, Mode, OFlags, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT, Uid};
use rustix::io::{Errno, Result};
use rustix::process::geteuid;

use crate::mount::caller::{AssumedIdentity, Caller};
use crate::mount::copy_up::Alteration;
use crate::mount::handover::intents::Before;
use crate::mount::{Mount, deferred};
use crate::sys::at;

/// The attributes to change.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::mount) struct Changes {
    pub(in crate::mount) mode: Option<u32>,
    pub(in crate::mount) uid: Option<u32>,
    pub(in crate::mount) gid: Option<u32>,
    pub(in crate::mount) size: Option<u64>,
    pub(in crate::mount) atime: Option<TimeOrNow>,
    pub(in crate::mount) mtime: Option<TimeOrNow>,
}

impl Mount {
    pub(in crate::mount) fn setattr(
        &self,
        caller: &Caller,
        id: u64,
        handle: Option<u64>,
        changes: &Changes,
    ) -> Result<(FileAttr, Duration)> {
        let by = match changes.size {
            Some(_) => Alteration::Contents,
            None => Alteration::Attributes,
        };
        let (changed, _) = self.alterable(caller, id, by)?;
        if changed != id && changes.size.is_some() {
            // The kernel looks the path up again. A file that is open for reading is truncated only by `open`.
            return Err(Errno::STALE);
        }
        deferred::commit()?;
        let handle_changed = handle.filter(|_| changed == id);
        let done = self.change_all(caller, changed, handle_changed, changes);
        // Also if only some of the changes succeeded.
        self.activity.altered(changed);
        self.note_changed_by(id, changed);
        done?;
        let shown = self.getattr(id, handle);
        self.nodes.drop_version(id);
        shown
    }

    fn change_all(
        &self,
        caller: &Caller,
        id: u64,
        handle: Option<u64>,
        changes: &Changes,
    ) -> Result<()> {
        if let Some(size) = changes.size {
            let _rights = self.set_id_rights_by_id(caller, id)?;
            // Others may have written since an earlier process has truncated the file.
            self.intents.change(
                || Ok(Before::default()),
                |_| Ok(None),
                || self.truncate(caller.tid, id, handle, size).map(|()| 0),
            )?;
        }
        let others = Changes {
            size: None,
            ..*changes
        };
        if others.is_any() {
            let object = self.object(id)?;
            let _rights = match caller.unprivileged().filter(|_| others.owns()) {
                Some(caller) => self.clearing_set_id_for(caller, &at::stat_fd(&object)?)?,
                None => None,
            };
            self.change(&object, &others)?;
            let for_owner = Mode::RUSR | Mode::WUSR;
            let mode = others.mode.map(Mode::from_raw_mode);
            if mode.is_some_and(|mode| !mode.contains(for_owner)) && !geteuid().is_root() {
                // The next process that serves the mount could not open them again.
                self.handles.keep_all(id);
            }
        }
        Ok(())
    }

    /// Makes the disk clear the set-id bits of a file that changes for a caller.
    fn set_id_rights_by_id(&self, caller: &Caller, id: u64) -> Result<Option<AssumedIdentity>> {
        match caller.unprivileged() {
            Some(caller) if geteuid().is_root() => {
                self.clearing_set_id_for(caller, &at::stat_fd(self.object(id)?)?)
            }
            _ => Ok(None),
        }
    }

    /// Returns a descriptor of a node for changing its attributes, also if the node is only an open file without a
    /// name.
    fn object(&self, id: u64) -> Result<OwnedFd> {
        match self.open_verified(id, OFlags::PATH) {
            Err(Errno::STALE) => self.with_open_fd(id, |fd| rustix::io::fcntl_dupfd_cloexec(fd, 0)),
            result => result,
        }
    }

    fn truncate(&self, tid: u32, id: u64, handle: Option<u64>, size: u64) -> Result<()> {
        if size > 0 && self.is_only_lock(id)? {
            self.fillable_node(tid, id)?;
        }
        let open = handle.and_then(|handle| self.handles.file(handle).ok());
        if let Some(file) = open.filter(|file| file.writable) {
            return rustix::fs::ftruncate(&file.fd, size);
        }
        match self.open_verified(id, OFlags::WRONLY) {
            // For `O_TRUNC`, the kernel does not name the file just opened.
            Err(Errno::STALE) => match self.handles.writable_file_of(id) {
                Some(open) => rustix::fs::ftruncate(&open.fd, size),
                None => rustix::fs::ftruncate(self.reopen(id, OFlags::WRONLY)?.0, size),
            },
            opened => rustix::fs::ftruncate(opened?, size),
        }
    }

    /// The owner is changed first: that clears set-id bits, which the mode may set again.
    fn change(&self, object: &OwnedFd, changes: &Changes) -> Result<()> {
        if changes.uid.is_some() || changes.gid.is_some() {
            let uid = changes.uid.map(Uid::from_raw);
            let gid = changes.gid.map(Gid::from_raw);
            rustix::fs::chownat(object, "", uid, gid, AtFlags::EMPTY_PATH)?;
        }
        let path = at::proc_path(object);
        if let Some(mode) = changes.mode {
            rustix::fs::chmod(&path, Mode::from_raw_mode(mode & 0o7777))?;
        }
        if changes.atime.is_some() || changes.mtime.is_some() {
            let times = Timestamps {
                last_access: timespec(changes.atime),
                last_modification: timespec(changes.mtime),
            };
            rustix::fs::utimensat(rustix::fs::CWD, &path, &times, AtFlags::empty())?;
        }
        Ok(())
    }
}

impl Changes {
    /// Whether the owner or the group changes.
    fn owns(&self) -> bool {
        self.uid.is_some() || self.gid.is_some()
    }

    fn is_any(&self) -> bool {
        self.mode.is_some()
            || self.uid.is_some()
            || self.gid.is_some()
            || self.atime.is_some()
            || self.mtime.is_some()
    }
}

fn timespec(time: Option<TimeOrNow>) -> Timespec {
    let special = |tv_nsec| Timespec { tv_sec: 0, tv_nsec };
    match time {
        None => special(UTIME_OMIT),
        Some(TimeOrNow::Now) => special(UTIME_NOW),
        Some(TimeOrNow::SpecificTime(time)) => since_epoch(time),
    }
}

/// Returns the time that the kernel has sent: seconds, which may be negative, plus nanoseconds.
///
/// fuser 0.18 subtracts the nanoseconds of a time before 1970 instead of adding them, so the difference from 1970
/// consists of the seconds and nanoseconds as they were sent.
fn since_epoch(time: SystemTime) -> Timespec {
    let (sign, distance) = match time.duration_since(UNIX_EPOCH) {
        Ok(after) => (1, after),
        Err(before) => (-1, before.duration()),
    };
    Timespec {
        tv_sec: sign * i64::try_from(distance.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: distance.subsec_nanos().into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_converted_exactly() {
        let time = since_epoch(UNIX_EPOCH + Duration::new(1, 250_000_000));
        assert_eq!((time.tv_sec, time.tv_nsec), (1, 250_000_000));
        let time = since_epoch(UNIX_EPOCH - Duration::new(2, 750_000_000));
        assert_eq!((time.tv_sec, time.tv_nsec), (-2, 750_000_000));
    }
}
