//! What is archived, when, and what replaces a copy.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::common::{eventually, run};
use crate::scene::{
    LATER, RUN, TASK, age, archive, archive_json, finished, hold, items, job, settle, status, tree,
    workspace, write,
};

fn partial(id: &str) -> String {
    format!("partials/{TASK}/ck/{id}")
}

#[test]
fn a_run_is_archived_with_the_partials_of_its_jobs() {
    let workspace = workspace();
    job(&workspace, "0a", "1f");
    write(&workspace.primary().join(partial("unnamed")).join("x"), "");
    finished(&workspace, RUN, &["0a"]);
    let entries = archive_json(&workspace);
    let copied = |item: &str| (item.to_owned(), "copied".to_owned());
    assert_eq!(
        items(&entries),
        [copied(&partial("1f")), copied(&format!("xp/{RUN}"))]
    );
    let (folder, primary) = (workspace.folder("backup"), workspace.primary());
    let link = format!("experiments/xp/{RUN}/jobs/{TASK}/0a");
    let relative = format!("-> ../../../../../jobs/{TASK}/0a");
    let mut expected = tree(&primary);
    expected.retain(|(path, _)| {
        !path.ends_with(".lock") && !path.ends_with("/lock") && !path.contains("unnamed")
    });
    for (path, content) in &mut expected {
        if *path == link {
            relative.clone_into(content);
        }
    }
    assert_eq!(tree(&folder), expected);
    assert_eq!(
        fs::canonicalize(folder.join(&link)).unwrap(),
        folder.join("jobs").join(TASK).join("0a")
    );
    // Nothing is left to do; also if nothing is remembered.
    assert_eq!(items(&archive_json(&workspace)), []);
    fs::remove_dir_all(primary.join(".xpmfs/archive/experiments")).unwrap();
    assert_eq!(items(&archive_json(&workspace)), []);
    assert_eq!(tree(&folder), expected);
    // A crash has left a copy without its manifest.
    let manifest = folder.join(format!(".xpmfs/experiments/xp/{RUN}.json"));
    fs::remove_file(&manifest).unwrap();
    let replaced = vec![(format!("xp/{RUN}"), "replaced".to_owned())];
    assert_eq!(items(&archive_json(&workspace)), replaced);
    assert!(manifest.exists());
    // A partial that a person has removed, of a run that is there.
    fs::remove_dir_all(folder.join(partial("1f"))).unwrap();
    assert_eq!(items(&archive_json(&workspace)), [copied(&partial("1f"))]);
    // A copy that a person has removed is made again.
    fs::remove_dir_all(folder.join("experiments/xp").join(RUN)).unwrap();
    fs::remove_dir_all(folder.join(partial("1f"))).unwrap();
    assert_eq!(items(&archive_json(&workspace)).len(), 2);
    assert_eq!(tree(&folder), expected);
}

#[test]
fn a_run_in_progress_is_not_archived() {
    let workspace = workspace();
    job(&workspace, "0a", "1f");
    let first = finished(&workspace, RUN, &["0a"]);
    status(&first, "running");
    let lock = hold(&workspace.primary().join("experiments/xp/lock"));
    settle(&first);
    assert_eq!(items(&archive_json(&workspace)), []);
    assert!(!workspace.folder("backup").join("experiments").exists());
    // Its status is final before it lets the lock go.
    status(&first, "done");
    settle(&first);
    assert_eq!(items(&archive_json(&workspace)), []);
    // An earlier run has ended.
    finished(&workspace, LATER, &["0a"]);
    let copied = items(&archive_json(&workspace));
    assert_eq!(copied.last().unwrap().0, format!("xp/{RUN}"));
    assert!(
        !workspace
            .folder("backup")
            .join("experiments/xp")
            .join(LATER)
            .exists()
    );
    // A plan that was killed leaves its status at `running`.
    status(
        &workspace.primary().join("experiments/xp").join(LATER),
        "running",
    );
    drop(lock);
    settle(&first);
    archive(&workspace);
    let folder = workspace.folder("backup").join("experiments/xp");
    assert!(folder.join(LATER).join("status.json").exists());
    assert_eq!(
        fs::read_link(folder.join("current")).unwrap(),
        Path::new(LATER)
    );
}

#[test]
fn a_run_that_is_gone_stays_in_the_folder_and_a_changed_one_is_replaced() {
    let workspace = workspace();
    job(&workspace, "0a", "1f");
    let first = finished(&workspace, RUN, &["0a"]);
    let later = finished(&workspace, LATER, &["0a"]);
    archive(&workspace);
    let folder = workspace.folder("backup").join("experiments/xp");
    let before = tree(&folder.join(RUN));
    // What experimaestro's tidying does.
    fs::remove_dir_all(&first).unwrap();
    status(&later, "failed");
    settle(&later);
    let replaced = vec![(format!("xp/{LATER}"), "replaced".to_owned())];
    assert_eq!(items(&archive_json(&workspace)), replaced);
    assert_eq!(tree(&folder.join(RUN)), before);
    let read = fs::read_to_string(folder.join(LATER).join("status.json")).unwrap();
    assert!(read.contains("failed"), "{read}");
    // What a purge has left replaces nothing, also after its status was rewritten.
    let before = tree(&folder);
    fs::remove_file(later.join("jobs.jsonl")).unwrap();
    status(&later, "done");
    settle(&later);
    assert_eq!(items(&archive_json(&workspace)), []);
    assert_eq!(tree(&folder), before);
    // `current` does not go back to an older run.
    let current = workspace.primary().join("experiments/xp/current");
    fs::remove_file(&current).unwrap();
    std::os::unix::fs::symlink(RUN, &current).unwrap();
    archive(&workspace);
    assert_eq!(
        fs::read_link(folder.join("current")).unwrap(),
        Path::new(LATER)
    );
}

#[test]
fn a_partial_in_use_waits_and_a_changed_one_is_archived_with_the_next_run() {
    let workspace = workspace();
    let first = job(&workspace, "0a", "1f");
    finished(&workspace, RUN, &["0a"]);
    let busy = |lock: &Path| {
        let held = hold(lock);
        let entries = archive_json(&workspace);
        let entry = entries
            .iter()
            .find(|entry| entry["item"] == partial("1f").as_str())
            .unwrap();
        assert_eq!(
            (&entry["result"], &entry["reason"]),
            (&"skipped".into(), &"busy".into())
        );
        drop(held);
        assert!(!workspace.folder("backup").join(partial("1f")).exists());
    };
    busy(
        &workspace
            .primary()
            .join(partial("1f"))
            .join(".experimaestro/locks/ipc.lock"),
    );
    // Another job that names it runs; the partial's own lock is only held by jobs whose class declares it.
    let other = job(&workspace, "0b", "1f");
    fs::remove_file(other.join("train.done")).unwrap();
    write(&other.join("train.lock"), "");
    settle(&other);
    busy(&other.join("train.lock"));
    let copied = vec![(partial("1f"), "copied".to_owned())];
    assert_eq!(items(&archive_json(&workspace)), copied);
    // A later job goes on with it: checkpoints are rotated.
    let path = workspace.primary().join(partial("1f"));
    fs::remove_file(path.join("model.pt")).unwrap();
    write(&path.join("model-2.pt"), "more weights");
    finished(&workspace, LATER, &["0a"]);
    let results = items(&archive_json(&workspace));
    assert_eq!(results[0], (partial("1f"), "replaced".to_owned()));
    assert!(
        workspace
            .folder("backup")
            .join(partial("1f"))
            .join("model-2.pt")
            .exists()
    );
    // A purge leaves an older state.
    fs::remove_file(path.join("model-2.pt")).unwrap();
    write(&path.join("old.pt"), "");
    age(&path.join("old.pt"), 3600);
    finished(&workspace, "20260102_000000", &["0a"]);
    archive(&workspace);
    assert!(
        workspace
            .folder("backup")
            .join(partial("1f"))
            .join("model-2.pt")
            .exists()
    );
    drop(first);
}

#[test]
fn partials_of_opted_out_jobs_are_not_archived() {
    let workspace = workspace();
    for (hash, id) in [("0a", "1f"), ("0b", "2f"), ("0c", "2f"), ("0d", "3f")] {
        job(&workspace, hash, id);
    }
    let run_path = finished(&workspace, RUN, &["0a", "0b", "0c", "0d"]);
    let text = fs::read_to_string(run_path.join("jobs.jsonl")).unwrap();
    let tagged = text.replacen("{\"lr\": 0.1}", "{\"backup\": false}", 2);
    write(&run_path.join("jobs.jsonl"), &tagged);
    run(workspace
        .xpmfs()
        .args(["jobs", "opt-out", "-w", "test", "0d"]));
    settle(&run_path);
    archive(&workspace);
    let there = |id: &str| workspace.folder("backup").join(partial(id)).exists();
    // 0a and 0b have the tag, 0d has the file; 0c names the same partial as 0b.
    assert_eq!(
        [there("1f"), there("2f"), there("3f")],
        [false, true, false]
    );
}

#[test]
fn a_mount_archives_runs_by_itself_and_draining_waits_for_them() {
    let workspace = workspace();
    // A run settles for longer than a drain takes otherwise.
    workspace.write_settings(&["backup"], Some("{settle: 2s, scan_interval: 100ms}"));
    job(&workspace, "0a", "1f");
    let mounted = workspace.mount_archiving(&workspace.primary(), &[]);
    finished(&workspace, RUN, &["0a"]);
    let folder = workspace.folder("backup");
    eventually("the run is archived", || {
        folder.join("experiments/xp/current/status.json").exists()
            && folder.join(partial("1f")).exists()
    });
    finished(&workspace, LATER, &["0a"]);
    run(workspace
        .xpmfs()
        .args(["umount", "--drain"])
        .arg(mounted.path()));
    assert!(
        folder
            .join("experiments/xp")
            .join(LATER)
            .join("status.json")
            .exists()
    );
    assert_eq!(
        fs::read_link(folder.join("experiments/xp/current")).unwrap(),
        Path::new(LATER)
    );
}

#[test]
fn status_shows_what_is_archived_and_what_waits() {
    let workspace = workspace();
    job(&workspace, "0a", "1f");
    let lock = workspace
        .primary()
        .join(partial("1f"))
        .join(".experimaestro/locks/ipc.lock");
    let held = hold(&lock);
    finished(&workspace, RUN, &["0a"]);
    let mounted = workspace.mount_archiving(&workspace.mountpoint("elsewhere"), &[]);
    let status = || -> Value {
        let printed = run(workspace
            .xpmfs()
            .args(["--json", "status"])
            .arg(mounted.path()));
        let status: Value = serde_json::from_str(&printed).unwrap();
        status["mounts"][0]["archive"]["experiments"][0].clone()
    };
    eventually("the run is archived", || status()["runs"] == 1);
    eventually("the partial waits", || {
        let waiting = status()["waiting"].clone();
        waiting[0]["item"] == partial("1f").as_str() && waiting[0]["in_use"] == true
    });
    let shown = run(workspace.xpmfs().arg("status").arg(mounted.path()));
    assert!(shown.contains("waiting: a job writes to it"), "{shown}");
    assert_eq!(
        status()["folder"],
        format!("backup:{}", workspace.folder("backup").display())
    );
    drop(held);
    eventually("the partial is archived", || status()["partials"] == 1);
}
