//! Opening names below a descriptor without ever leaving it.
//!
//! Every name is opened relative to the descriptor of its directory, one component at a time or
//! in a walk of the kernel's that does not leave the directory, and a symlink is never followed. What a hostile process does to the names meanwhile can therefore
//! make an operation fail, but cannot lead it out of the directory.

use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{Access, AtFlags, Gid, Mode, OFlags, ResolveFlags, Statx, StatxFlags, accessat};
use rustix::io::{Errno, Result};

/// What every opening here asks for.
const DIRECTORY: OFlags = OFlags::PATH
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// Whether a name is one component: not empty, no slash, neither `.` nor `..`.
pub fn is_component(name: &OsStr) -> bool {
    let bytes = name.as_bytes();
    !bytes.is_empty() && bytes != b"." && bytes != b".." && !bytes.contains(&b'/')
}

/// A descriptor of the directory `name` in `dir`, for use in later calls (`O_PATH`).
///
/// # Errors
///
/// `ENOTDIR` for anything but a directory, symlinks to directories included; what `openat` gives.
pub fn open_dir(dir: impl AsFd, name: &OsStr) -> Result<OwnedFd> {
    component(name)?;
    // With O_PATH and O_NOFOLLOW, O_DIRECTORY makes a symlink fail with ENOTDIR.
    rustix::fs::openat(dir, name, DIRECTORY, Mode::empty())
}

/// A descriptor of the directory that several names lead to, one below the other, as [`open_dir`]
/// would open them one by one: in one step where the kernel can (`openat2`).
///
/// # Errors
///
/// See [`open_dir`].
pub fn open_dirs<'a>(
    dir: impl AsFd,
    names: impl Iterator<Item = &'a OsStr> + Clone,
) -> Result<OwnedFd> {
    let mut path = PathBuf::new();
    for name in names.clone() {
        component(name)?;
        path.push(name);
    }
    let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    match rustix::fs::openat2(&dir, &path, DIRECTORY, Mode::empty(), beneath) {
        Ok(fd) => return Ok(fd),
        Err(Errno::NOENT) => return Err(Errno::NOENT),
        // A kernel or a sandbox that lacks the call; or the error is another's name here.
        Err(_) => {}
    }
    let mut dir = rustix::io::fcntl_dupfd_cloexec(dir, 0)?;
    for name in names {
        dir = open_dir(&dir, name)?;
    }
    Ok(dir)
}

/// Opens a directory, and makes it with exactly these rights and the group of `dir` if there is none ([`share`]).
///
/// # Errors
///
/// `ENOTDIR` if something else is in the way; what making it gives.
pub fn make_dir(dir: impl AsFd, name: &OsStr, rights: Mode) -> Result<OwnedFd> {
    if let Some(found) = absent(open_dir(&dir, name))? {
        await_shared(&found);
        return Ok(found);
    }
    let group = rustix::fs::fstat(&dir)?.st_gid;
    make_shared(dir, name, group, rights)
}

/// The same, with a group of its own.
///
/// # Errors
///
/// See [`make_dir`].
pub fn make_shared(dir: impl AsFd, name: &OsStr, group: u32, rights: Mode) -> Result<OwnedFd> {
    if let Some(found) = absent(open_dir(&dir, name))? {
        await_shared(&found);
        return Ok(found);
    }
    match rustix::fs::mkdirat(&dir, name, rights) {
        Ok(()) => {
            // The umask is not the workspace's business here. Through a descriptor, so that nobody
            // can put a symlink in the way.
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
/// What `fstat` and `fchmod` give.
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

/// The attributes of `name` in `dir`, never of what a symlink points to.
///
/// # Errors
///
/// What `statx` gives.
pub fn stat(dir: impl AsFd, name: &OsStr) -> Result<Statx> {
    component(name)?;
    stat_at(dir, name)
}

/// Like [`stat`], but `name` may also be `.`.
pub(crate) fn stat_at(dir: impl AsFd, name: &OsStr) -> Result<Statx> {
    rustix::fs::statx(
        dir,
        name,
        AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT,
        StatxFlags::BASIC_STATS | StatxFlags::BTIME,
    )
}

/// The attributes of an open descriptor.
///
/// # Errors
///
/// What `statx` gives.
pub fn stat_fd(fd: impl AsFd) -> Result<Statx> {
    rustix::fs::statx(
        fd,
        "",
        AtFlags::EMPTY_PATH,
        StatxFlags::BASIC_STATS | StatxFlags::BTIME,
    )
}

/// Whether the attributes are a directory's.
pub fn is_dir(stat: &Statx) -> bool {
    u32::from(stat.stx_mode) & libc::S_IFMT == libc::S_IFDIR
}

/// Whether the attributes are a symlink's.
pub fn is_symlink(stat: &Statx) -> bool {
    u32::from(stat.stx_mode) & libc::S_IFMT == libc::S_IFLNK
}

/// What an open file or directory is: its device, and its inode number there.
pub fn identity(fd: impl AsFd) -> Result<(u32, u32, u64)> {
    let stat = stat_fd(fd)?;
    Ok((stat.stx_dev_major, stat.stx_dev_minor, stat.stx_ino))
}

/// Turns "there is no such thing" into `None`.
pub fn absent<T>(result: Result<T>) -> Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(error) => Err(error),
    }
}

fn component(name: &OsStr) -> Result<()> {
    if is_component(name) {
        Ok(())
    } else {
        Err(Errno::INVAL)
    }
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
        let made = rustix::fs::open(top.path(), DIRECTORY, Mode::empty()).unwrap();
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

    #[test]
    fn only_single_components_are_names() {
        for bad in ["", ".", "..", "a/b", "/", "../x"] {
            assert!(!is_component(OsStr::new(bad)), "{bad:?}");
        }
        for good in ["a", "...", ".x", "a b", "\u{e9}"] {
            assert!(is_component(OsStr::new(good)), "{good:?}");
        }
    }

    #[test]
    fn a_symlink_to_a_directory_is_not_opened() {
        let top = tempfile::tempdir().unwrap();
        std::fs::create_dir(top.path().join("real")).unwrap();
        std::os::unix::fs::symlink("real", top.path().join("link")).unwrap();
        let dir = std::fs::File::open(top.path()).unwrap();
        assert!(open_dir(&dir, OsStr::new("real")).is_ok());
        assert_eq!(
            open_dir(&dir, OsStr::new("link")).unwrap_err(),
            Errno::NOTDIR
        );
        assert_eq!(
            open_dir(&dir, OsStr::new("../real")).unwrap_err(),
            Errno::INVAL
        );
    }

    #[test]
    fn several_names_are_opened_as_one_by_one() {
        let top = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(top.path().join("a/b/c")).unwrap();
        std::fs::write(top.path().join("a/file"), "").unwrap();
        std::os::unix::fs::symlink("b", top.path().join("a/link")).unwrap();
        let dir = std::fs::File::open(top.path()).unwrap();
        let open = |path: &str| open_dirs(&dir, path.split('/').map(OsStr::new));
        let opened = stat_fd(open("a/b/c").unwrap()).unwrap();
        let there = rustix::fs::stat(top.path().join("a/b/c")).unwrap();
        assert_eq!(opened.stx_ino, there.st_ino);
        for (path, error) in [
            ("a/gone/c", Errno::NOENT),
            ("a/file/c", Errno::NOTDIR),
            ("a/link/c", Errno::NOTDIR),
            ("a/b/link", Errno::NOENT),
            ("a/../a", Errno::INVAL),
        ] {
            assert_eq!(open(path).unwrap_err(), error, "{path}");
        }
    }
}
