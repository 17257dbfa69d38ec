//! What never appears, and what does when the primary lacks it.

use super::*;

#[test]
fn the_state_of_xpmfs_never_appears() {
    as_everyone(|workspace| {
        one_job_each(workspace);
        for exists in [false, true] {
            if exists {
                fs::create_dir(workspace.primary().join(".xpmfs")).unwrap();
                fs::write(workspace.primary().join(".xpmfs/secret"), "x").unwrap();
                workspace.give_away();
            }
            let elsewhere = workspace.mountpoint(&format!("elsewhere-{exists}"));
            let mounted = workspace.mount_at(&elsewhere);
            let hidden = mounted.path().join(".xpmfs");
            let file = mounted.path().join("file");
            let mut tried = Attempts::default();
            let taken = &[Errno::PERM, Errno::NOENT][..];
            workspace.as_user(|| {
                fs::write(&file, "").unwrap();
                let gone = &[Errno::NOENT];
                tried.refused("stat", gone, rustix::fs::lstat(&hidden));
                tried.refused("stat", gone, rustix::fs::stat(hidden.join("secret")));
                tried.refused(
                    "stat",
                    gone,
                    rustix::fs::stat(elsewhere.join("jobs/../.xpmfs/")),
                );
                tried.refused("open", gone, open(&hidden, OFlags::RDONLY));
                tried.refused("rmdir", gone, rustix::fs::rmdir(&hidden));
                tried.refused(
                    "rename",
                    gone,
                    rustix::fs::rename(&hidden, elsewhere.join("x")),
                );
                tried.refused("mkdir", taken, rustix::fs::mkdir(&hidden, RWX));
                let create = OFlags::RDWR | OFlags::CREATE;
                tried.refused("create", taken, open(&hidden, create));
                tried.refused("symlink", taken, rustix::fs::symlink("x", &hidden));
                tried.refused("link", taken, rustix::fs::link(&file, &hidden));
                let fifo = rustix::fs::mknodat(CWD, &hidden, FileType::Fifo, RWX, 0);
                tried.refused("mknod", taken, fifo);
                for flags in [RenameFlags::empty(), RenameFlags::NOREPLACE] {
                    let renamed = rustix::fs::renameat_with(CWD, &file, CWD, &hidden, flags);
                    tried.refused("rename to", taken, renamed);
                }
                let exchanged =
                    rustix::fs::renameat_with(CWD, &file, CWD, &hidden, RenameFlags::EXCHANGE);
                tried.refused("exchange", taken, exchanged);
                assert_eq!(names(&elsewhere), [".__experimaestro__", "file", "jobs"]);
            });
            assert!(tried.wrong.is_empty(), "{:#?}", tried.wrong);
            mounted.unmount();
            assert_eq!(workspace.primary().join(".xpmfs/secret").exists(), exists);
        }
    });
}

#[test]
fn what_a_copy_grows_in_never_appears() {
    as_everyone(|workspace| {
        one_job_each(workspace);
        for folder in FOLDERS {
            let task = workspace.folder(folder).join("jobs").join(TASK);
            common::write_job(&task.join(".tmp.abc"), TASK);
            fs::write(task.join(".tmp.abc.lock"), "").unwrap();
            let jobs = task.parent().unwrap();
            common::write_job(&jobs.join(".tmp.task/abc"), "tmp.task");
        }
        workspace.give_away();
        let mounted = workspace.mount_in_place();
        workspace.as_user(|| {
            let jobs = mounted.path().join("jobs");
            assert_eq!(names(&jobs), [TASK]);
            let all = ["in-backup", "in-move", "in-primary", "in-use"];
            assert_eq!(names(&jobs.join(TASK)), all);
            for name in [".tmp.task", ".tmp.task/abc", "my.module.train/.tmp.abc"] {
                let found = rustix::fs::lstat(jobs.join(name)).map(|_| ());
                assert_eq!(found, Err(Errno::NOENT), "{name}");
            }
        });
    });
}

#[test]
fn the_primarys_copy_can_go_and_new_jobs_go_to_the_primary() {
    as_everyone(|workspace| {
        workspace.finished("backup", TASK, "both");
        let copy = workspace.finished("primary", TASK, "both");
        fs::write(copy.join("train.out"), "newer").unwrap();
        let before = folders(workspace);
        let mounted = workspace.mount_in_place();
        let job = mounted.job(TASK, "both");
        workspace.as_user(|| {
            assert_eq!(mounted.location(&job), "primary");
            fs::remove_dir_all(&job).unwrap();
            eventually("the folder's copy", || {
                fs::read(job.join("train.out")).is_ok_and(|out| out == b"step 1\nstep 2\n")
            });
            assert_eq!(mounted.location(&job), "backup");
            let removed = fs::remove_dir_all(&job).unwrap_err();
            assert_eq!(removed.raw_os_error(), Some(libc::EROFS));
        });
        mounted.unmount();
        // Neither `jobs/` nor the task's directory are in the primary.
        fs::remove_dir_all(workspace.primary().join("jobs")).unwrap();
        let mounted = workspace.mount_in_place();
        workspace.as_user(|| {
            for (task, hash) in [(TASK, "new"), ("my.module.other", "new"), (TASK, "newer")] {
                let new = mounted.job(task, hash);
                fs::create_dir_all(&new).unwrap();
                fs::write(new.join("file"), "x").unwrap();
                assert_eq!(mounted.location(new.join("file")), "primary");
            }
            assert_eq!(
                names(&mounted.path().join("jobs").join(TASK)),
                ["both", "new", "newer"]
            );
        });
        mounted.unmount();
        let beneath = workspace.primary().join("jobs");
        assert_eq!(names(&beneath), ["my.module.other", TASK]);
        assert_eq!(names(&beneath.join(TASK)), ["new", "newer"]);
        assert_same(&before, &folders(workspace));
    });
}
