//! Files that are removed while processes use them, and the descriptors that the daemon keeps for them.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::fs::{CWD, FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::common::{Mounted, Workspace, eventually, run};

const TASK: &str = "my.module.train";

/// Larger than the kernel reserves for a file, so that its space would be missed.
const SIZE: usize = 1 << 20;

/// More than the precision of times of birth.
const OLD: Duration = Duration::from_millis(110);

fn workspace(ordinary: bool) -> Workspace {
    let workspace = match ordinary {
        true => Workspace::of_ordinary_user(),
        false => Workspace::new(),
    };
    workspace.finished("primary", TASK, "job");
    workspace
}

/// The directory with the daemon's descriptors.
fn descriptors(workspace: &Workspace, mounted: &Mounted<'_>) -> PathBuf {
    let status = run(workspace
        .xpmfs()
        .args(["--json", "status"])
        .arg(mounted.path()));
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    let pid = status["mounts"][0]["pid"].as_u64().unwrap();
    format!("/proc/{pid}/fd").into()
}

/// How many descriptors the daemon has of files without a name, and of all files.
fn held(descriptors: &Path) -> (usize, usize) {
    let (mut nameless, mut all) = (0, 0);
    for entry in fs::read_dir(descriptors).unwrap() {
        // A descriptor may have been closed meanwhile.
        let Ok(target) = fs::read_link(entry.unwrap().path()) else {
            continue;
        };
        all += 1;
        // Not the daemon's memory files (`/memfd:`).
        let target = target.to_string_lossy();
        nameless += usize::from(target.ends_with(" (deleted)") && target.contains("/primary/"));
    }
    (nameless, all)
}

fn space_is_free(ordinary: bool) {
    let workspace = workspace(ordinary);
    let mounted = workspace.mount_at(&workspace.mountpoint("mnt"));
    let descriptors = descriptors(&workspace, &mounted);
    let file = mounted.job(TASK, "job").join("big");
    let other = file.with_file_name("other");
    let beneath = workspace.primary().join(format!("jobs/{TASK}/job/big"));
    workspace.as_user(|| {
        for round in 0..9 {
            fs::write(&file, vec![1; SIZE]).unwrap();
            // The kernel reports only afterwards that a file is closed.
            eventually("the file is closed", || is_closed(&descriptors, "big"));
            wait_until_old(&beneath);
            match round % 3 {
                0 => fs::remove_file(&file).unwrap(),
                1 => {
                    fs::write(&other, "x").unwrap();
                    fs::rename(&other, &file).unwrap();
                }
                // Both names are known to the kernel; the file goes with the second.
                _ => {
                    fs::hard_link(&file, &other).unwrap();
                    fs::remove_file(&file).unwrap();
                    fs::remove_file(&other).unwrap();
                }
            }
            assert_eq!(held(&descriptors).0, 0, "round {round}");
        }
    });
    mounted.unmount();
}

/// Waits until a file differs in its time of birth from one that gets its inode number next.
fn wait_until_old(beneath: &Path) {
    eventually("the file is old enough", || {
        let age = fs::metadata(beneath).unwrap().created().unwrap().elapsed();
        age.is_ok_and(|age| age > OLD)
    });
}

fn is_closed(descriptors: &Path, name: &str) -> bool {
    let targets = fs::read_dir(descriptors).unwrap();
    let mut targets = targets.filter_map(|entry| fs::read_link(entry.unwrap().path()).ok());
    !targets.any(|target| target.ends_with(name))
}

/// A program that has been told that a disk is full removes a file and writes on.
#[test]
fn the_space_of_a_removed_file_is_free_at_once() {
    space_is_free(false);
}

#[test]
fn the_space_of_a_file_that_an_ordinary_user_removes_is_free_at_once() {
    space_is_free(true);
}

#[test]
fn a_removed_hard_link_leaves_no_descriptor_while_another_name_is_known() {
    let workspace = workspace(false);
    let mounted = workspace.mount_at(&workspace.mountpoint("mnt"));
    let descriptors = descriptors(&workspace, &mounted);
    let job = mounted.job(TASK, "job");
    let kept: Vec<PathBuf> = (0..100).map(|n| job.join(format!("kept-{n}"))).collect();
    for file in &kept {
        fs::write(file, "x").unwrap();
    }
    let before = held(&descriptors).1;
    for file in &kept {
        let link = job.join("link");
        fs::hard_link(file, &link).unwrap();
        fs::remove_file(&link).unwrap();
        assert_eq!(fs::metadata(file).unwrap().nlink(), 1);
    }
    let after = held(&descriptors).1;
    assert!(after < before + 50, "{before} descriptors, then {after}");
    mounted.unmount();
}

/// More removed files stay open than the daemon could have two descriptors each for.
#[test]
fn a_removed_file_that_is_open_takes_one_descriptor() {
    const DESCRIPTORS: u64 = 600;
    const OPEN: usize = 290;
    let workspace = workspace(false);
    let mounted = workspace.mount_with_descriptors(&workspace.mountpoint("mnt"), DESCRIPTORS);
    let job = mounted.job(TASK, "job");
    let removed: Vec<File> = (0..OPEN)
        .map(|n| {
            let path = job.join(format!("file-{n}"));
            let mut options = File::options();
            let file = options.read(true).write(true).create_new(true);
            let mut file = file.open(&path).unwrap_or_else(|e| panic!("{n}: {e}"));
            write!(file, "{n}").unwrap();
            match n % 2 {
                0 => fs::remove_file(&path).unwrap(),
                _ => {
                    fs::write(job.join("next"), "x").unwrap();
                    fs::rename(job.join("next"), &path).unwrap();
                }
            }
            file
        })
        .collect();
    for (n, mut file) in removed.into_iter().enumerate() {
        let stat = file.metadata().unwrap();
        assert_eq!((stat.nlink(), stat.len()), (0, n.to_string().len() as u64));
        file.write_all(b" and more").unwrap();
        file.set_permissions(fs::Permissions::from_mode(0o600))
            .unwrap();
        file.seek(SeekFrom::Start(0)).unwrap();
        let mut content = String::new();
        file.read_to_string(&mut content).unwrap();
        assert_eq!(content, format!("{n} and more"));
        let again = fs::read_to_string(format!("/proc/self/fd/{}", file.as_raw_fd())).unwrap();
        assert_eq!(again, content);
        file.set_len(1).unwrap();
        assert_eq!(file.metadata().unwrap().len(), 1);
    }
    mounted.unmount();
}

/// What the kernel uses without a request by which the daemon could know it: directories and pipes.
#[test]
fn directories_and_pipes_can_be_used_when_they_are_removed() {
    let workspace = workspace(false);
    let mounted = workspace.mount_at(&workspace.mountpoint("mnt"));
    let descriptors = descriptors(&workspace, &mounted);
    let job = mounted.job(TASK, "job");
    for _ in 0..20 {
        let (dir, pipe) = (job.join("dir"), job.join("pipe"));
        fs::create_dir(&dir).unwrap();
        rustix::fs::mknodat(CWD, &pipe, FileType::Fifo, Mode::RWXU, 0).unwrap();
        let open_dir = File::open(&dir).unwrap();
        let mut open_pipe = File::options().read(true).write(true).open(&pipe).unwrap();
        fs::remove_dir(&dir).unwrap();
        fs::remove_file(&pipe).unwrap();
        assert!(open_dir.metadata().unwrap().is_dir());
        let entries = rustix::fs::Dir::read_from(&open_dir).unwrap().count();
        assert!(entries <= 2, "{entries}");
        let made = rustix::fs::mkdirat(&open_dir, "sub", Mode::RWXU);
        assert_eq!(made.unwrap_err(), Errno::NOENT);
        assert_eq!(open_pipe.metadata().unwrap().nlink(), 0);
        open_pipe.write_all(b"x").unwrap();
        open_pipe.read_exact(&mut [0]).unwrap();
    }
    eventually("what was removed is closed", || held(&descriptors).0 == 0);
    mounted.unmount();
}

#[test]
fn a_file_that_is_removed_beneath_can_be_used_while_it_is_open() {
    let workspace = workspace(false);
    let mounted = workspace.mount_at(&workspace.mountpoint("mnt"));
    let beneath = workspace.primary().join("file");
    let seen = mounted.path().join("file");
    for round in 0..20 {
        fs::write(&beneath, "content").unwrap();
        let mut open = File::options().read(true).write(true).open(&seen).unwrap();
        fs::remove_file(&beneath).unwrap();
        if round % 2 == 0 {
            fs::write(&beneath, "another").unwrap();
        }
        let mut content = String::new();
        open.read_to_string(&mut content).unwrap();
        assert_eq!(content, "content");
        open.write_all(b" and more").unwrap();
        eventually("the removal shows", || {
            open.metadata().unwrap().nlink() == 0
        });
        assert_eq!(open.metadata().unwrap().len(), 16);
        let _ = fs::remove_file(&beneath);
    }
    mounted.unmount();
}

/// Removals of many files and directories, faster than the kernel reports that it has forgotten them.
#[test]
fn removing_many_files_and_directories_keeps_few_descriptors() {
    const THREADS: usize = 4;
    const EACH: usize = 300;
    let workspace = workspace(false);
    let mounted = workspace.mount_at(&workspace.mountpoint("mnt"));
    let descriptors = descriptors(&workspace, &mounted);
    let job = mounted.job(TASK, "job");
    let done = AtomicBool::new(false);
    let most = std::thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let mut most = 0;
            while !done.load(Ordering::Acquire) {
                most = most.max(held(&descriptors).0);
            }
            most
        });
        let workers: Vec<_> = (0..THREADS)
            .map(|thread| {
                let top = job.join(format!("tree-{thread}"));
                scope.spawn(move || {
                    for n in 0..EACH {
                        let dir = top.join(n.to_string());
                        fs::create_dir_all(&dir).unwrap();
                        fs::write(dir.join("file"), "x").unwrap();
                    }
                    fs::remove_dir_all(&top).unwrap();
                })
            })
            .collect();
        workers
            .into_iter()
            .for_each(|worker| worker.join().unwrap());
        done.store(true, Ordering::Release);
        watcher.join().unwrap()
    });
    assert!(most < 200, "{most} descriptors of removed files");
    eventually("what was removed is closed", || held(&descriptors).0 == 0);
    mounted.unmount();
}

/// A process that has looked up a name opens the file that has it, or learns that there is none.
#[test]
fn an_open_beside_removals_finds_the_file_or_none() {
    const ROUNDS: usize = 500;
    let workspace = workspace(false);
    let mounted = workspace.mount_at(&workspace.mountpoint("mnt"));
    let job = mounted.job(TASK, "job");
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            let (done, file) = (&done, job.join("file"));
            scope.spawn(move || {
                while !done.load(Ordering::Acquire) {
                    match File::open(&file) {
                        Ok(open) => assert!(open.metadata().unwrap().len() <= 1),
                        Err(error) => {
                            assert_eq!(Errno::from_io_error(&error), Some(Errno::NOENT));
                        }
                    }
                }
            });
        }
        for round in 0..ROUNDS {
            fs::write(job.join("next"), "x").unwrap();
            fs::rename(job.join("next"), job.join("file")).unwrap();
            if round % 2 == 0 {
                fs::remove_file(job.join("file")).unwrap();
            }
        }
        done.store(true, Ordering::Release);
    });
    mounted.unmount();
}

/// The disk gives the number of a removed file to the next one, and the kernel may still know the old file by it.
#[test]
fn inode_numbers_are_those_of_the_disk_also_while_the_previous_file_is_known() {
    let workspace = workspace(false);
    let mounted = workspace.mount_at(&workspace.mountpoint("mnt"));
    let (seen, beneath) = (mounted.path(), workspace.primary());
    let mut held = Vec::new();
    for round in 0..20 {
        let old = seen.join("old");
        fs::write(&old, "x").unwrap();
        wait_until_old(&beneath.join("old"));
        held.push(rustix::fs::open(&old, OFlags::PATH, Mode::empty()).unwrap());
        match round % 2 {
            0 => fs::remove_file(&old).unwrap(),
            _ => fs::remove_file(beneath.join("old")).unwrap(),
        }
        let name = format!("new-{round}");
        let new = match round % 4 {
            0 | 1 => File::create(seen.join(&name)).unwrap(),
            _ => {
                fs::create_dir(seen.join(&name)).unwrap();
                File::open(seen.join(&name)).unwrap()
            }
        };
        let number = fs::metadata(beneath.join(&name)).unwrap().ino();
        assert_eq!(new.metadata().unwrap().ino(), number, "{name}");
        assert_eq!(fs::metadata(seen.join(&name)).unwrap().ino(), number);
    }
    drop(held);
    mounted.unmount();
}
