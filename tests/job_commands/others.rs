//! Several archive and recover the same jobs at once, experimaestro's own code among them.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, Ordering};

use super::common::eventually;
use super::common::python;
use super::common::{say, soak};
use super::stage::{Stage, TASK, Tree, assert_tree, duplicate, said, whole, write_job};

/// Small finished jobs in the primary; gives their hashes.
pub(crate) fn small_jobs(stage: &Stage, count: usize) -> Vec<String> {
    let tasks = stage.primary().join("jobs").join(TASK);
    let hashes: Vec<String> = (0..count).map(|number| format!("{number:064x}")).collect();
    for (number, hash) in hashes.iter().enumerate() {
        let job = tasks.join(hash);
        fs::create_dir_all(job.join(".experimaestro")).unwrap();
        fs::create_dir_all(job.join("data")).unwrap();
        for (name, bytes) in [
            ("params.json", 20),
            ("train.out", 3000 + number),
            ("train.err", 0),
            ("uv.lock", 10),
            ("train.lock", 0),
            ("train.done", 0),
            (".experimaestro/status.json", 40),
            ("data/model.bin", 20_000 + number),
        ] {
            fs::write(
                job.join(name),
                vec![u8::try_from(number % 251).unwrap(); bytes],
            )
            .unwrap();
        }
    }
    hashes
}

pub(crate) fn trees(root: &Path, hashes: &[String]) -> Vec<Tree> {
    let tasks = root.join("jobs").join(TASK);
    let tree = |hash: &String| {
        let found = whole(&tasks.join(hash));
        found.unwrap_or_else(|| panic!("{hash} is not in {}", root.display()))
    };
    hashes.iter().map(tree).collect()
}

pub(crate) fn assert_trees(what: &str, expected: &[Tree], root: &Path, hashes: &[String]) {
    for ((hash, expected), found) in hashes.iter().zip(expected).zip(trees(root, hashes)) {
        assert_tree(&format!("{what} of {hash}"), expected, Some(&found));
    }
}

/// experimaestro's own archiver or recovery, over all jobs.
fn experimaestro(stage: &Stage, what: &str, mode: &str) -> Option<Command> {
    let python = python::interpreter()?;
    let mut command = python::script(&python, &stage.top(), "archive_jobs.py");
    let (primary, folder) = (stage.primary(), stage.folder(mode));
    command.arg(what).arg(primary).arg(folder).arg(mode);
    Some(command)
}

fn xpmfs(stage: &Stage) -> Command {
    let mut command = stage.xpmfs();
    command.args(["jobs", "archive", "-w", "test", "--all"]);
    command
}

/// Runs all at once, to the end. They may find that another is at a job, and say so.
fn at_once(commands: Vec<Command>) {
    for output in outputs(commands, || ()) {
        assert!(
            matches!(output.status.code(), Some(0 | 1)),
            "{}",
            said(&output)
        );
        assert!(!said(&output).contains("panicked"), "{}", said(&output));
    }
}

/// Runs the first, and the others as soon as something is so; gives what they did.
fn outputs(commands: Vec<Command>, begun: impl Fn()) -> Vec<Output> {
    let children = commands.into_iter().map(|mut command| {
        command.stderr(std::process::Stdio::piped());
        command.stdout(std::process::Stdio::piped());
        let child = command.spawn().unwrap();
        begun();
        child
    });
    let children: Vec<_> = children.collect();
    let ended = children.into_iter().map(|child| child.wait_with_output());
    ended.map(Result::unwrap).collect()
}

/// Whether a copy holds nothing but what the source does, whole. experimaestro's lacks `uv.lock`.
fn is_torn(copy: &Path, expected: &Tree) -> Option<PathBuf> {
    let lacking = |path: &Path| path == Path::new("uv.lock");
    expected.iter().find_map(|(path, entry)| {
        let at = copy.join(path);
        let whole = match fs::symlink_metadata(&at) {
            Ok(meta) if meta.is_file() => meta.size() == entry.size(),
            Ok(_) => true,
            Err(_) => lacking(path),
        };
        (!whole).then_some(at)
    })
}

/// Looks at the copies until all have ended: none is ever there in half.
fn watch(stage: &Stage, mode: &str, expected: &[Tree], hashes: &[String], over: &AtomicBool) {
    let tasks = stage.folder(mode).join("jobs").join(TASK);
    while !over.load(Ordering::Relaxed) {
        for (hash, expected) in hashes.iter().zip(expected) {
            let copy = tasks.join(hash);
            // Of one copy, even if another takes its place now.
            let Ok(held) = fs::File::open(&copy) else {
                continue;
            };
            let same = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&held));
            if let Some(torn) = is_torn(Path::new(&same), expected) {
                // Replaced since, and taken away? Then the name leads to another.
                let now = fs::metadata(&copy).map(|meta| meta.ino()).ok();
                let then = held.metadata().map(|meta| meta.ino()).ok();
                assert_ne!(now, then, "{} is torn: {}", copy.display(), torn.display());
            }
        }
    }
}

struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn all_archive_at_once(mode: &'static str, count: usize) {
    let stage = Stage::new(if mode == "move" {
        &["move"]
    } else {
        &["backup"]
    });
    let hashes = small_jobs(&stage, count);
    let expected = trees(&stage.primary(), &hashes);
    let Some(python) = experimaestro(&stage, "archive", mode) else {
        return;
    };
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // Also if it fails: the watcher is waited for.
        let ends = Ends(&over);
        let watcher = scope.spawn(|| watch(&stage, mode, &expected, &hashes, &over));
        // experimaestro takes a while to start; from its first jobs on all work on the same.
        let tasks = stage.folder(mode).join("jobs").join(TASK);
        let some = || fs::read_dir(&tasks).is_ok_and(|entries| entries.count() > 5);
        let commands = vec![python, xpmfs(&stage), xpmfs(&stage), xpmfs(&stage)];
        let outputs = outputs(commands, || eventually("there are some copies", some));
        drop(ends);
        watcher.join().unwrap();
        for output in &outputs {
            assert!(
                matches!(output.status.code(), Some(0 | 1)),
                "{}",
                said(output)
            );
            assert!(!said(output).contains("panicked"), "{}", said(output));
        }
        let text = String::from_utf8_lossy(&outputs[0].stdout);
        let made: serde_json::Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
        let made = made["count"].as_u64().unwrap();
        say(&format!(
            "{mode}: {made} of {count} were archived by experimaestro"
        ));
        for output in &outputs[1..] {
            let text = said(output);
            let told = text.lines().filter(|line| line.contains("failed"));
            told.for_each(say);
        }
        assert!(made > 0);
    });
    // Of those that another was at.
    stage.archive();
    if mode == "backup" {
        assert_trees("the job", &expected, &stage.primary(), &hashes);
        assert_trees("the copy", &expected, &stage.folder(mode), &hashes);
    } else {
        // What experimaestro moves has lost its `uv.lock`, and times of directories, for good.
        let tasks = stage.primary().join("jobs").join(TASK);
        for (hash, expected) in hashes.iter().zip(&expected) {
            let job = tasks.join(hash);
            assert!(job.is_symlink(), "{hash} was not moved");
            assert_eq!(is_torn(&job, expected), None);
        }
    }
    stage.verify_all();
    stage.assert_clean();
}

#[test]
fn several_archive_the_same_jobs_to_a_backup_at_once() {
    all_archive_at_once("backup", 500);
}

#[test]
fn several_move_the_same_jobs_at_once() {
    all_archive_at_once("move", if soak() { 500 } else { 100 });
}

#[test]
fn several_recover_the_same_jobs_while_another_archives_them() {
    for mode in ["backup", "move"] {
        let stage = Stage::new(if mode == "move" {
            &["move"]
        } else {
            &["backup"]
        });
        let hashes = small_jobs(&stage, 100);
        let expected = trees(&stage.primary(), &hashes);
        stage.archive();
        if mode == "backup" {
            fs::remove_dir_all(stage.primary().join("jobs").join(TASK)).unwrap();
        }
        let named = |what: &str, backwards: bool| {
            let mut command = stage.xpmfs();
            command.args(["jobs", what, "-w", "test"]);
            let jobs = hashes.iter().map(|hash| format!("{TASK}/{hash}"));
            let mut jobs: Vec<String> = jobs.collect();
            if backwards {
                jobs.reverse();
            }
            command.args(jobs);
            command
        };
        let all = vec![
            named("recover", false),
            named("recover", true),
            named("archive", false),
        ];
        at_once(all);
        assert_trees("the job", &expected, &stage.primary(), &hashes);
        assert_trees("the copy", &expected, &stage.folder(mode), &hashes);
        let output = named("recover", false).output().unwrap();
        assert!(output.status.success(), "{}", said(&output));
        assert_trees("the job at the end", &expected, &stage.primary(), &hashes);
        stage.verify_all();
        stage.assert_clean();
        for hash in &hashes {
            assert!(
                !stage
                    .primary()
                    .join("jobs")
                    .join(TASK)
                    .join(hash)
                    .is_symlink()
            );
        }
    }
}

#[test]
fn experimaestro_recovers_what_we_archived_and_we_what_it_archived() {
    let stage = Stage::new(&["backup"]);
    write_job(&stage.job());
    // experimaestro's copies lack it, and get no times for their top.
    fs::remove_file(stage.job().join("uv.lock")).unwrap();
    let job = whole(&stage.job()).unwrap();
    stage.archive();
    fs::remove_dir_all(stage.job()).unwrap();
    let Some(python) = experimaestro(&stage, "recover", "backup") else {
        return;
    };
    assert_eq!(python::report::<&str>(python, &[])["count"], 1);
    assert_contents(&job, &whole(&stage.job()).unwrap());
    // And the other way round.
    let other = Stage::new(&["backup"]);
    duplicate(&stage.job(), &other.job());
    let python = experimaestro(&other, "archive", "backup").unwrap();
    assert_eq!(python::report::<&str>(python, &[])["count"], 1);
    fs::remove_dir_all(other.job()).unwrap();
    let from = other.folder("backup");
    let name = format!("{TASK}/{}", super::stage::HASH);
    let output = other.jobs(&["recover", &name, "--from", from.to_str().unwrap()]);
    assert!(output.status.success(), "{}", said(&output));
    let recovered = whole(&other.job()).unwrap();
    assert_tree(
        "the job",
        &whole(&other.archived("backup")).unwrap(),
        Some(&recovered),
    );
    assert_contents(&job, &recovered);
    other.archive();
    stage.assert_clean();
    other.assert_clean();
}

/// Asserts that two trees have the same files, byte for byte.
fn assert_contents(expected: &Tree, found: &Tree) {
    let contents = |tree: &Tree| -> Vec<(PathBuf, String)> {
        tree.iter()
            .map(|(path, entry)| (path.clone(), entry.hold()))
            .collect()
    };
    assert_eq!(contents(expected), contents(found));
}
