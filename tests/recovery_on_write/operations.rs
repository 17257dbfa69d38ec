//! Each change to an archived job, by path: the job is recovered and the change is made there. Removals are refused.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FallocateFlags, Mode, OFlags, RenameFlags, Timestamps, XattrFlags};
use rustix::io::{Errno, Result};

use crate::common::{FOLDERS, Workspace};
use crate::stage::{archived, contents, everywhere};

type Change = fn(&Path) -> Result<()>;

fn io<T>(result: std::io::Result<T>) -> Result<T> {
    result.map_err(|error| Errno::from_io_error(&error).unwrap())
}

fn open(path: &Path, flags: OFlags) -> Result<std::os::fd::OwnedFd> {
    rustix::fs::open(path, flags | OFlags::CLOEXEC, Mode::from_raw_mode(0o644))
}

/// Each change, the name of what it changes, and whether it takes the name away.
const CHANGES: [(&str, &str, Change); 24] = [
    ("append", "train.out", |job| {
        let file = File::options().append(true).open(job.join("train.out"));
        io(io(file)?.write_all(b"more\n"))
    }),
    ("overwrite", "train.out", |job| {
        io(fs::write(job.join("train.out"), "new"))
    }),
    ("open-read-write", "", |job| {
        open(&job.join("train.out"), OFlags::RDWR).map(drop)
    }),
    ("open-read-truncate", "model.bin linked", |job| {
        let file = open(&job.join("model.bin"), OFlags::RDONLY | OFlags::TRUNC)?;
        assert_eq!(rustix::fs::fstat(&file)?.st_size, 0);
        Ok(())
    }),
    ("create", "new", |job| io(fs::write(job.join("new"), "new"))),
    ("create-deep", "new", |job| {
        io(fs::write(job.join("data/deep/new"), "new"))
    }),
    ("create-existing", "train.err", |job| {
        let options = File::options().write(true).create(true).clone();
        io(io(options.open(job.join("train.err")))?.write_all(b"x"))
    }),
    ("create-exclusive", "new", |job| {
        open(
            &job.join("new"),
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL,
        )
        .map(drop)
    }),
    ("mkdir", "new", |job| io(fs::create_dir(job.join("new")))),
    ("symlink", "new", |job| {
        io(symlink("x", job.join("data/new")))
    }),
    ("link", "new", |job| {
        io(fs::hard_link(job.join("train.out"), job.join("new")))
    }),
    ("mkfifo", "new", |job| {
        rustix::fs::mknodat(
            CWD,
            job.join("new"),
            rustix::fs::FileType::Fifo,
            Mode::RUSR,
            0,
        )
    }),
    ("rename", "train.out new", |job| {
        io(fs::rename(job.join("train.out"), job.join("new")))
    }),
    ("rename-over", "train.out train.err", |job| {
        io(fs::rename(job.join("train.out"), job.join("train.err")))
    }),
    ("rename-directory", "data moved deep file", |job| {
        io(fs::rename(job.join("data"), job.join("moved")))
    }),
    ("exchange", "train.out train.err", |job| {
        let (one, other) = (job.join("train.out"), job.join("train.err"));
        rustix::fs::renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE)
    }),
    ("truncate", "train.out", |job| {
        crate::common::thread::truncate(&job.join("train.out"), 3)
    }),
    ("chmod", "", |job| {
        io(fs::set_permissions(
            job.join("train.out"),
            fs::Permissions::from_mode(0o600),
        ))?;
        assert_eq!(
            io(fs::metadata(job.join("train.out")))?
                .permissions()
                .mode()
                & 0o777,
            0o600
        );
        Ok(())
    }),
    ("chmod-directory", "", |job| {
        io(fs::set_permissions(
            job.join("data"),
            fs::Permissions::from_mode(0o700),
        ))
    }),
    ("chmod-job", "", |job| {
        io(fs::set_permissions(job, fs::Permissions::from_mode(0o700)))?;
        assert_eq!(io(fs::metadata(job))?.permissions().mode() & 0o777, 0o700);
        Ok(())
    }),
    ("utimes", "", |job| {
        let now = rustix::fs::Timespec {
            tv_sec: 5,
            tv_nsec: 0,
        };
        let times = Timestamps {
            last_access: now,
            last_modification: now,
        };
        rustix::fs::utimensat(CWD, job.join("train.out"), &times, AtFlags::empty())?;
        rustix::fs::utimensat(CWD, job.join("latest"), &times, AtFlags::SYMLINK_NOFOLLOW)?;
        assert_eq!(rustix::fs::stat(job.join("train.out"))?.st_mtime, 5);
        assert_eq!(rustix::fs::lstat(job.join("latest"))?.st_mtime, 5);
        Ok(())
    }),
    ("setxattr", "", |job| {
        rustix::fs::setxattr(job.join("train.out"), "user.x", b"1", XattrFlags::empty())?;
        let mut value = [0; 8];
        assert_eq!(
            rustix::fs::getxattr(job.join("train.out"), "user.x", &mut value[..])?,
            1
        );
        rustix::fs::removexattr(job.join("train.out"), "user.x")
    }),
    ("fallocate", "train.out", |job| {
        let file = open(&job.join("train.out"), OFlags::WRONLY)?;
        rustix::fs::fallocate(file, FallocateFlags::empty(), 0, 4096)
    }),
    ("mmap", "train.out", |job| {
        let file = io(File::options()
            .read(true)
            .write(true)
            .open(job.join("train.out")))?;
        let mapping = crate::common::thread::Mapping::new(&file, true, true)?;
        mapping.write(0, b'#');
        drop(mapping);
        assert_eq!(io(fs::read(job.join("train.out")))?[0], b'#');
        Ok(())
    }),
];

#[test]
fn each_change_by_path_recovers_the_job() {
    everywhere(
        |workspace| {
            for folder in FOLDERS {
                for (name, _, _) in CHANGES {
                    archived(workspace, folder, &format!("{name}-{folder}"));
                }
            }
        },
        |workspace, mounted, beneath| {
            for folder in FOLDERS {
                for (name, changed, change) in CHANGES {
                    let hash = format!("{name}-{folder}");
                    let job = mounted.job(crate::stage::TASK, &hash);
                    // The kernel knows the whole job, with its attributes.
                    let before = contents(&job, &[]);
                    assert_eq!(mounted.location(&job), folder);
                    let done = change(&job);
                    assert_eq!(done, Ok(()), "{hash} in {}", mounted.path().display());
                    assert_eq!(mounted.location(&job), "primary", "{hash}");
                    let but: Vec<&str> = changed.split_whitespace().collect();
                    let archive = workspace
                        .folder(folder)
                        .join("jobs")
                        .join(crate::stage::TASK);
                    let whole = contents(&archive.join(&hash), &but);
                    assert_eq!(contents(&job, &but), whole, "{hash}");
                    let there = beneath
                        .path()
                        .join("jobs")
                        .join(crate::stage::TASK)
                        .join(&hash);
                    assert_eq!(contents(&there, &but), whole, "{hash}");
                    // What the view shows is what lies there.
                    assert_eq!(contents(&there, &[]), contents(&job, &[]), "{hash}");
                    if !changed.is_empty() {
                        assert_ne!(contents(&job, &[]), before, "{hash}");
                    }
                }
            }
        },
    );
}

#[test]
fn reading_and_removing_recover_nothing() {
    everywhere(
        |workspace| {
            for folder in FOLDERS {
                archived(workspace, folder, folder);
            }
        },
        |_, mounted, _| {
            let jobs = mounted.path().join("jobs");
            for folder in FOLDERS {
                let job = mounted.job(crate::stage::TASK, folder);
                contents(&job, &[]);
                let file = File::open(job.join("train.out")).unwrap();
                crate::common::thread::Mapping::new(&file, false, false)
                    .unwrap()
                    .read(0);
                let refused = |done: std::io::Result<()>| {
                    let error = done.unwrap_err();
                    assert_eq!(error.raw_os_error(), Some(libc::EROFS), "{error}");
                };
                refused(fs::remove_file(job.join("train.out")));
                refused(fs::rename(job.join("train.out"), jobs.join("../away")));
                refused(fs::rename(&job, job.with_file_name("away")));
            }
            let output = std::process::Command::new("rm")
                .arg("-rf")
                .arg(&jobs)
                .output();
            assert!(!output.unwrap().status.success());
            for folder in FOLDERS {
                let job = mounted.job(crate::stage::TASK, folder);
                assert_eq!(mounted.location(job), folder);
            }
        },
    );
}

#[test]
fn never_recovering_keeps_jobs_read_only() {
    for keys in ["{recover_on: never}"] {
        let workspace = Workspace::builder().keys(keys).build();
        archived(&workspace, "backup", "a");
        let mounted = workspace.mount_in_place();
        let job = mounted.job(crate::stage::TASK, "a");
        for (name, _, change) in CHANGES {
            assert_eq!(change(&job), Err(Errno::ROFS), "{name}");
        }
        assert_eq!(mounted.location(&job), "backup");
    }
    let workspace = Workspace::new();
    archived(&workspace, "backup", "a");
    let mounted = workspace.mount_with(&workspace.primary(), &["--read-only"]);
    let job = mounted.job(crate::stage::TASK, "a");
    for (name, _, change) in CHANGES {
        assert_eq!(change(&job), Err(Errno::ROFS), "{name}");
    }
}
