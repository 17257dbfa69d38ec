//! Purges before, during and after recoveries: a change to a purged job completes the job, and no change is lost.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};

pub(crate) use crate::common::job::hash;
use crate::common::tracer::{Tracer, serving};
use crate::common::{self, Mounted, Workspace, assert_unchanged, eventually, run, snapshot};
use crate::scratch::{Random, TASK, files, purge, write_job};
use crate::stage::{Beneath, assert_clean};

/// A workspace whose jobs are in the primary and, with manifests, in a `backup` folder.
fn archived(ordinary: bool, jobs: usize, random: &mut Random) -> Workspace {
    let workspace = match ordinary {
        true => Workspace::of_ordinary_user(),
        false => Workspace::new(),
    };
    workspace.write_settings(&["backup"], Some("{settle: 0s, scan_interval: 1h}"));
    for number in 0..jobs {
        let job = workspace.primary().join("jobs").join(TASK);
        write_job(&job.join(hash(number)), random);
    }
    workspace.give_away();
    run(workspace
        .xpmfs()
        .args(["jobs", "archive", "--all", "-w", "test"]));
    workspace
}

/// A mount of archived jobs, which a purge is about to take.
pub(crate) struct Stage<'a> {
    pub(crate) workspace: &'a Workspace,
    pub(crate) mounted: &'a Mounted<'a>,
    pub(crate) beneath: Beneath,
}

impl Stage<'_> {
    pub(crate) fn shown(&self, number: usize) -> PathBuf {
        self.mounted.job(TASK, &hash(number))
    }

    pub(crate) fn in_primary(&self, number: usize) -> PathBuf {
        let tasks = self.beneath.path().join("jobs");
        tasks.join(TASK).join(hash(number))
    }

    pub(crate) fn copy(&self, number: usize) -> PathBuf {
        let tasks = self.workspace.folder("backup").join("jobs");
        tasks.join(TASK).join(hash(number))
    }

    fn location(&self, number: usize) -> String {
        self.mounted.location(self.shown(number))
    }

    /// Removes files of a job beneath the mount.
    fn purge(&self, number: usize, names: &[&str]) {
        for name in names {
            fs::remove_file(self.in_primary(number).join(name)).unwrap();
        }
    }

    /// Asserts that the primary and the view have all of the copy but `changed`, with the same contents.
    pub(crate) fn assert_whole(&self, number: usize, changed: &[&str]) {
        let copy = self.copy(number);
        for name in files(&copy) {
            if changed.iter().any(|changed| name == Path::new(changed)) {
                continue;
            }
            for place in [self.shown(number), self.in_primary(number)] {
                let found = fs::read(place.join(&name)).map_err(|error| error.to_string());
                let expected = fs::read(copy.join(&name)).map_err(|error| error.to_string());
                assert_eq!(found, expected, "{} in {}", name.display(), place.display());
            }
        }
    }
}

/// Runs a test with a root's and an ordinary user's workspace, in place and elsewhere: with and without passthrough.
pub(crate) fn everywhere(jobs: usize, test: impl Fn(&Stage<'_>) + Sync) {
    let users = match rustix::process::geteuid().is_root() {
        true => &[true, false][..],
        false => &[true],
    };
    for ordinary in users {
        for in_place in [true, false] {
            let workspace = archived(*ordinary, jobs, &mut Random(4711));
            let before = snapshot(&workspace.folder("backup"));
            let beneath = Beneath::of(&workspace.primary());
            let mounted = match in_place {
                true => workspace.mount_in_place(),
                false => workspace.mount_at(&workspace.mountpoint("elsewhere")),
            };
            let stage = Stage {
                workspace: &workspace,
                mounted: &mounted,
                beneath,
            };
            workspace.as_user(|| test(&stage));
            assert_unchanged(&workspace.folder("backup"), &before);
            assert_clean(&stage.beneath.path());
            mounted.unmount();
        }
    }
}

pub(crate) fn append(path: &Path, text: &str) {
    let mut file = File::options().append(true).open(path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
}

/// Reads all of a job, so that the kernel knows it.
fn warm(job: &Path) {
    for name in files(job) {
        let _ = fs::read(job.join(name)).unwrap();
    }
}

/// A change of a job, whose directory `data` and whose file `train.err` are open since before the purge.
type Change = fn(&Path, &File, &File);

/// The changes, each with the names that differ from the copy's afterwards.
const CHANGES: [(&str, Change, &[&str]); 10] = [
    (
        "append to a file that is left",
        |job, _, _| append(&job.join("train.err"), "more"),
        &["train.err"],
    ),
    (
        "append to a purged file",
        |job, _, _| append(&job.join("train.out"), "more"),
        &["train.out"],
    ),
    (
        "truncate a file",
        |job, _, _| drop(File::create(job.join("train.out")).unwrap()),
        &["train.out"],
    ),
    (
        "make a file",
        |job, _, _| fs::write(job.join("data/new"), "new").unwrap(),
        &["data/new"],
    ),
    (
        "make a directory",
        |job, _, _| fs::create_dir(job.join("data/new")).unwrap(),
        &[],
    ),
    (
        "change a mode",
        |job, _, _| {
            fs::set_permissions(job.join("train.out"), fs::Permissions::from_mode(0o600)).unwrap();
        },
        &[],
    ),
    (
        "rename in the job",
        |job, _, _| fs::rename(job.join("train.out"), job.join("out")).unwrap(),
        &["train.out"],
    ),
    (
        "make a file by a descriptor",
        |_, data, _| {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
            rustix::fs::openat(data, "new", flags, Mode::RWXU).unwrap();
        },
        &["data/new"],
    ),
    (
        "rename by descriptors",
        |_, data, _| {
            rustix::fs::renameat(data, "latest", data, "renamed").unwrap();
        },
        &["data/latest"],
    ),
    (
        "change a mode by a descriptor",
        |_, _, err| {
            rustix::fs::fchmod(err, Mode::from_raw_mode(0o600)).unwrap();
        },
        &[],
    ),
];

#[test]
fn each_change_of_a_purged_job_completes_it() {
    everywhere(CHANGES.len(), |stage| {
        let opened: Vec<(File, File)> = (0..CHANGES.len())
            .map(|number| {
                let shown = stage.shown(number);
                warm(&shown);
                assert_eq!(stage.location(number), "primary");
                let data = File::open(shown.join("data")).unwrap();
                (data, File::open(shown.join("train.err")).unwrap())
            })
            .collect();
        // The mount compares a job again if the last comparison is more than a second old.
        std::thread::sleep(Duration::from_millis(1100));
        for (number, (what, change, changed)) in CHANGES.into_iter().enumerate() {
            let (data, mut err) = (&opened[number].0, &opened[number].1);
            stage.purge(number, &["train.out", "train.done", "data/model.bin"]);
            eprintln!("{what}");
            change(&stage.shown(number), data, err);
            assert_eq!(stage.location(number), "primary", "{what}");
            stage.assert_whole(number, changed);
            let mut text = String::new();
            err.read_to_string(&mut text).unwrap();
            assert!(text.starts_with("train.err"), "{text}");
            // An open directory leads to the recovered job.
            let listed = format!("/proc/self/fd/{}/model.bin", data.as_raw_fd());
            assert!(fs::symlink_metadata(listed).is_ok(), "{what}");
        }
    });
}

#[test]
fn a_recovered_job_is_purged_again() {
    everywhere(3, |stage| {
        for number in 0..3 {
            stage.purge(number, &["train.out", "train.done"]);
            eventually("the purge is noticed", || {
                stage.location(number) == "backup"
            });
        }
        // A file that is open for writing makes the job living, also if nothing is written.
        let open = |number| {
            File::options()
                .append(true)
                .open(stage.shown(number).join("train.out"))
                .unwrap()
        };
        let (mut written, unwritten, mut purged) = (open(0), open(1), open(2));
        for number in 0..3 {
            stage.assert_whole(number, &[]);
            stage.purge(number, &["train.done", "data/model.bin"]);
        }
        stage.purge(2, &["train.out"]);
        // Longer than a result is used that a program writes to the job.
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_millis(2500) {
            for number in 0..2 {
                let location = stage.location(number);
                assert_eq!(location, "primary", "{number} is open for writing");
            }
            std::thread::sleep(Duration::from_millis(300));
        }
        written.write_all(b"more").unwrap();
        // The purge removed this open file; what is written to it is lost at the close, as on any disk.
        purged.write_all(b"more").unwrap();
        drop((written, unwritten, purged));
        for number in [1, 2] {
            eventually("it is purged", || stage.location(number) == "backup");
            assert!(stage.shown(number).join("data/model.bin").exists());
            append(&stage.shown(number).join("train.out"), "again");
            stage.assert_whole(number, &["train.out"]);
        }
        // A file of the user's that is newer than the copy: the job is living.
        assert_eq!(stage.location(0), "primary");
        assert!(
            fs::read_to_string(stage.shown(0).join("train.out"))
                .unwrap()
                .ends_with("more")
        );
        for number in [1, 2] {
            let text = fs::read_to_string(stage.shown(number).join("train.out")).unwrap();
            assert!(text.ends_with("again"), "{text}");
        }
    });
}

#[test]
fn a_purge_between_the_copy_and_its_rename_loses_nothing() {
    if !common::is_root() {
        return;
    }
    let workspace = archived(false, 4, &mut Random(815));
    let before = snapshot(&workspace.folder("backup"));
    let at = workspace.mountpoint("elsewhere");
    let mounted = workspace.mount_at(&at);
    let stage = Stage {
        workspace: &workspace,
        mounted: &mounted,
        beneath: Beneath::of(&workspace.primary()),
    };
    for number in 0..4 {
        warm(&stage.shown(number));
        stage.purge(number, &["train.done", "data/model.bin"]);
        eventually("the purge is noticed", || {
            stage.location(number) == "backup"
        });
    }
    let pid = serving(&workspace, &at);
    let delayed = Tracer::delaying(pid, "renameat2", "delay_enter", Duration::from_secs(2));
    for number in 0..4 {
        let tasks = workspace.primary().join("jobs").join(TASK);
        let staged = tasks.join(format!(".tmp.{}", hash(number)));
        std::thread::scope(|scope| {
            let path = stage.shown(number).join("train.out");
            let writer = scope.spawn(move || append(&path, "more"));
            eventually("the job is copied", || staged.join("train.done").exists());
            match number {
                0 => stage.purge(0, &["train.out", "train.err"]),
                // The copy as well.
                1 => fs::remove_file(staged.join("train.err")).unwrap(),
                // All of it, with its directories.
                2 => fs::remove_dir_all(stage.in_primary(2)).unwrap(),
                _ => {
                    purge(&stage.in_primary(3), &mut Random(99));
                    fs::remove_file(staged.join("train.out")).unwrap();
                }
            }
            writer.join().unwrap();
        });
        eprintln!("{number} is written");
        let text = fs::read_to_string(stage.shown(number).join("train.out")).unwrap();
        assert!(
            text.starts_with("train.out") && text.ends_with("more"),
            "{text}"
        );
    }
    drop(delayed);
    for number in [0, 2, 3] {
        stage.assert_whole(number, &["train.out"]);
    }
    assert_clean(&workspace.primary());
    mounted.unmount();
    assert_unchanged(&workspace.folder("backup"), &before);
}
