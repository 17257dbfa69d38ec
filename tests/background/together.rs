//! Several archive to one folder at the same time: experimaestro itself, and daemons of ours.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::common;
use crate::common::Workspace;
use crate::job;
use crate::python;
use crate::stage::{Beneath, Process, assert_whole, has_all, staging, until, watch, within};

const JOBS: usize = 500;

/// How long all of it may take.
const LIMIT: Duration = Duration::from_secs(180);

/// Archives to a folder, with experimaestro's own archiver, whatever the workspace has, until it has archived so many or
/// found them archived; prints how many were by itself. After the first 30 it waits for a file, so that it is not done
/// before the others begin.
const ARCHIVER: &str = "
import sys, time
from pathlib import Path
from experimaestro.scheduler import folders
from experimaestro.settings import FolderSettings, FolderMode
jobs, folder, count, others = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])
seen, own = set(), 0
print('ready', flush=True)
while len(seen) < count:
    # What was made last first: others begin with what was first.
    for name in sorted((p.name for p in jobs.iterdir() if not p.name.startswith('.tmp.')), reverse=True):
        if name in seen:
            continue
        there = (folder / 'jobs' / jobs.name / name).exists()
        job = folders._Job(src=jobs / name, rel=Path(jobs.name) / name, name='train')
        done = folders._archive_job(job, FolderSettings(path=folder, mode=FolderMode.BACKUP))
        if done is not None:
            seen.add(name)
            own += not there
        while own == 30 and not others.exists():
            time.sleep(0.01)
print(own, flush=True)
";

/// experimaestro's archiver at work on a workspace that is seen at `primary`.
struct Experimaestro {
    process: Process,
    printed: PathBuf,
}

impl Experimaestro {
    fn start(workspace: &Workspace, python: &Path, primary: &Path) -> Experimaestro {
        let printed = workspace.top().join("experimaestro.out");
        let file = |name| fs::File::create(workspace.top().join(name)).unwrap();
        let mut command = Command::new(python);
        command
            .args(["-c", ARCHIVER])
            .arg(primary.join("jobs").join(job::TASK))
            .arg(workspace.folder("backup"))
            .arg(JOBS.to_string())
            .arg(workspace.top().join("others"))
            .env("HOME", workspace.top())
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env_remove("XDG_CONFIG_HOME")
            .stdin(Stdio::null())
            .stdout(file("experimaestro.out"))
            .stderr(file("experimaestro.err"));
        let process = Process::start(&mut command);
        until("experimaestro is ready", || {
            fs::read_to_string(&printed).unwrap().starts_with("ready")
        });
        Experimaestro { process, printed }
    }

    /// Waits for its end; gives how many jobs it has archived.
    fn end(mut self) -> usize {
        let status = self.process.end(LIMIT);
        let printed = fs::read_to_string(&self.printed).unwrap();
        let errors = fs::read_to_string(self.printed.with_extension("err")).unwrap();
        assert!(status.success(), "{errors}");
        printed.lines().last().unwrap().parse().unwrap()
    }
}

/// Makes all jobs, and gives what they hold.
fn make_all(primary: &Path) -> Vec<BTreeMap<PathBuf, String>> {
    (0..JOBS)
        .map(|number| job::make_and_tell(primary, number, job::tree))
        .collect()
}

/// How many jobs daemons say that they have archived.
fn archived(workspace: &Workspace) -> usize {
    let log = workspace.log();
    log.lines()
        .filter(|line| line.contains(": archived "))
        .count()
}

#[test]
fn experimaestro_and_two_daemons_back_up_the_same_jobs_at_once() {
    let Some(python) = python::interpreter() else {
        return;
    };
    let workspace = Workspace::new();
    workspace.with_folders(&["backup"]);
    workspace.tune("{settle: 50ms, scan_interval: 100ms}");
    let folder = workspace.folder("backup");
    let expected = make_all(&workspace.primary());
    let experimaestro = Experimaestro::start(&workspace, &python, &workspace.primary());
    // It is slow, and would have nothing to do with the others otherwise.
    within(LIMIT, "experimaestro has begun", || {
        job::entries(&folder.join("jobs").join(job::TASK)).is_ok_and(|names| names.len() > 20)
    });
    let in_place = workspace.mount_archiving(&workspace.primary(), &[]);
    let elsewhere = workspace.mount_archiving(&workspace.mountpoint("elsewhere"), &[]);
    fs::write(workspace.top().join("others"), "").unwrap();
    within(LIMIT, "all jobs are archived", || has_all(&folder, 0..JOBS));
    let theirs = experimaestro.end();
    let ours = archived(&workspace);
    common::say(&format!(
        "of {JOBS} jobs experimaestro archived {theirs}, we {ours}"
    ));
    assert!(theirs > 0 && ours > 0);
    until("no staging is left", || staging(&folder).is_empty());
    in_place.unmount();
    elsewhere.unmount();
    assert_eq!(staging(&folder), [""; 0]);
    assert_eq!(staging(&workspace.primary()), [""; 0]);
    assert_whole(&folder, 0..JOBS, |number| expected[number].clone());
    assert_whole(&workspace.primary(), 0..JOBS, |number| {
        expected[number].clone()
    });
}

#[test]
fn two_daemons_move_the_same_jobs_at_once() {
    let workspace = Workspace::new();
    workspace.with_folders(&["move"]);
    workspace.tune("{settle: 50ms, scan_interval: 100ms}");
    let beneath = Beneath::of(&workspace.primary());
    let in_place = workspace.mount_archiving(&workspace.primary(), &[]);
    let mut watching = watch(&workspace);
    let said = || fs::read_to_string(workspace.top().join("watch.log")).unwrap();
    until("it watches", || said().contains("until it is interrupted"));
    let expected = make_all(&beneath.path());
    let folder = workspace.folder("move");
    let moved = |number: usize| beneath.path().join(job::path(number)).is_symlink();
    within(LIMIT, "all jobs are moved", || (0..JOBS).all(moved));
    until("nothing is left of them", || {
        staging(&beneath.path()).is_empty() && staging(&folder).is_empty()
    });
    for number in 0..JOBS {
        let link = fs::read_link(beneath.path().join(job::path(number))).unwrap();
        assert_eq!(link, folder.join(job::path(number)));
        job::look_at(&in_place.path().join(job::path(number)), number).unwrap();
    }
    watching.signal("-TERM");
    assert!(watching.end(LIMIT).success());
    in_place.unmount();
    assert_whole(&folder, 0..JOBS, |number| expected[number].clone());
    let said = said();
    let theirs = said
        .lines()
        .filter(|line| line.contains(": archived "))
        .count();
    let ours = archived(&workspace);
    common::say(&format!(
        "of {JOBS} jobs one archived {ours}, the other {theirs}"
    ));
    // On a busy machine, one of them may be too late for each job: then they have met at some.
    let met = said.contains("another process");
    assert!(met || (theirs > 0 && ours > 0), "{said}");
    assert!(!said.contains("warning"), "{said}");
}
