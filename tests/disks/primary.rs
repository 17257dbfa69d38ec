//! A plan is run again over archived jobs, and jobs are archived and recovered, where the primary lies on FUSE.
//!
//! As NFS, CIFS and Lustre, FUSE has no files without a name (`O_TMPFILE`).

use std::fs;
use std::io::{Read, Seek, Write};
use std::path::PathBuf;
use std::process::Command;

use rustix::fs::{FlockOperation, flock};

use crate::common::program;
use crate::common::{Workspace, eventually, names, run, snapshot};

const TASK: &str = "my.module.train";

/// A directory that bindfs shows in place of itself; unmounted when it is dropped.
struct Disk(PathBuf);

impl Disk {
    fn bindfs(path: PathBuf) -> Disk {
        let beneath = path.with_file_name("beneath");
        fs::rename(&path, &beneath).unwrap();
        fs::create_dir(&path).unwrap();
        run(Command::new("bindfs").arg(&beneath).arg(&path));
        Disk(path)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("fusermount3").arg("-uz").arg(&self.0).output();
    }
}

#[test]
fn a_primary_on_fuse_takes_internal_files_of_archived_jobs() {
    if program("bindfs").is_none() {
        return;
    }
    let workspace = Workspace::builder().primary("disk/primary").build();
    workspace.tune("{settle: 1}");
    let used = workspace.finished("use", TASK, "used");
    fs::write(used.join("train.lock"), "").unwrap();
    fs::write(used.join("train.pid"), "1").unwrap();
    let own = workspace.finished("primary", TASK, "own");
    let before = snapshot(&workspace.folder("use"));
    let primary = workspace.primary();
    let _disk = Disk::bindfs(workspace.top().join("disk"));
    for at in [workspace.primary(), workspace.mountpoint("mnt")] {
        let mounted = workspace.mount_archiving(&at, &[]);
        let open = |name: &str| {
            let path = mounted.job(TASK, "used").join(name);
            let mut options = fs::OpenOptions::new();
            let file = options.read(true).write(true).create(true).open(&path);
            file.unwrap_or_else(|error| panic!("{}: {error}", path.display()))
        };
        flock(open("train.lock"), FlockOperation::NonBlockingLockExclusive).unwrap();
        let mut pid = open("train.pid");
        let mut contents = String::new();
        pid.read_to_string(&mut contents).unwrap();
        assert_eq!(contents, "1");
        pid.seek(std::io::SeekFrom::Start(0)).unwrap();
        pid.write_all(b"1").unwrap();
        drop(pid);
        eventually("the job is moved", || {
            mounted.location(format!("jobs/{TASK}/own")) != "primary"
        });
        mounted.unmount();
    }
    let internal = primary.join(".xpmfs/internal");
    assert_eq!(names(&internal), [TASK], "something staged is left");
    assert_eq!(
        names(&internal.join(TASK).join("used")),
        ["train.lock", "train.pid"]
    );
    assert_eq!(snapshot(&workspace.folder("use")), before);
    for command in [
        &["verify", "-w", "test", "--all"][..],
        &["recover", "-w", "test", "my.module.train/own"],
    ] {
        run(workspace.xpmfs().arg("jobs").args(command));
    }
    assert_eq!(fs::read(own.join("model.bin")).unwrap(), [7; 10_000]);
}
