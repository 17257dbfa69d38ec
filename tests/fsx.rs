//! fsx: long random sequences of reads, writes, truncations and mappings of one file, in which every
//! read must give what was last written.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod fixture;
mod installed;

use std::fs;
use std::process::Command;

use fixture::{ORDINARY, Workspace};
use installed::say;

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

/// How many operations each run makes: a million in all when there is time.
fn operations() -> u64 {
    if installed::soak() { 1_000_000 } else { 10_000 }
}

fn exercise(workspace: &Workspace, arguments: &[&str], weights: &str) {
    let Some(program) = installed::tool("fsx") else {
        return;
    };
    let settings = workspace.top().join("fsx.toml");
    fs::write(&settings, weights).unwrap();
    let copy = workspace.top().join("fsx");
    fs::copy(program, &copy).unwrap();
    // This gives all of it to the workspace's user.
    let elsewhere = workspace.mountpoint("elsewhere");
    let mounted = workspace.mount_with(&elsewhere, arguments);
    let seed = std::process::id().to_string();
    let mut command = workspace.command(&copy);
    command
        .arg("-f")
        .arg(&settings)
        .args(["-S", &seed, "-N", &operations().to_string(), "-P"])
        .arg(workspace.top())
        .arg(mounted.path().join("file"));
    say(&format!("fsx with seed {seed}"));
    let output = command.output().unwrap();
    let printed = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}\n{printed}{errors}");
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
    if !installed::is_root() {
        return;
    }
    let Some(program) = installed::tool("fsx") else {
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
    fs::copy(program, &copy).unwrap();
    let settings = top.join("fsx.toml");
    fs::write(&settings, MAPPINGS).unwrap();
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"])
        .arg(copy)
        .arg("-f")
        .arg(settings)
        .args(["-N", &operations().to_string(), "-P"])
        .arg(&top)
        .arg(theirs.join("file"))
        .current_dir(&top);
    fixture::run(&mut command);
}
