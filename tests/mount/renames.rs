//! `renameat2` with all its flags, as on a disk.

use std::fs;

use rustix::fs::{CWD, RenameFlags};
use rustix::io::Errno;

use crate::TASK;
use crate::common::{Workspace, names};

#[test]
fn a_directory_becomes_a_job_by_being_moved_into_its_place_and_back() {
    let workspace = Workspace::new();
    workspace.finished("backup", TASK, "archived");
    let mounted = workspace.mount_in_place();
    let staging = mounted.path().join(".xpm-staging/1234");
    fs::create_dir_all(staging.join("deep/er")).unwrap();
    fs::write(staging.join("deep/er/file"), "contents").unwrap();
    let job = mounted.job(TASK, "new");
    fs::rename(&staging, &job).unwrap();
    assert_eq!(fs::read(job.join("deep/er/file")).unwrap(), b"contents");
    fs::write(job.join("deep/er/more"), "more").unwrap();
    assert_eq!(names(job.parent().unwrap()), ["archived", "new"]);
    // A whole task, too, as long as no folder has jobs of it.
    let other = mounted.path().join("jobs/other.task");
    fs::create_dir(&other).unwrap();
    fs::rename(&job, other.join("new")).unwrap();
    let kept = mounted.path().join("kept");
    fs::rename(&other, &kept).unwrap();
    assert_eq!(fs::read(kept.join("new/deep/er/more")).unwrap(), b"more");
    fs::write(kept.join("new/deep/er/last"), "last").unwrap();
    fs::rename(&kept, &other).unwrap();
    assert_eq!(fs::read(other.join("new/deep/er/last")).unwrap(), b"last");
    let task = mounted.path().join("jobs").join(TASK);
    let refused = fs::rename(&task, mounted.path().join("away")).unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(libc::EROFS));
    let refused = fs::rename(mounted.path().join("jobs"), mounted.path().join("away"));
    assert_eq!(refused.unwrap_err().raw_os_error(), Some(libc::EBUSY));
}

#[test]
fn renames_replace_refuse_or_exchange() {
    let workspace = Workspace::new();
    let mounted = workspace.mount_in_place();
    let (a, b) = (mounted.path().join("a"), mounted.path().join("b"));
    fs::write(&a, "a").unwrap();
    fs::write(&b, "b").unwrap();
    let rename = |flags| rustix::fs::renameat_with(CWD, &a, CWD, &b, flags);
    assert_eq!(rename(RenameFlags::NOREPLACE), Err(Errno::EXIST));
    rename(RenameFlags::EXCHANGE).unwrap();
    assert_eq!(fs::read(&a).unwrap(), b"b");
    assert_eq!(fs::read(&b).unwrap(), b"a");
    rename(RenameFlags::empty()).unwrap();
    assert_eq!(fs::read(&b).unwrap(), b"b");
    assert!(!a.exists());
    let (c, d) = (mounted.path().join("c"), mounted.path().join("d"));
    fs::create_dir_all(c.join("in-c")).unwrap();
    fs::create_dir_all(d.join("in-d")).unwrap();
    rustix::fs::renameat_with(CWD, &c, CWD, &d, RenameFlags::EXCHANGE).unwrap();
    assert!(c.join("in-d").is_dir());
    assert!(d.join("in-c").is_dir());
}
