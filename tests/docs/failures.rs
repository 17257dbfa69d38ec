//! Each line of docs/failures.md names tests in a comment, and they exist.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::section;

/// The names of all tests of the project.
fn test_names() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut pending = vec![root.join("tests"), root.join("src")];
    while let Some(directory) = pending.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                pending.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                let name = |test: &str| {
                    let (_, after) = test.split_once("fn ")?;
                    Some(after.split('(').next()?.to_owned())
                };
                names.extend(text.split("#[test]").skip(1).filter_map(name));
            }
        }
    }
    names
}

/// The tests that a text of a page names in its comments.
fn tests_of(text: &str) -> Vec<&str> {
    let comments = text.split("<!--").skip(1);
    comments
        .flat_map(|comment| comment.split("-->").next().unwrap().split_whitespace())
        .collect()
}

#[test]
fn each_line_about_failures_is_a_test() {
    let page = section("failures", "");
    let known = test_names();
    let (_, cases) = page.split_once("\n## ").unwrap();
    let mut lines = 0;
    for line in cases.lines() {
        for name in tests_of(line) {
            assert!(
                known.contains(name),
                "docs/failures.md names {name}, which is not a test"
            );
        }
        let is_case =
            line.starts_with("| ") && !line.starts_with("| what |") && !line.starts_with("| ---");
        if is_case {
            assert!(
                !tests_of(line).is_empty(),
                "this line names no test: {line}"
            );
            lines += 1;
        }
    }
    assert!(lines > 30, "{lines} lines");
}
