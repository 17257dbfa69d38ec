//! Changes of the locations beside the mount: what the mount shows after them.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, UNIX_EPOCH};

use rustix::fs::{AtFlags, Mode};

use crate::common::{Workspace, eventually, fails, snapshot};
use crate::{TASK, one_job_each};

#[test]
fn what_changes_behind_the_mount_is_seen_soon() {
    let workspace = Workspace::new();
    one_job_each(&workspace);
    let elsewhere = workspace.mountpoint("elsewhere");
    let mounted = workspace.mount_at(&elsewhere);
    let job = mounted.job(TASK, "in-primary");
    assert_eq!(mounted.location(&job), "primary");
    let beneath = workspace
        .primary()
        .join("jobs")
        .join(TASK)
        .join("in-primary");
    let archived = workspace
        .folder("backup")
        .join("jobs")
        .join(TASK)
        .join("in-primary");
    let open = File::open(job.join("model.bin")).unwrap();
    fs::rename(&beneath, &archived).unwrap();
    eventually("the job is served by its folder", || {
        mounted.location(&job) == "backup"
    });
    let mut contents = Vec::new();
    (&open).read_to_end(&mut contents).unwrap();
    assert_eq!(contents, [7; 10_000]);
    fs::write(workspace.primary().join("new"), "1").unwrap();
    assert_eq!(fs::read(elsewhere.join("new")).unwrap(), b"1");
    fs::write(workspace.primary().join("new"), "22").unwrap();
    eventually("the new contents are seen", || {
        fs::read(elsewhere.join("new")).unwrap() == b"22"
    });
    fs::remove_file(workspace.primary().join("new")).unwrap();
    eventually("it is gone", || !elsewhere.join("new").exists());
}

#[test]
fn a_task_is_newer_when_a_folder_gains_a_job() {
    let workspace = Workspace::new();
    for location in ["primary", "use", "backup"] {
        workspace.finished(location, TASK, &format!("old-{location}"));
    }
    for at in [workspace.mountpoint("mnt"), workspace.primary()] {
        let mounted = workspace.mount_at(&at);
        let (jobs, task) = (at.join("jobs"), at.join("jobs").join(TASK));
        let name = at.file_name().unwrap().to_str().unwrap();
        let modified = |path: &Path| fs::metadata(path).unwrap().modified().unwrap();
        let listed = || {
            let mut entries = fs::read_dir(&jobs).unwrap().map(Result::unwrap);
            let task = entries.find(|entry| entry.file_name() == TASK).unwrap();
            task.metadata().unwrap()
        };
        // Long ago, so that the kernel might believe it for long.
        for location in ["use", "backup", "move"] {
            let folder = workspace.folder(location).join("jobs");
            for directory in [folder.join(TASK), folder] {
                if let Ok(directory) = fs::File::open(directory) {
                    directory.set_modified(UNIX_EPOCH).unwrap();
                }
            }
        }
        for directory in [&task, &jobs] {
            let long_ago = UNIX_EPOCH + Duration::from_secs(1000);
            fs::File::open(directory)
                .unwrap()
                .set_modified(long_ago)
                .unwrap();
            eventually("its own time counts", || modified(directory) == long_ago);
        }
        let of_folder = |location: &str| workspace.folder(location).join("jobs");
        workspace.finished("backup", TASK, &format!("new-{name}"));
        let newest = modified(&of_folder("backup").join(TASK));
        eventually("the task is newer", || modified(&task) == newest);
        assert_eq!(listed().modified().unwrap(), newest);
        assert!(task.join(format!("new-{name}")).is_dir());
        workspace.finished("use", &format!("task.{name}"), "hash");
        let newest = modified(&of_folder("use"));
        eventually("`jobs` is newer", || modified(&jobs) == newest);
        mounted.unmount();
    }
}

#[test]
fn a_job_that_is_moved_beneath_somebody_in_it_is_an_archive_at_once() {
    let workspace = Workspace::new().never_recovers();
    let beneath = workspace.finished("primary", TASK, "abc");
    fs::create_dir(beneath.join("deep")).unwrap();
    fs::write(beneath.join("deep/file"), "contents").unwrap();
    fs::create_dir_all(workspace.folder("backup").join("jobs").join(TASK)).unwrap();
    let elsewhere = workspace.mountpoint("elsewhere");
    let mounted = workspace.mount_at(&elsewhere);
    let job = mounted.job(TASK, "abc");
    let inside = File::open(job.join("deep")).unwrap();
    fs::write(job.join("deep/new"), "new").unwrap();
    // A rename on one disk: every file stays the inode that it is.
    let archived = workspace
        .folder("backup")
        .join("jobs")
        .join(TASK)
        .join("abc");
    fs::rename(&beneath, &archived).unwrap();
    let before = snapshot(&archived);
    let mode = Mode::from_raw_mode(0o644);
    let flags = rustix::fs::OFlags::WRONLY | rustix::fs::OFlags::TRUNC;
    let made = rustix::fs::OFlags::WRONLY | rustix::fs::OFlags::CREATE;
    rustix::fs::openat(&inside, "file", flags, mode).unwrap_err();
    rustix::fs::openat(&inside, "another", made, mode).unwrap_err();
    rustix::fs::unlinkat(&inside, "file", AtFlags::empty()).unwrap_err();
    rustix::fs::renameat(&inside, "file", &inside, "moved").unwrap_err();
    rustix::fs::mkdirat(&inside, "dir", mode).unwrap_err();
    rustix::fs::chmodat(&inside, "file", mode, AtFlags::empty()).unwrap_err();
    for script in [
        "echo x >> $J/deep/file",
        "rm $J/deep/new",
        "chmod 600 $J/deep",
    ] {
        fails(Command::new("sh").args(["-ec", script]).env("J", &job));
    }
    assert_eq!(snapshot(&archived), before);
    assert_eq!(fs::read(job.join("deep/file")).unwrap(), b"contents");
}
