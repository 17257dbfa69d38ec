//! `archive --watch` and `status --watch`.

use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::common;
use crate::common::{Workspace, eventually, run};
use crate::job::{self, TASK, hash};
use crate::stage::{
    Process, assert_whole, at_once, has_all, is_drained, staging, status, threads, until, watch,
};

/// How long a process may take to end, on a busy machine.
const SOON: Duration = Duration::from_secs(60);

const QUICK: &str = "{settle: 100ms, scan_interval: 100ms}";

#[test]
fn a_workspace_is_archived_without_a_mount_until_it_is_interrupted() {
    at_once(["-INT", "-TERM"], |signal| {
        let workspace = Workspace::new();
        workspace.with_folders(&["backup", "move"]);
        workspace.tune(QUICK);
        let primary = workspace.primary();
        let both = ["backup", "move"].map(|mode| workspace.folder(mode));
        let mut expected = vec![job::make_and_tell(&primary, 0, job::tree)];
        let mut watching = watch(&workspace);
        let moved = |number| primary.join(job::path(number)).is_symlink();
        until("what was there is archived", || moved(0));
        expected.push(job::make_and_tell(&primary, 1, job::tree));
        let unfinished = primary.join(job::path(2));
        job::write_unfinished(&unfinished, 2);
        until("what has come is archived", || moved(1));
        fs::write(unfinished.join("train.done"), "").unwrap();
        expected.push(job::tree(&unfinished));
        until("what has finished is archived", || moved(2));
        watching.signal(signal);
        assert!(watching.end(SOON).success());
        for folder in &both {
            assert_whole(folder, 0..3, |number| expected[number].clone());
        }
        assert_tidied(&workspace);
    });
}

#[test]
fn a_workspace_is_archived_beside_a_mount_of_it() {
    let workspace = Workspace::new();
    workspace.with_folders(&["move"]);
    workspace.tune(QUICK);
    // The mount archives nothing; but it is told of what has moved, and asked for what is being written.
    let mounted = workspace.mount_in_place();
    let mut watching = watch(&workspace);
    let job = mounted.job(TASK, &hash(0));
    job::write_unfinished(&job, 0);
    let open = File::options()
        .append(true)
        .open(job.join("train.out"))
        .unwrap();
    fs::write(job.join("train.done"), "").unwrap();
    let other = mounted.job(TASK, &hash(1));
    job::write(&other, 1);
    let folder = workspace.folder("move");
    until("the one is archived", || has_all(&folder, 1..2));
    until("it is seen", || mounted.location(job::path(1)) == "move");
    assert!(!has_all(&folder, 0..1), "it was open for writing");
    assert_eq!(mounted.location(job::path(0)), "primary");
    drop(open);
    until("the other is archived", || {
        mounted.location(job::path(0)) == "move"
    });
    for number in 0..2 {
        job::look_at(&mounted.path().join(job::path(number)), number).unwrap();
    }
    watching.signal("-INT");
    assert!(watching.end(SOON).success());
    mounted.unmount();
    assert_tidied(&workspace);
}

/// Asserts that nothing is left of what was moved. Who ends has some seconds for that; on a disk that is too busy, the next does it.
fn assert_tidied(workspace: &Workspace) {
    let primary = workspace.primary();
    if !staging(&primary).is_empty() {
        let archive = ["jobs", "archive", "-w", "test", "--all"];
        run(workspace.xpmfs().args(archive));
    }
    assert_eq!(staging(&primary), [""; 0]);
}

/// It is told nothing by the mount, and has to ask, however long it had nothing to ask.
#[test]
fn what_is_open_in_a_mount_that_came_later_is_not_archived() {
    let workspace = Workspace::new();
    workspace.with_folders(&["move"]);
    workspace.tune("{settle: 1500ms, scan_interval: 100ms}");
    let primary = workspace.primary();
    let _watching = watch(&workspace);
    let moved = |number| primary.join(job::path(number)).is_symlink();
    job::make(&primary, 0);
    until("what is there is archived", || moved(0));
    let mounted = workspace.mount_at(&workspace.mountpoint("elsewhere"));
    let pid = status(&workspace, mounted.path())["pid"].as_i64().unwrap();
    for number in [1, 4] {
        let job = mounted.job(TASK, &hash(number));
        job::write_unfinished(&job, number);
        let output = &mut File::options();
        let open = output.append(true).open(job.join("train.out")).unwrap();
        fs::write(job.join("train.done"), "").unwrap();
        // The second one has finished when the time of the open one had come.
        for other in [number + 1, number + 2] {
            job::make(&primary, other);
            until("another job is archived", || moved(other));
        }
        assert!(!moved(number), "job {number} was open for writing");
        drop(open);
        until("it is archived", || moved(number));
        if number == 1 {
            until("the mount hangs up on who asks nothing", || {
                !threads(pid).iter().any(|name| name == "control-client")
            });
        }
    }
}

#[test]
fn watching_a_workspace_that_has_no_folder_to_archive_to_is_refused() {
    let workspace = Workspace::new();
    workspace.with_folders(&["use"]);
    let mut watching = watch(&workspace);
    assert!(!watching.end(SOON).success());
    let said = fs::read_to_string(workspace.top().join("watch.log")).unwrap();
    assert!(said.contains("no `backup` or `move` folder"), "{said}");
}

#[test]
fn the_status_is_shown_again_and_again_until_it_is_interrupted() {
    let workspace = Workspace::new();
    workspace.with_folders(&["backup"]);
    workspace.tune(QUICK);
    let mounted = workspace.mount_archiving(&workspace.mountpoint("elsewhere"), &[]);
    let printed = workspace.top().join("printed");
    let mut command = interruptible(&workspace);
    command
        .arg(env!("CARGO_BIN_EXE_xpmfs"))
        .arg("--settings")
        .arg(workspace.settings())
        .args(["--json", "status", "--watch"])
        .arg(mounted.path())
        .stdin(Stdio::null())
        .stdout(File::create(&printed).unwrap());
    let mut watching = Process::start(&mut command);
    let lines = || -> Vec<Value> {
        let printed = fs::read_to_string(&printed).unwrap();
        let whole = printed
            .split_inclusive('\n')
            .filter(|line| line.ends_with('\n'));
        whole
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    };
    until("it is shown", || !lines().is_empty());
    job::make(&workspace.primary(), 0);
    let folder = |status: &Value| status["mounts"][0]["archive"]["folders"][0].clone();
    until("what is archived is shown", || {
        lines()
            .last()
            .is_some_and(|status| folder(status)["jobs"] == 1)
    });
    let shown = lines();
    assert_eq!(folder(&shown[0])["jobs"], 0, "{shown:?}");
    watching.signal("-INT");
    assert!(!watching.end(SOON).success());
}

/// On a terminal nothing is set that would have to be put back.
#[test]
fn after_the_status_was_watched_the_terminal_is_in_order() {
    if common::program("script").is_none() {
        return;
    }
    let workspace = Workspace::new();
    workspace.with_folders(&["backup"]);
    let mounted = workspace.mount_archiving(&workspace.mountpoint("elsewhere"), &[]);
    let top = workspace.top();
    let script = format!(
        "trap : INT; stty -g > before; {} --settings {} status --watch {}; echo THE END; stty -g > after",
        env!("CARGO_BIN_EXE_xpmfs"),
        workspace.settings().display(),
        mounted.path().display()
    );
    let mut command = interruptible(&workspace);
    command
        .args(["script", "-qfec", &script, "typescript"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null());
    let mut terminal = Process::start(&mut command);
    let shown = || fs::read_to_string(top.join("typescript")).unwrap_or_default();
    let archived = "all finished jobs are archived";
    eventually("it is shown twice", || {
        shown().matches("\x1b[H").count() >= 2 && shown().contains(archived)
    });
    // As a person does it.
    let keyboard = terminal.0.stdin.as_mut().unwrap();
    keyboard.write_all(b"\x03").unwrap();
    terminal.end(SOON);
    let shown = shown();
    for (begin, end) in [("\x1b[?25l", "\x1b[?25h"), ("\x1b[?1049h", "\x1b[?1049l")] {
        assert_eq!(shown.matches(begin).count(), shown.matches(end).count());
    }
    // What comes next begins a line of its own, but for the echo of the key.
    let (before, _) = shown.rsplit_once("THE END").unwrap();
    let before = before.trim_end_matches("^C");
    assert!(before.ends_with("\n\x1b[J"), "{before:?}");
    let settings = ["before", "after"].map(|name| fs::read_to_string(top.join(name)).unwrap());
    assert_eq!(settings[0], settings[1]);
}

/// What is to be started so that it can be interrupted: tests that run in a shell's background have been told to
/// ignore that, and so would it.
fn interruptible(workspace: &Workspace) -> Command {
    let mut command = workspace.command("env");
    command.arg("--default-signal");
    command
}

#[test]
fn the_status_tells_how_archiving_does() {
    let workspace = Workspace::new();
    workspace.with_folders(&["backup", "move"]);
    workspace.tune(QUICK);
    for number in 0..3 {
        job::make(&workspace.primary(), number);
    }
    let mounted = workspace.mount_archiving(&workspace.mountpoint("elsewhere"), &[]);
    until("all is archived", || {
        let status = status(&workspace, mounted.path());
        let folders = status["archive"]["folders"].as_array().unwrap();
        folders.iter().all(|folder| folder["jobs"] == 3)
    });
    until("nothing is on its way", || {
        is_drained(&workspace, mounted.path())
    });
    let status = status(&workspace, mounted.path());
    let archive = &status["archive"];
    assert_eq!(archive["failures"], 0, "{archive}");
    for key in ["waiting", "failed"] {
        assert_eq!(archive[key], Value::Array(Vec::new()), "{archive}");
    }
    let folders = archive["folders"].as_array().unwrap();
    let modes: Vec<&str> = folders
        .iter()
        .map(|folder| folder["mode"].as_str().unwrap())
        .collect();
    assert_eq!(modes, ["backup", "move"]);
    for folder in folders {
        assert_eq!(folder["files"], 27, "{folder}");
        assert!(
            folder["bytes"].as_u64().is_some_and(|bytes| bytes > 0),
            "{folder}"
        );
        assert!(
            folder["refuses"].is_null() && folder["trouble"].is_null(),
            "{folder}"
        );
        assert!(
            folder["last_scan"]
                .as_str()
                .is_some_and(|scan| scan > "2026"),
            "{folder}"
        );
    }
}

/// The look at a job has counted what there is to copy.
#[test]
fn the_status_tells_how_much_there_is_to_copy_in_all() {
    let workspace = Workspace::new();
    workspace.with_folders(&["backup"]);
    workspace.tune("{settle: 100ms, scan_interval: 100ms, bandwidth: 256KiB}");
    let primary = workspace.primary();
    let job = primary.join(job::path(0));
    job::write_unfinished(&job, 0);
    fs::write(job.join("large"), vec![1; 4 << 20]).unwrap();
    fs::hard_link(job.join("large"), job.join("again")).unwrap();
    let sparse = File::create(job.join("sparse")).unwrap();
    sparse.set_len(1 << 20).unwrap();
    fs::write(job.join("train.done"), "").unwrap();
    let small: u64 = ["params.json", "train.out", "train.py", "model.bin"]
        .iter()
        .chain(&["data/uv.lock", ".experimaestro/status.json"])
        .map(|name| job.join(name).metadata().unwrap().len())
        .sum();
    let mounted = workspace.mount_archiving(&workspace.mountpoint("elsewhere"), &[]);
    let mut under_way = Value::Null;
    until("it is under way", || {
        let status = status(&workspace, mounted.path());
        under_way = status["archive"]["folders"][0]["under_way"].clone();
        under_way["bytes"].as_u64().is_some_and(|bytes| bytes > 0)
    });
    let total = &under_way["total"];
    assert_eq!(total["bytes"], small + (5 << 20), "{under_way}");
    assert_eq!(total["files"], 12, "{under_way}");
    let text = run(workspace.xpmfs().arg("status").arg(mounted.path()));
    assert!(
        text.contains(" of 12 files, ") && text.contains(" of 5.00 MiB"),
        "{text}"
    );
}

/// The control socket of a process that archives.
fn socket(workspace: &Workspace, process: &Process) -> Option<PathBuf> {
    let name = format!("archiver-{}.sock", process.0.id());
    let own = format!("/tmp/xpmfs-{}", rustix::process::geteuid().as_raw());
    let mut places = [
        PathBuf::from("/run/xpmfs"),
        workspace.top().join("xpmfs"),
        own.into(),
    ]
    .map(|place| place.join(&name))
    .into_iter();
    places.find(|path| path.exists())
}

#[test]
fn status_tells_of_who_archives_without_a_mount() {
    let workspace = Workspace::new();
    workspace.with_folders(&["backup"]);
    workspace.tune(QUICK);
    job::make(&workspace.primary(), 0);
    let asked = |arguments: &[&str]| {
        let arguments = [arguments, &["status", "-w", "test"]].concat();
        run(workspace.xpmfs().args(arguments))
    };
    let archivers = || -> Value {
        let mut status: Value = serde_json::from_str(&asked(&["--json"])).unwrap();
        status["archivers"].take()
    };
    assert!(asked(&[]).contains("test (not mounted)"));
    let mut killed = watch(&workspace);
    until("it tells what it has done", || {
        archivers()[0]["archive"]["folders"][0]["jobs"] == 1
    });
    let told = archivers();
    assert_eq!(told[0]["pid"], killed.0.id());
    assert_eq!(told[0]["locations"][1]["state"], "ok");
    let told = asked(&[]);
    let title = format!("archived by process {} since", killed.0.id());
    assert!(told.contains(&title), "{told}");
    assert!(told.contains(": 1 job archived since it began"), "{told}");
    assert!(!told.contains("test (not mounted)"), "{told}");
    // Another workspace's are not among them.
    let other = Workspace::new();
    other.with_folders(&["backup"]);
    let status = run(other.xpmfs().args(["--json", "status", "-w", "test"]));
    let status: Value = serde_json::from_str(&status).unwrap();
    assert_eq!(status["archivers"], serde_json::json!([]));
    let stale = socket(&workspace, &killed).unwrap();
    killed.0.kill().unwrap();
    killed.0.wait().unwrap();
    assert_eq!(archivers(), serde_json::json!([]));
    // Whoever comes next clears what that one has left, and leaves nothing.
    let mut ended = watch(&workspace);
    until("another one is asked", || {
        archivers()[0]["pid"] == ended.0.id()
    });
    assert!(!stale.exists());
    let own = socket(&workspace, &ended).unwrap();
    ended.signal("-TERM");
    assert!(ended.end(Duration::from_secs(10)).success());
    assert!(!own.exists());
}

#[test]
fn what_changes_between_its_backup_and_its_move_is_backed_up_again() {
    let workspace = Workspace::new();
    workspace.with_folders(&["backup", "move"]);
    workspace.tune(QUICK);
    let primary = workspace.primary();
    job::make(&primary, 0);
    let job = primary.join(job::path(0));
    let output = &mut File::options();
    let mut open = output.append(true).open(job.join("train.out")).unwrap();
    let _watching = watch(&workspace);
    let copies = ["backup", "move"].map(|mode| workspace.folder(mode).join(job::path(0)));
    until("it is backed up, and on its way", || {
        copies.iter().all(|copy| copy.exists())
    });
    open.write_all(b"late").unwrap();
    drop(open);
    until("it is moved", || job.is_symlink());
    for copy in &copies {
        let held = fs::read(copy.join("train.out")).unwrap();
        assert!(held.ends_with(b"late"), "{}", copy.display());
    }
}
