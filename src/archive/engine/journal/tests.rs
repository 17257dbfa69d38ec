use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::UNIX_EPOCH;

use rustix::fs::Mode;

use super::file::LINES_MIN;
use super::file::directory;
use super::line::RecordedRefusal;
use super::ownerless::{Ownerless, ownerless};
use super::*;
use crate::view::{View, ViewSpec};
use crate::workspace::JobId;

struct Disk {
    top: tempfile::TempDir,
    view: View,
}

impl Disk {
    fn new() -> Disk {
        let top = tempfile::tempdir().unwrap();
        let spec = ViewSpec {
            workspace: String::new(),
            primary: top.path().canonicalize().unwrap(),
            folders: Vec::new(),
            mountpoint: None,
        };
        let view = View::open(spec, None).unwrap();
        Disk { top, view }
    }

    fn journals(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.top.path().join(".xpmfs/archive")).unwrap();
        entries.map(|entry| entry.unwrap().path()).collect()
    }

    fn ownerless_jobs(&self) -> Vec<(JobId, Vec<RecordedRefusal>)> {
        let directory = directory(&self.view).unwrap();
        let found = ownerless(&directory, "").unwrap();
        let jobs = found.iter().flat_map(Ownerless::jobs).collect();
        found.into_iter().for_each(Ownerless::remove);
        jobs
    }
}

fn job(hash: &str) -> JobId {
    JobId::new("my.task", hash).unwrap()
}

fn queued(hash: &str) -> Line {
    Line::Queued(job(hash))
}

fn hashes(jobs: &[(JobId, Vec<RecordedRefusal>)]) -> Vec<&str> {
    jobs.iter()
        .map(|(job, _)| job.hash().to_str().unwrap())
        .collect()
}

#[test]
fn a_journal_belongs_to_its_owner_as_long_as_the_owner_lives() {
    let disk = Disk::new();
    let mut journal = Journal::make(&disk.view).unwrap();
    let mut other = Journal::make(&disk.view).unwrap();
    other.append(&[queued("z")]).unwrap();
    journal
        .append(&[queued("a"), queued("b"), queued("c"), Line::Done(job("b"))])
        .unwrap();
    assert!(disk.ownerless_jobs().is_empty());
    drop(journal);
    assert_eq!(hashes(&disk.ownerless_jobs()), ["a", "c"]);
    assert_eq!(disk.journals().len(), 1);
    other.remove();
    assert!(disk.journals().is_empty());
}

/// Other processes always look for journals without an owner, also in the moment before a new one is locked.
#[test]
fn a_new_journal_is_not_lost_to_processes_that_look_for_abandoned_ones() {
    let disk = Disk::new();
    let directory = directory(&disk.view).unwrap();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    let found = ownerless(&directory, "").unwrap();
                    found.into_iter().for_each(Ownerless::remove);
                }
            });
        }
        let made: io::Result<()> = (0..300).try_for_each(|_| {
            let mut journal = Journal::make(&disk.view)?;
            journal.rewrite(&[queued("a")])?;
            journal.remove();
            Ok(())
        });
        over.store(true, Ordering::Relaxed);
        made.unwrap();
    });
    assert!(disk.journals().is_empty());
}

#[test]
fn a_rewritten_journal_stays_locked_and_keeps_its_jobs() {
    let disk = Disk::new();
    let mut journal = Journal::make(&disk.view).unwrap();
    let lines: Vec<Line> = (0..LINES_MIN).map(|_| queued("a")).collect();
    journal.append(&lines).unwrap();
    assert!(!journal.is_long(1));
    journal.append(&[queued("a")]).unwrap();
    assert!(journal.is_long(1) && !journal.is_long(LINES_MIN));
    journal.rewrite(&[queued("a")]).unwrap();
    assert!(!journal.is_long(1));
    assert!(disk.ownerless_jobs().is_empty());
    journal.append(&[queued("b")]).unwrap();
    drop(journal);
    assert_eq!(hashes(&disk.ownerless_jobs()), ["a", "b"]);
}

#[test]
fn torn_lines_and_other_files_are_skipped() {
    let disk = Disk::new();
    drop(Journal::make(&disk.view).unwrap());
    let path = disk.journals().pop().unwrap();
    std::fs::write(
        &path,
        b"{\"queued\":\"my.task/a\"}\n\xff\xfe\n{\"queued\":\"my.task/b\"}\n{\"done\":\"my.ta",
    )
    .unwrap();
    let dir = path.parent().unwrap();
    std::fs::write(dir.join("x.jsonl.new"), "{\"queued\":\"my.task/z\"}\n").unwrap();
    std::fs::write(dir.join("rechecked"), "").unwrap();
    std::os::unix::fs::symlink(&path, dir.join("link.jsonl")).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, dir.join("fifo.jsonl"), Mode::RWXU).unwrap();
    assert_eq!(hashes(&disk.ownerless_jobs()), ["a", "b"]);
    let mut left: Vec<String> = disk
        .journals()
        .iter()
        .map(|path| path.file_name().unwrap().to_string_lossy().into_owned())
        .collect();
    left.sort();
    assert_eq!(left, ["fifo.jsonl", "link.jsonl", "rechecked"]);
}

#[test]
fn the_last_refusal_of_each_folder_is_kept() {
    let disk = Disk::new();
    let mut journal = Journal::make(&disk.view).unwrap();
    let failed = |folder: &str, tries| {
        let refused = RecordedRefusal {
            folder: folder.into(),
            tries,
            next: UNIX_EPOCH,
            why: "full".to_owned(),
        };
        Line::Failed(job("a"), refused)
    };
    journal
        .append(&[failed("/x", 1), failed("/y", 1), failed("/x", 2)])
        .unwrap();
    drop(journal);
    let jobs = disk.ownerless_jobs();
    let refused: Vec<_> = jobs[0]
        .1
        .iter()
        .map(|one| (one.folder.to_str().unwrap(), one.tries))
        .collect();
    assert_eq!(refused, [("/y", 1), ("/x", 2)]);
}

#[test]
fn a_journal_has_the_permissions_of_the_workspace() {
    use std::os::unix::fs::PermissionsExt;
    let disk = Disk::new();
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode();
    std::fs::set_permissions(disk.top.path(), std::fs::Permissions::from_mode(0o2775)).unwrap();
    let _journal = Journal::make(&disk.view).unwrap();
    let path = disk.journals().pop().unwrap();
    assert_eq!(mode(&path) & 0o7777, 0o664);
    assert_eq!(mode(path.parent().unwrap()) & 0o7777, 0o2775);
}
