//! A folder stops answering, while 64 processes use the rest of the view: nothing waits longer than for its timeout.

use std::path::Path;

use crate::common::daemon::Footprint;
use crate::stage::{OTHER_TASK, Running, Stage, TASK, until};

const PROCESSES: usize = 64;

/// Lists everything, looks at jobs of the primary and of the other folder, and makes a job.
const USE: &str = "ls jobs >/dev/null; for t in my.module.train my.module.test; do
    ls jobs/$t >/dev/null; stat jobs/$t/primary/model.bin jobs/$t/other/model.bin >/dev/null
    cat jobs/$t/primary/model.bin jobs/$t/other/model.bin >/dev/null
    mkdir jobs/$t/new-$2; echo 1 >jobs/$t/new-$2/params.json
done; mkdir jobs/task-$2";

/// The threads that may be left when no request waits any more.
const THREADS_LEFT: u64 = 4;

/// Starts all processes at the same time, and waits for their end.
fn use_from_many(stage: &Stage, at: &Path, round: &str) {
    let running: Vec<Running> = (0..PROCESSES)
        .map(|number| stage.start(at, USE, &format!("{round}-{number}")))
        .collect();
    for process in running {
        process.succeed();
    }
}

/// A folder that does not answer `holds` is used by many processes, and is back when it answers.
fn expect_no_wait(ordinary: bool, holds: fn(&str, &Path) -> bool) {
    let stage = Stage::new(ordinary);
    let mountpoint = stage.workspace.mountpoint("elsewhere");
    let mounted = stage.workspace.mount_with(&mountpoint, &[]);
    let read = |task: &str| format!("cat jobs/{task}/held/model.bin");
    let read = |task: &str| stage.start(&mountpoint, &read(task), "");
    assert_eq!(read(OTHER_TASK).succeed(), "held");
    let pid = stage.status(&mountpoint)["pid"].as_i64().unwrap();
    let before = Footprint::of(pid).threads;

    stage.folder.hold(holds);
    use_from_many(&stage, &mountpoint, "first");
    until("the folder is offline", || {
        stage.state(&mountpoint) == "offline"
    });
    assert!(stage.folder.parked() > 0);
    // It is known now: nothing waits at all, and no thread is added.
    let (threads, parked) = (Footprint::of(pid).threads, stage.folder.parked());
    use_from_many(&stage, &mountpoint, "second");
    let asked = stage.folder.parked() - parked;
    assert!(
        asked <= 2,
        "{asked} more requests to a folder that is offline"
    );
    until("no thread has been added", || {
        Footprint::of(pid).threads <= threads + THREADS_LEFT
    });
    let text = stage.xpmfs(&["status", mountpoint.to_str().unwrap()]).1;
    assert!(text.contains("does not answer within 1 s"), "{text}");
    let (_, listed) = stage.start(&mountpoint, "ls jobs/$2", TASK).end();
    assert!(
        listed.contains("primary\n") && listed.contains("other\n"),
        "{listed}"
    );

    // A mount is made and ended meanwhile.
    let second = stage.workspace.mountpoint("second");
    let second = second.to_str().unwrap();
    let (mounts, printed) = stage.xpmfs(&["mount", "-w", "test", "--no-archive", second]);
    assert!(mounts, "{printed}");
    let (unmounts, printed) = stage.xpmfs(&["umount", second]);
    assert!(unmounts, "{printed}");

    stage.folder.go_on();
    until("the folder is back", || {
        read(OTHER_TASK).end() == (true, "held".into())
    });
    until("the folder is ok", || stage.state(&mountpoint) == "ok");
    until("the threads have ended", || {
        Footprint::of(pid).threads <= before + THREADS_LEFT
    });
    let log = stage.workspace.log();
    let reported = log.matches("hangs is offline: it does not answer").count();
    assert_eq!(reported, 1, "{log}");
    mounted.unmount();
}

#[test]
fn a_folder_that_answers_nothing_delays_nobody() {
    expect_no_wait(false, |_, _| true);
}

#[test]
fn a_folder_that_answers_nothing_delays_no_ordinary_user() {
    expect_no_wait(true, |_, _| true);
}

#[test]
fn a_folder_that_hangs_in_lookups_delays_nobody() {
    expect_no_wait(false, |operation, path| {
        operation == "lookup" && path.starts_with("jobs/my.module.train")
    });
}

#[test]
fn a_folder_that_hangs_in_listings_delays_nobody() {
    expect_no_wait(false, |operation, _| operation == "readdir");
}

#[test]
fn a_folder_whose_top_hangs_delays_nobody() {
    expect_no_wait(false, |_, path| path.as_os_str().is_empty());
}

#[test]
fn a_folder_of_which_one_task_hangs_delays_nobody() {
    expect_no_wait(false, |_, path| path.starts_with("jobs/my.module.test"));
}

/// What is opened waits, and nothing else does, however many wait.
#[test]
fn opens_that_hang_delay_nobody() {
    let stage = Stage::new(false);
    let mountpoint = stage.workspace.mountpoint("elsewhere");
    let mounted = stage.workspace.mount_with(&mountpoint, &[]);
    stage.folder.hold(|operation, _| operation == "open");
    let read = format!("cat jobs/{TASK}/held/model.bin");
    let waiting: Vec<Running> = (0..PROCESSES)
        .map(|_| stage.start(&mountpoint, &read, ""))
        .collect();
    until("they wait", || stage.folder.parked() >= PROCESSES);
    use_from_many(&stage, &mountpoint, "first");
    until("the folder is slow", || stage.state(&mountpoint) == "slow");
    stage.folder.go_on();
    for process in waiting {
        assert_eq!(process.succeed(), "held");
    }
    until("the folder is ok", || stage.state(&mountpoint) == "ok");
    mounted.unmount();
}
