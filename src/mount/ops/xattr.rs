//! Reads and changes extended attributes: the disk's, and those that xpmfs provides.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{OFlags, XattrFlags};
use rustix::io::{Errno, Result};

use crate::mount::caller::Caller;
use crate::mount::copy_up::Alteration;
use crate::mount::handover::intents::{Before, IntentOutcome};
use crate::mount::tables::nodes::INTERNAL;
use crate::mount::{Mount, deferred};
use crate::sys::at;
use crate::view::PRIMARY;

/// The prefix of the names that xpmfs answers itself. They are not listed, so that no program copies them along.
const OURS: &[u8] = b"user.xpmfs.";

/// The prefix of the names that only processes with `CAP_SYS_ADMIN` may read.
const TRUSTED: &[u8] = b"trusted.";

/// The access control list, of which the mode shows a part.
const ACCESS_ACL: &str = "system.posix_acl_access";

/// Linux's own limit for a value or a list of names.
const SIZE_MAX: usize = 64 * 1024;

/// The result of a request: the length of a value, or the value.
#[derive(Debug)]
pub(in crate::mount) enum Value {
    Length(usize),
    Bytes(Vec<u8>),
}

impl Value {
    /// Reads the requested data into a buffer of that size; returns the length if the size is 0.
    fn read(
        size: usize,
        length: impl FnOnce() -> Result<usize>,
        read: impl FnOnce(&mut [u8]) -> Result<usize>,
    ) -> Result<Value> {
        if size == 0 {
            return length().map(Value::Length);
        }
        let mut bytes = vec![0; size.min(SIZE_MAX)];
        let length = read(&mut bytes)?;
        bytes.truncate(length);
        Ok(Value::Bytes(bytes))
    }
}

impl Mount {
    /// Returns the value if it fits into `size` bytes, or its length if `size` is 0. Attributes of xpmfs itself
    /// are returned for any size.
    pub(in crate::mount) fn getxattr(&self, id: u64, name: &OsStr, size: usize) -> Result<Value> {
        if let Some(ours) = name.as_bytes().strip_prefix(OURS) {
            return self.own_xattr(id, ours).map(Value::Bytes);
        }
        let id = self.recovered(id);
        // On the first write to a file, the kernel asks whether the file has capabilities; the file is open then.
        if self.node(id)?.location == PRIMARY
            && let Some(file) = self.handles.file_of(id)
        {
            let length = || rustix::fs::fgetxattr_query(&file.fd, name);
            return Value::read(size, length, |value| {
                rustix::fs::fgetxattr(&file.fd, name, value)
            });
        }
        self.with_object(id, |path| {
            let length = || rustix::fs::getxattr_query(path, name);
            Value::read(size, length, |value| {
                rustix::fs::getxattr(path, name, value)
            })
        })
    }

    /// Returns an attribute that xpmfs provides: `location`, the location that serves the file.
    fn own_xattr(&self, id: u64, name: &[u8]) -> Result<Vec<u8>> {
        match name {
            b"location" => {
                let location = match self.node(id)?.location {
                    INTERNAL => PRIMARY,
                    location => location,
                };
                Ok(self.view.location(location).ok_or(Errno::STALE)?.label())
            }
            _ => Err(Errno::NODATA),
        }
    }

    /// Returns the names, each followed by a NUL. As on a disk, the list contains the names that only privileged
    /// callers may read for privileged callers only.
    pub(in crate::mount) fn listxattr(&self, caller: &Caller, id: u64) -> Result<Vec<u8>> {
        let mut names = self.with_object(self.recovered(id), all_names)?;
        let hidden = |name: &[u8]| name.starts_with(TRUSTED);
        if caller.uid != 0 && names.split(|byte| *byte == 0).any(hidden) {
            let shown = names.split_inclusive(|byte| *byte == 0);
            names = shown
                .filter(|name| !hidden(name))
                .collect::<Vec<_>>()
                .concat();
        }
        Ok(names)
    }

    pub(in crate::mount) fn setxattr(
        &self,
        caller: &Caller,
        id: u64,
        name: &OsStr,
        value: &[u8],
        flags: i32,
    ) -> Result<()> {
        if name.as_bytes().starts_with(OURS) {
            return Err(Errno::PERM);
        }
        if self.intents.outcome() == Some(IntentOutcome::Made) {
            return Ok(());
        }
        let known = id;
        let (id, _) = self.alterable(caller, id, Alteration::Attributes)?;
        deferred::commit()?;
        let flags = XattrFlags::from_bits_retain(flags.cast_unsigned());
        let _rights = match caller.unprivileged() {
            Some(caller) if name == ACCESS_ACL => {
                // An owner outside the file's group loses set-group-ID by this change.
                self.clearing_set_id_for(caller, &self.stat(id)?.1)?
            }
            _ => None,
        };
        self.intents.change(
            || Ok(Before::default()),
            |_| {
                let there = self.getxattr(id, name, SIZE_MAX);
                let is_set = matches!(there, Ok(Value::Bytes(there)) if there == value);
                Ok(is_set.then_some(0))
            },
            || {
                self.with_object(id, |path| rustix::fs::setxattr(path, name, value, flags))?;
                Ok(0)
            },
        )?;
        self.activity.altered(id);
        self.note_changed_by(known, id);
        Ok(())
    }

    pub(in crate::mount) fn removexattr(
        &self,
        caller: &Caller,
        id: u64,
        name: &OsStr,
    ) -> Result<()> {
        if name.as_bytes().starts_with(OURS) {
            return Err(Errno::PERM);
        }
        if self.intents.outcome() == Some(IntentOutcome::Made) {
            return Ok(());
        }
        let known = id;
        let (id, _) = self.alterable(caller, id, Alteration::Attributes)?;
        deferred::commit()?;
        self.intents.change(
            || Ok(Before::default()),
            |_| {
                let there = self.getxattr(id, name, 0);
                Ok(matches!(there, Err(Errno::NODATA)).then_some(0))
            },
            || {
                self.with_object(id, |path| rustix::fs::removexattr(path, name))?;
                Ok(0)
            },
        )?;
        self.activity.altered(id);
        self.note_changed_by(known, id);
        Ok(())
    }

    /// Calls `call` with a path that leads to the node itself, even if it is a symlink: the calls for descriptors do
    /// not accept an `O_PATH` descriptor.
    fn with_object<T>(&self, id: u64, call: impl FnOnce(&str) -> Result<T>) -> Result<T> {
        match self.open_verified(id, OFlags::PATH) {
            Err(Errno::STALE) => self.with_open_fd(id, |fd| call(&at::proc_path(fd))),
            Err(error) => Err(error),
            Ok(object) => call(&at::proc_path(&object)),
        }
    }
}

/// Returns the names of all attributes, usually few.
fn all_names(path: &str) -> Result<Vec<u8>> {
    let length = rustix::fs::listxattr_query(path)?;
    if length == 0 {
        return Ok(Vec::new());
    }
    let read = |size: usize| {
        let mut names = vec![0; size];
        let length = rustix::fs::listxattr(path, &mut names)?;
        names.truncate(length);
        Ok(names)
    };
    match read(length) {
        // Names have been added meanwhile.
        Err(Errno::RANGE) => read(SIZE_MAX),
        names => names,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffer_size_follows_request_up_to_limit() {
        let asked = |size| {
            let mut given = None;
            let read = |buffer: &mut [u8]| {
                given = Some(buffer.len());
                Ok(3)
            };
            let value = Value::read(size, || Ok(3), read).unwrap();
            (given, value)
        };
        assert!(matches!(asked(0), (None, Value::Length(3))));
        assert!(matches!(asked(20), (Some(20), Value::Bytes(value)) if value.len() == 3));
        assert_eq!(asked(SIZE_MAX * 10).0, Some(SIZE_MAX));
    }

    #[test]
    fn long_name_lists_are_read_completely() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path().to_str().unwrap();
        assert!(all_names(path).unwrap().is_empty());
        for name in ["user.one", "user.two"] {
            let flags = XattrFlags::empty();
            rustix::fs::setxattr(path, name, b"", flags).unwrap();
        }
        let mut names = all_names(path).unwrap();
        names.sort_unstable();
        let mut expected = b"user.one\0user.two\0".to_vec();
        expected.sort_unstable();
        assert_eq!(names, expected);
    }
}
