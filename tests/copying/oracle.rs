//! Beside experimaestro's own copy: the same files at the destination, and what it does wrong.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::common::sshd::Sshd;
use crate::common::{python, soak};
use crate::scene::{Entry, RUN, Scene, number, tree};

/// Copies by experimaestro, to a directory of its own, which becomes the path of `to` in its settings.
fn theirs(scene: &Scene, python: &Path, run: &str) -> (Value, PathBuf) {
    let top = scene.workspace("to").with_file_name("theirs");
    fs::create_dir_all(top.join("jobs")).unwrap();
    let settings = fs::read_to_string(scene.top().join("settings.yaml")).unwrap();
    let mut settings: Value = serde_json::from_str(&settings).unwrap();
    settings["workspaces"][1]["path"] = json!(top.to_str().unwrap());
    let file = scene.top().join("theirs.json");
    fs::write(&file, settings.to_string()).unwrap();
    let command = python::script(python, &scene.top(), "copy_experiment.py");
    let arguments = [file.to_str().unwrap(), "from", "to", "xp", run];
    (python::report(command, &arguments), top)
}

/// The entries of a copy, without those that differ by intent: internal files, `params.json` and symlinks with the workspace's path.
fn common(top: &Path) -> BTreeMap<PathBuf, Entry> {
    let entries = tree(top).into_iter().filter(|(path, entry)| {
        let name = path.file_name().unwrap().to_str().unwrap();
        let is_run = path.starts_with("experiments") && path.components().count() > 2;
        let is_job = path.starts_with("jobs") && path.components().count() > 2;
        let left_out = name.ends_with(".lock") || name.ends_with(".pid") || name == "params.json";
        let is_link_to_job = path.starts_with("experiments")
            && path.components().any(|part| part.as_os_str() == "jobs");
        (is_run || is_job) && !left_out && !is_link_to_job && !entry.is_link() && name != "current"
    });
    // Ours makes the symlinks to the jobs in a copy of the run.
    let is_run = |path: &Path| path.starts_with("experiments") && path.components().count() == 3;
    entries
        .map(|(path, entry)| match is_run(&path) {
            true => (path, entry.at_any_time()),
            false => (path, entry),
        })
        .collect()
}

fn params(top: &Path, hash: &str) -> Value {
    let path = top
        .join("jobs/my.module.train")
        .join(hash)
        .join("params.json");
    let text = fs::read_to_string(path).unwrap();
    let moved = text.replace(top.to_str().unwrap(), "/top");
    serde_json::from_str(&moved).unwrap()
}

#[test]
fn both_copy_the_same_files() {
    let (Some(python), Some(sshd)) = (python::interpreter(), Sshd::start()) else {
        return;
    };
    for is_remote in [false, true] {
        if is_remote && !soak() {
            continue;
        }
        let scene = Scene::new();
        scene.write_settings(|id, workspace| {
            if is_remote && id == "to" {
                workspace["ssh"] = sshd.ssh();
                // Theirs joins the options with spaces, and a shell splits them.
                let options = workspace["ssh"]["options"].as_array_mut().unwrap();
                let key = options.iter().position(|option| option == "-i").unwrap() + 1;
                options[key] = json!(sshd.plain_key());
            }
        });
        for hash in ["0a", "1b"] {
            scene.job("from", hash);
        }
        scene.run(RUN, &["0a", "1b"]);
        let (report, theirs) = theirs(&scene, &python, RUN);
        assert_eq!(
            report,
            json!({"jobs_copied": 2, "jobs_skipped": 0, "errors": []})
        );
        let copied = scene.copied(RUN, true);
        assert_eq!(
            (
                number(&copied, "jobs_copied"),
                number(&copied, "jobs_skipped")
            ),
            (2, 0)
        );
        let ours = scene.workspace("to");
        assert_eq!(common(&ours), common(&theirs), "{is_remote}");
        assert!(common(&ours).len() > 10);
        for hash in ["0a", "1b"] {
            assert_eq!(params(&ours, hash), params(&theirs, hash), "{is_remote}");
        }
    }
}

/// With experimaestro 2.7.0, a text in a `params.json` is a command at the destination, a job that is listed twice ends the copy, and so does
/// a run that is there.
#[test]
fn what_theirs_does_wrong_is_done_right() {
    if !soak() {
        return;
    }
    let (Some(python), Some(sshd)) = (python::interpreter(), Sshd::start()) else {
        return;
    };
    let scene = Scene::new();
    scene.write_settings(|id, workspace| {
        if id == "to" {
            workspace["ssh"] = sshd.ssh();
            let options = workspace["ssh"]["options"].as_array_mut().unwrap();
            let key = options.iter().position(|option| option == "-i").unwrap() + 1;
            options[key] = json!(sshd.plain_key());
        }
    });
    let pwned = scene.top().join("PWNED");
    let job = scene.job("from", "0a");
    let text = fs::read_to_string(job.join("params.json")).unwrap();
    let mut value: Value = serde_json::from_str(&text).unwrap();
    value["note"] = json!(format!("it's; touch {}; echo '", pwned.display()));
    fs::write(job.join("params.json"), value.to_string()).unwrap();
    scene.run(RUN, &["0a"]);
    let (_, _) = theirs(&scene, &python, RUN);
    assert!(
        fs::remove_file(&pwned).is_ok(),
        "theirs is mended: change this test"
    );
    scene.copied(RUN, true);
    scene.assert_clean();
    let copy = fs::read_to_string(scene.job_path("to", "0a").join("params.json")).unwrap();
    let copy: Value = serde_json::from_str(&copy).unwrap();
    assert_eq!(copy["note"], value["note"]);

    scene.write_settings(|_, _| {});
    scene.job("from", "1b");
    let run = scene.run("20260202_000000", &["0a"]);
    let line = json!({"job_id": "1b", "task_id": scene.task(), "tags": {}, "timestamp": 1.0});
    let lines = fs::read_to_string(run.join("jobs.jsonl")).unwrap();
    fs::write(run.join("jobs.jsonl"), format!("{lines}{line}\n{line}\n")).unwrap();
    let (report, _) = theirs(&scene, &python, "20260202_000000");
    assert!(
        report["exception"].is_string(),
        "theirs is mended: {report}"
    );
    let copied = scene.copied("20260202_000000", true);
    assert_eq!(
        (
            number(&copied, "jobs_copied"),
            number(&copied, "jobs_skipped")
        ),
        (1, 1)
    );
}
