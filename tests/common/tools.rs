//! Programs that `scripts/test` installs for the tests, below `target/tools`.
//!
//! Without one, a test says loudly that it is skipped; with `CI` or `XPMFS_TEST_REQUIRE=1` in the
//! environment it fails instead.

use std::io::Write;
use std::path::{Path, PathBuf};

/// A program that cargo has installed; `None` if it is not there and the test may be skipped.
pub fn tool(name: &str) -> Option<PathBuf> {
    let default = || Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools");
    let root = std::env::var_os("XPMFS_TEST_TOOLS").map_or_else(default, PathBuf::from);
    let program = root.join("bin").join(name);
    if program.exists() {
        return Some(program);
    }
    skip(&format!("{} does not exist", program.display()));
    None
}

/// A program of the machine; `None` if it is not there and the test may be skipped.
pub fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).find_map(|dir| {
        let program = dir.join(name);
        program.is_file().then_some(program)
    });
    if found.is_none() {
        skip(&format!("there is no {name} on this machine"));
    }
    found
}

/// Whether the test runs as root; says that it is skipped if not.
pub fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        // Never an error: an ordinary user may run the tests.
        say("SKIPPED: only root can do this");
    }
    root
}

/// Says that a test is skipped for want of something that `scripts/test` installs.
pub fn skip(message: &str) {
    let required = std::env::var_os("CI").is_some()
        || std::env::var_os("XPMFS_TEST_REQUIRE").is_some_and(|value| value == "1");
    assert!(!required, "{message}; run scripts/test");
    say(&format!("SKIPPED: {message}; run scripts/test"));
}

/// Tells something to whoever runs the tests, also if they pass: not by `eprintln!`, which the harness
/// keeps to itself.
pub fn say(message: &str) {
    let _ = writeln!(std::io::stderr(), "{message}");
}

/// Whether the long tests are to be run.
pub fn soak() -> bool {
    std::env::var_os("XPMFS_SOAK").is_some_and(|value| value == "1")
}
