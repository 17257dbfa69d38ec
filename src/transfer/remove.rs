//! Removes a tree, also while other processes remove it or write to it.
//!
//! - Names are removed relative to open directories, and only directories that are opened without following a symlink
//!   are entered: a replaced name cannot redirect the removal.
//! - Mounts below the tree are not part of it, and are not touched.
//! - A directory that its owner may not list or change is given those rights first.
//! - An entry that cannot be removed does not prevent the removal of the others.

use std::ffi::OsStr;
use std::ops::ControlFlow;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Statx, StatxFlags};
use rustix::io::{Errno, Result};

use super::error::{Error, Failure, Side};
use super::progress::Progress;
use crate::sys::at::{self, open_to_list};
use crate::sys::dir_stack::DirStack;
use crate::sys::read_dir::{self, EntryBuffer};

/// How often a directory is emptied again, if another process writes to it before it is removed.
const TRIES: u32 = 16;

/// How often the removal restarts at the top, if directories were moved or removed around it.
const STARTS: u32 = 64;

/// Removes the tree, file or symlink `name` in the directory `dir` (`O_PATH` is sufficient), and all entries below it.
/// A missing tree, or one that another process removes at the same time, is not an error. `progress` counts the removed
/// entries, without directories, and may cancel the removal.
///
/// # Errors
///
/// The first entry that could not be removed, its path beginning with `name`; all other entries are removed
/// nevertheless. `EXDEV` if a file system is mounted there, `ENOTEMPTY` if another process keeps writing.
/// [`Error::Cancelled`], with the entries kept that were not removed by then.
pub fn remove_tree(
    dir: impl AsFd,
    name: &OsStr,
    progress: Option<&Progress>,
) -> std::result::Result<(), Error> {
    let failed = |errno| failure("remove", errno).at(name.into());
    if name.is_empty() || name == "." || name == ".." || name.as_bytes().contains(&b'/') {
        return Err(failed(Errno::INVAL));
    }
    if at::stat_at(&dir, name).err() == Some(Errno::NOENT) {
        return Ok(());
    }
    let mut starts = 0;
    loop {
        let top = rustix::io::fcntl_dupfd_cloexec(dir.as_fd(), 0).map_err(failed)?;
        let mut removal = Removal {
            mount: mount(&stat(&top).map_err(failed)?),
            trail: DirStack::new(top),
            above: Vec::new(),
            buffer: EntryBuffer::default(),
            progress,
            first: None,
        };
        starts += 1;
        match removal.all(name) {
            Ok(()) => return removal.first.map_or(Ok(()), Err),
            Err(Stop::Astray(Errno::NOENT | Errno::STALE)) if starts < STARTS => {}
            Err(Stop::Astray(errno)) => return Err(failed(errno)),
            Err(Stop::Cancelled) => return Err(Error::Cancelled),
        }
    }
}

struct Removal<'a> {
    trail: DirStack,
    /// The unfinished directories, the current one last. The first is the caller's, in which one name is removed.
    above: Vec<Directory>,
    buffer: EntryBuffer,
    /// The mount of the tree.
    mount: (u64, u32, u32),
    progress: Option<&'a Progress>,
    /// The first error.
    first: Option<Error>,
}

/// A directory that is empty except for directories.
struct Directory {
    name: Box<OsStr>,
    waiting: Vec<Box<OsStr>>,
    /// How often the directory has been emptied before.
    tries: u32,
    /// Whether an entry in the directory could not be removed.
    stays: bool,
}

/// Why the removal stops.
enum Stop {
    Cancelled,
    /// The way back to the parent directory is lost.
    Astray(Errno),
}

impl Removal<'_> {
    fn all(&mut self, name: &OsStr) -> std::result::Result<(), Stop> {
        self.above.push(Directory {
            name: OsStr::new("").into(),
            waiting: Vec::new(),
            tries: 0,
            stays: false,
        });
        self.unlink(name);
        while let Some(here) = self.above.last_mut() {
            let name = here.waiting.pop();
            self.go_on()?;
            match name {
                Some(name) => self.down(name, 0)?,
                None => self.up()?,
            }
        }
        Ok(())
    }

    fn go_on(&self) -> std::result::Result<(), Stop> {
        match self.progress.is_some_and(Progress::is_cancelled) {
            true => Err(Stop::Cancelled),
            false => Ok(()),
        }
    }

    /// Removes a name in the current directory; a directory is queued until it is empty.
    fn unlink(&mut self, name: &OsStr) {
        match rustix::fs::unlinkat(&**self.trail.current(), name, AtFlags::empty()) {
            Ok(()) => {
                if let Some(progress) = self.progress {
                    progress.add_file();
                }
            }
            Err(Errno::NOENT) => {}
            Err(Errno::ISDIR) => self.wait(name),
            // The error for a directory by POSIX.
            Err(Errno::PERM) if self.is_directory(name) => self.wait(name),
            Err(errno) => self.fail("remove", errno, name),
        }
    }

    fn is_directory(&self, name: &OsStr) -> bool {
        at::stat_at(&**self.trail.current(), name)
            .is_ok_and(|stat| super::stamp::kind(&stat) == FileType::Directory)
    }

    fn wait(&mut self, name: &OsStr) {
        if let Some(here) = self.above.last_mut() {
            here.waiting.push(name.into());
        }
    }

    /// Enters a directory in the current one, and removes its entries except directories.
    fn down(&mut self, name: Box<OsStr>, tries: u32) -> std::result::Result<(), Stop> {
        let fd = match self.open(&name) {
            Ok(fd) => fd,
            Err(Errno::NOENT) => return Ok(()),
            // An entry of another type is in its place.
            Err(Errno::NOTDIR | Errno::LOOP) => {
                self.unlink(&name);
                return Ok(());
            }
            Err(errno) => {
                // An empty directory can be removed without opening it.
                let dir = &**self.trail.current();
                if rustix::fs::unlinkat(dir, &*name, AtFlags::REMOVEDIR).is_err() {
                    self.fail("open", errno, &name);
                }
                return Ok(());
            }
        };
        if let Err(errno) = self.trail.down(fd) {
            self.fail("look at", errno, &name);
            return Ok(());
        }
        self.above.push(Directory {
            name,
            waiting: Vec::new(),
            tries,
            stays: false,
        });
        self.empty()
    }

    /// Opens a directory of the tree, and adds the rights to list and change it where the caller may do that.
    fn open(&self, name: &OsStr) -> Result<OwnedFd> {
        let dir = &**self.trail.current();
        let fd = match open_to_list(dir, name) {
            Err(Errno::ACCESS) => {
                let path = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let fd = rustix::fs::openat(dir, name, path, Mode::empty())?;
                let stat = self.within(&fd)?;
                // An O_PATH descriptor does not permit fchmod; this path leads to the open directory, whatever its name
                // is now.
                let itself = format!("/proc/self/fd/{}", fd.as_raw_fd());
                rustix::fs::chmod(itself, opened_up(&stat)).map_err(|_| Errno::ACCESS)?;
                return open_to_list(&fd, OsStr::new("."));
            }
            result => result?,
        };
        let stat = self.within(&fd)?;
        if u32::from(stat.stx_mode) & Mode::RWXU.bits() != Mode::RWXU.bits() {
            // A caller that is not the owner may have the right by other means; if not, the removal fails later.
            let _ = rustix::fs::fchmod(&fd, opened_up(&stat));
        }
        Ok(fd)
    }

    /// The attributes of a directory; fails with `EXDEV` if it is in another mount.
    fn within(&self, fd: &OwnedFd) -> Result<Statx> {
        let stat = stat(fd)?;
        match mount(&stat) == self.mount {
            true => Ok(stat),
            false => Err(Errno::XDEV),
        }
    }

    fn empty(&mut self) -> std::result::Result<(), Stop> {
        let fd = self.trail.current().clone();
        let mut buffer = std::mem::take(&mut self.buffer);
        let ended = read_dir::read(&*fd, &mut buffer, |entry| {
            if let Err(stop) = self.go_on() {
                return ControlFlow::Break(stop);
            }
            match entry.kind() {
                FileType::Directory => self.wait(entry.name()),
                _ => self.unlink(entry.name()),
            }
            ControlFlow::Continue(())
        });
        self.buffer = buffer;
        match ended {
            Ok(ControlFlow::Break(stop)) => return Err(stop),
            // `ENOENT`: another process has removed the directory.
            Ok(ControlFlow::Continue(())) | Err(Errno::NOENT) => {}
            Err(errno) => self.fail("list", errno, OsStr::new("")),
        }
        Ok(())
    }

    /// Returns to the parent directory, and removes the directory that was left.
    fn up(&mut self) -> std::result::Result<(), Stop> {
        let Some(left) = self.above.pop() else {
            return Ok(());
        };
        if self.above.is_empty() {
            return Ok(());
        }
        self.trail.up().map_err(Stop::Astray)?;
        if left.stays {
            self.stay();
            return Ok(());
        }
        let dir = &**self.trail.current();
        match rustix::fs::unlinkat(dir, &*left.name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(Errno::NOTDIR) => self.unlink(&left.name),
            Err(Errno::NOTEMPTY | Errno::EXIST) if left.tries < TRIES => {
                self.down(left.name, left.tries + 1)?;
            }
            Err(errno) => self.fail("remove", errno, &left.name),
        }
        Ok(())
    }

    /// Records that the current directory cannot be removed.
    fn stay(&mut self) {
        if let Some(here) = self.above.last_mut() {
            here.stays = true;
        }
    }

    /// Records an error of an entry of the current directory, or of the directory itself if `name` is empty.
    fn fail(&mut self, operation: &'static str, errno: Errno, name: &OsStr) {
        self.stay();
        let above = &self.above;
        self.first.get_or_insert_with(|| {
            let names = above.iter().map(|above| &*above.name).chain([name]);
            let path: PathBuf = names.filter(|name| !name.is_empty()).collect();
            failure(operation, errno).at(path)
        });
    }
}

fn failure(operation: &'static str, errno: Errno) -> Failure {
    Failure::Io(Side::Removed, operation, errno)
}

/// A directory's mode, with all rights for its owner.
fn opened_up(stat: &Statx) -> Mode {
    Mode::from_raw_mode(stat.stx_mode.into()) | Mode::RWXU
}

fn stat(fd: impl AsFd) -> Result<Statx> {
    let wanted = StatxFlags::BASIC_STATS | StatxFlags::MNT_ID;
    rustix::fs::statx(fd, "", AtFlags::EMPTY_PATH, wanted)
}

/// The mount of a file. Before Linux 5.8 only its file system is known.
fn mount(stat: &Statx) -> (u64, u32, u32) {
    match StatxFlags::from_bits_retain(stat.stx_mask).contains(StatxFlags::MNT_ID) {
        true => (stat.stx_mnt_id, 0, 0),
        false => (0, stat.stx_dev_major, stat.stx_dev_minor),
    }
}
