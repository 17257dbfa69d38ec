//! Copies an internal file of an archived job to the primary; the file gets its name once complete.
//!
//! Not every disk supports every way of doing that, so the following are tried in turn:
//!
//! 1. a file without a name (`O_TMPFILE`), which gets its name by `link`. NFS, CIFS, Lustre and FUSE lack such files;
//! 2. a file under a temporary name beside the jobs' directories, which gets its name by `link`;
//! 3. or, where there are no hard links (vfat, exfat), by `renameat2` with `RENAME_NOREPLACE`;
//! 4. an empty file, as locks are, can be created under its name. This comes last, since other users may find the file
//!    before it has its rights.
//!
//! None of them replaces a file that another process has created meanwhile: that file may be locked. The group and the
//! rights are given by the caller: another process may be creating the file's directory, which has its own only later.

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

/// The group and the rights of a copy.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sharing {
    group: u32,
    rights: Mode,
}

impl Sharing {
    /// As experimaestro's `lock_mode: inherit`: the users who may write in the workspace may write the file.
    ///
    /// # Errors
    ///
    /// The error of the disk.
    pub(super) fn of(workspace: impl AsFd) -> Result<Sharing> {
        let workspace = rustix::fs::fstat(workspace)?;
        Ok(Sharing {
            group: workspace.st_gid,
            rights: Mode::from_raw_mode(workspace.st_mode & 0o666) | PRIVATE,
        })
    }

    fn apply(self, file: impl AsFd) -> Result<()> {
        shared_dir::share(file, self.group, self.rights)
    }
}

/// Copies an open file to `name` in a directory, and returns the directory and the attributes of the file there: the copy, or a file that
/// another process created first. `dir` returns the directory, and is called when the contents have been read: until the directory is
/// dropped, others may have to wait. The copy is made in `aside`, on the same disk.
///
/// # Errors
///
/// The error of the disk, or of `dir`.
pub(super) fn copy<D: AsFd>(
    from: &OwnedFd,
    aside: &OwnedFd,
    name: &OsStr,
    sharing: Sharing,
    dir: &impl Fn() -> Result<D>,
) -> Result<(D, Statx)> {
    let made = match unnamed(from, aside, name, sharing, dir) {
        Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL | Errno::ISDIR | Errno::PERM) => {
            named(from, aside, name, sharing, dir)
        }
        result => result,
    };
    let dir = match made {
        // Another process was faster; its file is the job's now.
        Err(Errno::EXIST) => dir()?,
        made => made?,
    };
    let stat = at::stat(&dir, name)?;
    Ok((dir, stat))
}

fn unnamed<D: AsFd>(
    from: &OwnedFd,
    aside: &OwnedFd,
    name: &OsStr,
    sharing: Sharing,
    dir: &impl Fn() -> Result<D>,
) -> Result<D> {
    let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC;
    let to = rustix::fs::openat(aside, ".", flags, PRIVATE)?;
    fill(from, &to, sharing)?;
    let dir = dir()?;
    rustix::fs::linkat(CWD, at::proc_path(&to), &dir, name, AtFlags::SYMLINK_FOLLOW)?;
    Ok(dir)
}

fn named<D: AsFd>(
    from: &OwnedFd,
    aside: &OwnedFd,
    name: &OsStr,
    sharing: Sharing,
    dir: &impl Fn() -> Result<D>,
) -> Result<D> {
    match staged(from, aside, name, sharing, dir) {
        // The disk has neither hard links nor `RENAME_NOREPLACE`, as CIFS.
        Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL | Errno::PERM)
            if at::stat_fd(from)?.stx_size == 0 =>
        {
            let dir = dir()?;
            sharing.apply(create(&dir, name)?)?;
            Ok(dir)
        }
        result => result,
    }
}

fn staged<D: AsFd>(
    from: &OwnedFd,
    aside: &OwnedFd,
    name: &OsStr,
    sharing: Sharing,
    dir: &impl Fn() -> Result<D>,
) -> Result<D> {
    let number = STAGED.fetch_add(1, Ordering::Relaxed);
    let process = rustix::process::getpid().as_raw_nonzero();
    // Machines that share the disk may have processes of the same number.
    let node = rustix::system::uname();
    let host = node.nodename().to_string_lossy().replace('/', "-");
    let temporary = OsString::from(format!(".new.{host}.{process}.{number}"));
    // The leftover of an earlier process of this number, which was killed.
    let _ = rustix::fs::unlinkat(aside, &temporary, AtFlags::empty());
    let to = create(aside, &temporary)?;
    let done = fill(from, &to, sharing).and_then(|()| {
        let dir = dir()?;
        match rustix::fs::linkat(aside, &temporary, &dir, name, AtFlags::empty()) {
            Err(Errno::PERM | Errno::OPNOTSUPP | Errno::NOSYS | Errno::MLINK) => {
                renameat_with(aside, &temporary, &dir, name, RenameFlags::NOREPLACE)
            }
            result => result,
        }?;
        Ok(dir)
    });
    let _ = rustix::fs::unlinkat(aside, &temporary, AtFlags::empty());
    done
}

fn create(dir: impl AsFd, name: &OsStr) -> Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(dir, name, flags, PRIVATE)
}

fn fill(from: &OwnedFd, to: &OwnedFd, sharing: Sharing) -> Result<()> {
    sharing.apply(to)?;
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

    /// A method to create a file under its name.
    type Method = fn(&OwnedFd, &OwnedFd, &OsStr, &OwnedFd, Sharing) -> Result<()>;

    const METHODS: [(&str, Method); 3] = [
        ("unnamed", |from, dir, name, aside, sharing| {
            unnamed(from, aside, name, sharing, &|| Ok(dir)).map(drop)
        }),
        ("named", |from, dir, name, aside, sharing| {
            named(from, aside, name, sharing, &|| Ok(dir)).map(drop)
        }),
        ("staged", |from, dir, name, aside, sharing| {
            staged(from, aside, name, sharing, &|| Ok(dir)).map(drop)
        }),
    ];

    /// A workspace of a group, with a directory that does not have the rights of the group yet.
    fn workspace() -> (tempfile::TempDir, impl Fn(&str) -> OwnedFd) {
        let top = tempfile::tempdir().unwrap();
        for (name, mode) in [("", 0o775), ("dir", 0o700), ("aside", 0o775)] {
            let path = top.path().join(name);
            fs::create_dir_all(&path).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        }
        let path = top.path().to_owned();
        let open = move |name: &str| OwnedFd::from(File::open(path.join(name)).unwrap());
        (top, open)
    }

    #[test]
    fn every_method_creates_same_file_and_replaces_none() {
        for (what, method) in METHODS {
            let (top, open) = workspace();
            let contents = vec![7; 100_000];
            fs::write(top.path().join("from"), &contents).unwrap();
            let (from, dir, aside) = (open("from"), open("dir"), open("aside"));
            let sharing = Sharing::of(open("")).unwrap();
            let name = OsStr::new("train.pid");
            method(&from, &dir, name, &aside, sharing)
                .unwrap_or_else(|error| panic!("{what}: {error}"));
            let made = top.path().join("dir/train.pid");
            assert_eq!(fs::read(&made).unwrap(), contents, "{what}");
            let mode = fs::metadata(&made).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o664, "{what}");
            fs::write(&made, "another's").unwrap();
            let again = method(&from, &dir, name, &aside, sharing);
            assert_eq!(again, Err(Errno::EXIST), "{what}");
            assert_eq!(fs::read(&made).unwrap(), b"another's", "{what}");
            assert_eq!(fs::read_dir(top.path().join("aside")).unwrap().count(), 0);
        }
    }

    /// Another user of the workspace who opens a lock in the moment of its creation must not be refused.
    #[test]
    fn a_lock_has_its_rights_before_its_name() {
        for (what, method) in METHODS {
            let (top, open) = workspace();
            fs::write(top.path().join("from"), "").unwrap();
            let (from, dir, aside) = (open("from"), open("dir"), open("aside"));
            let sharing = Sharing::of(open("")).unwrap();
            let latest = AtomicU64::new(0);
            let rounds = 2000;
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    let mut next = 0;
                    while next < rounds {
                        let Ok(found) = at::stat(&dir, OsStr::new(&next.to_string())) else {
                            next = next.max(latest.load(Ordering::Acquire));
                            continue;
                        };
                        assert_eq!(found.stx_mode & 0o777, 0o664, "{what}");
                        next += 1;
                    }
                });
                for round in 0..rounds {
                    latest.store(round, Ordering::Release);
                    let name = round.to_string();
                    method(&from, &dir, OsStr::new(&name), &aside, sharing).unwrap();
                }
            });
        }
    }
}
