//! Folders that go away, are full or read-only, and then are not.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common;
use crate::common::{Workspace, fails, is_mounted, names, run};
use crate::job::{self, TASK, hash};
use crate::stage::{assert_whole, folder_status, has_all, is_drained, told, until};

/// A workspace with a `backup` folder, and nothing to wait for.
fn workspace() -> Workspace {
    let workspace = Workspace::new();
    workspace.with_folders(&["backup"]);
    workspace.tune("{settle: 100ms, scan_interval: 200ms}");
    workspace
}

/// A file system in memory, or a directory seen at another place.
struct Disk(PathBuf);

impl Disk {
    fn in_memory(at: &Path, options: &str) -> Disk {
        let mut command = Command::new("mount");
        run(command
            .args(["-t", "tmpfs", "-o", options, "tmpfs"])
            .arg(at));
        Disk(at.to_owned())
    }

    fn bound(directory: &Path, at: &Path) -> Disk {
        run(Command::new("mount").arg("--bind").arg(directory).arg(at));
        Disk(at.to_owned())
    }

    fn remount(&self, options: &str) {
        let options = format!("remount,{options}");
        run(Command::new("mount").args(["-o", &options]).arg(&self.0));
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).output();
    }
}

/// Waits until the folder is said to take no job, for a reason, to programs and to people.
fn refuses(workspace: &Workspace, mountpoint: &Path, why: &str) {
    until("the folder is said to take no job", || {
        let folder = folder_status(workspace, mountpoint, "backup");
        let refuses = folder["refuses"]["why"].as_str();
        refuses.is_some_and(|refuses| refuses.contains(why))
    });
    until("a person is told", || {
        let told = told(workspace, mountpoint);
        let waits = [" jobs waiting: ", " 1 job waiting: "];
        waits.iter().any(|waits| told.contains(waits)) && told.contains(why)
    });
}

/// Jobs are made and read through a mount, whatever its folder does.
fn assert_not_blocked(mountpoint: &Path, number: usize) {
    let job = mountpoint.join(job::path(number));
    job::write(&job, number);
    job::look_at(&job, number).unwrap();
    let listed = names(&mountpoint.join("jobs").join(TASK));
    assert!(listed.contains(&hash(number).into()), "{listed:?}");
}

#[test]
fn jobs_wait_for_a_folder_that_is_renamed_and_comes_back() {
    let workspace = workspace();
    let mountpoint = workspace.mountpoint("elsewhere");
    let (folder, away) = (workspace.folder("backup"), workspace.top().join("away"));
    let mut expected = vec![job::make_and_tell(&workspace.primary(), 0, job::tree)];
    let mounted = workspace.mount_archiving(&mountpoint, &[]);
    until("the first is archived", || has_all(&folder, 0..1));
    until("all is said to be archived", || {
        is_drained(&workspace, &mountpoint)
    });
    fs::rename(&folder, &away).unwrap();
    until("the folder is missed", || {
        let folder = folder_status(&workspace, &mountpoint, "backup");
        folder["refuses"]["why"] == "the folder is missing"
    });
    for number in 1..10 {
        assert_not_blocked(&mountpoint, number);
        expected.push(job::tree(&workspace.primary().join(job::path(number))));
    }
    refuses(&workspace, &mountpoint, "the folder is missing");
    assert!(!folder.exists(), "another folder was made in its place");
    fs::rename(&away, &folder).unwrap();
    until("all jobs are archived", || has_all(&folder, 0..10));
    mounted.unmount();
    assert_whole(&folder, 0..10, |number| expected[number].clone());
}

#[test]
fn all_is_not_said_to_be_archived_when_what_was_moved_has_gone() {
    let workspace = Workspace::new();
    workspace.with_folders(&["move"]);
    workspace.tune("{settle: 100ms, scan_interval: 200ms}");
    let mountpoint = workspace.mountpoint("elsewhere");
    let (primary, folder) = (workspace.primary(), workspace.folder("move"));
    job::make(&primary, 0);
    let mounted = workspace.mount_archiving(&mountpoint, &[]);
    until("it is moved", || primary.join(job::path(0)).is_symlink());
    until("all is said to be archived", || {
        is_drained(&workspace, &mountpoint)
    });
    let away = workspace.top().join("away");
    fs::rename(folder.join("jobs"), &away).unwrap();
    until("a person is told", || {
        let told = told(&workspace, &mountpoint);
        told.contains("it has none now") && !told.contains("is archived")
    });
    let drain = ["umount", "--drain"];
    let output = fails(workspace.xpmfs().args(drain).arg(&mountpoint));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("it has none now"), "{said}");
    fs::rename(&away, folder.join("jobs")).unwrap();
    until("all is said to be archived again", || {
        is_drained(&workspace, &mountpoint)
    });
    mounted.unmount();
}

#[test]
fn no_job_goes_where_the_symlink_in_place_of_a_folder_s_jobs_led_before() {
    let workspace = workspace();
    let mountpoint = workspace.mountpoint("elsewhere");
    let (folder, primary) = (workspace.folder("backup"), workspace.primary());
    let (link, disks) = (
        folder.join("jobs"),
        ["one", "two"].map(|name| workspace.top().join(name)),
    );
    fs::remove_dir(&link).unwrap();
    for disk in &disks {
        fs::create_dir(disk).unwrap();
    }
    symlink(&disks[0], &link).unwrap();
    let mut expected = vec![job::make_and_tell(&primary, 0, job::tree)];
    let mounted = workspace.mount_archiving(&mountpoint, &[]);
    until("the first is archived", || has_all(&folder, 0..1));
    fs::remove_file(&link).unwrap();
    symlink(&disks[1], &link).unwrap();
    expected.push(job::make_and_tell(&primary, 1, job::tree));
    refuses(&workspace, &mountpoint, "leads elsewhere");
    mounted.unmount();
    let mounted = workspace.mount_archiving(&mountpoint, &[]);
    until("both are archived there", || has_all(&folder, 0..2));
    mounted.unmount();
    assert_whole(&folder, 0..2, |number| expected[number].clone());
    assert_eq!(names(&disks[0].join(TASK)), [hash(0).as_str()]);
}

/// The folder is open still, and takes copies, when its path leads nowhere.
#[test]
fn no_job_is_moved_to_a_folder_that_has_gone_a_moment_ago() {
    let workspace = Workspace::new();
    workspace.with_folders(&["move"]);
    workspace.tune("{settle: 0s, scan_interval: 50ms}");
    let mountpoint = workspace.mountpoint("elsewhere");
    let (folder, away) = (workspace.folder("move"), workspace.top().join("away"));
    let primary = workspace.primary();
    let _mounted = workspace.mount_archiving(&mountpoint, &[]);
    fs::rename(&folder, &away).unwrap();
    job::make(&primary, 0);
    until("the folder is missed", || {
        job::look_at(&primary.join(job::path(0)), 0).unwrap();
        let folder = folder_status(&workspace, &mountpoint, "move");
        folder["refuses"]["why"] == "the folder is missing"
    });
    assert!(!primary.join(job::path(0)).is_symlink());
    fs::rename(&away, &folder).unwrap();
    let moved = || primary.join(job::path(0)).is_symlink();
    until("it is moved", moved);
    job::look_at(&primary.join(job::path(0)), 0).unwrap();
}

#[test]
fn nothing_is_written_where_a_folder_s_disk_is_not_mounted() {
    if !common::is_root() {
        return;
    }
    let workspace = workspace();
    let mountpoint = workspace.mountpoint("elsewhere");
    let folder = workspace.folder("backup");
    fs::remove_dir(folder.join("jobs")).unwrap();
    let directory = workspace.top().join("disk");
    fs::create_dir(&directory).unwrap();
    let disk = Disk::in_memory(&directory, "size=16m");
    fs::create_dir(directory.join("jobs")).unwrap();
    let seen = Disk::bound(&disk.0, &folder);
    job::make(&workspace.primary(), 0);
    let mounted = workspace.mount_archiving(&mountpoint, &[]);
    until("the first is archived", || has_all(&folder, 0..1));
    until("all is said to be archived", || {
        is_drained(&workspace, &mountpoint)
    });
    drop(seen);
    assert_eq!(names(&folder), [""; 0]);
    until("the disk is missed", || {
        run(workspace.xpmfs().arg("status").arg(&mountpoint)).contains("no jobs")
    });
    assert_not_blocked(&mountpoint, 1);
    refuses(&workspace, &mountpoint, "see whether its disk is mounted");
    assert_eq!(names(&folder), [""; 0], "the mount point was written to");
    let seen = Disk::bound(&disk.0, &folder);
    until("both are archived", || has_all(&folder, 0..2));
    mounted.unmount();
    job::look_at(&folder.join(job::path(0)), 0).unwrap();
    job::look_at(&folder.join(job::path(1)), 1).unwrap();
    drop(seen);
}

#[test]
fn jobs_wait_for_a_folder_that_is_full() {
    if !common::is_root() {
        return;
    }
    let workspace = workspace();
    let mountpoint = workspace.mountpoint("elsewhere");
    let folder = workspace.folder("backup");
    let disk = Disk::in_memory(&folder, "size=900k");
    fs::create_dir(folder.join("jobs")).unwrap();
    let mounted = workspace.mount_archiving(&mountpoint, &[]);
    // One has room there, or the other.
    for number in 0..2 {
        let job = mountpoint.join(job::path(number));
        job::write_unfinished(&job, number);
        fs::write(job.join("large"), vec![7; 500_000]).unwrap();
    }
    for number in 0..2 {
        fs::write(mountpoint.join(job::path(number)).join("train.done"), "").unwrap();
    }
    refuses(&workspace, &mountpoint, "pace");
    assert_not_blocked(&mountpoint, 2);
    let mut drain = workspace.xpmfs();
    let refused = fails(drain.args(["umount", "--drain"]).arg(&mountpoint));
    let refused = String::from_utf8(refused.stderr).unwrap();
    for told in ["cannot be archived now", "stays mounted", "pace"] {
        assert!(refused.contains(told), "{refused}");
    }
    assert!(is_mounted(&mountpoint));
    assert_not_blocked(&mountpoint, 3);
    disk.remount("size=16m");
    until("all are archived", || has_all(&folder, 0..4));
    let mut drain = workspace.xpmfs();
    run(drain.args(["umount", "--drain"]).arg(&mountpoint));
    assert!(!is_mounted(&mountpoint));
    drop(mounted);
    let primary = workspace.primary();
    assert_whole(&folder, 0..4, |number| {
        job::tree(&primary.join(job::path(number)))
    });
}

#[test]
fn jobs_wait_for_a_folder_that_is_read_only() {
    if !common::is_root() {
        return;
    }
    let workspace = workspace();
    let mountpoint = workspace.mountpoint("elsewhere");
    let folder = workspace.folder("backup");
    let disk = Disk::in_memory(&folder, "size=16m");
    fs::create_dir(folder.join("jobs")).unwrap();
    disk.remount("ro");
    let mounted = workspace.mount_archiving(&mountpoint, &[]);
    for number in 0..3 {
        assert_not_blocked(&mountpoint, number);
    }
    refuses(&workspace, &mountpoint, "Read-only file system");
    disk.remount("rw");
    until("all are archived", || has_all(&folder, 0..3));
    mounted.unmount();
    let primary = workspace.primary();
    assert_whole(&folder, 0..3, |number| {
        job::tree(&primary.join(job::path(number)))
    });
}

/// Asserts that nobody says that all is archived, and that a drain does not end well; it, and the status, say why.
fn assert_unseen(workspace: &Workspace, mountpoint: &Path, why: &str) {
    until("it is told", || told(workspace, mountpoint).contains(why));
    let told = told(workspace, mountpoint);
    assert!(!told.contains("all finished jobs are archived"), "{told}");
    let mut drain = workspace.xpmfs();
    let output = fails(drain.args(["umount", "--drain"]).arg(mountpoint));
    let said = String::from_utf8_lossy(&output.stderr);
    for part in ["it is not known", why] {
        assert!(said.contains(part), "{said}");
    }
    assert!(is_mounted(mountpoint));
}

/// The same of `jobs archive`, which archives the rest.
fn assert_left_out(workspace: &Workspace, why: &str) {
    let archive = ["jobs", "archive", "-w", "test", "--all"];
    let output = workspace.xpmfs().args(archive).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains(why) && said.contains("1 failed"), "{said}");
}

#[test]
fn what_is_behind_a_symlink_is_not_said_to_be_archived() {
    let workspace = workspace();
    let primary = workspace.primary();
    job::make(&primary, 0);
    let elsewhere = workspace.top().join("elsewhere-task");
    fs::create_dir_all(elsewhere.join("0123")).unwrap();
    fs::write(elsewhere.join("0123/task.done"), "").unwrap();
    std::os::unix::fs::symlink(&elsewhere, primary.join("jobs/other.task")).unwrap();
    let why = "jobs/other.task is a symlink, and jobs behind it are skipped";
    assert_left_out(&workspace, why);
    assert!(has_all(&workspace.folder("backup"), 0..1));
    let mountpoint = workspace.mountpoint("mounted");
    let _mounted = workspace.mount_archiving(&mountpoint, &[]);
    assert_unseen(&workspace, &mountpoint, why);
    fs::remove_file(primary.join("jobs/other.task")).unwrap();
    fs::rename(&elsewhere, primary.join("jobs/other.task")).unwrap();
    let copy = workspace.folder("backup").join("jobs/other.task/0123");
    until("it is archived", || copy.join("task.done").exists());
    run(workspace
        .xpmfs()
        .args(["umount", "--drain"])
        .arg(&mountpoint));
}

#[test]
fn a_task_that_cannot_be_read_keeps_no_other_from_being_archived() {
    let workspace = Workspace::of_ordinary_user();
    workspace.with_folders(&["backup"]);
    workspace.tune("{settle: 100ms, scan_interval: 200ms}");
    let primary = workspace.primary();
    job::make(&primary, 0);
    workspace.give_away();
    let private = primary.join("jobs/private.task");
    fs::create_dir(&private).unwrap();
    fs::set_permissions(&private, fs::Permissions::from_mode(0o700)).unwrap();
    let why = "cannot read ";
    assert_left_out(&workspace, why);
    assert!(has_all(&workspace.folder("backup"), 0..1));
    // And none from being named.
    run(workspace
        .xpmfs()
        .args(["jobs", "verify", "-w", "test", &hash(0)]));
    let mountpoint = workspace.mountpoint("mounted");
    let _mounted = workspace.mount_archiving(&mountpoint, &[]);
    assert_unseen(&workspace, &mountpoint, why);
    fs::set_permissions(&private, fs::Permissions::from_mode(0o755)).unwrap();
    run(workspace
        .xpmfs()
        .args(["umount", "--drain"])
        .arg(&mountpoint));
}

#[test]
fn with_a_folder_that_is_away_nothing_is_said_to_be_archived() {
    let workspace = workspace();
    job::make(&workspace.primary(), 0);
    let folder = workspace.folder("backup");
    let away = workspace.top().join("away");
    fs::rename(&folder, &away).unwrap();
    let mountpoint = workspace.mountpoint("mounted");
    let _mounted = workspace.mount_archiving(&mountpoint, &[]);
    assert_unseen(&workspace, &mountpoint, "the folder is missing");
    fs::rename(&away, &folder).unwrap();
    until("it is archived", || has_all(&folder, 0..1));
    run(workspace
        .xpmfs()
        .args(["umount", "--drain"])
        .arg(&mountpoint));
}
