//! Runs and partials are brought back, and listed.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Output;

use serde_json::Value;

use crate::common::{Workspace, run};
use crate::scene::{LATER, RUN, TASK, archive, finished, job, tree, workspace, write};

fn recover(workspace: &Workspace, arguments: &[&str]) -> Output {
    let mut command = workspace.xpmfs();
    command
        .args(["experiments", "recover", "-w", "test"])
        .args(arguments)
        .output()
        .unwrap()
}

fn recovered(workspace: &Workspace, arguments: &[&str]) -> String {
    let output = recover(workspace, arguments);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    said
}

/// A workspace with two runs, archived.
fn archived() -> Workspace {
    let workspace = workspace();
    job(&workspace, "0a", "1f");
    finished(&workspace, RUN, &["0a"]);
    finished(&workspace, LATER, &["0a"]);
    archive(&workspace);
    workspace
}

/// The runs and partials of the primary, without locks.
fn items(workspace: &Workspace) -> Vec<(String, String)> {
    let mut tree = tree(&workspace.primary());
    tree.retain(|(path, _)| {
        let of_item = path.starts_with("experiments/") || path.starts_with("partials/");
        of_item && !path.ends_with(".lock") && !path.ends_with("/lock")
    });
    tree
}

#[test]
fn everything_comes_back_as_it_was() {
    let workspace = archived();
    let before = items(&workspace);
    let primary = workspace.primary();
    for name in ["experiments", "partials"] {
        fs::remove_dir_all(primary.join(name)).unwrap();
    }
    fs::remove_file(primary.join(".__experimaestro__")).unwrap();
    let said = recovered(&workspace, &["--all"]);
    assert!(said.contains("2 runs and 1 partial recovered"), "{said}");
    assert_eq!(items(&workspace), before);
    assert!(primary.join(".__experimaestro__").exists());
    assert!(recovered(&workspace, &["--all"]).contains("nothing to recover: 3 already"));
    let link = primary
        .join("experiments/xp/current/jobs")
        .join(TASK)
        .join("0a");
    assert_eq!(
        fs::read_link(link).unwrap(),
        primary.join("jobs").join(TASK).join("0a")
    );
}

#[test]
fn what_the_primary_has_stays_as_it_is() {
    let workspace = archived();
    let runs = workspace.primary().join("experiments/xp");
    let model = workspace
        .primary()
        .join(format!("partials/{TASK}/ck/1f/model.pt"));
    fs::remove_dir_all(runs.join(RUN)).unwrap();
    write(&runs.join(LATER).join("note"), "mine");
    write(&model, "other weights");
    // `current` leads to a run of one's own.
    fs::remove_file(runs.join("current")).unwrap();
    fs::create_dir(runs.join("20250101_000000")).unwrap();
    symlink("20250101_000000", runs.join("current")).unwrap();
    recovered(&workspace, &["xp"]);
    assert!(runs.join(RUN).join("status.json").exists());
    assert!(runs.join(LATER).join("note").exists());
    assert_eq!(fs::read_to_string(&model).unwrap(), "other weights");
    assert_eq!(
        fs::read_link(runs.join("current")).unwrap(),
        Path::new("20250101_000000")
    );
    // A `current` that leads nowhere is replaced, and so is a partial that has only what a submission makes.
    fs::remove_dir(runs.join("20250101_000000")).unwrap();
    fs::remove_file(&model).unwrap();
    recovered(&workspace, &["xp", RUN]);
    assert_eq!(
        fs::read_link(runs.join("current")).unwrap(),
        Path::new(LATER)
    );
    assert_eq!(fs::read_to_string(&model).unwrap(), "weights");
}

#[test]
fn a_damaged_copy_is_refused() {
    let workspace = archived();
    let copy = workspace.folder("backup").join("experiments/xp").join(RUN);
    write(&copy.join("environment.json"), "damaged");
    let runs = workspace.primary().join("experiments/xp");
    fs::remove_dir_all(runs.join(RUN)).unwrap();
    let output = recover(&workspace, &["xp", RUN]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success() && said.contains("environment.json"),
        "{said}"
    );
    let names: Vec<_> = fs::read_dir(&runs)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert!(
        names
            .iter()
            .all(|name| !name.to_str().unwrap().starts_with(".tmp.")),
        "{names:?}"
    );
    assert!(!runs.join(RUN).exists());
    let verify = || {
        let output = workspace
            .xpmfs()
            .args(["jobs", "verify", "-w", "test", "--all"])
            .output();
        let output = output.unwrap();
        (
            output.status.success(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    let (succeeded, said) = verify();
    assert!(
        !succeeded && said.contains("2 runs and partials OK, 1 not OK"),
        "{said}"
    );
    assert!(
        said.contains("environment.json") && said.contains("xpmfs archive"),
        "{said}"
    );
    let damaged = || {
        let printed = workspace.xpmfs().args(["--json", "status"]).output();
        let status: Value = serde_json::from_slice(&printed.unwrap().stdout).unwrap();
        status["workspaces"][0]["damaged"].clone()
    };
    let found = damaged();
    assert_eq!(found[0]["item"], format!("xp/{RUN}"), "{found}");
    assert_eq!(found[0]["job"], Value::Null, "{found}");
    let finding = found[0]["finding"].as_str().unwrap();
    assert!(finding.contains("environment.json"), "{found}");
    let text = run(workspace.xpmfs().arg("status"));
    assert!(text.contains("1 copy is damaged or missing"), "{text}");
    assert!(text.contains("environment.json"), "{text}");
    recovered(&workspace, &["xp", RUN, "--force"]);
    assert!(runs.join(RUN).exists());
    // What `verify` says.
    fs::remove_dir_all(&copy).unwrap();
    let (succeeded, said) = verify();
    assert!(!succeeded && said.contains("the copy is gone"), "{said}");
    assert_eq!(damaged()[0]["finding"], "the copy is gone");
    archive(&workspace);
    assert_eq!(damaged(), serde_json::json!([]));
    let (succeeded, said) = verify();
    assert!(
        succeeded && said.contains("3 runs and partials OK"),
        "{said}"
    );
    // A damaged copy that is removed with its manifest is not listed any more.
    write(&copy.join("environment.json"), "damaged again");
    verify();
    assert_eq!(damaged().as_array().unwrap().len(), 1);
    let manifests = workspace.folder("backup").join(".xpmfs/experiments/xp");
    fs::remove_dir_all(&copy).unwrap();
    fs::remove_file(manifests.join(format!("{RUN}.json"))).unwrap();
    assert!(verify().0);
    assert_eq!(damaged(), serde_json::json!([]));
}

#[test]
fn a_run_whose_jobs_cannot_be_read_is_reported_with_its_path() {
    let workspace = workspace();
    job(&workspace, "0a", "1f");
    let path = finished(&workspace, RUN, &["0a"]);
    write(&path.join("jobs.jsonl"), "damaged\n");
    crate::scene::settle(&path);
    let output = crate::scene::archives(&workspace);
    let said = String::from_utf8_lossy(&output.stderr);
    let expected = format!("cannot parse {}", path.join("jobs.jsonl").display());
    assert!(
        !output.status.success() && said.contains(&expected),
        "{said}"
    );
    // The run itself is archived.
    assert!(
        workspace
            .folder("backup")
            .join("experiments/xp")
            .join(RUN)
            .exists()
    );
}

#[test]
fn what_no_folder_has_is_an_error() {
    let workspace = archived();
    for (arguments, expected) in [
        (&["other"][..], "no `backup` folder has a run of other"),
        (
            &["xp", "20000101_000000"],
            "no `backup` folder has a run of xp 20000101_000000",
        ),
        (&[], "--all"),
    ] {
        let output = recover(&workspace, arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            !output.status.success() && said.contains(expected),
            "{said}"
        );
    }
}

#[test]
fn listings_show_where_runs_lie() {
    let workspace = archived();
    let folder = format!("backup:{}", workspace.folder("backup").display());
    fs::remove_dir_all(workspace.primary().join("experiments/xp").join(RUN)).unwrap();
    fs::create_dir_all(workspace.primary().join("xp/old/jobs")).unwrap();
    let json = |arguments: &[&str]| -> Vec<Value> {
        let printed = run(workspace
            .xpmfs()
            .args(["--json", "experiments"])
            .args(arguments)
            .args(["-w", "test"]));
        serde_json::from_str(&printed).unwrap()
    };
    let listed = json(&["list"]);
    assert_eq!(listed.len(), 2);
    assert_eq!(
        (&listed[0]["experiment"], &listed[0]["layout"]),
        (&"old".into(), &"v1".into())
    );
    assert_eq!(
        (&listed[1]["runs"], &listed[1]["current"]),
        (&2.into(), &LATER.into())
    );
    assert_eq!(
        listed[1]["locations"],
        serde_json::json!(["primary", folder])
    );
    let runs = json(&["runs", "xp"]);
    assert_eq!(runs[0]["run"], RUN);
    assert_eq!(runs[0]["locations"], serde_json::json!([folder]));
    assert_eq!(
        (&runs[1]["current"], &runs[1]["state"]),
        (&true.into(), &"done".into())
    );
    assert_eq!(runs[1]["locations"], serde_json::json!(["primary", folder]));
    assert_eq!(runs[1]["jobs"], 1);
    let shown = run(workspace
        .xpmfs()
        .args(["experiments", "runs", "-w", "test"]));
    assert!(
        shown
            .lines()
            .any(|line| line.contains(LATER) && line.contains("yes")),
        "{shown}"
    );
}
