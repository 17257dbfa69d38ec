//! `jobs where`, `pin` and `unpin`: every copy of a job is listed, also while a folder hangs or is missing.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::common::{eventually, is_mounted};
use super::stage::{HASH, Stage, TASK, job_id, said, write_job};

/// Without the hanging folder, the command takes well under a second; with it, one deadline of 5 s.
const PROMPT: Duration = Duration::from_secs(40);

/// `jobs where --json` of the job.
fn found(stage: &Stage) -> Value {
    let output = stage.jobs(&["where", "--json", &job_id()]);
    assert!(output.status.success(), "{}", said(&output));
    let mut list: Value = serde_json::from_slice(&output.stdout).unwrap();
    list[0].take()
}

/// The states of the copies: the primary's, then each folder's.
fn states(found: &Value) -> Vec<&str> {
    let copies = found["copies"].as_array().unwrap().iter();
    copies.map(|copy| copy["state"].as_str().unwrap()).collect()
}

fn table(stage: &Stage) -> String {
    let output = stage.jobs(&["where", &job_id()]);
    assert!(output.status.success(), "{}", said(&output));
    String::from_utf8(output.stdout).unwrap()
}

fn served(stage: &Stage) -> String {
    let found = found(stage);
    found["served"].as_str().unwrap_or("null").to_owned()
}

#[test]
fn every_copy_is_listed_with_what_is_known_of_it() {
    let stage = Stage::new(&["use", "backup", "move"]);
    write_job(&stage.job());
    let before = found(&stage);
    assert_eq!(states(&before), ["present", "absent", "absent", "absent"]);
    assert_eq!(before["served"], "primary");
    stage.archive();
    let moved = found(&stage);
    assert_eq!(states(&moved), ["symlink", "absent", "present", "present"]);
    let label = |mode: &str| format!("{mode}:{}", stage.folder(mode).display());
    assert_eq!(moved["served"], label("move"));
    let (primary, backup) = (&moved["copies"][0], &moved["copies"][2]);
    let target = stage.archived("move");
    assert_eq!(primary["target"], target.to_str().unwrap());
    assert_eq!(backup["location"], label("backup"));
    assert_eq!(
        [&backup["finished"], &backup["manifest"]],
        [&Value::Bool(true); 2]
    );
    assert_eq!(backup["files"], before["copies"][0]["files"]);
    assert_eq!(backup["bytes"], before["copies"][0]["bytes"]);
    assert!(backup["verified"].is_null(), "{backup}");

    stage.verify_all();
    let verified = found(&stage);
    assert!(verified["copies"][2]["verified"].is_string(), "{verified}");

    // What is recorded of the job.
    let does = |arguments: &[&str]| {
        let output = stage.jobs(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", said(&output));
        said(&output)
    };
    does(&["recover", &job_id()]);
    assert!(does(&["pin", &job_id()]).contains("pinned"));
    assert!(does(&["pin", &job_id()]).contains("already"));
    does(&["opt-out", &job_id()]);
    let known = found(&stage);
    assert_eq!(known["pinned"], true);
    assert_eq!(known["kept"], true);
    assert_eq!(known["opted_out"], "file");
    assert_eq!(known["served"], "primary");
    let text = table(&stage);
    for note in ["served", "pinned", "kept", "opted out", "manifest"] {
        assert!(text.contains(note), "{note}: {text}");
    }
    assert!(does(&["unpin", &job_id()]).contains("no longer pinned"));
    assert!(does(&["unpin", &job_id()]).contains("was not pinned"));
    assert_eq!(found(&stage)["pinned"], false);
    let left = stage.primary().join(".xpmfs/pins").join(TASK);
    assert_eq!(fs::read_dir(left).unwrap().count(), 0);

    // Bit rot, and a lost copy.
    fs::write(stage.archived("backup").join("train.out"), "rot").unwrap();
    fs::remove_dir_all(stage.archived("move")).unwrap();
    stage.jobs(&["verify", "--all"]);
    let damaged = found(&stage);
    assert_eq!(damaged["copies"][2]["damaged"], true);
    let why = damaged["copies"][2]["why"].as_str().unwrap();
    assert!(why.contains("train.out"), "{why}");
    assert!(damaged["copies"][2]["verified"].is_null());
    assert_eq!(states(&damaged)[3], "missing");
}

#[test]
fn a_job_that_is_verified_by_itself_is_found_with_the_time() {
    let stage = Stage::new(&["backup"]);
    write_job(&stage.job());
    stage.archive();
    let verified = || found(&stage)["copies"][1]["verified"].clone();
    let verify = || {
        let output = stage.jobs(&["verify", &job_id()]);
        assert!(output.status.success(), "{}", said(&output));
    };
    let time = || {
        verified()
            .as_str()
            .unwrap()
            .parse::<jiff::Timestamp>()
            .unwrap()
    };
    assert!(verified().is_null());
    verify();
    let first = time();
    // In whole seconds.
    stage.verify_all();
    let all = time();
    assert_ne!(all, first);
    verify();
    assert!(time() > first && time() > all, "{first}, {all}");
    assert!(table(&stage).contains("verified "));
    // The copy that was read is no longer there.
    let forced = stage.jobs(&["archive", "--force", &job_id()]);
    assert!(forced.status.success(), "{}", said(&forced));
    assert!(verified().is_null());
    verify();
    fs::write(stage.archived("backup").join("train.out"), "other").unwrap();
    assert_eq!(stage.jobs(&["verify", &job_id()]).status.code(), Some(1));
    assert!(verified().is_null());
}

#[test]
fn all_lists_the_jobs_of_every_location() {
    let stage = Stage::new(&["backup", "use"]);
    write_job(&stage.job());
    let hash = |digit: &str| digit.repeat(64);
    write_job(&stage.job().with_file_name(hash("a")));
    stage.archive();
    fs::remove_dir_all(stage.job().with_file_name(hash("a"))).unwrap();
    write_job(&stage.archived("use").with_file_name(hash("b")));
    let list = || {
        let output = stage.jobs(&["where", "--all", "--json"]);
        let list: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let served = |job: &serde_json::Value| {
            let (name, place) = (
                job["job"].as_str().unwrap(),
                job["served"].as_str().unwrap(),
            );
            let mode = place.split(':').next().unwrap();
            (name.to_owned(), mode.to_owned())
        };
        let jobs: Vec<_> = list.as_array().unwrap().iter().map(served).collect();
        (jobs, output)
    };
    let job = |hash: &str, mode: &str| (format!("{TASK}/{hash}"), mode.to_owned());
    let expected = [
        job(HASH, "primary"),
        job(&hash("a"), "backup"),
        job(&hash("b"), "use"),
    ];
    let (jobs, output) = list();
    assert_eq!(jobs, expected);
    assert!(output.status.success(), "{}", said(&output));
    // As with `jobs list`, what is left out is named.
    fs::rename(stage.folder("use"), stage.top().join("away")).unwrap();
    let (jobs, output) = list();
    assert_eq!(jobs, expected[..2]);
    assert_eq!(output.status.code(), Some(1));
    let path = stage.folder("use");
    assert!(
        said(&output).contains(path.to_str().unwrap()),
        "{}",
        said(&output)
    );
    let none = said(&stage.jobs(&["where"]));
    assert!(none.contains("or --all for every job"), "{none}");
}

#[test]
fn a_use_folder_serves_only_a_finished_job() {
    let stage = Stage::new(&["use"]);
    let copy = stage.archived("use");
    write_job(&copy);
    let label = format!("use:{}", stage.folder("use").display());
    assert_eq!(states(&found(&stage)), ["absent", "present"]);
    assert_eq!(served(&stage), label);
    fs::remove_file(copy.join("train.done")).unwrap();
    assert_eq!(served(&stage), "null");
    assert!(table(&stage).contains("not finished"));
}

#[test]
fn what_is_in_place_of_the_pins_is_named() {
    let stage = Stage::new(&["backup"]);
    write_job(&stage.job());
    fs::create_dir_all(stage.primary().join(".xpmfs")).unwrap();
    fs::write(stage.primary().join(".xpmfs/pins"), "").unwrap();
    for what in ["pin", "unpin"] {
        let output = stage.jobs(&[what, &job_id()]);
        assert_eq!(output.status.code(), Some(1), "{what}");
        assert!(said(&output).contains("/.xpmfs/pins is a file"), "{what}");
    }
    let output = stage.jobs(&["where", &job_id()]);
    assert!(said(&output).contains("/.xpmfs/pins is a file"));
}

#[test]
fn it_works_while_the_workspace_is_mounted_in_place() {
    let stage = Stage::new(&["backup"]);
    write_job(&stage.job());
    let mount = stage.workspace().mount_archiving(&stage.primary(), &[]);
    let primary = format!("{}/jobs/{}", stage.primary().display(), job_id());
    eventually("it is archived", || stage.archived("backup").exists());
    assert_eq!(found(&stage)["copies"][0]["path"], primary);
    let output = stage.jobs(&["pin", &job_id()]);
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(found(&stage)["pinned"], true);
    drop(mount);
    assert_eq!(found(&stage)["pinned"], true);
}

/// A folder served by bindfs, which is stopped; it goes on when this is dropped.
struct Stopped(PathBuf, Child);

impl Stopped {
    fn below(top: &Path) -> Stopped {
        let (disk, at) = (top.join("disk"), top.join("served"));
        fs::create_dir_all(disk.join("jobs")).unwrap();
        fs::create_dir(&at).unwrap();
        let mut command = Command::new("bindfs");
        command.arg("-f").arg(&disk).arg(&at).stdin(Stdio::null());
        let server = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let stopped = Stopped(at, server.unwrap());
        eventually("it is served", || is_mounted(&stopped.0));
        stopped
    }

    fn signal(&self, signal: &str) {
        let pid = self.1.id().to_string();
        let status = Command::new("kill").args([signal, &pid]).status().unwrap();
        assert!(status.success());
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        self.signal("-CONT");
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
        let _ = self.1.kill();
        let _ = self.1.wait();
    }
}

#[test]
fn a_folder_that_hangs_or_is_missing_is_reported() {
    let stage = Stage::new(&["backup"]);
    write_job(&stage.job());
    stage.archive();
    let hanging = Stopped::below(&stage.top());
    stage.workspace().attach("use", &hanging.0);
    stage
        .workspace()
        .attach("use", &stage.top().join("nowhere"));
    assert_eq!(
        states(&found(&stage)),
        ["present", "present", "absent", "offline"]
    );
    hanging.signal("-STOP");
    let began = Instant::now();
    let found = found(&stage);
    assert!(began.elapsed() < PROMPT);
    assert_eq!(states(&found), ["present", "present", "offline", "offline"]);
    let why = |index: usize| found["copies"][index]["why"].as_str().unwrap();
    assert_eq!([why(2), why(3)], ["does not answer", "missing"]);
    assert_eq!(found["served"], "primary");
    let text = table(&stage);
    assert!(text.contains("does not answer"), "{text}");
}
