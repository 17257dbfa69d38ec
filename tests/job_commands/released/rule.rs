//! Jobs chosen by their age and by the space that is missing.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, SystemTime};

use serde_json::Value;

use super::{archived, hash_of, release};
use crate::stage::{Stage, TASK, job_id, said, set_time};

/// Small archived jobs that were last used these days ago.
fn aged(days: &[u64]) -> (Stage, Vec<String>) {
    let stage = Stage::on_disk(&["backup"]);
    let hashes = crate::others::small_jobs(&stage, days.len());
    let tasks = stage.primary().join("jobs").join(TASK);
    stage.archive();
    for (hash, days) in hashes.iter().zip(days) {
        let used = SystemTime::now() - Duration::from_secs(days * 86_400 + 3600);
        let job = tasks.join(hash);
        for name in crate::tree::tree(&job).into_keys() {
            set_time(&job.join(name), used);
        }
    }
    // The manifests have these times too.
    let output = stage.jobs(&["archive", "--all", "--force"]);
    assert!(output.status.success(), "{}", said(&output));
    (stage, hashes)
}

#[test]
fn a_rule_releases_the_least_recently_used_first() {
    let (stage, hashes) = aged(&[5, 40, 1, 35, 70]);
    // Reading is a use; a lock is not, and neither is what xpmfs itself reads.
    let tasks = stage.primary().join("jobs").join(TASK);
    fs::read(tasks.join(&hashes[4]).join("data/model.bin")).unwrap();
    let file = File::open(tasks.join(&hashes[4]).join("data/model.bin")).unwrap();
    file.set_times(fs::FileTimes::new().set_accessed(SystemTime::now()))
        .unwrap();
    fs::write(tasks.join(&hashes[1]).join("train.lock"), "").unwrap();
    stage.verify_all();
    let (success, lines) = release(&stage, &["--older-than", "30d"]);
    assert!(success);
    let found: Vec<&str> = lines.iter().map(hash_of).collect();
    assert_eq!(found, [&hashes[1], &hashes[3]]);
    assert!(
        lines.iter().all(|line| line["result"] == "would_release"),
        "{lines:?}"
    );

    // As much as is missing, and no more: the first job frees enough.
    let space = rustix::fs::statvfs(stage.primary().as_path()).unwrap();
    let free = space.f_bavail * space.f_frsize;
    let (_, lines) = release(&stage, &["--keep-free", &format!("{}", free / 2)]);
    assert_eq!(lines, [] as [Value; 0]);
    let (success, lines) = release(&stage, &["--keep-free", "100%"]);
    assert!(!success, "that much cannot be freed");
    let found: Vec<&str> = lines.iter().map(hash_of).collect();
    assert_eq!(found, [1, 3, 0, 2, 4].map(|index: usize| &hashes[index]));

    let (success, lines) = release(&stage, &["--older-than", "30d", "--yes"]);
    assert!(success && lines.len() == 2, "{lines:?}");
    let there: Vec<bool> = hashes
        .iter()
        .map(|hash| tasks.join(hash).exists())
        .collect();
    assert_eq!(there, [true, false, true, false, true]);
    stage.verify_all();
}

#[test]
fn only_what_becomes_free_is_counted() {
    let (stage, _) = archived(&["backup"]);
    let freed = || {
        release(&stage, &[&job_id()]).1[0]["freed"]
            .as_u64()
            .unwrap()
    };
    let before = freed();
    let model = stage.job().join("data/model.bin");
    fs::hard_link(&model, stage.top().join("outside")).unwrap();
    let taken = fs::metadata(&model).unwrap().blocks() * 512;
    assert!(taken >= 20_000);
    assert_eq!(freed(), before - taken);
}
