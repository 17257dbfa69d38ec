//! What the system refuses reaches the caller, with the entry.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use xpmfs::transfer::{Bandwidth, Durability, Error, Options, Progress, Side, Writeback};

use super::tree::assert_same;
use super::{Small, Stage, as_nobody, eventually, is_root, run};
use crate::common;

fn errno(error: &Error) -> Errno {
    Errno::from_io_error(error.io().unwrap_or_else(|| panic!("{error}"))).unwrap()
}

#[test]
fn a_full_disk_is_told_as_such() {
    if !is_root() {
        return;
    }
    let stage = Stage::new();
    for index in 0..64 {
        stage.file(&format!("dir/{index}"), vec![index; 64 << 10]);
    }
    let small = Small::mount(stage.top().join("small"), "size=1m");
    for durability in ["now", "together"] {
        let to = small.0.join(durability);
        fs::create_dir(&to).unwrap();
        let writeback = Writeback::watch(fs::File::open(&to).unwrap()).unwrap();
        let durability = match durability {
            "now" => Durability::Now,
            _ => Durability::Together(&writeback),
        };
        let options = Options {
            durability,
            ..Options::default()
        };
        let error = run(&stage.source(), &to, &options).unwrap_err();
        assert_eq!(errno(&error), Errno::NOSPC, "{error}");
        assert!(error.path().unwrap().starts_with("dir"), "{error}");
        assert!(
            matches!(
                error,
                Error::Io {
                    side: Side::Copy,
                    ..
                }
            ),
            "{error}"
        );
        fs::remove_dir_all(&to).unwrap();
    }
}

#[test]
fn no_inodes_left_is_a_full_disk_too() {
    if !is_root() {
        return;
    }
    let stage = Stage::new();
    for index in 0..64 {
        stage.file(&format!("{index}/file"), "x");
    }
    let small = Small::mount(stage.top().join("small"), "nr_inodes=40");
    let error = run(&stage.source(), &small.0, &Options::default()).unwrap_err();
    assert_eq!(errno(&error), Errno::NOSPC, "{error}");
}

#[test]
fn a_read_only_folder_is_told_as_such() {
    if !is_root() {
        return;
    }
    let stage = Stage::new();
    stage.file("file", "x");
    let small = Small::mount(stage.top().join("small"), "ro");
    let error = run(&stage.source(), &small.0, &Options::default()).unwrap_err();
    assert_eq!(errno(&error), Errno::ROFS, "{error}");
}

#[test]
fn a_copy_to_another_file_system_is_the_same() {
    if !is_root() {
        return;
    }
    let stage = Stage::new();
    for index in 0..100 {
        stage.file(&format!("{}/{index}", index % 3), vec![index; 3000]);
    }
    let small = Small::mount(stage.top().join("small"), "size=16m,mode=755");
    run(&stage.source(), &small.0, &Options::default()).unwrap();
    assert_same(&stage.source(), &small.0);
}

#[test]
fn what_may_not_be_read_or_written_is_named() {
    if !is_root() {
        return;
    }
    let stage = Stage::new();
    let secret = stage.file("dir/secret", "x");
    fs::set_permissions(&secret, Permissions::from_mode(0o600)).unwrap();
    fs::set_permissions(stage.top(), Permissions::from_mode(0o755)).unwrap();
    lchown(stage.copy(), Some(65534), Some(65534)).unwrap();
    let error = as_nobody(|| stage.run(&Options::default())).unwrap_err();
    assert_eq!(errno(&error), Errno::ACCESS, "{error}");
    assert_eq!(
        error.to_string(),
        "cannot open dir/secret: Permission denied (os error 13)"
    );
    stage.again();
    fs::set_permissions(&secret, Permissions::from_mode(0o644)).unwrap();
    let error = as_nobody(|| stage.run(&Options::default())).unwrap_err();
    assert_eq!(errno(&error), Errno::ACCESS, "{error}");
    assert!(
        error
            .to_string()
            .starts_with("cannot create dir in the copy: "),
        "{error}"
    );
}

#[test]
fn what_stands_in_the_way_is_not_overwritten() {
    let stage = Stage::new();
    stage.file("file", "new");
    fs::write(stage.copy().join("file"), "old").unwrap();
    let error = stage.run(&Options::default()).unwrap_err();
    assert_eq!(errno(&error), Errno::EXIST, "{error}");
    assert_eq!(fs::read(stage.copy().join("file")).unwrap(), b"old");
}

#[test]
fn a_copy_can_be_cancelled_while_it_waits() {
    let stage = Stage::new();
    for index in 0..100 {
        stage.file(&format!("{index}"), vec![0; 1 << 20]);
    }
    let (progress, bandwidth) = (Progress::new(), Bandwidth::new(Some(1 << 20)));
    let options = Options {
        progress: Some(&progress),
        bandwidth: Some(&bandwidth),
        ..Options::default()
    };
    std::thread::scope(|scope| {
        let copy = scope.spawn(|| stage.run(&options));
        eventually("something is copied", || progress.bytes() > 0);
        let cancelled = Instant::now();
        progress.cancel();
        let result = copy.join().unwrap();
        assert!(matches!(result, Err(Error::Cancelled)), "{result:?}");
        // All of it would take more than a minute and a half.
        assert!(cancelled.elapsed() < Duration::from_secs(30));
    });
    assert!(progress.files() < 100);
}

/// How often a copy by the example program makes a system call.
fn calls(stage: &Stage, jobs: bool) -> [usize; 3] {
    let example = std::path::Path::new(env!("CARGO_BIN_EXE_xpmfs")).with_file_name("examples/copy");
    // Cargo builds it with all tests, but not with this one alone.
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--locked", "--quiet", "--example", "copy"]);
    assert!(
        cargo
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .status()
            .unwrap()
            .success()
    );
    let log = stage.top().join("log");
    let mut strace = Command::new("strace");
    strace
        .args(["-f", "-e", "trace=syncfs,fsync,fdatasync", "-o"])
        .arg(&log)
        .arg(&example);
    if jobs {
        strace.args(["--jobs", "2"]);
    }
    strace.arg(stage.source()).arg(stage.top().join("traced"));
    let output = strace.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let log = fs::read_to_string(log).unwrap();
    fs::remove_dir_all(stage.top().join("traced")).unwrap();
    // A call that is refused asks only whether there is such a call.
    let done = |call| {
        let lines = log.lines().filter(|line| !line.contains("EBADF"));
        lines.map(|line| line.matches(call).count()).sum()
    };
    ["syncfs(", "fsync(", "fdatasync("].map(done)
}

#[test]
fn many_files_are_durable_by_one_call_and_few_by_their_own() {
    if common::program("strace").is_none() {
        return;
    }
    let stage = Stage::new();
    let device = fs::metadata(stage.top()).unwrap().dev();
    let kind = rustix::fs::statfs(stage.top()).unwrap().f_type;
    if kind != 0xEF53 {
        common::say(&format!(
            "SKIPPED: this test is about ext4, and {device} is not"
        ));
        return;
    }
    stage.file("one/a", "x");
    stage.file("one/b", "x");
    // Two files, two directories, and the name of the copy, which the program sees to.
    assert_eq!(calls(&stage, false), [0, 5, 0]);
    for index in 0..100 {
        stage.file(&format!("two/{index}"), "x");
    }
    assert_eq!(calls(&stage, false), [1, 1, 0]);
    stage.file("two/large", vec![0; 9 << 20]);
    assert_eq!(calls(&stage, false), [1, 2, 0]);
    assert_eq!(calls(&stage, true), [1, 2, 0]);
}
