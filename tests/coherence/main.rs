//! What is written through one way to a workspace is what is read through another: a mount in place, a mount elsewhere
//! and the disk beneath, as an ordinary user, whose files the kernel reads and writes through its own cache.
//!
//! - here: the contents and attributes of files
//! - [`listings`]: directories that are listed while they change
//! - [`mapped`]: files that are written and mapped at the same time
//! - [`locks`]: names and attributes by which processes exclude each other; races for locks are in `tests/concurrent`

// clippy.toml allows these in test functions only, not in what they call.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../common/mod.rs"]
mod common;
mod listings;
mod locks;
mod mapped;

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use common::Workspace;
use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags};

/// The ways to the workspace, in the order of [`with_sides`].
const PAIRS: [(usize, usize); 6] = [(0, 1), (1, 0), (0, 2), (2, 0), (1, 2), (2, 1)];
const NAMES: [&str; 3] = ["in place", "elsewhere", "disk"];

/// What a map shows is at most 2 s old; the machine may be busy besides.
const MAP_DEADLINE: Duration = Duration::from_secs(5);

fn rounds() -> usize {
    if common::soak() { 10_000 } else { 100 }
}

/// A directory, by a way that stays open.
struct Side(File);

impl Side {
    fn at(path: &Path) -> Side {
        Side(File::open(path).unwrap())
    }

    fn open(&self, name: &str, flags: OFlags) -> File {
        let opened = rustix::fs::openat(&self.0, name, flags, Mode::from_raw_mode(0o644));
        opened.unwrap().into()
    }

    fn size(&self, name: &str) -> usize {
        let stat = rustix::fs::statat(&self.0, name, AtFlags::empty()).unwrap();
        usize::try_from(stat.st_size).unwrap()
    }

    /// As a program does that looks whether a file is there, and reads it.
    fn read(&self, name: &str) -> Vec<u8> {
        let _ = self.size(name);
        self.open_and_read(name)
    }

    fn open_and_read(&self, name: &str) -> Vec<u8> {
        let mut contents = Vec::new();
        let mut file = self.open(name, OFlags::RDONLY);
        file.read_to_end(&mut contents).unwrap();
        contents
    }
}

/// Runs as an ordinary user with the workspace mounted in place and elsewhere.
fn with_sides(run: impl FnOnce(&[Side; 3]) + Send) {
    let workspace = Workspace::of_ordinary_user();
    let disk = workspace.as_user(|| Side::at(&workspace.primary()));
    let elsewhere = workspace.mountpoint("mnt");
    let in_place = workspace.mount_in_place();
    let second = workspace.mount_at(&elsewhere);
    workspace.as_user(|| {
        let sides = [Side::at(in_place.path()), Side::at(second.path()), disk];
        run(&sides);
    });
    second.unmount();
    in_place.unmount();
}

/// Runs with each pair of ways, the one that writes first, and the name of a new file.
fn each_pair(run: impl Fn(&Side, &Side, &str) + Sync) {
    with_sides(|sides| {
        for (writer, reader) in PAIRS {
            let name = format!("{}, {}", NAMES[writer], NAMES[reader]);
            run(&sides[writer], &sides[reader], &name);
        }
    });
}

/// The contents that a file of this test has at any size.
fn pattern(size: usize) -> Vec<u8> {
    (0..size).map(|at| (at % 251) as u8).collect()
}

/// A different number each time, the same in each run.
fn scattered(round: usize) -> usize {
    round.wrapping_mul(2_654_435_761) >> 7
}

const CREATE: OFlags = OFlags::WRONLY.union(OFlags::CREATE);

#[test]
fn every_record_that_is_appended_is_there_once() {
    const LENGTHS: [usize; 3] = [10, 100, 3000];
    each_pair(|first, second, name| {
        first.open(name, CREATE);
        let _ = (first.size(name), second.size(name));
        std::thread::scope(|scope| {
            for writer in 0..4 {
                let side = [first, second][writer % 2];
                scope.spawn(move || {
                    let mut file = side.open(name, OFlags::WRONLY | OFlags::APPEND);
                    for round in 0..rounds() {
                        let fill = "x".repeat(LENGTHS[round % 3]);
                        let record = format!("{writer}:{round}:{fill}\n");
                        assert_eq!(file.write(record.as_bytes()).unwrap(), record.len());
                    }
                });
            }
        });
        for side in [first, second] {
            let contents = String::from_utf8(side.read(name)).unwrap();
            let mut found: Vec<&str> = contents.lines().collect();
            found.sort_unstable();
            let mut expected: Vec<String> = (0..4)
                .flat_map(|writer| (0..rounds()).map(move |round| (writer, round)))
                .map(|(writer, round)| {
                    format!("{writer}:{round}:{}", "x".repeat(LENGTHS[round % 3]))
                })
                .collect();
            expected.sort_unstable();
            assert!(found == expected, "{name}: {} records", found.len());
        }
    });
}

#[test]
fn a_file_that_grows_is_read_to_its_end() {
    each_pair(|writer, reader, name| {
        let mut file = writer.open(name, CREATE);
        let mut size = 0;
        for round in 0..rounds() {
            let more = 1 + scattered(round) % 700;
            let _ = reader.size(name);
            file.write_all(&pattern(size + more)[size..]).unwrap();
            size += more;
            assert!(
                reader.open_and_read(name) == pattern(size),
                "{name}, round {round}"
            );
            if size > 100_000 {
                file.set_len(0).unwrap();
                file = writer.open(name, CREATE);
                size = 0;
            }
        }
    });
}

#[test]
fn a_file_that_is_truncated_is_read_as_it_is_then() {
    each_pair(|writer, reader, name| {
        let file = writer.open(name, CREATE);
        for round in 0..rounds() {
            let (written, cut) = (scattered(round) % 9000, scattered(round + 7) % 9000);
            file.write_all_at(&pattern(written), 0).unwrap();
            let _ = reader.size(name);
            file.set_len(cut as u64).unwrap();
            let read = reader.open_and_read(name);
            let expected = pattern(written.min(cut));
            assert_eq!(read.len(), cut, "{name}, round {round}");
            assert!(read.starts_with(&expected), "{name}, round {round}");
            file.set_len(0).unwrap();
        }
    });
}

#[test]
fn a_file_that_is_replaced_or_overwritten_is_read_as_it_is_then() {
    each_pair(|writer, reader, name| {
        let next = format!("{name}, next");
        for round in 0..rounds() {
            // Half of them of the same size.
            let fill = if round % 4 < 2 { 5000 } else { round % 5000 };
            let contents = format!("{round:08}{}", "y".repeat(fill)).into_bytes();
            let place = if round % 2 == 0 { &next } else { name };
            let how = CREATE
                | if round % 2 == 0 {
                    OFlags::TRUNC
                } else {
                    OFlags::empty()
                };
            let file = writer.open(place, how);
            file.write_all_at(&contents, 0).unwrap();
            file.set_len(contents.len() as u64).unwrap();
            if round % 2 == 0 {
                rustix::fs::renameat(&writer.0, &next, &writer.0, name).unwrap();
            }
            assert!(
                reader.open_and_read(name) == contents,
                "{name}, round {round}"
            );
        }
    });
}

#[test]
fn a_file_that_several_read_while_it_grows_never_seems_to_shrink() {
    each_pair(|writer, reader, name| {
        let mut file = writer.open(name, CREATE);
        let size = std::sync::atomic::AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    loop {
                        let before = size.load(std::sync::atomic::Ordering::SeqCst);
                        let read = reader.read(name);
                        assert!(read.len() >= before, "{name}: {} of {before}", read.len());
                        assert!(read == pattern(read.len()), "{name}");
                        if before >= rounds() {
                            break;
                        }
                    }
                });
            }
            for round in 0..rounds() {
                file.write_all(&pattern(round + 1)[round..]).unwrap();
                size.store(round + 1, std::sync::atomic::Ordering::SeqCst);
            }
        });
    });
}

#[test]
fn a_counter_that_a_lock_guards_loses_no_increment() {
    each_pair(|first, second, name| {
        let file = first.open(name, CREATE);
        file.write_all_at(&0u64.to_le_bytes(), 0).unwrap();
        std::thread::scope(|scope| {
            for side in [first, second] {
                scope.spawn(move || {
                    // Open all the time, as a database is.
                    let file = side.open(name, OFlags::RDWR);
                    for _ in 0..rounds() / 2 {
                        rustix::fs::flock(&file, FlockOperation::LockExclusive).unwrap();
                        let mut count = [0; 8];
                        file.read_exact_at(&mut count, 0).unwrap();
                        let next = u64::from_le_bytes(count) + 1;
                        file.write_all_at(&next.to_le_bytes(), 0).unwrap();
                        rustix::fs::flock(&file, FlockOperation::Unlock).unwrap();
                    }
                });
            }
        });
        let expected = (rounds() / 2 * 2) as u64;
        assert_eq!(second.read(name), expected.to_le_bytes(), "{name}");
    });
}

#[test]
fn a_map_shows_what_is_written_elsewhere_and_nothing_else() {
    with_sides(|sides| {
        std::thread::scope(|scope| {
            for (writer, reader) in PAIRS {
                let name = format!("{}, {}", NAMES[writer], NAMES[reader]);
                let (writer, reader) = (&sides[writer], &sides[reader]);
                scope.spawn(move || {
                    let file = writer.open(&name, CREATE);
                    file.write_all_at(&[0; 8192], 0).unwrap();
                    let mapped = Mapped::of(&reader.open(&name, OFlags::RDONLY));
                    assert_eq!(mapped.byte(5000), 0);
                    let rounds = if common::soak() { 30 } else { 2 };
                    for round in 1..=rounds {
                        file.write_all_at(&[round; 8192], 0).unwrap();
                        let written = Instant::now();
                        loop {
                            let shown = mapped.byte(5000);
                            if shown == round {
                                break;
                            }
                            assert_eq!(shown, round - 1, "{name}: never written");
                            assert!(written.elapsed() < MAP_DEADLINE, "{name}: still the old");
                            std::thread::sleep(Duration::from_millis(10));
                        }
                    }
                });
            }
        });
    });
}

/// Two pages of a file, mapped for reading.
struct Mapped(*mut core::ffi::c_void);

impl Mapped {
    #[allow(unsafe_code)]
    fn of(file: &File) -> Mapped {
        let (read, shared) = (libc::PROT_READ, libc::MAP_SHARED);
        // SAFETY: the kernel chooses the address, and nothing but `byte` uses it.
        let at = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                8192,
                read,
                shared,
                file.as_raw_fd(),
                0,
            )
        };
        assert_ne!(at, libc::MAP_FAILED, "{}", std::io::Error::last_os_error());
        Mapped(at)
    }

    #[allow(unsafe_code)]
    fn byte(&self, at: usize) -> u8 {
        assert!(at < 8192);
        // SAFETY: within the two pages that stay mapped, of a file that is never shorter.
        unsafe { self.0.cast::<u8>().add(at).read_volatile() }
    }
}

impl Drop for Mapped {
    #[allow(unsafe_code)]
    fn drop(&mut self) {
        // SAFETY: mapped by `of`, and used by nothing any more.
        unsafe { libc::munmap(self.0, 8192) };
    }
}
