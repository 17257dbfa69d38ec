//! What is moved is what every backup holds, with all its attributes.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rustix::fs::XattrFlags;

use super::common::eventually;
use super::stage::{Stage, assert_tree, job_id, said, whole, write_job};

#[test]
fn what_changes_between_its_backup_and_its_move_is_backed_up_again() {
    let stage = Stage::on_disk(&["backup", "move"]);
    write_job(&stage.job());
    let model = stage.job().join("data/model.bin");
    let mut writer = OpenOptions::new().append(true).open(model).unwrap();
    let mut archive = stage.by_one_thread("archive", &[]).spawn().unwrap();
    // It is not moved as long as it is open.
    eventually("it is backed up", || stage.archived("backup").exists());
    eventually("it is on its way", || stage.archived("move").exists());
    writer.write_all(b"late").unwrap();
    drop(writer);
    let job = whole(&stage.job()).unwrap();
    assert!(archive.wait().unwrap().success());
    assert!(stage.job().is_symlink());
    for mode in stage.modes() {
        assert_tree(mode, &job, whole(&stage.archived(mode)).as_ref());
    }
    stage.verify();
    stage.assert_clean();
}

#[test]
fn a_job_whose_backup_has_vanished_is_backed_up_again_before_it_is_moved() {
    let stage = Stage::on_disk(&["backup", "move"]);
    write_job(&stage.job());
    let job = whole(&stage.job()).unwrap();
    let model = stage.job().join("data/model.bin");
    let writer = OpenOptions::new().append(true).open(model).unwrap();
    let mut archive = stage.by_one_thread("archive", &[]).spawn().unwrap();
    eventually("it is backed up", || stage.archived("backup").exists());
    eventually("it is on its way", || stage.archived("move").exists());
    fs::remove_dir_all(stage.archived("backup")).unwrap();
    drop(writer);
    assert!(archive.wait().unwrap().success());
    assert!(stage.job().is_symlink());
    for mode in stage.modes() {
        assert_tree(mode, &job, whole(&stage.archived(mode)).as_ref());
    }
    stage.verify();
    stage.assert_clean();
}

#[test]
fn modes_and_attributes_are_not_lost_when_a_job_is_moved_again() {
    let stage = Stage::on_disk(&["move"]);
    write_job(&stage.job());
    stage.archive();
    let set = |path: &Path, mode| fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    let changes: [&dyn Fn(&Path); 4] = [
        &|job| set(&job.join("train.out"), 0o600),
        &|job| set(&job.join("data"), 0o700),
        &|job| set(job, 0o700),
        &|job| {
            let (model, flags) = (job.join("data/model.bin"), XattrFlags::empty());
            rustix::fs::setxattr(model, "user.important", b"x", flags).unwrap();
        },
    ];
    for change in changes {
        assert!(stage.jobs(&["recover", &job_id()]).status.success());
        change(&stage.job());
        let job = whole(&stage.job()).unwrap();
        let output = stage.jobs(&["archive", &job_id()]);
        assert!(output.status.success(), "{}", said(&output));
        assert!(stage.job().is_symlink());
        assert_tree("the copy", &job, whole(&stage.archived("move")).as_ref());
        stage.verify();
        stage.assert_clean();
    }
    // Of what has not changed, no new copy is made.
    assert!(stage.jobs(&["recover", &job_id()]).status.success());
    let output = stage.jobs(&["archive", &job_id()]);
    let told = said(&output);
    assert!(told.contains("nothing to copy: 1 up to date"), "{told}");
    assert!(stage.job().is_symlink());
}

/// Neither its size nor its time tells: it is not moved, and that is said.
#[test]
fn a_change_that_hides_is_not_given_up() {
    let stage = Stage::on_disk(&["backup", "move"]);
    write_job(&stage.job());
    stage.archive();
    assert!(stage.jobs(&["recover", &job_id()]).status.success());
    let path = stage.job().join("train.out");
    let time = fs::metadata(&path).unwrap().modified().unwrap();
    let mut bytes = fs::read(&path).unwrap();
    bytes[0] ^= 1;
    fs::write(&path, &bytes).unwrap();
    File::options()
        .append(true)
        .open(&path)
        .unwrap()
        .set_modified(time)
        .unwrap();
    let output = stage.jobs(&["archive", &job_id()]);
    let told = said(&output);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("has another content"), "{told}");
    assert!(!stage.job().is_symlink() && fs::read(&path).unwrap() == bytes);
    let output = stage.jobs(&["archive", "--force", &job_id()]);
    assert!(output.status.success(), "{}", said(&output));
    assert!(stage.job().is_symlink());
    for mode in stage.modes() {
        assert_eq!(
            fs::read(stage.archived(mode).join("train.out")).unwrap(),
            bytes
        );
    }
    stage.verify();
}
