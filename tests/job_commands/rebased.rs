//! A recovered job belongs to this workspace: its `params.json` has this workspace's paths, and it counts as accessed now.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;

use super::common::{program, python};
use super::stage::{HASH, Stage, TASK, assert_tree, moment, said, set_time, whole, write_job};
use super::tree::tree;

const PARAMS: &str = r#"{"workspace": "/old/ws", "version": 2, "lr": 1.50e-3, "limit": Infinity, "unknown": "é",
 "objects": [{"x": {"type": "path", "value": "/old/ws/jobs/t/h/model"}, "y": {"type": "path", "value": "/data/set"}}]}"#;

/// A stage whose job with these parameters is in the backup alone, and the job as it was.
fn lost(params: &str) -> (Stage, super::stage::Tree) {
    let stage = Stage::on_disk(&["backup"]);
    write_job(&stage.job());
    let file = stage.job().join("params.json");
    fs::write(&file, params).unwrap();
    set_time(&file, moment(7));
    let job = whole(&stage.job()).unwrap();
    stage.archive();
    fs::remove_dir_all(stage.job()).unwrap();
    (stage, job)
}

fn recover(stage: &Stage) -> String {
    let output = stage.jobs(&["recover", "--all"]);
    assert!(output.status.success(), "{}", said(&output));
    said(&output)
}

/// The time of the last access of each entry is later.
fn assert_accessed_since(job: &Path, before: SystemTime) {
    let before = before.duration_since(UNIX_EPOCH).unwrap() - Duration::from_millis(20);
    for path in tree(job).into_keys() {
        let found = fs::symlink_metadata(job.join(&path)).unwrap();
        let accessed = Duration::new(
            found.atime().try_into().unwrap(),
            found.atime_nsec().try_into().unwrap(),
        );
        assert!(accessed >= before, "{}: {accessed:?}", path.display());
    }
}

#[test]
fn a_recovered_job_has_the_paths_of_this_workspace_and_the_times_of_the_original() {
    let (stage, mut job) = lost(PARAMS);
    let before = SystemTime::now();
    let said_by = recover(&stage);
    assert!(said_by.contains("recovering 1 job into"), "{said_by}");
    assert_accessed_since(&stage.job(), before);
    let primary = stage.primary();
    let expected = PARAMS.replace("/old/ws", primary.to_str().unwrap());
    let file = stage.job().join("params.json");
    assert_eq!(fs::read_to_string(&file).unwrap(), expected);
    assert_eq!(fs::metadata(&file).unwrap().modified().unwrap(), moment(7));
    // All the rest, times to the nanosecond and modes included, is as it was.
    let mut found = whole(&stage.job()).unwrap();
    let left_out = Path::new("params.json");
    assert!(found.remove(left_out).is_some() && job.remove(left_out).is_some());
    assert_tree("the recovered job", &job, Some(&found));
    assert_same_as_experimaestro(&stage, &expected);

    // It is no reason for a new copy, and the copy is whole.
    let copy = tree(&stage.archived("backup"));
    let output = stage.jobs(&["archive", "--all", "--json"]);
    let lines: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(lines[0]["result"], "present", "{lines}");
    assert_eq!(tree(&stage.archived("backup")), copy);
    stage.verify_all();
    // Until something else changes.
    fs::write(stage.job().join("note"), "new").unwrap();
    stage.archive();
    let archived = stage.archived("backup").join("params.json");
    assert_eq!(fs::read_to_string(archived).unwrap(), expected);
    stage.verify();
}

#[test]
fn symlinks_to_partials_lead_to_this_workspace() {
    let stage = Stage::on_disk(&["backup"]);
    write_job(&stage.job());
    fs::write(stage.job().join("params.json"), PARAMS).unwrap();
    let links = Path::new(".experimaestro/partials");
    fs::create_dir_all(stage.job().join(links)).unwrap();
    let link = links.join("checkpoints");
    let partial = "partials/my.module.train/checkpoints/1f";
    let former = Path::new("/old/ws").join(partial);
    symlink(&former, stage.job().join(&link)).unwrap();
    stage.archive();
    fs::remove_dir_all(stage.job()).unwrap();
    recover(&stage);
    let target = fs::read_link(stage.job().join(&link)).unwrap();
    assert_eq!(target, stage.primary().join(partial));
    let target = fs::read_link(stage.archived("backup").join(&link)).unwrap();
    assert_eq!(target, former);
    // It is no reason for a new copy, nor one to keep the job, and the rest of a purge is recognized.
    let output = stage.jobs(&["archive", "--all", "--json"]);
    let lines: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(lines[0]["result"], "present", "{lines}");
    let name = format!("{TASK}/{HASH}");
    fs::remove_file(stage.job().join("train.out")).unwrap();
    let output = stage.jobs(&["where", "--json", &name]);
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(found[0]["copies"][0]["state"], "purged", "{found}");
    recover(&stage);
    let output = stage.jobs(&["release", "--yes", &name]);
    assert!(output.status.success(), "{}", said(&output));
    assert!(!stage.job().exists());
}

/// experimaestro's own rewriting, of `experiments copy`, gives the same values.
fn assert_same_as_experimaestro(stage: &Stage, expected: &str) {
    let Some(python) = python::interpreter() else {
        return;
    };
    let top = stage.top();
    fs::create_dir(top.join("theirs")).unwrap();
    fs::write(top.join("theirs/params.json"), PARAMS).unwrap();
    let script = "
import json, sys
from pathlib import Path
from experimaestro.copy_experiment import _rewrite_params_json
class Workspace:
    is_remote = False
    path = Path(sys.argv[1])
_rewrite_params_json(Workspace, 'theirs', '/old/ws', sys.argv[2])
theirs = json.loads((Workspace.path / 'theirs/params.json').read_text())
assert theirs == json.loads(sys.argv[3]), theirs
";
    let mut command = std::process::Command::new(python);
    command
        .args(["-c", script])
        .arg(&top)
        .arg(stage.primary())
        .arg(expected);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
}

#[test]
fn a_file_that_only_its_owner_may_read_is_rewritten_too() {
    let (stage, _) = lost(PARAMS);
    // The copy has the mode, and so has the recovered job.
    let copy = stage.archived("backup").join("params.json");
    fs::set_permissions(&copy, Permissions::from_mode(0o440)).unwrap();
    recover(&stage);
    let file = stage.job().join("params.json");
    assert!(!fs::read_to_string(&file).unwrap().contains("/old/ws"));
    assert_eq!(fs::metadata(&file).unwrap().mode() & 0o7777, 0o440);
}

#[test]
fn a_file_that_cannot_be_understood_stays_as_it_is() {
    for (params, warns) in [
        ("{\"workspace\": \"/old/ws\"", true),
        ("{\"workspace\": 1}", true),
        ("{\"version\": 3, \"objects\": []}", false),
    ] {
        let (stage, job) = lost(params);
        let said_by = recover(&stage);
        let warned = said_by.contains("params.json is recovered as it is in the copy");
        assert_eq!(warned, warns, "{params}: {said_by}");
        assert_tree("the job", &job, whole(&stage.job()).as_ref());
    }
}

#[test]
fn a_copy_without_a_manifest_counts_as_accessed_now_too() {
    let (stage, job) = lost("{}");
    let manifests = stage.folder("backup").join(".xpmfs/manifests");
    fs::remove_file(manifests.join(TASK).join(format!("{HASH}.json"))).unwrap();
    for path in job.keys() {
        set_time_of_access(&stage.archived("backup").join(path));
    }
    let before = SystemTime::now();
    recover(&stage);
    assert_accessed_since(&stage.job(), before);
    assert_tree("the job", &job, whole(&stage.job()).as_ref());
}

/// Sets the time of the last access to long ago, and leaves the time of change.
fn set_time_of_access(path: &Path) {
    let Ok(file) = File::open(path) else { return };
    let times = fs::FileTimes::new().set_accessed(moment(1));
    file.set_times(times).unwrap();
}

/// A file that is being rewritten when the disk is full must not be taken for the job's.
#[test]
fn a_job_whose_params_cannot_be_written_is_not_recovered() {
    if program("strace").is_none() {
        return;
    }
    let (stage, _) = lost(PARAMS);
    let staged = stage.job().with_file_name(format!(".tmp.{HASH}"));
    let fault = [
        "-o".to_owned(),
        stage.top().join("strace").to_str().unwrap().to_owned(),
        "--trace=ftruncate".to_owned(),
        "--inject=ftruncate:error=ENOSPC".to_owned(),
        "-P".to_owned(),
        staged.join("params.json").to_str().unwrap().to_owned(),
    ];
    let output = stage.by_one_thread("recover", &fault).output().unwrap();
    let log = fs::read_to_string(stage.top().join("strace")).unwrap();
    assert!(log.contains("INJECTED"), "{log}");
    assert!(!output.status.success(), "{}", said(&output));
    assert!(said(&output).contains("params.json"), "{}", said(&output));
    assert!(!stage.job().exists(), "a torn file was published");
    recover(&stage);
    let text = fs::read_to_string(stage.job().join("params.json")).unwrap();
    let primary = stage.primary();
    assert_eq!(text, PARAMS.replace("/old/ws", primary.to_str().unwrap()));
}
