//! Opens and examines files and directories below a descriptor, without leaving it.
//!
//! Each name is opened relative to the descriptor of its directory: one component at a time, or several by the kernel's
//! own walk that stays in the directory (`openat2`). A symlink is never followed, except by [`stat_path`], which takes any path. A hostile process that renames things
//! meanwhile can make an operation fail, but cannot lead it out of the directory.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, Mode, OFlags, RenameFlags, ResolveFlags, Statx, StatxFlags, fcntl_getfl,
    fcntl_setfl, renameat, renameat_with,
};
use rustix::io::{Errno, Result};

use super::file_id::FileId;

/// How a directory is opened for use in later calls.
const DIRECTORY: OFlags = OFlags::PATH
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// The attributes that every `statx` asks for: those of a [`FileId`] among them.
const WANTED: StatxFlags = StatxFlags::BASIC_STATS.union(StatxFlags::BTIME);

/// Whether a name is one component: not empty, no slash, neither `.` nor `..`.
pub fn is_component(name: &OsStr) -> bool {
    let bytes = name.as_bytes();
    !bytes.is_empty() && bytes != b"." && bytes != b".." && !bytes.contains(&b'/')
}

/// A descriptor of the directory `name` in `dir`, for use in later calls (`O_PATH`).
///
/// # Errors
///
/// `ENOTDIR` for anything but a directory, symlinks to directories included; as `openat`.
pub fn open_dir(dir: impl AsFd, name: &OsStr) -> Result<OwnedFd> {
    component(name)?;
    // With O_PATH and O_NOFOLLOW, O_DIRECTORY makes a symlink fail with ENOTDIR.
    rustix::fs::openat(dir, name, DIRECTORY, Mode::empty())
}

/// Opens the file that a relative path leads to, one or several names below `dir`, without following symlinks: in one step where the
/// kernel can (`openat2`).
///
/// # Errors
///
/// `EINVAL` for a path with other components than names; as `openat`.
pub fn open_below(dir: impl AsFd, path: &Path, flags: OFlags) -> Result<OwnedFd> {
    let mut names = Vec::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => names.push(name),
            _ => return Err(Errno::INVAL),
        }
    }
    let last = names.pop().ok_or(Errno::INVAL)?;
    let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    match rustix::fs::openat2(&dir, path, flags, Mode::empty(), beneath) {
        Ok(fd) => return Ok(fd),
        Err(Errno::NOENT) => return Err(Errno::NOENT),
        // As in `open_dirs`.
        Err(_) => {}
    }
    let dir = open_dirs(dir, names.into_iter())?;
    rustix::fs::openat(dir, last, flags, Mode::empty())
}

/// The attributes of the entry that a relative path leads to, never of what a symlink points to.
///
/// # Errors
///
/// As [`open_below`].
pub fn stat_below(dir: impl AsFd, path: &Path) -> Result<Statx> {
    match is_component(path.as_os_str()) {
        true => stat_at(dir, path.as_os_str()),
        false => stat_fd(open_below(dir, path, OFlags::PATH)?),
    }
}

/// A descriptor of the directory that names lead to, each below the one before, as repeated [`open_dir`] would return
/// it: in one step where the kernel can (`openat2`). Without names, of `dir` itself.
///
/// # Errors
///
/// As [`open_dir`].
pub fn open_dirs<'a>(
    dir: impl AsFd,
    names: impl Iterator<Item = &'a OsStr> + Clone,
) -> Result<OwnedFd> {
    let mut path = PathBuf::from(".");
    for name in names.clone() {
        component(name)?;
        path.push(name);
    }
    let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    match rustix::fs::openat2(&dir, &path, DIRECTORY, Mode::empty(), beneath) {
        Ok(fd) => return Ok(fd),
        Err(Errno::NOENT) => return Err(Errno::NOENT),
        // The kernel or a sandbox lacks the call; the path is too long; or the error differs from that of `openat`.
        Err(_) => {}
    }
    let mut dir = rustix::fs::openat(dir, ".", DIRECTORY, Mode::empty())?;
    for name in names {
        dir = open_dir(&dir, name)?;
    }
    Ok(dir)
}

/// Opens the directory `name` in `dir` to list it; `.` opens `dir` itself anew. As [`open_noatime`].
///
/// # Errors
///
/// `ENOTDIR` for anything but a directory, symlinks to directories included; as `openat`.
pub fn open_to_list(dir: impl AsFd, name: &OsStr) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    open_noatime(dir, name, flags)
}

/// Opens `name` in `dir` so that reading leaves its access time unchanged, where the kernel permits that: for the owner
/// and root.
///
/// # Errors
///
/// As `openat`.
pub fn open_noatime(dir: impl AsFd, name: &OsStr, flags: OFlags) -> Result<OwnedFd> {
    match rustix::fs::openat(&dir, name, flags | OFlags::NOATIME, Mode::empty()) {
        Err(Errno::PERM) => rustix::fs::openat(&dir, name, flags, Mode::empty()),
        result => result,
    }
}

/// Makes reading through `fd` leave the access time unchanged, where that is permitted: for the file's owner and with
/// `CAP_FOWNER`.
///
/// Set on the open descriptor, not when opening: there, a refusal after `O_CREAT` would leave a new file behind.
pub fn keep_atime(fd: impl AsFd) {
    let set = fcntl_getfl(&fd).and_then(|flags| fcntl_setfl(&fd, flags | OFlags::NOATIME));
    if let Err(error) = set {
        tracing::debug!(%error, "reading an open file updates its access time");
    }
}

/// The attributes of `name` in `dir`, never of what a symlink points to.
///
/// # Errors
///
/// As `statx`.
pub fn stat(dir: impl AsFd, name: &OsStr) -> Result<Statx> {
    component(name)?;
    stat_at(dir, name)
}

/// As [`stat`], for names that are known to be components, and for `.`.
///
/// # Errors
///
/// As `statx`.
pub fn stat_at(dir: impl AsFd, name: &OsStr) -> Result<Statx> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    rustix::fs::statx(dir, name, flags, WANTED)
}

/// As [`stat_at`], but a network file system queries its server. Of `dir` itself if the name is empty.
///
/// # Errors
///
/// As `statx`.
pub fn stat_now(dir: impl AsFd, name: &OsStr) -> Result<Statx> {
    let mut flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::STATX_FORCE_SYNC;
    if name.is_empty() {
        flags |= AtFlags::EMPTY_PATH;
    }
    rustix::fs::statx(dir, name, flags, WANTED)
}

/// The attributes of an open descriptor.
///
/// # Errors
///
/// As `statx`.
pub fn stat_fd(fd: impl AsFd) -> Result<Statx> {
    rustix::fs::statx(fd, "", AtFlags::EMPTY_PATH, WANTED)
}

/// The set-user-ID and set-group-ID bits of a mode.
pub const SET_ID: u16 = 0o6000;

/// Whether the attributes are a directory's.
pub fn is_dir(stat: &Statx) -> bool {
    u32::from(stat.stx_mode) & libc::S_IFMT == libc::S_IFDIR
}

/// Whether the attributes are a symlink's.
pub fn is_symlink(stat: &Statx) -> bool {
    u32::from(stat.stx_mode) & libc::S_IFMT == libc::S_IFLNK
}

/// The identity of an open file or directory.
///
/// # Errors
///
/// As `statx`.
pub fn file_id(fd: impl AsFd) -> Result<FileId> {
    Ok(FileId::of(&stat_fd(fd)?))
}

/// The attributes of what a path leads to, symlinks followed.
///
/// # Errors
///
/// As `statx`.
pub fn stat_path(path: &Path) -> Result<Statx> {
    rustix::fs::statx(CWD, path, AtFlags::empty(), WANTED)
}

/// The path of an open descriptor below `/proc`, for calls that accept no descriptor of its kind.
pub fn proc_path(fd: impl AsFd) -> String {
    format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd())
}

/// Turns `ENOENT` and `ENOTDIR` into `None`.
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

/// The target of the symlink `name` in `dir`; of the open symlink `dir` itself for an empty name.
///
/// # Errors
///
/// As `readlinkat`: `EINVAL` or, for an empty name, `ENOENT` if it is not a symlink.
pub fn read_link(dir: impl AsFd, name: &OsStr) -> Result<OsString> {
    let target = rustix::fs::readlinkat(dir, name, Vec::new())?;
    Ok(OsString::from_vec(target.into_bytes()))
}

/// Renames within a directory, to a name that must not exist. Where the file system lacks `RENAME_NOREPLACE` (NFS, some
/// of FUSE), it checks before: the caller must accept that an empty directory made in between is replaced, and a file,
/// if `from` is not a directory.
///
/// # Errors
///
/// `EEXIST` if the name exists.
pub fn rename_new(dir: impl AsFd, from: &OsStr, to: &OsStr) -> Result<()> {
    move_new((&dir, from), (&dir, to))
}

/// As [`rename_new`], from one directory to another.
///
/// # Errors
///
/// As [`rename_new`]; `EXDEV` if the two are on different file systems.
pub fn move_new((dir, from): (impl AsFd, &OsStr), (to_dir, to): (impl AsFd, &OsStr)) -> Result<()> {
    match renameat_with(&dir, from, &to_dir, to, RenameFlags::NOREPLACE) {
        Err(errno) if lacks_flag(errno) => {}
        result => return result,
    }
    // The check and the rename are two steps: an entry that another process makes in between is replaced if it is an
    // empty directory, or a file where `from` is not a directory.
    match stat_at(&to_dir, to) {
        Ok(_) => return Err(Errno::EXIST),
        Err(Errno::NOENT) => {}
        Err(errno) => return Err(errno),
    }
    match renameat(&dir, from, &to_dir, to) {
        Err(Errno::NOTEMPTY | Errno::NOTDIR | Errno::ISDIR) => Err(Errno::EXIST),
        result => result,
    }
}

/// Exchanges two names of a directory in one step; returns false where the file system cannot.
pub fn rename_exchange(dir: impl AsFd, a: &OsStr, b: &OsStr) -> Result<bool> {
    match renameat_with(&dir, a, &dir, b, RenameFlags::EXCHANGE) {
        Ok(()) => Ok(true),
        Err(errno) if lacks_flag(errno) => Ok(false),
        Err(errno) => Err(errno),
    }
}

fn lacks_flag(errno: Errno) -> bool {
    matches!(errno, Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_single_components() {
        for bad in ["", ".", "..", "a/b", "/", "../x"] {
            assert!(!is_component(OsStr::new(bad)), "{bad:?}");
        }
        for good in ["a", "...", ".x", "a b", "\u{e9}"] {
            assert!(is_component(OsStr::new(good)), "{good:?}");
        }
    }

    #[test]
    fn symlink_to_directory_is_not_opened() {
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
    fn several_names_are_opened_like_one_by_one() {
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
