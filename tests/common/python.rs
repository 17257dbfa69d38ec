//! The real experimaestro, for tests that take it as their oracle.
//!
//! The interpreter is `XPMFS_TEST_PYTHON`, or that of the virtual environment `target/venv` which
//! `scripts/test` makes. Without one, a test says loudly that it is skipped; with `CI` or
//! `XPMFS_TEST_REQUIRE=1` in the environment it fails instead.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::tools::skip;

/// The interpreter that has experimaestro; `None` if there is none and the test may be skipped.
pub(crate) fn interpreter() -> Option<PathBuf> {
    let default = || Path::new(env!("CARGO_MANIFEST_DIR")).join("target/venv/bin/python");
    let python = std::env::var_os("XPMFS_TEST_PYTHON").map_or_else(default, PathBuf::from);
    if python.exists() {
        return Some(python);
    }
    skip(&format!(
        "{} does not exist: set XPMFS_TEST_PYTHON to a Python that has experimaestro",
        python.display()
    ));
    None
}

/// A command that runs `tests/python/<script>`, with `home` as the home directory, so that neither the
/// settings of whoever runs the tests nor those of the machine matter.
pub(crate) fn script(python: &Path, home: &Path, script: &str) -> Command {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/python")
        .join(script);
    let mut command = Command::new(python);
    command
        .arg(path)
        .env("HOME", home)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env_remove("XDG_CONFIG_HOME")
        .current_dir(home);
    command
}

/// Runs a script to its end, and reads the last line that it prints as JSON.
pub(crate) fn report<S: AsRef<OsStr>>(mut command: Command, arguments: &[S]) -> serde_json::Value {
    let output = command.args(arguments).output().expect("the script starts");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?} failed:\n{errors}");
    let printed = String::from_utf8(output.stdout).expect("the script prints UTF-8");
    let last = printed.lines().last().unwrap_or_default();
    serde_json::from_str(last).unwrap_or_else(|error| panic!("{error} in {printed:?}\n{errors}"))
}
