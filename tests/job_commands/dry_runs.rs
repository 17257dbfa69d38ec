//! A dry run lists what the command would do: the first jobs, how many more, and their sum.

use std::process::Output;

use crate::others::small_jobs;
use crate::stage::{Stage, TASK, said};

/// How many jobs a dry run lists.
const LISTED: usize = 20;

fn command(stage: &Stage, arguments: &[&str]) -> Output {
    let output = stage
        .xpmfs()
        .args(arguments)
        .args(["-w", "test"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", said(&output));
    output
}

/// Asserts that a dry run lists `count` jobs with `what`, at most so many, unless it is asked for all or for none.
fn assert_lists(stage: &Stage, arguments: &[&str], count: usize, what: &str) {
    let listed = |more: &[&str]| {
        let text = said(&command(stage, &[arguments, more].concat()));
        let jobs = text
            .lines()
            .filter(|line| line.contains(&format!("{TASK}/")) && line.contains(what));
        (jobs.count(), text)
    };
    let (jobs, text) = listed(&[]);
    assert_eq!(jobs, count.min(LISTED), "{arguments:?}: {text}");
    match count.checked_sub(LISTED) {
        None | Some(0) => assert!(!text.contains("more:"), "{text}"),
        Some(more) => {
            let rest = format!("and {more} more: -v lists them all\n");
            assert!(text.contains(&rest), "{arguments:?}: {text}");
        }
    }
    let sum = format!("{count} ");
    assert!(text.lines().last().unwrap().contains(&sum), "{text}");
    assert_eq!(listed(&["-v"]).0, count, "{arguments:?}");
    assert_eq!(listed(&["-q"]).0, 0, "{arguments:?}");
    let report = command(stage, &[arguments, &["--json"]].concat());
    let report: serde_json::Value = serde_json::from_slice(&report.stdout).unwrap();
    assert_eq!(report.as_array().unwrap().len(), count, "{arguments:?}");
}

#[test]
fn a_dry_run_lists_the_first_jobs_and_counts_all() {
    for count in [LISTED, LISTED + 5] {
        let stage = Stage::new(&["backup"]);
        small_jobs(&stage, count);
        stage.archive();
        let rules = [
            &["jobs", "release", "--older-than", "0"][..],
            &["jobs", "release", TASK],
        ];
        for arguments in rules {
            assert_lists(&stage, arguments, count, "would be released");
        }
        assert_lists(&stage, &["jobs", "delete", TASK], count, "would be deleted");
        command(&stage, &["jobs", "delete", TASK, "--yes"]);
        assert_lists(&stage, &["trash", "empty"], count, "would be removed");
    }
}
