//! A job that a process has open for writing is not moved, and costs no reading of its copy while that lasts.

use std::fs;
use std::time::{Duration, Instant};

use crate::stage::{Stage, said, write_job};

#[test]
fn the_copy_of_a_job_that_is_being_written_is_not_read_with_each_try() {
    let stage = Stage::new(&["move"]);
    write_job(&stage.job());
    let log = stage.job().join("train.out");
    let writer = fs::File::options().append(true).open(&log).unwrap();
    let trace = stage.top().join("trace");
    let strace = [
        "-y",
        "-e",
        "trace=openat,read,pread64",
        "-o",
        trace.to_str().unwrap(),
    ];
    let strace: Vec<String> = strace.map(ToOwned::to_owned).into();
    let mut command = stage.by_one_thread("archive", &strace);
    let mut child = command
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    // Calls of a kind on a file: what strace prints ends with its path when it was opened, and begins with it when it is read.
    let calls = |kind: &str, path: &std::path::Path| {
        let text = fs::read_to_string(&trace).unwrap_or_default();
        let path = format!("<{}>", path.display());
        let lines = text
            .lines()
            .filter(|line| line.contains(kind) && line.contains(&path));
        lines.count()
    };
    let copy = stage.archived("move").join("train.out");
    let deadline = Instant::now() + Duration::from_secs(25);
    while calls("openat", &log) < 6 {
        assert!(Instant::now() < deadline, "it was not tried again");
        assert!(child.try_wait().unwrap().is_none(), "it ended");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(calls("read", &copy), 0);
    assert!(!stage.job().is_symlink());
    drop(writer);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    assert!(stage.job().is_symlink());
    assert!(calls("read", &copy) > 0, "the copy was not read");
}
