//! Whether a job in the primary is what a purge has left, as plain functions, without a mount.

use std::ffi::OsStr;
use std::fs::{self, File, FileTimes};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{FlockOperation, flock};
use tempfile::TempDir;
use xpmfs::settings::Mode;
use xpmfs::view::{FolderSpec, Served, Standing, View, ViewSpec};
use xpmfs::workspace::JobId;

use super::scratch::{FILES, Random, TASK, age, duplicate, files, purge, write_job};

/// A workspace with a folder, and one job that both have.
struct Disk {
    top: TempDir,
    mode: Mode,
}

impl Disk {
    fn new(mode: Mode, random: &mut Random) -> Disk {
        let top = tempfile::tempdir().unwrap();
        let disk = Disk { top, mode };
        write_job(&disk.job(), random);
        duplicate(&disk.job(), &disk.copy());
        disk
    }

    fn path(&self, name: &str) -> PathBuf {
        self.top.path().canonicalize().unwrap().join(name)
    }

    fn job(&self) -> PathBuf {
        self.path("primary/jobs").join(TASK).join("h")
    }

    fn copy(&self) -> PathBuf {
        self.path("folder/jobs").join(TASK).join("h")
    }

    fn record(&self) -> PathBuf {
        self.path("primary/.xpmfs/archive/stamps")
            .join(TASK)
            .join("h")
    }

    fn open(&self) -> View {
        let spec = ViewSpec {
            workspace: "test".to_owned(),
            primary: self.path("primary"),
            folders: vec![FolderSpec {
                mode: self.mode,
                path: self.path("folder"),
            }],
            mountpoint: None,
        };
        View::open(spec, None).unwrap()
    }

    /// The number of the location that serves the job, as a new view sees it; and what a comparison finds.
    fn served(&self) -> (u8, Option<Standing>) {
        let view = self.open();
        (served(&view), view.standing(&id()).unwrap())
    }
}

fn id() -> JobId {
    JobId::new(TASK, "h").unwrap()
}

fn served(view: &View) -> u8 {
    match view.resolve(OsStr::new(TASK), OsStr::new("h")).unwrap() {
        Some(Served::Job { location, .. }) => location,
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn assert_living(what: &str, disk: &Disk) {
    let living = Standing::Living { removed: None };
    assert_eq!(disk.served(), (0, Some(living)), "{what}");
    // Again, by the record.
    assert_eq!(served(&disk.open()), 0, "{what}, again");
}

#[track_caller]
fn assert_purged(what: &str, disk: &Disk) {
    let purged = Standing::Purged { folder: 1 };
    assert_eq!(disk.served(), (1, Some(purged)), "{what}");
    assert_eq!(served(&disk.open()), 1, "{what}, again");
}

/// Makes the times of files whole seconds, as some disks do.
fn make_coarse(top: &Path) {
    for name in files(top) {
        let path = top.join(name);
        let metadata = path.symlink_metadata().unwrap();
        if metadata.is_symlink() {
            continue;
        }
        let seconds = metadata
            .modified()
            .unwrap()
            .duration_since(UNIX_EPOCH)
            .unwrap()
            .as_secs();
        let times = FileTimes::new().set_modified(UNIX_EPOCH + Duration::from_secs(seconds));
        File::options()
            .append(true)
            .open(path)
            .unwrap()
            .set_times(times)
            .unwrap();
    }
}

/// A change of a job.
type Change<'a> = &'a dyn Fn(&Path);

#[test]
fn unchanged_and_incomplete_is_purged() {
    let remove = |names: &'static [&'static str]| {
        move |job: &Path| {
            names
                .iter()
                .for_each(|name| fs::remove_file(job.join(name)).unwrap())
        }
    };
    let all = remove(&FILES);
    let changes: [(&str, Change<'_>); 11] = [
        ("the events", &|job| {
            fs::remove_dir_all(job.join(".experimaestro/events")).unwrap();
        }),
        (
            "an event",
            &remove(&[".experimaestro/events/event-0.jsonl"]),
        ),
        ("the marker", &remove(&["train.done"])),
        ("a nested file", &remove(&["data/deep/er/weights.bin"])),
        ("a symlink", &remove(&["data/latest"])),
        ("the status", &remove(&[".experimaestro/status.json"])),
        ("all files", &all),
        ("a tree", &|job| {
            fs::remove_dir_all(job.join("data")).unwrap()
        }),
        ("all but the status, which was rewritten", &|job| {
            all(job);
            fs::write(
                job.join(".experimaestro/status.json"),
                "{\"state\": \"done\", \"x\": 1}",
            )
            .unwrap();
        }),
        ("young bookkeeping is left", &|job| {
            remove(&["train.done", "train.out"])(job);
            for name in [
                "train.lock",
                "x.pid",
                ".hardlink_test",
                ".experimaestro/events/event-1.jsonl",
            ] {
                fs::write(job.join(name), "").unwrap();
            }
            fs::write(job.join(".experimaestro/events/event-0.jsonl"), "more").unwrap();
            fs::write(job.join(".experimaestro/no-backup"), "").unwrap();
        }),
        ("everything", &|job| {
            fs::remove_dir_all(job).unwrap();
            fs::create_dir(job).unwrap();
        }),
    ];
    for mode in [Mode::Use, Mode::Backup, Mode::Move] {
        for coarse in [false, true] {
            for (what, change) in &changes {
                let disk = Disk::new(mode, &mut Random(7));
                if coarse {
                    make_coarse(&disk.copy());
                }
                assert_living(what, &disk);
                change(&disk.job());
                assert_purged(what, &disk);
            }
        }
    }
}

#[test]
fn whole_changed_failed_and_running_is_living() {
    let purge = |job: &Path| fs::remove_file(job.join("data/model.bin")).unwrap();
    let changes: [(&str, Change<'_>); 10] = [
        ("whole", &|_| {}),
        ("an empty directory is gone", &|job| {
            fs::remove_dir(job.join("empty")).unwrap()
        }),
        ("a lock is new", &|job| {
            fs::write(job.join("train.lock"), "").unwrap()
        }),
        ("the status is new", &|job| {
            fs::write(job.join(".experimaestro/status.json"), "{}").unwrap()
        }),
        ("a file is new", &|job| {
            purge(job);
            fs::write(job.join("note"), "mine").unwrap();
        }),
        ("a nested file is new", &|job| {
            purge(job);
            fs::write(job.join("data/deep/er/note"), "").unwrap();
        }),
        ("a directory is new", &|job| {
            purge(job);
            fs::create_dir(job.join("mine")).unwrap();
        }),
        ("a file was changed", &|job| {
            purge(job);
            fs::write(job.join("train.out"), "more").unwrap();
        }),
        ("a file was touched", &|job| {
            purge(job);
            age(&job.join("train.out"), 0);
        }),
        ("it failed", &|job| {
            purge(job);
            fs::write(job.join("train.failed"), "").unwrap();
        }),
    ];
    for (what, change) in &changes {
        let disk = Disk::new(Mode::Backup, &mut Random(11));
        change(&disk.job());
        assert_living(what, &disk);
        // With a record of it from before.
        let disk = Disk::new(Mode::Backup, &mut Random(11));
        assert_living(what, &disk);
        change(&disk.job());
        assert_living(what, &disk);
    }
    let disk = Disk::new(Mode::Backup, &mut Random(11));
    symlink("elsewhere", disk.job().join("link")).unwrap();
    purge(&disk.job());
    assert_living("a symlink is new", &disk);

    let disk = Disk::new(Mode::Backup, &mut Random(11));
    let lock = File::create(disk.job().join("train.lock")).unwrap();
    flock(&lock, FlockOperation::LockExclusive).unwrap();
    purge(&disk.job());
    assert_living("it runs", &disk);
    drop(lock);
    assert_purged("it does not run any more", &disk);
    let lock = File::open(disk.job().join("train.lock")).unwrap();
    flock(&lock, FlockOperation::LockExclusive).unwrap();
    assert_living("it runs again, which a record does not show", &disk);
}

#[test]
fn without_a_finished_copy_a_job_is_served_as_it_is() {
    let disk = Disk::new(Mode::Backup, &mut Random(3));
    fs::remove_file(disk.job().join("train.out")).unwrap();
    fs::remove_file(disk.copy().join("train.done")).unwrap();
    assert_living("the copy is not finished", &disk);
    fs::remove_dir_all(disk.copy()).unwrap();
    assert_living("there is no copy", &disk);
    fs::remove_dir_all(disk.path("folder")).unwrap();
    assert_living("the folder is missing", &disk);
    assert!(!disk.record().exists());
}

#[test]
fn a_purge_while_a_view_is_open_is_noticed() {
    let mut random = Random(5);
    let disk = Disk::new(Mode::Backup, &mut random);
    let view = disk.open();
    assert_eq!(served(&view), 0);
    fs::remove_file(disk.job().join("data/deep/er/weights.bin")).unwrap();
    let begun = SystemTime::now();
    while served(&view) == 0 {
        assert!(
            begun.elapsed().unwrap() < Duration::from_secs(20),
            "the purge is not noticed"
        );
        std::thread::sleep(Duration::from_millis(50));
    }
    // Before a change, at once.
    let disk = Disk::new(Mode::Backup, &mut random);
    let view = disk.open();
    assert_eq!(served(&view), 0);
    fs::remove_file(disk.job().join("train.done")).unwrap();
    assert_eq!(served(&view), 1, "the job's own directory shows it");
    duplicate(
        &disk.copy().join("train.done"),
        &disk.job().join("train.done"),
    );
    let begun = SystemTime::now();
    while served(&view) == 1 {
        assert!(
            begun.elapsed().unwrap() < Duration::from_secs(20),
            "the job is whole again"
        );
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn removals_on_purpose_are_not_purges() {
    let mut random = Random(9);
    let disk = Disk::new(Mode::Backup, &mut random);
    let view = disk.open();
    assert_eq!(served(&view), 0);
    let path = Path::new("data/model.bin");
    view.record_removal(&id(), path, None).unwrap();
    fs::remove_file(disk.job().join(path)).unwrap();
    let living = || {
        let removed = Some(path.to_owned());
        (0, Some(Standing::Living { removed }))
    };
    assert_eq!(served(&view), 0);
    assert_eq!(disk.served(), living());
    // Also when a purge follows.
    fs::remove_file(disk.job().join("train.done")).unwrap();
    assert_eq!(disk.served(), living());
    // The file is there again: the removal has no effect.
    duplicate(&disk.copy().join(path), &disk.job().join(path));
    assert_purged("the marker is missing", &disk);
    // An incomplete record, as after a power cut.
    let record = disk
        .path("primary/.xpmfs/archive/removed")
        .join(TASK)
        .join("h");
    fs::write(record, "").unwrap();
    let (served, standing) = disk.served();
    assert_eq!(served, 0);
    assert!(
        matches!(standing, Some(Standing::Living { removed: Some(_) })),
        "{standing:?}"
    );
    // A directory that was renamed away.
    let disk = Disk::new(Mode::Backup, &mut random);
    disk.open()
        .record_removal(&id(), Path::new("data"), None)
        .unwrap();
    fs::remove_dir_all(disk.job().join("data")).unwrap();
    assert_eq!(disk.served().0, 0);
}

/// A record is written, and a job with a record is not compared with the folder.
#[test]
fn while_the_recorded_times_hold_the_folder_is_not_read() {
    let disk = Disk::new(Mode::Backup, &mut Random(13));
    assert_eq!(served(&disk.open()), 0);
    assert!(disk.record().exists());
    // Without the copy's marker, a comparison would find no copy, and remove nothing.
    fs::remove_file(disk.job().join("train.done")).unwrap();
    std::thread::sleep(Duration::from_millis(1100));
    assert_eq!(served(&disk.open()), 1);
    // The copy changes: nothing reads it, since the record holds.
    fs::remove_file(disk.copy().join("train.out")).unwrap();
    assert_eq!(served(&disk.open()), 1);
    // A damaged record is no record.
    fs::write(disk.record(), "xpmfs-stamps 1\nliving\n").unwrap();
    assert_eq!(served(&disk.open()), 0, "the copy lacks train.out");
    // The name of another folder.
    let text = fs::read(disk.record()).unwrap();
    assert!(text.starts_with(b"xpmfs-stamps 1\nliving\n"));
}

#[test]
fn random_purges_are_recognized() {
    for seed in 1..60 {
        let random = &mut Random(seed * 7919);
        let mode = [Mode::Use, Mode::Backup, Mode::Move][random.below(3)];
        let disk = Disk::new(mode, random);
        if random.chance(50) {
            make_coarse(&disk.copy());
        }
        if random.chance(50) {
            assert_living("before", &disk);
        }
        let removed = purge(&disk.job(), random);
        let what = format!("seed {seed}: {removed:?}");
        assert_purged(&what, &disk);
        if random.chance(50) {
            fs::write(disk.job().join("data/mine"), "x").unwrap();
            assert_living(&what, &disk);
        }
    }
}
