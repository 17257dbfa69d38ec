//! fsx: long random sequences of reads, writes, truncations and mappings of one file, in which every
//! read must give what was last written.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::fs;
use std::path::Path;
use std::process::Command;

use common::say;
use common::{ORDINARY, Workspace};

/// Each operation that a mount has, mappings left out.
const CALLS: &str = "
[weights]
close_open = 1
invalidate = 0
mapread = 0
mapwrite = 0
read = 10
write = 10
truncate = 5
fsync = 0.2
fdatasync = 0.2
posix_fallocate = 2
punch_hole = 2
sendfile = 3
posix_fadvise = 1
copy_file_range = 3
";

/// The same, and mappings.
const MAPPINGS: &str = "
[weights]
close_open = 1
invalidate = 1
mapread = 10
mapwrite = 10
read = 10
write = 10
truncate = 5
fsync = 0.2
fdatasync = 0.2
posix_fallocate = 2
punch_hole = 2
sendfile = 3
posix_fadvise = 1
copy_file_range = 3
";

/// How many operations each run makes.
const OPERATIONS: u64 = 10_000;

/// How many runs each test makes, with a seed each: a million operations in all when there is time.
fn runs() -> u32 {
    if common::soak() { 100 } else { 1 }
}

/// Runs fsx with seed after seed, on the file that `command` adds to its arguments. Where the disk fails, too, the fault is
/// fsx's own, which asks now and then for a range without a byte; such a run does not count.
fn all_runs(top: &Path, file: &Path, program: &Path, weights: &str, user: &dyn Fn() -> Command) {
    let settings = top.join("fsx.toml");
    fs::write(&settings, weights).unwrap();
    let run = |seed: u32, file: &Path| {
        let mut command = user();
        command
            .arg(program)
            .arg("-f")
            .arg(&settings)
            .args(["-S", &seed.to_string(), "-N", &OPERATIONS.to_string(), "-P"])
            .arg(top)
            .arg(file);
        command.output().unwrap()
    };
    let mut passed = 0;
    let first = std::process::id();
    for seed in first..first + 3 * runs() + 3 {
        let output = run(seed, file);
        if output.status.success() {
            passed += 1;
        } else {
            let on_disk = run(seed, &top.join("on-disk"));
            let printed = String::from_utf8_lossy(&output.stderr);
            let printed = printed + String::from_utf8_lossy(&output.stdout);
            assert!(!on_disk.status.success(), "seed {seed}\n{printed}");
            say(&format!("seed {seed} fails on the disk, too"));
        }
        if passed == runs() {
            return;
        }
        // The mount may be theirs alone.
        common::run(user().arg("rm").arg(file));
    }
    panic!("only {passed} runs passed");
}

fn exercise(workspace: &Workspace, arguments: &[&str], weights: &str) {
    let Some(program) = common::tool("fsx") else {
        return;
    };
    let copy = workspace.top().join("fsx");
    fs::copy(program, &copy).unwrap();
    // This gives all of it to the workspace's user.
    let elsewhere = workspace.mountpoint("elsewhere");
    let mounted = workspace.mount_with(&elsewhere, arguments);
    let file = mounted.path().join("file");
    let user = || workspace.command("env");
    all_runs(&workspace.top(), &file, &copy, weights, &user);
}

#[test]
fn a_file_of_root_keeps_what_is_written() {
    exercise(&Workspace::new(), &["-o", "allow_other"], CALLS);
}

#[test]
fn a_file_of_root_keeps_what_is_written_and_mapped() {
    exercise(&Workspace::new(), &["-o", "allow_other"], MAPPINGS);
}

#[test]
fn a_file_of_an_ordinary_user_keeps_what_is_written() {
    exercise(&Workspace::of_ordinary_user(), &[], CALLS);
}

#[test]
fn a_file_of_an_ordinary_user_keeps_what_is_written_and_mapped() {
    exercise(&Workspace::of_ordinary_user(), &[], MAPPINGS);
}

/// In a mount of root that lets others in, as one of those.
#[test]
fn somebody_else_in_a_mount_for_all_keeps_what_is_written() {
    if !common::is_root() {
        return;
    }
    let Some(program) = common::tool("fsx") else {
        return;
    };
    let workspace = Workspace::new();
    let elsewhere = workspace.mountpoint("elsewhere");
    let mounted = workspace.mount_with(&elsewhere, &["-o", "allow_other"]);
    let theirs = mounted.path().join("theirs");
    fs::create_dir(&theirs).unwrap();
    std::os::unix::fs::chown(&theirs, Some(ORDINARY), Some(ORDINARY)).unwrap();
    let top = workspace.top();
    for (path, mode) in [(&top, 0o777), (&workspace.primary(), 0o755)] {
        let permissions = std::os::unix::fs::PermissionsExt::from_mode(mode);
        fs::set_permissions(path, permissions).unwrap();
    }
    let copy = top.join("fsx");
    // By another process: what this one has open for writing, a child that another test starts has as well, and it is busy.
    common::run(Command::new("cp").arg(program).arg(&copy));
    let user = || {
        let mut command = Command::new("setpriv");
        command
            .args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"])
            .current_dir(&top);
        command
    };
    all_runs(&top, &theirs.join("file"), &copy, MAPPINGS, &user);
}
