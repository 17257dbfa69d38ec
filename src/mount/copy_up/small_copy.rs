//! Copies an internal file of an archived job to the primary; the file gets its name once complete.
//!
//! Not every disk supports every way of doing that, so the following are tried in turn:
//!
//! 1. a file without a name (`O_TMPFILE`), which gets its name by `link`. NFS, CIFS, Lustre and FUSE lack such files;
//! 2. an empty file, as locks are, is complete from the start: it is created under its name;
//! 3. a file under a temporary name beside the jobs' directories, which gets its name by `link`;
//! 4. or, where there are no hard links (vfat, exfat), by `renameat2` with `RENAME_NOREPLACE`.
//!
//! None of them replaces a file that another process has created meanwhile: that file may be locked.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, RenameFlags, Statx, renameat_with};
use rustix::io::{Errno, Result};

use crate::sys::{at, shared_dir};

/// Accessible only to the owner until it is complete.
const PRIVATE: Mode = Mode::from_raw_mode(0o600);

/// Numbers the staged files of this process.
static STAGED: AtomicU64 = AtomicU64::new(0);

/// Copies an open file to `name` in `dir`, and returns the attributes of the file there: the copy, or a file that
/// another process created first. A file that needs a temporary name gets one in `aside`, on the same disk.
///
/// # Errors
///
/// The error of the disk.
pub(super) fn copy(from: &OwnedFd, dir: &OwnedFd, name: &OsStr, aside: &OwnedFd) -> Result<Statx> {
    let made = match unnamed(from, dir, name) {
        Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL | Errno::ISDIR | Errno::PERM) => {
            match at::stat_fd(from)?.stx_size {
                0 => empty(dir, name),
                _ => staged(from, dir, name, aside),
            }
        }
        result => result,
    };
    match made {
        // Another process was faster; its file is the job's now.
        Ok(()) | Err(Errno::EXIST) => at::stat(dir, name),
        Err(error) => Err(error),
    }
}

fn unnamed(from: &OwnedFd, dir: &OwnedFd, name: &OsStr) -> Result<()> {
    let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC;
    let to = rustix::fs::openat(dir, ".", flags, PRIVATE)?;
    fill(from, &to, dir)?;
    rustix::fs::linkat(CWD, at::proc_path(&to), dir, name, AtFlags::SYMLINK_FOLLOW)
}

fn empty(dir: &OwnedFd, name: &OsStr) -> Result<()> {
    share(&create(dir, name)?, dir)
}

fn staged(from: &OwnedFd, dir: &OwnedFd, name: &OsStr, aside: &OwnedFd) -> Result<()> {
    let number = STAGED.fetch_add(1, Ordering::Relaxed);
    let process = rustix::process::getpid().as_raw_nonzero();
    // Machines that share the disk may have processes of the same number.
    let node = rustix::system::uname();
    let host = node.nodename().to_string_lossy().replace('/', "-");
    let temporary = OsString::from(format!(".new.{host}.{process}.{number}"));
    // The leftover of an earlier process of this number, which was killed.
    let _ = rustix::fs::unlinkat(aside, &temporary, AtFlags::empty());
    let to = create(aside, &temporary)?;
    let done = fill(from, &to, dir).and_then(|()| {
        match rustix::fs::linkat(aside, &temporary, dir, name, AtFlags::empty()) {
            Err(Errno::PERM | Errno::OPNOTSUPP | Errno::NOSYS | Errno::MLINK) => {
                renameat_with(aside, &temporary, dir, name, RenameFlags::NOREPLACE)
            }
            result => result,
        }
    });
    let _ = rustix::fs::unlinkat(aside, &temporary, AtFlags::empty());
    done
}

fn create(dir: &OwnedFd, name: &OsStr) -> Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(dir, name, flags, PRIVATE)
}

/// As experimaestro's `lock_mode: inherit`: the users who may write in the workspace may write this file.
fn share(file: impl AsFd, dir: &OwnedFd) -> Result<()> {
    let workspace = rustix::fs::fstat(dir)?;
    let rights = Mode::from_raw_mode(workspace.st_mode & 0o666) | PRIVATE;
    shared_dir::share(file, workspace.st_gid, rights)
}

fn fill(from: &OwnedFd, to: &OwnedFd, dir: &OwnedFd) -> Result<()> {
    share(to, dir)?;
    let mut buffer = vec![0; 64 * 1024];
    let mut offset = 0;
    loop {
        let count = rustix::io::pread(from, &mut *buffer, offset)?;
        if count == 0 {
            return Ok(());
        }
        let mut rest = buffer.get(..count).ok_or(Errno::IO)?;
        while !rest.is_empty() {
            let written = rustix::io::write(to, rest)?;
            rest = rest.get(written..).ok_or(Errno::IO)?;
        }
        offset += count as u64;
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// A way to give a file its name.
    type Way = fn(&OwnedFd, &OwnedFd, &OsStr, &OwnedFd) -> Result<()>;

    #[test]
    fn each_way_makes_the_same_file_and_replaces_none() {
        let ways: [(&str, Way); 2] = [
            ("unnamed", |from, dir, name, _| unnamed(from, dir, name)),
            ("staged", staged),
        ];
        for (what, way) in ways {
            let top = tempfile::tempdir().unwrap();
            for name in ["dir", "aside"] {
                fs::create_dir(top.path().join(name)).unwrap();
            }
            let open = |name: &str| OwnedFd::from(File::open(top.path().join(name)).unwrap());
            fs::set_permissions(top.path().join("dir"), fs::Permissions::from_mode(0o775)).unwrap();
            let contents = vec![7; 100_000];
            fs::write(top.path().join("from"), &contents).unwrap();
            let (from, dir, aside) = (open("from"), open("dir"), open("aside"));
            let name = OsStr::new("train.pid");
            way(&from, &dir, name, &aside).unwrap_or_else(|error| panic!("{what}: {error}"));
            let made = top.path().join("dir/train.pid");
            assert_eq!(fs::read(&made).unwrap(), contents, "{what}");
            let mode = fs::metadata(&made).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o664, "{what}");
            fs::write(&made, "another's").unwrap();
            assert_eq!(way(&from, &dir, name, &aside), Err(Errno::EXIST), "{what}");
            assert_eq!(empty(&dir, name), Err(Errno::EXIST));
            assert_eq!(fs::read(&made).unwrap(), b"another's", "{what}");
            assert_eq!(fs::read_dir(top.path().join("aside")).unwrap().count(), 0);
        }
    }
}
