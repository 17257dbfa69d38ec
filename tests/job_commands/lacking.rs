//! System calls that a disk other than ext4 may lack: each has another way, or is refused with a sentence that names the path.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::common::{program, soak};
use super::stage::{HASH, Stage, TASK, job_id, leftovers, said, whole, write_job};

/// How many are tried at the same time.
const AT_ONCE: usize = 4;

/// What comes of a call that fails.
#[derive(Clone, Copy)]
enum Outcome {
    /// Nothing: the copy is the same.
    Same,
    /// The copy holds the same, and this is reported as not kept.
    Lost(&'static str),
    /// Nothing is copied, for this reason.
    Refused(&'static str),
}
use Outcome::{Lost, Refused, Same};

const NO_LOCKS: &str = "its file system cannot lock files";
const NO_SYMLINKS: &str = "its file system has no symlinks";

/// Calls, the errors by which disks refuse them, and what comes of that.
const LACKING: [(&str, &[&str], Outcome); 16] = [
    // NFS, CIFS, FUSE, ZFS.
    ("renameat2", &["EINVAL", "ENOSYS", "EOPNOTSUPP"], Same),
    // vfat, exfat, some of FUSE.
    (
        "linkat",
        &["EPERM", "ENOSYS", "EOPNOTSUPP", "EMLINK"],
        Lost("a hard link was not kept: data/model.bin"),
    ),
    ("symlinkat", &["EPERM", "EOPNOTSUPP"], Refused(NO_SYMLINKS)),
    (
        "mknodat",
        &["EPERM"],
        Lost("a special file was left out: data/fifo"),
    ),
    // No reflinks.
    ("ioctl", &["EOPNOTSUPP", "EXDEV", "ENOTTY", "EINVAL"], Same),
    ("copy_file_range", &["EXDEV", "ENOSYS"], Same),
    ("fallocate", &["EOPNOTSUPP"], Same),
    ("lseek", &["EINVAL"], Same),
    ("fadvise64", &["ESPIPE", "ENOSYS"], Same),
    ("sync_file_range", &["ESPIPE", "ENOSYS"], Same),
    // Sandboxes, and kernels before Linux 5.6.
    ("syncfs", &["ENOSYS", "EPERM"], Same),
    ("openat2", &["ENOSYS", "EPERM"], Same),
    // tmpfs without attributes, NFS before Linux 5.9, vfat.
    (
        "flistxattr",
        &["EOPNOTSUPP"],
        Same, // As if there were none.
    ),
    (
        "fsetxattr",
        &["EOPNOTSUPP", "EPERM"],
        Lost("the attribute user.note was not kept: train.out"),
    ),
    // Times tell whether a job has changed.
    ("utimensat", &["EPERM"], Refused("cannot set the times of")),
    (
        "flock",
        &["ENOLCK", "ENOSYS", "EOPNOTSUPP"],
        Refused(NO_LOCKS),
    ),
];

/// A job with a fifo, and a file that is written in several steps.
fn write_more(job: &Path) {
    write_job(job);
    fs::write(job.join("large"), vec![3; 9 << 20]).unwrap();
    let mode = rustix::fs::Mode::RUSR;
    let fifo = rustix::fs::FileType::Fifo;
    rustix::fs::mknodat(rustix::fs::CWD, job.join("data/fifo"), fifo, mode, 0).unwrap();
}

/// What the files and symlinks of a job hold, without attributes.
fn held(job: &Path) -> Option<BTreeMap<PathBuf, String>> {
    let entries = whole(job)?.into_iter();
    let entries = entries.filter(|(path, _)| !path.ends_with("fifo"));
    Some(entries.map(|(path, entry)| (path, entry.hold())).collect())
}

/// Archives or recovers with a fault, then without, and asserts what comes of it.
fn assert_outcome(what: &str, stage: &Stage, strace: &[String], outcome: Outcome) {
    let before = held(&stage.job());
    let expected = before.clone().or_else(|| held(&stage.archived("backup")));
    let log = stage.top().join("strace");
    let mut strace = strace.to_vec();
    strace.extend(["-o".to_owned(), log.to_str().unwrap().to_owned()]);
    let output = stage.by_one_thread_at_once(what, &strace).output().unwrap();
    let text = said(&output);
    if let Refused(why) = outcome {
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(text.contains(why), "{why}, not {text}");
        assert!(text.contains(stage.top().to_str().unwrap()), "{text}");
        assert!(!stage.job().is_symlink());
        assert_eq!(held(&stage.job()), before);
        let roots = stage.modes().iter().map(|mode| stage.folder(mode));
        for left in roots
            .chain([stage.primary()])
            .flat_map(|root| leftovers(&root))
        {
            // Another process may have been able to lock it.
            let is_lock = left.extension().is_some_and(|it| it == "lock");
            assert!(is_lock && why == NO_LOCKS, "{} is left", left.display());
        }
    } else {
        assert!(output.status.success(), "{text}");
        for mode in stage.modes() {
            assert_eq!(held(&stage.archived(mode)), expected, "{text}");
        }
        assert_eq!(held(&stage.job()), expected, "{text}");
        match outcome {
            Lost(loss) => assert!(text.contains(loss), "{loss}, not {text}"),
            _ => assert!(!text.contains("warning"), "{text}"),
        }
        stage.verify();
        stage.assert_clean();
    }
    // On another disk, or with other options, it works.
    let output = stage.by_one_thread_at_once(what, &[]).output().unwrap();
    assert!(output.status.success(), "again: {}", said(&output));
    assert_eq!(held(&stage.job()), expected);
    stage.verify();
    stage.assert_clean();
}

/// Tries the calls, several at the same time; in the long run with every error, else with one of each.
fn each_error(what: &str) {
    if program("strace").is_none() {
        return;
    }
    let errors = |(call, errors, outcome): &(&'static str, &'static [&'static str], Outcome)| {
        let (call, outcome) = (*call, *outcome);
        let tried = match (soak(), what) {
            (true, _) => errors,
            (false, "archive") => &errors[..1],
            (false, _) => &errors[errors.len() - 1..],
        };
        tried.iter().map(move |error| (call, *error, outcome))
    };
    let tries: Vec<_> = LACKING.iter().flat_map(errors).collect();
    let (next, failed) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some(&(call, error, outcome)) =
                    tries.get(next.fetch_add(1, Ordering::Relaxed))
                {
                    let tried = std::panic::AssertUnwindSafe(|| {
                        let stage = staged(what);
                        let fault = [
                            format!("--trace={call}"),
                            format!("--inject={call}:error={error}"),
                        ];
                        assert_outcome(what, &stage, &fault, outcome);
                    });
                    if std::panic::catch_unwind(tried).is_err() {
                        failed.lock().unwrap().push(format!("{call} {error}"));
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap();
    assert!(failed.is_empty(), "{what}: {failed:?}");
}

/// A job to be archived to two folders, or to be recovered from one.
fn staged(what: &str) -> Stage {
    let modes: &[&str] = match what {
        "archive" => &["backup", "move"],
        _ => &["backup"],
    };
    let stage = Stage::new(modes);
    write_more(&stage.job());
    if what == "recover" {
        stage.archive();
        fs::remove_dir_all(stage.job()).unwrap();
    }
    stage
}

#[test]
fn a_job_is_archived_where_calls_are_lacking() {
    each_error("archive");
}

#[test]
fn a_job_is_recovered_where_calls_are_lacking() {
    each_error("recover");
}

#[test]
fn a_directory_that_cannot_be_synced_alone_is_synced_with_all_else() {
    if program("strace").is_none() {
        return;
    }
    for what in ["archive", "recover"] {
        for error in ["EINVAL", "EOPNOTSUPP", "EBADF"] {
            let stage = staged(what);
            let mut fault = vec![
                "--trace=fsync".to_owned(),
                format!("--inject=fsync:error={error}"),
            ];
            // Of directories, and not of files.
            let roots = stage.modes().iter().map(|mode| stage.folder(mode));
            for root in roots.chain([stage.primary()]) {
                let task = root.join("jobs").join(TASK);
                for path in [
                    task.clone(),
                    task.join(format!(".tmp.{HASH}")),
                    task.join(format!(".tmp.{HASH}/data")),
                    root.join(".xpmfs/manifests").join(TASK),
                ] {
                    fault.extend(["-P".to_owned(), path.to_str().unwrap().to_owned()]);
                }
            }
            assert_outcome(what, &stage, &fault, Same);
            let log = fs::read_to_string(stage.top().join("strace")).unwrap();
            assert!(log.contains("INJECTED"), "{what}: {log}");
        }
    }
}

#[test]
fn a_symlink_whose_times_cannot_be_set_is_copied() {
    if program("strace").is_none() {
        return;
    }
    for (what, error) in [("archive", "EPERM"), ("recover", "ENOSYS")] {
        let fault = [
            "--trace=utimensat".to_owned(),
            format!("--inject=utimensat:error={error}"),
            "-P".to_owned(),
            "latest".to_owned(),
        ];
        let outcome = Lost("the times of a symlink were not kept: latest");
        assert_outcome(what, &staged(what), &fault, outcome);
    }
}

#[test]
fn a_folder_without_fifos_is_not_copied_to_again_and_again() {
    if program("strace").is_none() {
        return;
    }
    let stage = staged("archive");
    let log = stage.top().join("strace").to_str().unwrap().to_owned();
    let path = stage.folder("backup").join("jobs").join(TASK);
    let path = path.join(format!(".tmp.{HASH}/data"));
    let fault = [
        "--trace=mknodat".to_owned(),
        "--inject=mknodat:error=EPERM".to_owned(),
        // Of the backup folder, and not of the one that the job is moved to.
        "-P".to_owned(),
        path.to_str().unwrap().to_owned(),
        "-o".to_owned(),
        log,
    ];
    for _ in 0..2 {
        let output = stage
            .by_one_thread_at_once("archive", &fault)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", said(&output));
        assert!(stage.job().is_symlink(), "{}", said(&output));
    }
    let archived = |mode| stage.archived(mode).join("data/fifo").exists();
    assert!(!archived("backup") && archived("move"));
    stage.verify();
}

#[test]
fn a_primary_that_cannot_be_read_does_not_make_a_copy_count_as_damaged() {
    if program("strace").is_none() {
        return;
    }
    let stage = Stage::new(&["backup"]);
    write_job(&stage.job());
    stage.archive();
    let task = stage.primary().join("jobs").join(TASK);
    let mut command = stage.traced(&[
        "--trace=openat2,openat".to_owned(),
        "--inject=openat2,openat:error=EACCES".to_owned(),
        "-P".to_owned(),
        task.to_str().unwrap().to_owned(),
        "-o".to_owned(),
        stage.top().join("strace").to_str().unwrap().to_owned(),
    ]);
    let job = job_id();
    let output = command
        .args(["jobs", "verify", "-w", "test", "-v", &job])
        .output()
        .unwrap();
    let (text, found) = (said(&output), String::from_utf8_lossy(&output.stdout));
    assert!(output.status.success(), "{text}{found}");
    assert!(found.contains("backup: ok"), "{text}{found}");
    let path = stage.job();
    let warning = format!("are not compared with {}", path.display());
    assert!(text.contains(&warning), "{text}{found}");
    stage.verify();
}

#[test]
fn a_primary_without_symlinks_keeps_its_jobs() {
    if program("strace").is_none() {
        return;
    }
    let stage = Stage::new(&["move"]);
    write_more(&stage.job());
    for link in ["latest", "data/dangling"] {
        fs::remove_file(stage.job().join(link)).unwrap();
    }
    let fault = [
        "--trace=symlinkat".to_owned(),
        "--inject=symlinkat:error=EPERM".to_owned(),
    ];
    assert_outcome("archive", &stage, &fault, Refused(NO_SYMLINKS));
    assert!(stage.job().is_symlink());
}
