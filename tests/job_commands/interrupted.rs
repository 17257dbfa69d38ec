//! Ctrl-C removes what was begun, and says so; and `jobs recover` says where a job comes from.

use std::fs;
use std::path::Path;
use std::process::{Output, Stdio};

use super::common::eventually;
use super::stage::{HASH, Stage, TASK, assert_tree, job_id, leftovers, said, whole, write_job};

/// Interrupts a command when some of the job stands beside its place in a location.
fn interrupt(stage: &Stage, what: &str, location: &Path) -> Output {
    let settings = fs::read_to_string(stage.settings()).unwrap();
    let slow = settings.replace("{settle: 0s", "{bandwidth: 1MiB, settle: 0s");
    assert_ne!(settings, slow);
    fs::write(stage.settings(), slow).unwrap();
    let mut command = stage.by_one_thread(what, &[]);
    let process = command.stderr(Stdio::piped()).stdout(Stdio::piped());
    let process = process.spawn().unwrap();
    let staged = location.join(format!("jobs/{TASK}/.tmp.{HASH}/large"));
    eventually("some of it is copied", || {
        fs::metadata(&staged).is_ok_and(|file| file.len() > 0)
    });
    let pid = rustix::process::Pid::from_child(&process);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let output = process.wait_with_output().unwrap();
    fs::write(stage.settings(), settings).unwrap();
    output
}

fn large(stage: &Stage) {
    write_job(&stage.job());
    fs::write(stage.job().join("large"), vec![3; 64 << 20]).unwrap();
}

#[test]
fn an_interrupted_recovery_leaves_nothing_and_says_so() {
    let stage = Stage::new(&["backup"]);
    large(&stage);
    stage.archive();
    let tree = whole(&stage.job()).unwrap();
    fs::remove_dir_all(stage.job()).unwrap();
    let output = interrupt(&stage, "recover", &stage.primary());
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(said(&output).contains("interrupted"), "{}", said(&output));
    assert!(
        said(&output).contains("1 not recovered"),
        "{}",
        said(&output)
    );
    assert_eq!(leftovers(&stage.primary()), [] as [std::path::PathBuf; 0]);
    assert!(!stage.job().exists());
    let output = stage.jobs(&["recover", "--all"]);
    assert!(output.status.success(), "{}", said(&output));
    assert_tree("the recovered job", &tree, whole(&stage.job()).as_ref());
}

#[test]
fn an_interrupted_archiving_leaves_nothing_and_says_so() {
    let stage = Stage::new(&["move"]);
    large(&stage);
    let output = interrupt(&stage, "archive", &stage.folder("move"));
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(said(&output).contains("interrupted"), "{}", said(&output));
    assert!(
        said(&output).contains("1 not archived"),
        "{}",
        said(&output)
    );
    stage.assert_clean();
    assert!(!stage.archived("move").exists() && !stage.job().is_symlink());
    stage.archive();
    assert!(stage.job().is_symlink());
}

#[test]
fn recovering_says_why_it_passes_over_a_folder() {
    let stage = Stage::new(&["backup", "use"]);
    write_job(&stage.job());
    stage.archive();
    // Another workspace has it, too; and this one has lost what says what the copy should be.
    let from = stage.archived("backup");
    super::stage::duplicate(&stage.folder("backup"), &stage.folder("use"));
    let manifest = stage
        .folder("backup")
        .join(format!(".xpmfs/manifests/{TASK}/{HASH}.json"));
    fs::remove_file(manifest).unwrap();
    fs::remove_dir_all(stage.job()).unwrap();
    let output = stage.jobs(&["recover", &job_id()]);
    let (label, other) = (
        format!("recovered from use:{}", stage.folder("use").display()),
        format!(
            "backup:{} comes first, but its copy has no manifest",
            stage.folder("backup").display()
        ),
    );
    assert!(said(&output).contains(&label), "{}", said(&output));
    assert!(said(&output).contains(&other), "{}", said(&output));
    assert!(from.exists());
    fs::remove_dir_all(stage.job()).unwrap();
    let output = stage.jobs(&["recover", "--json", &job_id()]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        text.contains("\"why\": \"its copy has no manifest\""),
        "{text}"
    );
}
