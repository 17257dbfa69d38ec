//! `kill -9` at each system call that changes something in the folder: nothing is lost, nothing is torn.

use std::process::Command;

use crate::common::{Workspace, run};
use crate::scene::{LATER, RUN, archive, finished, job, settle, status, tree, workspace};

/// The calls that make, rename and remove entries, and those that make them durable.
const CALLS: [&str; 7] = [
    "mkdirat",
    "renameat2",
    "renameat",
    "symlinkat",
    "unlinkat",
    "fsync",
    "syncfs",
];

/// Archives, and kills that at the call of a number; returns whether there was such a call.
fn kill_at(workspace: &Workspace, call: &str, number: usize) -> bool {
    let xpmfs = workspace.xpmfs();
    let mut strace = workspace.command("strace");
    strace.args([
        "-f",
        "-qq",
        "-o",
        "/dev/null",
        "-e",
        &format!("trace={call}"),
    ]);
    strace.args([
        "-e",
        &format!("inject={call}:signal=KILL:when={number}"),
        "--",
    ]);
    strace.arg(xpmfs.get_program()).args(xpmfs.get_args());
    let output = strace.args(["archive", "-w", "test"]).output().unwrap();
    !output.status.success()
}

/// Asserts that each run and partial in the folder is one of its whole states.
fn assert_whole(workspace: &Workspace, states: &[&[(String, String)]], when: &str) {
    let is_item =
        |path: &str| path.starts_with("experiments/xp/2") || path.starts_with("partials/");
    let top = |path: &str| {
        let depth = if path.starts_with("experiments") {
            3
        } else {
            4
        };
        path.split('/').take(depth).collect::<Vec<_>>().join("/")
    };
    let of = |tree: &[(String, String)], item: &str| -> Vec<(String, String)> {
        let below = format!("{item}/");
        tree.iter()
            .filter(|(path, _)| path.starts_with(&below))
            .cloned()
            .collect()
    };
    let now = tree(&workspace.folder("backup"));
    let items: std::collections::BTreeSet<String> = now
        .iter()
        .filter(|(path, _)| is_item(path) && !path.contains("/.tmp."))
        .map(|(path, _)| top(path))
        .collect();
    for item in items {
        let found = of(&now, &item);
        let whole = states.iter().any(|state| of(state, &item) == found);
        assert!(whole, "{item} is torn {when}: {found:?}");
    }
}

#[test]
fn a_process_that_is_killed_at_any_change_leaves_whole_copies() {
    // In CI, some of the calls; all with XPMFS_SOAK.
    let step = match std::env::var_os("XPMFS_SOAK") {
        Some(_) => 1,
        None => 12,
    };
    let ended = |workspace: &Workspace| {
        // First a copy of everything, then what replaces it.
        archive(workspace);
        let before = tree(&workspace.folder("backup"));
        status(
            &workspace.primary().join("experiments/xp").join(RUN),
            "failed",
        );
        std::fs::write(
            workspace
                .primary()
                .join("partials/my.module.train/ck/1f/model.pt"),
            "more",
        )
        .unwrap();
        finished(workspace, LATER, &["0a"]);
        before
    };
    // How it is in the end, without any kill.
    let other = workspace();
    job(&other, "0a", "1f");
    finished(&other, RUN, &["0a"]);
    ended(&other);
    archive(&other);
    let expected = tree(&other.folder("backup"));
    let is_item = |path: &str| path.starts_with("experiments/") || path.starts_with("partials/");
    let mut killed = 0;
    for call in CALLS {
        let mut number = if step == 1 { 1 } else { 2 };
        loop {
            let workspace = workspace();
            job(&workspace, "0a", "1f");
            finished(&workspace, RUN, &["0a"]);
            let before = ended(&workspace);
            if !kill_at(&workspace, call, number) {
                break;
            }
            killed += 1;
            assert_whole(
                &workspace,
                &[&before, &expected],
                &format!("after {call} {number}"),
            );
            settle(&workspace.primary());
            archive(&workspace);
            let mut now = tree(&workspace.folder("backup"));
            let mut wanted = expected.clone();
            now.retain(|(path, _)| is_item(path));
            wanted.retain(|(path, _)| is_item(path));
            assert_eq!(now, wanted, "after {call} {number}");
            for manifest in [
                format!("experiments/xp/{RUN}"),
                format!("experiments/xp/{LATER}"),
                "partials/my.module.train/ck/1f".to_owned(),
            ] {
                let path = workspace
                    .folder("backup")
                    .join(format!(".xpmfs/{manifest}.json"));
                assert!(path.exists(), "{manifest} after {call} {number}");
            }
            let left = run(Command::new("find")
                .arg(workspace.folder("backup"))
                .args(["-name", ".tmp.*"]));
            assert_eq!(left, "", "after {call} {number}");
            number += step;
        }
    }
    assert!(killed >= 5, "{killed}");
}
