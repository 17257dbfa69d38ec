//! A job that a process has open for writing is not moved, and costs no reading of its copy while that lasts.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::common::eventually;
use crate::stage::{HASH, Stage, killed_after_a_move, said, write_job};

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

/// Another program has it open, which no mount knows of.
#[test]
fn a_job_is_not_moved_while_a_file_of_it_is_open_for_writing() {
    let stage = Stage::on_disk(&["move"]);
    write_job(&stage.job());
    // To look at it takes a while, so that what is written to the log falls between two looks.
    for number in 0..2000 {
        fs::write(stage.job().join(format!("{number}")), "part").unwrap();
    }
    let mut file = OpenOptions::new()
        .append(true)
        .create(true)
        .open(stage.job().join("log"))
        .unwrap();
    let mut child = stage.by_one_thread("archive", &[]).spawn().unwrap();
    eventually("it is copied", || stage.archived("move").exists());
    let end = Instant::now() + Duration::from_secs(1);
    while Instant::now() < end {
        assert!(!stage.job().is_symlink(), "moved while it is open");
    }
    file.write_all(b"late").unwrap();
    drop(file);
    assert!(child.wait().unwrap().success());
    assert!(stage.job().is_symlink(), "not moved when it is closed");
    assert_eq!(fs::read(stage.job().join("log")).unwrap(), b"late");
    stage.verify();
    stage.assert_clean();
}

/// By somebody who was in its directory before: who asked for it to be moved waits until it has.
#[test]
fn what_is_written_into_the_old_directory_of_a_moved_job_is_moved_as_well() {
    let stage = Stage::on_disk(&["move"]);
    write_job(&stage.job());
    let params = stage.job().join("params.json");
    let child = stage
        .by_one_thread("archive", &[])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    eventually("it is moved", || stage.job().is_symlink());
    let aside = stage.job().with_file_name(format!(".tmp.{HASH}"));
    let mut file = OpenOptions::new()
        .append(true)
        .open(aside.join("params.json"))
        .unwrap();
    file.write_all(b"late").unwrap();
    drop(file);
    let done = child.wait_with_output().unwrap();
    assert!(done.status.success(), "{}", said(&done));
    assert!(said(&done).contains("put back"), "{}", said(&done));
    assert!(stage.job().is_symlink(), "{}", said(&done));
    assert!(fs::read(params).unwrap().ends_with(b"late"));
    stage.verify();
    stage.assert_clean();
}

/// Whoever moved it was killed meanwhile; and who writes, began when it was on its way already.
#[test]
fn what_is_open_for_writing_when_a_move_is_broken_off_is_put_back() {
    let stage = killed_after_a_move(|| Stage::on_disk(&["move"]));
    let aside = stage.job().with_file_name(format!(".tmp.{HASH}"));
    let mut file = OpenOptions::new()
        .append(true)
        .open(aside.join("params.json"))
        .unwrap();
    let mut again = stage.by_one_thread("archive", &[]).spawn().unwrap();
    eventually("it is put back", || !stage.job().is_symlink());
    file.write_all(b"late").unwrap();
    drop(file);
    // It may have met the write between two looks, and refuses then.
    again.wait().unwrap();
    stage.archive();
    assert!(
        fs::read(stage.job().join("params.json"))
            .unwrap()
            .ends_with(b"late")
    );
    assert!(stage.job().is_symlink());
    stage.verify();
    stage.assert_clean();
}
