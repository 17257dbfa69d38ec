//! Copying trees: what is kept, what is noticed, what stops it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod attributes;
mod changes;
#[path = "../common/mod.rs"]
mod common;
mod faults;
mod hostile;
mod kept;
mod limits;
mod random;
mod removing;
mod staging;
mod verifying;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{as_nobody, eventually, is_root};
use common::{python, tree};
use tempfile::TempDir;
use xpmfs::transfer::{self, Copied, Options};

/// A source, and a place for its copy.
struct Stage(TempDir);

impl Stage {
    fn new() -> Stage {
        let stage = Stage(
            tempfile::Builder::new()
                .prefix("xpmfs-copy-")
                .tempdir()
                .unwrap(),
        );
        fs::create_dir(stage.source()).unwrap();
        fs::create_dir(stage.copy()).unwrap();
        stage
    }

    fn top(&self) -> &Path {
        self.0.path()
    }

    fn source(&self) -> PathBuf {
        self.top().join("source")
    }

    fn copy(&self) -> PathBuf {
        self.top().join("copy")
    }

    fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.source().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    }

    /// Empties the place for the copy.
    fn again(&self) {
        fs::remove_dir_all(self.copy()).unwrap();
        fs::create_dir(self.copy()).unwrap();
    }

    fn run(&self, options: &Options<'_>) -> transfer::Result<Copied> {
        run(&self.source(), &self.copy(), options)
    }
}

fn run(source: &Path, copy: &Path, options: &Options<'_>) -> transfer::Result<Copied> {
    let (from, to) = (File::open(source).unwrap(), File::open(copy).unwrap());
    transfer::copy(&from, &to, options)
}

/// Runs a command that must succeed.
fn command(program: &str, arguments: &[&dyn AsRef<std::ffi::OsStr>]) {
    let mut command = Command::new(program);
    for argument in arguments {
        command.arg(argument);
    }
    let status = command
        .status()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(status.success(), "{command:?}");
}

/// A small file system of its own, unmounted when it is dropped.
struct Small(PathBuf);

impl Small {
    fn mount(at: PathBuf, options: &str) -> Small {
        fs::create_dir(&at).unwrap();
        command(
            "mount",
            &[&"-t", &"tmpfs", &"-o", &options, &"xpmfs-test", &at],
        );
        Small(at)
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}
