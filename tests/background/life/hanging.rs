//! A folder that does not answer, as of a file server that is gone: whoever asks it for anything waits until it does.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use crate::common::{Mounted, Workspace, is_mounted, names, run};
use crate::job::{self, TASK, hash};
use crate::stage::{
    Process, assert_whole, folder_status, has_all, is_drained, journals, staging, status, told,
    until, verify_all, watch, within,
};

/// Nothing that is asked for while a folder hangs may take longer, on a busy machine.
pub(super) const PROMPT: Duration = Duration::from_secs(40);

/// The server of a folder may be stopped for no longer: those that wait for it cannot be killed.
const LIFE: Duration = Duration::from_secs(270);

/// A folder that another daemon serves, which can be stopped. Whatever happens, nobody waits for it in the end.
pub(super) struct Served {
    at: PathBuf,
    server: u32,
    process: Option<Process>,
    /// Ends the watch.
    _watched: Sender<()>,
}

impl Served {
    pub(super) fn new(workspace: &Workspace) -> Served {
        let (disk, at) = (workspace.top().join("disk"), workspace.top().join("served"));
        fs::create_dir_all(disk.join("folder/jobs")).unwrap();
        fs::create_dir(&at).unwrap();
        // Not a mount of xpmfs: a folder there is served from beneath it.
        let mut command = Command::new("bindfs");
        command.arg("-f").arg(disk).arg(&at).stdin(Stdio::null());
        let process = Process::start(command.stdout(Stdio::null()).stderr(Stdio::null()));
        let server = process.0.id();
        let (watched, end) = channel::<()>();
        std::thread::spawn(move || {
            if end.recv_timeout(LIFE) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
                eprintln!("a folder has hung for too long");
                signal(server, "-KILL");
            }
        });
        let served = Served {
            at,
            server,
            process: Some(process),
            _watched: watched,
        };
        until("the folder is served", || is_mounted(&served.at));
        served
    }

    pub(super) fn folder(&self) -> PathBuf {
        self.at.join("folder")
    }

    pub(super) fn stop(&self) {
        signal(self.server, "-STOP");
    }

    pub(super) fn go_on(&self) {
        signal(self.server, "-CONT");
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.go_on();
        // It is killed, and those who wait for it are told so.
        self.process = None;
        let mut command = Command::new("fusermount3");
        let _ = command.arg("-uz").arg(&self.at).output();
    }
}

fn signal(process: u32, signal: &str) {
    let mut command = Command::new("kill");
    let _ = command.args([signal, &process.to_string()]).output();
}

/// Runs a command, which must end soon, and gives what it did.
fn promptly(workspace: &Workspace, arguments: &[&str]) -> Output {
    let printed = workspace.top().join("printed");
    let file = File::create(&printed).unwrap();
    let mut command = workspace.xpmfs();
    command.args(arguments).stdin(Stdio::null());
    command.stdout(file.try_clone().unwrap()).stderr(file);
    let status = Process::start(&mut command).end(PROMPT);
    Output {
        status,
        stdout: fs::read(printed).unwrap(),
        stderr: Vec::new(),
    }
}

/// A workspace with two `backup` folders, of which the first can be stopped.
fn workspace() -> (Workspace, Served) {
    let workspace = Workspace::new();
    let served = Served::new(&workspace);
    workspace.with_folders(&[]);
    workspace.attach("backup", &served.folder());
    workspace.attach("backup", &workspace.folder("backup"));
    workspace.tune("{settle: 100ms, scan_interval: 200ms}");
    (workspace, served)
}

/// Stops a folder, and waits until it is said not to answer.
fn stop(workspace: &Workspace, mountpoint: &Path, served: &Served) {
    served.stop();
    within(PROMPT * 2, "the folder is said not to answer", || {
        let mount = mountpoint.to_str().unwrap();
        let printed = promptly(workspace, &["--json", "status", mount]);
        let printed = String::from_utf8(printed.stdout).unwrap();
        let told = serde_json::from_str::<serde_json::Value>(&printed).unwrap();
        let mounted = &told["mounts"][0];
        mounted["locations"][1]["state"] == "offline"
            && mounted["archive"]["folders"][0]["refuses"]["why"] == "it does not answer"
    });
}

fn assert_all_archived(workspace: &Workspace, served: &Served, jobs: usize) {
    let primary = workspace.primary();
    for folder in [served.folder(), workspace.folder("backup")] {
        assert_whole(&folder, 0..jobs, |number| {
            job::tree(&primary.join(job::path(number)))
        });
        assert_eq!(staging(&folder), [""; 0]);
    }
    assert_eq!(staging(&primary), [""; 0]);
    assert_eq!(journals(&primary), [""; 0]);
    verify_all(workspace, 2 * jobs);
}

#[test]
fn attributes_of_a_task_do_not_wait_for_a_folder_that_hangs() {
    let (workspace, served) = workspace();
    job::make(&workspace.primary(), 0);
    job::make(&served.folder(), 1);
    let mountpoint = workspace.mountpoint("elsewhere");
    let mounted = workspace.mount_at(&mountpoint);
    let task = mountpoint.join("jobs").join(TASK);
    let modified = |path: &Path| {
        let (path, (found, answer)) = (path.to_owned(), channel());
        std::thread::spawn(move || drop(found.send(fs::metadata(path).unwrap().modified())));
        // It is said not to answer only after 10 s.
        let modified = answer.recv_timeout(Duration::from_secs(5));
        modified.expect("attributes wait").unwrap()
    };
    let of_folder = modified(&served.folder().join("jobs").join(TASK));
    until("the folder's time counts", || modified(&task) == of_folder);
    served.stop();
    for _ in 0..3 {
        // As long as attributes are believed.
        std::thread::sleep(Duration::from_millis(1100));
        assert_eq!(modified(&task), of_folder);
    }
    served.go_on();
    mounted.unmount();
}

#[test]
fn a_folder_that_hangs_holds_up_nothing_but_itself() {
    let (workspace, served) = workspace();
    let (primary, backup) = (workspace.primary(), workspace.folder("backup"));
    let mountpoint = workspace.mountpoint("elsewhere");
    let mount = mountpoint.to_str().unwrap();
    for number in 0..2 {
        job::make(&primary, number);
    }
    let mounted = workspace.mount_archiving(&mountpoint, &[]);
    for folder in [&served.folder(), &backup] {
        until("all is archived", || has_all(folder, 0..2));
    }
    until("all is said to be archived", || {
        is_drained(&workspace, &mountpoint)
    });
    let running = mountpoint.join(job::path(2));
    job::write_unfinished(&running, 2);
    let mut output = File::options()
        .append(true)
        .open(running.join("train.out"))
        .unwrap();
    stop(&workspace, &mountpoint, &served);

    // What the primary has is read and written, and what finishes is archived elsewhere.
    job::look_at(&mountpoint.join(job::path(0)), 0).unwrap();
    output.write_all(b"step 3\n").unwrap();
    drop(output);
    fs::write(running.join("train.done"), "").unwrap();
    job::write(&mountpoint.join(job::path(3)), 3);
    let listed = names(&mountpoint.join("jobs").join(TASK));
    assert_eq!(
        listed,
        [0, 1, 2, 3].map(|number| OsString::from(hash(number)))
    );
    // One is run again, and another made, beside the mount.
    fs::write(primary.join(job::path(1)).join("params.json"), "{}").unwrap();
    fs::write(primary.join(job::path(1)).join("train.done"), "").unwrap();
    job::make(&primary, 4);
    until("the other folder has all jobs", || has_all(&backup, 0..5));
    until("the other folder has the job that was run again", || {
        fs::read(backup.join(job::path(1)).join("params.json")).unwrap() == b"{}"
    });

    // It is said why not all is archived, to whoever asks and to whoever would wait.
    until("a person is told", || {
        told(&workspace, &mountpoint).contains(": 4 jobs waiting: it does not answer")
    });
    let drained = promptly(&workspace, &["umount", "--drain", mount]);
    let printed = String::from_utf8(drained.stdout).unwrap();
    assert!(!drained.status.success() && is_mounted(&mountpoint));
    for said in [
        "cannot be archived now",
        "served/folder: it does not answer",
    ] {
        assert!(printed.contains(said), "{printed}");
    }
    let archived = promptly(&workspace, &["jobs", "archive", "-w", "test", "--all"]);
    let printed = String::from_utf8(archived.stdout).unwrap();
    assert!(
        !archived.status.success() && printed.contains("does not reply"),
        "{printed}"
    );

    served.go_on();
    until("the folder has all jobs", || {
        has_all(&served.folder(), 0..5)
    });
    until("all is said to be archived", || {
        let folder = &status(&workspace, &mountpoint)["archive"]["folders"][0];
        folder["refuses"].is_null() && is_drained(&workspace, &mountpoint)
    });
    run(workspace.xpmfs().args(["umount", "--drain", mount]));
    drop(mounted);
    assert_all_archived(&workspace, &served, 5);
}

#[test]
fn a_mount_ends_while_a_folder_hangs_and_the_next_one_archives_what_was_left() {
    let (workspace, served) = workspace();
    let primary = workspace.primary();
    let mountpoint = workspace.mountpoint("elsewhere");
    let mount = mountpoint.to_str().unwrap();
    let mounted: Mounted<'_> = workspace.mount_archiving(&mountpoint, &[]);
    job::make(&primary, 0);
    until("the first is archived", || has_all(&served.folder(), 0..1));
    stop(&workspace, &mountpoint, &served);
    job::make(&primary, 1);
    until("the other folder has it", || {
        has_all(&workspace.folder("backup"), 0..2)
    });
    let ended = promptly(&workspace, &["umount", mount]);
    let printed = String::from_utf8(ended.stdout).unwrap();
    assert!(
        ended.status.success() && !is_mounted(&mountpoint),
        "{printed}"
    );
    drop(mounted);
    served.go_on();
    let mounted = workspace.mount_archiving(&mountpoint, &[]);
    until("the folder has both", || has_all(&served.folder(), 0..2));
    until("all is said to be archived", || {
        is_drained(&workspace, &mountpoint)
    });
    assert!(folder_status(&workspace, &mountpoint, "backup")["refuses"].is_null());
    mounted.unmount();
    assert_all_archived(&workspace, &served, 2);
}

/// Processes that wait for a folder that hangs, until they are dropped.
struct Waiting(Vec<Process>);

impl Waiting {
    fn add(&mut self, workspace: &Workspace, path: &Path) {
        let mut command = workspace.command("stat");
        command.arg(path).stdin(Stdio::null());
        let command = command.stdout(Stdio::null()).stderr(Stdio::null());
        self.0.push(Process::start(command));
    }

    /// Whether all have asked, as far as may be known.
    fn have_asked(&self) -> bool {
        self.0.iter().all(|process| {
            let stack = fs::read_to_string(format!("/proc/{}/stack", process.0.id()));
            stack.is_ok_and(|stack| stack.contains("fuse")) || !rustix::process::geteuid().is_root()
        })
    }
}

#[test]
fn those_who_wait_for_a_folder_that_hangs_keep_nobody_else_waiting() {
    // Whatever happens, the folder goes on before their end is waited for.
    let mut waiting = Waiting(Vec::new());
    let (workspace, served) = workspace();
    let mountpoint = workspace.mountpoint("elsewhere");
    job::make(&workspace.primary(), 0);
    for number in 1..40 {
        job::make(&served.folder(), number);
    }
    let _mounted = workspace.mount_with(&mountpoint, &[]);
    let model = |number| mountpoint.join(job::path(number)).join("model.bin");
    fs::metadata(model(1)).unwrap();
    served.stop();
    // As many as may wait; the others come when these have waited for a while, and the folder is not given up yet.
    for number in 2..6 {
        waiting.add(&workspace, &model(number));
    }
    until("they wait", || waiting.have_asked());
    std::thread::sleep(Duration::from_secs(7));
    for number in 6..40 {
        waiting.add(&workspace, &model(number));
    }
    let read = workspace.top().join("read");
    let mut reader = workspace.command("cp");
    reader.arg(model(0)).arg(&read).stdin(Stdio::null());
    let read = Process::start(&mut reader).end(PROMPT).success() && read.exists();
    served.go_on();
    assert!(read, "the primary's file was not read");
    within(PROMPT, "the folder is asked again", || {
        fs::metadata(model(39)).is_ok()
    });
}

/// Whether it has the job is not known, and whoever moves it does not wait to be told.
#[test]
fn a_job_is_not_moved_while_its_backup_folder_hangs() {
    let workspace = Workspace::new();
    let served = Served::new(&workspace);
    workspace.with_folders(&[]);
    workspace.attach("backup", &served.folder());
    workspace.attach("move", &workspace.folder("move"));
    workspace.tune("{settle: 100ms, scan_interval: 200ms, bandwidth: 1M}");
    let job = workspace.primary().join(job::path(0));
    job::write_unfinished(&job, 0);
    fs::write(job.join("large"), vec![1; 3 << 20]).unwrap();
    fs::write(job.join("train.done"), "").unwrap();
    let _watching = watch(&workspace);
    let target = workspace.folder("move").join(job::path(0));
    let staged = target.with_file_name(format!(".tmp.{}", hash(0)));
    until("it is being moved", || staged.join("large").exists());
    served.stop();
    within(PROMPT, "the move is put off", || {
        let log = fs::read_to_string(workspace.top().join("watch.log")).unwrap();
        assert!(!job.is_symlink(), "it may have no backup");
        log.contains("it is not moved before") && log.contains("does not answer")
    });
    served.go_on();
    until("it is moved", || job.is_symlink());
    verify_all(&workspace, 2);
}

/// The mount that moves a job asks every folder for its directory of the task, with the job's lock held.
#[test]
fn jobs_are_moved_while_another_folder_hangs() {
    let workspace = Workspace::new();
    let served = Served::new(&workspace);
    workspace.with_folders(&[]);
    workspace.attach("use", &served.folder());
    workspace.attach("move", &workspace.folder("move"));
    workspace.tune("{settle: 100ms, scan_interval: 200ms}");
    let (primary, mountpoint) = (workspace.primary(), workspace.mountpoint("elsewhere"));
    let mounted = workspace.mount_archiving(&mountpoint, &[]);
    served.stop();
    for number in 0..8 {
        job::make(&primary, number);
    }
    within(PROMPT, "all are moved, and nothing is left of them", || {
        let moved = |number| primary.join(job::path(number)).is_symlink();
        (0..8).all(moved) && staging(&primary).is_empty()
    });
    served.go_on();
    mounted.unmount();
}

/// The kernel holds the lock of `jobs/` for a listing, and everybody who lists it or makes a task waits for that.
#[test]
fn a_listing_that_was_begun_before_a_folder_hangs_keeps_nobody_waiting() {
    let (workspace, served) = workspace();
    let mountpoint = workspace.mountpoint("elsewhere");
    job::make(&workspace.primary(), 0);
    let mounted = workspace.mount_with(&mountpoint, &[]);
    let jobs = mountpoint.join("jobs");
    assert_eq!(names(&jobs), [TASK]);
    served.stop();
    let run = |program: &str, path: &Path| {
        let mut command = workspace.command(program);
        command.arg(path).stdin(Stdio::null());
        Process::start(command.stdout(Stdio::null()).stderr(Stdio::null()))
    };
    let begun = [run("ls", &jobs), run("ls", &jobs.join(TASK))];
    let mut made = run("mkdir", &jobs.join("new.task"));
    let mut more = run("mkdir", &jobs.join(TASK).join(hash(1)));
    assert!(made.end(PROMPT).success() && more.end(PROMPT).success());
    for mut listing in begun {
        assert!(listing.end(PROMPT).success());
    }
    let listed = promptly(&workspace, &["--json", "status"]);
    assert!(listed.status.success());
    served.go_on();
    mounted.unmount();
}

#[test]
fn mounting_over_a_mount_whose_daemon_is_stopped_is_refused_at_once() {
    let workspace = Workspace::new();
    let mounted = workspace.mount_in_place();
    let printed = promptly(&workspace, &["--json", "status"]);
    let printed: serde_json::Value = serde_json::from_slice(&printed.stdout).unwrap();
    let mounts = printed["mounts"].as_array().unwrap();
    let primary = workspace.primary();
    let ours = mounts
        .iter()
        .find(|mount| mount["mountpoint"] == primary.to_str().unwrap());
    let daemon = u32::try_from(ours.unwrap()["pid"].as_u64().unwrap()).unwrap();
    signal(daemon, "-STOP");
    let refused = promptly(&workspace, &["mount", "-w", "test", "--no-archive"]);
    signal(daemon, "-CONT");
    let printed = String::from_utf8(refused.stdout).unwrap();
    assert!(!refused.status.success());
    assert!(printed.contains("mount that does not answer"), "{printed}");
    mounted.unmount();
}
