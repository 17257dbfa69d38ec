//! Purges beneath mounts, whose kernel caches are warm: archived jobs are whole, living ones are the primary's.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{FlockOperation, Mode, OFlags, flock};

pub(crate) use crate::common::job::hash;
use crate::common::{Workspace, assert_unchanged, eventually, run, snapshot};
use crate::scratch::{Random, TASK, age, duplicate, files, purge, write_job};

/// A workspace whose `backup` folder has some jobs, which the primary has, too.
pub(crate) fn archived(jobs: usize, random: &mut Random) -> Workspace {
    let workspace = Workspace::builder().folders(&["backup"]).build();
    for number in 0..jobs {
        let name = hash(number);
        let job = workspace.primary().join("jobs").join(TASK).join(&name);
        write_job(&job, random);
        duplicate(&job, &copy(&workspace, number));
    }
    workspace
}

pub(crate) fn job(workspace: &Workspace, number: usize) -> PathBuf {
    workspace
        .primary()
        .join("jobs")
        .join(TASK)
        .join(hash(number))
}

pub(crate) fn copy(workspace: &Workspace, number: usize) -> PathBuf {
    workspace
        .folder("backup")
        .join("jobs")
        .join(TASK)
        .join(hash(number))
}

/// The contents of all files of a job.
fn contents(job: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let read = |name: PathBuf| {
        let text = fs::read(job.join(&name)).unwrap();
        (name, text)
    };
    files(job).into_iter().map(read).collect()
}

/// What is done to a job before the purge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Life {
    /// Nothing: it is archived, and left alone.
    Archived,
    /// A user has a file of his own in it.
    Changed,
    /// It has failed since.
    Failed,
    /// It runs again.
    Running,
    /// A file of it was removed through the mount.
    Removed,
}

#[test]
fn archived_jobs_are_whole_and_living_jobs_are_the_primarys() {
    use Life::{Archived, Changed, Failed, Removed, Running};
    let lives = [
        Archived, Changed, Archived, Failed, Archived, Running, Removed, Archived,
    ];
    for seed in 1..4 {
        let random = &mut Random(seed * 104_729);
        let workspace = archived(lives.len(), random);
        let folder = snapshot(&workspace.folder("backup"));
        let whole: Vec<_> = (0..lives.len())
            .map(|number| contents(&copy(&workspace, number)))
            .collect();
        let mountpoint = workspace.mountpoint("elsewhere");
        let mounted = workspace.mount_at(&mountpoint);
        let shown = |number| mounted.job(TASK, &hash(number));
        let mut locks = Vec::new();
        for (number, life) in lives.iter().enumerate() {
            // The kernel knows all of it.
            assert_eq!(contents(&shown(number)), whole[number]);
            let job = job(&workspace, number);
            match life {
                Archived => {}
                Changed => fs::write(shown(number).join("data/mine"), "mine").unwrap(),
                Failed => fs::write(job.join("train.failed"), "1").unwrap(),
                Running => {
                    let lock = File::create(job.join("train.lock")).unwrap();
                    flock(&lock, FlockOperation::LockExclusive).unwrap();
                    locks.push(lock);
                }
                Removed => fs::remove_file(shown(number).join("data/model.bin")).unwrap(),
            }
        }
        let mut removed = Vec::new();
        for number in 0..lives.len() {
            let job = job(&workspace, number);
            removed.push(purge(&job, random));
        }
        for (number, life) in lives.iter().enumerate() {
            let expected = match life {
                Archived => "backup",
                _ => "primary",
            };
            let what = format!("seed {seed}, job {number}, {life:?}: {:?}", removed[number]);
            eventually(&what, || mounted.location(shown(number)) == expected);
            match life {
                Archived => assert_eq!(contents(&shown(number)), whole[number], "{what}"),
                _ => assert_eq!(
                    files(&shown(number)),
                    files(&job(&workspace, number)),
                    "{what}"
                ),
            }
        }
        // Also as listed with attributes, by a mount that has looked nothing up before, with and without records of what was found.
        mounted.unmount();
        for recorded in [true, false] {
            if !recorded {
                fs::remove_dir_all(workspace.primary().join(".xpmfs/archive/stamps")).unwrap();
            }
            let mounted = workspace.mount_at(&mountpoint);
            run(Command::new("ls").arg("-lR").arg(mountpoint.join("jobs")));
            for (number, life) in lives.iter().enumerate() {
                let what = format!("seed {seed}, job {number}, {life:?}: {:?}", removed[number]);
                let expected = match life {
                    Archived => "backup",
                    _ => "primary",
                };
                let served = mounted.location(mounted.job(TASK, &hash(number)));
                assert_eq!(served, expected, "{what}, recorded: {recorded}");
            }
            mounted.unmount();
        }
        drop(locks);
        assert_unchanged(&workspace.folder("backup"), &folder);
    }
}

#[test]
fn what_a_purge_left_is_not_changed_through_the_mount() {
    // Where changes recover jobs, they complete this one (`tests/recovery_on_write/purges.rs`).
    let workspace = archived(1, &mut Random(17)).never_recovers();
    let mountpoint = workspace.mountpoint("elsewhere");
    let mounted = workspace.mount_at(&mountpoint);
    let shown = mounted.job(TASK, &hash(0));
    let before = contents(&shown);
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    let directory = rustix::fs::open(shown.join("data"), flags, Mode::empty()).unwrap();
    let reading = File::open(shown.join("train.out")).unwrap();
    for name in ["train.done", "train.out", "data/model.bin"] {
        fs::remove_file(job(&workspace, 0).join(name)).unwrap();
    }
    let left = snapshot(&job(&workspace, 0));
    // A program whose directory is open, before anybody has looked the job up again.
    let made = rustix::fs::openat(
        &directory,
        "new",
        OFlags::WRONLY | OFlags::CREATE,
        Mode::RWXU,
    );
    let removed = rustix::fs::unlinkat(
        &directory,
        "deep/er/weights.bin",
        rustix::fs::AtFlags::empty(),
    );
    assert!(made.is_err() && removed.is_err(), "{made:?} {removed:?}");
    assert_unchanged(&job(&workspace, 0), &left);
    eventually("the purge is noticed", || {
        mounted.location(&shown) == "backup"
    });
    assert_eq!(contents(&shown), before);
    // Open files are what they were, and an open directory lists the whole job.
    assert_eq!(
        std::io::read_to_string(reading).unwrap().as_bytes(),
        before
            .iter()
            .find(|(name, _)| name == Path::new("train.out"))
            .unwrap()
            .1
    );
    let listed = rustix::fs::Dir::new(directory).unwrap();
    let listed: Vec<String> = listed
        .map(|entry| entry.unwrap().file_name().to_str().unwrap().to_owned())
        .collect();
    assert!(listed.contains(&"model.bin".to_owned()), "{listed:?}");
}

#[test]
fn a_removal_through_the_mount_is_remembered() {
    let workspace = archived(3, &mut Random(23));
    let mountpoint = workspace.mountpoint("elsewhere");
    let mounted = workspace.mount_at(&mountpoint);
    let shown = |number| mounted.job(TASK, &hash(number));
    fs::remove_file(shown(0).join("data/model.bin")).unwrap();
    fs::rename(shown(1).join("data"), mountpoint.join("away")).unwrap();
    // A whole job is removed: the folder serves it, as it serves one that was purged as a whole.
    fs::remove_dir_all(shown(2)).unwrap();
    let check = |mounted: &crate::common::Mounted<'_>| {
        let shown = |number| mounted.job(TASK, &hash(number));
        assert_eq!(mounted.location(shown(0)), "primary");
        assert!(!shown(0).join("data/model.bin").exists());
        assert_eq!(mounted.location(shown(1)), "primary");
        assert!(!shown(1).join("data").exists());
        assert_eq!(mounted.location(shown(2)), "backup");
    };
    check(&mounted);
    mounted.unmount();
    check(&workspace.mount_at(&mountpoint));
    let records = workspace
        .primary()
        .join(".xpmfs/archive/removed")
        .join(TASK);
    assert!(records.join(hash(0)).exists() && records.join(hash(1)).exists());
    assert!(
        !records.join(hash(2)).exists(),
        "the record goes with the job"
    );
    let mut command = workspace.xpmfs();
    command.args(["jobs", "where", "-w", "test"]);
    let output = command.arg(format!("{TASK}/{}", hash(0))).output().unwrap();
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        told.contains("data/model.bin was removed on purpose"),
        "{told}"
    );
}

#[test]
fn an_archiving_daemon_leaves_what_a_purge_left_alone() {
    let random = &mut Random(29);
    let workspace = archived(4, random);
    workspace.tune("{settle: 0s, scan_interval: 50ms}");
    let folder = |name: &str| snapshot(&workspace.folder(name).join("jobs"));
    let before = folder("backup");
    for number in 0..4 {
        // One has its marker, another has bookkeeping that is newer.
        let job = job(&workspace, number);
        fs::remove_file(job.join("data/model.bin")).unwrap();
        if number % 2 == 0 {
            fs::remove_file(job.join("train.done")).unwrap();
        }
        if number > 1 {
            let mut status = File::create(job.join(".experimaestro/status.json")).unwrap();
            status
                .write_all(b"{\"state\": \"done\", \"more\": 1}")
                .unwrap();
        }
    }
    let mountpoint = workspace.mountpoint("elsewhere");
    let mounted = workspace.mount_archiving(&mountpoint, &[]);
    let status = || {
        let mut command = workspace.xpmfs();
        let text = run(command.args(["--json", "status"]));
        serde_json::from_str::<serde_json::Value>(&text).unwrap()
    };
    for number in 0..4 {
        eventually("the folder serves it", || {
            mounted.location(mounted.job(TASK, &hash(number))) == "backup"
        });
    }
    let drained = workspace
        .xpmfs()
        .args(["umount", "--drain"])
        .arg(&mountpoint)
        .output()
        .unwrap();
    assert!(
        drained.status.success(),
        "{}{}",
        String::from_utf8_lossy(&drained.stderr),
        status()
    );
    assert_eq!(folder("backup"), before);
    let log = workspace.log();
    assert!(!log.contains("conflict"), "{log}");
}

#[test]
fn a_job_that_is_written_is_not_taken_for_purged() {
    let workspace = archived(1, &mut Random(31));
    let mountpoint = workspace.mountpoint("elsewhere");
    let mounted = workspace.mount_at(&mountpoint);
    let shown = mounted.job(TASK, &hash(0));
    let file = File::options()
        .append(true)
        .open(shown.join("train.out"))
        .unwrap();
    fs::remove_file(job(&workspace, 0).join("data/model.bin")).unwrap();
    std::thread::sleep(std::time::Duration::from_secs(7));
    assert_eq!(mounted.location(&shown), "primary");
    file.set_len(3).unwrap();
    assert_eq!(fs::metadata(shown.join("train.out")).unwrap().size(), 3);
    drop(file);
    assert_eq!(mounted.location(&shown), "primary", "it was changed");
    age(&job(&workspace, 0).join("train.out"), 30);
}
