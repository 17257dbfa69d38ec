//! What must hold at the end: every record is there, and the daemon holds no more than before.

use std::fs;

use xpmfs::daemon::control::Client;
use xpmfs::daemon::mounts;

use crate::common::daemon::Footprint;
use crate::common::{Mounted, Workspace, eventually};
use crate::{MOVING, PROCESSES, RECORD, TASK};

pub(crate) fn check_shared_files(mounted: &Mounted<'_>, workspace: &Workspace) {
    let shared = mounted.path().join("shared");
    let (mut appended, mut counted) = (0, 0);
    for number in 0..PROCESSES {
        let told = fs::read_to_string(workspace.top().join(format!("worker-{number}"))).unwrap();
        let (records, counts) = told.split_once(' ').unwrap();
        appended += records.parse::<usize>().unwrap();
        counted += counts.parse::<u64>().unwrap();
    }
    let log = fs::read(shared.join("log")).unwrap();
    assert_eq!(log.len(), appended * RECORD, "records are lost");
    for record in log.chunks(RECORD) {
        assert!(
            record.ends_with(b".\n"),
            "torn: {:?}",
            String::from_utf8_lossy(record)
        );
    }
    let count = fs::read_to_string(shared.join("counter")).unwrap();
    assert_eq!(count.parse::<u64>().unwrap(), counted);
    assert!(appended > 0 && counted > 0);
}

pub(crate) fn check_moved_jobs(mounted: &Mounted<'_>, versions: &[u64]) {
    for (hash, version) in MOVING.iter().zip(versions) {
        let job = mounted.job(TASK, hash);
        eventually("the last version of the job is seen", || {
            let read = fs::read_to_string(job.join("version"));
            read.is_ok_and(|read| read == version.to_string())
        });
        eventually("the job is served by the primary", || {
            mounted.location(&job) == "primary"
        });
    }
}

pub(crate) fn check_nothing_is_left(mounted: &Mounted<'_>, before: &Daemon) {
    fs::remove_dir_all(mounted.path().join("shared")).unwrap();
    // What there is, and a few that the kernel has not given up yet.
    let enough = before.nodes + 100;
    let mut after = Daemon::of(mounted);
    // A thread that waited for a disk is kept for a moment, for the next request that waits.
    let threads = before.footprint.threads + 4;
    eventually("files are closed, nodes forgotten, threads ended", || {
        after = Daemon::of(mounted);
        after.files == 0 && after.nodes <= enough && after.footprint.threads <= threads
    });
    crate::common::say(&format!("before {before:?}\nafter  {after:?}"));
    // A few directories that are kept open on purpose, for each place.
    assert!(
        after.footprint.descriptors <= before.footprint.descriptors + 100,
        "{before:?} {after:?}"
    );
    assert!(
        after.footprint.kibibytes <= before.footprint.kibibytes + 64 * 1024,
        "{before:?} {after:?}"
    );
}

/// What a daemon holds.
#[derive(Debug)]
pub(crate) struct Daemon {
    nodes: u64,
    files: u64,
    footprint: Footprint,
}

impl Daemon {
    pub(crate) fn of(mounted: &Mounted<'_>) -> Daemon {
        let mount = mounts::top_at(mounted.path()).unwrap().unwrap();
        let mut client = Client::connect(mount.device, mount.owner()).unwrap();
        let status = client.request("status").unwrap();
        let count = |what: &str| status["service"]["counts"][what].as_u64().unwrap();
        Daemon {
            nodes: count("nodes"),
            files: count("files"),
            footprint: Footprint::of(client.pid().unwrap()),
        }
    }
}
