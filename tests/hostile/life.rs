//! Mounts beside mounts, in namespaces, and after what they are made of has gone.

use super::common::daemon::kill_both;
use super::*;

#[test]
fn two_mounts_of_one_workspace_are_one() {
    let workspace = Workspace::new();
    workspace.finished("primary", TASK, "own");
    workspace.finished("backup", TASK, "archived");
    let one = workspace.mount_in_place();
    let two = workspace.mount_at(&workspace.mountpoint("elsewhere"));
    let exclusive = FlockOperation::NonBlockingLockExclusive;
    for hash in ["own", "archived"] {
        let lock = |mounted: &Mounted<'_>| {
            let path = mounted.job(TASK, hash).join("train.lock");
            open(path, OFlags::RDWR | OFlags::CREATE).unwrap()
        };
        let (first, second) = (lock(&one), lock(&two));
        rustix::fs::flock(&first, exclusive).unwrap();
        assert_eq!(
            rustix::fs::flock(&second, exclusive),
            Err(Errno::WOULDBLOCK)
        );
        rustix::fs::flock(&first, FlockOperation::Unlock).unwrap();
        rustix::fs::flock(&second, exclusive).unwrap();
        assert_eq!(rustix::fs::flock(&first, exclusive), Err(Errno::WOULDBLOCK));
    }
    for (from, to, name) in [(&one, &two, "a"), (&two, &one, "b")] {
        let seen = to.job(TASK, name);
        assert!(!seen.exists());
        fs::create_dir(from.job(TASK, name)).unwrap();
        fs::write(from.job(TASK, name).join("file"), "x").unwrap();
        let asked = Instant::now();
        eventually("a file of the other mount", || seen.join("file").exists());
        // A second, and what a busy machine takes; not the minutes for which names are believed in other places.
        assert!(
            asked.elapsed() < Duration::from_secs(20),
            "{:?}",
            asked.elapsed()
        );
        fs::write(from.job(TASK, name).join("file"), "longer").unwrap();
        eventually("what the other mount wrote", || {
            fs::read(seen.join("file")).is_ok_and(|read| read == b"longer")
        });
        fs::remove_dir_all(from.job(TASK, name)).unwrap();
        eventually("what the other mount removed is gone", || !seen.exists());
    }
}

/// The command as a path that the user who does things may run.
fn binary(workspace: &Workspace) -> PathBuf {
    let copy = workspace.top().join("bin/xpmfs");
    let _ = workspace.xpmfs();
    match copy.exists() {
        true => copy,
        false => env!("CARGO_BIN_EXE_xpmfs").into(),
    }
}

#[test]
fn a_mount_in_a_namespace_is_seen_there_alone() {
    let roots = (Workspace::new(), "-m");
    for (workspace, namespaces) in [roots, (Workspace::of_ordinary_user(), "-Urm")] {
        workspace.finished("backup", TASK, "archived");
        let mut able = workspace.command("unshare");
        if !able
            .args([namespaces, "true"])
            .output()
            .unwrap()
            .status
            .success()
        {
            eprintln!("SKIPPED: unshare {namespaces} is not permitted here");
            continue;
        }
        let script = "set -e
            trap '\"$X\" --settings \"$S\" umount --lazy \"$W\"' EXIT
            \"$X\" --settings \"$S\" mount -w test --log \"$S.log\"
            cat \"$W\"/jobs/*/archived/train.out
            mkdir \"$W\"/jobs/new
            if rm -rf \"$W\"/jobs/*/archived; then exit 1; fi
            echo removed nothing";
        let mut command = workspace.command("timeout");
        command
            .args(["120", "unshare", namespaces, "sh", "-c", script])
            .env("X", binary(&workspace))
            .env("S", workspace.settings())
            .env("W", workspace.primary());
        let said = run(&mut command);
        assert!(said.contains("step 2\nremoved nothing\n"), "{said}");
        assert!(!common::is_mounted(&workspace.primary()));
        assert_eq!(names(&workspace.primary().join("jobs")), ["new"]);
        assert!(job(&workspace.folder("backup"), "archived/model.bin").exists());
    }
}

/// The process that serves a mount of a workspace.
fn daemon(workspace: &Workspace) -> i32 {
    let settings = workspace.settings();
    let ours = |pid: i32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let arguments: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
        arguments.contains(&b"mount".as_slice())
            && arguments.contains(&settings.as_os_str().as_bytes())
    };
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let found = processes
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        // The supervisor is the other one's parent, and has the lower number.
        .filter(|pid| ours(*pid))
        .max();
    found.expect("a daemon")
}

#[test]
fn a_mount_whose_daemon_was_killed_is_mounted_anew() {
    let workspace = Workspace::new();
    let own = workspace.finished("primary", TASK, "own");
    workspace.finished("backup", TASK, "archived");
    let before = snapshot(&workspace.folder("backup"));
    let killed = workspace.mount_in_place();
    let mut open = File::create(killed.job(TASK, "own").join("written")).unwrap();
    open.write_all(b"written").unwrap();
    File::create(killed.job(TASK, "archived").join("train.lock")).unwrap();
    kill_both(daemon(&workspace));
    eventually("the mount is dead", || {
        fs::metadata(killed.path()).is_err_and(|e| e.raw_os_error() == Some(libc::ENOTCONN))
    });
    drop(open);
    let mounted = workspace.mount_in_place();
    assert_eq!(
        fs::read(mounted.job(TASK, "own").join("written")).unwrap(),
        b"written"
    );
    assert!(mounted.job(TASK, "archived").join("train.lock").exists());
    mounted.unmount();
    drop(killed);
    assert_eq!(fs::read(own.join("written")).unwrap(), b"written");
    assert_eq!(snapshot(&workspace.folder("backup")), before);
}

#[test]
fn a_primary_that_is_removed_gives_errors_and_no_more() {
    let workspace = Workspace::new();
    workspace.finished("primary", TASK, "own");
    workspace.finished("backup", TASK, "archived");
    let before = snapshot(&workspace.folder("backup"));
    let mounted = workspace.mount_at(&workspace.mountpoint("elsewhere"));
    assert_eq!(
        names(&mounted.path().join("jobs").join(TASK)),
        ["archived", "own"]
    );
    fs::remove_dir_all(workspace.primary()).unwrap();
    eventually("the primary's job is gone", || {
        !mounted.job(TASK, "own").exists()
    });
    for (script, expected) in [
        ("ls -la \"$1\"", None),
        (
            "cat \"$1\"/jobs/*/archived/train.out",
            Some("step 1\nstep 2\n"),
        ),
        ("mkdir \"$1/new\"", Some("No such file or directory")),
        (
            "mkdir -p \"$1/jobs/my.module.train/new\"",
            Some("No such file or directory"),
        ),
        (
            "touch \"$1/jobs/my.module.train/archived/train.lock\"",
            Some("No such file or directory"),
        ),
        ("df \"$1\"", None),
        ("rm -rf \"$1/jobs\"", Some("Read-only file system")),
    ] {
        let (_, said) = promptly(&workspace, script, mounted.path());
        assert!(
            expected.is_none_or(|expected| said.contains(expected)),
            "{script}: {said}"
        );
    }
    mounted.unmount();
    assert!(!workspace.log().contains("panic"), "{}", workspace.log());
    assert_eq!(snapshot(&workspace.folder("backup")), before);
}

/// Whether this is root, who may mount a disk.
fn may_mount_disks() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        assert!(std::env::var_os("CI").is_none(), "CI runs as root");
        eprintln!("SKIPPED: needs root, to mount a disk");
    }
    root
}

/// A disk of its own, in a file, mounted on a folder.
struct Disk<'a> {
    image: std::path::PathBuf,
    folder: &'a Path,
}

impl Disk<'_> {
    fn new(image: std::path::PathBuf, folder: &Path) -> Disk<'_> {
        common::run(Command::new("truncate").args(["-s", "32M"]).arg(&image));
        common::run(Command::new("mkfs.ext4").arg("-q").arg(&image));
        let disk = Disk { image, folder };
        disk.mount();
        disk
    }

    fn mount(&self) {
        let mut mount = Command::new("mount");
        common::run(mount.args(["-o", "loop"]).arg(&self.image).arg(self.folder));
    }

    /// Whether the file is still a disk.
    fn is_in_use(&self) -> bool {
        let mut losetup = Command::new("losetup");
        !common::run(losetup.arg("-j").arg(&self.image)).is_empty()
    }
}

impl Drop for Disk<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.folder).status();
    }
}

#[test]
fn the_disk_of_a_folder_that_is_taken_away_is_let_go() {
    if !may_mount_disks() {
        return;
    }
    let workspace = Workspace::new();
    let folder = workspace.folder("backup");
    fs::remove_dir(folder.join("jobs")).unwrap();
    let disk = Disk::new(workspace.top().join("disk"), &folder);
    workspace.finished("backup", TASK, "archived");
    workspace.finished("primary", TASK, "own");
    let mounted = workspace.mount_in_place();
    let tasks = mounted.path().join("jobs").join(TASK);
    let model = tasks.join("archived/model.bin");
    for round in 0..2 {
        eventually("the job shows", || model.exists());
        assert_eq!(names(&tasks), ["archived", "own"]);
        names(&tasks.join("archived"));
        fs::read(&model).unwrap();
        fs::write(tasks.join("archived/train.lock"), "").unwrap();
        common::run(Command::new("umount").arg("-l").arg(&folder));
        eventually("the disk is let go", || !disk.is_in_use());
        // What the disk has is known, or not yet: it is not mistaken for the mount point's.
        eventually("the job is gone", || fs::metadata(&model).is_err());
        // All that is left is the directory that the disk was mounted on.
        let status = common::run(workspace.xpmfs().args(["status", "-w", "test"]));
        let said = status.lines().find(|line| line.starts_with("backup"));
        assert!(
            said.is_some_and(|said| said.contains("no jobs")),
            "{status}"
        );
        assert!(
            status.contains("check that its disk is mounted"),
            "{status}"
        );
        assert!(
            workspace
                .log()
                .contains("a disk was mounted or unmounted there")
        );
        if round == 0 {
            disk.mount();
        }
    }
    mounted.unmount();
}

#[test]
fn status_tells_how_full_the_disk_is_now() {
    if !may_mount_disks() {
        return;
    }
    let workspace = Workspace::new();
    let primary = workspace.primary();
    let _disk = Disk::new(workspace.top().join("disk"), &primary);
    let mounted = workspace.mount_at(&workspace.mountpoint("elsewhere"));
    let free = || {
        let mut command = workspace.xpmfs();
        let status = common::run(command.args(["--json", "status"]).arg(mounted.path()));
        let status: serde_json::Value = serde_json::from_str(&status).unwrap();
        let primary = &status["mounts"][0]["locations"][0];
        assert_eq!(primary["mode"], "primary");
        primary["free"].as_u64().unwrap()
    };
    let before = free();
    let file = mounted.path().join("large");
    fs::write(&file, vec![1; 8 << 20]).unwrap();
    eventually("the file counts", || free() + (7 << 20) < before);
    fs::remove_file(&file).unwrap();
    eventually("the file counts no more", || free() + (1 << 20) > before);
    mounted.unmount();
}
