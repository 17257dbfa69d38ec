//! Makes the private directory of a connection, `xpmfs-ssh-<id>` in the directory of temporary files, and removes those of killed processes.
//!
//! As in [`super::staging`], a lock in the directory is held for as long as the process lives: with the note and without the lock, the
//! directory is left over.

use std::ffi::{OsStr, OsString};
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FlockOperation, flock};

use super::staging::{self, LOCK, NOTE};
use crate::sys::at;
use crate::transfer::remove_tree;
use crate::view::jobs::names;

/// How the names begin.
const PREFIX: &str = "xpmfs-ssh-";

/// A private directory. Dropping it removes it, with all that is in it.
#[derive(Debug)]
pub(super) struct PrivateDir {
    path: PathBuf,
    _lock: File,
}

impl PrivateDir {
    /// Makes one in the directory of temporary files, and removes those that killed processes of this user have left there.
    ///
    /// # Errors
    ///
    /// As `mkdir` and `open`.
    pub(super) fn make() -> io::Result<PrivateDir> {
        PrivateDir::make_in(&std::env::temp_dir())
    }

    fn make_in(top: &Path) -> io::Result<PrivateDir> {
        sweep(top);
        let mut name = OsString::from(PREFIX);
        name.push(staging::id());
        let path = top.join(name);
        DirBuilder::new().mode(0o700).create(&path)?;
        let lock = path.join(LOCK);
        let mut options = OpenOptions::new();
        let mut lock = options
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(lock)?;
        // The note comes last: without it, or where locks do not work, nothing is removed.
        match flock(&lock, FlockOperation::LockExclusive) {
            Ok(()) => lock.write_all(NOTE.as_bytes())?,
            Err(errno) => tracing::debug!("cannot lock {}: {errno}", path.display()),
        }
        Ok(PrivateDir { path, _lock: lock })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for PrivateDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

fn sweep(top: &Path) {
    let Ok(top) = at::open_to_list(CWD, top.as_os_str()) else {
        return;
    };
    let listed = names(&top).unwrap_or_default();
    for name in listed.iter().filter(|name| is_ours(&top, name)) {
        if let Ok(Some(_lock)) = staging::left_over(&top, name) {
            match remove_tree(&top, name, None) {
                Ok(()) => tracing::info!("removed {}, which a killed copy left", name.display()),
                Err(error) => tracing::debug!("cannot remove {}: {error}", name.display()),
            }
        }
    }
}

/// Whether it is a directory of this user with such a name. Others may write into the directory of temporary files, too.
fn is_ours(top: impl AsFd, name: &OsStr) -> bool {
    let user = rustix::process::geteuid().as_raw();
    name.as_bytes().starts_with(PREFIX.as_bytes())
        && at::stat(top, name).is_ok_and(|stat| at::is_dir(&stat) && stat.stx_uid == user)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn directories_of_killed_processes_are_removed_and_no_others() {
        let top = tempfile::tempdir().unwrap();
        let live = PrivateDir::make_in(top.path()).unwrap();
        fs::write(live.path().join("s"), "").unwrap();
        let place = |name: &str| top.path().join(name);
        let make = |name: &str, note: &str| {
            fs::create_dir_all(place(name).join("1/data")).unwrap();
            fs::write(place(name).join(LOCK), note).unwrap();
        };
        make("xpmfs-ssh-000000000000", NOTE);
        make("xpmfs-ssh-111111111111", "");
        make("other", NOTE);
        symlink(place("other"), place("xpmfs-ssh-222222222222")).unwrap();
        let second = PrivateDir::make_in(top.path()).unwrap();
        assert!(!place("xpmfs-ssh-000000000000").exists());
        for kept in [
            "xpmfs-ssh-111111111111",
            "other/1/data",
            "xpmfs-ssh-222222222222",
        ] {
            assert!(place(kept).exists(), "{kept}");
        }
        assert!(live.path().join("s").exists());
        let paths = [live.path().to_owned(), second.path().to_owned()];
        drop((live, second));
        assert!(!paths.iter().any(|path| path.exists()));
    }
}
