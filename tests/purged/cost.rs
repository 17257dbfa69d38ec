//! What it costs to tell a purged job from a living one: one `statx` per directory when the job is first looked up. And to publish one that
//! is recovered.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::common::{self, Workspace, eventually, run};
use crate::scratch::{Random, TASK, duplicate, write_job};

const JOBS: usize = 20;

/// Each job has a task of its own: the jobs of one task are read ahead.
fn task(number: usize) -> String {
    format!("task{number}.train")
}

/// How long calls are counted after the lookups.
const SPAN: Duration = Duration::from_millis(1500);

/// The directories of a job.
const DIRECTORIES: usize = 7;

/// The calls of a daemon that look at files.
struct Trace {
    file: PathBuf,
    strace: Child,
}

impl Trace {
    fn of(strace: &Path, workspace: &Workspace, mountpoint: &Path, pid: i64) -> Trace {
        let file = workspace.top().join("trace");
        let mut command = Command::new(strace);
        command.args([
            "-f",
            "-qq",
            "-e",
            "trace=statx,openat,openat2,getdents64",
            "-o",
        ]);
        command.arg(&file).arg("-p").arg(pid.to_string());
        let strace = command.stderr(Stdio::null()).spawn().unwrap();
        let trace = Trace { file, strace };
        eventually("the daemon is traced", || {
            let _ = fs::metadata(mountpoint.join("jobs"));
            std::thread::sleep(Duration::from_millis(100));
            trace.file.exists() && !trace.text().is_empty()
        });
        trace
    }

    fn text(&self) -> String {
        fs::read_to_string(&self.file).unwrap_or_default()
    }

    /// The calls since the last time, once they have all been written.
    fn calls(&self, from: &mut usize, name: &str) -> usize {
        let text = self.text();
        let new = &text[*from..];
        *from = text.len();
        new.lines()
            .filter(|line| line.contains(&format!(" {name}(")) && !line.contains("resumed"))
            .count()
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        let pid = i32::try_from(self.strace.id()).unwrap();
        let _ = rustix::process::kill_process(
            rustix::process::Pid::from_raw(pid).unwrap(),
            rustix::process::Signal::INT,
        );
        let _ = self.strace.wait();
    }
}

/// How many `statx` and `getdents64` it takes to look at all jobs: at first, again, and when the kernel has forgotten them.
fn looks(strace: &Path, workspace: &Workspace, mountpoint: &Path) -> [(usize, usize); 2] {
    // Such a mount does not list the folders in the background, to record their jobs.
    let mounted = workspace.mount_with(mountpoint, &["--read-only"]);
    let status = run(workspace.xpmfs().args(["--json", "status"]));
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    // It lists the mounts of other tests, too.
    let mut mounts = status["mounts"].as_array().unwrap().iter();
    let ours = mounts.find(|mount| mount["mountpoint"] == *mountpoint.to_string_lossy());
    let pid = ours.unwrap()["pid"].as_i64().unwrap();
    let trace = Trace::of(strace, workspace, mountpoint, pid);
    let mut from = trace.text().len();
    let look = |from: &mut usize| {
        for number in 0..JOBS {
            fs::metadata(mounted.job(&task(number), "h")).unwrap();
        }
        std::thread::sleep(SPAN);
        let at = &mut from.clone();
        let lists = trace.calls(at, "getdents64");
        (trace.calls(from, "statx"), lists)
    };
    let first = look(&mut from);
    // The kernel asks again after a second.
    let again = look(&mut from);
    // What the daemon does by itself.
    std::thread::sleep(SPAN);
    let idle = trace.calls(&mut from, "statx");
    drop(trace);
    mounted.unmount();
    [first, again].map(|(calls, lists)| (calls.saturating_sub(idle), lists))
}

#[test]
fn a_living_job_costs_one_statx_per_directory_once() {
    let Some(strace) = common::program("strace") else {
        return;
    };
    let workspace = Workspace::builder().folders(&["backup"]).build();
    let random = &mut Random(61);
    for number in 0..JOBS {
        let job = workspace
            .primary()
            .join("jobs")
            .join(task(number))
            .join("h");
        write_job(&job, random);
        let folder = workspace.folder("backup").join("jobs");
        duplicate(&job, &folder.join(task(number)).join("h"));
    }
    // Makes the records, as archiving the jobs does.
    let mountpoint = workspace.mountpoint("elsewhere");
    let mounted = workspace.mount_at(&mountpoint);
    for number in 0..JOBS {
        assert_eq!(mounted.location(mounted.job(&task(number), "h")), "primary");
    }
    mounted.unmount();
    let [first, again] = looks(&strace, &workspace, &mountpoint);
    workspace.with_folders(&[]);
    let settings = fs::read_to_string(workspace.settings()).unwrap();
    let alone = settings.replace("    folders:\n", "    folders: []\n");
    fs::write(workspace.settings(), alone).unwrap();
    let [plain, plain_again] = looks(&strace, &workspace, &mountpoint);
    common::say(&format!(
        "statx and getdents64 for {JOBS} archived jobs: {first:?}, again {again:?}; without a folder {plain:?}, again {plain_again:?}"
    ));
    assert_eq!(first.1, 0, "no directory is listed");
    // With a folder, the times of each task are asked for as well. The daemon also looks at its locations now and then.
    let (tasks, noise) = (JOBS, JOBS);
    assert!(
        first.0 <= plain.0 + tasks + noise + JOBS * (DIRECTORIES - 1),
        "{first:?} {plain:?}"
    );
    assert!(
        again.0 <= plain_again.0 + tasks + noise,
        "{again:?} {plain_again:?}"
    );
}

/// Creating internal files of any job waits while a job is published.
#[test]
fn a_purged_job_is_published_in_a_few_calls_however_many_files_it_has() {
    const FILES: usize = 500;
    const CALLS_MAX: usize = 100;
    let Some(strace) = common::program("strace") else {
        return;
    };
    let workspace = Workspace::builder().folders(&["backup"]).build();
    let job = workspace.primary().join("jobs").join(TASK).join("h");
    write_job(&job, &mut Random(62));
    for number in 0..FILES {
        fs::write(job.join(format!("file{number}")), "").unwrap();
    }
    let folder = workspace.folder("backup").join("jobs");
    duplicate(&job, &folder.join(TASK).join("h"));
    fs::remove_file(job.join("train.out")).unwrap();
    let file = workspace.top().join("trace");
    let mut traced = workspace.command(strace);
    traced.args(["-f", "-qq", "-y", "-o"]).arg(&file);
    let recover = workspace.xpmfs();
    traced.arg(recover.get_program()).args(recover.get_args());
    run(traced.args(["jobs", "recover", "-w", "test", "h"]));
    assert!(job.join("train.out").exists());
    let text = fs::read_to_string(file).unwrap();
    let is_at_gate =
        |line: &&str, call: &str| line.contains(call) && line.contains("/internal.lock>");
    let held = text
        .lines()
        .skip_while(|line| !is_at_gate(line, "LOCK_EX"))
        .take_while(|line| !is_at_gate(line, "close("));
    let calls = held.count();
    assert!(calls > 2, "{calls}");
    assert!(calls <= CALLS_MAX, "{calls} calls");
}
