//! Copies of moved jobs that are damaged or missing are made anew, and each command says how.

use std::fs::{self, File, FileTimes};
use std::path::Path;

use super::common::is_root;
use super::full_disks::Disk;
use super::stage::{HASH, Stage, TASK, assert_tree, job_id, said, whole, write_job};

/// Changes a byte, and keeps size and time.
fn corrupt(file: &Path) {
    let time = fs::metadata(file).unwrap().modified().unwrap();
    let mut bytes = fs::read(file).unwrap();
    bytes[0] ^= 1;
    fs::write(file, bytes).unwrap();
    let file = File::options().write(true).open(file).unwrap();
    file.set_times(FileTimes::new().set_modified(time)).unwrap();
}

/// `jobs …`, which must end with this status; all that it printed.
fn jobs(stage: &Stage, arguments: &[&str], code: i32) -> String {
    let output = stage.jobs(arguments);
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &said(&output);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {text}");
    text
}

fn expect(text: &str, part: &str) {
    let part = part.replace("JOB", &job_id());
    assert!(text.contains(&part), "{part}, not {text}");
}

const FORCE: &str =
    "`xpmfs jobs archive --force JOB` copies it again from the folder that the job was moved to";

#[test]
fn a_backup_of_a_moved_job_is_made_anew_by_force() {
    let stage = Stage::new(&["backup", "move"]);
    write_job(&stage.job());
    let tree = whole(&stage.job()).unwrap();
    stage.archive();
    // Nothing is wrong: nothing is copied.
    let text = jobs(&stage, &["archive", "--force", &job_id()], 0);
    expect(&text, "nothing to copy: 1 up to date");

    corrupt(&stage.archived("backup").join("params.json"));
    expect(&jobs(&stage, &["verify", "--all"], 1), FORCE);
    let status = stage.xpmfs().args(["status", "-w", "test"]).output();
    let status = String::from_utf8(status.unwrap().stdout).unwrap();
    expect(&status, "archive: 1 copy is damaged or missing");
    expect(&status, FORCE);
    let text = jobs(&stage, &["archive", "--force", &job_id()], 0);
    expect(&text, "1 copy made");
    stage.verify();
    assert_tree("the copy", &tree, whole(&stage.archived("backup")).as_ref());
    let status = stage.xpmfs().args(["status", "-w", "test"]).output();
    let status = String::from_utf8(status.unwrap().stdout).unwrap();
    assert!(!status.contains("damaged"), "{status}");

    fs::remove_dir_all(stage.archived("backup")).unwrap();
    let text = jobs(&stage, &["verify", "--all"], 1);
    expect(&text, "MISSING");
    expect(&text, FORCE);
    jobs(&stage, &["archive", "--force", "--all"], 0);
    stage.verify();
    assert_tree("the copy", &tree, whole(&stage.archived("backup")).as_ref());
    stage.assert_clean();
}

#[test]
fn a_backup_is_not_made_from_a_damaged_copy() {
    let stage = Stage::new(&["backup", "move"]);
    write_job(&stage.job());
    stage.archive();
    corrupt(&stage.archived("move").join("params.json"));
    fs::remove_dir_all(stage.archived("backup")).unwrap();
    let text = jobs(&stage, &["archive", "--force", &job_id()], 1);
    expect(&text, "it is damaged: params.json has another content");
    assert!(!stage.archived("backup").exists());
    fs::remove_file(
        stage
            .folder("move")
            .join(format!(".xpmfs/manifests/{TASK}/{HASH}.json")),
    )
    .unwrap();
    let text = jobs(&stage, &["archive", "--force", &job_id()], 1);
    expect(&text, "has no manifest, and is not what the manifest in");
    expect(&text, "params.json has another content");
    assert!(!stage.archived("backup").exists());
    stage.assert_clean();
}

/// As experimaestro's own archiving leaves a job: moved, without a manifest, and without the backup.
#[test]
fn a_job_that_another_program_moved_is_backed_up() {
    let stage = Stage::new(&["backup", "move"]);
    let copy = stage.archived("move");
    write_job(&copy);
    let tree = whole(&copy).unwrap();
    fs::create_dir_all(stage.job().parent().unwrap()).unwrap();
    std::os::unix::fs::symlink(&copy, stage.job()).unwrap();
    let text = jobs(&stage, &["archive", &job_id()], 0);
    expect(&text, "1 copy made");
    assert_tree("the copy", &tree, whole(&stage.archived("backup")).as_ref());
    assert_tree("the source", &tree, whole(&copy).as_ref());
    stage.verify();
    let text = jobs(&stage, &["archive", "--all"], 0);
    expect(&text, "nothing to copy");
    stage.assert_clean();
}

#[test]
fn the_damaged_copy_of_a_move_folder_is_made_anew_as_the_advice_says() {
    let stage = Stage::new(&["backup", "move"]);
    write_job(&stage.job());
    let tree = whole(&stage.job()).unwrap();
    stage.archive();
    corrupt(&stage.archived("move").join("params.json"));
    let recover = "`xpmfs jobs recover JOB` brings the job back";
    expect(&jobs(&stage, &["verify", "--all"], 1), recover);
    let text = jobs(&stage, &["archive", "--force", &job_id()], 1);
    expect(&text, recover);
    jobs(&stage, &["recover", &job_id()], 0);
    jobs(&stage, &["archive", "--force", &job_id()], 0);
    stage.verify();
    assert!(stage.job().is_symlink());
    for mode in ["backup", "move"] {
        assert_tree(mode, &tree, whole(&stage.archived(mode)).as_ref());
    }
}

#[test]
fn the_advice_for_a_job_that_the_workspace_lost_is_to_recover_it() {
    let stage = Stage::new(&["backup"]);
    write_job(&stage.job());
    stage.archive();
    corrupt(&stage.archived("backup").join("params.json"));
    let text = jobs(&stage, &["verify", "--all"], 1);
    expect(
        &text,
        "`xpmfs jobs archive --force JOB` copies it again from the workspace",
    );
    fs::remove_dir_all(stage.job()).unwrap();
    let text = jobs(&stage, &["verify", "--all"], 1);
    expect(&text, "`xpmfs jobs recover JOB` brings the job back");
}

#[test]
fn what_a_read_only_disk_has_already_is_up_to_date() {
    if !is_root() {
        return;
    }
    let stage = Stage::new(&["backup"]);
    let disk = Disk::memory(&stage.folder("backup"), "size=16m");
    write_job(&stage.job());
    stage.archive();
    disk.again("ro");
    let text = jobs(&stage, &["archive", "--all"], 0);
    expect(&text, "nothing to copy: 1 up to date");
    fs::write(stage.job().join("notes.txt"), "new").unwrap();
    let text = jobs(&stage, &["archive", "--all"], 1);
    expect(&text, "mount it to be written");
    fs::remove_file(stage.job().join("notes.txt")).unwrap();
    // A copy that is not whole does not count.
    disk.again("rw");
    fs::remove_file(stage.archived("backup").join("uv.lock")).unwrap();
    disk.again("ro");
    let text = jobs(&stage, &["archive", "--all"], 1);
    expect(&text, "mount it to be written");
}
