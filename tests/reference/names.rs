//! What is done by name.

use std::os::fd::AsRawFd;
use std::path::PathBuf;

use rustix::buffer::spare_capacity;
use rustix::fs::{Access, AtFlags, FileType, Mode, OFlags, RenameFlags, XattrFlags};
use rustix::io::Result;

use crate::files::{group_of, itself, list, owner, times};
use crate::operation::{Operation, Path};
use crate::world::{World, digest, pattern, shown};

/// The largest value of an extended attribute, and the longest list of them.
const ATTRIBUTE_MAX: usize = 64 * 1024;

impl World {
    pub(crate) fn by_name(&mut self, operation: &Operation) -> Result<String> {
        use Operation as O;
        let root = &self.root;
        match operation {
            O::Truncate(path, length) => {
                let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
                let file = rustix::fs::openat(root, &path.0, flags, Mode::empty())?;
                rustix::fs::ftruncate(file, *length)?;
                self.stat(path, true)
            }
            O::ReadAll(path) => self.read_all(path),
            O::Mkdir(path, mode) => {
                rustix::fs::mkdirat(root, &path.0, Mode::from_raw_mode(*mode))?;
                self.stat(path, true)
            }
            O::Rmdir(path) => done(rustix::fs::unlinkat(root, &path.0, AtFlags::REMOVEDIR)),
            O::Unlink(path) => done(rustix::fs::unlinkat(root, &path.0, AtFlags::empty())),
            O::Rename(from, to, flags) => {
                let flags = RenameFlags::from_bits_retain(*flags);
                rustix::fs::renameat_with(root, &from.0, root, &to.0, flags)?;
                self.stat(to, false)
            }
            O::Link(from, to, follow) => {
                let flags = match follow {
                    true => AtFlags::SYMLINK_FOLLOW,
                    false => AtFlags::empty(),
                };
                rustix::fs::linkat(root, &from.0, root, &to.0, flags)?;
                self.stat(to, false)
            }
            O::Symlink(target, path) => {
                rustix::fs::symlinkat(&target.0, root, &path.0)?;
                self.stat(path, false)
            }
            O::Readlink(path) => {
                let target = rustix::fs::readlinkat(root, &path.0, Vec::new())?;
                Ok(format!("{target:?}"))
            }
            O::Mknod(path, kind, mode) => {
                let (kind, mode) = (FileType::from_raw_mode(*kind), Mode::from_raw_mode(*mode));
                // /dev/null's number, where there is to be one.
                rustix::fs::mknodat(root, &path.0, kind, mode, rustix::fs::makedev(1, 3))?;
                self.stat(path, false)
            }
            _ => self.attributes(operation),
        }
    }

    fn attributes(&self, operation: &Operation) -> Result<String> {
        use Operation as O;
        let root = &self.root;
        match operation {
            O::Mode(path, mode) => {
                let mode = Mode::from_raw_mode(*mode);
                rustix::fs::chmodat(root, &path.0, mode, AtFlags::empty())?;
                self.stat(path, true)
            }
            O::Own(path, user, group, symlink) => {
                let flags = itself(*symlink);
                rustix::fs::chownat(root, &path.0, owner(*user), group_of(*group), flags)?;
                self.stat(path, !symlink)
            }
            O::Times(path, access, change, symlink) => {
                let times = times(*access, *change);
                rustix::fs::utimensat(root, &path.0, &times, itself(*symlink))?;
                let stat = rustix::fs::statat(root, &path.0, itself(*symlink))?;
                Ok(shown(&stat, access.is_some()))
            }
            O::SetAttribute(path, name, length, flags) => {
                let flags = XattrFlags::from_bits_retain(*flags);
                let value = pattern(*length, 1);
                done(rustix::fs::setxattr(self.full(path), *name, &value, flags))
            }
            O::GetAttribute(path, name) => {
                let mut value = Vec::with_capacity(ATTRIBUTE_MAX);
                rustix::fs::getxattr(self.full(path), *name, spare_capacity(&mut value))?;
                Ok(digest(&value))
            }
            O::Attributes(path) => {
                let mut names = Vec::with_capacity(ATTRIBUTE_MAX);
                rustix::fs::listxattr(self.full(path), spare_capacity(&mut names))?;
                let mut names: Vec<_> = names
                    .split(|byte| *byte == 0)
                    .map(String::from_utf8_lossy)
                    .collect();
                names.sort();
                Ok(names.join(" "))
            }
            O::RemoveAttribute(path, name) => done(rustix::fs::removexattr(self.full(path), *name)),
            O::Stat(path, follow) => self.stat(path, *follow),
            O::ListAt(path) => {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
                list(&rustix::fs::openat(root, &path.0, flags, Mode::empty())?)
            }
            O::Access(path, wanted) => {
                let wanted = Access::from_bits_retain(*wanted);
                done(rustix::fs::accessat(
                    root,
                    &path.0,
                    wanted,
                    AtFlags::EACCESS,
                ))
            }
            other => unreachable!("{other:?}"),
        }
    }

    fn stat(&self, path: &Path, follow: bool) -> Result<String> {
        let stat = rustix::fs::statat(&self.root, &path.0, itself(!follow))?;
        Ok(shown(&stat, false))
    }

    fn read_all(&self, path: &Path) -> Result<String> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.root, &path.0, flags, Mode::empty())?;
        let mut bytes = Vec::new();
        loop {
            bytes.reserve(64 * 1024);
            // /dev/null and pipes say at once that there is nothing.
            if rustix::io::read(&file, spare_capacity(&mut bytes))? == 0 {
                return Ok(digest(&bytes));
            }
        }
    }

    /// For calls that take no directory: extended attributes.
    fn full(&self, path: &Path) -> PathBuf {
        let mut full = PathBuf::from(format!("/proc/self/fd/{}", self.root.as_raw_fd()));
        full.push(&path.0);
        full
    }
}

fn done(result: Result<()>) -> Result<String> {
    result.map(|()| String::new())
}
