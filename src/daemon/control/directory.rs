//! Where control sockets are.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::daemon::mounts::Device;

/// Whose socket it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Name {
    /// That of the daemon of the mount with this device number.
    Mount(Device),
    /// That of the process with this id, which archives and mounts nothing.
    Archiver(u32),
}

const ARCHIVER: &str = "archiver-";
const END: &str = ".sock";

impl Name {
    /// The socket's file name.
    pub(super) fn file_name(self) -> String {
        match self {
            Name::Mount(device) => format!("{}-{}{END}", device.major, device.minor),
            Name::Archiver(pid) => format!("{ARCHIVER}{pid}{END}"),
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

/// Where the socket of a mount may be whose daemon runs as the user `owner`.
pub(super) fn of(owner: Option<u32>) -> Vec<PathBuf> {
    let mut directories = own();
    let own = rustix::process::geteuid().as_raw();
    for uid in owner.into_iter().chain([own]) {
        if uid == 0 {
            directories.push(PathBuf::from("/run/xpmfs"));
        }
        directories.push(PathBuf::from(format!("/run/user/{uid}/xpmfs")));
        directories.push(PathBuf::from(format!("/tmp/xpmfs-{uid}")));
    }
    let mut seen = std::collections::HashSet::new();
    directories.retain(|directory| seen.insert(directory.clone()));
    directories
}

/// Makes `directory` ours alone, or makes sure that it is: no symlink, our own, closed to others.
///
/// # Errors
///
/// It cannot be made, or somebody else could change what is in it.
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
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

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
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        assert!(prepare(&file).is_err());
    }
}
