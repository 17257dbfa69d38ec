//! A listing that begins after names were made and removed has the names that there are then, also if another process is in the middle of
//! listing the same directory, and ends first: the kernel goes on in what it has cached of that other listing.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, File};
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::symlink;
use std::path::Path;

use rustix::fs::{FileType, Mode, RawDir};

use crate::common::{Workspace, names};

/// The names in a directory to begin with, which are listed in several steps.
const NAMES: usize = 400;

/// After how many steps of the first listing the names change.
const STEPS: [usize; 5] = [1, 2, 3, 5, 7];

/// How many names are made, and removed, in each way.
const CHANGES: usize = 8;

/// A task, a directory that is none of the view's, and one of a job.
const DIRECTORIES: [&str; 3] = [TASK, "plain", "jobs/my.task/job"];
const TASK: &str = "jobs/my.task";

#[test]
fn a_listing_has_the_names_that_there_are_when_it_begins() {
    list_while_names_change(&Workspace::new());
}

#[test]
fn a_listing_of_an_ordinary_user_has_the_names_that_there_are_when_it_begins() {
    list_while_names_change(&Workspace::of_ordinary_user());
}

fn list_while_names_change(workspace: &Workspace) {
    let primary = workspace.primary();
    workspace.as_user(|| {
        for directory in DIRECTORIES {
            for number in 0..NAMES {
                fs::create_dir_all(primary.join(directory).join(old(number))).unwrap();
            }
        }
    });
    let mountpoint = workspace.mountpoint("mnt");
    let mounted = workspace.mount_at(&mountpoint);
    workspace.as_user(|| {
        for directory in DIRECTORIES {
            let in_mount = STEPS.map(|steps| (steps, mounted.path()));
            // Elsewhere the kernel goes on for a moment in what it has cached, as after any change by another mount or beneath.
            let beneath = STEPS.map(|steps| (steps, &*primary));
            let beneath = beneath.into_iter().filter(|_| directory == TASK);
            for (round, (steps, top)) in beneath.chain(in_mount).enumerate() {
                let seen = mounted.path().join(directory);
                let mut first = Listing::of(&seen);
                for _ in 0..steps {
                    first.step();
                }
                change(top, &top.join(directory), round);
                let expected = names(&primary.join(directory));
                let expected: BTreeSet<_> = expected.into_iter().collect();
                let mut second = Listing::of(&seen);
                second.step();
                first.end();
                second.end();
                let missing: Vec<_> = expected.difference(&second.names).collect();
                let gone: Vec<_> = second.names.difference(&expected).collect();
                assert!(
                    missing.is_empty() && gone.is_empty(),
                    "{directory}, changed in {}, after {steps} steps: {missing:?} are not listed, and {gone:?} are, which are gone",
                    top.display()
                );
            }
        }
    });
}

fn old(number: usize) -> String {
    format!("{number:0>60}")
}

/// Makes names in a directory of a mount, and removes some, in all ways there are.
fn change(top: &Path, directory: &Path, round: usize) {
    let mut number = round * CHANGES * 2;
    let mut removed = || {
        number += 1;
        directory.join(old(number))
    };
    for number in 0..CHANGES {
        let new = |way: &str| directory.join(format!("{way}-{round}-{number:0>50}"));
        fs::create_dir(new("mkdir")).unwrap();
        File::create(new("create")).unwrap();
        let pipe = (FileType::Fifo, Mode::RUSR | Mode::WUSR);
        rustix::fs::mknodat(rustix::fs::CWD, new("mknod"), pipe.0, pipe.1, 0).unwrap();
        symlink("nowhere", new("symlink")).unwrap();
        fs::hard_link(new("create"), new("link")).unwrap();
        File::create(new("unlink")).unwrap();
        fs::remove_file(new("unlink")).unwrap();
        let elsewhere = top.join(format!("elsewhere-{number}"));
        fs::create_dir(&elsewhere).unwrap();
        fs::rename(&elsewhere, new("rename")).unwrap();
        fs::rename(removed(), &elsewhere).unwrap();
        fs::remove_dir(&elsewhere).unwrap();
        fs::remove_dir(removed()).unwrap();
    }
}

/// A directory that is being listed, a few names at a time.
struct Listing {
    directory: File,
    names: BTreeSet<OsString>,
}

impl Listing {
    fn of(path: &Path) -> Listing {
        Listing {
            directory: File::open(path).unwrap(),
            names: BTreeSet::new(),
        }
    }

    /// Returns whether there was a name.
    fn step(&mut self) -> bool {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut entries = RawDir::new(&self.directory, &mut buffer);
        let mut any = false;
        while let Some(entry) = entries.next() {
            let name = OsString::from_vec(entry.unwrap().file_name().to_bytes().to_vec());
            if name != "." && name != ".." {
                self.names.insert(name);
            }
            any = true;
            if entries.is_buffer_empty() {
                break;
            }
        }
        any
    }

    fn end(&mut self) {
        while self.step() {}
    }
}
