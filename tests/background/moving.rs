//! A move is never to be seen as an absent job, and what is open stays what it is.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Read;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::common::{Mounted, Workspace, names};
use crate::job::{self, TASK, hash};
use crate::stage::{Beneath, at_once, staging, until};
use crate::{common, thread};

/// How many jobs are moved.
fn jobs() -> usize {
    match common::soak() {
        true => 10_000,
        false => 150,
    }
}

/// A workspace whose jobs are moved as soon as they have not changed for a moment.
fn workspace() -> Workspace {
    let workspace = Workspace::new();
    workspace.with_folders(&["move"]);
    workspace.tune("{settle: 100ms, scan_interval: 200ms}");
    workspace
}

#[test]
fn jobs_that_are_moved_in_place_are_there_all_the_time() {
    let workspace = workspace();
    moves(&workspace, &workspace.primary());
}

#[test]
fn jobs_that_are_moved_by_a_mount_elsewhere_are_there_all_the_time() {
    let workspace = workspace();
    moves(&workspace, &workspace.mountpoint("elsewhere"));
}

/// Which jobs there are.
struct Progress {
    /// So many are finished.
    made: AtomicUsize,
    /// Of these, so many have moved, for certain.
    moved: AtomicUsize,
    over: AtomicBool,
}

/// Has a mount move jobs while others read them, through it and beneath it.
fn moves(workspace: &Workspace, mountpoint: &Path) {
    let count = jobs();
    let began = Instant::now();
    let beneath = Beneath::of(&workspace.primary());
    let start = count / 3;
    for number in 0..start {
        job::make(&beneath.path(), number);
    }
    let progress = Progress {
        made: AtomicUsize::new(start),
        moved: AtomicUsize::new(0),
        over: AtomicBool::new(false),
    };
    let mounted = workspace.mount_archiving(mountpoint, &[]);
    let seen = std::thread::scope(|scope| {
        let places = [mountpoint, mountpoint, &*beneath.path()];
        let places = places.map(|place| place.to_owned());
        let [all, near, under] = places;
        let progress = &progress;
        let readers = [
            scope.spawn(move || read_all_the_time(&all, false, progress)),
            scope.spawn(move || read_all_the_time(&near, true, progress)),
            scope.spawn(move || read_all_the_time(&under, true, progress)),
        ];
        {
            // Also if it fails: the readers are waited for.
            let _over = Over(&progress.over);
            make_all(&beneath.path(), mountpoint, start..count, progress);
            wait_for_moves(&beneath.path(), &workspace.folder("move"), count, progress);
        }
        readers.map(|reader| reader.join().unwrap())
    });
    let failures: Vec<&String> = seen.iter().flat_map(|seen| &seen.failures).collect();
    let looks = seen.each_ref().map(|seen| seen.looks);
    common::say(&format!(
        "{count} jobs moved in {:.1} s, looked at {looks:?} times",
        began.elapsed().as_secs_f64()
    ));
    assert!(failures.is_empty(), "{failures:#?}");
    assert!(looks.iter().all(|looks| *looks > 0), "nobody looked");
    for number in 0..count {
        assert_eq!(mounted.location(job::path(number)), "move");
        let copy = workspace.folder("move").join(job::path(number));
        job::look_at(&copy, number).unwrap();
    }
    assert_eq!(staging(&workspace.folder("move")), [""; 0]);
}

/// Makes jobs beneath a mount, under another name first, and in it.
fn make_all(
    beneath: &Path,
    mountpoint: &Path,
    numbers: std::ops::Range<usize>,
    progress: &Progress,
) {
    for number in numbers {
        match number % 3 {
            0 => job::make(beneath, number),
            1 => job::make(mountpoint, number),
            _ => job::write(&mountpoint.join(job::path(number)), number),
        }
        progress.made.store(number + 1, Ordering::Release);
        if number % 10 == 0 {
            note_moves(beneath, progress);
        }
    }
}

/// Waits until all have moved, and the old directories are gone.
fn wait_for_moves(beneath: &Path, folder: &Path, count: usize, progress: &Progress) {
    // As long as some move: one that somebody was at has its turn again after all others that wait.
    let mut last = (0, 0, Instant::now());
    while note_moves(beneath, progress) < count {
        let moved = progress.moved.load(Ordering::Relaxed);
        if moved > last.0 {
            last = (moved, last.1, Instant::now());
        }
        if last.2.elapsed() > Duration::from_secs(60) {
            let there = names(&folder.join("jobs").join(TASK)).len();
            assert!(there > last.1, "job {moved} is not moved");
            last = (moved, there, Instant::now());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    until("the old directories are removed", || {
        staging(beneath).is_empty()
    });
}

/// Counts the jobs that have moved, from the first on.
fn note_moves(beneath: &Path, progress: &Progress) -> usize {
    let made = progress.made.load(Ordering::Relaxed);
    let mut moved = progress.moved.load(Ordering::Relaxed);
    while moved < made && beneath.join(job::path(moved)).is_symlink() {
        moved += 1;
    }
    progress.moved.store(moved, Ordering::Relaxed);
    moved
}

struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// What somebody has seen.
#[derive(Debug, Default)]
struct Seen {
    looks: usize,
    failures: Vec<String>,
}

/// Looks at the jobs, all of them or those that are `near` the ones being moved, until it is over.
fn read_all_the_time(top: &Path, near: bool, progress: &Progress) -> Seen {
    let mut seen = Seen::default();
    while !progress.over.load(Ordering::Acquire) && seen.failures.len() < 10 {
        let made = progress.made.load(Ordering::Acquire);
        let number = match near {
            true => progress.moved.load(Ordering::Relaxed) + seen.looks % 64,
            false => seen.looks,
        } % made;
        let looked = job::look_at(&top.join(job::path(number)), number);
        let listed = match seen.looks % 50 {
            0 => all_are_listed(top, made),
            _ => Ok(()),
        };
        seen.looks += 1;
        // The others have something to do, too.
        std::thread::sleep(Duration::from_micros(300));
        seen.failures
            .extend([looked, listed].into_iter().filter_map(Result::err));
    }
    seen
}

/// Sees whether a task's listing has each of the first jobs once.
fn all_are_listed(top: &Path, made: usize) -> Result<(), String> {
    let task = top.join("jobs").join(TASK);
    let listed = job::entries(&task).map_err(|e| format!("{}: list: {e}", task.display()))?;
    let jobs: Vec<OsString> = listed
        .into_iter()
        .filter(|name| !is_staging(name))
        .collect();
    let missing = (0..made).find(|number| jobs.binary_search(&hash(*number).into()).is_err());
    if let Some(missing) = missing {
        return Err(format!(
            "{}: {missing} of {made} is missing",
            task.display()
        ));
    }
    if let Some(twice) = jobs.windows(2).find(|two| two[0] == two[1]) {
        return Err(format!("{}: {:?} is there twice", task.display(), twice[0]));
    }
    Ok(())
}

fn is_staging(name: &OsString) -> bool {
    name.as_encoded_bytes().starts_with(b".tmp.")
}

const PAGES: usize = 1000;

/// A file each of whose pages tells which it is.
fn large() -> Vec<u8> {
    let mut large = Vec::with_capacity(PAGES * thread::PAGE);
    for number in 0..PAGES {
        large.extend_from_slice(&(number as u64 + 1).to_le_bytes());
        large.resize((number + 1) * thread::PAGE, 0);
    }
    large
}

#[test]
fn files_that_are_open_while_their_job_moves_are_read_to_their_end() {
    at_once([true, false], |in_place| {
        let workspace = workspace();
        let mountpoint = match in_place {
            true => workspace.primary(),
            false => workspace.mountpoint("elsewhere"),
        };
        read_over_a_move(&workspace, &mountpoint);
    });
}

fn read_over_a_move(workspace: &Workspace, mountpoint: &Path) {
    let beneath = Beneath::of(&workspace.primary());
    let mounted: Mounted<'_> = workspace.mount_archiving(mountpoint, &[]);
    let job = mounted.job(TASK, &hash(0));
    job::write_unfinished(&job, 0);
    fs::write(job.join("large"), large()).unwrap();
    let mut file = File::open(job.join("large")).unwrap();
    let mapped = File::open(job.join("large")).unwrap();
    let mapping = thread::Mapping::new(&mapped, true, false).unwrap();
    drop(mapped);
    let expected = large();
    let mut read = vec![0; expected.len() / 3];
    file.read_exact(&mut read).unwrap();
    // Only now is it finished, and moved.
    fs::write(job.join("train.done"), b"").unwrap();
    let own = beneath.path().join(job::path(0));
    until("the job is moved", || own.is_symlink());
    let mut part = vec![0; expected.len() / 3];
    file.read_exact(&mut part).unwrap();
    read.extend(part);
    until("its old directory is removed", || {
        staging(&beneath.path()).is_empty()
    });
    file.read_to_end(&mut read).unwrap();
    assert!(read == expected, "something else was read");
    assert_eq!(file.metadata().unwrap().len(), expected.len() as u64);
    assert_eq!(mapping.read(0), 1);
    // Who comes now finds it in the folder.
    assert!(fs::read(job.join("large")).unwrap() == expected);
    assert_eq!(mounted.location(job::path(0)), "move");
    assert_eq!(names(&job).len(), 10);
}

/// Who was on the way into the old directory may still write into it: the job comes back, and is archived with that.
#[test]
fn what_is_written_into_the_old_directory_of_a_moved_job_is_archived_too() {
    at_once([true, false], write_into_the_old_directory);
}

fn write_into_the_old_directory(in_place: bool) {
    let workspace = workspace();
    let mountpoint = match in_place {
        true => workspace.primary(),
        false => workspace.mountpoint("elsewhere"),
    };
    let beneath = Beneath::of(&workspace.primary());
    let old = Old::make(&beneath.path());
    let mounted = workspace.mount_archiving(&mountpoint, &[]);
    let number = old.write_late();
    let own = beneath.path().join(job::path(number));
    let late = workspace
        .folder("move")
        .join(job::path(number))
        .join("late");
    // The next routine look at it would be tomorrow's.
    until("what was written late is archived", || {
        fs::read(&late).is_ok_and(|read| read == b"written late") && own.is_symlink()
    });
    assert_eq!(
        fs::read(mounted.path().join(job::path(number)).join("late")).unwrap(),
        b"written late"
    );
    until("nothing is left of it", || {
        staging(&beneath.path()).is_empty()
    });
}

/// The same, when the daemon ends before it could archive the job again.
#[test]
fn what_is_written_into_the_old_directory_last_is_archived_by_the_next_daemon() {
    let workspace = workspace();
    let mountpoint = workspace.mountpoint("elsewhere");
    let old = Old::make(&workspace.primary());
    let mounted = workspace.mount_archiving(&mountpoint, &[]);
    let number = old.write_late();
    mounted.unmount();
    let own = workspace.primary().join(job::path(number));
    // Or it is kept where it was, if the disk was too busy: a daemon that ends waits for some seconds only.
    let aside = own.with_file_name(format!(".tmp.{}", hash(number)));
    let kept = [own.join("late"), aside.join("late")].map(fs::read);
    assert!(
        kept.iter().flatten().any(|read| read == b"written late"),
        "{kept:?}\n{}",
        workspace.log()
    );
    let _mounted = workspace.mount_archiving(&mountpoint, &[]);
    let late = workspace
        .folder("move")
        .join(job::path(number))
        .join("late");
    until("what was written late is archived", || {
        fs::read(&late).is_ok_and(|read| read == b"written late") && own.is_symlink()
    });
}

/// A job whose directory is held open, in a workspace whose jobs are moved.
struct Old {
    primary: PathBuf,
    directory: File,
}

impl Old {
    /// The first of the jobs; to be called before anything is mounted.
    fn make(primary: &Path) -> Old {
        Old::make_one(primary, 0)
    }

    fn make_one(primary: &Path, number: usize) -> Old {
        // Opened before it has its name, and may be moved.
        let open = |job: &Path| File::open(job).unwrap();
        Old {
            directory: job::make_and_tell(primary, number, open),
            primary: primary.to_owned(),
        }
    }

    /// Writes into the directory of a job that has just been moved; gives which that was.
    fn write_late(mut self) -> usize {
        // The directory is kept for a moment only: whoever is kept waiting for the processor that long tries another.
        for number in 0..10 {
            if number > 0 {
                self = Old::make_one(&self.primary, number);
            }
            let own = self.primary.join(job::path(number));
            until("the job is moved", || own.is_symlink());
            match write_at(&self.directory, "late", b"written late") {
                Err(Errno::NOENT) => {}
                written => {
                    written.unwrap();
                    return number;
                }
            }
        }
        panic!("no old directory is kept");
    }
}

/// Makes a file: `ENOENT` if the directory is gone.
fn write_at(directory: impl AsFd, name: &str, contents: &[u8]) -> rustix::io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::CLOEXEC;
    let fd = rustix::fs::openat(directory, name, flags, Mode::from_raw_mode(0o644))?;
    assert_eq!(rustix::io::write(fd, contents)?, contents.len());
    Ok(())
}
