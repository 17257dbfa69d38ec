//! What is removed from the trash for good: by `trash empty`, and by the daemon when `xpmfs.trash` has passed.

use std::fs;

use serde_json::Value;

use super::{archived, delete, entries, mount_tending, small_ones, trashed};
use crate::common::eventually;
use crate::stage::{Stage, TASK, job_id, said};

fn is_empty(stage: &Stage) -> bool {
    let roots = [stage.primary(), stage.folder("backup")];
    roots.iter().all(|root| {
        let left = fs::read_dir(root.join(".xpmfs/trash"))
            .into_iter()
            .flatten();
        let left = left.map(|entry| entry.unwrap().file_name());
        left.filter(|name| name != ".removing").count() == 0
    })
}

#[test]
fn the_trash_is_emptied_and_nothing_else() {
    let stage = Stage::new(&["backup"]);
    let hashes = small_ones(&stage, 3);
    let (_, lines) = entries(&stage, &["jobs", "delete", "--yes", &hashes[0], &hashes[1]]);
    assert_eq!(lines.len(), 2, "{lines:?}");
    let (success, lines) = entries(&stage, &["trash", "empty"]);
    assert!(
        success && lines.iter().all(|it| it["result"] == "would_remove"),
        "{lines:?}"
    );
    assert_eq!(trashed(&stage.folder("backup"), "jobs").len(), 2);
    // Left by a crash.
    let left = stage.primary().join(".xpmfs/trash/.removing/left");
    fs::create_dir_all(&left).unwrap();
    let (success, lines) = entries(&stage, &["trash", "empty", "--yes", &hashes[0]]);
    assert!(
        success && lines.len() == 1 && lines[0]["result"] == "removed",
        "{lines:?}"
    );
    assert!(lines[0]["freed"].as_u64().unwrap() > 0, "{lines:?}");
    assert!(!left.exists());
    for root in [stage.primary(), stage.folder("backup")] {
        let [one] = &trashed(&root, "jobs")[..] else {
            panic!("{:?}", trashed(&root, "jobs"))
        };
        assert_eq!(one.file_name().unwrap(), &*hashes[1]);
    }
    let mut command = stage.xpmfs();
    let output = command
        .args(["trash", "empty", "-w", "test", "--yes"])
        .output()
        .unwrap();
    assert!(
        said(&output).contains("1 deleted job removed for good"),
        "{}",
        said(&output)
    );
    assert!(is_empty(&stage));
    let output = stage.jobs(&["undelete", &hashes[1]]);
    assert!(
        !output.status.success() && said(&output).contains("no deleted job"),
        "{}",
        said(&output)
    );
    assert!(
        stage
            .primary()
            .join("jobs")
            .join(TASK)
            .join(&hashes[2])
            .exists()
    );
    stage.verify_all();
}

#[test]
fn a_daemon_removes_what_has_expired_and_nothing_younger() {
    let (stage, _) = archived(&["backup"]);
    let mount = |keep: &str| {
        let keys = format!("{{trash: {keep}}}");
        stage.workspace().write_settings(&["backup"], Some(&keys));
        mount_tending(&stage)
    };
    delete(&stage);
    // Its date alone says that it is old, as after the clock of another node was wrong.
    for root in [stage.primary(), stage.folder("backup")] {
        let trash = root.join(".xpmfs/trash");
        let date = fs::read_dir(&trash)
            .unwrap()
            .next()
            .unwrap()
            .unwrap()
            .path();
        fs::rename(date, trash.join("20010101T000000.000Z")).unwrap();
    }
    let mounted = mount("7d");
    let (_, lines) = entries(&stage, &["trash", "list"]);
    assert_eq!(lines.len(), 1);
    std::thread::sleep(std::time::Duration::from_millis(500));
    assert_eq!(trashed(&stage.primary(), "jobs").len(), 1);
    mounted.unmount();
    let mounted = mount("100ms");
    eventually("it has expired", || is_empty(&stage));
    mounted.unmount();
    let (_, lines) = entries(&stage, &["trash", "list"]);
    assert_eq!(lines, [] as [Value; 0]);
    let output = stage.jobs(&["undelete", &job_id()]);
    assert!(!output.status.success());
}
