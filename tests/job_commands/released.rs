//! `jobs release`: drops the primary's copy of a job only if an archived copy was verified, and nothing uses or has changed the job.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime};

use rustix::fs::FlockOperation;
use serde_json::Value;

use super::common::eventually;
use super::stage::{HASH, Stage, TASK, Tree, assert_tree, said, set_time, whole, write_job};

fn job() -> String {
    format!("{TASK}/{HASH}")
}

/// A stage whose job is archived and in the primary, and the job.
fn archived(modes: &[&'static str]) -> (Stage, Tree) {
    let stage = Stage::on_disk(modes);
    write_job(&stage.job());
    let job = whole(&stage.job()).unwrap();
    stage.archive();
    (stage, job)
}

/// `jobs release` with these arguments, without the long grace period: the entries of `--json`.
fn release(stage: &Stage, arguments: &[&str]) -> (bool, Vec<Value>) {
    let mut command = stage.xpmfs();
    command.env("XPMFS_TEST_GRACE_MS", "50");
    command.args(["jobs", "release", "-w", "test", "--json"]);
    let output = command.args(arguments).output().unwrap();
    let lines = serde_json::from_slice(&output.stdout);
    let lines = lines.unwrap_or_else(|error| panic!("{error}: {}", said(&output)));
    (output.status.success(), lines)
}

fn hash_of(line: &Value) -> &str {
    line["job"].as_str().unwrap().rsplit('/').next().unwrap()
}

/// Releasing the job is refused for this reason, and it stays as it is.
#[track_caller]
fn assert_kept(stage: &Stage, reason: &str, why: &str) {
    let before = whole(&stage.job());
    let (success, lines) = release(stage, &["--yes", &job()]);
    let [line] = lines.as_slice() else {
        panic!("{lines:?}")
    };
    assert_eq!(
        (&line["result"], &line["reason"]),
        (&"kept".into(), &reason.into()),
        "{line}"
    );
    assert!(line["why"].as_str().unwrap().contains(why), "{line}");
    assert!(!success);
    assert_eq!(whole(&stage.job()), before);
    stage.assert_clean();
    let aside = stage.primary().join(".xpmfs/released").join(job());
    assert!(!aside.exists());
}

#[track_caller]
fn assert_released(stage: &Stage, expected: &Tree) {
    let (success, lines) = release(stage, &["--yes", &job()]);
    assert_eq!(lines[0]["result"], "released", "{lines:?}");
    assert!(success);
    assert!(!stage.job().exists() || stage.job().is_symlink());
    assert_tree(
        "the copy",
        expected,
        whole(&stage.archived(stage.modes()[0])).as_ref(),
    );
    stage.assert_clean();
}

#[test]
fn a_released_job_is_in_its_folder_alone_and_comes_back() {
    let (stage, tree) = archived(&["backup"]);
    let (success, lines) = release(&stage, &[&job()]);
    assert!(success);
    assert_eq!(lines[0]["result"], "would_release", "{lines:?}");
    assert_tree("a dry run", &tree, whole(&stage.job()).as_ref());
    assert_released(&stage, &tree);
    stage.verify();
    // It is released already: there is nothing to do.
    let (success, lines) = release(&stage, &["--yes", &job()]);
    assert!(success && lines[0]["reason"] == "absent", "{lines:?}");
    let output = stage.jobs(&["recover", &job()]);
    assert!(output.status.success(), "{}", said(&output));
    assert_tree("the recovered job", &tree, whole(&stage.job()).as_ref());
    assert_released(&stage, &tree);
}

#[test]
fn a_released_job_of_a_move_folder_leaves_its_symlink() {
    let (stage, tree) = archived(&["move"]);
    let output = stage.jobs(&["recover", &job()]);
    assert!(output.status.success(), "{}", said(&output));
    assert_released(&stage, &tree);
    assert_eq!(fs::read_link(stage.job()).unwrap(), stage.archived("move"));
    assert!(
        !stage
            .primary()
            .join(".xpmfs/archive/kept")
            .join(job())
            .exists()
    );
}

#[test]
fn a_job_that_differs_from_its_copy_stays() {
    let path = |stage: &Stage, name: &str| stage.job().join(name);
    type Change = fn(&Path);
    let changes: [(&str, Change); 8] = [
        ("note", |job| fs::write(job.join("note"), "").unwrap()),
        ("data/empty/note", |job| {
            fs::write(job.join("data/empty/note"), "").unwrap()
        }),
        ("train.out", |job| {
            // Of the same size and with another time.
            fs::write(job.join("train.out"), "STEP 1\nSTEP 2\n").unwrap();
        }),
        ("train.out", |job| {
            // Of another size and with the same time.
            let time = fs::metadata(job.join("train.out"))
                .unwrap()
                .modified()
                .unwrap();
            fs::write(job.join("train.out"), "step").unwrap();
            set_time(&job.join("train.out"), time);
        }),
        ("train.out", |job| {
            fs::remove_file(job.join("train.out")).unwrap()
        }),
        ("params.json", |job| {
            let mode = Permissions::from_mode(0o600);
            fs::set_permissions(job.join("params.json"), mode).unwrap();
        }),
        ("latest", |job| {
            fs::remove_file(job.join("latest")).unwrap();
            symlink("data/other", job.join("latest")).unwrap();
        }),
        ("data/empty", |job| {
            fs::remove_dir(job.join("data/empty")).unwrap()
        }),
    ];
    for (name, change) in changes {
        let (stage, _) = archived(&["backup"]);
        change(&stage.job());
        let shown = path(&stage, name);
        assert_kept(&stage, "changed", shown.to_str().unwrap());
    }
    // Locks, the state that experimaestro rewrites, and times of directories are no change.
    let (stage, _) = archived(&["backup"]);
    let job = stage.job();
    fs::write(job.join("other.lock"), "").unwrap();
    fs::write(
        job.join(".experimaestro/status.json"),
        "{\"state\": \"done\", \"a\": 1}",
    )
    .unwrap();
    let archived = whole(&stage.archived("backup")).unwrap();
    assert_released(&stage, &archived);
}

#[test]
fn a_job_without_a_usable_archived_copy_stays() {
    let (stage, _) = archived(&["backup"]);
    let manifest = stage
        .folder("backup")
        .join(format!(".xpmfs/manifests/{}.json", job()));
    fs::rename(&manifest, stage.top().join("manifest")).unwrap();
    assert_kept(&stage, "no_copy", "has no manifest");
    fs::rename(stage.top().join("manifest"), &manifest).unwrap();
    fs::remove_file(stage.archived("backup").join("train.done")).unwrap();
    assert_kept(&stage, "no_copy", "is not finished");
    fs::remove_dir_all(stage.archived("backup")).unwrap();
    assert_kept(&stage, "no_copy", "no `backup` or `move` folder has it");

    // A `use` folder belongs to another workspace, also if it has a manifest.
    let (other, _) = archived(&["backup"]);
    let stage = Stage::on_disk(&["use"]);
    fs::remove_dir_all(stage.folder("use")).unwrap();
    for (from, to) in [
        (other.folder("backup"), stage.folder("use")),
        (other.job(), stage.job()),
    ] {
        super::stage::duplicate(&from, &to);
    }
    assert_kept(&stage, "no_copy", "no `backup` or `move` folder has it");
}

#[test]
fn a_flipped_byte_is_found_and_another_copy_is_recovered() {
    let (stage, tree) = archived(&["backup", "move"]);
    let output = stage.jobs(&["recover", &job()]);
    assert!(output.status.success(), "{}", said(&output));
    let flip = |mode: &str| {
        let path = stage.archived(mode).join("data/model.bin");
        let time = fs::metadata(&path).unwrap().modified().unwrap();
        let file = OpenOptions::new().write(true).open(&path).unwrap();
        file.write_all_at(&[8], 12_345).unwrap();
        drop(file);
        set_time(&path, time);
        // Its other name comes first.
        stage.archived(mode).join("best.bin")
    };
    // The folder whose copy would serve the job.
    let path = flip("move");
    assert_kept(
        &stage,
        "damaged",
        &format!("{} has another content", path.display()),
    );
    let output = stage.jobs(&["verify", "--all"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        !output.status.success() && text.contains("data/model.bin"),
        "{text}"
    );

    fs::remove_dir_all(stage.job()).unwrap();
    let path = stage.folder("backup");
    let output = stage.jobs(&["recover", "-v", &job()]);
    assert!(output.status.success(), "{}", said(&output));
    assert_tree("the recovered job", &tree, whole(&stage.job()).as_ref());
    // The other order: the first copy is the damaged one, which is said.
    flip("backup");
    fs::remove_dir_all(stage.archived("move")).unwrap();
    super::stage::duplicate(&stage.job(), &stage.archived("move"));
    fs::remove_dir_all(stage.job()).unwrap();
    let output = stage.jobs(&["recover", "-v", &job()]);
    let text = said(&output);
    assert!(output.status.success(), "{text}");
    assert!(text.contains("best.bin has another content"), "{text}");
    assert!(text.contains("trying the next copy"), "{text}");
    assert!(text.contains(path.to_str().unwrap()), "{text}");
    assert_tree("the recovered job", &tree, whole(&stage.job()).as_ref());
}

#[test]
fn a_pinned_failed_or_unfinished_job_stays() {
    let (stage, tree) = archived(&["backup"]);
    stage.jobs(&["pin", &job()]);
    assert_kept(&stage, "pinned", "pinned");
    stage.jobs(&["unpin", &job()]);
    fs::rename(
        stage.job().join("train.done"),
        stage.job().join("train.failed"),
    )
    .unwrap();
    assert_kept(&stage, "job_failed", "failed");
    fs::rename(stage.job().join("train.failed"), stage.top().join("done")).unwrap();
    assert_kept(&stage, "unfinished", "not finished");
    fs::rename(stage.top().join("done"), stage.job().join("train.done")).unwrap();
    assert_released(&stage, &tree);
}

/// A process that is ended when it is dropped.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn sleeping(in_directory: &Path, input: Stdio) -> Process {
    let mut command = Command::new("sleep");
    command.arg("100").current_dir(in_directory).stdin(input);
    Process(command.spawn().unwrap())
}

#[test]
fn a_job_in_use_stays() {
    let (stage, tree) = archived(&["backup"]);
    let job = stage.job();
    // Running, by its lock, in both layouts.
    for lock in ["train.lock", ".experimaestro/train.lock"] {
        let lock = OpenOptions::new()
            .create(true)
            .append(true)
            .open(job.join(lock))
            .unwrap();
        rustix::fs::flock(lock.as_fd(), FlockOperation::LockExclusive).unwrap();
        assert_kept(&stage, "busy", "lock is held");
    }
    // Running, by its process.
    let process = sleeping(Path::new("/"), Stdio::null());
    let pid = format!("{{\"type\": \"local\", \"pid\": {}}}", process.0.id());
    fs::write(job.join("train.pid"), pid).unwrap();
    assert_kept(&stage, "busy", "its process");
    drop(process);
    // Open for writing, for reading, and a current directory.
    let writer = OpenOptions::new()
        .append(true)
        .open(job.join("train.out"))
        .unwrap();
    assert_kept(&stage, "busy", "train.out");
    drop(writer);
    let process = sleeping(
        Path::new("/"),
        File::open(job.join("train.out")).unwrap().into(),
    );
    assert_kept(&stage, "busy", "train.out");
    drop(process);
    let process = sleeping(&job.join("data"), Stdio::null());
    assert_kept(&stage, "busy", "data");
    drop(process);
    assert_released(&stage, &tree);
}

/// How long [`releasing`] keeps the renamed directory.
const GRACE_MS: u64 = 4000;

/// Longer than anything else takes.
const LONG_GRACE_MS: u64 = 60_000;

/// Starts a release that keeps the renamed directory for a while; returns it and that directory.
fn releasing(stage: &Stage, grace_ms: u64) -> (Process, PathBuf) {
    let mut command = stage.xpmfs();
    command.env("XPMFS_TEST_GRACE_MS", grace_ms.to_string());
    command.args(["jobs", "release", "-w", "test", "--yes", &job()]);
    command.stderr(Stdio::piped());
    let process = Process(command.spawn().unwrap());
    let aside = stage.primary().join(".xpmfs/released").join(job());
    eventually("it is renamed", || aside.exists());
    assert!(!stage.job().exists());
    (process, aside)
}

#[test]
fn a_job_that_is_changed_or_opened_after_the_rename_is_put_back() {
    type Change = fn(&Path) -> Option<File>;
    let changes: [(&str, Change); 3] = [
        ("was changed meanwhile", |job| {
            fs::write(job.join("note"), "").unwrap();
            None
        }),
        ("was changed meanwhile", |job| {
            fs::write(job.join("train.out"), "more").unwrap();
            None
        }),
        ("uses", |job| {
            let path = job.join("train.out");
            Some(OpenOptions::new().append(true).open(path).unwrap())
        }),
    ];
    for (why, change) in changes {
        let (stage, _) = archived(&["backup"]);
        let (mut process, aside) = releasing(&stage, GRACE_MS);
        let held = change(&aside);
        let changed = whole(&aside).unwrap();
        let status = process.0.wait().unwrap();
        let mut text = String::new();
        process
            .0
            .stderr
            .take()
            .unwrap()
            .read_to_string(&mut text)
            .unwrap();
        assert!(!status.success() && text.contains(why), "{why}: {text}");
        assert_tree(why, &changed, whole(&stage.job()).as_ref());
        assert!(!aside.exists());
        stage.assert_clean();
        drop(held);
    }
}

#[test]
fn an_interrupted_release_puts_the_job_back_at_once() {
    let (stage, tree) = archived(&["backup"]);
    let (mut process, aside) = releasing(&stage, LONG_GRACE_MS);
    let began = std::time::Instant::now();
    let pid = process.0.id().to_string();
    let signal = Command::new("kill").args(["-INT", &pid]).status();
    assert!(signal.unwrap().success());
    assert!(!process.0.wait().unwrap().success());
    assert!(began.elapsed() < Duration::from_millis(LONG_GRACE_MS));
    let mut text = String::new();
    let mut stderr = process.0.stderr.take().unwrap();
    stderr.read_to_string(&mut text).unwrap();
    assert!(text.contains("every job is whole"), "{text}");
    assert_tree("the job", &tree, whole(&stage.job()).as_ref());
    assert!(!aside.exists());
    stage.assert_clean();
}

/// Another process may run the job again at its path meanwhile: neither directory is lost.
#[test]
fn a_job_that_is_made_again_meanwhile_is_kept_beside() {
    let (stage, tree) = archived(&["backup"]);
    let (mut process, aside) = releasing(&stage, GRACE_MS);
    fs::create_dir(stage.job()).unwrap();
    fs::write(stage.job().join("train.out"), "again").unwrap();
    fs::write(aside.join("note"), "").unwrap();
    assert!(!process.0.wait().unwrap().success());
    let mut text = String::new();
    process
        .0
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut text)
        .unwrap();
    assert!(text.contains(aside.to_str().unwrap()), "{text}");
    assert!(aside.join("note").exists());
    assert_eq!(fs::read(stage.job().join("train.out")).unwrap(), b"again");
    assert_tree("the copy", &tree, whole(&stage.archived("backup")).as_ref());
}

/// A crash has left the renamed directory; then the next command decides by the archived copy.
#[test]
fn after_a_crash_the_job_is_put_back_unless_its_copy_stands() {
    let crashed = || {
        let (stage, tree) = archived(&["backup"]);
        let (process, aside) = releasing(&stage, GRACE_MS);
        drop(process);
        (stage, tree, aside)
    };
    let clear = |stage: &Stage| {
        let output = stage.jobs(&["archive", "--all"]);
        assert!(output.status.success(), "{}", said(&output));
        stage.assert_clean();
    };
    // The copy stands: the rest is removed, also of a half removed directory.
    for half in [false, true] {
        let (stage, tree, aside) = crashed();
        if half {
            fs::remove_file(aside.join("train.done")).unwrap();
            fs::remove_file(aside.join("data/model.bin")).unwrap();
        }
        clear(&stage);
        assert!(!aside.exists() && !stage.job().exists());
        assert_tree("the copy", &tree, whole(&stage.archived("backup")).as_ref());
    }
    // It was written to.
    let (stage, _, aside) = crashed();
    fs::write(aside.join("note"), "new").unwrap();
    clear(&stage);
    assert!(stage.job().join("note").exists() && !aside.exists());
    // The copy has gone, or is torn.
    for gone in [false, true] {
        let (stage, tree, aside) = crashed();
        match gone {
            true => fs::remove_dir_all(stage.archived("backup")).unwrap(),
            false => fs::remove_file(stage.archived("backup").join("train.out")).unwrap(),
        }
        stage.jobs(&["archive", "--all"]);
        assert_tree("the job", &tree, whole(&stage.job()).as_ref());
        assert!(!aside.exists());
    }
    // Its folder is missing for now: all stays, until it is back.
    let (stage, tree, aside) = crashed();
    let (folder, away) = (stage.folder("backup"), stage.top().join("away"));
    fs::rename(&folder, &away).unwrap();
    stage.jobs(&["archive", "--all"]);
    assert_tree("the directory", &tree, whole(&aside).as_ref());
    fs::rename(&away, &folder).unwrap();
    clear(&stage);
    assert!(!aside.exists() && !stage.job().exists());
}

#[test]
fn directories_of_another_user_keep_a_job_before_its_copy_is_read() {
    if !crate::common::is_root() {
        return;
    }
    let workspace = crate::common::Workspace::of_ordinary_user();
    workspace.with_folders(&["backup"]);
    let made = workspace.finished("primary", TASK, "1");
    fs::create_dir(made.join("theirs")).unwrap();
    workspace.give_away();
    crate::common::run(
        workspace
            .xpmfs()
            .args(["jobs", "archive", "-w", "test", "--all"]),
    );
    std::os::unix::fs::chown(made.join("theirs"), Some(0), Some(0)).unwrap();
    let job = format!("{TASK}/1");
    // Also a dry run knows that the job stays.
    let mut command = workspace.xpmfs();
    command.args(["--json", "jobs", "release", "-w", "test", &job]);
    let output = command.output().unwrap();
    let lines: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(lines[0]["reason"], "unsafe", "{lines:?}");
}

/// Small archived jobs that were last used these days ago.
fn aged(days: &[u64]) -> (Stage, Vec<String>) {
    let stage = Stage::on_disk(&["backup"]);
    let hashes = super::others::small_jobs(&stage, days.len());
    let tasks = stage.primary().join("jobs").join(TASK);
    stage.archive();
    for (hash, days) in hashes.iter().zip(days) {
        let used = SystemTime::now() - Duration::from_secs(days * 86_400 + 3600);
        let job = tasks.join(hash);
        for name in super::tree::tree(&job).into_keys() {
            set_time(&job.join(name), used);
        }
    }
    // The manifests have these times too.
    let output = stage.jobs(&["archive", "--all", "--force"]);
    assert!(output.status.success(), "{}", said(&output));
    (stage, hashes)
}

#[test]
fn a_rule_releases_the_least_recently_used_first() {
    let (stage, hashes) = aged(&[5, 40, 1, 35, 70]);
    // Reading is a use; a lock is not, and neither is what xpmfs itself reads.
    let tasks = stage.primary().join("jobs").join(TASK);
    fs::read(tasks.join(&hashes[4]).join("data/model.bin")).unwrap();
    let file = File::open(tasks.join(&hashes[4]).join("data/model.bin")).unwrap();
    file.set_times(fs::FileTimes::new().set_accessed(SystemTime::now()))
        .unwrap();
    fs::write(tasks.join(&hashes[1]).join("train.lock"), "").unwrap();
    stage.verify_all();
    let (success, lines) = release(&stage, &["--older-than", "30d"]);
    assert!(success);
    let found: Vec<&str> = lines.iter().map(hash_of).collect();
    assert_eq!(found, [&hashes[1], &hashes[3]]);
    assert!(
        lines.iter().all(|line| line["result"] == "would_release"),
        "{lines:?}"
    );

    // As much as is missing, and no more: the first job frees enough.
    let space = rustix::fs::statvfs(stage.primary().as_path()).unwrap();
    let free = space.f_bavail * space.f_frsize;
    let (_, lines) = release(&stage, &["--keep-free", &format!("{}", free / 2)]);
    assert_eq!(lines, [] as [Value; 0]);
    let (success, lines) = release(&stage, &["--keep-free", "100%"]);
    assert!(!success, "that much cannot be freed");
    let found: Vec<&str> = lines.iter().map(hash_of).collect();
    assert_eq!(found, [1, 3, 0, 2, 4].map(|index: usize| &hashes[index]));

    let (success, lines) = release(&stage, &["--older-than", "30d", "--yes"]);
    assert!(success && lines.len() == 2, "{lines:?}");
    let there: Vec<bool> = hashes
        .iter()
        .map(|hash| tasks.join(hash).exists())
        .collect();
    assert_eq!(there, [true, false, true, false, true]);
    stage.verify_all();
}

#[test]
fn only_what_becomes_free_is_counted() {
    let (stage, _) = archived(&["backup"]);
    let freed = || release(&stage, &[&job()]).1[0]["freed"].as_u64().unwrap();
    let before = freed();
    let model = stage.job().join("data/model.bin");
    fs::hard_link(&model, stage.top().join("outside")).unwrap();
    let taken = fs::metadata(&model).unwrap().blocks() * 512;
    assert!(taken >= 20_000);
    assert_eq!(freed(), before - taken);
}

#[test]
fn what_is_wrong_with_the_arguments_is_named() {
    let (stage, _) = archived(&["backup"]);
    for arguments in [
        &["release"][..],
        &["release", "--older-than", "soon"],
        &["release", "--keep-free", "200%"],
        &["release", "--older-than", "1d", &job()],
    ] {
        let output = stage.jobs(arguments);
        assert_eq!(
            output.status.code(),
            Some(2),
            "{arguments:?}: {}",
            said(&output)
        );
    }
    assert!(stage.job().exists());
}

#[test]
fn a_reader_through_the_mount_keeps_what_it_reads() {
    let (stage, _) = archived(&["backup"]);
    let primary = stage.primary();
    let mounted = stage.workspace().mount_archiving(&primary, &[]);
    let in_job = |name: &str| primary.join("jobs").join(job()).join(name);
    let model = fs::read(in_job("data/model.bin")).unwrap();
    assert_eq!(mounted.location(Path::new("jobs").join(job())), "primary");

    // A process that has a file of it open through the mount keeps it from being released, and so does a writer.
    let process = sleeping(
        Path::new("/"),
        File::open(in_job("train.out")).unwrap().into(),
    );
    let refused = |reason: &str| {
        let (_, lines) = release(&stage, &["--yes", &job()]);
        assert_eq!(lines[0]["reason"], reason, "{lines:?}");
    };
    refused("busy");
    drop(process);
    let writer = OpenOptions::new()
        .append(true)
        .open(in_job("train.out"))
        .unwrap();
    refused("busy");
    drop(writer);

    // Opened after it was looked at, by a process that this one cannot see.
    let (mut releasing, _) = {
        let mut command = stage.xpmfs();
        command.env("XPMFS_TEST_GRACE_MS", "50");
        command.args(["jobs", "release", "-w", "test", "--yes", &job()]);
        (Process(command.spawn().unwrap()), ())
    };
    assert!(releasing.0.wait().unwrap().success());
    eventually("the folder serves it", || {
        mounted.location(Path::new("jobs").join(job())) == "backup"
    });
    assert_eq!(fs::read(in_job("data/model.bin")).unwrap(), model);
    assert!(in_job("train.done").exists());
    // Its lock can be taken, and nothing comes back by that.
    let lock = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(in_job("train.lock"))
        .unwrap();
    rustix::fs::flock(lock.as_fd(), FlockOperation::LockExclusive).unwrap();
    assert_eq!(mounted.location(Path::new("jobs").join(job())), "backup");
    drop(lock);
    mounted.unmount();
    assert!(!stage.job().exists());
}
