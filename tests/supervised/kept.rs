//! What stays as it is when another process takes over a mount.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use rustix::fs::{AtFlags, CWD, FlockOperation, Mode, OFlags, flock};

use super::common::daemon::kill_worker;
use super::common::{Workspace, eventually, run};
use super::killer::processes;
use super::{HOWS, How, TASK, mount, workspace};

/// Makes the kernel forget what no process uses.
fn drop_caches() {
    rustix::fs::sync();
    fs::write("/proc/sys/vm/drop_caches", "2").unwrap();
}

/// Kills the process that serves the mount; returns when another one answers.
fn kill(workspace: &Workspace, mountpoint: &Path) {
    let (pid, _) = processes(workspace, mountpoint);
    kill_worker(pid);
    // Waits for the next process.
    workspace.as_user(|| fs::metadata(mountpoint.join("jobs")).unwrap());
}

#[test]
fn a_lock_is_held_by_the_same_file_until_it_is_released() {
    for how in HOWS {
        let workspace = workspace(how);
        let mounted = mount(&workspace, how);
        let path = mounted.path().join("lock");
        let open = || workspace.as_user(|| File::create(&path).unwrap());
        let held = open();
        flock(&held, FlockOperation::LockExclusive).unwrap();
        let taken = || flock(open(), FlockOperation::NonBlockingLockExclusive).is_err();
        for _ in 0..3 {
            kill(&workspace, mounted.path());
            assert!(taken(), "{how:?}: two hold the lock");
        }
        if how == How::Elsewhere {
            let beneath = File::open(workspace.primary().join("lock")).unwrap();
            let taken = flock(&beneath, FlockOperation::NonBlockingLockExclusive);
            assert!(taken.is_err(), "two hold the lock, one beneath the mount");
        }
        flock(&held, FlockOperation::Unlock).unwrap();
        assert!(!taken());
        flock(&held, FlockOperation::LockExclusive).unwrap();
        kill(&workspace, mounted.path());
        drop(held);
        eventually("it is free", || !taken());
    }
}

#[test]
fn who_waits_for_a_lock_goes_on_waiting_and_gets_it() {
    let workspace = workspace(HOWS[0]);
    let mounted = mount(&workspace, HOWS[0]);
    let path = mounted.path().join("lock");
    let held = File::create(&path).unwrap();
    flock(&held, FlockOperation::LockExclusive).unwrap();
    let mut waiter = Command::new("flock")
        .arg(&path)
        .arg("true")
        .spawn()
        .unwrap();
    let pid = waiter.id();
    eventually("it waits for the lock", || {
        let stack = fs::read_to_string(format!("/proc/{pid}/wchan")).unwrap_or_default();
        stack.contains("fuse") || stack.contains("request_wait")
    });
    kill(&workspace, mounted.path());
    assert!(waiter.try_wait().unwrap().is_none(), "two hold the lock");
    drop(held);
    assert!(waiter.wait().unwrap().success());
}

#[test]
fn an_open_file_survives_whose_mode_does_not_let_its_owner_open_it() {
    for how in HOWS {
        let workspace = workspace(how);
        let mounted = mount(&workspace, how);
        let at = |name: &str| mounted.path().join(name);
        let create = |name: &str, mode| {
            let mut options = OpenOptions::new();
            let options = options.read(true).write(true).create_new(true).mode(mode);
            workspace.as_user(|| options.open(at(name)).unwrap())
        };
        let mut read_only = create("read-only", 0o444);
        let mut changed = create("changed", 0o644);
        let mode = fs::Permissions::from_mode(0o000);
        workspace.as_user(|| fs::set_permissions(at("changed"), mode).unwrap());
        for times in 1..=3 {
            kill(&workspace, mounted.path());
            for file in [&mut read_only, &mut changed] {
                file.write_all(b"x").unwrap();
                file.seek(SeekFrom::Start(0)).unwrap();
                let mut read = String::new();
                file.read_to_string(&mut read).unwrap();
                assert_eq!(read, "x".repeat(times), "{how:?}");
            }
        }
    }
}

#[test]
fn a_file_that_was_looked_up_and_not_opened_can_be_used() {
    for how in HOWS {
        let workspace = workspace(how);
        let mounted = mount(&workspace, how);
        let at = |name: &str| mounted.path().join(name);
        workspace.as_user(|| {
            for name in ["one", "two"] {
                fs::write(at(name), name).unwrap();
                symlink(name, at(&format!("link-{name}"))).unwrap();
            }
        });
        // So that the kernel knows nothing of them, and the process has not recorded them.
        drop_caches();
        let opened = ["one", "two"].map(|name| {
            let flags = OFlags::PATH | OFlags::CLOEXEC;
            workspace.as_user(|| rustix::fs::open(at(name), flags, Mode::empty()).unwrap())
        });
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let link =
            workspace.as_user(|| rustix::fs::open(at("link-one"), flags, Mode::empty()).unwrap());
        for times in 1..=3 {
            kill(&workspace, mounted.path());
            workspace.as_user(|| {
                for (fd, name) in opened.iter().zip(["one", "two"]) {
                    assert_eq!(rustix::fs::fstat(fd).unwrap().st_size, 3);
                    let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
                    let mode = Mode::from_raw_mode(0o600 + times);
                    rustix::fs::chmod(&path, mode).unwrap();
                    let link = at(&format!("{name}-{times}"));
                    rustix::fs::linkat(CWD, &path, CWD, link, AtFlags::SYMLINK_FOLLOW).unwrap();
                    assert_eq!(fs::read_to_string(&path).unwrap(), name, "{how:?}");
                }
            });
            let target = rustix::fs::readlinkat(&link, "", Vec::new()).unwrap();
            assert_eq!(target.as_bytes(), b"one");
        }
    }
}

#[test]
fn a_removed_directory_can_be_used_by_who_is_in_it() {
    let workspace = workspace(HOWS[0]);
    let mounted = mount(&workspace, HOWS[0]);
    let dir = mounted.path().join("gone");
    fs::create_dir(&dir).unwrap();
    let opened = File::open(&dir).unwrap();
    fs::remove_dir(&dir).unwrap();
    kill(&workspace, mounted.path());
    let stat = rustix::fs::fstat(&opened).unwrap();
    assert_eq!(stat.st_nlink, 0);
    assert_eq!(
        rustix::fs::openat(
            &opened,
            "new",
            rustix::fs::OFlags::CREATE | rustix::fs::OFlags::WRONLY,
            rustix::fs::Mode::RWXU
        )
        .unwrap_err(),
        rustix::io::Errno::NOENT
    );
}

#[test]
fn a_process_goes_on_in_its_directory_and_with_a_mapped_file() {
    for how in HOWS {
        let workspace = workspace(how);
        let mounted = mount(&workspace, how);
        workspace.as_user(|| {
            let dir = mounted.path().join("deep/er");
            fs::create_dir_all(&dir).unwrap();
            fs::write(dir.join("mapped"), vec![b'a'; 100_000]).unwrap();
        });
        let script = "import mmap, os, sys
os.chdir(sys.argv[1])
with open('mapped', 'r+b') as file:
    memory = mmap.mmap(file.fileno(), 0)
os.rename('../er', '../renamed')
print('ready', flush=True)
sys.stdin.readline()
assert memory[99_999] == ord('a')
memory[50_000] = ord('b')
memory.flush()
open('new', 'w').write('made')
print(os.getcwd(), sorted(os.listdir('.')), flush=True)
";
        let mut child = workspace
            .command("/usr/bin/python3")
            .args(["-c", script])
            .arg(mounted.path().join("deep/er"))
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut output = child.stdout.take().unwrap();
        let mut ready = [0; 6];
        output.read_exact(&mut ready).unwrap();
        kill(&workspace, mounted.path());
        kill(&workspace, mounted.path());
        child.stdin.take().unwrap().write_all(b"\n").unwrap();
        let mut said = String::new();
        output.read_to_string(&mut said).unwrap();
        assert!(child.wait().unwrap().success(), "{how:?}: {said}");
        assert!(
            said.contains("deep/renamed ['mapped', 'new']"),
            "{how:?}: {said}"
        );
        let mapped = fs::read(workspace.primary().join("deep/renamed/mapped"));
        let mapped = match how {
            How::Elsewhere => mapped.unwrap(),
            _ => {
                workspace.as_user(|| fs::read(mounted.path().join("deep/renamed/mapped")).unwrap())
            }
        };
        assert_eq!((mapped[50_000], mapped[50_001]), (b'b', b'a'), "{how:?}");
    }
}

#[test]
fn files_of_an_archived_job_stay_open_while_it_is_recovered() {
    let workspace = workspace(HOWS[0]);
    let mounted = mount(&workspace, HOWS[0]);
    let job = mounted.job(TASK, "backup-1");
    let name = fs::read_dir(&job)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.is_file())
        .unwrap();
    let before = fs::read(&name).unwrap();
    let mut archived = File::open(&name).unwrap();
    let mut appended = OpenOptions::new()
        .create(true)
        .append(true)
        .open(job.join("added"))
        .unwrap();
    kill(&workspace, mounted.path());
    appended.write_all(b"more").unwrap();
    let mut read = Vec::new();
    archived.read_to_end(&mut read).unwrap();
    assert_eq!(read, before);
    assert_eq!(fs::read(job.join("added")).unwrap(), b"more");
    assert_eq!(mounted.location(&job), "primary");
    run(workspace
        .xpmfs()
        .args(["jobs", "where", "-w", "test"])
        .arg(format!("{TASK}/backup-1")));
}
