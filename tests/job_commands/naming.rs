//! What names a job: `task_id/hash`, the start of a hash, a path, a task, or a glob.

use std::fs;
use std::path::Path;

use super::stage::{HASH, Stage, TASK, said, write_job};

const OTHER: &str = "8f3d0000";
const TEST: &str = "my.module.test";

/// A workspace with two jobs of one task, whose hashes have three characters in common, and a job of another task.
fn stage() -> Stage {
    let stage = Stage::new(&["backup"]);
    write_job(&stage.job());
    write_job(&stage.job().with_file_name(OTHER));
    let test = stage.primary().join("jobs").join(TEST);
    fs::create_dir(&test).unwrap();
    write_job(&test.join("aaaa"));
    fs::rename(test.join("aaaa/train.done"), test.join("aaaa/test.done")).unwrap();
    stage
}

/// The jobs of a task that the folder has.
fn archived(stage: &Stage, task: &str) -> Vec<String> {
    let jobs = stage.folder("backup").join("jobs").join(task);
    let entries = fs::read_dir(jobs).into_iter().flatten();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| !name.starts_with('.'))
        .collect();
    names.sort();
    names
}

fn assert_archives(text: &str, expected: &[&str]) {
    let stage = stage();
    let output = stage.jobs(&["archive", text]);
    assert!(output.status.success(), "{text}: {}", said(&output));
    assert_eq!(archived(&stage, TASK), expected, "{text}");
}

#[test]
fn the_start_of_a_hash_names_a_job_and_that_of_several_lists_them() {
    assert_archives("8f3d", &[OTHER]);
    assert_archives(&format!("{TASK}/8f3c"), &[HASH]);
    let stage = stage();
    for command in ["archive", "verify", "recover", "opt-out", "opt-in"] {
        let output = stage.jobs(&[command, "8f3"]);
        assert_eq!(output.status.code(), Some(1), "{command}");
        assert_eq!(
            said(&output),
            format!(
                "xpmfs: \"8f3\" is the start of 2 jobs: write more of the hash\n  {TASK}/{HASH}\n  {TASK}/{OTHER}\n"
            ),
            "{command}"
        );
    }
    assert_eq!(archived(&stage, TASK), [] as [&str; 0]);
}

#[test]
fn a_task_and_a_glob_name_their_jobs() {
    assert_archives(TASK, &[HASH, OTHER]);
    assert_archives(&format!("jobs/{TASK}/"), &[HASH, OTHER]);
    assert_archives("*.train", &[HASH, OTHER]);
    assert_archives("*/8f3d*", &[OTHER]);
    let stage = stage();
    for wrong in ["no.such*", "no.such"] {
        let output = stage.jobs(&["archive", wrong]);
        assert_eq!(output.status.code(), Some(1), "{wrong}");
        assert!(
            said(&output).contains(&format!("no job \"{wrong}\"")),
            "{}",
            said(&output)
        );
    }
    // Every job command accepts them.
    let does = |arguments: &[&str]| {
        let output = stage.jobs(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", said(&output));
        said(&output)
    };
    assert!(does(&["opt-out", TEST]).contains("will no longer be archived"));
    does(&["archive", "my.module.*"]);
    assert_eq!(archived(&stage, TEST), [] as [&str; 0], "it is opted out");
    assert!(does(&["opt-in", "*.test"]).contains("will be archived again"));
    does(&["archive", "my.module.*"]);
    assert!(does(&["verify", "my.module.*"]).contains("3 copies OK, 0 damaged"));
    fs::remove_dir_all(stage.primary().join("jobs")).unwrap();
    assert!(does(&["recover", TASK]).contains("2 jobs recovered"));
    assert!(!stage.primary().join("jobs").join(TEST).exists());
}

/// A task names the jobs that can be archived: one that has not finished is no error then.
#[test]
fn a_task_skips_unfinished_jobs_and_a_name_does_not() {
    let stage = stage();
    fs::remove_file(stage.job().join("train.done")).unwrap();
    let output = stage.jobs(&["archive", TASK]);
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(archived(&stage, TASK), [OTHER]);
    let output = stage.jobs(&["archive", HASH]);
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("not finished"), "{}", said(&output));
    // It is in no folder: verified by its task, that is no error either.
    assert!(stage.jobs(&["verify", TASK]).status.success());
    assert_eq!(stage.jobs(&["verify", HASH]).status.code(), Some(1));
}

#[test]
fn a_path_names_a_job_wherever_it_leads_through() {
    let path = |path: &Path| path.to_str().unwrap().to_owned();
    let stage = stage();
    let run = stage
        .primary()
        .join("experiments/e/20260101_000000/jobs")
        .join(TASK);
    fs::create_dir_all(&run).unwrap();
    std::os::unix::fs::symlink(stage.job(), run.join(HASH)).unwrap();
    let alias = stage.top().join("alias");
    std::os::unix::fs::symlink(stage.primary(), &alias).unwrap();
    stage.archive();
    for text in [
        path(&stage.job()),
        path(&stage.job().join("data/..")),
        path(&stage.job().join("params.json")),
        path(&stage.archived("backup")),
        path(&run.join(HASH)),
        path(&alias.join("jobs").join(TASK).join(HASH)),
    ] {
        let output = stage.jobs(&["verify", &text]);
        assert!(output.status.success(), "{text}: {}", said(&output));
        let summary = "1 copy OK, 0 damaged";
        assert!(said(&output).contains(summary), "{text}: {}", said(&output));
    }
    let relative = |directory: &Path, text: &str| {
        let mut command = stage.xpmfs();
        command
            .current_dir(directory)
            .args(["jobs", "verify", "-w", "test", text]);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{text}: {}", said(&output));
        assert!(
            said(&output).contains("1 copy OK"),
            "{text}: {}",
            said(&output)
        );
    };
    relative(&stage.job(), ".");
    relative(&stage.job().join("data"), "..");
    relative(stage.job().parent().unwrap(), &format!("./{HASH}"));
    relative(&stage.primary(), &format!("jobs/{TASK}/{HASH}"));
    let output = stage.jobs(&["verify", "/elsewhere/jobs/t/h"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        said(&output).contains("is not in a job of"),
        "{}",
        said(&output)
    );
}

#[test]
fn a_path_in_a_mount_names_a_job() {
    let stage = stage();
    stage.archive();
    let mountpoint = stage.workspace().mountpoint("seen");
    let mounted = stage.workspace().mount_at(&mountpoint);
    let job = mountpoint.join("jobs").join(TASK).join(HASH);
    let output = stage.jobs(&["verify", job.to_str().unwrap()]);
    assert!(output.status.success(), "{}", said(&output));
    assert!(said(&output).contains("1 copy OK"), "{}", said(&output));
    drop(mounted);
}
