//! Folders serve jobs that the source has lost or that a purge has hollowed out, and hold those that the destination has.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::common::run;
use crate::common::sshd::Sshd;
use crate::scene::{RUN, Scene, number};

fn copy_tree(from: &Path, to: &Path) {
    run(Command::new("cp").arg("-a").arg(from).arg(to));
}

/// Loses the job `0a` of `from`, and a file of `1b`.
fn lose(scene: &Scene) {
    fs::remove_dir_all(scene.job_path("from", "0a")).unwrap();
    fs::remove_file(scene.job_path("from", "1b").join("model.bin")).unwrap();
}

#[track_caller]
fn assert_counts(copied: &Value, jobs_copied: u64, jobs_skipped: u64) {
    let counts = ["jobs_copied", "jobs_skipped"].map(|key| number(copied, key));
    assert_eq!(counts, [jobs_copied, jobs_skipped], "{copied}");
}

#[test]
fn folders_serve_lost_and_purged_jobs_and_hold_those_that_are_present() {
    let scene = Scene::new();
    let folder = |end: &str, name: &str| {
        let path = scene.workspace(end).with_file_name(name);
        fs::create_dir_all(path.join("jobs")).unwrap();
        path
    };
    let (backup, theirs) = (folder("from", "backup"), folder("to", "theirs"));
    scene.write_settings(|id, workspace| {
        workspace["folders"] = match id {
            "from" => json!([{"path": backup, "mode": "backup"}]),
            _ => json!([{"path": theirs, "mode": "use"}]),
        };
    });
    for hash in ["0a", "1b", "2c"] {
        scene.job("from", hash);
    }
    scene.run(RUN, &["0a", "1b", "2c"]);
    run(scene
        .xpmfs()
        .args(["jobs", "archive", "--all", "-w", "from"]));
    // Lost, and purged.
    let whole = scene.workspace("from").with_file_name("whole");
    copy_tree(&scene.job_path("from", "1b"), &whole);
    lose(&scene);
    // The destination's folder has the third.
    let there = theirs.join("jobs").join(scene.task());
    fs::create_dir_all(&there).unwrap();
    copy_tree(&scene.job_path("from", "2c"), &there.join("2c"));
    let copied = scene.copied(RUN, true);
    assert_counts(&copied, 2, 1);
    let jobs = copied["jobs"].as_array().unwrap();
    let from = jobs.iter().filter(|job| job["result"] == "copied");
    let label = format!("backup:{}", backup.display());
    assert!(
        from.clone().all(|job| job["location"] == *label),
        "{copied}"
    );
    scene.assert_copied(&whole, "1b");
    assert!(scene.job_path("to", "0a").join("model.bin").exists());
    assert!(!scene.job_path("to", "2c").exists());
    // A damaged copy is not passed on.
    fs::remove_dir_all(scene.job_path("to", "0a")).unwrap();
    let damaged = backup.join("jobs").join(scene.task()).join("0a/model.bin");
    fs::write(damaged, [b'x'; 10_000]).unwrap();
    let refused = scene.copied(RUN, false);
    let said = refused["errors"][0].as_str().unwrap();
    assert!(
        said.contains("model.bin") && said.contains("manifest"),
        "{said}"
    );
    scene.assert_clean();
}

#[test]
fn folders_of_the_other_machine_serve_lost_and_purged_jobs_and_hold_those_that_are_present() {
    let Some(sshd) = Sshd::start() else { return };
    let scene = Scene::odd();
    for hash in ["0a", "1b", "2c", "3d"] {
        scene.job("from", hash);
    }
    scene.run(RUN, &["0a", "1b", "2c", "3d"]);
    let folder = scene.workspace("from").with_file_name(scene.name("backup"));
    copy_tree(&scene.workspace("from"), &folder);
    let folders = json!([{"path": folder.to_str().unwrap(), "mode": "backup"}]);
    scene.write_settings(|id, workspace| {
        if id == "from" {
            workspace["ssh"] = sshd.ssh();
            workspace["folders"] = folders.clone();
        }
    });
    lose(&scene);
    // Something new in it: this one is alive.
    fs::remove_file(scene.job_path("from", "2c").join("model.bin")).unwrap();
    fs::write(scene.job_path("from", "2c").join("new"), "").unwrap();
    let copied = scene.copied(RUN, true);
    let from = |index: usize| copied["jobs"][index]["location"].as_str().unwrap();
    let mut places = [from(0), from(1), from(2), from(3)];
    places.sort_unstable();
    let label = format!("backup:{}", folder.display());
    assert_eq!(places, [&*label, &*label, "primary", "primary"], "{copied}");
    let theirs = |hash: &str| folder.join("jobs").join(scene.task()).join(hash);
    scene.assert_copied(&theirs("0a"), "0a");
    scene.assert_copied(&theirs("1b"), "1b");
    let alive = scene.job_path("to", "2c");
    assert!(alive.join("new").exists() && !alive.join("model.bin").exists());
    scene.assert_clean();

    // And the other way: what the folder has is not copied.
    scene.write_settings(|id, workspace| {
        if id == "to" {
            workspace["ssh"] = sshd.ssh();
            workspace["folders"] = folders.clone();
        }
    });
    fs::remove_dir_all(scene.workspace("to").join("experiments")).unwrap();
    fs::remove_dir_all(scene.workspace("to").join("jobs")).unwrap();
    scene.job("from", "4e");
    scene.run("20260202_000000", &["3d", "4e"]);
    let copied = scene.copied("20260202_000000", true);
    assert_counts(&copied, 1, 1);
    assert!(!scene.job_path("to", "3d").exists());
    scene.assert_clean();
}
