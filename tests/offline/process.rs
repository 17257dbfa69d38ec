//! A process that hangs in the kernel, with its memory locked: `/proc/PID/maps` cannot be read.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use xpmfs::sys::deadline::{wait_until, within};

use crate::common::hanging_fs::HangingFs;
use crate::common::{self, Workspace, run};
use crate::stage::{TASK, until};

/// Changes a page of a mapped file, and maps something else in its place: the kernel writes the page first.
const PROGRAM: &str = r#"
import ctypes, mmap, os, sys
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
fd = os.open(sys.argv[1], os.O_RDWR)
at = libc.mmap(None, 4096, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_SHARED, fd, 0)
ctypes.memset(at, 1, 1)
MAP_FIXED = 0x10
libc.mmap(at, 4096, mmap.PROT_READ, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_FIXED, -1, 0)
"#;

struct Hanging(Child);

impl Hanging {
    fn start(folder: &HangingFs) -> Hanging {
        folder.hold(|operation, _| operation == "write");
        let mut python = Command::new("/usr/bin/python3");
        python.args(["-c", PROGRAM]).arg(folder.at.join("file"));
        let process = Hanging(python.stdin(Stdio::null()).spawn().unwrap());
        until("the process hangs", || folder.parked() > 0);
        let maps = format!("/proc/{}/maps", process.0.id());
        let hangs = || {
            within(Duration::from_millis(500), {
                let maps = maps.clone();
                move || fs::read(maps)
            })
            .is_none()
        };
        assert!(hangs(), "its memory map can be read");
        process
    }
}

impl Drop for Hanging {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A job that is archived with a manifest.
fn archived(workspace: &Workspace) -> String {
    let job = workspace.finished("primary", TASK, "job");
    fs::write(job.join("model.bin"), "model").unwrap();
    run(workspace
        .xpmfs()
        .args(["jobs", "archive", "--all", "-w", "test"]));
    format!("{TASK}/job")
}

/// A mount that is in use cannot be unmounted, and the processes that use it are named.
#[test]
fn a_busy_mount_is_reported_while_a_process_cannot_be_looked_at() {
    if !common::is_root() {
        return;
    }
    let workspace = Workspace::builder().folders(&["backup"]).build();
    let mountpoint = workspace.mountpoint("elsewhere");
    let mounted = workspace.mount_at(&mountpoint);
    let disk = workspace.top().join("disk");
    fs::create_dir(&disk).unwrap();
    fs::write(disk.join("file"), vec![0; 4096]).unwrap();
    let folder = HangingFs::mount_writable(&disk, &workspace.top().join("hangs"));
    let hanging = Hanging::start(&folder);
    // Its id is larger than that of the process that hangs.
    let mut sleep = Command::new("sleep");
    let user = Hanging(sleep.arg("60").current_dir(&mountpoint).spawn().unwrap());
    let mut command = workspace.xpmfs();
    command.arg("umount").arg(&mountpoint).stdin(Stdio::null());
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    let ends = wait_until(crate::stage::PROMPT, || child.try_wait().unwrap().is_some());
    folder.go_on();
    let output = child.wait_with_output().unwrap();
    assert!(ends, "the command waits for the process");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("sleep"), "{text}");
    drop((user, hanging));
    mounted.unmount();
}

#[test]
fn no_job_is_released_while_a_process_cannot_be_looked_at() {
    if !common::is_root() {
        return;
    }
    let workspace = Workspace::builder()
        .folders(&["backup"])
        .keys("{settle: 0s}")
        .build();
    let job = archived(&workspace);
    let disk = workspace.top().join("disk");
    fs::create_dir(&disk).unwrap();
    fs::write(disk.join("file"), vec![0; 4096]).unwrap();
    let folder = HangingFs::mount_writable(&disk, &workspace.top().join("hangs"));
    let hanging = Hanging::start(&folder);
    let release = || {
        let mut command = workspace.xpmfs();
        command.args(["--json", "jobs", "release", "--yes", "-w", "test", &job]);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        command
    };
    let mut child = release().env("XPMFS_TEST_SCAN_MS", "1000").spawn().unwrap();
    let ends = wait_until(crate::stage::PROMPT, || child.try_wait().unwrap().is_some());
    folder.go_on();
    let output = child.wait_with_output().unwrap();
    assert!(ends, "the release waits for the process");
    let released: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(released.to_string().contains("busy"), "{released}");
    assert!(
        released.to_string().contains("could not be found out"),
        "{released}"
    );
    assert!(Path::new(&workspace.primary().join("jobs").join(&job)).is_dir());
    drop(hanging);
    // With the usual limit, since a process of another test may hang for a moment.
    let output = release().output().unwrap();
    assert!(output.status.success());
    assert!(!workspace.primary().join("jobs").join(&job).exists());
}
