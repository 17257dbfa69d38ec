//! Mounts for unit tests, which call operations as the kernel would.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::mount::caller::Caller;
use crate::mount::tables::numbers::ROOT;
use crate::mount::{Mount, MountOptions};
use crate::settings::Mode;
use crate::view::{FolderSpec, View, ViewSpec};

/// A caller that is root.
pub(super) const ROOT_CALLER: Caller = Caller {
    uid: 0,
    gid: 0,
    tid: 0,
    umask: 0,
};

/// A mount of a primary and one folder in a temporary directory.
pub(super) struct Fixture {
    top: tempfile::TempDir,
    pub(super) mount: Mount,
}

impl Fixture {
    /// Creates these directories below `primary` and `folder`, with their parents.
    pub(super) fn new(mode: Mode, directories: &[&str]) -> Fixture {
        let top = tempfile::tempdir().unwrap();
        for directory in directories.iter().chain(&["primary", "folder"]) {
            fs::create_dir_all(top.path().join(directory)).unwrap();
        }
        let spec = ViewSpec {
            workspace: String::new(),
            primary: top.path().join("primary"),
            folders: vec![FolderSpec {
                mode,
                path: top.path().join("folder"),
            }],
            mountpoint: None,
        };
        let view = Arc::new(View::open(spec, None).unwrap());
        let mount = Mount::new(view, MountOptions::default()).unwrap();
        Fixture { top, mount }
    }

    pub(super) fn top(&self) -> &Path {
        self.top.path()
    }

    pub(super) fn primary(&self, path: &str) -> PathBuf {
        self.top().join("primary").join(path)
    }

    /// Looks a path up name by name; returns the numbers of all nodes on it, from the root on.
    pub(super) fn look_up(&self, path: &str) -> Vec<u64> {
        let mut ids = vec![ROOT];
        for name in path.split('/') {
            let parent = ids[ids.len() - 1];
            let entry = self.mount.lookup(parent, OsStr::new(name)).unwrap();
            ids.push(entry.id);
        }
        ids
    }
}
