//! What it costs to look for finished jobs where nothing has changed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::common;
use crate::common::Workspace;
use crate::job::{self, hash};
use crate::stage::{Process, at_once, folder_status, has_all, is_drained, status, until};

/// No system call names a job, none lists a directory, and there are few, over a hundred jobs and over a thousand.
#[test]
fn a_scan_costs_nothing_per_archived_job() {
    let Some(strace) = common::program("strace") else {
        return;
    };
    let calls = [AtomicUsize::new(0), AtomicUsize::new(0)];
    at_once([(100, &calls[0]), (1000, &calls[1])], |(jobs, calls)| {
        calls.store(calls_of_a_scan(&strace, jobs), Ordering::Relaxed);
    });
    let [few, many] = calls.map(AtomicUsize::into_inner);
    common::say(&format!(
        "a scan of 100 jobs: {few} system calls; of 1,000: {many}"
    ));
    // On a busy machine, descriptors are taken anew in many scans.
    assert!(few < 20 && many < 20);
}

/// How many system calls a scan makes that finds nothing new, in a workspace with so many archived jobs.
fn calls_of_a_scan(strace: &Path, jobs: usize) -> usize {
    let workspace = Workspace::new();
    workspace.with_folders(&["backup"]);
    workspace.tune("{settle: 0s, scan_interval: 50ms}");
    for number in 0..jobs {
        // As little as there can be.
        let job = workspace.primary().join(job::path(number));
        fs::create_dir_all(&job).unwrap();
        fs::write(job.join("train.done"), "").unwrap();
    }
    let mountpoint = workspace.mountpoint("elsewhere");
    let _mounted = workspace.mount_archiving(&mountpoint, &[]);
    let folder = workspace.folder("backup");
    until("all is archived", || has_all(&folder, 0..jobs));
    until("nothing is on its way", || {
        is_drained(&workspace, &mountpoint)
    });
    let pid = status(&workspace, &mountpoint)["pid"].as_i64().unwrap();
    let trace = Trace::of(strace, &workspace, pid);
    // Directories that have just changed are listed again, for their times are coarse.
    until("nothing is listed, and no job looked at, any more", || {
        let (calls, scans) = (trace.calls(), trace.scans());
        let listed = |call: &String| call.contains("getdents64(");
        let names_a_job = |call: &String| call.contains(&hash(0)[..32]);
        let begin = calls.len().saturating_sub(SCANS * 10);
        scans.len() == SCANS
            && !scans.iter().flatten().any(listed)
            && !calls[begin..].iter().any(names_a_job)
    });
    let scans = trace.scans();
    let counts = scans.iter().map(Vec::len);
    let folder = folder_status(&workspace, &mountpoint, "backup");
    assert_eq!(folder["missing"], 0);
    counts.max().unwrap()
}

/// So many scans are counted.
const SCANS: usize = 20;

/// The system calls of a process that have to do with files.
struct Trace {
    file: PathBuf,
    /// The thread that scans.
    scanner: String,
    _process: Process,
}

impl Trace {
    fn of(strace: &Path, workspace: &Workspace, pid: i64) -> Trace {
        let tasks = job::entries(Path::new(&format!("/proc/{pid}/task"))).unwrap();
        let mut tasks = tasks.into_iter().map(|task| task.into_string().unwrap());
        let scanner = tasks.find(|task| {
            let comm = fs::read_to_string(format!("/proc/{pid}/task/{task}/comm"));
            comm.is_ok_and(|comm| comm.starts_with("xpmfs-scan"))
        });
        let file = workspace.top().join("trace");
        fs::write(&file, "").unwrap();
        let mut command = Command::new(strace);
        command
            .args(["-f", "-e", "trace=%file,getdents64,flock", "-p"])
            .arg(pid.to_string())
            .arg("-o")
            .arg(&file)
            .stderr(Stdio::null());
        Trace {
            file,
            scanner: scanner.unwrap(),
            _process: Process::start(&mut command),
        }
    }

    /// All calls that are written down, whole.
    fn calls(&self) -> Vec<String> {
        let text = fs::read_to_string(&self.file).unwrap();
        let lines = text
            .split_inclusive('\n')
            .filter(|line| line.ends_with('\n'));
        lines.map(ToOwned::to_owned).collect()
    }

    /// What the scanner did in each of the last scans. One begins with a look at the directory of all tasks.
    fn scans(&self) -> Vec<Vec<String>> {
        let calls = self.calls().into_iter();
        let own = calls.filter(|call| call.split(' ').next() == Some(&*self.scanner));
        let mut scans: Vec<Vec<String>> = Vec::new();
        for call in own {
            if call.contains("statx(") && call.contains(", \"\", ") {
                scans.push(Vec::new());
            }
            if let Some(scan) = scans.last_mut() {
                scan.push(call);
            }
        }
        // The last one goes on.
        scans.pop();
        scans.split_off(scans.len().saturating_sub(SCANS))
    }
}
