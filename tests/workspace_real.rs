//! What is read of a workspace, against what the real experimaestro sees in the same one.

// clippy.toml allows these in test functions only, not in what they call.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::symlink;
use std::path::Path;

use common::python;
use jiff::Timestamp;
use serde_json::{Value, json};

use xpmfs::workspace::experiments::{
    self, Experiment, list_experiments, list_runs, resolve_current_run,
};
use xpmfs::workspace::job_files::{JobStatus, Params, RELATIVE_PATHS};
use xpmfs::workspace::jobs_jsonl::SubmittedJob;
use xpmfs::workspace::layout::{Recognition, recognise};
use xpmfs::workspace::markers::{self, State};
use xpmfs::workspace::runs::{Layout, Run, format_run_id};
use xpmfs::workspace::{JobId, internal, jobs};

/// Runs the plan in `workspace`, and gives what it says of itself.
fn plan(python: &Path, workspace: &Path, arguments: &[&str]) -> Value {
    let home = workspace.parent().unwrap();
    let mut command = python::script(python, home, "plan.py");
    command
        .arg(workspace)
        .arg("--json")
        .arg("--executions")
        .arg(home.join("executions"));
    python::report(command, arguments)
}

/// What experimaestro says of `workspace`.
fn oracle(python: &Path, workspace: &Path) -> Value {
    let command = python::script(python, workspace.parent().unwrap(), "read_workspace.py");
    let mut seen = python::report(command, &[workspace]);
    for experiment in seen["experiments"].as_array_mut().unwrap() {
        for run in experiment["runs"].as_array_mut().unwrap() {
            let old_layout = run["id"] == "v1";
            if old_layout {
                // Made up from the files' times and the jobs' states; it is not on disk.
                for key in ["started", "status", "hostname"] {
                    run[key] = Value::Null;
                }
            }
            for job in run["jobs"].as_array_mut().unwrap() {
                if old_layout {
                    job["submitted"] = Value::Null;
                }
            }
            sort(&mut run["jobs"], |job| {
                format!("{}/{}", job["task_id"], job["hash"])
            });
        }
        sort(&mut experiment["runs"], |run| run["id"].to_string());
    }
    sort(&mut seen["experiments"], |experiment| {
        experiment["id"].to_string()
    });
    seen
}

fn sort(list: &mut Value, key: impl FnMut(&Value) -> String) {
    list.as_array_mut().unwrap().sort_by_cached_key(key);
}

fn seconds(timestamp: Option<Timestamp>) -> Value {
    timestamp.map_or(Value::Null, |t| json!(t.as_duration().as_secs_f64()))
}

/// Asserts that two descriptions are the same, times to the microsecond.
fn assert_same(ours: &Value, theirs: &Value, place: &str) {
    match (ours, theirs) {
        (Value::Object(a), Value::Object(b)) => {
            assert!(a.keys().eq(b.keys()), "{place}: {a:?}\n{b:?}");
            for (key, value) in a {
                assert_same(value, &b[key], &format!("{place}.{key}"));
            }
        }
        (Value::Array(a), Value::Array(b)) => {
            assert_eq!(a.len(), b.len(), "{place}: {a:?}\n{b:?}");
            for (index, value) in a.iter().enumerate() {
                assert_same(value, &b[index], &format!("{place}[{index}]"));
            }
        }
        (Value::Number(a), Value::Number(b)) if place.ends_with("ed") => {
            // `started`, `submitted`: Python's seconds have a quarter of a microsecond.
            let apart = (a.as_f64().unwrap() - b.as_f64().unwrap()).abs();
            assert!(apart < 1e-6, "{place}: {a} {b}");
        }
        _ => assert_eq!(ours, theirs, "{place}"),
    }
}

/// What we see in the workspace, in the oracle's form.
fn ours(workspace: &Path) -> Value {
    let experiments = experiments::list(workspace);
    assert!(experiments.errors.is_empty(), "{:?}", experiments.errors);
    let described = experiments
        .found
        .iter()
        .map(|e| describe_experiment(workspace, e));
    json!({ "experiments": described.collect::<Vec<_>>() })
}

fn describe_experiment(workspace: &Path, experiment: &Experiment) -> Value {
    let runs = experiment.runs();
    assert!(runs.errors.is_empty(), "{:?}", runs.errors);
    let described = runs.found.iter().map(|run| describe_run(workspace, run));
    json!({
        "id": experiment.id.to_str().unwrap(),
        "current": experiment.current().unwrap().map(|run| run.to_string()),
        "runs": described.collect::<Vec<_>>(),
    })
}

fn describe_run(workspace: &Path, run: &Run) -> Value {
    let links = run.job_links();
    assert!(links.errors.is_empty(), "{:?}", links.errors);
    let submitted = match run.jobs().unwrap() {
        Some(lines) => lines.collect::<Result<Vec<_>, _>>().unwrap(),
        None => Vec::new(),
    };
    if run.layout == Layout::V2 {
        let mut ids: Vec<_> = submitted.iter().map(|job| job.id.clone()).collect();
        ids.sort();
        assert_eq!(ids, links.found);
    }
    let describe = |id| {
        let submitted = submitted.iter().find(|job| &job.id == id);
        describe_job(workspace, id, submitted)
    };
    let status = run.status().unwrap();
    json!({
        "id": run.id.to_string(),
        "status": status.as_ref().map(|s| s.status.as_ref().unwrap().to_string()),
        "started": seconds(status.as_ref().and_then(|s| s.started)),
        "hostname": status.as_ref().and_then(|s| s.hostname.clone()),
        "jobs": links.found.iter().map(describe).collect::<Vec<_>>(),
    })
}

fn describe_job(workspace: &Path, id: &JobId, submitted: Option<&SubmittedJob>) -> Value {
    let path = workspace.join("jobs").join(id.path());
    let directory = File::open(&path).unwrap();
    let state = match markers::read(&directory, id.name()).unwrap().state() {
        State::Done => "done",
        State::Failed => "error",
        State::Unfinished => "unfinished",
    };
    let status = JobStatus::read(&path).unwrap().unwrap();
    assert_eq!(status.state.unwrap().to_string(), state);
    json!({
        "task_id": id.task_id().to_str().unwrap(),
        "hash": id.hash().to_str().unwrap(),
        "name": id.name().to_str().unwrap(),
        "state": state,
        "started": seconds(status.started),
        "submitted": seconds(submitted.and_then(|job| job.submitted)),
        "tags": submitted.map(|job| json!(job.tags)).unwrap_or(json!({})),
    })
}

/// Asserts that what the plan said of a run is what is found on disk.
fn assert_as_planned(seen: &Value, planned: &Value) {
    let runs = seen["experiments"].as_array().unwrap().iter();
    let run = runs
        .filter(|experiment| experiment["id"] == planned["experiment"])
        .flat_map(|experiment| experiment["runs"].as_array().unwrap())
        .find(|run| run["id"] == planned["run"])
        .expect("the run of the plan");
    let planned = planned["jobs"].as_array().unwrap();
    assert_eq!(run["jobs"].as_array().unwrap().len(), planned.len());
    for job in planned {
        let found = run["jobs"]
            .as_array()
            .unwrap()
            .iter()
            .find(|j| j["hash"] == job["hash"]);
        for key in ["task_id", "state", "tags"] {
            assert_eq!(found.expect("the job of the plan")[key], job[key]);
        }
    }
}

#[test]
fn a_real_workspace_is_read_as_experimaestro_reads_it() {
    let Some(python) = python::interpreter() else {
        return;
    };
    let temporary = tempfile::tempdir().unwrap();
    let workspace = temporary.path().join("wörk space");
    fs::create_dir(&workspace).unwrap();
    let look = || recognise(File::open(&workspace).unwrap()).unwrap();
    assert_eq!(look(), Recognition::Neither);

    let failing = plan(&python, &workspace, &["2", "--failing"]);
    let again = plan(&python, &workspace, &["2"]);
    let other = plan(&python, &workspace, &["3", "--experiment", "other"]);
    assert_eq!(look(), Recognition::Workspace);
    lay_out_as_of_old(&workspace, &failing);

    let seen = ours(&workspace);
    assert_same(&seen, &oracle(&python, &workspace), "");
    for planned in [&failing, &again, &other] {
        assert_as_planned(&seen, planned);
    }

    // One preparation, three trainings, one failure: nothing ran twice.
    let executions = fs::read_to_string(temporary.path().join("executions")).unwrap();
    let mut ran: Vec<_> = executions
        .lines()
        .map(|line| JobId::parse(line).unwrap())
        .collect();
    ran.sort();
    assert_eq!(ran.len(), 5);
    assert_eq!(jobs::list(&workspace.join("jobs")).found, ran);
    for id in &ran {
        assert_whole(&workspace, id);
    }
}

/// An experiment of the v1 layout, with some of its jobs in `jobs.bak`.
fn lay_out_as_of_old(workspace: &Path, planned: &Value) {
    for (index, job) in planned["jobs"].as_array().unwrap().iter().enumerate() {
        let directory = ["jobs", "jobs.bak"][index % 2];
        let (task, hash) = (
            job["task_id"].as_str().unwrap(),
            job["hash"].as_str().unwrap(),
        );
        let tasks = workspace.join("xp/old").join(directory).join(task);
        fs::create_dir_all(&tasks).unwrap();
        symlink(
            workspace.join("jobs").join(task).join(hash),
            tasks.join(hash),
        )
        .unwrap();
    }
}

/// The job's parameters, and which of its entries are experimaestro's own.
fn assert_whole(workspace: &Path, id: &JobId) {
    let path = workspace.join("jobs").join(id.path());
    let params = Params::read(&path).unwrap().unwrap();
    assert_eq!(params.workspace, workspace);
    assert_eq!(params.version, RELATIVE_PATHS);

    let name = id.name().to_str().unwrap();
    let mut own = Vec::new();
    for entry in fs::read_dir(&path).unwrap() {
        let entry = entry.unwrap();
        let metadata = entry.metadata().unwrap();
        let class = internal::classify(
            entry.file_name().as_encoded_bytes(),
            name.as_bytes(),
            metadata.is_dir(),
            Some(metadata.len()),
        );
        if class.is_internal() {
            own.push(entry.file_name().into_string().unwrap());
        }
    }
    assert_eq!(own, [format!("{name}.lock")]);
}

/// A name from its bytes in hexadecimal.
fn decoded(hex: &Value) -> OsString {
    let hex = hex.as_str().unwrap();
    let byte = |at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
    OsString::from_vec((0..hex.len()).step_by(2).map(byte).collect())
}

fn encoded(name: &OsStr) -> Value {
    let bytes = name.as_bytes().iter();
    bytes
        .map(|byte| format!("{byte:02x}"))
        .collect::<String>()
        .into()
}

fn all_encoded<'a>(names: impl IntoIterator<Item = &'a OsStr>) -> Value {
    names.into_iter().map(encoded).collect()
}

#[test]
fn experiments_and_runs_are_listed_as_by_the_copy_functions_of_experimaestro() {
    let Some(python) = python::interpreter() else {
        return;
    };
    let temporary = tempfile::tempdir().unwrap();
    let workspace = temporary.path().join("wörk space");
    let odd = OsStr::from_bytes(b"\xff \n$(id)'");
    let runs = [
        "20260118_170744",
        "20260118_170744.1",
        "20260118_170744.10",
        "20260118_170744.2",
        "20251231_235959",
        "-rf",
        "a b",
        "v1",
        "ü",
    ];
    for id in ["tune", "-x", "a b", ".dot"]
        .map(OsStr::new)
        .into_iter()
        .chain([odd])
    {
        for run in runs {
            fs::create_dir_all(workspace.join("experiments").join(id).join(run)).unwrap();
        }
    }
    let experiment = |id: &str| workspace.join("experiments").join(id);
    fs::write(experiment("tune").join("lock"), "").unwrap();
    fs::write(experiment("file"), "").unwrap();
    // A run that was tagged (`experiments tag`), through whose name `current` leads.
    symlink("20260118_170744.1", experiment("tune").join("best")).unwrap();
    symlink("best", experiment("tune").join("current")).unwrap();
    symlink("gone", experiment("-x").join("current")).unwrap();
    symlink("/somewhere/else", experiment("a b").join("current")).unwrap();
    symlink("./../.dot/a b", experiment(".dot").join("current")).unwrap();
    symlink("tune", experiment("linked")).unwrap();
    symlink("nothing", experiment("dangling")).unwrap();
    fs::create_dir_all(experiment("empty")).unwrap();
    fs::create_dir_all(experiment("dir").join("current")).unwrap();
    for id in ["xp/old/jobs", "xp/tune/jobs", "xp/ö l d/jobs.bak"] {
        fs::create_dir_all(workspace.join(id)).unwrap();
    }
    // Where experimaestro differs: see below.
    fs::create_dir_all(experiment("staged").join(".tmp.20260118_170744")).unwrap();
    symlink("current", experiment("staged").join("current")).unwrap();

    let formatted = [
        "20260118_170744",
        "20260118_170744.1",
        "2026011_1707441",
        "abcdefgh_ijklmn",
        "äöü12345_123456",
        "",
        "v1",
    ];
    let command = python::script(&python, temporary.path(), "copy_functions.py");
    let arguments = [&[workspace.to_str().unwrap()], &formatted[..]].concat();
    let theirs = python::report(command, &arguments);
    assert_eq!(json!(formatted.map(format_run_id)), theirs["formatted"]);

    // experimaestro's function leaves out the old layout, which its other functions know.
    let mut all = theirs["listed"].as_array().unwrap().clone();
    all.extend(theirs["old"].as_array().unwrap().iter().cloned());
    let mut all: Vec<OsString> = all.iter().map(decoded).collect();
    all.sort();
    let listed = list_experiments(&workspace);
    assert!(listed.errors.is_empty(), "{:?}", listed.errors);
    assert_eq!(listed.found, all);
    assert_eq!(all.len(), 11);

    for id in &listed.found {
        let runs = list_runs(&workspace, id);
        let theirs = &theirs["experiments"][encoded(id).as_str().unwrap()];
        assert!(runs.errors.is_empty(), "{:?}", runs.errors);
        let found = all_encoded(runs.found.iter().map(|run| run.as_os_str()));
        let is_old = workspace.join("xp").join(id).exists() && id != "tune";
        let current = resolve_current_run(&workspace, id);
        match id.to_str() {
            // It lists the staging of an unfinished copy as a run, and fails where `current` leads to itself.
            Some("staged") => {
                assert_eq!(theirs["runs"].as_array().unwrap().len(), 1);
                assert_eq!(found, json!([]));
                assert!(current.is_err(), "{current:?}");
                continue;
            }
            _ if is_old => assert_eq!(found, all_encoded([OsStr::new("v1")])),
            _ => assert_eq!(found, theirs["runs"], "{id:?}"),
        }
        let current = current.unwrap();
        let current = current.map_or(Value::Null, |run| encoded(run.as_os_str()));
        assert_eq!(current, theirs["current"], "{id:?}");
    }
}
