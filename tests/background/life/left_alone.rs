//! Jobs that are not archived, or not yet, and those that are archived again; and who waits for all that.

use std::fs::{self, File, FileTimes};
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::{Duration, SystemTime};

use rustix::fs::{FlockOperation, flock};

use crate::common::{Workspace, is_mounted, run};
use crate::job::{self, TASK, hash};
use crate::stage::{assert_whole, at_once, has_all, is_drained, journals, status, threads, until};

const QUICK: &str = "settle: 100ms, scan_interval: 100ms";

/// A workspace with a `backup` folder.
fn workspace() -> Workspace {
    let workspace = Workspace::new();
    workspace.with_folders(&["backup"]);
    workspace.tune(&format!("{{{QUICK}}}"));
    workspace
}

/// Has the mount archive all that it will, and unmounts.
fn drain(workspace: &Workspace, mountpoint: &Path) {
    run(workspace
        .xpmfs()
        .args(["umount", "--drain"])
        .arg(mountpoint));
    assert!(!is_mounted(mountpoint));
}

#[test]
fn jobs_that_are_opted_out_in_either_way_are_not_archived() {
    let workspace = Workspace::new();
    workspace.with_folders(&["backup"]);
    workspace.tune(&format!("{{{QUICK}, exclude: [\"{TASK}/*3\"]}}"));
    let primary = workspace.primary();
    for number in 0..4 {
        job::make(&primary, number);
    }
    // By its tag, as a plan leaves it.
    let run_dir = primary.join("experiments/test/20261122_020605");
    fs::create_dir_all(&run_dir).unwrap();
    let lines = [(0, "true"), (1, "false")].map(|(number, tag)| {
        let hash = hash(number);
        format!(
            "{{\"job_id\": \"{hash}\", \"task_id\": \"{TASK}\", \"tags\": {{\"backup\": {tag}}}, \"timestamp\": 1795313165.39}}\n"
        )
    });
    fs::write(run_dir.join("jobs.jsonl"), lines.concat()).unwrap();
    // By hand.
    run(workspace
        .xpmfs()
        .args(["jobs", "opt-out", "-w", "test", &hash(2)]));
    let mountpoint = workspace.mountpoint("elsewhere");
    let _mounted = workspace.mount_archiving(&mountpoint, &[]);
    let folder = workspace.folder("backup");
    until("the others are archived", || has_all(&folder, 0..1));
    until("all is looked at", || is_drained(&workspace, &mountpoint));
    drain(&workspace, &mountpoint);
    assert_whole(&folder, 0..1, |number| {
        job::tree(&primary.join(job::path(number)))
    });
    // Who changes their mind is heard at once.
    let again = workspace.mount_archiving(&mountpoint, &[]);
    run(workspace
        .xpmfs()
        .args(["jobs", "opt-in", "-w", "test", &hash(2)]));
    fs::write(again.job(TASK, &hash(2)).join("note"), "archive me").unwrap();
    until("it is archived", || has_all(&folder, 2..3));
    assert!(!has_all(&folder, 1..2) && !has_all(&folder, 3..4));
}

#[test]
fn what_was_run_again_between_two_mounts_is_archived_before_a_drain_ends() {
    let workspace = workspace();
    let mountpoint = workspace.mountpoint("elsewhere");
    let (primary, folder) = (workspace.primary(), workspace.folder("backup"));
    let job = primary.join(job::path(0));
    for output in ["first", "second"] {
        job::make(&primary, 0);
        fs::write(job.join("train.out"), output).unwrap();
        let mounted = workspace.mount_archiving(&mountpoint, &[]);
        drain(&workspace, &mountpoint);
        drop(mounted);
        assert_whole(&folder, 0..1, |_| job::tree(&job));
        fs::remove_dir_all(&job).unwrap();
    }
}

/// Whether a job is shown that was refused, with what to do.
fn is_refused(workspace: &Workspace, mountpoint: &Path) -> bool {
    let status = status(workspace, mountpoint);
    let why = &status["archive"]["failed"][0]["why"];
    why.as_str().is_some_and(|why| why.contains("--force"))
}

#[test]
fn what_a_person_has_to_decide_is_not_forgotten_by_the_next_mount() {
    at_once([true, false], |by_hand| {
        let workspace = workspace();
        let mountpoint = workspace.mountpoint("elsewhere");
        let (primary, folder) = (workspace.primary(), workspace.folder("backup"));
        let job = primary.join(job::path(0));
        job::make(&primary, 0);
        let mounted = workspace.mount_archiving(&mountpoint, &[]);
        until("it is archived", || has_all(&folder, 0..1));
        until("all is archived", || is_drained(&workspace, &mountpoint));
        if by_hand {
            drain(&workspace, &mountpoint);
        }
        fs::remove_file(job.join("train.out")).unwrap();
        fs::write(job.join("note"), "new").unwrap();
        if by_hand {
            // As often as somebody likes.
            for _ in 0..3 {
                let archive = ["jobs", "archive", "-w", "test", "--all"];
                let output = workspace.xpmfs().args(archive).output().unwrap();
                assert_eq!(output.status.code(), Some(1));
                assert_eq!(journals(&primary).len(), 1);
            }
        } else {
            fs::write(mounted.job(TASK, &hash(0)).join("another"), "new").unwrap();
            until("it is refused", || is_refused(&workspace, &mountpoint));
            run(workspace.xpmfs().arg("umount").arg(&mountpoint));
        }
        drop(mounted);
        for _ in 0..2 {
            let again = workspace.mount_archiving(&mountpoint, &[]);
            until("it is refused again", || {
                is_refused(&workspace, &mountpoint)
            });
            let drain = workspace
                .xpmfs()
                .args(["umount", "--drain"])
                .arg(&mountpoint)
                .output();
            assert!(!drain.unwrap().status.success());
            drop(again);
        }
        assert!(job.join("note").exists() && !folder.join(job::path(0)).join("note").exists());
    });
}

#[test]
fn what_is_changed_through_the_mount_is_archived_again() {
    at_once([true, false], |in_place| {
        let workspace = workspace();
        let mountpoint = match in_place {
            true => workspace.primary(),
            false => workspace.mountpoint("elsewhere"),
        };
        job::make(&workspace.primary(), 0);
        let mounted = workspace.mount_archiving(&mountpoint, &[]);
        let folder = workspace.folder("backup");
        let copy = folder.join(job::path(0));
        until("it is archived", || has_all(&folder, 0..1));
        until("all is archived", || is_drained(&workspace, &mountpoint));
        let job = mounted.job(TASK, &hash(0));
        let mut output = File::options()
            .append(true)
            .open(job.join("train.out"))
            .unwrap();
        output.write_all(b"step 3\n").unwrap();
        drop(output);
        fs::write(job.join("figure.png"), "a figure").unwrap();
        until("it is archived again", || {
            let output = fs::read_to_string(copy.join("train.out")).unwrap_or_default();
            output.ends_with("step 3\n") && copy.join("figure.png").exists()
        });
        drain(&workspace, &mountpoint);
        let primary = workspace.primary();
        assert_whole(&folder, 0..1, |number| {
            job::tree(&primary.join(job::path(number)))
        });
    });
}

/// What a job that waits is said to wait for.
fn waits_for(workspace: &Workspace, mountpoint: &Path) -> String {
    let status = status(workspace, mountpoint);
    let waiting = &status["archive"]["waiting"][0]["why"];
    waiting.as_str().unwrap_or_default().to_owned()
}

#[test]
fn a_job_that_is_open_for_writing_or_locked_is_archived_when_it_is_let_go() {
    let workspace = workspace();
    let mountpoint = workspace.mountpoint("elsewhere");
    let mounted = workspace.mount_archiving(&mountpoint, &[]);
    let folder = workspace.folder("backup");
    let primary = workspace.primary();
    // Open in the mount; locked in the mount; locked beside it, in the place where it was in older layouts.
    let names = ["model.bin", "train.lock", ".experimaestro/train.lock"];
    for (number, name) in names.into_iter().enumerate() {
        let job = mounted.job(TASK, &hash(number));
        job::write_unfinished(&job, number);
        let at = match number {
            2 => primary.join(job::path(number)),
            _ => job.clone(),
        };
        let options = &mut File::options();
        let held = options
            .create(true)
            .append(true)
            .open(at.join(name))
            .unwrap();
        if number > 0 {
            flock(&held, FlockOperation::NonBlockingLockExclusive).unwrap();
        }
        fs::write(job.join("train.done"), "").unwrap();
        let why = match number {
            0 => "open for writing",
            _ => "its lock is held",
        };
        until(why, || waits_for(&workspace, &mountpoint).contains(why));
        assert!(!has_all(&folder, number..number + 1));
        drop(held);
        until("it is archived", || has_all(&folder, number..number + 1));
    }
    drain(&workspace, &mountpoint);
    for number in 0..3 {
        let copy = folder.join(job::path(number));
        assert_eq!(
            fs::read(copy.join("model.bin")).unwrap(),
            job::model(number)
        );
        assert!(!copy.join("train.lock").exists());
    }
}

/// Each daemon knows only what is open in its own mount, and asks the other.
#[test]
fn a_job_that_is_open_for_writing_in_one_mount_is_not_moved_by_another() {
    let workspace = Workspace::new();
    workspace.with_folders(&["move"]);
    workspace.tune("{settle: 1500ms, scan_interval: 100ms}");
    let mountpoint = workspace.mountpoint("elsewhere");
    let in_place = workspace.mount_with(&workspace.primary(), &[]);
    let elsewhere = workspace.mount_archiving(&mountpoint, &[]);
    let job = in_place.job(TASK, &hash(0));
    job::write_unfinished(&job, 0);
    let output = &mut File::options();
    let mut output = output.append(true).open(job.join("train.out")).unwrap();
    fs::write(job.join("train.done"), "").unwrap();
    let why = "open for writing";
    until(why, || waits_for(&workspace, &mountpoint).contains(why));
    assert_eq!(elsewhere.location(job::path(0)), "primary");
    output.write_all(b"step 3\n").unwrap();
    drop(output);
    until("it is moved", || elsewhere.location(job::path(0)) == "move");
    until("that is seen", || in_place.location(job::path(0)) == "move");
    let copy = workspace.folder("move").join(job::path(0));
    let output = fs::read_to_string(copy.join("train.out")).unwrap();
    assert_eq!(output, "step 1\nstep 2\nstep 3\n");
}

#[test]
fn draining_waits_until_all_is_archived() {
    let workspace = Workspace::new();
    workspace.with_folders(&["backup", "move"]);
    // What is made beside the mount would not be found for long.
    workspace.tune("{settle: 1s, scan_interval: 1h}");
    let mountpoint = workspace.mountpoint("elsewhere");
    let _mounted = workspace.mount_archiving(&mountpoint, &[]);
    until("it has been scanned", || {
        let status = status(&workspace, &mountpoint);
        let folders = status["archive"]["folders"].as_array().unwrap();
        folders.iter().all(|folder| folder["last_scan"].is_string())
    });
    for number in 0..20 {
        let at = match number % 2 {
            0 => &mountpoint,
            _ => &workspace.primary(),
        };
        job::make(at, number);
    }
    let folder = workspace.folder("backup");
    assert!(!has_all(&folder, 1..2), "nothing is to be waited for");
    drain(&workspace, &mountpoint);
    for mode in ["backup", "move"] {
        let folder = workspace.folder(mode);
        assert!(has_all(&folder, 0..20), "{mode}");
    }
    let primary = workspace.primary();
    for number in 0..20 {
        assert!(primary.join(job::path(number)).is_symlink());
        job::look_at(&primary.join(job::path(number)), number).unwrap();
    }
    assert_eq!(journals(&primary), [""; 0]);
}

#[test]
fn a_mount_that_is_not_to_archive_or_is_read_only_archives_nothing() {
    let works = |threads: &[String]| threads.iter().any(|name| name.starts_with("xpmfs-store"));
    at_once(["--no-archive", "--read-only", ""], |argument| {
        let workspace = workspace();
        let mountpoint = workspace.mountpoint("elsewhere");
        job::make(&workspace.primary(), 0);
        let arguments: Vec<&str> = Some(argument)
            .filter(|one| !one.is_empty())
            .into_iter()
            .collect();
        let _mounted = workspace.mount_archiving(&mountpoint, &arguments);
        job::look_at(&mountpoint.join(job::path(0)), 0).unwrap();
        let status = status(&workspace, &mountpoint);
        let threads = threads(status["pid"].as_i64().unwrap());
        let archives = argument.is_empty();
        assert_eq!(works(&threads), archives, "{argument}: {threads:?}");
        assert_eq!(status["archive"].is_null(), !archives, "{status}");
        // It waits for nothing where there is nothing to wait for.
        drain(&workspace, &mountpoint);
        assert_eq!(
            has_all(&workspace.folder("backup"), 0..1),
            archives,
            "{argument}"
        );
        assert_eq!(
            workspace.primary().join(".xpmfs/archive/folders").exists(),
            archives,
            "{argument}"
        );
    });
}

#[test]
fn status_lists_the_jobs_of_a_run_that_cannot_be_read() {
    let workspace = workspace();
    let (primary, mountpoint) = (workspace.primary(), workspace.mountpoint("elsewhere"));
    (0..2).for_each(|number| job::make(&primary, number));
    let run_dir = primary.join("experiments/test/20261122_020605");
    let links = run_dir.join("jobs").join(TASK);
    fs::create_dir_all(&links).unwrap();
    symlink(primary.join(job::path(0)), links.join(hash(0))).unwrap();
    let file = run_dir.join("jobs.jsonl");
    fs::write(&file, [0; 512]).unwrap();
    let long_ago = SystemTime::now() - Duration::from_secs(3600);
    let times = FileTimes::new().set_modified(long_ago);
    File::open(&file).unwrap().set_times(times).unwrap();
    let _mounted = workspace.mount_archiving(&mountpoint, &[]);
    let folder = workspace.folder("backup");
    until("the other is archived", || has_all(&folder, 1..2));
    until("the job is listed", || {
        let failed = &status(&workspace, &mountpoint)["archive"]["failed"][0];
        failed["job"] == format!("{TASK}/{}", hash(0)).as_str()
            && failed["why"]
                .as_str()
                .unwrap()
                .contains(file.to_str().unwrap())
    });
    assert!(!has_all(&folder, 0..1));
    fs::remove_dir_all(&run_dir).unwrap();
    until("the run is gone", || has_all(&folder, 0..1));
}
