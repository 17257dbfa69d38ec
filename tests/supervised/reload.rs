//! A mount goes on with another program.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::common::daemon::{Footprint, kill_worker};
use super::common::hanging_fs::HangingFs;
use super::common::{self, Workspace, eventually, is_mounted, run};
use super::killer::{child, processes, reload};
use super::{HOWS, TASK, mount, workspace};

/// A copy of the program, at another path.
fn copy(workspace: &Workspace, name: &str) -> PathBuf {
    let program = workspace.top().join(name);
    // By another process: see `Workspace::reachable`.
    run(Command::new("cp")
        .arg(env!("CARGO_BIN_EXE_xpmfs"))
        .arg(&program));
    workspace.give(&program);
    program
}

fn program_of(pid: i32) -> PathBuf {
    fs::read_link(format!("/proc/{pid}/exe")).unwrap()
}

/// Reloads with this program, and returns what it prints as JSON.
fn reload_with(workspace: &Workspace, program: &Path, mountpoint: &Path) -> Value {
    let mut command = workspace.command(program);
    let printed = run(command.args(["--json", "reload"]).arg(mountpoint));
    serde_json::from_str(&printed).unwrap()
}

#[test]
fn both_processes_run_the_new_program_and_programs_notice_nothing() {
    for how in HOWS {
        let workspace = workspace(how);
        let mounted = mount(&workspace, how);
        let path = mounted.path().join("file");
        let (mut open, held, removed, other) = workspace.as_user(|| {
            fs::create_dir(mounted.path().join("deep")).unwrap();
            let mut open = File::options();
            let mut open = open
                .read(true)
                .write(true)
                .create(true)
                .truncate(true)
                .open(&path)
                .unwrap();
            open.write_all(b"before ").unwrap();
            let held = File::create(mounted.path().join("lock")).unwrap();
            flock(&held, FlockOperation::LockExclusive).unwrap();
            let removed = mounted.path().join("removed");
            fs::write(&removed, "no name").unwrap();
            let file = File::open(&removed).unwrap();
            fs::remove_file(&removed).unwrap();
            (
                open,
                held,
                file,
                File::open(mounted.path().join("deep")).unwrap(),
            )
        });
        let (before, supervisor) = processes(&workspace, mounted.path());
        for number in 0..2 {
            let program = copy(&workspace, &format!("xpmfs-{number}"));
            let printed = reload_with(&workspace, &program, mounted.path());
            let (pid, same) = processes(&workspace, mounted.path());
            assert_eq!(same, supervisor, "{how:?}");
            assert_ne!(pid, before);
            assert_eq!(program_of(pid), program);
            assert_eq!(program_of(supervisor), program);
            let one = &printed[0];
            assert_eq!(one["result"], "reloaded");
            assert_eq!(one["pid"], pid);
            assert_eq!(one["supervisor"], supervisor);
            assert_eq!(one["mountpoint"], mounted.path().to_str().unwrap());
            assert_eq!(one["workspace"], "test");
            assert_eq!(one["version"], env!("CARGO_PKG_VERSION"));
            assert_eq!(one["previous_version"], env!("CARGO_PKG_VERSION"));
        }
        // It is the same mount for everything that is open.
        open.write_all(b"after").unwrap();
        open.seek(SeekFrom::Start(0)).unwrap();
        let mut text = String::new();
        open.read_to_string(&mut text).unwrap();
        assert_eq!(text, "before after");
        let mut text = String::new();
        { &removed }.read_to_string(&mut text).unwrap();
        assert_eq!(text, "no name");
        workspace.as_user(|| {
            let again = File::open(mounted.path().join("lock")).unwrap();
            flock(&again, FlockOperation::NonBlockingLockExclusive).unwrap_err();
            drop(held);
            flock(&again, FlockOperation::LockExclusive).unwrap();
            rustix::fs::openat(
                &other,
                "new",
                rustix::fs::OFlags::CREATE,
                rustix::fs::Mode::RWXU,
            )
            .unwrap();
            assert!(path.with_file_name("deep").join("new").exists());
        });
        // A worker that is killed is replaced by one of the new program.
        let (pid, _) = processes(&workspace, mounted.path());
        let program = program_of(pid);
        kill_worker(pid);
        assert_eq!(program_of(child(supervisor, pid)), program);
        drop((open, removed, other));
        mounted.unmount();
        eventually("both have ended", || {
            !Path::new(&format!("/proc/{supervisor}/exe")).exists()
        });
    }
}

#[test]
fn a_program_that_was_replaced_on_disk_is_used() {
    let workspace = workspace(HOWS[0]);
    let program = copy(&workspace, "xpmfs");
    let mut command = workspace.command(&program);
    command.arg("--settings").arg(workspace.settings());
    command.args(["mount", "-w", "test", "--no-archive", "--log"]);
    command.arg(workspace.top().join("xpmfs.log"));
    let mounted = workspace.mounting(&mut command, &workspace.primary());
    let (before, supervisor) = processes(&workspace, mounted.path());
    let upgraded = copy(&workspace, "xpmfs.new");
    fs::rename(upgraded, &program).unwrap();
    assert!(program_of(before).to_str().unwrap().ends_with("(deleted)"));
    // By the workspace, and not by the mount point.
    let mut command = workspace.command(&program);
    command.arg("--settings").arg(workspace.settings());
    let output = command.args(["reload", "-w", "test"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("goes on with xpmfs"), "{said}");
    let (pid, same) = processes(&workspace, mounted.path());
    assert_eq!(same, supervisor);
    assert_eq!([pid, same].map(program_of), [program.clone(), program]);
    assert!(workspace.log().contains("goes on with"));
}

#[test]
fn a_worker_that_is_stuck_in_the_kernel_delays_nothing() {
    let workspace = Workspace::new();
    let disk = workspace.top().join("disk");
    fs::create_dir_all(disk.join("jobs").join(TASK)).unwrap();
    common::write_job(&disk.join("jobs").join(TASK).join("job"), TASK);
    let folder = HangingFs::mount(&disk, &workspace.top().join("hangs"));
    workspace.attach("use", &workspace.top().join("hangs"));
    let mounted = mount(&workspace, HOWS[0]);
    let file = mounted.job(TASK, "job").join("model.bin");
    fs::metadata(&file).unwrap();
    folder.hold(|operation, _| operation == "read" || operation == "open");
    let reader = std::thread::spawn(move || fs::read(file));
    eventually("a thread waits for the folder", || folder.parked() > 0);
    let (before, supervisor) = processes(&workspace, mounted.path());
    let begun = Instant::now();
    reload(&workspace, mounted.path());
    assert!(
        begun.elapsed() < Duration::from_secs(8),
        "{:?}",
        begun.elapsed()
    );
    let (pid, same) = processes(&workspace, mounted.path());
    assert_ne!(pid, before);
    assert_eq!(same, supervisor);
    assert!(mounted.path().join("jobs").exists());
    folder.go_on();
    assert_eq!(reader.join().unwrap().unwrap().len(), 10_000);
    drop(mounted);
}

#[test]
fn a_job_that_is_being_archived_is_archived_after_a_reload() {
    let workspace = Workspace::builder()
        .folders(&["backup"])
        .keys("{settle: 0.1, bandwidth: 2MiB}")
        .build();
    let mounted = workspace.mount_archiving(&workspace.primary(), &[]);
    let job = mounted.job(TASK, "large");
    fs::create_dir_all(&job).unwrap();
    let data: Vec<u8> = (0..8_000_000_u32).map(|at| (at / 3) as u8).collect();
    fs::write(job.join("data"), &data).unwrap();
    fs::write(job.join("task.done"), "").unwrap();
    let task = workspace.folder("backup").join("jobs").join(TASK);
    eventually("a copy grows", || {
        let staged = task.join(".tmp.large/data");
        fs::metadata(staged).is_ok_and(|it| it.len() > 1_000_000)
    });
    for _ in 0..3 {
        reload(&workspace, mounted.path());
    }
    assert!(!task.join("large").exists());
    eventually("it is archived", || task.join("large/task.done").exists());
    assert_eq!(fs::read(task.join("large/data")).unwrap(), data);
    assert_eq!(fs::read(job.join("data")).unwrap(), data);
    run(workspace
        .xpmfs()
        .args(["jobs", "verify", "-w", "test"])
        .arg(format!("{TASK}/large")));
    eventually("nothing is left of the copies that were broken off", || {
        !task.join(".tmp.large").exists()
    });
}

#[test]
fn the_processes_do_not_grow() {
    let workspace = workspace(HOWS[0]);
    let mounted = mount(&workspace, HOWS[0]);
    let held = File::create(mounted.path().join("lock")).unwrap();
    flock(&held, FlockOperation::LockExclusive).unwrap();
    let replace = |times: usize| {
        for number in 0..times {
            run(Command::new("find").arg(mounted.path().join("jobs")));
            match number % 3 {
                0 => {
                    let (pid, supervisor) = processes(&workspace, mounted.path());
                    kill_worker(pid);
                    child(supervisor, pid);
                    fs::symlink_metadata(mounted.path().join(format!("no {number}"))).unwrap_err();
                }
                _ => reload(&workspace, mounted.path()),
            }
        }
        run(Command::new("find").arg(mounted.path().join("jobs")));
        let (pid, supervisor) = processes(&workspace, mounted.path());
        [pid, supervisor]
    };
    // The first ones make what is kept for good: the next process's record, its caches.
    let before = replace(6).map(Footprint::of);
    let after = replace(30);
    let names = ["worker", "supervisor"];
    eventually("they hold what they held before", || {
        let after = after.map(Footprint::of);
        std::iter::zip(before, after).all(|(before, after)| {
            after.descriptors <= before.descriptors
                && after.threads <= before.threads
                && after.kibibytes <= before.kibibytes + 4096
        })
    });
    for (name, (before, after)) in names
        .iter()
        .zip(std::iter::zip(before, after.map(Footprint::of)))
    {
        common::say(&format!("{name}: {before:?}, after 30: {after:?}"));
    }
}

#[test]
fn a_hangup_ends_no_mount_in_the_background_after_it_was_taken_over() {
    let workspace = workspace(HOWS[0]);
    let mounted = mount(&workspace, HOWS[0]);
    let (mut pid, supervisor) = processes(&workspace, mounted.path());
    for by_reload in [false, true] {
        match by_reload {
            true => reload(&workspace, mounted.path()),
            false => kill_worker(pid),
        }
        fs::metadata(mounted.path().join("jobs")).unwrap();
        pid = processes(&workspace, mounted.path()).0;
        kill_process(Pid::from_raw(supervisor).unwrap(), Signal::HUP).unwrap();
        kill_process(Pid::from_raw(pid).unwrap(), Signal::HUP).unwrap();
        // Handled after that.
        kill_process(Pid::from_raw(pid).unwrap(), Signal::USR1).unwrap();
        std::thread::sleep(Duration::from_millis(500));
        assert!(is_mounted(mounted.path()));
        assert_eq!(processes(&workspace, mounted.path()).0, pid);
    }
}

#[test]
fn in_the_foreground_the_service_manager_is_notified_again_by_the_same_process() {
    let workspace = workspace(HOWS[0]);
    let at = workspace.top().join("notify");
    let socket = std::os::unix::net::UnixDatagram::bind(&at).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(60)))
        .unwrap();
    let notified = || {
        let mut bytes = [0; 1000];
        let count = socket.recv(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes[..count]).into_owned()
    };
    let mut command = workspace.xpmfs();
    command
        .args(["mount", "-f", "-w", "test", "--no-archive"])
        .env("NOTIFY_SOCKET", &at);
    let mut daemon = command.stderr(std::process::Stdio::null()).spawn().unwrap();
    assert!(notified().contains("READY=1"));
    for _ in 0..2 {
        reload(&workspace, &workspace.primary());
        assert!(notified().contains("READY=1"));
        let (_, supervisor) = processes(&workspace, &workspace.primary());
        assert_eq!(u32::try_from(supervisor).unwrap(), daemon.id());
    }
    let pid = Pid::from_raw(i32::try_from(daemon.id()).unwrap()).unwrap();
    kill_process(pid, Signal::TERM).unwrap();
    assert!(daemon.wait().unwrap().success());
    assert!(!is_mounted(&workspace.primary()));
}
