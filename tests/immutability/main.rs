//! Jobs that a folder serves are immutable through the view, whatever is done to them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod commands;
#[path = "../common/mod.rs"]
mod common;
mod hidden;
mod internal;
mod system_calls;

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{FOLDERS, Workspace, as_nobody, eventually, names, run, snapshot};
use rustix::fs::{
    AtFlags, CWD, FallocateFlags, FileType, FlockOperation, Gid, Mode, OFlags, RenameFlags,
    Timespec, Timestamps, Uid, XattrFlags,
};
use rustix::io::{Errno, Result};

const TASK: &str = "my.module.train";

/// A job in every location, called after it, with something of everything in it.
fn one_job_each(workspace: &Workspace) {
    for location in ["primary", "use", "backup", "move"] {
        let job = workspace.finished(location, TASK, &format!("in-{location}"));
        fs::create_dir_all(job.join("data/deep")).unwrap();
        fs::create_dir(job.join("empty")).unwrap();
        fs::write(job.join("data/deep/file"), "deep").unwrap();
        fs::write(job.join("uv.lock"), "version = 1\n").unwrap();
        fs::write(job.join("train.py"), "#!/bin/sh\n").unwrap();
        fs::set_permissions(job.join("train.py"), fs::Permissions::from_mode(0o755)).unwrap();
        symlink("model.bin", job.join("latest")).unwrap();
        fs::hard_link(job.join("model.bin"), job.join("linked")).unwrap();
        rustix::fs::setxattr(
            job.join("train.out"),
            "user.note",
            b"x",
            XattrFlags::empty(),
        )
        .unwrap();
    }
    workspace.give_away();
}

fn folders(workspace: &Workspace) -> Vec<Vec<String>> {
    FOLDERS
        .iter()
        .map(|folder| snapshot(&workspace.folder(folder)))
        .collect()
}

/// Asserts that nothing has changed, and says what has.
fn assert_same(before: &[Vec<String>], after: &[Vec<String>]) {
    for (before, after) in before.iter().zip(after) {
        // Contents can be long.
        let missing = |from: &[String], of: &[String]| -> Vec<String> {
            let missing = of.iter().filter(|line| !from.contains(line));
            missing
                .map(|line| line.chars().take(200).collect())
                .collect()
        };
        let (changed, gone) = (missing(before, after), missing(after, before));
        assert!(
            changed.is_empty() && gone.is_empty(),
            "changed: {changed:#?}\nwas: {gone:#?}"
        );
    }
}

/// Does something in a workspace of root's, if we are root, and in one of an ordinary user's.
fn as_everyone(test: impl Fn(&Workspace)) {
    if rustix::process::geteuid().is_root() {
        test(&Workspace::new().never_recovers());
    }
    test(&Workspace::of_ordinary_user().never_recovers());
}

/// What has been tried, and what was wrong with the answers.
#[derive(Default)]
struct Attempts {
    made: usize,
    wrong: Vec<String>,
}

impl Attempts {
    fn refused<T>(&mut self, what: &str, with: &[Errno], result: Result<T>) {
        self.made += 1;
        match result {
            Err(error) if with.contains(&error) => {}
            Err(error) => self.wrong.push(format!("{what}: {error:?}, not {with:?}")),
            Ok(_) => self.wrong.push(format!("{what}: succeeded")),
        }
    }

    fn read_only<T>(&mut self, what: &str, result: Result<T>) {
        self.refused(what, &[Errno::ROFS], result);
    }
}

const RWX: Mode = Mode::from_raw_mode(0o777);

fn open(path: &Path, flags: OFlags) -> Result<std::os::fd::OwnedFd> {
    rustix::fs::open(path, flags | OFlags::CLOEXEC, RWX)
}

fn now() -> Timestamps {
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: rustix::fs::UTIME_NOW,
    };
    Timestamps {
        last_access: now,
        last_modification: now,
    }
}
