//! Many archived jobs and several writers at random: each job is recovered once, whole, and no write is lost.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::fs::{Mode, OFlags};

use crate::common::thread::Mapping;
use crate::common::{self, Folders, Workspace, eventually, run};
use crate::stage::{TASK, archived, assert_clean, contents, everywhere};

/// How many jobs there are.
fn jobs() -> usize {
    match common::soak() {
        true => 1000,
        false => 40,
    }
}

/// How many times the daemon is killed.
fn kills() -> usize {
    match common::soak() {
        true => 400,
        false => 12,
    }
}

const WRITERS: u64 = 8;

fn random(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

fn hash(number: usize) -> String {
    format!("job-{number}")
}

/// What the writers have done to each job.
#[derive(Default)]
struct Done {
    /// Lines that were appended, by job.
    lines: BTreeMap<usize, Vec<String>>,
    /// Files that were made, by job.
    made: BTreeMap<usize, Vec<String>>,
    changed: std::collections::BTreeSet<usize>,
}

/// One change of one job; each writer makes its own.
fn change(job: &Path, number: usize, name: &str, kind: u64, done: &Mutex<Done>) {
    let path = job.join("train.out");
    let line = format!("{name}\n");
    let append = |mut file: File| {
        file.write_all(line.as_bytes()).unwrap();
        let mut done = done.lock().unwrap();
        done.lines.entry(number).or_default().push(name.to_owned());
    };
    let made = |made: &str| {
        let mut done = done.lock().unwrap();
        done.made.entry(number).or_default().push(made.to_owned());
    };
    match kind {
        0 => append(File::options().append(true).open(&path).unwrap()),
        1 => {
            // Beside a reader, which keeps what it has.
            let reader = File::open(job.join("model.bin")).unwrap();
            let mapping = Mapping::new(&reader, false, false).unwrap();
            append(File::options().append(true).open(&path).unwrap());
            let mut buffer = [0; 100];
            reader.read_exact_at(&mut buffer, 9_900).unwrap();
            assert_eq!((buffer, mapping.read(5)), ([7; 100], 7));
            rustix::fs::fchmod(&reader, Mode::from_raw_mode(0o640)).unwrap();
            assert_eq!(rustix::fs::fstat(&reader).unwrap().st_mode & 0o777, 0o640);
        }
        2 => {
            let directory = rustix::fs::open(
                job,
                OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
                Mode::empty(),
            )
            .unwrap();
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
        4 => {
            let mode = fs::Permissions::from_mode(0o600 | (number as u32 & 0o77));
            fs::set_permissions(job.join("params.json"), mode).unwrap();
        }
        5 => {
            fs::write(job.join(name), [1; 4096]).unwrap();
            let options = File::options().read(true).write(true).clone();
            let file = options.open(job.join(name)).unwrap();
            let mapping = Mapping::new(&file, true, true).unwrap();
            mapping.write(0, 2);
            drop(mapping);
            let file = File::options().write(true).open(job.join(name)).unwrap();
            file.write_all_at(name.as_bytes(), 0).unwrap();
            file.set_len(name.len() as u64).unwrap();
            made(name);
        }
        6 => {
            fs::create_dir(job.join(format!("{name}.d"))).unwrap();
            fs::write(job.join(format!("{name}.d/file")), format!("{name}.d/file")).unwrap();
            made(&format!("{name}.d/file"));
        }
        _ => {
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
            append(File::options().append(true).open(&path).unwrap());
        }
    }
    done.lock().unwrap().changed.insert(number);
}

/// Asserts that a job has what the archive had, and each change.
fn assert_changed(there: &Path, archive: &Path, number: usize, done: &Done) {
    let made = done.made.get(&number).cloned().unwrap_or_default();
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
    let mut expected = done.lines.get(&number).cloned().unwrap_or_default();
    lines.sort_unstable();
    expected.sort_unstable();
    assert_eq!(lines, expected, "{}", there.display());
    let archived = contents(archive, &["train.out"]);
    let now = contents(there, &["train.out"]);
    for line in &archived {
        assert!(now.contains(line), "{line} is not in {}", there.display());
    }
    let added = now.len() - archived.len();
    let directories = made.iter().filter(|file| file.contains(".d/")).count();
    assert_eq!(added, made.len() + directories, "{now:?}");
}

#[test]
fn random_writers_lose_nothing() {
    everywhere(
        |workspace| {
            for number in 0..jobs() {
                let folder = common::FOLDERS[number % 3];
                archived(workspace, folder, &hash(number));
            }
        },
        |workspace, mounted, beneath| {
            let done = Mutex::new(Done::default());
            let rounds = jobs();
            let next = AtomicUsize::new(0);
            std::thread::scope(|scope| {
                for writer in 0..WRITERS {
                    let (done, next) = (&done, &next);
                    scope.spawn(move || {
                        let mut state = 0x9e37_79b9 + writer * 7919;
                        loop {
                            // All writers are near each other, so that several change one job first.
                            let round = next.fetch_add(1, Ordering::Relaxed);
                            if round >= rounds * WRITERS as usize {
                                return;
                            }
                            let number = round / WRITERS as usize;
                            let job = mounted.job(TASK, &hash(number));
                            let kind = random(&mut state) % 8;
                            change(&job, number, &format!("w{round}"), kind, done);
                        }
                    });
                }
            });
            let done = done.into_inner().unwrap();
            assert_eq!(done.changed.len(), jobs());
            for number in 0..jobs() {
                let (hash, folder) = (hash(number), common::FOLDERS[number % 3]);
                let archive = workspace.folder(folder).join("jobs").join(TASK).join(&hash);
                let there = beneath.path().join("jobs").join(TASK).join(&hash);
                assert_changed(&there, &archive, number, &done);
                assert_changed(&mounted.job(TASK, &hash), &archive, number, &done);
            }
            let log = workspace.log();
            let recovered = log.matches("recovered for a program").count();
            // The log is that of all mounts of the workspace so far.
            assert!(recovered > 0 && recovered % jobs() == 0, "{recovered}");
        },
    );
}

/// The system calls by which a recovery changes the disk.
const CHANGING: &str = "openat,mkdirat,write,pwrite64,copy_file_range,linkat,unlinkat,renameat,renameat2,symlinkat,fchmod,\
    fchmodat,fchown,fchownat,utimensat,fsync,fdatasync,syncfs,setxattr,fsetxattr,ioctl,flock,ftruncate,fallocate";

#[test]
fn killed_at_any_system_call_it_leaves_the_job_archived_or_recovered() {
    if !common::is_root() {
        return;
    }
    let workspace = Workspace::builder().keys("{settle: 1h}").build();
    for (number, folder) in ["backup", "move", "use"].into_iter().enumerate() {
        archived(&workspace, folder, &hash(number));
    }
    let folders = Folders::of(&workspace);
    let elsewhere = workspace.mountpoint("elsewhere");
    let mut state = 42;
    let mut recovered = 0;
    for round in 0..kills() {
        let number = round % 3;
        let folder = ["backup", "move", "use"][number];
        let mounted = workspace.mount_at(&elsewhere);
        let job = mounted.job(TASK, &hash(number));
        contents(&job, &[]);
        // A lock of the job, which is an internal file.
        fs::write(job.join("train.lock"), "").unwrap();
        let status = run(workspace.xpmfs().args(["--json", "status"]).arg(&elsewhere));
        let status: serde_json::Value = serde_json::from_str(&status).unwrap();
        let pid = status["mounts"][0]["pid"].to_string();
        let when = 1 + random(&mut state) % 60;
        let mut strace = Command::new("strace");
        strace
            .args(["-f", "-qq", "-o"])
            .arg(workspace.top().join("trace"));
        strace.arg("-e").arg(format!("trace={CHANGING}"));
        strace
            .arg("-e")
            .arg(format!("inject={CHANGING}:signal=KILL:when={when}"));
        strace.args(["-p", &pid]).stderr(Stdio::null());
        let mut strace = strace.spawn().unwrap();
        eventually("it is traced", || {
            fs::read_to_string(format!("/proc/{pid}/status"))
                .is_ok_and(|status| !status.contains("TracerPid:\t0"))
        });
        let written = Command::new("sh")
            .args(["-c", "echo more >>\"$1\"/train.out", "sh"])
            .arg(&job)
            .stderr(Stdio::null())
            .status()
            .unwrap()
            .success();
        let _ = strace.kill();
        let _ = strace.wait();
        drop(mounted);
        eventually("the daemon has ended", || {
            !Path::new(&format!("/proc/{pid}")).exists()
        });
        folders.assert_unchanged();
        let there = workspace
            .primary()
            .join("jobs")
            .join(TASK)
            .join(hash(number));
        let archive = workspace
            .folder(folder)
            .join("jobs")
            .join(TASK)
            .join(hash(number));
        let is_there = there.symlink_metadata().is_ok_and(|stat| stat.is_dir());
        assert!(is_there || !written, "a write was lost");
        if is_there {
            recovered += 1;
            assert!(there.join("train.lock").exists(), "the lock is gone");
            let but = ["train.out", "train.lock"];
            assert_eq!(contents(&there, &but), contents(&archive, &but));
            let text = fs::read_to_string(there.join("train.out")).unwrap();
            assert!(text.starts_with("step 1\nstep 2\n"), "{text}");
            assert!(text.contains("more") || !written, "a write was lost");
        }
        // The next mount recovers the job, or goes on with it.
        let mounted = workspace.mount_at(&elsewhere);
        let job = mounted.job(TASK, &hash(number));
        let mut file = File::options()
            .append(true)
            .open(job.join("train.out"))
            .unwrap();
        file.write_all(b"again\n").unwrap();
        drop(file);
        assert_eq!(mounted.location(&job), "primary");
        let text = fs::read_to_string(job.join("train.out")).unwrap();
        assert!(
            text.ends_with("again\n") && text.starts_with("step 1\nstep 2\n"),
            "{text}"
        );
        mounted.unmount();
        assert_clean(&workspace.primary());
        fs::remove_dir_all(&there).unwrap();
        if folder == "move" {
            std::os::unix::fs::symlink(&archive, &there).unwrap();
        }
        folders.assert_unchanged();
    }
    assert!(recovered < kills(), "it was never killed before the end");
}
