//! Where control sockets are.

use std::collections::{BTreeSet, HashSet};
use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use parking_lot::Mutex;

use crate::daemon::mounts::{self, Device};
use crate::sys::namespaces;

/// Whose socket it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SocketName {
    /// That of the daemon of the mount with this device number.
    Mount(Device),
    /// That of the process with this id, which archives and mounts nothing.
    Archiver(u32),
}

const ARCHIVER: &str = "archiver-";
const END: &str = ".sock";

impl SocketName {
    /// The socket's file name.
    pub(super) fn file_name(self) -> String {
        match self {
            SocketName::Mount(device) => format!("{}-{}{END}", device.major, device.minor),
            SocketName::Archiver(pid) => format!("{ARCHIVER}{pid}{END}"),
        }
    }
}

/// The sockets in a directory that are those of processes which archive. None if it cannot be listed.
pub(super) fn archivers(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let is_one = |entry: &fs::DirEntry| {
        let name = entry.file_name();
        let name = name.as_encoded_bytes();
        name.starts_with(ARCHIVER.as_bytes()) && name.ends_with(END.as_bytes())
    };
    entries.filter(is_one).map(|entry| entry.path()).collect()
}

/// Where a daemon of this process's user puts its socket, the best first.
pub(super) fn own() -> Vec<PathBuf> {
    let uid = rustix::process::geteuid();
    let mut directories = Vec::new();
    if uid.is_root() {
        directories.push(PathBuf::from("/run/xpmfs"));
    }
    if let Some(runtime) = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from)
        && runtime.is_absolute()
    {
        directories.push(runtime.join("xpmfs"));
    }
    directories.push(PathBuf::from(format!("/tmp/xpmfs-{}", uid.as_raw())));
    directories
}

/// As [`own`], but directories first that neither depend on the environment nor go with the user's last session: programs that share
/// a mount may have been started in different ways.
pub(super) fn lasting() -> Vec<PathBuf> {
    let mut directories = own();
    let by_session =
        std::env::var_os("XDG_RUNTIME_DIR").map(|runtime| Path::new(&runtime).join("xpmfs"));
    directories.sort_by_key(|directory| Some(directory) == by_session.as_ref());
    directories
}

/// A lasting directory of this user's sockets, which is made if it does not exist. `None` if there is none that is closed to other users.
#[must_use]
pub fn runtime_directory() -> Option<PathBuf> {
    lasting()
        .into_iter()
        .find(|directory| prepare(directory).is_ok())
}

/// Where the socket of a mount may be whose daemon runs as the user `owner`, each with the user whose directory it is.
/// A directory that another user could change is left out, with a warning.
pub(super) fn of(owner: Option<u32>) -> Vec<(PathBuf, u32)> {
    let own_uid = rustix::process::geteuid().as_raw();
    let mut directories: Vec<PathBuf> = own();
    for uid in owner.into_iter().chain([own_uid]) {
        if uid == 0 {
            directories.push(PathBuf::from("/run/xpmfs"));
        }
        directories.push(PathBuf::from(format!("/run/user/{uid}/xpmfs")));
        directories.push(PathBuf::from(format!("/tmp/xpmfs-{uid}")));
    }
    let mut seen = HashSet::new();
    directories.retain(|directory| seen.insert(directory.clone()));
    let users = [own_uid, owner.unwrap_or(own_uid)];
    let closed = directories.into_iter().filter_map(|directory| {
        let user = match user_of_closed(&directory, users) {
            Ok(user) => user?,
            Err(problem) => {
                report_skipped(&directory, &problem);
                return None;
            }
        };
        Some((directory, user))
    });
    closed.collect()
}

/// Which of the users has a directory for itself; `None` if there is no directory.
///
/// # Errors
///
/// What is wrong with it.
fn user_of_closed(directory: &Path, users: [u32; 2]) -> Result<Option<u32>, String> {
    // A user who may not read it may not connect either.
    let Ok(metadata) = fs::symlink_metadata(directory) else {
        return Ok(None);
    };
    if !metadata.is_dir() {
        return Err("it is not a directory".to_owned());
    }
    if !users.contains(&metadata.uid()) && namespaces::hides_users() {
        // Root's, which seems to be `nobody`'s, and to which this user may not connect.
        return Ok(None);
    }
    if !users.contains(&metadata.uid()) {
        let user = mounts::user_name(metadata.uid());
        return Err(format!("it belongs to the user `{user}`"));
    }
    if metadata.mode() & 0o077 != 0 {
        return Err("it is open to other users".to_owned());
    }
    Ok(Some(metadata.uid()))
}

/// Warns of a directory that is skipped, once.
fn report_skipped(directory: &Path, problem: &str) {
    static REPORTED: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());
    if REPORTED.lock().insert(directory.to_owned()) {
        tracing::warn!(
            "the sockets in {} are skipped: {problem}; remove it, as root if it is another user's",
            directory.display()
        );
    }
}

/// Makes `directory` ours alone, or makes sure that it is: no symlink, our own, closed to others.
///
/// # Errors
///
/// It cannot be made, or another user could change what is in it.
pub(super) fn prepare(directory: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(directory) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error),
    }
    let metadata = fs::symlink_metadata(directory)?;
    let own = rustix::process::geteuid().as_raw();
    if !metadata.is_dir() || metadata.uid() != own || metadata.mode() & 0o022 != 0 {
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            "it is not a directory that belongs to this user alone; remove it",
        ));
    }
    if metadata.mode() & 0o077 != 0 {
        fs::set_permissions(directory, Permissions::from_mode(0o700))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_directory_that_others_could_change_is_not_used() {
        let dir = tempfile::tempdir().unwrap();
        let own = dir.path().join("own");
        prepare(&own).unwrap();
        prepare(&own).unwrap();
        assert_eq!(fs::metadata(&own).unwrap().mode() & 0o777, 0o700);
        let link = dir.path().join("link");
        symlink(&own, &link).unwrap();
        assert!(prepare(&link).is_err());
        fs::set_permissions(&own, fs::Permissions::from_mode(0o770)).unwrap();
        assert!(prepare(&own).is_err());
        let uid = rustix::process::geteuid().as_raw();
        assert!(user_of_closed(&own, [uid; 2]).is_err());
        fs::set_permissions(&own, fs::Permissions::from_mode(0o755)).unwrap();
        assert!(user_of_closed(&own, [uid; 2]).is_err());
        prepare(&own).unwrap();
        assert_eq!(user_of_closed(&own, [uid; 2]), Ok(Some(uid)));
        assert!(user_of_closed(&own, [uid + 1; 2]).is_err());
        assert!(user_of_closed(&link, [uid; 2]).is_err());
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        assert!(prepare(&file).is_err());
    }
}
