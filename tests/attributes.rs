//! Attributes that change as a side effect: set-id bits that a write clears, times that a mapping changes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use common::{Workspace, run};

/// Gives a path a mode.
fn chmod(path: &std::path::Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn set_id_bits_that_the_disk_clears_are_gone_at_once() {
    if !crate::common::is_root() {
        return;
    }
    let workspace = Workspace::new();
    for path in [workspace.top(), workspace.primary()] {
        chmod(&path, 0o755);
    }
    let file = workspace.primary().join("program");
    fs::write(&file, [b'x'; 8192]).unwrap();
    // Old enough to be believed for longer than the test takes.
    run(Command::new("touch").args(["-d", "1 hour ago"]).arg(&file));
    let mounted = workspace.mount_with(&workspace.primary(), &["-o", "allow_other,suid"]);
    for write in [
        "dd of=$F if=/dev/zero bs=1 count=1 conv=notrunc status=none",
        "dd of=$F if=/dev/zero bs=4096 count=1 conv=notrunc oflag=direct status=none",
        "fallocate -o 0 -l 20000 $F",
        "fallocate -p -o 0 -l 4096 $F",
        "truncate -s 100 $F",
    ] {
        chmod(&file, 0o6777);
        let script = format!("stat -c %a $F; {write}; stat -c %a $F");
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
        command
            .args(["sh", "-c", &script])
            .env("F", &file)
            .current_dir("/");
        assert_eq!(run(&mut command).trim(), "6777\n777", "{write}");
    }
    drop(mounted);
}

#[test]
fn an_access_control_list_of_an_owner_outside_the_group_clears_set_group_id() {
    if !crate::common::is_root() {
        return;
    }
    let workspace = Workspace::new();
    for path in [workspace.top(), workspace.primary()] {
        chmod(&path, 0o755);
    }
    let file = workspace.primary().join("file");
    fs::write(&file, "x").unwrap();
    let mounted = workspace.mount_with(&workspace.primary(), &["-o", "allow_other,suid"]);
    for (group, mode) in [("65534", "2775"), ("7", "775")] {
        std::os::unix::fs::chown(&file, Some(65534), Some(group.parse().unwrap())).unwrap();
        chmod(&file, 0o2755);
        let mut command = Command::new("setpriv");
        command.args([
            "--reuid=65534",
            "--regid=65534",
            "--clear-groups",
            "sh",
            "-c",
        ]);
        command
            .arg("setfacl -b $F; setfacl -m u:7:rwx $F; stat -c %a $F")
            .env("F", &file);
        assert_eq!(run(command.current_dir("/")).trim(), mode, "group {group}");
    }
    drop(mounted);
}

#[test]
fn a_mode_that_setfacl_changes_is_seen_at_once() {
    let workspace = Workspace::new();
    let file = workspace.primary().join("file");
    fs::write(&file, "x").unwrap();
    chmod(&file, 0o640);
    run(Command::new("touch").args(["-d", "1 hour ago"]).arg(&file));
    let mounted = workspace.mount_in_place();
    let script = "stat -c %a $F; setfacl -m g::rwx $F; stat -c %a $F";
    let mut command = Command::new("sh");
    command.args(["-c", script]).env("F", &file);
    assert_eq!(run(&mut command).trim(), "640\n670");
    drop(mounted);
}

#[test]
fn a_file_that_is_written_through_a_mapping_has_new_times_at_once() {
    let workspace = Workspace::new();
    let file = workspace.primary().join("file");
    fs::write(&file, [b'0'; 4096]).unwrap();
    run(Command::new("touch").args(["-d", "1 hour ago"]).arg(&file));
    let mounted = workspace.mount_in_place();
    let script = "
import mmap, os, sys
path = sys.argv[1]
before = os.stat(path).st_mtime_ns
with open(path, 'r+b') as file:
    mapped = mmap.mmap(file.fileno(), 4096)
    os.stat(path)
    mapped[0:4096] = b'1' * 4096
    mapped.flush()
    assert os.stat(path).st_mtime_ns > before, 'after msync'
    mapped.close()
assert os.stat(path).st_mtime_ns > before, 'after close'
";
    run(Command::new("python3").args(["-c", script]).arg(&file));
    drop(mounted);
}
