//! A folder on a small disk: the jobs that fit are archived, also after one that does not; that one waits, and `status` says why.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common::{Workspace, fails, is_root, run};
use crate::job::{self, hash};
use crate::stage::{has_all, told, until};

/// A disk in memory in place of a directory.
struct Disk(PathBuf);

impl Disk {
    fn new(place: &Path, size: &str) -> Disk {
        let option = format!("size={size}");
        run(Command::new("mount")
            .args(["-t", "tmpfs", "-o", &option, "xpmfs-test"])
            .arg(place));
        Disk(place.to_owned())
    }

    fn resize(&self, size: &str) {
        let option = format!("remount,size={size}");
        run(Command::new("mount").args(["-o", &option]).arg(&self.0));
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn what_fits_is_archived_and_the_rest_waits_with_the_reason() {
    if !is_root() {
        return;
    }
    let workspace = Workspace::new();
    workspace.with_folders(&["backup"]);
    workspace.tune("{settle: 100ms, scan_interval: 1h}");
    let folder = workspace.folder("backup");
    let disk = Disk::new(&folder, "4m");
    fs::create_dir_all(folder.join("jobs")).unwrap();
    let large = |number: usize| {
        job::make_and_tell(&workspace.primary(), number, |at| {
            fs::write(at.join("large"), vec![b'a'; 8 << 20]).unwrap();
        });
    };
    (0..3).for_each(large);
    (3..8).for_each(|number| job::make(&workspace.primary(), number));
    let mountpoint = workspace.mountpoint("elsewhere");
    let mounted = workspace.mount_archiving(&mountpoint, &[]);
    until("those that fit are archived", || has_all(&folder, 3..8));
    until("status says why the others wait", || {
        let text = told(&workspace, &mountpoint);
        (0..3).all(|number| {
            let mut lines = text.lines().filter(|line| line.contains(&hash(number)));
            lines.any(|line| line.contains("no space: ") && line.contains("retrying in "))
        })
    });
    // Those that do not fit are ever more rarely tried, and come after others.
    for number in 8..11 {
        job::make(&mountpoint, number);
        until("a job that fits is archived", || {
            has_all(&folder, number..number + 1)
        });
    }
    let output = fails(
        workspace
            .xpmfs()
            .args(["umount", "--drain"])
            .arg(&mountpoint),
    );
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(
        text.contains("3 finished jobs cannot be archived now"),
        "{text}"
    );
    assert!(text.contains("no space: "), "{text}");
    assert!(!workspace.log().contains("No space left on device"));
    disk.resize("64m");
    run(workspace
        .xpmfs()
        .args(["umount", "--drain"])
        .arg(&mountpoint));
    assert!(has_all(&folder, 0..11));
    drop(mounted);
}
