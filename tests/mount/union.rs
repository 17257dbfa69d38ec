//! One directory of jobs from several locations.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirEntryExt, MetadataExt, symlink};
use std::path::Path;
use std::process::Command;

use rustix::fs::XattrFlags;
use rustix::io::Errno;

use crate::common::{Workspace, names, run, snapshot, xattr};
use crate::{TASK, common, one_job_each};

#[test]
fn every_job_is_a_directory_under_one_path() {
    let workspace = Workspace::new();
    one_job_each(&workspace);
    fs::create_dir_all(
        workspace
            .folder("use")
            .join(format!("jobs/{TASK}/unfinished")),
    )
    .unwrap();
    workspace.finished("backup", "my.module.only.archived", "abc");
    for in_place in [true, false] {
        let mountpoint = match in_place {
            true => workspace.primary(),
            false => workspace.mountpoint("elsewhere"),
        };
        let mounted = workspace.mount_at(&mountpoint);
        assert_eq!(
            names(&mountpoint.join("jobs")),
            ["my.module.only.archived", TASK]
        );
        let task = mountpoint.join("jobs").join(TASK);
        assert_eq!(
            names(&task),
            ["in-backup", "in-move", "in-primary", "in-use"]
        );
        for entry in fs::read_dir(&task).unwrap() {
            let entry = entry.unwrap();
            let meta = fs::symlink_metadata(entry.path()).unwrap();
            assert!(entry.file_type().unwrap().is_dir(), "{entry:?}");
            assert!(meta.is_dir(), "{entry:?}");
            assert_eq!(entry.ino(), meta.ino(), "{entry:?}");
            let name = entry.file_name().into_string().unwrap();
            assert_eq!(format!("in-{}", mounted.location(entry.path())), name);
            let out = entry.path().join("train.out");
            assert_eq!(fs::read_to_string(&out).unwrap(), "step 1\nstep 2\n");
            assert_eq!(format!("in-{}", mounted.location(out)), name);
        }
        mounted.unmount();
    }
}

#[test]
fn the_location_names_mode_and_path_and_is_not_listed() {
    let workspace = Workspace::new();
    one_job_each(&workspace);
    let mounted = workspace.mount_in_place();
    let location = |path: &Path| xattr(path, "user.xpmfs.location").unwrap();
    let archived = mounted.job(TASK, "in-backup");
    let expected = format!("backup:{}", workspace.folder("backup").display());
    assert_eq!(location(&archived), expected.as_bytes());
    assert_eq!(location(mounted.path()), b"primary");
    assert_eq!(run(Command::new("getfattr").arg("-d").arg(&archived)), "");
    let set = rustix::fs::setxattr(
        mounted.job(TASK, "in-primary"),
        "user.xpmfs.location",
        b"x",
        XattrFlags::empty(),
    );
    assert_eq!(set, Err(Errno::PERM));
    assert_eq!(
        xattr(mounted.path(), "user.xpmfs.nothing"),
        Err(Errno::NODATA)
    );
}

#[test]
fn df_shows_the_primary() {
    let workspace = Workspace::new();
    let beneath = rustix::fs::statvfs(workspace.primary()).unwrap();
    let mounted = workspace.mount_in_place();
    let shown = rustix::fs::statvfs(mounted.path()).unwrap();
    assert_eq!(
        (shown.f_blocks, shown.f_frsize, shown.f_files),
        (beneath.f_blocks, beneath.f_frsize, beneath.f_files)
    );
}

#[test]
fn new_jobs_are_made_in_the_primary_whatever_directories_it_has() {
    let workspace = Workspace::new();
    workspace.finished("backup", TASK, "archived");
    fs::remove_dir(workspace.primary().join("jobs")).unwrap();
    let elsewhere = workspace.mountpoint("elsewhere");
    let mounted = workspace.mount_at(&elsewhere);
    assert_eq!(names(&elsewhere), [".__experimaestro__", "jobs"]);
    assert_eq!(names(&elsewhere.join("jobs")), [TASK]);
    let job = mounted.job(TASK, "new");
    fs::create_dir(&job).unwrap();
    fs::write(job.join("train.out"), "hello").unwrap();
    let task = workspace.primary().join("jobs").join(TASK);
    assert_eq!(names(&task), ["new"]);
    assert_eq!(fs::read(task.join("new/train.out")).unwrap(), b"hello");
    assert_eq!(names(job.parent().unwrap()), ["archived", "new"]);
    fs::create_dir_all(mounted.job("another.task", "abc")).unwrap();
    assert!(workspace.primary().join("jobs/another.task/abc").is_dir());
    let taken = fs::create_dir(mounted.job(TASK, "archived")).unwrap_err();
    assert_eq!(taken.kind(), std::io::ErrorKind::AlreadyExists);
}

#[test]
fn removing_the_primarys_copy_shows_the_folders() {
    let workspace = Workspace::new();
    workspace.finished("primary", TASK, "both");
    let archived = workspace.finished("backup", TASK, "both");
    fs::write(archived.join("model.bin"), "archived").unwrap();
    let mounted = workspace.mount_in_place();
    let job = mounted.job(TASK, "both");
    assert_eq!(mounted.location(&job), "primary");
    let before = snapshot(&workspace.folder("backup"));
    // Each removal is ordinary; what appears in its place is an archive.
    let _ = Command::new("rm").arg("-rf").arg(&job).output().unwrap();
    assert_eq!(mounted.location(&job), "backup");
    assert_eq!(fs::read(job.join("model.bin")).unwrap(), b"archived");
    assert_eq!(snapshot(&workspace.folder("backup")), before);
}

#[test]
fn absolute_symlinks_lead_into_a_mount_elsewhere_and_are_stored_for_the_primary() {
    let workspace = Workspace::new();
    workspace.finished("use", TASK, "abc");
    let in_primary = workspace.primary().join("jobs").join(TASK).join("abc");
    symlink(&in_primary, workspace.primary().join("link")).unwrap();
    symlink("/etc/hostname", workspace.primary().join("out")).unwrap();
    let elsewhere = workspace.mountpoint("elsewhere");
    let mounted = workspace.mount_at(&elsewhere);
    let link = elsewhere.join("link");
    let expected = mounted.job(TASK, "abc");
    assert_eq!(fs::read_link(&link).unwrap(), expected);
    let length = fs::symlink_metadata(&link).unwrap().len();
    assert_eq!(length, expected.as_os_str().len() as u64);
    assert!(link.join("train.done").exists());
    let out = fs::read_link(elsewhere.join("out")).unwrap();
    assert_eq!(out, Path::new("/etc/hostname"));

    symlink(&expected, elsewhere.join("made")).unwrap();
    assert_eq!(fs::read_link(elsewhere.join("made")).unwrap(), expected);
    let stored = fs::read_link(workspace.primary().join("made")).unwrap();
    assert_eq!(stored, in_primary);
}

#[test]
fn names_need_not_be_utf8() {
    let workspace = Workspace::new();
    one_job_each(&workspace);
    for folder in common::FOLDERS {
        let job = workspace
            .folder(folder)
            .join("jobs")
            .join(TASK)
            .join(format!("in-{folder}"));
        fs::write(job.join(common::not_utf8()), folder).unwrap();
    }
    let mounted = workspace.mount_in_place();
    for folder in common::FOLDERS {
        let job = mounted.job(TASK, &format!("in-{folder}"));
        assert!(names(&job).contains(&common::not_utf8().to_owned()));
        assert_eq!(
            fs::read(job.join(common::not_utf8())).unwrap(),
            folder.as_bytes()
        );
    }
    let made = mounted.path().join(common::not_utf8());
    fs::write(&made, "made").unwrap();
    assert!(names(mounted.path()).contains(&common::not_utf8().to_owned()));
    assert_eq!(
        made.file_name().unwrap().as_bytes(),
        common::not_utf8().as_bytes()
    );
}

#[test]
fn many_may_list_one_directory_at_the_same_time() {
    let workspace = Workspace::new();
    for (location, letter) in [("primary", "p"), ("use", "u"), ("backup", "b")] {
        for number in 0..400 {
            let root = match location {
                "primary" => workspace.primary(),
                folder => workspace.folder(folder),
            };
            let name = format!("{letter}{number:0>63}");
            let job = root.join("jobs").join(TASK).join(name);
            fs::create_dir_all(&job).unwrap();
            fs::write(job.join("train.done"), "").unwrap();
        }
    }
    let plain = workspace.primary().join("plain");
    fs::create_dir(&plain).unwrap();
    for number in 0..1200 {
        fs::write(plain.join(format!("{number:0>64}")), "").unwrap();
    }
    let mounted = workspace.mount_in_place();
    let task = mounted.path().join("jobs").join(TASK);
    let listers: Vec<_> = (0..8)
        .map(|_| {
            let (task, plain) = (task.clone(), mounted.path().join("plain"));
            std::thread::spawn(move || {
                for _ in 0..12 {
                    for directory in [&task, &plain] {
                        let mut found = names(directory);
                        found.dedup();
                        assert_eq!(found.len(), 1200, "{}", directory.display());
                    }
                }
            })
        })
        .collect();
    for lister in listers {
        lister.join().unwrap();
    }
}
