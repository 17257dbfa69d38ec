//! What a program sees of a job that another node has just moved, within the time that names are cached for.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::symlink;
use std::process::Command;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::common::{Workspace, eventually, job, run};

#[test]
fn a_job_that_another_node_has_just_moved_is_changed() {
    let workspace = Workspace::builder().folders(&["move"]).build();
    let primary = workspace.primary().join(job::path(0));
    let archived = workspace.folder("move").join(job::path(0));
    fs::create_dir_all(archived.parent().unwrap()).unwrap();
    job::make(&workspace.primary(), 0);
    let mounted = workspace.mount_at(&workspace.mountpoint("elsewhere"));
    let file = mounted.path().join(job::path(0)).join("train.out");
    for round in 0..5 {
        // The kernel caches the names that lead to the primary.
        fs::metadata(&file).unwrap();
        run(Command::new("cp")
            .args(["-a"])
            .arg(&primary)
            .arg(archived.parent().unwrap()));
        fs::rename(&primary, workspace.top().join(format!("old-{round}"))).unwrap();
        symlink(&archived, &primary).unwrap();
        let mut opened = OpenOptions::new().append(true).open(&file).unwrap();
        opened.write_all(b"more\n").unwrap();
        drop(opened);
        let written = fs::read_to_string(primary.join("train.out")).unwrap();
        assert_eq!(written.matches("more\n").count(), round + 1);
        fs::remove_dir_all(&archived).unwrap();
    }
    mounted.unmount();
}

#[test]
fn the_lock_of_a_job_that_was_just_moved_is_not_free() {
    let workspace = Workspace::builder()
        .folders(&["move"])
        .keys("{settle: 50ms, scan_interval: 100ms}")
        .build();
    let primary = workspace.primary().join(job::path(0));
    job::make(&workspace.primary(), 0);
    fs::write(primary.join("train.lock"), "").unwrap();
    // As through a name that another node has cached.
    let lock = fs::File::open(primary.join("train.lock")).unwrap();
    let mounted = workspace.mount_archiving(&workspace.mountpoint("elsewhere"), &[]);
    eventually("it is moved", || primary.is_symlink());
    let locked = flock(&lock, FlockOperation::NonBlockingLockExclusive);
    assert_eq!(
        locked,
        Err(Errno::WOULDBLOCK),
        "a second program could lock it at its new place"
    );
    eventually("its old directory is removed", || {
        flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok()
    });
    mounted.unmount();
}
