//! Copies from one local workspace to another.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::fs::FlockOperation;
use serde_json::{Value, json};

use crate::common::{eventually, run};
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
    let archived = run(scene
        .xpmfs()
        .args(["jobs", "archive", "--all", "-w", "from"]));
    drop(archived);
    // Lost, and purged.
    let whole = scene.workspace("from").with_file_name("whole");
    run(Command::new("cp")
        .args(["-a"])
        .arg(scene.job_path("from", "1b"))
        .arg(&whole));
    fs::remove_dir_all(scene.job_path("from", "0a")).unwrap();
    fs::remove_file(scene.job_path("from", "1b").join("model.bin")).unwrap();
    // The destination's folder has the third.
    let there = theirs.join("jobs").join(scene.task());
    fs::create_dir_all(&there).unwrap();
    run(Command::new("cp")
        .args(["-a"])
        .arg(scene.job_path("from", "2c"))
        .arg(there.join("2c")));
    let copied = scene.copied(RUN, true);
    assert_eq!(
        (
            number(&copied, "jobs_copied"),
            number(&copied, "jobs_skipped")
        ),
        (2, 1),
        "{copied}"
    );
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
fn a_copy_that_was_killed_is_finished_by_the_next() {
    let scene = Scene::new();
    // More than threads, so that one of them does a second rename.
    let hashes: Vec<String> = (10..30).map(|number| format!("{number}f")).collect();
    let hashes: Vec<&str> = hashes.iter().map(String::as_str).collect();
    let jobs: Vec<_> = hashes.iter().map(|hash| scene.job("from", hash)).collect();
    scene.run(RUN, &hashes);
    // Killed when a thread renames its second job.
    let mut killed = Command::new("strace");
    killed
        .args([
            "-f",
            "-qq",
            "-e",
            "trace=renameat2",
            "-e",
            "inject=renameat2:signal=KILL:when=2",
        ])
        .args(["-o", "/dev/null"])
        .arg(env!("CARGO_BIN_EXE_xpmfs"))
        .arg("--settings")
        .arg(scene.top().join("settings.yaml"))
        .args([
            "experiments",
            "copy",
            "--from-workspace=from",
            "--to-workspace=to",
            "-y",
            "xp",
            RUN,
        ])
        .env("XDG_RUNTIME_DIR", scene.top())
        .stderr(Stdio::null());
    assert!(!killed.status().unwrap().success());
    let there = || {
        let there = hashes
            .iter()
            .filter(|hash| scene.job_path("to", hash).exists());
        there.count()
    };
    assert!(there() < 20 && !scene.run_path("to", RUN).exists());
    let staging = scene.workspace("to").join(".xpm-staging");
    assert!(staging.exists());
    // The worker ends with its front, a moment later.
    eventually("the killed copy to end", || {
        let lock = fs::read_dir(&staging)
            .unwrap()
            .next()
            .unwrap()
            .unwrap()
            .path()
            .join(".lock");
        rustix::fs::flock(
            File::open(lock).unwrap(),
            FlockOperation::NonBlockingLockShared,
        )
        .is_ok()
    });
    let before = there() as u64;
    let copied = scene.copied(RUN, true);
    assert_eq!(
        (
            number(&copied, "jobs_skipped"),
            number(&copied, "jobs_copied")
        ),
        (before, 20 - before)
    );
    for (job, hash) in jobs.iter().zip(&hashes) {
        scene.assert_copied(job, hash);
    }
    scene.assert_clean();
}

#[test]
fn missing_arguments_are_named_without_a_terminal_and_asked_for_at_one() {
    let scene = Scene::new();
    scene.job("from", "0a");
    scene.run(RUN, &["0a"]);
    let tries = |arguments: &[&str]| {
        let mut command = scene.xpmfs();
        command
            .args(["experiments", "copy"])
            .args(arguments)
            .stdin(Stdio::null());
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), said)
    };
    let (status, said) = tries(&[]);
    assert!(
        status == Some(2) && said.contains("--from-workspace"),
        "{said}"
    );
    let ends = ["--from-workspace=from", "--to-workspace=to"];
    let (status, said) = tries(&[ends[0]]);
    assert!(
        status == Some(2) && said.contains("--to-workspace"),
        "{said}"
    );
    let (status, said) = tries(&ends);
    assert!(
        status == Some(2) && said.contains("experiments list"),
        "{said}"
    );
    // The only run.
    let (status, said) = tries(&[&ends[..], &["xp"]].concat());
    assert!(
        status == Some(0) && said.contains("would copy xp/20260101_000000"),
        "{said}"
    );
    let (status, said) = tries(&[&ends[..], &["xp", "current"]].concat());
    assert!(
        status == Some(0) && said.contains("would copy xp/20260101_000000"),
        "{said}"
    );
    let (status, said) = tries(&["--from-workspace=from", "--to-workspace=from", "xp", RUN]);
    assert!(status == Some(1) && said.contains("to itself"), "{said}");
    let (status, said) = tries(&[&ends[..], &["xp", "20200101_000000"]].concat());
    assert!(
        status == Some(1) && said.contains("xp/20200101_000000 does not exist"),
        "{said}"
    );
    scene.job("from", "1b");
    scene.run("20260202_000000", &["0a", "1b"]);
    let (status, said) = tries(&[&ends[..], &["xp"]].concat());
    assert!(
        status == Some(2) && said.contains("experiments runs"),
        "{said}"
    );

    // At a terminal: the first workspace, the other one, the experiment; of the runs, the one before the current one.
    let xpmfs = env!("CARGO_BIN_EXE_xpmfs");
    let settings = scene.top().join("settings.yaml");
    let inner = format!(
        "{xpmfs} --settings {} experiments copy -y",
        settings.display()
    );
    let mut terminal = Command::new("script");
    terminal
        .args(["-qec", &inner, "/dev/null"])
        .env("XDG_RUNTIME_DIR", scene.top())
        .env("TERM", "xterm")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut terminal = terminal.spawn().unwrap();
    let mut keys = terminal.stdin.take().unwrap();
    let mut output = terminal.stdout.take().unwrap();
    let mut shown = String::new();
    for (title, answer) in [
        ("Copy from", "\r"),
        ("Copy to", "\r"),
        ("Experiment", "\r"),
        ("Run", "\x1b[A\r"),
    ] {
        use std::io::{Read, Write};
        while !shown.contains(title) {
            let mut buffer = [0; 4096];
            let length = output.read(&mut buffer).unwrap();
            assert!(length > 0, "{title} in {shown}");
            shown += &String::from_utf8_lossy(&buffer[..length]);
        }
        keys.write_all(answer.as_bytes()).unwrap();
    }
    std::io::Read::read_to_string(&mut output, &mut shown).unwrap();
    assert!(terminal.wait().unwrap().success(), "{shown}");
    assert!(
        shown.contains("copied xp/20260101_000000 and 1 job"),
        "{shown}"
    );
    assert!(scene.run_path("to", RUN).exists());
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
