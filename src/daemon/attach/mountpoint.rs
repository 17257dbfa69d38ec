//! Which directories may be mounted on. All of it happens before attaching: in place, the path is ours
//! afterwards and must not be walked any more.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use super::{AttachError, How, detach};
use crate::daemon::health::{self, MountHealth};
use crate::daemon::mounts::{self, MountInfo};

/// How many symlinks one after the other are followed, as the kernel's `MAXSYMLINKS`.
const MOST_SYMLINKS: usize = 40;

/// The absolute path without symlinks that `path` leads to, also when a dead mount is there.
///
/// # Errors
///
/// As [`fs::canonicalize`], but for a dead mount.
pub fn resolve(path: &Path) -> io::Result<PathBuf> {
    let mut path = std::path::absolute(path)?;
    for _ in 0..MOST_SYMLINKS {
        match fs::canonicalize(&path) {
            Err(error) if error.raw_os_error() == Some(Errno::NOTCONN.raw_os_error()) => {}
            resolved => return resolved,
        }
        // The last step leads to a dead mount, or a symlink to one.
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Ok(path);
        };
        let parent = fs::canonicalize(parent)?;
        match fs::read_link(parent.join(name)) {
            Ok(target) => path = parent.join(target),
            Err(_) => return Ok(parent.join(name)),
        }
    }
    Err(Errno::LOOP.into())
}

/// Makes sure that no mount of ours at `path`, as it is written, is one whose daemon does not answer. Walks no path, so it is
/// asked before anything else is: a step into such a mount waits for its daemon.
///
/// # Errors
///
/// [`AttachError::Silent`]; the table of mounts cannot be read.
pub fn expect_no_silent_mount(path: &Path) -> Result<(), AttachError> {
    let top = mounts::top_at(path).map_err(AttachError::Mounts)?;
    match top
        .filter(MountInfo::is_xpmfs)
        .map(|mount| health::of(&mount))
    {
        Some(MountHealth::Silent { pid }) => Err(AttachError::Silent {
            mountpoint: path.to_owned(),
            pid,
        }),
        _ => Ok(()),
    }
}

/// Checks that `mountpoint` can be mounted on, and gives its absolute path without symlinks.
///
/// It is an empty directory, or the workspace's own (`primary`). A dead xpmfs mount on it, left by a
/// daemon that was killed, is cleared away with a notice in the log.
///
/// # Errors
///
/// Why it cannot, and what to do.
pub fn check_mountpoint(mountpoint: &Path, primary: Option<&Path>) -> Result<PathBuf, AttachError> {
    let path = resolve(mountpoint).map_err(|error| unusable(mountpoint, error))?;
    // Dead mounts may be stacked, and each one that is cleared shows the one below.
    while let Some(mount) = mounts::top_at(&path).map_err(AttachError::Mounts)? {
        match health::of(&mount) {
            MountHealth::Dead if mount.is_xpmfs() => clear(&path)?,
            MountHealth::Dead => {
                return Err(AttachError::DeadForeign {
                    mountpoint: path,
                    fs_type: mount.fs_type,
                });
            }
            MountHealth::Serving { .. } | MountHealth::Foreign | MountHealth::Silent { .. }
                if mount.is_xpmfs()
                    && let Some(user) = another(&mount) =>
            {
                return Err(AttachError::AnotherUsers {
                    mountpoint: path,
                    user,
                });
            }
            MountHealth::Serving { pid } if mount.is_xpmfs() => {
                return Err(AttachError::AlreadyMounted {
                    mountpoint: path,
                    pid,
                });
            }
            MountHealth::Silent { pid } if mount.is_xpmfs() => {
                return Err(AttachError::Silent {
                    mountpoint: path,
                    pid,
                });
            }
            MountHealth::Foreign if mount.is_xpmfs() => {
                return Err(AttachError::AlreadyMounted {
                    mountpoint: path,
                    pid: None,
                });
            }
            _ => break,
        }
    }
    check_directory(&path, primary)?;
    Ok(path)
}

/// Whose the mount is, if this user cannot take it away.
fn another(mount: &MountInfo) -> Option<String> {
    mount
        .other_owner()
        .filter(|_| !rustix::process::geteuid().is_root())
}

fn clear(path: &Path) -> Result<(), AttachError> {
    detach(path, How::Lazy).map_err(|source| AttachError::Clear {
        mountpoint: path.to_owned(),
        source,
    })?;
    tracing::warn!(
        "cleared a dead mount from {}: the process that served it was killed",
        path.display()
    );
    Ok(())
}

fn check_directory(path: &Path, primary: Option<&Path>) -> Result<(), AttachError> {
    let metadata = fs::metadata(path).map_err(|error| unusable(path, error))?;
    if !metadata.is_dir() {
        return Err(AttachError::NotADirectory(path.to_owned()));
    }
    let in_place = primary
        .and_then(|primary| fs::metadata(primary).ok())
        .is_some_and(|primary| (primary.dev(), primary.ino()) == (metadata.dev(), metadata.ino()));
    if in_place {
        return Ok(());
    }
    let mut entries = fs::read_dir(path).map_err(|error| unusable(path, error))?;
    match entries.next() {
        None => Ok(()),
        Some(Ok(_)) => Err(AttachError::NotEmpty(path.to_owned())),
        Some(Err(error)) => Err(unusable(path, error)),
    }
}

fn unusable(path: &Path, error: io::Error) -> AttachError {
    match error.kind() {
        io::ErrorKind::NotFound => AttachError::Missing(path.to_owned()),
        io::ErrorKind::NotADirectory => AttachError::NotADirectory(path.to_owned()),
        _ => AttachError::Mountpoint {
            mountpoint: path.to_owned(),
            source: error,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_empty_directory_or_the_primary_is_mounted_on() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("m");
        let sentence =
            |primary: Option<&Path>| check_mountpoint(&path, primary).unwrap_err().to_string();
        assert!(sentence(None).contains("mkdir -p"));
        fs::write(&path, "").unwrap();
        assert!(sentence(None).contains("not a directory"));
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert_eq!(
            check_mountpoint(&path, None).unwrap(),
            resolve(&path).unwrap()
        );
        fs::write(path.join("x"), "").unwrap();
        assert!(sentence(None).contains("not empty"));
        assert!(sentence(Some(dir.path())).contains("not empty"));
        check_mountpoint(&path, Some(&path)).unwrap();
    }

    #[test]
    fn symlinks_are_resolved() {
        let dir = tempfile::tempdir().unwrap();
        let root = resolve(dir.path()).unwrap();
        fs::create_dir(root.join("m")).unwrap();
        std::os::unix::fs::symlink("m", root.join("link")).unwrap();
        assert_eq!(
            check_mountpoint(&root.join("link"), None).unwrap(),
            root.join("m")
        );
    }
}
