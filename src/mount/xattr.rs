//! Extended attributes: the disk's, and what xpmfs tells of itself.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{OFlags, XattrFlags};
use rustix::io::{Errno, Result};

use super::caller::Caller;
use super::nodes::INTERNAL;
use super::{Mount, sys};
use crate::view::PRIMARY;

/// The names that xpmfs answers itself. They are not listed, so that nothing copies them along.
const OURS: &[u8] = b"user.xpmfs.";

/// The names that only who has `CAP_SYS_ADMIN` may read.
const TRUSTED: &[u8] = b"trusted.";

/// Linux's own limit for a value or a list of names.
const SIZE_MAX: usize = 64 * 1024;

impl Mount {
    pub(super) fn getxattr(&self, id: u64, name: &OsStr) -> Result<Vec<u8>> {
        if let Some(ours) = name.as_bytes().strip_prefix(OURS) {
            return self.own_xattr(id, ours);
        }
        let mut value = Vec::with_capacity(SIZE_MAX);
        // Of each file that is written to for the first time the kernel wants to know whether it has
        // capabilities: that one is open.
        if self.node(id)?.place == PRIMARY
            && let Some(file) = self.handles.file_of(id)
        {
            rustix::fs::fgetxattr(&file.fd, name, rustix::buffer::spare_capacity(&mut value))?;
            return Ok(value);
        }
        self.on_object(id, |path| {
            rustix::fs::getxattr(path, name, rustix::buffer::spare_capacity(&mut value))
        })?;
        Ok(value)
    }

    /// What xpmfs tells of something: `location`, where it is served from.
    fn own_xattr(&self, id: u64, name: &[u8]) -> Result<Vec<u8>> {
        match name {
            b"location" => {
                let place = match self.node(id)?.place {
                    INTERNAL => PRIMARY,
                    place => place,
                };
                Ok(self.view.location(place).ok_or(Errno::STALE)?.label())
            }
            _ => Err(Errno::NODATA),
        }
    }

    /// The names, each with a NUL after it. As on a disk, only the privileged are told of those that
    /// only they may read.
    pub(super) fn listxattr(&self, caller: &Caller, id: u64) -> Result<Vec<u8>> {
        let mut names = Vec::with_capacity(SIZE_MAX);
        self.on_object(id, |path| {
            rustix::fs::listxattr(path, rustix::buffer::spare_capacity(&mut names))
        })?;
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

    pub(super) fn setxattr(
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
        self.alterable(caller, id)?;
        let flags = XattrFlags::from_bits_retain(flags.cast_unsigned());
        self.on_object(id, |path| rustix::fs::setxattr(path, name, value, flags))?;
        self.touched(id);
        Ok(())
    }

    pub(super) fn removexattr(&self, caller: &Caller, id: u64, name: &OsStr) -> Result<()> {
        if name.as_bytes().starts_with(OURS) {
            return Err(Errno::PERM);
        }
        self.alterable(caller, id)?;
        self.on_object(id, |path| rustix::fs::removexattr(path, name))?;
        self.touched(id);
        Ok(())
    }

    /// Calls with a path that leads to the node itself, even if it is a symlink: the calls for
    /// descriptors do not take one that is open for nothing (`O_PATH`).
    fn on_object<T>(&self, id: u64, call: impl FnOnce(&str) -> Result<T>) -> Result<T> {
        match self.open_verified(id, OFlags::PATH) {
            Err(Errno::STALE) => self.on_open(id, |fd| call(&sys::proc_path(fd))),
            Err(error) => Err(error),
            Ok(object) => call(&sys::proc_path(&object)),
        }
    }
}
