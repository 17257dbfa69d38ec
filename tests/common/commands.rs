//! Commands that must succeed or fail, waiting for a condition, and what a path shows.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

/// Runs a command, which must succeed, and gives its standard output.
pub fn run(command: &mut Command) -> String {
    let output = command
        .output()
        .unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Runs a command, which must fail, and gives what it did.
pub fn fails(command: &mut Command) -> Output {
    let output = command
        .output()
        .unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(
        !output.status.success(),
        "{command:?} succeeded:\n{}",
        String::from_utf8_lossy(&output.stdout)
    );
    output
}

/// Waits for a condition, with a deadline that a busy machine keeps: Python alone may take half a minute there to start.
pub fn eventually(what: &str, condition: impl FnMut() -> bool) {
    within(Duration::from_secs(120), what, condition);
}

/// Waits for a condition, for at most `limit`.
pub fn within(limit: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + limit;
    while !condition() {
        assert!(Instant::now() < deadline, "it never came to be: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// An extended attribute of what a path leads to.
pub fn xattr(path: &Path, name: &str) -> rustix::io::Result<Vec<u8>> {
    let mut value = Vec::with_capacity(64 * 1024);
    rustix::fs::getxattr(path, name, rustix::buffer::spare_capacity(&mut value))?;
    Ok(value)
}

/// The names in a directory, sorted.
pub fn names(path: &Path) -> Vec<OsString> {
    let entries = fs::read_dir(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let mut names: Vec<OsString> = entries.map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    names
}

/// A name that is not UTF-8.
pub fn not_utf8() -> &'static OsStr {
    OsStr::from_bytes(b"caf\xe9 \xff\n")
}
