//! Selection against experimaestro's `find_workspace`.

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};
use xpmfs::settings::{Environment, Selection, Settings};

use crate::oracle::{Home, Oracle};

const FILES: &[&str] = &[
    "{}",
    "workspaces: []",
    "workspaces:\n\
     - {id: far, path: ~/far, ssh: {host: h}, triggers: ['*']}\n\
     - {id: a, path: ~/link, triggers: ['a-*', 'both*']}\n\
     - {id: b, path: ~/work, triggers: ['both-?', 'x[!y]z', '']}\n\
     - {id: a, path: ~/real/deep, triggers: ['second*']}\n\
     - {id: near, path: ~/near, ssh: {host: ''}, triggers: ['n/*']}\n",
    "workspaces: [{id: far, path: ~/far, ssh: {host: h}, triggers: ['*']}]",
    "workspaces: [{id: '', path: ~/work}]",
    "workspaces: [{id: a}]",
];

fn grid() -> Vec<(
    Option<&'static str>,
    Option<&'static str>,
    Option<&'static str>,
)> {
    let mut out = Vec::new();
    for workspace in [
        None,
        Some(""),
        Some("a"),
        Some("b"),
        Some("far"),
        Some("near"),
        Some("A"),
        Some("none"),
    ] {
        for workdir in [
            None,
            Some(""),
            Some("link"),
            Some("~/link/deep"),
            Some("/somewhere/./else/"),
            Some("loop-a"),
            Some("~no-such-user"),
        ] {
            for experiment in [
                None,
                Some(""),
                Some("a-1"),
                Some("both-1"),
                Some("second"),
                Some("xaz"),
                Some("xyz"),
                Some("n/1"),
                Some("other"),
                Some("A-1"),
            ] {
                out.push((workspace, workdir, experiment));
            }
        }
    }
    out
}

/// Ours, for one point of the grid: id, path and whether it is remote; nothing if refused.
fn ours(
    settings: Option<&Settings>,
    environment: &Environment,
    point: (Option<&str>, Option<&str>, Option<&str>),
) -> Option<Value> {
    let (workspace, workdir, experiment) = point;
    let selection = Selection {
        workspace: workspace.map(str::to_owned),
        workdir: workdir.map(PathBuf::from),
        experiment: experiment.map(str::to_owned),
    };
    // experimaestro does not read the settings for `--workdir` alone; a file that is refused is refused here.
    let chosen = settings?.select_in(&selection, environment).ok()?;
    Some(json!({"id": chosen.id, "path": chosen.path, "remote": chosen.is_remote()}))
}

#[test]
fn the_workspace_chosen_is_the_one_experimaestro_chooses() {
    let Some(mut oracle) = Oracle::start() else {
        return;
    };
    let home = Home::new();
    let environment = home.environment();
    for text in FILES {
        fs::write(home.file(), text).unwrap();
        let settings = Settings::load_in(None, &environment).ok();
        let points = grid();
        let questions: Vec<Value> = points
            .iter()
            .map(|(w, d, x)| json!({"workspace": w, "workdir": d, "experiment": x}))
            .collect();
        let answers = oracle.ask(&home.question(json!({ "select": questions })));
        for (point, answer) in points.into_iter().zip(answers.as_array().unwrap()) {
            let (workspace, workdir, _) = point;
            let ours = ours(settings.as_ref(), &environment, point);
            let theirs = answer.get("ok").cloned();
            let by_id = workspace.is_some_and(|id| !id.is_empty());
            let given = workdir.is_some_and(|dir| !dir.is_empty());
            match (ours, theirs) {
                // We resolve a directory that replaces a workspace's own; experimaestro takes it as it is written.
                (ours, Some(theirs)) if given && by_id => {
                    let written = xpmfs_path(workdir.unwrap());
                    assert_eq!(theirs["path"], json!(written), "{text} {point:?}");
                    match ours {
                        Some(ours) => {
                            assert_eq!(
                                (&ours["id"], &ours["remote"]),
                                (&theirs["id"], &theirs["remote"]),
                                "{text} {point:?}"
                            );
                            if ours["remote"] == json!(true) {
                                assert_eq!(ours["path"], json!(written), "{text} {point:?}");
                            }
                        }
                        None => assert!(
                            ["loop-a", "~no-such-user"].contains(&workdir.unwrap()),
                            "{text} {point:?}"
                        ),
                    }
                }
                // We know the workspace that is there; experimaestro does not look.
                (Some(ours), Some(theirs)) if given => {
                    assert_eq!(
                        (&ours["path"], json!("")),
                        (&theirs["path"], theirs["id"].clone()),
                        "{text} {point:?}"
                    );
                }
                (None, Some(_)) if given => assert!(settings.is_none(), "{text} {point:?}"),
                (ours, theirs) => assert_eq!(ours, theirs, "{text} {point:?}: {answer}"),
            }
        }
    }
}

/// `str(Path(text))` for the directories of the grid.
fn xpmfs_path(text: &str) -> &str {
    if text == "/somewhere/./else/" {
        "/somewhere/else"
    } else {
        text
    }
}

#[test]
fn a_directory_that_the_settings_know_comes_with_its_folders() {
    let home = Home::new();
    let environment = home.environment();
    fs::write(
        home.file(),
        "workspaces: [{id: a, path: ~/real, folders: [{path: /f, mode: backup}]}]",
    )
    .unwrap();
    let settings = Settings::load_in(None, &environment).unwrap();
    let select = |workdir: &str| {
        let selection = Selection {
            workdir: Some(workdir.into()),
            ..Selection::default()
        };
        settings.select_in(&selection, &environment).unwrap()
    };
    let known = select("link");
    assert_eq!((known.id.as_str(), known.folders.len()), ("a", 1));
    let unknown = select("work");
    assert_eq!(
        (unknown.id.as_str(), unknown.folders.len(), unknown.path),
        ("", 0, home.path().canonicalize().unwrap().join("work"))
    );
}

#[test]
fn errors_of_the_selection_name_the_choices() {
    let home = Home::new();
    let environment = home.environment();
    fs::write(
        home.file(),
        "workspaces: [{id: nlp, path: /n}, {id: vision, path: /v}]",
    )
    .unwrap();
    let message = |id: &str| {
        let settings = Settings::load_in(None, &environment).unwrap();
        let selection = Selection {
            workspace: Some(id.into()),
            ..Selection::default()
        };
        settings
            .select_in(&selection, &environment)
            .unwrap_err()
            .to_string()
    };
    assert!(
        message("vison").contains("did you mean `vision`?"),
        "{}",
        message("vison")
    );
    assert!(
        message("zzz").contains("(known: nlp, vision)"),
        "{}",
        message("zzz")
    );
    fs::remove_file(home.file()).unwrap();
    assert!(
        message("nlp").contains("does not exist"),
        "{}",
        message("nlp")
    );
    let none = Settings::load_in(None, &environment).unwrap();
    let none = none
        .select_in(&Selection::default(), &environment)
        .unwrap_err()
        .to_string();
    assert!(none.contains("give --workdir PATH"), "{none}");
}
