//! Every command on one workspace: without a mount, beside one and in one, as root and as an ordinary user.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::process::Output;

use serde_json::json;

use crate::common::{Workspace, is_mounted, is_root};
use crate::listed::commands;

const TASK: &str = "my.module.train";
const RUN: &str = "20260101_000000";

/// Commands that are tested elsewhere, and why they are not run here.
const EXCEPTIONS: &[(&str, &str)] = &[
    ("tui", "it needs a terminal: tests/tui"),
    (
        "ssh-monitor",
        "it needs a terminal and sshd: tests/ssh_monitor",
    ),
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Situation {
    /// The workspace is not mounted.
    Without,
    /// It is mounted at another path.
    Beside,
    /// It is mounted over itself.
    InPlace,
}

/// What is run: a command with its arguments, and a part of what it prints.
enum Step {
    Does(&'static str, &'static str, &'static str),
    /// It must fail with status 1.
    Fails(&'static str, &'static str, &'static str),
    /// A shell script prepares the next command.
    Prepares(&'static str),
}
use Step::{Does, Fails, Prepares};

/// The commands in an order in which each has something to do. `TOP` is the directory of the test.
fn steps(situation: Situation) -> Vec<Step> {
    let mut steps = vec![
        Does("settings path", "", "settings.yaml"),
        Does("settings check", "", "no mistakes"),
        Does("settings show", "", "settle: 10ms"),
        Does(
            "settings migrate",
            "TOP/old.yaml --yes",
            "rewrote the folders of old",
        ),
        Does("workspaces list", "-v", "- test: TOP/primary"),
        Does("status", "", "TOP/primary"),
        Does("jobs list", "--size", "my.module.train/eee"),
        Does(
            "jobs list",
            "--filter '@state = \"DONE\" and lr = \"0.1\"' -x xp",
            "my.module.train/aaa",
        ),
        Does(
            "jobs path",
            "my.module.train/aaa",
            "jobs/my.module.train/aaa",
        ),
        Does("jobs log", "--std eee", "step 2"),
        Does("jobs where", "uuu", "use"),
        Does("orphans", "--size", "my.module.train/ddd"),
        Does("experiments list", "", "xp"),
        Does("experiments runs", "xp", RUN),
        Does("jobs opt-out", "ddd", "will no longer be archived"),
        Does("jobs opt-in", "ddd", "ddd"),
        Does("jobs archive", "aaa", "1 copy made"),
        Does("archive", "", "1 run archived"),
        Does("jobs verify", "--all", "OK"),
        Does("jobs recover", "eee", "eee: recovered"),
        Does("jobs release", "aaa --yes", "1 job released"),
        Does("jobs pin", "ccc", "ccc"),
        Does("jobs unpin", "ccc", "ccc"),
        Does("jobs delete", "bbb --yes", "bbb"),
        Does("trash list", "", "my.module.train/bbb"),
        Does("jobs undelete", "bbb", "bbb"),
        Does("jobs list", "", "my.module.train/bbb"),
        Does("jobs delete", "ddd --yes", "ddd"),
        Does("trash empty", "--yes", "1 deleted job removed"),
        Does("orphans", "--clean --yes --no-folders", "eee"),
        Does(
            "experiments copy",
            "xp --from-workspace test --to-workspace other -y",
            "copied",
        ),
        Does("jobs list", "-w other", "my.module.train/aaa"),
        Prepares("rm -r TOP/primary/experiments/xp"),
        Does(
            "experiments recover",
            "xp",
            "1 run and 0 partials recovered",
        ),
        Does("run", "-- ls TOP/primary/jobs/my.module.train", "uuu"),
        Does("mount", "--no-archive TOP/more", ""),
        Prepares("ls TOP/more/jobs/my.module.train | grep -q uuu"),
        Does("umount", "TOP/more", ""),
        Does("completions", "bash", "complete"),
        Does("man", "--dir TOP/man", "manual pages"),
    ];
    steps.push(match situation {
        Situation::Without => Fails("reload", "", "not mounted"),
        _ => Does("reload", "", "goes on"),
    });
    steps
}

fn workspace(ordinary: bool) -> Workspace {
    let workspace = match ordinary {
        true => Workspace::of_ordinary_user(),
        false => Workspace::new(),
    };
    workspace.write_settings(&["use", "backup"], Some("{settle: 10ms}"));
    let top = workspace.top();
    for dir in ["other/jobs", "more"] {
        fs::create_dir_all(top.join(dir)).unwrap();
    }
    let other = format!("  - {{id: other, path: {}}}\n", top.join("other").display());
    let settings = fs::read_to_string(workspace.settings()).unwrap() + &other;
    fs::write(workspace.settings(), settings).unwrap();
    let old = "workspaces: [{id: old, path: /, alt_workspaces: [/gone]}]\n";
    fs::write(top.join("old.yaml"), old).unwrap();
    let run = workspace.primary().join("experiments/xp").join(RUN);
    fs::create_dir_all(run.join("jobs").join(TASK)).unwrap();
    let mut lines = String::new();
    for hash in ["aaa", "bbb", "ccc"] {
        let job = workspace.finished("primary", TASK, hash);
        symlink(&job, run.join("jobs").join(TASK).join(hash)).unwrap();
        let line = json!({"job_id": hash, "task_id": TASK, "tags": {"lr": 0.1}, "timestamp": 1767225600.0});
        lines += &format!("{line}\n");
    }
    fs::write(run.join("jobs.jsonl"), lines).unwrap();
    fs::write(run.join("status.json"), r#"{"status": "done"}"#).unwrap();
    symlink(RUN, run.with_file_name("current")).unwrap();
    workspace.finished("primary", TASK, "ddd");
    workspace.finished("backup", TASK, "eee");
    workspace.finished("use", TASK, "uuu");
    workspace.give_away();
    workspace
}

fn text(output: &Output) -> String {
    let both = [&output.stdout[..], &output.stderr[..]].concat();
    String::from_utf8(both).unwrap()
}

fn walks(ordinary: bool, situation: Situation) {
    if !ordinary && !is_root() {
        return;
    }
    let workspace = workspace(ordinary);
    let top = workspace.top().display().to_string();
    let mountpoint = match situation {
        Situation::Without => None,
        Situation::Beside => Some(workspace.mountpoint("mnt")),
        Situation::InPlace => Some(workspace.primary()),
    };
    let mounted = mountpoint.map(|it| workspace.mount_at(&it));
    let (mut done, mut wrong) = (BTreeSet::new(), Vec::new());
    for step in steps(situation) {
        let (name, script, part, fails) = match step {
            Does(name, arguments, part) => {
                (name, format!("\"$@\" {name} {arguments}"), part, false)
            }
            Fails(name, arguments, part) => {
                (name, format!("\"$@\" {name} {arguments}"), part, true)
            }
            Prepares(script) => ("", script.to_owned(), "", false),
        };
        let xpmfs = workspace.xpmfs();
        let mut command = workspace.command("timeout");
        command.args(["120", "sh", "-euc", &script.replace("TOP", &top), "sh"]);
        // As the user that `command` makes of root, without asking for that twice.
        let program = xpmfs.get_args().position(|it| it == "--").map(|at| at + 1);
        let words = std::iter::once(xpmfs.get_program()).chain(xpmfs.get_args());
        command.args(words.skip(program.map_or(0, |at| at + 1)));
        let output = command.output().unwrap();
        let printed = text(&output);
        let expected = part.replace("TOP", &top);
        if output.status.code() != Some(i32::from(fails)) || !printed.contains(&expected) {
            let status = output.status;
            wrong.push(format!(
                "{script}: {status}, without `{expected}`\n{printed}"
            ));
        }
        done.insert(name);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    if let Some(mounted) = mounted {
        assert!(is_mounted(mounted.path()));
        mounted.unmount();
    }
    for (exception, reason) in EXCEPTIONS {
        assert!(!reason.is_empty() && done.insert(exception), "{exception}");
    }
    done.remove("");
    let all = commands();
    let all: BTreeSet<&str> = all.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(
        done, all,
        "a command is not run here: add a step, or an exception"
    );
}

#[test]
fn without_a_mount_as_root() {
    walks(false, Situation::Without);
}

#[test]
fn without_a_mount_as_an_ordinary_user() {
    walks(true, Situation::Without);
}

#[test]
fn beside_a_mount_as_root() {
    walks(false, Situation::Beside);
}

#[test]
fn beside_a_mount_as_an_ordinary_user() {
    walks(true, Situation::Beside);
}

#[test]
fn in_place_as_root() {
    walks(false, Situation::InPlace);
}

#[test]
fn in_place_as_an_ordinary_user() {
    walks(true, Situation::InPlace);
}
