//! Jobs that are opted out: what says so is not copied, and is not forgotten when it can be read no more.

use std::fs::{self, File, FileTimes};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::common::eventually;
use super::stage::{HASH, Stage, TASK, said, write_job};

const OTHER: &str = "1111111111111111111111111111111111111111111111111111111111111111";

fn job(hash: &str) -> String {
    format!("{TASK}/{hash}")
}

/// A line of `jobs.jsonl`.
fn line(hash: &str, tags: &str, at: u32) -> String {
    format!(
        "{{\"job_id\": \"{hash}\", \"task_id\": \"{TASK}\", \"tags\": {tags}, \"timestamp\": {at}}}\n"
    )
}

const OUT: &str = "{\"backup\": false}";

/// A run that names the job, with this `jobs.jsonl`; it was written long ago.
fn write_run(stage: &Stage, name: &str, text: &str) -> PathBuf {
    let run = stage.primary().join("experiments/x").join(name);
    let links = run.join("jobs").join(TASK);
    fs::create_dir_all(&links).unwrap();
    let _ = symlink(stage.job(), links.join(HASH));
    fs::write(run.join("jobs.jsonl"), text).unwrap();
    age(&run.join("jobs.jsonl"));
    run
}

fn age(file: &Path) {
    let long_ago = SystemTime::now() - Duration::from_secs(3600);
    let times = FileTimes::new().set_modified(long_ago);
    File::open(file).unwrap().set_times(times).unwrap();
}

/// Archives all; returns whether the job, and another that no run names, have been.
fn archive(stage: &Stage) -> (bool, bool, String) {
    let output = stage.jobs(&["archive", "--all"]);
    let other = stage.archived("backup").with_file_name(OTHER);
    (
        stage.archived("backup").exists(),
        other.exists(),
        said(&output),
    )
}

fn stage() -> Stage {
    let stage = Stage::new(&["backup"]);
    write_job(&stage.job());
    write_job(&stage.job().with_file_name(OTHER));
    stage
}

#[test]
fn what_opts_a_job_out_is_neither_copied_nor_recovered() {
    let stage = Stage::new(&["backup"]);
    write_job(&stage.job());
    let does = |arguments: &[&str]| {
        let output = stage.jobs(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", said(&output));
    };
    let id = job(HASH);
    does(&["opt-out", &id]);
    does(&["archive", "--force", &id]);
    let mark = Path::new(".experimaestro/no-backup");
    assert!(stage.job().join(mark).exists());
    assert!(!stage.archived("backup").join(mark).exists());
    does(&["opt-in", &id]);
    stage.verify();

    // A copy that an earlier version has made.
    let manifest = stage
        .folder("backup")
        .join(format!(".xpmfs/manifests/{TASK}/{HASH}.json"));
    let text = fs::read_to_string(&manifest).unwrap();
    let status = "{\"path\":\".experimaestro/status.json\"";
    let empty = blake3::hash(b"").to_hex();
    let entry = format!(
        "{{\"path\":\".experimaestro/no-backup\",\"kind\":\"file\",\"mode\":\"0644\",\"mtime\":\"2026-11-22T02:06:05Z\",\"size\":0,\"blake3\":\"{empty}\"}},\n"
    );
    assert!(text.contains(status), "{text}");
    let files = stage_files(&text);
    let text = text.replace(status, &(entry + status)).replace(
        &format!("\"files\": {files}"),
        &format!("\"files\": {}", files + 1),
    );
    fs::write(&manifest, text).unwrap();
    fs::write(stage.archived("backup").join(mark), "").unwrap();
    stage.verify();
    fs::remove_file(stage.archived("backup").join(mark)).unwrap();
    stage.verify();
    fs::write(stage.archived("backup").join(mark), "").unwrap();
    does(&["archive", &id]);
    fs::remove_dir_all(stage.job()).unwrap();
    does(&["recover", &id]);
    assert!(stage.job().join("train.done").exists());
    assert!(
        !stage.job().join(mark).exists(),
        "recovered, it is opted out"
    );
}

fn stage_files(manifest: &str) -> usize {
    let (_, rest) = manifest.split_once("\"files\": ").unwrap();
    rest.split(',').next().unwrap().parse().unwrap()
}

#[test]
fn a_tag_counts_when_its_run_is_gone_until_a_later_run_or_a_person_decides() {
    let stage = stage();
    let run = write_run(&stage, "20260101_000000", &line(HASH, OUT, 100));
    assert!(!archive(&stage).0);
    fs::remove_dir_all(&run).unwrap();
    let (archived, other, told) = archive(&stage);
    assert!(!archived && other, "{told}");
    // A later run, with the tag and without; an older one does not count.
    for (name, tags, at, out) in [
        ("20250101_000000", "{}", 50, true),
        ("20260102_000000", OUT, 200, true),
        ("20260103_000000", "{}", 300, false),
    ] {
        let run = write_run(&stage, name, &line(HASH, tags, at));
        assert_eq!(archive(&stage).0, !out, "{name}");
        fs::remove_dir_all(&run).unwrap();
        assert_eq!(archive(&stage).0, !out, "{name}, which is gone");
        let _ = fs::remove_dir_all(stage.archived("backup"));
    }
    // By hand.
    let run = write_run(&stage, "20260104_000000", &line(HASH, OUT, 400));
    assert!(!archive(&stage).0);
    let told = stage.jobs(&["opt-in", &job(HASH)]);
    assert!(
        said(&told).contains("will be archived again"),
        "{}",
        said(&told)
    );
    assert!(archive(&stage).0);
    fs::remove_dir_all(stage.archived("backup")).unwrap();
    fs::remove_dir_all(&run).unwrap();
    assert!(archive(&stage).0);
}

#[test]
fn only_the_jobs_of_a_run_that_cannot_be_read_wait() {
    let half = line(HASH, OUT, 100);
    let half = &half[..half.len() / 2];
    let line = line(OTHER, "{}", 100);
    for text in [
        half.to_owned(),
        "\0".repeat(512),
        String::new(),
        line + half,
    ] {
        let stage = stage();
        let run = write_run(&stage, "20260101_000000", &text);
        let (archived, other, told) = archive(&stage);
        assert!(!archived && other, "{text:?}: {told}");
        assert!(told.contains("20260101_000000/jobs.jsonl"), "{told}");
        // A run that submitted the job since decides.
        let later = write_run(
            &stage,
            "20990101_000000",
            &self::line(HASH, "{}", 4_000_000_000),
        );
        assert!(archive(&stage).0, "{text:?}");
        fs::remove_dir_all(stage.archived("backup")).unwrap();
        fs::remove_dir_all(later).unwrap();
        // So does a person, and the end of the run.
        assert!(!archive(&stage).0, "{text:?}");
        match text.is_empty() {
            true => fs::remove_dir_all(run).unwrap(),
            false => assert!(stage.jobs(&["opt-in", &job(HASH)]).status.success()),
        }
        assert!(archive(&stage).0, "{text:?}");
    }
    // Something else in its place.
    let stage = stage();
    let run = write_run(&stage, "20260101_000000", "");
    fs::remove_file(run.join("jobs.jsonl")).unwrap();
    fs::create_dir(run.join("jobs.jsonl")).unwrap();
    age(&run.join("jobs.jsonl"));
    let (archived, other, told) = archive(&stage);
    assert!(!archived && other, "{told}");
}

#[test]
fn half_a_line_that_is_being_written_is_read_again() {
    for (tags, out) in [(OUT, true), ("{}", false)] {
        let stage = stage();
        let line = line(HASH, tags, 100);
        let half = &line[..line.len() / 2];
        let file = write_run(&stage, "20260101_000000", half).join("jobs.jsonl");
        fs::write(&file, half).unwrap();
        let mut archive = stage.xpmfs();
        archive.args(["jobs", "archive", "-w", "test", "--all"]);
        let mut archive = archive.spawn().unwrap();
        let manifests = stage.folder("backup").join(".xpmfs/manifests");
        // It looks at all jobs before it copies any.
        std::thread::sleep(Duration::from_millis(300));
        assert!(!manifests.exists() && archive.try_wait().unwrap().is_none());
        fs::write(&file, &line).unwrap();
        let mut status = None;
        eventually("it ends", || {
            status = archive.try_wait().unwrap();
            status.is_some()
        });
        assert!(status.unwrap().success());
        assert_eq!(stage.archived("backup").exists(), !out);
        assert!(stage.archived("backup").with_file_name(OTHER).exists());
    }
}
