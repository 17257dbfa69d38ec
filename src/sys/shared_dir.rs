//! Creates directories and files that several users share, with exact rights and a group, independent of the umask.

use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{Access, AtFlags, Gid, Mode, OFlags, Statx, accessat};
use rustix::io::{Errno, Result};

use super::at::{absent, open_dir, open_dirs, stat_fd};

/// Opens a directory, or creates it with exactly these rights and the group of `dir` ([`share`]).
///
/// # Errors
///
/// `ENOTDIR` if the name is that of another kind of file; as `mkdirat`, `fchown` and `fchmod`.
pub fn make_dir(dir: impl AsFd, name: &OsStr, rights: Mode) -> Result<OwnedFd> {
    if let Some(found) = absent(open_dir(&dir, name))? {
        await_shared(&found);
        return Ok(found);
    }
    let group = rustix::fs::fstat(&dir)?.st_gid;
    make_shared(dir, name, group, rights)
}

/// As [`make_dir`], with a specified group.
///
/// # Errors
///
/// As [`make_dir`].
pub fn make_shared(dir: impl AsFd, name: &OsStr, group: u32, rights: Mode) -> Result<OwnedFd> {
    if let Some(found) = absent(open_dir(&dir, name))? {
        await_shared(&found);
        return Ok(found);
    }
    match rustix::fs::mkdirat(&dir, name, rights) {
        Ok(()) => {
            // Sets the rights whatever the umask, and through a descriptor: a symlink of this name is not followed.
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let made = rustix::fs::openat(&dir, name, flags, Mode::empty())?;
            share(&made, group, rights)?;
        }
        Err(Errno::EXIST) => {}
        Err(error) => return Err(error),
    }
    let made = open_dir(&dir, name)?;
    await_shared(&made);
    Ok(made)
}

/// As [`open_dirs`], and waits for each directory as [`await_shared`].
///
/// # Errors
///
/// As [`open_dirs`].
pub fn open_shared<'a>(
    dir: impl AsFd,
    names: impl Iterator<Item = &'a OsStr> + Clone,
) -> Result<OwnedFd> {
    match open_dirs(&dir, names.clone()) {
        Ok(found) => {
            await_shared(&found);
            return Ok(found);
        }
        Err(Errno::ACCESS) => {}
        Err(error) => return Err(error),
    }
    let mut here = rustix::io::fcntl_dupfd_cloexec(&dir, 0)?;
    for name in names {
        here = open_dir(&here, name)?;
        await_shared(&here);
    }
    Ok(here)
}

/// How often, and how long each time, [`await_shared`] waits: in all not much longer than a directory is new.
const DENIALS_MAX: u32 = 200;
const DENIAL_PAUSE: Duration = Duration::from_millis(10);

/// A directory that was changed longer ago, in seconds, is not new.
const NEW: i64 = 2;

/// Waits until this process may enter a directory that a process of another user has just created: until that process
/// has called [`share`], its umask and group exclude other users. Returns at once in any other case, also where access
/// is denied permanently.
pub fn await_shared(dir: impl AsFd) {
    for _ in 0..DENIALS_MAX {
        let entered = accessat(&dir, ".", Access::EXEC_OK, AtFlags::EACCESS);
        if entered != Err(Errno::ACCESS) || !stat_fd(&dir).is_ok_and(|stat| is_new(&stat)) {
            return;
        }
        std::thread::sleep(DENIAL_PAUSE);
    }
}

/// Whether a file was created or changed so recently that the process which did so may not have finished.
pub fn is_new(stat: &Statx) -> bool {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.is_ok_and(|now| now.as_secs().cast_signed() - stat.stx_ctime.tv_sec < NEW)
}

/// Sets the group and the rights of a file or directory that this process has just created, independent of the umask.
/// If the group cannot be set, the file's own group gets no more rights than all users. On a disk without rights (vfat,
/// exfat, CIFS), this has no effect.
///
/// # Errors
///
/// As `fstat` and `fchmod`.
pub fn share(made: impl AsFd, group: u32, rights: Mode) -> Result<()> {
    let stat = rustix::fs::fstat(&made)?;
    let has_group =
        stat.st_gid == group || rustix::fs::fchown(&made, None, Some(Gid::from_raw(group))).is_ok();
    let rights = match has_group {
        true => rights,
        false => limit_group(rights),
    };
    if Mode::from_raw_mode(stat.st_mode & 0o7777) == rights && stat.st_gid == group {
        return Ok(());
    }
    match rustix::fs::fchmod(&made, rights) {
        Err(Errno::PERM | Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
        result => result,
    }
}

/// Returns rights in which the group has no more than all users, without set-group-ID.
fn limit_group(rights: Mode) -> Mode {
    let others = Mode::from_raw_mode((rights & Mode::RWXO).as_raw_mode() << 3);
    (rights - Mode::RWXG - Mode::SGID) | (rights & others)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs work as the user `nobody`, in a separate thread.
    fn as_unprivileged<T: Send>(work: impl FnOnce() -> T + Send) -> T {
        use rustix::thread::{Gid, Uid};
        let (uid, gid) = (Uid::from_raw(65534), Gid::from_raw(65534));
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                rustix::thread::set_thread_groups(&[]).unwrap();
                rustix::thread::set_thread_res_gid(Some(gid), Some(gid), Some(gid)).unwrap();
                rustix::thread::set_thread_res_uid(Some(uid), Some(uid), Some(uid)).unwrap();
                work()
            });
            thread.join().unwrap()
        })
    }

    #[test]
    fn new_directories_of_another_user_on_the_way_are_waited_for() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("SKIPPED: needs root");
            return;
        }
        let top = tempfile::tempdir().unwrap();
        let names = ["manifests", "task"];
        let path = |depth: usize| {
            names[..depth]
                .iter()
                .fold(top.path().to_owned(), |at, name| at.join(name))
        };
        std::fs::create_dir_all(path(2)).unwrap();
        let rights =
            |depth, mode| rustix::fs::chmod(path(depth), Mode::from_raw_mode(mode)).unwrap();
        rights(0, 0o755);
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let dir = rustix::fs::open(top.path(), flags, Mode::empty()).unwrap();
        let opens = || {
            let opened = open_shared(&dir, names.iter().map(OsStr::new))?;
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::CLOEXEC;
            rustix::fs::openat(&opened, "file", flags, Mode::RUSR)
        };
        for new in [1, 2] {
            rights(1, 0o777);
            rights(2, 0o777);
            rights(new, 0o700);
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    std::thread::sleep(DENIAL_PAUSE * 3);
                    rights(new, 0o777);
                });
                let opened = as_unprivileged(opens);
                assert!(opened.is_ok(), "{new}: {opened:?}");
            });
            std::fs::remove_file(path(2).join("file")).unwrap();
        }
    }

    #[test]
    fn new_directory_of_another_user_is_waited_for() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("SKIPPED: needs root");
            return;
        }
        let top = tempfile::tempdir().unwrap();
        let made =
            rustix::fs::open(top.path(), OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap();
        let rights = |mode| rustix::fs::chmod(top.path(), Mode::from_raw_mode(mode)).unwrap();
        let may_enter = || accessat(&made, ".", Access::EXEC_OK, AtFlags::EACCESS).is_ok();
        rights(0o700);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(DENIAL_PAUSE * 3);
                rights(0o755);
            });
            let waited = as_unprivileged(|| {
                let before = may_enter();
                await_shared(&made);
                (before, may_enter())
            });
            assert_eq!(waited, (false, true));
        });
    }
}
