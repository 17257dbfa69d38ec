//! Deleting beside and beneath mounts: they show at once what has become of the job.

use std::fs;
use std::path::Path;

use super::{archived, assert_deleted, delete, undelete};
use crate::stage::{HASH, Stage, TASK, assert_tree, job_id, run_again, whole, write_job};

fn exists(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok()
}

/// Deletes and undeletes a job that the mounts have looked up, wherever it is served from.
fn shows_at_once(stage: &Stage, mountpoints: &[&Path], serves: &str) {
    let workspace = stage.workspace();
    let mounted: Vec<_> = mountpoints
        .iter()
        .map(|mountpoint| workspace.mount_archiving(mountpoint, &[]))
        .collect();
    for mount in &mounted {
        assert_eq!(mount.location(Path::new("jobs").join(job_id())), serves);
    }
    let jobs: Vec<_> = mounted.iter().map(|it| it.job(TASK, HASH)).collect();
    let files = || {
        jobs.iter()
            .map(|job| fs::read(job.join("data/model.bin")).unwrap())
    };
    let before: Vec<_> = files().collect();
    for _ in 0..2 {
        delete(stage);
        for job in &jobs {
            assert!(!exists(job), "{}", job.display());
            assert!(!exists(&job.join("train.done")));
            let names = fs::read_dir(job.parent().unwrap()).unwrap();
            assert!(
                names
                    .map(|it| it.unwrap().file_name())
                    .all(|name| name != HASH)
            );
        }
        undelete(stage);
        assert_eq!(files().collect::<Vec<_>>(), before);
        for mount in &mounted {
            assert_eq!(mount.location(Path::new("jobs").join(job_id())), serves);
        }
    }
    for mount in mounted {
        mount.unmount();
    }
    stage.verify();
}

#[test]
fn a_mount_in_place_shows_a_deleted_job_no_more() {
    let (stage, _) = archived(&["backup"]);
    shows_at_once(&stage, &[&stage.primary()], "primary");
}

#[test]
fn mounts_in_place_and_elsewhere_show_a_moved_job_no_more() {
    let (stage, _) = archived(&["move"]);
    let mountpoint = stage.workspace().mountpoint("mnt");
    shows_at_once(&stage, &[&mountpoint, &stage.primary()], "move");
}

#[test]
fn a_mount_shows_a_job_that_a_folder_serves_no_more() {
    let (stage, tree) = archived(&["backup"]);
    fs::remove_dir_all(stage.job()).unwrap();
    let mountpoint = stage.workspace().mountpoint("mnt");
    shows_at_once(&stage, &[&mountpoint], "backup");
    // A reader goes on.
    let mounted = stage.workspace().mount_archiving(&mountpoint, &[]);
    let file = fs::File::open(mounted.job(TASK, HASH).join("data/model.bin")).unwrap();
    delete(&stage);
    let mut bytes = Vec::new();
    std::io::Read::read_to_end(&mut &file, &mut bytes).unwrap();
    assert_eq!(bytes, [7; 20_000]);
    drop(file);
    mounted.unmount();
    assert_deleted(&stage, &["backup"], &tree);
}

/// The job is made again through the mount, and archived by it; a program writes to it meanwhile.
#[test]
fn a_job_that_is_made_again_through_the_mount_is_archived() {
    let (stage, _) = archived(&["backup"]);
    let mounted = stage.workspace().mount_archiving(&stage.primary(), &[]);
    let job = mounted.job(TASK, HASH);
    let held = fs::OpenOptions::new()
        .append(true)
        .open(job.join("train.out"))
        .unwrap();
    let (success, lines) = super::entries(&stage, &["jobs", "delete", "--yes", &job_id()]);
    assert!(!success && lines[0]["reason"] == "busy", "{lines:?}");
    drop(held);
    delete(&stage);
    // It gets its name when it is finished.
    let made = mounted.path().join("made");
    write_job(&made);
    run_again(&made);
    let new = whole(&made).unwrap();
    fs::rename(&made, &job).unwrap();
    crate::common::eventually("it is archived", || {
        whole(&stage.archived("backup")).as_ref() == Some(&new)
    });
    mounted.unmount();
    assert_tree("the new job", &new, whole(&stage.job()).as_ref());
    stage.verify();
}
