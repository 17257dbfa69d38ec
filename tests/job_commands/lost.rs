//! Jobs that a purge has taken are brought back, and what could not be looked at is told.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use super::common::is_root;
use super::full_disks::Disk;
use super::others::{assert_trees, small_jobs, trees};
use super::stage::{HASH, Stage, TASK, assert_tree, duplicate, said, whole, write_job};

fn summary(stage: &Stage, arguments: &[&str], code: i32) -> String {
    let output = stage.jobs(arguments);
    assert_eq!(output.status.code(), Some(code), "{}", said(&output));
    said(&output).lines().last().unwrap_or_default().to_owned()
}

fn at(stage: &Stage, hash: &str) -> std::path::PathBuf {
    stage.primary().join("jobs").join(TASK).join(hash)
}

#[test]
fn all_that_a_purge_took_is_given_back_at_once() {
    let stage = Stage::new(&["backup"]);
    let hashes = small_jobs(&stage, 40);
    let before = trees(&stage.primary(), &hashes);
    stage.archive();
    assert_eq!(
        summary(&stage, &["recover", "--all"], 0),
        "xpmfs: nothing to recover"
    );
    let (kept, purged) = hashes.split_at(10);
    for hash in purged {
        fs::remove_dir_all(at(&stage, hash)).unwrap();
    }
    fs::write(at(&stage, &kept[0]).join("train.out"), "newer").unwrap();
    let told = summary(&stage, &["recover", "--all"], 0);
    assert!(
        told.starts_with("xpmfs: 30 jobs recovered (210 files, "),
        "{told}"
    );
    assert_trees("the job", &before[10..], &stage.primary(), purged);
    let left = fs::read(at(&stage, &kept[0]).join("train.out")).unwrap();
    assert_eq!(left, b"newer", "what is there is left alone");
    // The whole disk was purged.
    fs::remove_dir_all(stage.primary().join("jobs")).unwrap();
    let told = summary(&stage, &["recover", "--all"], 0);
    assert!(told.starts_with("xpmfs: 40 jobs recovered"), "{told}");
    assert_trees("the job", &before, &stage.primary(), &hashes);
    stage.assert_clean();
}

#[test]
fn a_job_that_is_lost_for_good_is_named() {
    let stage = Stage::new(&["backup"]);
    let hashes = small_jobs(&stage, 3);
    stage.archive();
    fs::remove_dir_all(stage.primary().join("jobs")).unwrap();
    let copies = stage.folder("backup").join("jobs").join(TASK);
    fs::remove_dir_all(copies.join(&hashes[1])).unwrap();
    for summary in [
        "xpmfs: 2 jobs recovered",
        "xpmfs: nothing recovered: 1 failed",
    ] {
        let output = stage.jobs(&["recover", "--all"]);
        let said = said(&output);
        assert_eq!(output.status.code(), Some(1), "{said}");
        let named = |line: &str| line.contains(&hashes[1]) && line.contains("no folder has it");
        assert!(said.lines().any(named), "{said}");
        assert!(said.lines().last().unwrap().starts_with(summary), "{said}");
    }
    stage.assert_clean();
}

#[test]
fn what_was_moved_or_is_a_colleagues_is_not_among_all() {
    let stage = Stage::new(&["use", "backup", "move"]);
    let hashes = small_jobs(&stage, 4);
    let before = trees(&stage.primary(), &hashes);
    let of = |mode: &str, hash: &str| stage.folder(mode).join("jobs").join(TASK).join(hash);
    for (mode, hash) in [
        ("use", 0),
        ("backup", 1),
        ("backup", 2),
        ("move", 2),
        ("move", 3),
    ] {
        let to = of(mode, &hashes[hash]);
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        duplicate(&at(&stage, &hashes[hash]), &to);
    }
    let there = || -> Vec<usize> {
        let is_there = |number: &usize| at(&stage, &hashes[*number]).exists();
        (0..4).filter(is_there).collect()
    };
    fs::remove_dir_all(stage.primary().join("jobs")).unwrap();
    summary(&stage, &["recover", "--all"], 0);
    assert_eq!(there(), [1]);
    let folder = |mode: &str| stage.folder(mode).to_str().unwrap().to_owned();
    summary(&stage, &["recover", "--all", "--from", &folder("use")], 0);
    assert_eq!(there(), [0, 1]);
    summary(&stage, &["recover", "--all", "--from", &folder("move")], 0);
    assert_eq!(there(), [0, 1, 2, 3]);
    assert_trees("the job", &before, &stage.primary(), &hashes);
    stage.assert_clean();
}

#[test]
fn a_folder_that_is_away_is_told_and_others_give_what_they_have() {
    let stage = Stage::new(&["backup", "move"]);
    write_job(&stage.job());
    let job = whole(&stage.job()).unwrap();
    let backup = stage.folder("backup");
    let copy = stage.archived("backup");
    fs::create_dir_all(copy.parent().unwrap()).unwrap();
    duplicate(&stage.job(), &copy);
    fs::remove_dir_all(stage.job()).unwrap();
    // Whether it has been moved, is not known.
    let away = stage.top().join("away");
    fs::rename(stage.folder("move"), &away).unwrap();
    let output = stage.jobs(&["recover", "--all"]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    let place = stage.folder("move");
    assert!(said(&output).contains(place.to_str().unwrap()));
    assert!(!stage.job().exists());
    fs::rename(&away, place).unwrap();
    // A task that is no directory, and one of which nothing is known.
    fs::rename(backup.join("jobs").join(TASK), backup.join("elsewhere")).unwrap();
    symlink("../elsewhere", backup.join("jobs").join(TASK)).unwrap();
    fs::write(backup.join("jobs/notes"), "mine").unwrap();
    for command in ["recover", "verify"] {
        let output = stage.jobs(&[command, "--all"]);
        let told = said(&output);
        assert_eq!(output.status.code(), Some(1), "{command}: {told}");
        let why = format!("jobs/{TASK} is a symlink, and jobs behind it are skipped");
        assert!(
            told.contains(&why) && !told.contains("notes"),
            "{command}: {told}"
        );
    }
    fs::remove_file(backup.join("jobs/notes")).unwrap();
    fs::remove_file(backup.join("jobs").join(TASK)).unwrap();
    fs::rename(backup.join("elsewhere"), backup.join("jobs").join(TASK)).unwrap();
    summary(&stage, &["recover", "--all"], 0);
    assert_tree("the job", &job, whole(&stage.job()).as_ref());
    stage.assert_clean();
}

/// The large one does not fit, which is known before anything is copied.
#[test]
fn what_there_is_no_space_for_is_told_and_the_rest_comes_back() {
    if !is_root() {
        return;
    }
    let stage = Stage::on_disk(&["backup"]);
    write_job(&stage.job());
    fs::write(stage.job().join("large"), vec![3; 12 << 20]).unwrap();
    let hashes = small_jobs(&stage, 5);
    let before = trees(&stage.primary(), &hashes);
    let large = whole(&stage.job()).unwrap();
    stage.archive();
    fs::remove_dir_all(stage.primary().join("jobs")).unwrap();
    let disk = Disk::memory(&stage.primary(), "size=8m");
    let output = stage.jobs(&["recover", "--all"]);
    let told = said(&output);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains(&format!("{HASH}: ")), "{told}");
    assert!(
        told.contains("no space: ") && told.contains("are free"),
        "{told}"
    );
    assert!(told.ends_with(": 1 failed\n"), "{told}");
    assert_trees("the job", &before, &stage.primary(), &hashes);
    assert!(!stage.job().exists());
    stage.assert_clean();
    disk.again("size=64m");
    summary(&stage, &["recover", "--all"], 0);
    assert_tree("the large one", &large, whole(&stage.job()).as_ref());
    assert!(Path::new(&stage.archived("backup")).exists());
}

/// A node that has listed the folder before a deletion may record the list afterwards.
#[test]
fn a_deleted_job_that_is_on_record_again_is_not_lost() {
    let stage = Stage::new(&["backup"]);
    let hashes = small_jobs(&stage, 3);
    stage.archive();
    let known = stage.primary().join(".xpmfs/archive/known");
    let mut folders = fs::read_dir(known).unwrap();
    let record = folders.next().unwrap().unwrap().path().join(TASK);
    let before = fs::read(&record).unwrap();
    let deleted = stage.jobs(&["delete", "--yes", &hashes[1]]);
    assert!(deleted.status.success(), "{}", said(&deleted));
    assert_ne!(fs::read(&record).unwrap(), before);
    fs::write(&record, &before).unwrap();
    stage.verify_all();
    // One that was lost is on the same record.
    let copies = stage.folder("backup").join("jobs").join(TASK);
    fs::remove_dir_all(copies.join(&hashes[2])).unwrap();
    let output = stage.jobs(&["verify", "--all"]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        text.contains(&hashes[2]) && text.contains("MISSING"),
        "{text}"
    );
    assert!(!text.contains(&hashes[1]), "{text}");
}

#[test]
fn a_copy_that_has_vanished_is_told_by_verify() {
    let stage = Stage::new(&["backup"]);
    let hashes = small_jobs(&stage, 3);
    stage.archive();
    let copies = stage.folder("backup").join("jobs").join(TASK);
    fs::remove_dir_all(copies.join(&hashes[1])).unwrap();
    for named in [&hashes[1][..], "--all"] {
        let output = stage.jobs(&["verify", named]);
        let text = String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(1), "{text}");
        let told = format!("{TASK}/{} in backup:", hashes[1]);
        let line = text.lines().find(|line| line.starts_with(&told));
        assert!(
            line.unwrap()
                .contains(": MISSING: the manifest is there, the copy is not"),
            "{text}"
        );
    }
    let quiet = stage.jobs(&["verify", "--all", "-q"]);
    let text = String::from_utf8_lossy(&quiet.stdout).into_owned();
    assert!(text.lines().count() == 1 && text.contains("MISSING"));
    let last = said(&stage.jobs(&["verify", "--all"]));
    assert!(
        last.starts_with("xpmfs: 2 copies OK, 0 damaged, 1 missing ("),
        "{last}"
    );
    let status = || {
        let output = stage
            .xpmfs()
            .args(["status", "-w", "test"])
            .output()
            .unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    assert!(status().contains("1 copy is damaged or missing"));
    // Without its manifest, it is still on record.
    let manifest = Path::new(".xpmfs/manifests")
        .join(TASK)
        .join(format!("{}.json", hashes[1]));
    fs::remove_file(stage.folder("backup").join(manifest)).unwrap();
    let text = String::from_utf8(stage.jobs(&["verify", "--all"]).stdout).unwrap();
    assert!(
        text.contains(": MISSING: the folder had the copy before"),
        "{text}"
    );
    assert!(
        status().contains("1 copy is damaged or missing"),
        "{}",
        status()
    );
    stage.archive();
    stage.verify_all();
    assert!(!status().contains("missing"), "{}", status());
}
