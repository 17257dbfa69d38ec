//! experimaestro's own archiving, at the same time.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use xpmfs::transfer::staging::sweep;

use super::Task;
use crate::python;

/// Runs a program in Python with experimaestro, which must succeed; gives what it prints last.
fn run(python: &Path, program: &str, task: &Task) -> String {
    let output = command(python, program, task).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    let printed = String::from_utf8(output.stdout).unwrap();
    printed.lines().last().unwrap_or_default().to_owned()
}

fn command(python: &Path, program: &str, task: &Task) -> Command {
    let prelude = "
import sys
from pathlib import Path
from experimaestro.scheduler import folders
from experimaestro.settings import FolderSettings, FolderMode
task = Path(sys.argv[1])
def archive(hash):
    source = task.parent / 'source' / 'task' / hash
    folder = task.parent / 'folder'
    job = folders._Job(src=source, rel=Path('task') / hash, name='task')
    return folders._archive_job(job, FolderSettings(path=folder, mode=FolderMode.BACKUP))
";
    let mut command = Command::new(python);
    command
        .args(["-c", &format!("{prelude}{program}")])
        .arg(task.path())
        .env("HOME", task.0.path())
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env_remove("XDG_CONFIG_HOME");
    command
}

/// A job that experimaestro may archive to the task's directory.
fn source(task: &Task, hash: &str) {
    let source = task.0.path().join("source/task").join(hash);
    fs::create_dir_all(&source).unwrap();
    fs::write(source.join("which"), "experimaestro's").unwrap();
    let jobs = task.0.path().join("folder/jobs");
    if !jobs.exists() {
        fs::create_dir_all(&jobs).unwrap();
        std::os::unix::fs::symlink(task.path(), jobs.join("task")).unwrap();
    }
}

#[test]
fn experimaestro_leaves_alone_what_we_hold() {
    let Some(python) = python::interpreter() else {
        return;
    };
    let task = Task::new();
    source(&task, "hash");
    source(&task, "other");
    let mut staging = task.staged("hash", "ours");
    assert_eq!(run(&python, "print(archive('hash'))", &task), "None");
    assert_eq!(task.which(".tmp.hash"), "ours");
    // It sweeps when it archives another.
    let archived = run(&python, "print(archive('other'))", &task);
    assert!(archived.ends_with("other"), "{archived}");
    assert_eq!(task.which("other"), "experimaestro's");
    assert!(staging.holds().unwrap());
    staging.publish().unwrap();
    staging.finish(None).unwrap();
    assert_eq!(task.which("hash"), "ours");
    assert_eq!(task.names(), ["hash", "other"]);
}

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn what_experimaestro_holds_is_left_alone_until_it_is_dead() {
    let Some(python) = python::interpreter() else {
        return;
    };
    let task = Task::new();
    source(&task, "hash");
    // Stopped in the middle of its copy.
    let program = "
def stop(source, dest):
    dest.mkdir()
    (dest / 'which').write_text('half')
    print('copying', flush=True)
    sys.stdin.read()
folders._copy_tree = stop
archive('hash')
";
    let mut command = command(&python, program, &task);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = Killed(command.spawn().unwrap());
    let mut line = String::new();
    let mut output = BufReader::new(child.0.stdout.take().unwrap());
    output.read_line(&mut line).unwrap();
    assert_eq!(line, "copying\n");
    assert!(task.try_take("hash").unwrap().is_none());
    assert_eq!(sweep(task.fd()).unwrap(), 0);
    assert_eq!(task.which(".tmp.hash"), "half");
    drop(child);
    assert_eq!(sweep(task.fd()).unwrap(), 1);
    assert_eq!(task.names(), [""; 0]);
    drop(task.take("hash"));
}

#[test]
fn experimaestro_takes_over_when_it_has_removed_our_lock() {
    let Some(python) = python::interpreter() else {
        return;
    };
    let task = Task::new();
    source(&task, "hash");
    let mut staging = task.staged("hash", "ours");
    // What it does when it lets go just before we take the lock.
    fs::remove_file(task.at(".tmp.hash.lock")).unwrap();
    let archived = run(&python, "print(archive('hash'))", &task);
    assert!(archived.ends_with("hash"), "{archived}");
    assert!(!staging.holds().unwrap());
    staging.publish().unwrap_err();
    drop(staging);
    assert_eq!(task.which("hash"), "experimaestro's");
    assert_eq!(task.names(), ["hash"]);
}

#[test]
fn experimaestro_leaves_alone_what_an_exchange_has_put_aside() {
    let Some(python) = python::interpreter() else {
        return;
    };
    let task = Task::new();
    task.dir(".replaced.hash", "old");
    task.dir(".tmp.hash", "new");
    run(&python, "folders._sweep_stale_tmp(task)", &task);
    assert_eq!(task.names(), [".replaced.hash"]);
    assert_eq!(sweep(task.fd()).unwrap(), 1);
    assert_eq!(task.names(), ["hash"]);
    assert_eq!(task.which("hash"), "old");
}

#[test]
fn a_lock_of_experimaestro_counts_and_ours_counts_for_it() {
    let Some(python) = python::interpreter() else {
        return;
    };
    let task = Task::new();
    let program = "
import filelock, experimaestro.locking as locking
lock = locking.create_file_lock(task / '.tmp.hash.lock', timeout=0)
for line in sys.stdin:
    try:
        lock.acquire() if line == 'take\\n' else lock.release()
        print('done', flush=True)
    except filelock.Timeout:
        print('held', flush=True)
";
    let mut command = command(&python, program, &task);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = Killed(command.spawn().unwrap());
    let mut output = BufReader::new(child.0.stdout.take().unwrap());
    let mut input = child.0.stdin.take().unwrap();
    let mut ask = |what: &str| {
        use std::io::Write;
        input.write_all(what.as_bytes()).unwrap();
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        line
    };
    let staging = task.take("hash");
    assert_eq!(ask("take\n"), "held\n");
    drop(staging);
    assert_eq!(ask("take\n"), "done\n");
    assert!(task.try_take("hash").unwrap().is_none());
    assert_eq!(ask("let go\n"), "done\n");
    drop(task.take("hash"));
}
