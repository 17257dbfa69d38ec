//! Directories and files that several users share: made with exact rights and a group, whatever the umask.

use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{Access, AtFlags, Gid, Mode, OFlags, Statx, accessat};
use rustix::io::{Errno, Result};

use super::at::{absent, open_dir, stat_fd};

/// Opens a directory, or makes it with exactly these rights and the group of `dir` ([`share`]).
///
/// # Errors
///
/// `ENOTDIR` if something else is in the way; as `mkdirat`, `fchown` and `fchmod`.
pub fn make_dir(dir: impl AsFd, name: &OsStr, rights: Mode) -> Result<OwnedFd> {
    if let Some(found) = absent(open_dir(&dir, name))? {
        await_shared(&found);
        return Ok(found);
    }
    let group = rustix::fs::fstat(&dir)?.st_gid;
    make_shared(dir, name, group, rights)
}

/// As [`make_dir`], with a given group.
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
            // Sets the rights whatever the umask, and through a descriptor: a symlink in the way is not followed.
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

/// How often, and how long each time, a directory that another process has just made is waited for.
const DENIALS_MAX: u32 = 20;
const DENIAL_PAUSE: Duration = Duration::from_millis(10);

/// A directory is no longer new that was changed so long ago, in seconds.
const NEW: i64 = 2;

/// Waits until this process may enter a directory that another user's process has just made: for a moment, before [`share`],
/// its umask and its group keep others out. Returns at once in any other case, also where access is denied for good.
pub fn await_shared(dir: impl AsFd) {
    for _ in 0..DENIALS_MAX {
        let entered = accessat(&dir, ".", Access::EXEC_OK, AtFlags::EACCESS);
        if entered != Err(Errno::ACCESS) || !stat_fd(&dir).is_ok_and(|stat| is_new(&stat)) {
            return;
        }
        std::thread::sleep(DENIAL_PAUSE);
    }
}

/// Whether something was made or changed so short a time ago that the process that did it may not be done.
pub fn is_new(stat: &Statx) -> bool {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.is_ok_and(|now| now.as_secs().cast_signed() - stat.stx_ctime.tv_sec < NEW)
}

/// Gives a file or directory that this process has just made a group and rights, whatever the umask. Where it cannot have
/// the group, its own group gets no more than all others. A disk that keeps no rights of its own (vfat, exfat, CIFS) decides itself.
///
/// # Errors
///
/// As `fstat` and `fchmod`.
pub fn share(made: impl AsFd, group: u32, rights: Mode) -> Result<()> {
    let stat = rustix::fs::fstat(&made)?;
    let given =
        stat.st_gid == group || rustix::fs::fchown(&made, None, Some(Gid::from_raw(group))).is_ok();
    let rights = match given {
        true => rights,
        false => like_others(rights),
    };
    if Mode::from_raw_mode(stat.st_mode & 0o7777) == rights && stat.st_gid == group {
        return Ok(());
    }
    match rustix::fs::fchmod(&made, rights) {
        Err(Errno::PERM | Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
        result => result,
    }
}

/// Rights with those of others in place of the group's, and without set-group-ID.
fn like_others(rights: Mode) -> Mode {
    let others = Mode::from_raw_mode((rights & Mode::RWXO).as_raw_mode() << 3);
    (rights - Mode::RWXG - Mode::SGID) | (rights & others)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the user `nobody`, in a thread of its own.
    fn as_nobody<T: Send>(work: impl FnOnce() -> T + Send) -> T {
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
    fn a_directory_that_another_user_has_just_made_is_waited_for() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("SKIPPED: only root can do this");
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
            let waited = as_nobody(|| {
                let before = may_enter();
                await_shared(&made);
                (before, may_enter())
            });
            assert_eq!(waited, (false, true));
        });
    }
}
