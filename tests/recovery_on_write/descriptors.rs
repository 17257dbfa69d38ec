//! Open descriptors and current directories of a job that is recovered: they lead to the recovered job, and what is open
//! for reading stays what it was.

use std::fs::{self, File};
use std::io::{Read, Seek, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::FileExt;

use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use crate::common::thread::Mapping;
use crate::common::{FOLDERS, eventually, names};
use crate::stage::{TASK, archived, everywhere};

const STEPS: &str = "step 1\nstep 2\n";

fn five() -> Timestamps {
    let five = Timespec {
        tv_sec: 5,
        tv_nsec: 0,
    };
    Timestamps {
        last_access: five,
        last_modification: five,
    }
}

/// Jobs `0` to `number - 1` in each folder, called `<folder>-<number>`.
fn jobs(workspace: &crate::common::Workspace, number: usize) {
    for folder in FOLDERS {
        for number in 0..number {
            archived(workspace, folder, &format!("{folder}-{number}"));
        }
    }
}

#[test]
fn descriptors_of_files_change_the_recovered_file() {
    everywhere(
        |workspace| jobs(workspace, 5),
        |_, mounted, _| {
            for folder in FOLDERS {
                for number in 0..5 {
                    let job = mounted.job(TASK, &format!("{folder}-{number}"));
                    let path = job.join("train.out");
                    let mut file = File::open(&path).unwrap();
                    let mapping = Mapping::new(&file, false, false).unwrap();
                    match number {
                        0 => rustix::fs::fchmod(&file, Mode::from_raw_mode(0o600)).unwrap(),
                        1 => rustix::fs::futimens(&file, &five()).unwrap(),
                        2 => {
                            rustix::fs::fsetxattr(&file, "user.x", b"1", XattrFlags::empty())
                                .unwrap();
                        }
                        3 => {
                            let own = rustix::process::geteuid();
                            rustix::fs::fchown(&file, Some(Uid::from_raw(own.as_raw())), None)
                                .unwrap();
                        }
                        _ => {
                            // A writer beside a reader.
                            let mut writer = File::options().append(true).open(&path).unwrap();
                            writer.write_all(b"more\n").unwrap();
                        }
                    }
                    assert_eq!(mounted.location(&job), "primary", "{number}");
                    // Later calls as well, also if the kernel has cached the attributes of the recovered file.
                    rustix::fs::stat(&path).unwrap();
                    rustix::fs::fchmod(&file, Mode::from_raw_mode(0o640)).unwrap();
                    rustix::fs::futimens(&file, &five()).unwrap();
                    rustix::fs::fsetxattr(&file, "user.y", b"2", XattrFlags::empty()).unwrap();
                    let (by_path, by_file) = (
                        rustix::fs::stat(&path).unwrap(),
                        rustix::fs::fstat(&file).unwrap(),
                    );
                    for stat in [by_path, by_file] {
                        assert_eq!((stat.st_mode & 0o777, stat.st_mtime), (0o640, 5));
                    }
                    let mut value = [0; 8];
                    for length in [
                        rustix::fs::getxattr(&path, "user.y", &mut value[..]),
                        rustix::fs::fgetxattr(&file, "user.y", &mut value[..]),
                    ] {
                        assert_eq!(length, Ok(1));
                    }
                    // The file has what it had, whatever is written to the path.
                    fs::write(&path, "completely different, and longer than before\n").unwrap();
                    let mut text = String::new();
                    file.rewind().unwrap();
                    file.read_to_string(&mut text).unwrap();
                    assert_eq!(text, STEPS);
                    assert_eq!(mapping.read(0), b's');
                    // Under another name, it is still the same file.
                    fs::rename(&path, job.join("renamed")).unwrap();
                    fs::write(&path, "another").unwrap();
                    rustix::fs::fchmod(&file, Mode::from_raw_mode(0o604)).unwrap();
                    let mode = |name: &str| rustix::fs::stat(job.join(name)).unwrap().st_mode;
                    assert_eq!(mode("renamed") & 0o777, 0o604);
                    assert_eq!(mode("train.out") & 0o777, 0o644);
                    let text = fs::read_to_string(job.join("renamed")).unwrap();
                    assert!(text.starts_with("completely"), "{text}");
                }
            }
        },
    );
}

/// `/proc/self/fd/N` of a file that was opened in an archived job leads to the archived file, which is not changed.
#[test]
fn the_link_of_an_open_file_cannot_be_written_through() {
    everywhere(
        |workspace| jobs(workspace, 1),
        |_, mounted, _| {
            for folder in FOLDERS {
                let path = mounted.job(TASK, &format!("{folder}-0")).join("train.out");
                let file = File::open(&path).unwrap();
                let link = format!("/proc/self/fd/{}", file.as_raw_fd());
                let open = || File::options().append(true).open(&link);
                for _ in 0..2 {
                    let error = open().unwrap_err().raw_os_error();
                    assert_eq!(error, Some(Errno::STALE.raw_os_error()), "{folder}");
                }
                // The job is recovered, and its file can be written to by its name, which the kernel looks up anew.
                eventually("the recovered job is served", || {
                    mounted.location(&path) == "primary"
                });
                File::options()
                    .append(true)
                    .open(&path)
                    .unwrap()
                    .write_all(b"more")
                    .unwrap();
                assert_eq!(std::io::read_to_string(file).unwrap(), STEPS);
                let text = fs::read_to_string(&path).unwrap();
                assert_eq!(text, format!("{STEPS}more"));
            }
        },
    );
}

#[test]
fn renaming_a_file_that_is_open_renames_the_recovered_one() {
    everywhere(
        |workspace| jobs(workspace, 1),
        |_, mounted, _| {
            for folder in FOLDERS {
                let job = mounted.job(TASK, &format!("{folder}-0"));
                let reader = File::open(job.join("train.out")).unwrap();
                fs::rename(job.join("train.out"), job.join("new")).unwrap();
                let new = File::open(job.join("new")).unwrap();
                let inode = |stat: rustix::fs::Stat| stat.st_ino;
                let by_path = rustix::fs::stat(job.join("new")).unwrap();
                assert_eq!(inode(by_path), inode(rustix::fs::fstat(&new).unwrap()));
                assert_ne!(inode(by_path), inode(rustix::fs::fstat(&reader).unwrap()));
                let mut writer = File::options().append(true).open(job.join("new")).unwrap();
                writer.write_all(b"more\n").unwrap();
                let text = fs::read_to_string(job.join("new")).unwrap();
                assert_eq!(text, format!("{STEPS}more\n"));
                let mut buffer = [0; 64];
                let count = reader.read_at(&mut buffer, 0).unwrap();
                assert_eq!(&buffer[..count], STEPS.as_bytes());
            }
        },
    );
}

#[test]
fn directories_lead_to_the_recovered_job() {
    everywhere(
        |workspace| jobs(workspace, 2),
        |_, mounted, _| {
            for folder in FOLDERS {
                for number in 0..2 {
                    let job = mounted.job(TASK, &format!("{folder}-{number}"));
                    let open = |path: &std::path::Path| {
                        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
                        rustix::fs::open(path, flags, Mode::empty()).unwrap()
                    };
                    let (top, deep) = (open(&job), open(&job.join("data/deep")));
                    let create = |dir: &std::os::fd::OwnedFd, name: &str| {
                        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::CLOEXEC;
                        let file = rustix::fs::openat(dir, name, flags, Mode::from_raw_mode(0o644));
                        rustix::io::write(file.unwrap(), b"here").unwrap();
                    };
                    match number {
                        0 => create(&deep, "first"),
                        _ => rustix::fs::mkdirat(&top, "first", Mode::RWXU).unwrap(),
                    }
                    assert_eq!(mounted.location(&job), "primary");
                    create(&deep, "file-2");
                    create(&top, "file-1");
                    rustix::fs::renameat(&deep, "file-2", &top, "file-3").unwrap();
                    rustix::fs::fchmod(&deep, Mode::from_raw_mode(0o700)).unwrap();
                    assert_eq!(fs::read(job.join("file-1")).unwrap(), b"here");
                    assert_eq!(fs::read(job.join("file-3")).unwrap(), b"here");
                    let stat = rustix::fs::stat(job.join("data/deep")).unwrap();
                    assert_eq!(stat.st_mode & 0o777, 0o700);
                    let listed: Vec<_> = rustix::fs::Dir::read_from(&top)
                        .unwrap()
                        .map(|entry| entry.unwrap().file_name().to_owned())
                        .collect();
                    assert!(listed.iter().any(|name| name.as_bytes() == b"file-3"));
                    rustix::fs::unlinkat(&top, "file-1", AtFlags::empty()).unwrap();
                    assert!(!job.join("file-1").exists());
                }
            }
        },
    );
}

#[test]
fn current_directory_leads_to_the_recovered_job() {
    everywhere(
        |workspace| jobs(workspace, 1),
        |_, mounted, _| {
            for folder in FOLDERS {
                let job = mounted.job(TASK, &format!("{folder}-0"));
                let script = "set -e
                    cd \"$1/data\"
                    echo new >new
                    [ \"$(cat ../data/new)\" = new ]
                    [ \"$(/bin/pwd)\" = \"$1/data\" ]
                    cd ..
                    mv train.out moved
                    [ \"$(/bin/pwd)\" = \"$1\" ]
                    ls";
                let output = std::process::Command::new("sh")
                    .args(["-c", script, "sh"])
                    .arg(&job)
                    .output()
                    .unwrap();
                let said = String::from_utf8_lossy(&output.stderr);
                assert!(output.status.success(), "{folder}: {said}");
                assert!(names(&job.join("data")).contains(&"new".into()));
            }
        },
    );
}

#[test]
fn locks_stay_held_over_a_recovery() {
    everywhere(
        |workspace| jobs(workspace, 2),
        |_, mounted, beneath| {
            for folder in FOLDERS {
                for number in 0..2 {
                    let hash = format!("{folder}-{number}");
                    let job = mounted.job(TASK, &hash);
                    let path = job.join("train.lock");
                    let open = |path: &std::path::Path| {
                        let options = File::options().read(true).write(true).create(true).clone();
                        options.open(path).unwrap()
                    };
                    let lock = open(&path);
                    let try_lock = |file: &File| {
                        rustix::fs::flock(file.as_fd(), FlockOperation::NonBlockingLockExclusive)
                    };
                    try_lock(&lock).unwrap();
                    // Bookkeeping hides the archived file, and is what is recovered.
                    let status = job.join(".experimaestro/status.json");
                    fs::write(&status, "{\"state\": \"done\", \"again\": 1}").unwrap();
                    assert_eq!(mounted.location(&job), folder);
                    if number == 1 {
                        drop(open(&path));
                    }
                    fs::write(job.join("train.out"), "new").unwrap();
                    assert_eq!(mounted.location(&job), "primary");
                    let there = beneath.path().join("jobs").join(TASK).join(&hash);
                    for path in [&path, &there.join("train.lock")] {
                        assert_eq!(try_lock(&open(path)), Err(Errno::WOULDBLOCK), "{path:?}");
                    }
                    let text = fs::read_to_string(&status).unwrap();
                    assert!(text.contains("again"), "{text}");
                    drop(lock);
                    try_lock(&open(&path)).unwrap();
                }
            }
        },
    );
}
