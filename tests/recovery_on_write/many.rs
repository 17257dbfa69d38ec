//! Many archived jobs and several writers at random: each job is recovered once, whole, and no write is lost.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::common::thread::{Mapping, truncate};
use crate::common::{self, Workspace, names};
use crate::stage::{TASK, archived, contents, everywhere};

/// How many jobs there are.
pub(crate) fn jobs() -> usize {
    match common::soak() {
        true => 1000,
        false => 40,
    }
}

pub(crate) const WRITERS: usize = 8;

/// How many kinds of changes there are.
const KINDS: u64 = 14;

/// Larger than what is read through the kernel's cache where passthrough can be had.
const LARGE: usize = 100_000;

/// The size to which a file is cut.
const CUT: usize = 4;

/// The files of a job that are changed, and not only added.
const CHANGED: [&str; 6] = [
    "train.out",
    "train.py",
    "large.bin",
    "cut.txt",
    "uv.lock",
    "cut-by-name.txt",
];

pub(crate) fn random(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

pub(crate) fn hash(number: usize) -> String {
    format!("job-{number}")
}

/// What the writers have done to each job.
#[derive(Default)]
struct Done {
    /// Lines that were appended, by job.
    lines: BTreeMap<usize, Vec<String>>,
    /// Files that were made, by job.
    made: BTreeMap<usize, Vec<String>>,
    /// Which bytes of the large file were written, by job.
    bytes: BTreeMap<usize, Vec<usize>>,
    /// The files that were cut, by job.
    cut: BTreeMap<usize, Vec<&'static str>>,
    /// The last mode of the script, by job.
    modes: BTreeMap<usize, Vec<u32>>,
    /// The new name of the file that one of the writers has renamed, by job.
    renamed: BTreeMap<usize, Vec<String>>,
    changed: std::collections::BTreeSet<usize>,
}

fn directory(path: &Path) -> OwnedFd {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).unwrap()
}

/// One change of one job; each writer makes its own. `slot` differs between the changes of a job.
fn change(job: &Path, (number, slot): (usize, usize), name: &str, kind: u64, done: &Mutex<Done>) {
    let path = job.join("train.out");
    let line = format!("{name}\n");
    let append = |mut file: File| {
        file.write_all(line.as_bytes()).unwrap();
        let mut done = done.lock().unwrap();
        done.lines.entry(number).or_default().push(name.to_owned());
    };
    let to_append = || File::options().append(true).open(&path).unwrap();
    let made = |made: &str| {
        let mut done = done.lock().unwrap();
        done.made.entry(number).or_default().push(made.to_owned());
    };
    let byte = || {
        let mut done = done.lock().unwrap();
        done.bytes.entry(number).or_default().push(slot);
    };
    let cut = |file| {
        let mut done = done.lock().unwrap();
        done.cut.entry(number).or_default().push(file);
    };
    let renamed = |result: rustix::io::Result<()>| match result {
        Ok(()) => {
            let mut done = done.lock().unwrap();
            done.renamed
                .entry(number)
                .or_default()
                .push(name.to_owned());
        }
        // Another writer was faster.
        Err(error) => assert_eq!(error, Errno::NOENT),
    };
    match kind {
        0 => append(to_append()),
        1 => {
            // Beside a reader, which keeps what it has.
            let reader = File::open(job.join("large.bin")).unwrap();
            let mapping = Mapping::new(&reader, false, false).unwrap();
            append(to_append());
            let mut buffer = [0; 100];
            reader
                .read_exact_at(&mut buffer, LARGE as u64 - 100)
                .unwrap();
            assert_eq!((buffer, mapping.read(2000)), ([b'a'; 100], b'a'));
        }
        2 => {
            let directory = directory(job);
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
            let temporary = format!("{name}.tmp");
            let file = rustix::fs::openat(&directory, &temporary, flags, Mode::RUSR).unwrap();
            rustix::io::write(&file, name.as_bytes()).unwrap();
            rustix::fs::renameat(&directory, &temporary, &directory, name).unwrap();
            made(name);
        }
        3 => {
            fs::write(job.join("data/deep").join(name), name).unwrap();
            made(&format!("data/deep/{name}"));
        }
        4 | 5 => {
            let mode = 0o600 | (slot as u32);
            let script = job.join("train.py");
            match kind {
                4 => fs::set_permissions(script, fs::Permissions::from_mode(mode)).unwrap(),
                _ => {
                    let file = File::open(script).unwrap();
                    rustix::fs::fchmod(&file, Mode::from_raw_mode(mode)).unwrap();
                }
            }
            let mut done = done.lock().unwrap();
            done.modes.entry(number).or_default().push(mode);
        }
        6 => {
            fs::create_dir(job.join(format!("{name}.d"))).unwrap();
            fs::write(job.join(format!("{name}.d/in")), format!("{name}.d/in")).unwrap();
            made(&format!("{name}.d/in"));
        }
        7 => {
            let file = File::open(&path).unwrap();
            let now = rustix::fs::Timestamps {
                last_access: rustix::fs::Timespec {
                    tv_sec: 0,
                    tv_nsec: rustix::fs::UTIME_NOW,
                },
                last_modification: rustix::fs::Timespec {
                    tv_sec: 0,
                    tv_nsec: rustix::fs::UTIME_OMIT,
                },
            };
            rustix::fs::futimens(&file, &now).unwrap();
            append(to_append());
        }
        8 => {
            truncate(&job.join("cut-by-name.txt"), CUT as u64).unwrap();
            cut("cut-by-name.txt");
        }
        9 => {
            let file = File::options().write(true).open(job.join("cut.txt"));
            file.unwrap().set_len(CUT as u64).unwrap();
            cut("cut.txt");
        }
        10 => renamed(rustix::fs::rename(job.join("uv.lock"), job.join(name))),
        11 => {
            let (top, deep) = (directory(job), directory(&job.join("data")));
            renamed(rustix::fs::renameat(&deep, "../uv.lock", &top, name));
        }
        12 => {
            // Beside a reader of the same file, which keeps what it has.
            let path = job.join("large.bin");
            let reader = File::open(&path).unwrap();
            let before = Mapping::new(&reader, false, false).unwrap();
            before.read(2000);
            let file = File::options().read(true).write(true).open(&path).unwrap();
            Mapping::new(&file, true, true).unwrap().write(slot, b'm');
            byte();
            let mut buffer = [0; 100];
            reader.read_exact_at(&mut buffer, 2000).unwrap();
            assert_eq!(buffer, [b'a'; 100]);
        }
        _ => {
            // By the name of an open descriptor.
            let directory = directory(job);
            let path = format!("/proc/self/fd/{}/large.bin", directory.as_raw_fd());
            let file = File::options().write(true).open(path).unwrap();
            file.write_all_at(b"m", slot as u64).unwrap();
            byte();
        }
    }
    done.lock().unwrap().changed.insert(number);
}

/// Writes an archived job with files for each of the changes.
fn prepare(workspace: &Workspace, number: usize) {
    let job = archived(workspace, common::FOLDERS[number % 3], &hash(number));
    fs::write(job.join("large.bin"), vec![b'a'; LARGE]).unwrap();
    fs::write(job.join("train.py"), "print()\n").unwrap();
    for name in ["cut.txt", "cut-by-name.txt"] {
        fs::write(job.join(name), "0123456789").unwrap();
    }
}

/// Asserts that a job has what the archive had, and each change.
fn assert_changed(there: &Path, archive: &Path, number: usize, done: &Done) {
    let of = |lists: &BTreeMap<usize, Vec<String>>| lists.get(&number).cloned().unwrap_or_default();
    let made = of(&done.made);
    for file in &made {
        let text = fs::read_to_string(there.join(file)).unwrap();
        assert!(file.ends_with(&text), "{file} has {text:?}");
    }
    let text = fs::read_to_string(there.join("train.out")).unwrap();
    let mut lines: Vec<&str> = text
        .strip_prefix("step 1\nstep 2\n")
        .unwrap()
        .lines()
        .collect();
    let mut expected = of(&done.lines);
    lines.sort_unstable();
    expected.sort_unstable();
    assert_eq!(lines, expected, "{}", there.display());

    let mut large = vec![b'a'; LARGE];
    for slot in done.bytes.get(&number).into_iter().flatten() {
        large[*slot] = b'm';
    }
    assert!(
        fs::read(there.join("large.bin")).unwrap() == large,
        "{}",
        there.display()
    );
    for file in ["cut.txt", "cut-by-name.txt"] {
        let is_cut = done.cut.get(&number).is_some_and(|cut| cut.contains(&file));
        let expected = if is_cut { "0123" } else { "0123456789" };
        assert_eq!(fs::read_to_string(there.join(file)).unwrap(), expected);
    }
    let modes = done.modes.get(&number);
    let mode = fs::metadata(there.join("train.py")).unwrap().permissions();
    let mode = mode.mode() & 0o777;
    assert!(
        modes.map_or(mode == 0o644, |modes| modes.contains(&mode)),
        "{mode:o}, {modes:?}"
    );
    let renamed = of(&done.renamed);
    assert!(renamed.len() <= 1, "renamed twice: {renamed:?}");
    let lock = renamed.first().map_or("uv.lock", |name| name);
    assert_eq!(fs::read(there.join(lock)).unwrap(), b"version = 1\n");
    assert!(renamed.is_empty() || !there.join("uv.lock").exists());

    let archived = contents(archive, &CHANGED);
    let now = contents(there, &CHANGED);
    for line in &archived {
        assert!(now.contains(line), "{line} is not in {}", there.display());
    }
    let added = now.len() - archived.len();
    let directories = made.iter().filter(|file| file.contains(".d/")).count();
    assert_eq!(added, made.len() + directories + renamed.len(), "{now:?}");
    assert!(names(there).contains(&"train.done".into()));
}

/// Runs the writers: `work` has the number of the job, that of the change among those of the job, its name and its kind.
pub(crate) fn with_writers(
    jobs: usize,
    kinds: u64,
    work: impl Fn((usize, usize), &str, u64) + Sync,
) {
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let (work, next) = (&work, &next);
            scope.spawn(move || {
                let mut state = 0x9e37_79b9 + writer as u64 * 7919;
                loop {
                    // All writers are near each other, so that several change one job first.
                    let round = next.fetch_add(1, Ordering::Relaxed);
                    let number = round / WRITERS;
                    if number >= jobs {
                        return;
                    }
                    let kind = random(&mut state) % kinds;
                    work((number, round % WRITERS), &format!("w{round}"), kind);
                }
            });
        }
    });
}

/// How often the daemons have logged that a program's change recovered a job, by job.
fn recoveries(log: &str) -> BTreeMap<&str, usize> {
    let mut counts = BTreeMap::new();
    for line in log
        .lines()
        .filter(|line| line.contains("recovered for a program"))
    {
        let before = line.split(": recovered").next().unwrap();
        let job = before.split_whitespace().last().unwrap();
        *counts.entry(job).or_default() += 1;
    }
    counts
}

#[test]
fn random_writers_lose_nothing() {
    everywhere(
        |workspace| (0..jobs()).for_each(|number| prepare(workspace, number)),
        |workspace, mounted, beneath| {
            let began = std::time::Instant::now();
            let before = workspace.log().len();
            let done = Mutex::new(Done::default());
            with_writers(jobs(), KINDS, |change_of, name, kind| {
                let job = mounted.job(TASK, &hash(change_of.0));
                change(&job, change_of, name, kind, &done);
            });
            let took = began.elapsed();
            let done = done.into_inner().unwrap();
            assert_eq!(done.changed.len(), jobs());
            for number in 0..jobs() {
                let (hash, folder) = (hash(number), common::FOLDERS[number % 3]);
                let archive = workspace.folder(folder).join("jobs").join(TASK).join(&hash);
                let there = beneath.path().join("jobs").join(TASK).join(&hash);
                assert_changed(&there, &archive, number, &done);
                assert_changed(&mounted.job(TASK, &hash), &archive, number, &done);
            }
            // The log is that of all mounts of the workspace so far.
            let log = workspace.log();
            let recovered = recoveries(&log[before..]);
            assert_eq!(recovered.len(), jobs());
            let again: Vec<_> = recovered.iter().filter(|(_, count)| **count != 1).collect();
            assert!(again.is_empty(), "recovered more than once: {again:?}");
            if common::soak() {
                common::say(&format!(
                    "{} changes of {} jobs in {took:?}",
                    jobs() * WRITERS,
                    jobs()
                ));
            }
        },
    );
}
