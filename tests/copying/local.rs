//! Copies from one local workspace to another.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use rustix::fs::FlockOperation;
use serde_json::{Value, json};

use crate::common::run;
use crate::scene::{RUN, Scene, number, tree};

/// The same names in another job.
const OTHER: &str = "2b";

#[test]
fn a_run_and_its_jobs_are_copied_whole_with_odd_names() {
    let scene = Scene::odd();
    let jobs = ["0a", OTHER].map(|hash| scene.job("from", hash));
    let source = scene.run(RUN, &["0a", OTHER]);
    let dry = scene.copy(RUN, &[]);
    assert!(dry.status.success(), "{dry:?}");
    let (listed, said) = (
        String::from_utf8(dry.stdout).unwrap(),
        String::from_utf8(dry.stderr).unwrap(),
    );
    assert_eq!(listed.lines().count(), 4, "{listed}");
    assert!(listed.contains("primary"), "{listed}");
    assert!(
        said.contains("would copy") && said.contains("and 2 jobs") && said.contains("-y copies"),
        "{said}"
    );
    assert!(!scene.workspace("to").join("experiments").exists());
    scene.assert_clean();

    let copied = scene.copied(RUN, true);
    assert_eq!(
        (
            number(&copied, "jobs_copied"),
            number(&copied, "jobs_skipped")
        ),
        (2, 0)
    );
    assert_eq!(
        (copied["run_copied"].as_bool(), &copied["errors"]),
        (Some(true), &json!([]))
    );
    for (job, hash) in jobs.iter().zip(["0a", OTHER]) {
        scene.assert_copied(job, hash);
    }
    let copy = scene.run_path("to", RUN);
    for name in ["jobs.jsonl", "status.json", "events/event-0.jsonl"] {
        assert_eq!(
            fs::read(copy.join(name)).unwrap(),
            fs::read(source.join(name)).unwrap()
        );
    }
    let link = copy.join("jobs").join(scene.task()).join("0a");
    assert_eq!(fs::read_link(link).unwrap(), scene.job_path("to", "0a"));
    let current = copy.with_file_name("current");
    assert_eq!(fs::read_link(current).unwrap(), Path::new(RUN));
    assert!(scene.workspace("to").join(".__experimaestro__").exists());
    scene.assert_clean();

    let before = tree(&scene.workspace("to"));
    let again = scene.copied(RUN, true);
    assert_eq!(
        (
            number(&again, "jobs_copied"),
            number(&again, "jobs_skipped")
        ),
        (0, 2)
    );
    assert_eq!(
        (again["run_copied"].as_bool(), number(&again, "bytes")),
        (Some(false), 0)
    );
    assert_eq!(tree(&scene.workspace("to")), before);
}

#[test]
fn one_job_that_fails_stops_no_other_and_is_copied_by_the_next_command() {
    let scene = Scene::new();
    let (first, second) = (scene.job("from", "0a"), scene.job("from", "1b"));
    scene.run(RUN, &["0a", "1b", "2c"]);
    let lock = File::open(first.join("train.lock")).unwrap();
    rustix::fs::flock(&lock, FlockOperation::LockExclusive).unwrap();
    let copied = scene.copied(RUN, false);
    assert_eq!(number(&copied, "jobs_copied"), 1, "{copied}");
    let errors = copied["errors"].as_array().unwrap();
    assert_eq!(errors.len(), 2, "{copied}");
    let said = errors.iter().map(|error| error.as_str().unwrap());
    let said: Vec<&str> = said.collect();
    assert!(
        said.iter()
            .any(|error| error.contains("/0a: ") && error.contains("running")),
        "{said:?}"
    );
    assert!(
        said.iter()
            .any(|error| error.contains("/2c: ") && error.contains("not in the primary")),
        "{said:?}"
    );
    scene.assert_copied(&second, "1b");
    assert!(scene.run_path("to", RUN).join("status.json").exists());
    drop(lock);
    let third = scene.job("from", "2c");
    let copied = scene.copied(RUN, true);
    assert_eq!(
        (
            number(&copied, "jobs_copied"),
            number(&copied, "jobs_skipped")
        ),
        (2, 1)
    );
    scene.assert_copied(&first, "0a");
    scene.assert_copied(&third, "2c");
    scene.assert_clean();
}

#[test]
fn nothing_in_jobs_jsonl_leads_out_of_the_workspace() {
    let scene = Scene::new();
    scene.job("from", "0a");
    let path = scene.run(RUN, &["0a"]);
    let secret = scene.top().join("secret");
    fs::create_dir(&secret).unwrap();
    fs::write(secret.join("key"), "key").unwrap();
    let mut lines = fs::read_to_string(path.join("jobs.jsonl")).unwrap();
    for (task, hash) in [
        ("..", "secret"),
        ("../..", "secret"),
        (".", "x"),
        ("t", "../../../secret"),
        ("/", "x"),
        ("t", ""),
    ] {
        lines += &format!("{}\n", json!({"job_id": hash, "task_id": task}));
    }
    lines += "not JSON\n";
    fs::write(path.join("jobs.jsonl"), lines).unwrap();
    let copied = scene.copied(RUN, false);
    assert_eq!(number(&copied, "jobs_copied"), 1);
    assert_eq!(copied["errors"].as_array().unwrap().len(), 7, "{copied}");
    for (found, _) in tree(&scene.workspace("to")) {
        assert_ne!(found.file_name().unwrap(), "key");
    }
    for (experiment, run) in [
        ("..", RUN),
        ("xp", ".."),
        ("xp/../..", "x"),
        ("", RUN),
        ("xp", "jobs/x"),
    ] {
        let output = scene
            .xpmfs()
            .args([
                "experiments",
                "copy",
                "--from-workspace=from",
                "--to-workspace=to",
                "-y",
                "--",
            ])
            .args([experiment, run])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            !output.status.success() && said.contains("not the name of"),
            "{said}"
        );
    }
}

#[test]
fn what_the_destination_has_stays_as_it_is() {
    let scene = Scene::new();
    scene.job("from", "0a");
    scene.job("from", "1b");
    scene.run(RUN, &["0a", "1b"]);
    let mine = scene.job_path("to", "0a");
    fs::create_dir_all(&mine).unwrap();
    fs::write(mine.join("mine"), "").unwrap();
    // A symlink to a disk that is away.
    symlink("/nowhere/1b", scene.job_path("to", "1b")).unwrap();
    let other = scene.run_path("to", "20250101_000000");
    fs::create_dir_all(&other).unwrap();
    symlink("20250101_000000", other.with_file_name("current")).unwrap();
    let copied = scene.copied(RUN, false);
    assert_eq!(
        (
            number(&copied, "jobs_copied"),
            number(&copied, "jobs_skipped")
        ),
        (0, 1)
    );
    let said = copied["errors"][0].as_str().unwrap();
    assert!(
        said.contains("symlink") && said.contains("mounted"),
        "{said}"
    );
    assert_eq!(fs::read_dir(&mine).unwrap().count(), 1);
    let current = fs::read_link(other.with_file_name("current")).unwrap();
    assert_eq!(current, Path::new("20250101_000000"));
    // One that leads nowhere is replaced.
    fs::remove_dir(&other).unwrap();
    fs::remove_dir_all(scene.run_path("to", RUN)).unwrap();
    fs::remove_file(scene.job_path("to", "1b")).unwrap();
    scene.copied(RUN, true);
    let current = fs::read_link(other.with_file_name("current")).unwrap();
    assert_eq!(current, Path::new(RUN));
}

#[test]
fn jobs_on_a_disk_of_their_own_are_staged_there() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: needs root");
        return;
    }
    let scene = Scene::new();
    let job = scene.job("from", "0a");
    scene.run(RUN, &["0a"]);
    let jobs = scene.workspace("to").join("jobs");
    run(Command::new("mount")
        .args(["-t", "tmpfs", "none"])
        .arg(&jobs));
    let copied = scene.copy(RUN, &["-y"]);
    let is_there = || scene.assert_copied(&job, "0a");
    let checked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(is_there));
    let left = fs::read_dir(&jobs).unwrap().count();
    run(Command::new("umount").arg(&jobs));
    assert!(copied.status.success(), "{copied:?}");
    assert!(checked.is_ok());
    assert_eq!(left, 1);
}

#[test]
fn the_jobs_of_the_result_are_listed() {
    let scene = Scene::new();
    scene.job("from", "0a");
    scene.run(RUN, &["0a"]);
    let output = scene.copy(RUN, &["--json"]);
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["dry_run"], true);
    let job = &json["jobs"][0];
    assert_eq!(
        (job["result"].as_str(), job["location"].as_str()),
        (Some("would_copy"), Some("primary"))
    );
    // One file less for each lock and process id; two names of one file count once.
    assert!(
        number(job, "bytes") > 10_000 && number(job, "bytes") < 20_000,
        "{json}"
    );
}

#[test]
fn a_mount_of_the_destination_shows_copied_jobs_at_once() {
    let scene = Scene::new();
    scene.job("from", "0a");
    scene.run(RUN, &["0a"]);
    let to = scene.workspace("to");
    for end in ["from", "to"] {
        run(scene.xpmfs().args(["mount", "--no-archive", "-w", end]));
    }
    let unmount = || {
        for end in ["from", "to"] {
            run(scene.xpmfs().args(["umount", "-w", end]));
        }
    };
    let task = scene.job_path("to", "0a");
    let checked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        assert!(!task.exists());
        scene.copied(RUN, true);
        assert!(task.join("model.bin").exists());
        assert!(scene.run_path("to", RUN).join("jobs.jsonl").exists());
    }));
    unmount();
    assert!(checked.is_ok() && to.join(".__experimaestro__").exists());
    scene.assert_copied(&scene.job_path("from", "0a"), "0a");
    scene.assert_clean();
}

#[test]
fn jobs_that_are_copied_together_do_not_count_on_the_same_space() {
    if !crate::common::is_root() {
        return;
    }
    let scene = Scene::new();
    let hashes = ["0a", "1a", "2a", "3a", "4a", "5a", "6a", "7a"];
    for hash in hashes {
        let job = scene.job("from", hash);
        fs::write(job.join("large"), vec![b'a'; 1 << 20]).unwrap();
    }
    scene.run(RUN, &hashes);
    // For two jobs, and a half of one.
    let to = scene.workspace("to");
    run(Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=2560k", "xpmfs-test"])
        .arg(&to));
    fs::create_dir(to.join("jobs")).unwrap();
    let copied = scene.copied(RUN, false);
    let umounted = Command::new("umount").arg("-l").arg(&to).status().unwrap();
    assert!(umounted.success());
    assert_eq!(number(&copied, "jobs_copied"), 2, "{copied}");
    let errors = copied["errors"].as_array().unwrap();
    assert_eq!(errors.len(), 6, "{copied}");
    for error in errors {
        assert!(error.as_str().unwrap().contains("no space: "), "{copied}");
    }
}
