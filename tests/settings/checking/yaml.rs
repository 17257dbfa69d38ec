//! What is wrong with a file as YAML, and files that are too large or take too long.

use std::fs;

use rustix::time::{ClockId, clock_gettime};
use xpmfs::settings::Severity::{Error, Warning};
use xpmfs::settings::check;

use super::{expect, findings};
use crate::oracle::Home;

#[test]
fn a_text_that_is_not_yaml_is_found_at_its_place() {
    expect(
        "server:\n\tport: 1",
        &[(2, 1, Error, "not valid YAML", "tabs")],
    );
    expect(
        "server:\n  port: 1\t",
        &[(2, 10, Error, "a tab is not allowed here", "spaces")],
    );
    expect(
        "server: a: b: c",
        &[(1, 10, Error, "not valid YAML", "quotes")],
    );
    expect(
        "env: &a {A: &b x, B: &b y}",
        &[(1, 22, Error, "the anchor `b` is defined twice", "")],
    );
    expect(
        "x: 1\ny: !mine 2",
        &[(2, 4, Error, "the tag `!mine` is not known", "")],
    );
    expect("", &[(1, 1, Error, "the settings must be a mapping", "{}")]);
}

#[test]
fn hostile_files_are_refused_in_time() {
    let laughs = "a: &a [x,x,x,x,x,x,x,x,x,x]\n".to_owned()
        + &(b'b'..=b'j')
            .map(|c| {
                let before = char::from(c - 1);
                let list = vec![format!("*{before}"); 10].join(",");
                format!("{}: &{} [{list}]\n", char::from(c), char::from(c))
            })
            .collect::<String>();
    for text in [
        laughs,
        "[".repeat(100_000),
        format!("x: {}", "{a: ".repeat(50_000)),
        "- ".repeat(50_000),
        "? ".repeat(10_000),
        format!("{}: 5", "a".repeat(900_000)),
        (0..60_000)
            .map(|n| format!("key-{n}: 1\n"))
            .collect::<String>()
            + "server: 5",
    ] {
        let found = findings(&text);
        assert!(
            found.iter().any(|finding| finding.severity == Error),
            "{:.80}",
            text
        );
    }
}

#[test]
fn a_file_over_1_mb_is_refused_before_it_is_read() {
    let home = Home::new();
    let file = home.path().join("settings.yaml");
    fs::write(&file, "# \n").unwrap();
    fs::File::options()
        .write(true)
        .open(&file)
        .unwrap()
        .set_len(1 << 40)
        .unwrap();
    let error = check(&file, &home.environment()).unwrap_err().to_string();
    assert!(error.contains("larger than 1000000 bytes"), "{error}");
}

#[test]
fn mappings_that_are_merged_with_different_values_are_found() {
    let merged = |merge: &str| {
        format!(
            "a: &a {{max_retries: 1, lock_mode: umask}}\nb: &b {{max_retries: 2, lock_mode: umask}}\nworkspaces:\n  - id: x\n    path: ~/ws\n    {merge}"
        )
    };
    let of_merge = |text: &str| {
        let found = findings(text).into_iter();
        let found: Vec<_> = found.filter(|it| it.message.contains("<<")).collect();
        found
    };
    let found = of_merge(&merged("<<: [*a, *b]"));
    let [found] = found.as_slice() else {
        panic!("{found:?}");
    };
    assert_eq!((found.line, found.column, found.severity), (6, 5, Warning));
    assert!(
        found.message.contains("`max_retries`, on lines 1 and 2"),
        "{found:?}"
    );
    assert!(found.advice.contains("beside the `<<`"), "{found:?}");
    for right in [
        "<<: *a",
        "<<: [*a]",
        "<<: [*a, *a]",
        "<<: [*a, *b]\n    max_retries: 3",
    ] {
        assert_eq!(of_merge(&merged(right)), [], "{right}");
    }
}

#[test]
fn aliases_that_grow_without_bound_are_refused() {
    let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..10 {
        let before = format!("*a{}", level - 1);
        let items = [before.as_str(); 10].join(", ");
        text += &format!("a{level}: &a{level} [{items}]\n");
    }
    let long = format!(
        "a: &a {}\nb: [{}]\n",
        "x".repeat(100_000),
        "*a, ".repeat(1000)
    );
    for text in [text, long] {
        let found = findings(&text);
        assert_eq!(found.len(), 1);
        assert!(found[0].message.contains("expands too far"), "{found:?}");
    }
    let text = |count| format!("unknown: [{}]", "x, ".repeat(count));
    let found = findings(&text(99_000));
    assert!(found.iter().all(|it| it.severity == Warning), "{found:?}");
    let found = findings(&text(101_000));
    assert!(
        found[0].message.contains("more than 100000 values"),
        "{found:?}"
    );
}

#[test]
fn many_workspaces_are_checked_in_time() {
    let many = |line: &str| -> String {
        let workspaces = (0..10_000)
            .map(|number| format!("  - {{id: w{number}, path: '/nope/{number}', {line}}}\n"));
        format!("workspaces:\n{}", workspaces.collect::<String>())
    };
    for text in [
        many("alt_workspaces: [w1]"),
        many("env: {A: '${env:NOT_SET}'}"),
        many("lock_mode: 123"),
        many("env: {A: '${env:NOT_SET}'}")
            .replace("\n  - ", ", ")
            .replacen("workspaces:,", "workspaces: [", 1)
            + "]",
    ] {
        // Time of the processor: other tests, each in a process of its own, use it as well.
        let used = || clock_gettime(ClockId::ProcessCPUTime).tv_sec;
        let began = used();
        assert!(findings(&text).len() >= 10_000);
        // A check that is not linear takes minutes.
        assert!(used() - began < 30, "{} s", used() - began);
    }
}
