//! Each mistake in a settings file, its place, and its message.
//!
//! - `keys`: unknown, missing and wrong keys and values
//! - `folders`: folders and workspaces that cannot be used, or are not there
//! - `yaml`: what is wrong with a file as YAML, and files without bound

mod folders;
mod keys;
mod yaml;

use std::fs;

use Severity::{Error, Warning};
use xpmfs::settings::{Severity, check};

use crate::oracle::Home;

/// A finding: line, column, severity, parts of its message and of its advice.
type Expected = (usize, usize, Severity, &'static str, &'static str);

/// Checks a text in a home with `~/ws` (a workspace), `~/a`, `~/b` (folders) and `~/old/jobs`.
fn findings(text: &str) -> Vec<xpmfs::settings::Finding> {
    let home = Home::new();
    for name in [
        "ws/jobs",
        "ws/inside/jobs",
        "a/jobs",
        "b/jobs",
        "old/jobs/my.task",
    ] {
        fs::create_dir_all(home.path().join(name)).unwrap();
    }
    std::os::unix::fs::symlink("a", home.path().join("a-link")).unwrap();
    let file = home.path().join("settings.yaml");
    fs::write(&file, text).unwrap();
    check(&file, &home.environment()).unwrap()
}

#[track_caller]
fn expect(text: &str, expected: &[Expected]) {
    let found = findings(text);
    let same = found.len() == expected.len()
        && found.iter().zip(expected).all(
            |(finding, (line, column, severity, message, advice))| {
                (finding.line, finding.column, finding.severity) == (*line, *column, *severity)
                    && finding.message.contains(message)
                    && finding.advice.contains(advice)
            },
        );
    assert!(
        same,
        "{text}\nexpected {expected:?}\nfound {}",
        found
            .iter()
            .map(|finding| format!("{finding:?}\n"))
            .collect::<String>()
    );
}

/// The mapping of the one workspace `~/ws`, with more lines from line 4 on.
fn workspace(lines: &str) -> String {
    let lines: String = lines.lines().map(|line| format!("    {line}\n")).collect();
    format!("workspaces:\n  - id: nlp\n    path: ~/ws\n{lines}")
}

#[test]
fn a_valid_file_has_no_findings() {
    expect(
        &workspace(
            "triggers: [\"a*\", b]\nlock_mode: \"0664\"\nenv: {A: 1, B: yes}\nxpmfs: {settle: 5, scan_interval: 1h30m, \
             bandwidth: 100M, exclude: ['my.*', 'other.task/ab*'], recover_on: write}\n\
             folders:\n  - {path: ~/a, mode: backup, exclude: [x.*]}\n  - {path: ~/b, mode: move}\n  - path: ~/old",
        ),
        &[],
    );
    expect("{}", &[]);
}

#[test]
fn one_pass_finds_everything_and_one_mistake_hides_no_other() {
    let text = "sever: 1\nserver: {port: x}\nworkspaces:\n  - 5\n  - {id: 1, path: ~/ws, folders: [{path: ~/ws/inside}, 7]}\n\
                \x20 - {id: b}\nxpmfs: {settle: x}\n";
    expect(
        text,
        &[
            (1, 1, Warning, "`sever`", ""),
            (2, 16, Error, "`port`", ""),
            (4, 5, Error, "a workspace must be a mapping", ""),
            (5, 10, Error, "`id`", ""),
            (5, 42, Error, "is inside the workspace", ""),
            (5, 56, Error, "a folder must be a mapping", ""),
            (6, 5, Error, "needs the key `path`", ""),
            (7, 17, Error, "`settle`", ""),
        ],
    );
}
