//! A new plan, run wholly through a mount.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use rustix::io::Errno;

use crate::common::{Mounted, Workspace, names};
use crate::plan::{Job, Plan, Ran, assert_ran_at};

/// The bare primary while a mount covers it up: a directory opened before, by its entry in `/proc`.
struct Beside(File);

impl Beside {
    fn open(workspace: &Workspace) -> Beside {
        Beside(File::open(workspace.primary()).unwrap())
    }

    fn path(&self) -> PathBuf {
        use std::os::fd::AsRawFd;
        PathBuf::from(format!("/proc/self/fd/{}", self.0.as_raw_fd()))
    }
}

/// The event files of a job that runs, from the top of the workspace.
fn event_files(top: &Path, job: &Job) -> [PathBuf; 2] {
    let events = names(&top.join(".events/jobs"));
    let mut of_job = events
        .iter()
        .filter(|name| name.to_str().unwrap().contains(&job.hash));
    let event = Path::new(".events/jobs").join(of_job.next().expect("an event file"));
    assert!(of_job.next().is_none(), "{events:?}");
    [
        event,
        job.path().join(".experimaestro/events/event-0.jsonl"),
    ]
}

/// Asserts that the event file of a running job is one file with two names, through the mount and on
/// disk, with the same events in it.
fn assert_linked(top: &Path, beside: &Path, job: &Job) {
    let mut contents = Vec::new();
    for top in [top, beside] {
        let [one, two] = event_files(top, job).map(|file| top.join(file));
        let (a, b) = (fs::metadata(&one).unwrap(), fs::metadata(&two).unwrap());
        assert_eq!((a.ino(), a.dev()), (b.ino(), b.dev()), "{}", one.display());
        assert_eq!((a.nlink(), b.nlink()), (2, 2), "{}", one.display());
        contents.extend([fs::read(one).unwrap(), fs::read(two).unwrap()]);
    }
    assert!(!contents[0].is_empty());
    assert!(contents.iter().all(|one| *one == contents[0]));
}

fn try_lock(path: &Path) -> Result<(), Errno> {
    let file = File::options().read(true).write(true).open(path).unwrap();
    rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)?;
    rustix::fs::flock(&file, FlockOperation::Unlock)
}

/// Asserts that the locks of a plan and of its job that runs are `state`, through the mount and beside.
fn assert_locks(top: &Path, beside: &Path, job: &Job, state: Result<(), Errno>) {
    for file in [job.file("lock"), "experiments/demo/lock".into()] {
        for top in [top, beside] {
            assert_eq!(try_lock(&top.join(&file)), state, "{}", file.display());
        }
    }
}

/// Asserts that the newest run of the plan is found, and its jobs by its symlinks, in a workspace.
fn assert_current(top: &Path, run: Option<&str>, job: &Job) {
    let current = top.join("experiments/demo/current");
    let target = fs::read_link(&current).unwrap();
    assert!(target.is_relative(), "{}", target.display());
    let newest = names(&top.join("experiments/demo"));
    let newest = newest
        .iter()
        .filter_map(|name| name.to_str())
        .rfind(|name| name.starts_with("20"));
    assert_eq!(target.to_str(), newest);
    if let Some(run) = run {
        assert_eq!(target, Path::new(run));
    }
    assert!(current.join("status.json").is_file());
    let link = current.join(job.path());
    assert!(link.is_symlink());
    assert_eq!(fs::read_link(&link).unwrap(), top.join(job.path()));
    assert!(link.join("params.json").is_file());
}

fn assert_done(mounted: &Mounted<'_>, workspace: &Workspace, ran: &Ran) {
    let device = fs::metadata(mounted.path()).unwrap().dev();
    for job in &ran.jobs {
        let output = mounted.path().join(job.file("out"));
        assert_ran_at(mounted.path(), device, job, &output);
        assert_eq!(mounted.location(job.path()), "primary");
        assert_current(mounted.path(), Some(&ran.run), job);
    }
    // What they said while they ran has been archived: the other names are gone.
    assert!(names(&mounted.path().join(".events/jobs")).is_empty());
    assert!(workspace.primary().exists());
}

/// Runs a plan through a mount, looks at it from both sides while its first job runs and when all is
/// done, and then runs it again without the mount.
fn a_plan_succeeds(workspace: &Workspace, mountpoint: &Path) {
    let Some(plan) = Plan::of(workspace) else {
        return;
    };
    let beside = Beside::open(workspace);
    let beside = beside.path();
    let mounted = workspace.mount_at(mountpoint);
    assert_ne!(
        fs::metadata(mountpoint).unwrap().dev(),
        fs::metadata(&beside).unwrap().dev()
    );

    let mut running = plan.start(mountpoint, &["3"]);
    let first = running.wait_for_a_job();
    assert_linked(mountpoint, &beside, &first);
    assert_locks(mountpoint, &beside, &first, Err(Errno::WOULDBLOCK));
    assert_current(mountpoint, None, &first);
    running.open_gate();
    let ran = running.finish();
    assert_eq!(ran.executed.len(), 4);
    assert_done(&mounted, workspace, &ran);
    assert_locks(mountpoint, &beside, &first, Ok(()));
    mounted.unmount();

    for job in &ran.jobs {
        assert_current(&workspace.primary(), Some(&ran.run), job);
        for ending in ["done", "out", "err", "lock", "py"] {
            let file = workspace.primary().join(job.file(ending));
            assert_eq!(
                fs::metadata(&file).unwrap().nlink(),
                1,
                "{}",
                file.display()
            );
        }
    }
    let again = plan.run(&workspace.primary(), &["3"]);
    assert_eq!(again.jobs, ran.jobs);
    assert_eq!(again.executed, []);
}

#[test]
fn a_new_plan_succeeds_in_place() {
    let workspace = Workspace::new();
    a_plan_succeeds(&workspace, &workspace.primary());
}

#[test]
fn a_new_plan_succeeds_elsewhere() {
    let workspace = Workspace::new();
    let mountpoint = workspace.mountpoint("mnt");
    a_plan_succeeds(&workspace, &mountpoint);
}

/// experimaestro makes what it lacks; a workspace may also be all new.
#[test]
fn a_new_plan_succeeds_where_only_folders_have_anything() {
    let workspace = Workspace::builder().primary("wörk space").build();
    fs::remove_dir(workspace.primary().join("jobs")).unwrap();
    for (folder, task) in [("use", "__main__.train"), ("backup", "__main__.prepare")] {
        workspace.finished(folder, task, &"0".repeat(64));
    }
    a_plan_succeeds(&workspace, &workspace.primary());
}
