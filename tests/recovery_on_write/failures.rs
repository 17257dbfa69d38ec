//! A recovery that fails gives the program the disk's own error, and leaves nothing.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use crate::common::{self, Folders, Workspace, as_nobody, names, run};
use crate::stage::{Beneath, TASK, Tmpfs, archived, assert_clean, contents};

#[test]
fn a_full_disk_is_reported_and_leaves_nothing() {
    if !common::is_root() {
        return;
    }
    // Too few bytes, which is known before; and too few inodes, which is found out half way.
    for size in ["16m", "64m,nr_inodes=13"] {
        let workspace = Workspace::new();
        let job = archived(&workspace, "backup", "large");
        fs::write(job.join("large"), vec![7; 24 << 20]).unwrap();
        archived(&workspace, "backup", "small");
        let (primary, elsewhere) = (workspace.primary(), workspace.mountpoint("elsewhere"));
        let _disk = Tmpfs::on(&primary, &format!("size={size}"));
        let folders = Folders::of(&workspace);
        {
            let beneath = Beneath::of(&primary);
            let mounted = workspace.mount_at(&elsewhere);
            let large = mounted.job(TASK, "large");
            let before = contents(&large, &[]);
            let error = fs::write(large.join("new"), "x").unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::ENOSPC), "{error}");
            assert_eq!(contents(&large, &[]), before);
            assert_eq!(mounted.location(&large), "backup");
            assert!(
                !beneath.path().join("jobs").join(TASK).exists(),
                "a trace is left"
            );
            // With room, it succeeds.
            let remount = "remount,size=64m,nr_inodes=1000";
            run(Command::new("mount").args(["-o", remount]).arg(&primary));
            fs::write(mounted.job(TASK, "small").join("new"), "x").unwrap();
            fs::write(large.join("new"), "x").unwrap();
            folders.assert_unchanged();
            assert_clean(&beneath.path());
            mounted.unmount();
        }
    }
}

#[test]
fn who_may_not_write_gets_eacces_and_nothing_is_copied() {
    if !common::is_root() {
        return;
    }
    let workspace = Workspace::new();
    let mode = |path: &std::path::Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    mode(&workspace.top(), 0o755);
    let closed = archived(&workspace, "backup", "closed");
    let open = archived(&workspace, "backup", "open");
    for path in [&closed, &open] {
        mode(path, 0o755);
    }
    mode(&open, 0o777);
    mode(&open.join("train.out"), 0o666);
    let beneath = Beneath::of(&workspace.primary());
    let folders = Folders::of(&workspace);
    let mounted = workspace.mount_with(&workspace.primary(), &["-o", "allow_other"]);
    let (closed, open) = (mounted.job(TASK, "closed"), mounted.job(TASK, "open"));
    let refused = |path: &std::path::Path| {
        let error = as_nobody(|| fs::write(path, "x")).unwrap_err();
        assert_eq!(
            error.raw_os_error(),
            Some(libc::EACCES),
            "{}: {error}",
            path.display()
        );
    };
    refused(&closed.join("train.out"));
    refused(&closed.join("new"));
    // Nor where the recovered job would lie.
    refused(&open.join("train.out"));
    refused(&open.join("new"));
    let task = beneath.path().join("jobs").join(TASK);
    assert!(!task.exists() || names(&task).is_empty());
    fs::create_dir_all(&task).unwrap();
    mode(&task, 0o777);
    refused(&closed.join("train.out"));
    refused(&closed.join("new"));
    assert!(names(&task).is_empty());
    as_nobody(|| fs::write(open.join("new"), "x")).unwrap();
    assert_eq!(mounted.location(&open), "primary");
    assert_eq!(mounted.location(&closed), "backup");
    folders.assert_unchanged();
}

#[test]
fn a_damaged_copy_is_not_recovered() {
    let workspace = Workspace::new();
    let job = workspace.finished("primary", TASK, "a");
    let selected = format!("{TASK}/a");
    let archive = |what: &str| {
        let mut command = workspace.xpmfs();
        run(command.args(["jobs", what, "-w", "test"]).arg(&selected));
    };
    workspace.with_folders(&["backup"]);
    archive("archive");
    fs::remove_dir_all(&job).unwrap();
    let copy = workspace.folder("backup").join("jobs").join(TASK).join("a");
    let written = fs::metadata(copy.join("model.bin"))
        .unwrap()
        .modified()
        .unwrap();
    fs::write(copy.join("model.bin"), [8; 10_000]).unwrap();
    let file = fs::File::options()
        .write(true)
        .open(copy.join("model.bin"))
        .unwrap();
    file.set_modified(written).unwrap();
    let mounted = workspace.mount_in_place();
    let error = fs::write(mounted.job(TASK, "a").join("new"), "x").unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EIO), "{error}");
    assert!(workspace.log().contains("manifest"), "{}", workspace.log());
}
