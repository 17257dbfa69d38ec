//! The job changes, vanishes or is replaced while it is copied, or has not been still for the settle time.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::fs::{CWD, Mode, OFlags};

use crate::common::eventually;
use crate::stage::{HASH, Stage, assert_tree, leftovers, moment, said, set_time, whole, write_job};

/// How long a copy takes at the bandwidth of these tests, about.
const SLOW: &str = "0s, bandwidth: 1M";

/// Files that are copied one after the other.
const LARGE: [&str; 3] = ["large", "data/large", "data/empty/large"];

/// Those that are in staging.
fn staged(stage: &Stage) -> Vec<&'static str> {
    let copy = stage.archived(stage.modes()[0]);
    let staged = copy.with_file_name(format!(".tmp.{HASH}"));
    LARGE
        .into_iter()
        .filter(|name| staged.join(name).exists())
        .collect()
}

/// A job that takes some seconds to copy, and the command that copies it.
fn begin(stage: &Stage) -> Child {
    stage.settle(SLOW);
    write_job(&stage.job());
    for name in LARGE {
        fs::write(stage.job().join(name), vec![5; 2 << 20]).unwrap();
    }
    let mut command = stage.by_one_thread("archive", &[]);
    command.stderr(std::process::Stdio::piped());
    let child = command.spawn().unwrap();
    eventually("something is copied", || !staged(stage).is_empty());
    child
}

#[test]
fn what_changes_while_it_is_copied_is_copied_again() {
    for modes in [&["backup"][..], &["move"]] {
        let stage = Stage::new(modes);
        let child = begin(&stage);
        let first = staged(&stage);
        eventually("the next is copied", || staged(&stage).len() > first.len());
        // Of the same size, after it has been read.
        fs::write(stage.job().join(first[0]), vec![6; 2 << 20]).unwrap();
        let job = whole(&stage.job()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", said(&output));
        let archived = whole(&stage.archived(modes[0]));
        assert_tree("the copy", &job, archived.as_ref());
        assert_tree("the job", &job, whole(&stage.job()).as_ref());
        stage.verify();
        stage.assert_clean();
    }
}

#[test]
fn what_is_deleted_while_it_is_copied_is_not_archived() {
    for modes in [&["backup"][..], &["move"]] {
        let stage = Stage::new(modes);
        let child = begin(&stage);
        fs::remove_dir_all(stage.job()).unwrap();
        let output = child.wait_with_output().unwrap();
        // It was named, and is not there any more.
        assert!(!said(&output).contains("panicked"), "{}", said(&output));
        assert!(!stage.job().is_symlink());
        assert!(!stage.archived(modes[0]).exists(), "{}", said(&output));
        stage.assert_clean();
        // Whoever makes it again has it archived.
        stage.settle("0s");
        write_job(&stage.job());
        let job = whole(&stage.job()).unwrap();
        stage.archive();
        assert_tree("the copy", &job, whole(&stage.archived(modes[0])).as_ref());
        stage.verify();
    }
}

#[test]
fn what_is_replaced_while_it_is_copied_is_archived_as_it_is_then() {
    for modes in [&["backup"][..], &["move"]] {
        let stage = Stage::new(modes);
        let child = begin(&stage);
        let aside = stage.primary().join("aside");
        fs::rename(stage.job(), &aside).unwrap();
        write_job(&stage.job());
        fs::write(stage.job().join("train.out"), "of another run").unwrap();
        let (job, old) = (whole(&stage.job()).unwrap(), whole(&aside).unwrap());
        let output = child.wait_with_output().unwrap();
        assert!(!said(&output).contains("panicked"), "{}", said(&output));
        assert_tree("what was put aside", &old, whole(&aside).as_ref());
        stage.settle("0s");
        stage.archive();
        assert_tree("the job", &job, whole(&stage.job()).as_ref());
        assert_tree("the copy", &job, whole(&stage.archived(modes[0])).as_ref());
        stage.verify();
        stage.assert_clean();
    }
}

/// Another disk is mounted at its path, say.
#[test]
fn what_is_copied_to_a_folder_that_is_replaced_meanwhile_leaves_nothing_in_the_other() {
    for modes in [&["backup"][..], &["move"]] {
        let stage = Stage::new(modes);
        let child = begin(&stage);
        let job = whole(&stage.job()).unwrap();
        let (folder, aside) = (stage.folder(modes[0]), stage.top().join("aside"));
        fs::rename(&folder, &aside).unwrap();
        fs::create_dir(&folder).unwrap();
        let output = child.wait_with_output().unwrap();
        let said = said(&output);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("does not lead to the directory"), "{said}");
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 0, "{said}");
        assert_eq!(leftovers(&aside), [] as [PathBuf; 0]);
        assert_tree("the job", &job, whole(&stage.job()).as_ref());
        // When it is back, the copy is made.
        fs::remove_dir(&folder).unwrap();
        fs::rename(&aside, &folder).unwrap();
        stage.settle("0s");
        stage.archive();
        assert_tree("the copy", &job, whole(&stage.archived(modes[0])).as_ref());
        stage.verify();
        stage.assert_clean();
    }
}

/// The two numbers that a state of the job has; they are written one after the other.
fn numbers(job: &Path) -> Option<(u64, u64)> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    // Of one copy, even if another takes its place now.
    let directory = rustix::fs::openat(CWD, job, flags, Mode::empty()).ok()?;
    let number = |name: &str| {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&directory, name, flags, Mode::empty()).ok()?;
        let text = std::io::read_to_string(fs::File::from(file)).ok()?;
        text.trim().parse().ok()
    };
    Some((number("first")?, number("second")?))
}

#[test]
fn a_copy_is_of_one_moment() {
    let stage = Stage::new(&["backup"]);
    write_job(&stage.job());
    let write = |name: &str, number: u64| {
        let staged = stage.primary().join("staged");
        fs::write(&staged, format!("{number}\n")).unwrap();
        // At once: whether half a file may be copied is not the question here.
        fs::rename(staged, stage.job().join(name)).unwrap();
    };
    // That it takes a while.
    for number in 0..50 {
        fs::write(stage.job().join(format!("data/{number}")), [1; 5000]).unwrap();
    }
    write("first", 0);
    write("second", 0);
    let over = AtomicBool::new(false);
    let mut seen = 0;
    let until = Instant::now() + Duration::from_secs(6);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut number = 0;
            while !over.load(Ordering::Relaxed) {
                number += 1;
                write("first", number);
                write("second", number);
                // Between two states there is time for one to be copied now and then, on a busy machine too.
                let long = if number % 10 == 0 { 2500 } else { 0 };
                std::thread::sleep(Duration::from_millis(number * 7 % 500 + long));
            }
        });
        let archive = scope.spawn(|| {
            while Instant::now() < until {
                let output = stage.jobs(&["archive", "--all"]);
                assert!(!said(&output).contains("panicked"), "{}", said(&output));
            }
            over.store(true, Ordering::Relaxed);
        });
        let mut last = None;
        while !archive.is_finished() {
            let Some((first, second)) = numbers(&stage.archived("backup")) else {
                continue;
            };
            assert!(first == second || first == second + 1, "{first}, {second}");
            if last != Some((first, second)) {
                (seen, last) = (seen + 1, Some((first, second)));
            }
        }
        over.store(true, Ordering::Relaxed);
    });
    assert!(seen > 0, "nothing was archived");
    stage.archive();
    assert_tree(
        "the copy",
        &whole(&stage.job()).unwrap(),
        whole(&stage.archived("backup")).as_ref(),
    );
    stage.verify();
    stage.assert_clean();
    assert_eq!(leftovers(&stage.folder("backup")).len(), 0);
}

#[test]
fn jobs_from_the_future_and_from_long_ago_are_archived_once_they_are_still() {
    // Before the epoch, at it, and when nobody here will see it.
    for seconds in [-500_000_000, 0, 4_000_000_000_i64] {
        let stage = Stage::new(&["backup", "move"]);
        stage.settle("1s");
        write_job(&stage.job());
        for name in ["train.out", "data", "train.done", "."] {
            let time = rustix::fs::Timespec {
                tv_sec: seconds,
                tv_nsec: 5,
            };
            let times = rustix::fs::Timestamps {
                last_access: time,
                last_modification: time,
            };
            let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
            rustix::fs::utimensat(rustix::fs::CWD, stage.job().join(name), &times, flags).unwrap();
        }
        let job = whole(&stage.job()).unwrap();
        stage.archive();
        assert!(stage.job().is_symlink(), "{seconds}");
        for mode in stage.modes() {
            assert_tree(mode, &job, whole(&stage.archived(mode)).as_ref());
        }
        // And it is not new for ever.
        stage.archive();
        stage.verify();
        stage.assert_clean();
    }
}

#[test]
fn a_job_that_still_changes_is_not_archived() {
    let stage = Stage::new(&["backup"]);
    stage.settle("2s");
    write_job(&stage.job());
    let before = std::time::Instant::now();
    // Times that say that it was long ago do not hide that it has just been changed.
    set_time(&stage.job().join("train.out"), moment(0));
    stage.archive();
    assert!(before.elapsed().as_millis() > 1000);
    stage.verify();
    assert!(
        stage.archived("backup").join("train.done").exists(),
        "{HASH}"
    );
}
