//! Filter expressions, beside those of experimaestro.

use std::fs;

use serde_json::{Value, json};

use crate::common::{Workspace, fails, python, run};
use crate::generated::{Numbers, tune};

/// An expression at random, with a few terms and without parentheses, which experimaestro does not read.
fn expression(numbers: &mut Numbers) -> String {
    let mut text = String::new();
    for term in 0..=numbers.below(4) {
        if term > 0 {
            text += *numbers.one_of(&[" and ", " or ", " and ", "\tor\n"]);
        }
        let variable = *numbers.one_of(&[
            "model", "other", "x-y_1", "and", "absent", "@state", "@name", "model",
        ]);
        let constant = |numbers: &mut Numbers| {
            let texts = [
                "bm25",
                "splade",
                "a.b",
                "",
                "again",
                "é",
                "done",
                "error",
                "waiting",
                "my.module.train",
                "x\\ny",
            ];
            let quote = numbers.one_of(&['"', '\'']);
            format!("{quote}{}{quote}", numbers.one_of(&texts))
        };
        let pattern = |numbers: &mut Numbers| {
            let patterns = [
                "bm",
                "BM",
                "(?i)bm25$",
                "[a-z]+",
                ".*5",
                "s(?=p)",
                "(.)\\\\1",
                "^$",
                "",
                "d|e",
                "\\\\d",
                "x\\ny",
                "[^b]",
                "a\\\\.b\\\\Z",
                "(?P<a>b)m",
                ".{4}$",
            ];
            format!("\"{}\"", numbers.one_of(&patterns).replace("\\\\", "\\"))
        };
        text += &match numbers.below(6) {
            0 | 1 => format!("{variable} = {}", constant(numbers)),
            2 => format!(
                "{variable}={}",
                numbers.one_of(&["other", "model", "@name", "absent"])
            ),
            3 => format!("{variable} ~ {}", pattern(numbers)),
            4 => format!(
                "{variable} in [{}, {}]",
                constant(numbers),
                constant(numbers)
            ),
            _ => format!(
                "{variable} not in [{},{}]",
                constant(numbers),
                constant(numbers)
            ),
        };
    }
    text
}

/// The jobs that pass, in order.
fn passing(workspace: &Workspace, filter: &str) -> Value {
    let mut command = workspace.xpmfs();
    command.args([
        "jobs", "list", "--json", "-w", "test", "-x", "tune", "--sort", "name",
    ]);
    let output = command.arg("--filter").arg(filter).output().unwrap();
    if output.status.code() == Some(2) {
        return json!("refused");
    }
    let listed: Value = serde_json::from_slice(&output.stdout).unwrap();
    let jobs = listed.as_array().unwrap().iter();
    jobs.map(|job| job["job"].clone()).collect()
}

fn sorted(mut jobs: Value) -> Value {
    if let Some(jobs) = jobs.as_array_mut() {
        jobs.sort_by_key(Value::to_string);
    }
    jobs
}

#[test]
fn filters_select_what_those_of_experimaestro_are_meant_to() {
    let Some(python) = python::interpreter() else {
        return;
    };
    let workspace = Workspace::new();
    tune(&workspace, false);
    let mut numbers = Numbers::new(11);
    let mut filters: Vec<String> = (0..60).map(|_| expression(&mut numbers)).collect();
    let mistakes = [
        "",
        "model",
        "model = ",
        "model = 'x",
        "model ~ model",
        "model in []",
        "not model = 'x'",
        "model not  in ['x']",
        "model = 'x' and",
        "model == 'x'",
        "é = 'x'",
        "@nope = 'x'",
        "model = 'x' | other = 'y'",
        "1a = 'x'",
        "model in ['x' 'y']",
        "model ~ '('",
    ];
    filters.extend(mistakes.map(str::to_owned));
    let queries = workspace.top().join("queries.json");
    let query = json!({"experiments": ["tune"], "filters": filters, "counts": []});
    fs::write(&queries, query.to_string()).unwrap();
    let command = python::script(&python, &workspace.top(), "list_jobs.py");
    let theirs = python::report(command, &[workspace.primary(), queries]);
    let (mut selecting, mut refused, mut crashing) = (0, 0, 0);
    for filter in &filters {
        let ours = passing(&workspace, filter);
        let (real, meant) = (&theirs["real"][filter], &theirs["repaired"][filter]);
        match meant.as_str() {
            // It refuses the expression, or its pattern.
            Some(_) => {
                assert_eq!(ours, "refused", "{filter:?}: {meant}");
                refused += 1;
            }
            None => {
                assert_eq!(ours, sorted(meant.clone()), "{filter:?}");
                selecting += usize::from(!meant.as_array().unwrap().is_empty());
            }
        }
        let is_wrong = filter.contains('~') || filter.contains(" in ");
        // As it is, it fails for every pattern, and `in` selects nothing.
        if !is_wrong && meant.is_array() {
            assert_eq!(real, meant, "{filter:?}");
        }
        crashing += usize::from(real == "TypeError");
    }
    assert_eq!(refused, mistakes.len());
    assert!(selecting > 25 && crashing > 5, "{selecting} {crashing}");
}

#[test]
fn filters_work_where_those_of_experimaestro_do_not() {
    let Some(python) = python::interpreter() else {
        return;
    };
    let workspace = Workspace::new();
    tune(&workspace, true);
    let documented = r#"@state = "DONE" and model in ["bm25", "splade"]"#;
    let filters = [
        documented,
        r#"@state = "DONE""#,
        r#"lr = "0.1""#,
        r#"lr ~ "1e-05""#,
        r#"on = "True""#,
        r#"(model = "bm25") and (lr = "3" or lr = "0")"#,
    ];
    let queries = workspace.top().join("queries.json");
    let query = json!({"experiments": ["tune"], "filters": filters, "counts": []});
    fs::write(&queries, query.to_string()).unwrap();
    let command = python::script(&python, &workspace.top(), "list_jobs.py");
    let theirs = python::report(command, &[workspace.primary(), queries]);
    let jobs = theirs["experiments"]["tune"].as_array().unwrap();
    let expected = |passes: &dyn Fn(&Value) -> bool| -> Value {
        let passing = jobs.iter().filter(|job| passes(job));
        let mut names: Vec<Value> = passing.map(|job| job["job"].clone()).collect();
        names.sort_by_key(Value::to_string);
        names.into()
    };
    let tag = |job: &Value, name: &str| job["tags"][name].clone();
    let is_done = |job: &Value| job["state"] == "done";
    let checks: [&dyn Fn(&Value) -> bool; 6] = [
        &|job| {
            is_done(job)
                && ["bm25", "splade"]
                    .iter()
                    .any(|model| tag(job, "model") == *model)
        },
        &is_done,
        &|job| tag(job, "lr") == 0.1,
        &|job| tag(job, "lr") == 1e-5,
        &|job| tag(job, "on") == true,
        &|job| tag(job, "model") == "bm25" && (tag(job, "lr") == 3 || tag(job, "lr") == 0),
    ];
    for (filter, check) in filters.iter().zip(checks) {
        let expected = expected(check);
        assert!(!expected.as_array().unwrap().is_empty(), "{filter}");
        assert_eq!(passing(&workspace, filter), expected, "{filter}");
        // It selects nothing, or fails.
        let real = &theirs["real"][filter];
        assert!(real.is_string() || *real == json!([]), "{filter}: {real}");
    }
}

#[test]
fn a_mistake_in_a_filter_is_explained() {
    let workspace = Workspace::new();
    let list = |filter: &str| {
        let mut command = workspace.xpmfs();
        command.args(["jobs", "list", "-w", "test", "--filter", filter]);
        command
    };
    let output = fails(&mut list(r#"model = "x"#));
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("no closing \" in column 9"), "{said}");
    let output = list(r#"@state = "FAILED""#).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("no job has the state \"FAILED\""), "{said}");
    // As in experimaestro, a tag that no job has selects nothing.
    let output = list(r#"modle = "bm25" and @name ~ "t""#).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(
        said.contains("none of these jobs has a tag \"modle\""),
        "{said}"
    );
    assert!(!said.contains("@name"), "{said}");
    workspace.finished("primary", "t", "a");
    assert!(run(&mut list(r#"@state = "Done""#)).contains("t/a"));
}
