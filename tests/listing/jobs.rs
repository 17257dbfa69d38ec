//! `jobs list` and `jobs path`.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::common::hanging_fs::HangingFs;
use crate::common::{Workspace, fails, python, run};
use crate::generated::{TASK, line, tune, write_files, write_run};

fn list(workspace: &Workspace, arguments: &[&str]) -> Value {
    let mut command = workspace.xpmfs();
    command
        .args(["jobs", "list", "--json", "-w", "test"])
        .args(arguments);
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {said}"))
}

/// What is listed of each job, in order.
fn column(listed: &Value, key: &str) -> Vec<Value> {
    let jobs = listed.as_array().unwrap().iter();
    jobs.map(|job| job[key].clone()).collect()
}

#[test]
fn jobs_are_listed_as_by_experimaestro() {
    let Some(python) = python::interpreter() else {
        return;
    };
    let workspace = Workspace::new();
    tune(&workspace, true);
    let primary = workspace.primary();
    // The old layout: symlinks, some of which lead nowhere.
    for (number, directory) in ["jobs", "jobs.bak", "jobs"].iter().enumerate() {
        let hash = format!("{number:04x}{:060x}", number * 7919);
        let link = primary
            .join("xp/old")
            .join(directory)
            .join(TASK)
            .join(&hash);
        fs::create_dir_all(link.parent().unwrap()).unwrap();
        symlink(primary.join("jobs").join(TASK).join(hash), link).unwrap();
    }
    symlink(
        "/nowhere",
        primary.join("xp/old/jobs").join(TASK).join("dangling"),
    )
    .unwrap();
    fs::create_dir_all(primary.join("experiments/empty")).unwrap();
    // Without `current`, the last run by its name.
    let lines = line("t", "a", &json!({}), 1.0);
    let run = write_run(&primary, "newest", "20260101_000000.1", &lines, &json!({}));
    let lines = line("t", "b", &json!({}), 1.0);
    write_run(
        &primary,
        "newest",
        "20260101_000000.2",
        &lines,
        &json!({"b": "error:MEMORY"}),
    );
    fs::remove_file(run.with_file_name("current")).unwrap();

    let experiments = ["tune", "old", "empty", "newest"];
    let counts = [3, 1000];
    let queries = workspace.top().join("queries.json");
    let query = json!({"experiments": experiments, "filters": [], "counts": counts});
    fs::write(&queries, query.to_string()).unwrap();
    let command = python::script(&python, &workspace.top(), "list_jobs.py");
    let theirs = python::report(command, &[&primary, &queries]);
    for experiment in experiments {
        let ours = list(&workspace, &["-x", experiment, "--sort", "name"]);
        let mut expected = theirs["experiments"][experiment].clone();
        let expected = expected.as_array_mut().unwrap();
        expected.sort_by_key(|job| job["job"].to_string());
        // It lists a symlink that leads nowhere only in the present layout.
        assert_eq!(
            ours.as_array().unwrap().len(),
            expected.len() + usize::from(experiment == "old")
        );
        let of_dangling = |job: &Value| job.to_string().contains("/dangling");
        let ours = ours
            .as_array()
            .unwrap()
            .iter()
            .filter(|job| !of_dangling(job));
        for (ours, theirs) in ours.zip(expected) {
            for key in ["job", "state", "tags"] {
                assert_eq!(ours[key], theirs[key], "{experiment}: {ours}");
            }
            assert_eq!(ours["reason"], theirs["reason"], "{ours}");
            let seconds = ours["submitted"].as_str().map(|text| {
                let time: jiff::Timestamp = text.parse().unwrap();
                time.as_second()
            });
            // The times of the old layout are those of directories.
            if experiment != "old" {
                let submitted = theirs["submitted"].as_f64().map(|time| time as i64);
                assert_eq!(seconds, submitted, "{ours}");
            }
        }
    }
    let mut command = workspace.xpmfs();
    command.args(["experiments", "list", "--json", "-w", "test"]);
    let listed: Value = serde_json::from_str(&crate::common::run(&mut command)).unwrap();
    assert_eq!(listed.as_array().unwrap().len(), experiments.len());
    for experiment in listed.as_array().unwrap() {
        let theirs = &theirs["listed"][experiment["experiment"].as_str().unwrap()];
        if experiment["layout"] == "v1" {
            // It makes these up from the states of the jobs, without those of symlinks that lead nowhere.
            continue;
        }
        if experiment["runs"] == 0 {
            assert!(experiment["done"].is_null(), "{experiment}");
            continue;
        }
        for key in ["done", "failed", "jobs", "hostname"] {
            assert_eq!(experiment[key], theirs[key], "{experiment}");
        }
        if !experiment["current"].is_null() {
            assert_eq!(experiment["current"], theirs["current"], "{experiment}");
        }
    }
    // What experimaestro prints, in its order. Of jobs that are gone, it prints where they would be.
    for count in counts {
        let printed = theirs["printed"][count.to_string()].as_array().unwrap();
        let paths = printed.iter().map(|line| {
            let (_, path) = line.as_str().unwrap().split_once('/').unwrap();
            Value::from(format!("/{path}"))
        });
        let paths: Vec<Value> = paths.collect();
        let ours = list(&workspace, &["-x", "tune", "-c", &count.to_string()]);
        assert_eq!(column(&ours, "path"), paths);
    }
    // Without an experiment: all that it lists, and those that no current run refers to.
    workspace.finished("primary", "t", "unreferenced");
    let all = column(&list(&workspace, &["--sort", "name"]), "job");
    for job in theirs["all"].as_array().unwrap() {
        assert!(all.contains(job), "{job}");
    }
    assert!(all.contains(&json!("t/unreferenced")));
    assert!(
        !all.contains(&json!("t/a")),
        "of an older run, and in no location"
    );
}

#[test]
fn jobs_are_listed_wherever_they_lie() {
    let workspace = Workspace::new();
    for (location, hash) in [
        ("primary", "a1"),
        ("use", "u1"),
        ("backup", "b1"),
        ("move", "m1"),
        ("primary", "both"),
        ("backup", "both"),
    ] {
        workspace.finished(location, "my.train", hash);
    }
    // In a `use` folder, only finished jobs count; in the others, staging is nothing.
    write_files(
        &workspace.folder("use").join("jobs/my.train/unfinished"),
        &[],
    );
    write_files(
        &workspace.folder("backup").join("jobs/my.train/.tmp.x"),
        &[],
    );
    write_files(
        &workspace.primary().join("jobs/my.train/running"),
        &[("train.pid", "{}")],
    );
    let lines = line("my.train", "gone", &json!({"lr": 0.1}), 5.0)
        + &line("my.train", "a1", &json!({"lr": 0.2}), 6.0);
    write_run(
        &workspace.primary(),
        "e",
        "20260118_170744",
        &lines,
        &json!({"gone": "done"}),
    );
    let folder = |mode: &str| format!("{mode}:{}", workspace.folder(mode).display());
    let expected = json!([
        ["my.train/a1", "done", "primary"],
        ["my.train/b1", "done", folder("backup")],
        ["my.train/both", "done", "primary"],
        ["my.train/gone", "done", null],
        ["my.train/m1", "done", folder("move")],
        ["my.train/running", "running", "primary"],
        ["my.train/u1", "done", folder("use")],
    ]);
    let seen = || -> Value {
        let listed = list(&workspace, &["--sort", "name"]);
        let jobs = listed.as_array().unwrap().iter();
        jobs.map(|job| json!([job["job"], job["state"], job["location"]]))
            .collect()
    };
    assert_eq!(seen(), expected);
    {
        let _mounted = workspace.mount_in_place();
        assert_eq!(seen(), expected, "in place");
        let path = &list(&workspace, &["m1"])[0]["path"];
        assert_eq!(
            *path,
            workspace
                .primary()
                .join("jobs/my.train/m1")
                .to_str()
                .unwrap()
        );
    }
    let first = |arguments: &[&str]| column(&list(&workspace, arguments), "job")[0].clone();
    let count = |arguments: &[&str]| column(&list(&workspace, arguments), "job").len();
    assert_eq!(first(&["--location", "use"]), "my.train/u1");
    assert_eq!(first(&["--location", &folder("backup")]), "my.train/b1");
    assert_eq!(
        count(&["--location", workspace.folder("move").to_str().unwrap()]),
        1
    );
    assert_eq!(first(&["--filter", "lr = '0.2'"]), "my.train/a1");
    assert_eq!(first(&["--sort", "submitted"]), "my.train/a1");
    assert_eq!(first(&["--sort", "name", "--reverse"]), "my.train/u1");
    assert_eq!(count(&["my.train", "-c", "2"]), 2);
}

#[test]
fn a_table_has_sizes_tags_and_no_control_characters() {
    let workspace = Workspace::new();
    let job = workspace.finished("primary", "t.train", "a");
    fs::write(job.join("large"), vec![1; 3 << 20]).unwrap();
    let evil = OsStr::from_bytes(b"\x1b[31mevil\n\xff");
    let hostile = workspace.primary().join("jobs/t.train").join(evil);
    write_files(&hostile, &[("train.failed", "{\"reason\": \"\\u001b\"}")]);
    let tags = json!({"model": "a\u{1b}]0;title\u{7}b", "\u{1b}[2J": 1});
    write_run(
        &workspace.primary(),
        "e",
        "1",
        &line("t.train", "a", &tags, 1.0),
        &json!({}),
    );
    let mut command = workspace.xpmfs();
    command.args([
        "jobs", "list", "-w", "test", "--tags", "--size", "--sort", "size",
    ]);
    let printed = run(&mut command);
    assert!(
        !printed.contains('\u{1b}') && !printed.contains('\u{7}'),
        "{printed:?}"
    );
    let lines: Vec<&str> = printed.lines().collect();
    assert_eq!(lines.len(), 3, "{printed}");
    assert!(lines[0].starts_with("STATE  JOB"), "{printed}");
    assert!(
        lines[1].contains("t.train/a") && lines[1].contains("3.01 MiB"),
        "{printed}"
    );
    assert!(
        lines[1].contains("model=a\\u{1b}]0;title\\u{7}b"),
        "{printed}"
    );
    assert!(
        lines[2].starts_with("error  t.train/\\u{1b}[31mevil\\n"),
        "{printed}"
    );
    let listed = list(&workspace, &["--size", "a"]);
    let bytes = listed[0]["bytes"].as_u64().unwrap();
    let du = run(Command::new("sh")
        .args([
            "-c",
            "find . -type f -printf '%s\\n' | awk '{s+=$1} END {print s}'",
        ])
        .current_dir(&job));
    assert_eq!(bytes.to_string(), du.trim());
}

#[test]
fn a_path_leads_to_the_job() {
    let workspace = Workspace::new();
    for (location, hash) in [
        ("primary", "a1"),
        ("backup", "b1"),
        ("backup", "b2"),
        ("move", "m1"),
    ] {
        workspace.finished(location, "my.train", hash);
    }
    let path = |job: &str| {
        let mut command = workspace.xpmfs();
        command.args(["jobs", "path", "-w", "test", job]);
        command
    };
    let of =
        |root: &Path, hash: &str| format!("{}\n", root.join("jobs/my.train").join(hash).display());
    assert_eq!(run(&mut path("a1")), of(&workspace.primary(), "a1"));
    assert_eq!(
        run(&mut path("my.train/b1")),
        of(&workspace.folder("backup"), "b1")
    );
    assert_eq!(run(&mut path("m")), of(&workspace.folder("move"), "m1"));
    let inside = workspace
        .folder("backup")
        .join("jobs/my.train/b2/train.out");
    assert_eq!(
        run(&mut path(inside.to_str().unwrap())),
        of(&workspace.folder("backup"), "b2")
    );
    let mounted = workspace.mount_in_place();
    assert_eq!(run(&mut path("b1")), of(&workspace.primary(), "b1"));
    mounted.unmount();
    let output = fails(&mut path("b"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        said.contains("my.train/b1") && said.contains("my.train/b2"),
        "{said}"
    );
    let output = fails(&mut path("nothing"));
    assert!(output.stdout.is_empty());
}

#[test]
fn a_folder_that_hangs_does_not_keep_a_list_waiting() {
    let workspace = Workspace::new();
    workspace.tune("{folder_timeout: 300ms}");
    workspace.finished("primary", "t", "a");
    let disk = workspace.top().join("disk");
    write_files(&disk.join("jobs/t/b"), &[("t.done", "")]);
    let hanging = HangingFs::mount(&disk, &workspace.folder("backup"));
    hanging.hold(|operation, path| operation == "readdir" && path == Path::new("jobs/t"));
    let started = std::time::Instant::now();
    let mut command = workspace.xpmfs();
    let output = command
        .args(["jobs", "list", "-w", "test"])
        .output()
        .unwrap();
    assert!(started.elapsed().as_secs() < 15, "{:?}", started.elapsed());
    let printed = String::from_utf8_lossy(&output.stdout);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(printed.contains("t/a"), "{printed}");
    assert!(said.contains("does not answer"), "{said}");
    assert_eq!(output.status.code(), Some(1));
    // In the middle: one job of many.
    hanging.go_on();
    for hash in ["u1", "u2", "u3"] {
        write_files(&disk.join("jobs/t").join(hash), &[("t.done", "")]);
    }
    hanging.hold(|operation, path| operation == "lookup" && path == Path::new("jobs/t/u2/t.done"));
    let output = command.args(["--sort", "name"]).output().unwrap();
    let printed = String::from_utf8_lossy(&output.stdout);
    let state = |hash: &str| {
        let mut lines = printed.lines();
        let line = lines
            .find(|line| line.contains(hash))
            .unwrap_or_else(|| panic!("{printed}"));
        line.split(' ').next().unwrap().to_owned()
    };
    assert_eq!(state("t/a"), "done");
    assert_eq!(state("t/u2"), "unknown");
    hanging.go_on();
}

/// No settings name the directory: its mount has folders, and an empty list says why it is empty.
#[test]
fn a_directory_without_settings_has_the_folders_of_its_mount() {
    let workspace = Workspace::new();
    let (primary, backup) = (workspace.primary(), workspace.folder("backup"));
    workspace.finished("backup", TASK, "held");
    fs::write(workspace.settings(), "workspaces: []\n").unwrap();
    let folder = format!("backup:{}", backup.display());
    let listed = |directory: &Path| {
        let mut command = workspace.xpmfs();
        command.args(["jobs", "list", "--workdir"]).arg(directory);
        let output = command.output().unwrap();
        assert!(output.status.success());
        let [out, err] = [output.stdout, output.stderr].map(|it| String::from_utf8(it).unwrap());
        (out, err)
    };
    let (out, err) = listed(&primary);
    assert!(!out.contains("held"), "{out}");
    assert!(
        err.contains("has no jobs, and no folders in the settings"),
        "{err}"
    );
    let mountpoint = workspace.mountpoint("elsewhere");
    let mut command = workspace.xpmfs();
    command
        .arg("mount")
        .arg("--log")
        .arg(workspace.top().join("xpmfs.log"));
    command
        .arg("--workdir")
        .arg(&primary)
        .args(["--folder", &folder]);
    let mounted = workspace.mounting(command.arg(&mountpoint), &mountpoint);
    for directory in [&primary, &mountpoint] {
        let (out, err) = listed(directory);
        assert!(out.contains("held") && out.contains(&folder), "{out}");
        assert!(err.contains("using the folders of the mount at"), "{err}");
    }
    mounted.unmount();
}
