//! Mounts for unit tests, which call operations as the kernel would.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::mount::caller::Caller;
use crate::mount::tables::numbers::ROOT;
use crate::mount::{Agreed, Connection, Inheritance, Keeper, KeptFile, Mount, MountOptions};
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

    /// Keeps from now on what the mount would leave.
    pub(super) fn keep(&self) -> Arc<TestKeeper> {
        let keeper = Arc::<TestKeeper>::default();
        self.mount.record_for(keeper.clone()).unwrap();
        keeper
    }

    /// Replaces the mount by one that takes over what it has left, as if its process had been killed.
    pub(super) fn take_over(&mut self, keeper: &Arc<TestKeeper>) {
        let next = Mount::new(self.mount.view.clone(), MountOptions::default()).unwrap();
        next.inherit(keeper.left(), keeper.clone()).unwrap();
        self.mount = next;
    }
}

/// Keeps what a mount would leave, as the supervisor does.
#[derive(Default)]
pub(super) struct TestKeeper {
    log: Mutex<Option<OwnedFd>>,
    counts: Mutex<Option<OwnedFd>>,
    intents: Mutex<Option<OwnedFd>>,
    recent: Mutex<Option<OwnedFd>>,
    files: Mutex<Vec<(KeptFile, OwnedFd)>>,
}

fn copy(descriptor: BorrowedFd<'_>) -> OwnedFd {
    descriptor.try_clone_to_owned().unwrap()
}

fn keep(kept: &Mutex<Option<OwnedFd>>, descriptor: BorrowedFd<'_>) -> io::Result<()> {
    *kept.lock() = Some(copy(descriptor));
    Ok(())
}

impl TestKeeper {
    fn left(&self) -> Inheritance {
        let left = |kept: &Mutex<Option<OwnedFd>>| {
            let kept = kept.lock();
            kept.as_ref().unwrap().try_clone().unwrap()
        };
        let files = self.files.lock();
        let file = |(key, fd): &(KeptFile, OwnedFd)| (*key, fd.try_clone().unwrap());
        Inheritance {
            log: left(&self.log),
            counts: left(&self.counts),
            intents: left(&self.intents),
            recent: left(&self.recent),
            files: files.iter().map(file).collect(),
        }
    }
}

impl Keeper for TestKeeper {
    fn keep_connection(&self, _: &Connection, _: &Agreed) -> io::Result<()> {
        Ok(())
    }

    fn keep_log(&self, log: BorrowedFd<'_>) -> io::Result<()> {
        keep(&self.log, log)
    }

    fn keep_counts(&self, counts: BorrowedFd<'_>) -> io::Result<()> {
        keep(&self.counts, counts)
    }

    fn keep_intents(&self, intents: BorrowedFd<'_>) -> io::Result<()> {
        keep(&self.intents, intents)
    }

    fn keep_recent(&self, recent: BorrowedFd<'_>) -> io::Result<()> {
        keep(&self.recent, recent)
    }

    fn keep_file(&self, key: KeptFile, file: BorrowedFd<'_>) {
        self.files.lock().push((key, copy(file)));
    }

    fn drop_file(&self, key: KeptFile) {
        self.files.lock().retain(|(kept, _)| *kept != key);
    }

    fn answered(&self) {}
}
