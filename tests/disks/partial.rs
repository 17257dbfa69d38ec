//! A folder that answers only some requests: a call that it does not answer delays no other.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;
use std::sync::mpsc::channel;
use std::time::Duration;

use rustix::fs::{AtFlags, FlockOperation, StatxFlags};

use crate::common::daemon::Footprint;
use crate::common::hanging_fs::HangingFs;
use crate::common::{Workspace, job, within};

/// No call that the folder answers may take longer, on a busy machine.
const PROMPT: Duration = Duration::from_secs(30);

/// A call that the folder does not answer must fail after this time: 15 s, and some on a busy machine.
const TIMEOUT: Duration = Duration::from_secs(45);

/// Callers that wait at the same time: more than the daemon has threads for requests.
const CALLERS: usize = 20;

/// The daemon's threads for requests.
const LOOP_THREADS: usize = 8;

const SLOW: &str = "slow-";

/// The threads that may be left when no request waits any more.
const THREADS_LEFT: u64 = 4;

/// Runs `call` in a thread, and returns its result, which must come in time.
fn timely<T: Send + 'static>(
    what: &str,
    limit: Duration,
    call: impl FnOnce() -> T + Send + 'static,
) -> T {
    let (result, comes) = channel();
    std::thread::spawn(move || result.send(call()));
    comes
        .recv_timeout(limit)
        .unwrap_or_else(|_| panic!("{what} did not end in time"))
}

/// What many callers do at the same time, each with an open file of its own, and with a directory in the primary.
type Call = fn(&File, &Path) -> std::io::Result<()>;

/// Calls that the folder does not answer: the operation that it is asked for, and whether the call fails with
/// `ETIMEDOUT`. If not, it ends when the folder answers.
const CALLS: [(&str, Call, bool); 5] = [
    (
        "read",
        |mut file, _| file.read_to_end(&mut Vec::new()).map(drop),
        false,
    ),
    ("getattr", |file, _| ask_attributes(file), true),
    ("fsync", |file, _| file.sync_all(), true),
    (
        "flock",
        |file, _| Ok(rustix::fs::flock(file, FlockOperation::LockShared)?),
        false,
    ),
    ("read", copy_a_part, false),
];

fn ask_attributes(file: &File) -> std::io::Result<()> {
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_FORCE_SYNC;
    rustix::fs::statx(file, "", flags, StatxFlags::BASIC_STATS)?;
    Ok(())
}

fn copy_a_part(file: &File, to: &Path) -> std::io::Result<()> {
    let to = tempfile::tempfile_in(to)?;
    let copied = rustix::fs::copy_file_range(file, None, &to, None, 100)?;
    assert_eq!(copied, 100);
    Ok(())
}

#[test]
fn a_request_that_a_folder_does_not_answer_delays_no_other() {
    let workspace = Workspace::new();
    let disk = workspace.top().join("disk");
    for number in 0..2 {
        job::write(&disk.join(job::path(number)), number);
    }
    job::write(&workspace.primary().join(job::path(2)), 2);
    for caller in 0..CALLERS {
        fs::write(disk.join(job::path(0)).join(slow(caller)), vec![7; 5000]).unwrap();
    }
    let served = HangingFs::mount(&disk, &workspace.top().join("served"));
    workspace.with_folders(&[]);
    workspace.attach("use", &served.at);
    let mountpoint = workspace.mountpoint("elsewhere");
    // Without passthrough, the kernel sends reads to the daemon.
    let mounted = workspace.mount_with(&mountpoint, &["-o", "noatime"]);
    let daemon = daemon(&workspace, mounted.path());
    for (round, (operation, call, fails)) in CALLS.into_iter().enumerate() {
        let what = format!("{operation} (round {round})");
        let before = Footprint::of(daemon).threads;
        let (results, ended) = channel();
        let open = |caller| File::open(mountpoint.join(job::path(0)).join(slow(caller))).unwrap();
        let files: Vec<File> = (0..CALLERS).map(open).collect();
        served.hold(move |asked, path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            asked == operation && name.starts_with(SLOW)
        });
        for file in files {
            let (results, to) = (results.clone(), mountpoint.clone());
            std::thread::spawn(move || results.send(call(&file, &to)));
        }
        until(&format!("{what}: the folder is asked"), || {
            served.parked() >= LOOP_THREADS
        });
        elsewhere(&mountpoint, &what, round);
        if fails {
            for _ in 0..CALLERS {
                let error = ended.recv_timeout(TIMEOUT).expect(&what).unwrap_err();
                assert_eq!(error.raw_os_error(), Some(libc::ETIMEDOUT), "{what}");
            }
        }
        assert!(Footprint::of(daemon).threads <= before + 2 * CALLERS as u64);
        served.go_on();
        if !fails {
            for _ in 0..CALLERS {
                ended.recv_timeout(PROMPT).expect(&what).expect(&what);
            }
        }
        expect_threads(daemon, before);
    }
    many_callers(&mountpoint, daemon);
}

fn slow(caller: usize) -> String {
    format!("{SLOW}{caller}")
}

fn daemon(workspace: &Workspace, mountpoint: &Path) -> i64 {
    let mut command = workspace.xpmfs();
    let output = command
        .args(["--json", "status"])
        .arg(mountpoint)
        .output()
        .unwrap();
    let status: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    status["mounts"][0]["pid"].as_i64().unwrap()
}

fn until(what: &str, condition: impl FnMut() -> bool) {
    within(PROMPT, what, condition);
}

/// Waits until a process has few more threads than before.
fn expect_threads(process: i64, before: u64) {
    until("the threads have ended", || {
        Footprint::of(process).threads <= before + THREADS_LEFT
    });
}

/// Uses what the folder answers, and the primary.
fn elsewhere(mountpoint: &Path, what: &str, round: usize) {
    let at = mountpoint.to_owned();
    timely(&format!("elsewhere during {what}"), PROMPT, move || {
        for number in 1..3 {
            let job = at.join(job::path(number));
            let model = fs::read(job.join("train.out")).unwrap();
            assert_eq!(model, b"step 1\nstep 2\n");
            assert!(fs::read_dir(&job).unwrap().count() > 5);
        }
        assert_eq!(
            fs::read_dir(at.join("jobs").join(job::TASK))
                .unwrap()
                .count(),
            3
        );
        fs::write(at.join(format!("new-{round}")), "new").unwrap();
    });
}

/// Many callers of a folder that answers all get their answers, and no thread is left.
fn many_callers(mountpoint: &Path, daemon: i64) {
    let before = Footprint::of(daemon).threads;
    std::thread::scope(|scope| {
        for caller in 0..100 {
            scope.spawn(move || {
                for round in 0..20 {
                    let number = (caller + round) % 2;
                    let job = mountpoint.join(job::path(number));
                    let file = File::open(job.join("model.bin")).unwrap();
                    rustix::fs::flock(&file, FlockOperation::LockShared).unwrap();
                    file.sync_all().unwrap();
                    assert_eq!(fs::read(job.join("model.bin")).unwrap(), job::model(number));
                }
            });
        }
    });
    expect_threads(daemon, before);
}
