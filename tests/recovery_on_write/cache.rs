//! With `recover_on: open` and `release`, a small primary is a cache of a larger archive.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::common::job::hash;
use crate::common::{self, assert_unchanged, eventually, names, run, snapshot};
use crate::stage::{Beneath, TASK, Tmpfs, assert_clean};

const JOBS: usize = 24;
const MIB: u64 = 1 << 20;
const KEEP_FREE: u64 = 24 * MIB;

/// The size of a job's large file.
fn size(job: usize) -> usize {
    (2 + job % 5) * MIB as usize
}

fn byte(job: usize, offset: usize) -> u8 {
    (job * 7 + offset / 4096) as u8
}

fn content(job: usize) -> Vec<u8> {
    let mut content = Vec::with_capacity(size(job));
    for offset in (0..size(job)).step_by(4096) {
        content.resize(offset + 4096, byte(job, offset));
    }
    content
}

/// Reads something of a job, which must be right.
fn read(jobs: &Path, random: u64) {
    let job = random as usize % JOBS;
    let path = jobs.join(hash(job));
    let random = random / 1000;
    match random % 5 {
        0 => assert!(
            fs::read(path.join("large")).unwrap() == content(job),
            "job {job}"
        ),
        1 => {
            let large = fs::metadata(path.join("large")).unwrap();
            assert_eq!(large.len(), size(job) as u64);
            assert!(fs::metadata(path.join("data/nested")).unwrap().is_dir());
        }
        2 => {
            let read = fs::read_to_string(path.join("data/few")).unwrap();
            assert_eq!(read, format!("job {job}"));
        }
        3 => assert_eq!(names(&path.join("data")), ["few", "nested"]),
        // Held open for a while: the job may come back or be released meanwhile.
        _ => {
            let file = File::open(path.join("large")).unwrap();
            for step in 1..6 {
                let offset = random as usize % 1_000_000 * step % (size(job) - 4096);
                let mut buffer = [0; 4096];
                file.read_exact_at(&mut buffer, offset as u64).unwrap();
                let right = |(at, read): (usize, &u8)| *read == byte(job, offset + at);
                assert!(buffer.iter().enumerate().all(right), "job {job}");
                std::thread::sleep(Duration::from_millis(2));
            }
        }
    }
}

/// Random numbers of a thread.
fn next(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state >> 1
}

#[test]
fn a_small_primary_caches_a_large_archive() {
    if !common::is_root() {
        return;
    }
    let workspace = common::Workspace::builder()
        .folders(&["backup"])
        .keys("{settle: 100ms, recover_on: open, release: {keep_free: 24M, older_than: 2s}}")
        .build();
    let primary = workspace.primary();
    for job in 0..JOBS {
        let path = workspace.finished("primary", TASK, &hash(job));
        fs::create_dir_all(path.join("data/nested")).unwrap();
        fs::write(path.join("data/few"), format!("job {job}")).unwrap();
        fs::write(path.join("large"), content(job)).unwrap();
    }
    let mut archive = workspace.xpmfs();
    run(archive.args(["-q", "jobs", "archive", "-w", "test", "--all"]));
    fs::remove_dir_all(primary.join("jobs")).unwrap();
    let _disk = Tmpfs::on(&primary, "size=64m");
    let folder = workspace.folder("backup").join("jobs");
    let before = snapshot(&folder);
    let beneath = Beneath::of(&primary);
    let elsewhere = workspace.mountpoint("elsewhere");
    let mut command = workspace.xpmfs();
    // The free space is queried every 100 ms, and a search is due every 6 s at most.
    command.env("XPMFS_TEST_RELEASE_DIVISOR", "600");
    command.env("XPMFS_TEST_GRACE_MS", "100");
    command.args(["mount", "-v", "-w", "test", "--log"]);
    command
        .arg(workspace.top().join("xpmfs.log"))
        .arg(&elsewhere);
    let mounted = workspace.mounting(&mut command, &elsewhere);
    let jobs = elsewhere.join("jobs").join(TASK);
    let begin = Instant::now();
    let least_time = Duration::from_secs(if common::soak() { 240 } else { 10 });
    let counts = || {
        let log = workspace.log();
        let recovered = log.matches("recovered for programs that read it").count();
        (recovered, log.matches(": released ").count())
    };
    // Both are done at the lowest priority, so they may take long on a busy machine.
    let is_over = || {
        let (recovered, released) = counts();
        let time = begin.elapsed();
        let full = workspace.log().contains("stays in its folder");
        time >= least_time && (full && recovered > 3 && released > 3 || time >= 12 * least_time)
    };
    let (ended, reads) = (AtomicBool::new(false), AtomicUsize::new(0));
    let least = std::thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let mut least = u64::MAX;
            while !ended.load(Ordering::Relaxed) {
                let space = rustix::fs::statvfs(&primary).unwrap();
                least = least.min(space.f_bavail * space.f_frsize);
                std::thread::sleep(Duration::from_millis(1));
            }
            least
        });
        let readers = (1..7u64).map(|seed| {
            let (jobs, reads, is_over) = (&jobs, &reads, &is_over);
            scope.spawn(move || {
                let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15);
                while !is_over() {
                    for _ in 0..20 {
                        read(jobs, next(&mut state));
                        reads.fetch_add(1, Ordering::Relaxed);
                    }
                }
            })
        });
        let readers: Vec<_> = readers.collect();
        let read = readers.into_iter().map(std::thread::ScopedJoinHandle::join);
        let read: Vec<_> = read.collect();
        ended.store(true, Ordering::Relaxed);
        let least = watcher.join().unwrap();
        read.into_iter().for_each(|read| read.unwrap());
        least
    });
    let log = workspace.log();
    let (recovered, released) = counts();
    common::say(&format!(
        "{} reads, {recovered} recovered, {released} released, at least {least} bytes free",
        reads.into_inner()
    ));
    assert!(least >= KEEP_FREE, "only {least} bytes were free");
    assert!(recovered > 3 && released > 3, "{log}");
    assert!(log.contains("stays in its folder"), "all jobs fit");
    eventually("no recovery is left", || {
        let printed = run(workspace.xpmfs().args(["--json", "status"]).arg(&elsewhere));
        let status: Value = serde_json::from_str(&printed).unwrap();
        let listed = status["mounts"][0]["recoveries"].as_array();
        listed.is_some_and(Vec::is_empty)
    });
    for job in 0..JOBS {
        assert!(fs::read(jobs.join(hash(job)).join("large")).unwrap() == content(job));
    }
    mounted.unmount();
    assert_unchanged(&folder, &before);
    assert_clean(&beneath.path());
}
