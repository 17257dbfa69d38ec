//! A directory of an archived job gets another name, as `wandb sync` does with every offline run.

use std::fs::{self, File};
use std::path::Path;

use super::stage::{HASH, Stage, TASK, assert_tree, moment, said, set_time, whole, write_job};

/// An archived job with a run that has not been synchronised yet.
fn archived(with_manifest: bool) -> Stage {
    let stage = Stage::new(&["backup"]);
    write_job(&stage.job());
    let run = stage.job().join("wandb/offline-run-1");
    fs::create_dir_all(run.join("files")).unwrap();
    for (name, content) in [
        ("run.wandb", "binary"),
        ("files/empty", ""),
        ("files/config.yaml", "lr: 1"),
    ] {
        fs::write(run.join(name), content).unwrap();
        set_time(&run.join(name), moment(0));
    }
    std::os::unix::fs::symlink("run.wandb", run.join("latest")).unwrap();
    set_time(&run.join("latest"), moment(0));
    stage.archive();
    if !with_manifest {
        let name = format!(".xpmfs/manifests/{TASK}/{HASH}.json");
        fs::remove_file(stage.folder("backup").join(name)).unwrap();
    }
    stage
}

fn synchronise(job: &Path) {
    let wandb = job.join("wandb");
    fs::rename(wandb.join("offline-run-1"), wandb.join("run-1")).unwrap();
    fs::write(wandb.join("run-1/run.wandb.synced"), "").unwrap();
}

#[test]
fn a_directory_with_another_name_is_archived_anew() {
    for with_manifest in [true, false] {
        let stage = archived(with_manifest);
        synchronise(&stage.job());
        stage.archive();
        let job = whole(&stage.job()).unwrap();
        let copy = whole(&stage.archived("backup"));
        assert_tree("the copy", &job, copy.as_ref());
        stage.verify();
    }
}

#[test]
fn what_holds_something_else_under_the_other_name_is_still_for_a_person_to_decide() {
    for with_manifest in [true, false] {
        let stage = archived(with_manifest);
        synchronise(&stage.job());
        // The same size and time.
        let file = stage.job().join("wandb/run-1/files/config.yaml");
        fs::write(&file, "lr: 2").unwrap();
        let time = File::options().write(true).open(&file).unwrap();
        time.set_modified(moment(0)).unwrap();
        let output = stage.jobs(&["archive", "--all"]);
        assert!(!output.status.success());
        let text = said(&output);
        assert!(text.contains("offline-run-1/files/config.yaml"), "{text}");
        let kept = stage
            .archived("backup")
            .join("wandb/offline-run-1/files/config.yaml");
        assert_eq!(fs::read(kept).unwrap(), b"lr: 1");
    }
}
