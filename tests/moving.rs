//! Another node's daemon moves jobs to a folder while processes read them through a mount: the readers see no error, and
//! only what the jobs hold.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use common::{Mounted, Workspace, names};
use common::{job, thread};
use job::{TASK, entries, hash, look_at, model};
use rustix::fs::{CWD, RenameFlags};
use xpmfs::daemon::uncovered;

/// How many jobs are moved, and the time between two.
const JOBS: usize = 120;
const PACE: Duration = Duration::from_millis(12);
/// How long the old directory of a moved job stays.
const GRACE: Duration = Duration::from_millis(2500);

#[test]
fn jobs_are_moved_in_place_while_root_reads_them() {
    if common::is_root() {
        moves(&Workspace::new(), true, &[]);
    }
}

#[test]
fn jobs_are_moved_while_everybody_may_read_them_elsewhere() {
    if common::is_root() {
        moves(&Workspace::new(), false, &["-o", "allow_other"]);
    }
}

#[test]
fn jobs_are_moved_in_place_while_an_ordinary_user_reads_them() {
    moves(&Workspace::of_ordinary_user(), true, &[]);
}

#[test]
fn jobs_are_moved_while_an_ordinary_user_reads_them_elsewhere() {
    moves(&Workspace::of_ordinary_user(), false, &[]);
}

/// Moves all jobs of a workspace while others read them.
fn moves(workspace: &Workspace, in_place: bool, arguments: &[&str]) {
    for number in 0..JOBS {
        furnish(workspace, number);
    }
    workspace.give_away();
    let mountpoint = match in_place {
        true => workspace.primary(),
        false => workspace.mountpoint("elsewhere"),
    };
    let mut mover = Mover::new(workspace);
    let mounted = workspace.mount_with(&mountpoint, arguments);
    if in_place && !workspace.is_of_another_user() {
        // Who asks for it is going to change what the mount would take for its own otherwise.
        mover.beneath = uncovered::beneath(&mountpoint).unwrap().unwrap();
    }
    let (current, over) = (AtomicUsize::new(0), AtomicBool::new(false));
    let reader = |top: &Path, near: bool| {
        let (top, current, over) = (top.to_owned(), &current, &over);
        move || workspace.as_user(|| read_all_the_time(&top, near, current, over))
    };
    let primary = workspace.primary();
    std::thread::scope(|scope| {
        let readers = [
            scope.spawn(reader(&mountpoint, false)),
            scope.spawn(reader(&mountpoint, true)),
            scope.spawn(reader(&primary, true)),
        ];
        {
            // Also if it fails: the readers are waited for.
            let _over = Over(&over);
            mover.run(&current);
        }
        let seen = readers.map(|reader| reader.join().unwrap());
        let failures: Vec<String> = seen.iter().flat_map(|seen| seen.failures.clone()).collect();
        let looks = seen.map(|seen| seen.looks);
        common::say(&format!("jobs were looked at {looks:?} times"));
        assert!(failures.is_empty(), "{}", failures.join("\n"));
    });
    for number in 0..JOBS {
        let location = workspace.as_user(|| mounted.location(job::path(number)));
        assert_eq!(location, "move");
    }
}

/// Tells the readers, when it is dropped, that all is over.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

fn furnish(workspace: &Workspace, number: usize) -> PathBuf {
    let job = workspace.primary().join(job::path(number));
    job::write(&job, number);
    job
}

/// Moves jobs to the folder as the archiver does.
struct Mover<'a> {
    workspace: &'a Workspace,
    /// The primary's own directory: in place, its path leads into the mount.
    beneath: OwnedFd,
}

impl Mover<'_> {
    /// To be called before the workspace is mounted.
    fn new(workspace: &Workspace) -> Mover<'_> {
        let beneath = File::open(workspace.primary()).unwrap().into();
        Mover { workspace, beneath }
    }

    fn task(&self) -> PathBuf {
        PathBuf::from(format!(
            "/proc/{}/fd/{}/jobs/{TASK}",
            std::process::id(),
            self.beneath.as_raw_fd()
        ))
    }

    fn run(&self, current: &AtomicUsize) {
        let mut old = VecDeque::new();
        for number in 0..JOBS {
            current.store(number, Ordering::Relaxed);
            std::thread::sleep(PACE / 2);
            self.exchange(number);
            old.push_back((Instant::now() + GRACE, number));
            std::thread::sleep(PACE / 2);
            let now = Instant::now();
            while let Some(number) = old.front().filter(|(due, _)| *due <= now).map(|old| old.1) {
                self.remove_old(number);
                old.pop_front();
            }
        }
        for (due, number) in old {
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            self.remove_old(number);
        }
    }

    /// Copies a job and puts a symlink in its place.
    fn exchange(&self, number: usize) {
        let hash = hash(number);
        let staging = format!(".tmp.{hash}");
        let folder = self.workspace.folder("move").join("jobs").join(TASK);
        fs::create_dir_all(&folder).unwrap();
        let job = self.task().join(&hash);
        let copy = folder.join(&staging);
        copy_tree(&job, &copy);
        self.workspace.give(&copy);
        fs::rename(&copy, folder.join(&hash)).unwrap();
        let link = self.task().join(&staging);
        symlink(folder.join(&hash), &link).unwrap();
        rustix::fs::renameat_with(CWD, &link, CWD, &job, RenameFlags::EXCHANGE).unwrap();
    }

    fn remove_old(&self, number: usize) {
        let old = self.task().join(format!(".tmp.{}", hash(number)));
        fs::remove_dir_all(old).unwrap();
    }
}

fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for name in names(from) {
        let (from, to) = (from.join(&name), to.join(&name));
        if from.is_symlink() {
            symlink(fs::read_link(&from).unwrap(), &to).unwrap();
        } else if from.is_dir() {
            copy_tree(&from, &to);
        } else {
            fs::copy(&from, &to).unwrap();
        }
    }
}

/// What somebody has seen.
#[derive(Debug, Default)]
struct Seen {
    looks: usize,
    failures: Vec<String>,
}

/// Looks at the jobs, all of them or those that are `near` the one being moved, until it is over.
fn read_all_the_time(top: &Path, near: bool, current: &AtomicUsize, over: &AtomicBool) -> Seen {
    let mut seen = Seen::default();
    let task = top.join("jobs").join(TASK);
    let mut next = 0;
    while !over.load(Ordering::Acquire) && seen.failures.len() < 10 {
        let number = match near {
            true => current.load(Ordering::Relaxed).saturating_sub(next % 3),
            false => next % JOBS,
        };
        next += 1;
        seen.looks += 1;
        let looked = look_at(&task.join(hash(number)), number);
        let listed = match next % 50 {
            0 => all_are_listed(&task),
            _ => Ok(()),
        };
        for failure in [looked, listed].into_iter().filter_map(Result::err) {
            seen.failures.push(failure);
        }
    }
    seen
}

/// Sees whether a task's listing has each job once.
fn all_are_listed(task: &Path) -> Result<(), String> {
    let listed = entries(task).map_err(|e| format!("{}: list: {e}", task.display()))?;
    let jobs = listed.into_iter().filter(|name| !is_staging(name));
    if !jobs.eq((0..JOBS).map(|number| OsString::from(hash(number)))) {
        return Err(format!("{}: jobs are missing, or twice", task.display()));
    }
    Ok(())
}

fn is_staging(name: &OsString) -> bool {
    name.as_encoded_bytes().starts_with(b".tmp.")
}

/// The bytes at the start of each page of a large file.
fn page(number: usize) -> [u8; 8] {
    (number as u64 + 1).to_le_bytes()
}

const PAGES: usize = 1000;

fn large() -> Vec<u8> {
    let mut large = Vec::with_capacity(PAGES * thread::PAGE);
    for number in 0..PAGES {
        large.extend_from_slice(&page(number));
        large.resize((number + 1) * thread::PAGE, 0);
    }
    large
}

#[test]
fn a_file_that_was_opened_before_its_job_is_moved_is_read_to_its_end() {
    for in_place in [true, false] {
        let workspace = Workspace::new();
        let job = furnish(&workspace, 0);
        fs::write(job.join("large"), large()).unwrap();
        let mountpoint = match in_place {
            true => workspace.primary(),
            false => workspace.mountpoint("elsewhere"),
        };
        let mover = Mover::new(&workspace);
        let mounted = workspace.mount_at(&mountpoint);
        read_over_a_move(&mounted, &mover);
    }
}

fn read_over_a_move(mounted: &Mounted<'_>, mover: &Mover<'_>) {
    let job = mounted.job(TASK, &hash(0));
    let mut file = File::open(job.join("large")).unwrap();
    let mapped = File::open(job.join("large")).unwrap();
    let mapping = thread::Mapping::new(&mapped, true, false).unwrap();
    drop(mapped);
    let expected = large();
    let mut read = vec![0; expected.len() / 3];
    file.read_exact(&mut read).unwrap();
    mover.exchange(0);
    let mut part = vec![0; expected.len() / 3];
    file.read_exact(&mut part).unwrap();
    read.extend(part);
    mover.remove_old(0);
    file.read_to_end(&mut read).unwrap();
    assert!(read == expected, "something else was read");
    assert_eq!(file.metadata().unwrap().len(), expected.len() as u64);
    assert_eq!(mapping.read(0), page(0)[0]);
    // Who comes now finds it in the folder, at once.
    assert!(fs::read(job.join("large")).unwrap() == expected);
    assert_eq!(names(&job).len(), 10);
}

#[test]
fn who_works_in_a_job_that_is_moved_goes_on_as_on_a_disk() {
    for workspace in [Workspace::new(), Workspace::of_ordinary_user()] {
        furnish(&workspace, 0);
        workspace.give_away();
        let mover = Mover::new(&workspace);
        let mounted = workspace.mount_in_place();
        let script = "cd \"$1\" && echo there && read line
            cat model.bin && ls && cat .experimaestro/status.json && echo && echo done && read line
            stat -c %F . 2>&1; cat model.bin 2>&1";
        let mut shell = workspace
            .command("sh")
            .args(["-c", script, "sh"])
            .arg(mounted.job(TASK, &hash(0)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut input = shell.stdin.take().unwrap();
        let mut output = BufReader::new(shell.stdout.take().unwrap());
        assert_eq!(until(&mut output, "there"), "");
        mover.exchange(0);
        input.write_all(b"go on\n").unwrap();
        let seen = until(&mut output, "done");
        assert!(seen.as_bytes().starts_with(&model(0)), "{seen}");
        assert!(
            seen.ends_with("train.py\n{\"state\": \"done\"}\n"),
            "{seen}"
        );
        mover.remove_old(0);
        input.write_all(b"go on\n").unwrap();
        drop(input);
        let mut rest = String::new();
        output.read_to_string(&mut rest).unwrap();
        assert!(!shell.wait().unwrap().success(), "{rest}");
        // A directory that others have removed has attributes for as long as the kernel believes them.
        let gone = ["No such file", "Stale"]
            .iter()
            .any(|gone| rest.contains(&format!("'.': {gone}")));
        assert!(rest.starts_with("directory\n") || gone, "{rest}");
        assert!(rest.contains("model.bin: "), "{rest}");
    }
}

/// What comes before a line.
fn until(output: &mut impl BufRead, end: &str) -> String {
    let mut before = String::new();
    loop {
        let mut line = String::new();
        let length = output.read_line(&mut line).unwrap();
        assert!(length > 0, "it ended after {before}");
        if line.trim_end() == end {
            return before;
        }
        before += &line;
    }
}
