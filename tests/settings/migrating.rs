//! `settings migrate`: the text that it writes.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use xpmfs::settings::{Environment, Settings, migration};

use crate::commands::run;
use crate::loading::corpus;
use crate::oracle::Home;

fn migrated(home: &Home, text: &str) -> (String, Vec<String>) {
    let file = home.path().join("migrated.yaml");
    fs::write(&file, text).unwrap();
    let migration = migration(&file, &home.environment()).unwrap();
    let left = migration.left.into_iter().map(|finding| finding.message);
    (migration.after, left.collect())
}

/// What is written before, and after.
const CASES: &[(&str, &str)] = &[
    // Without `folders`, the key is renamed in its place.
    (
        "# top\nworkspaces:\n- id: nlp  # first\n  path: ~/real\n  # look here\n  alt_workspaces:  # two\n  - old   # the old one\n\n  # and this\n  - '/data/it''s'\n  triggers: [a]\n- {id: old, path: \"~/gone\"}\n",
        "# top\nworkspaces:\n- id: nlp  # first\n  path: ~/real\n  # look here\n  folders:  # two\n  - {path: ~/gone, mode: use}   # the old one\n\n  # and this\n  - {path: '/data/it''s', mode: use}\n  triggers: [a]\n- {id: old, path: \"~/gone\"}\n",
    ),
    (
        "workspaces: [{id: a, path: /a, alt_workspaces: [b, '/x, y'], max_retries: 1}, {id: b, path: /b}]",
        "workspaces: [{id: a, path: /a, folders: [{path: /b, mode: use}, {path: '/x, y', mode: use}], max_retries: 1}, {id: b, path: /b}]",
    ),
    // With `folders` in lines, after and before; what is behind an item moves along.
    (
        "workspaces:\n  - id: a\n    path: /a\n    alt_workspaces: # why\n      # one\n      - /b  # two\n      - /c\n    folders: # three\n      # four\n      - path: /d\n        mode: backup # five\n",
        "workspaces:\n  - id: a\n    path: /a\n    # why\n    # one\n    folders: # three\n      - {path: /b, mode: use}  # two\n      - {path: /c, mode: use}\n      # four\n      - path: /d\n        mode: backup # five\n",
    ),
    (
        "workspaces:\n- id: a\n  path: /a\n  folders:\n  - {path: /d, mode: move}\n  alt_workspaces: [/b] # last",
        "workspaces:\n- id: a\n  path: /a\n  folders:\n  - {path: /b, mode: use}\n  - {path: /d, mode: move}\n  # last\n",
    ),
    // With `folders` in brackets.
    (
        "workspaces:\n- id: a\n  path: /a\n  alt_workspaces:\n  - /b # x\n  folders: [{path: /d}]\n  env: {}\n",
        "workspaces:\n- id: a\n  path: /a\n  # x\n  folders: [{path: /b, mode: use}, {path: /d}]\n  env: {}\n",
    ),
    (
        "workspaces: [{id: a, path: /a, folders: [], alt_workspaces: [/b]}]",
        "workspaces: [{id: a, path: /a, folders: [{path: /b, mode: use}]}]",
    ),
    // Nothing is in it.
    (
        "workspaces:\n- id: a\n  alt_workspaces: [] # none\n  path: /a\n",
        "workspaces:\n- id: a\n  # none\n  path: /a\n",
    ),
    (
        "workspaces:\n- alt_workspaces: []\n  id: a\n  path: /a\n",
        "workspaces:\n- id: a\n  path: /a\n",
    ),
    (
        "workspaces: [{alt_workspaces: [], id: a, path: /a}]",
        "workspaces: [{id: a, path: /a}]",
    ),
    // The first key of an item; variables; quoted keys; line ends; a mark.
    (
        "workspaces:\n- alt_workspaces: [/b]\n  id: a\n  path: /a\n  folders:\n  - path: /c\n",
        "workspaces:\n- id: a\n  path: /a\n  folders:\n  - {path: /b, mode: use}\n  - path: /c\n",
    ),
    (
        "workspaces:\n- {id: a, path: /a, \"alt_workspaces\": ['${env:XPM_PATH}/x', \"${env:XPM_PORT}\"]}\n- {id: '4321', path: '${env:XPM_PATH}'}\n",
        "workspaces:\n- {id: a, path: /a, folders: [{path: '${env:XPM_PATH}/x', mode: use}, {path: '${env:XPM_PATH}', mode: use}]}\n- {id: '4321', path: '${env:XPM_PATH}'}\n",
    ),
    (
        "\u{feff}workspaces:\r\n- id: é\r\n  path: /a\r\n  alt_workspaces:\r\n  - /b # ü\r\n  folders:\r\n  - path: /c\r\n",
        "\u{feff}workspaces:\r\n- id: é\r\n  path: /a\r\n  folders:\r\n  - {path: /b, mode: use}  # ü\r\n  - path: /c\r\n",
    ),
    // Several workspaces; an anchor elsewhere.
    (
        "x: &x [/b]\nworkspaces:\n- &a {id: a, path: /a, alt_workspaces: [/b]}\n- id: b\n  path: /b\n  alt_workspaces:\n    - a\n",
        "x: &x [/b]\nworkspaces:\n- &a {id: a, path: /a, folders: [{path: /b, mode: use}]}\n- id: b\n  path: /b\n  folders:\n    - {path: /a, mode: use}\n",
    ),
];

#[test]
fn alternatives_become_folders_and_everything_else_stays() {
    let home = Home::new();
    for (before, after) in CASES {
        let (text, left) = migrated(&home, before);
        assert_eq!(&text, after, "{before}\n{left:?}");
        assert_eq!(left, [""; 0], "{before}");
        assert_eq!(migrated(&home, &text), (text.clone(), Vec::new()));
    }
}

#[test]
fn what_is_written_in_an_unusual_way_is_left_and_named() {
    let home = Home::new();
    for text in [
        "x: &x [/b]\nworkspaces:\n- {id: a, path: /a, alt_workspaces: *x}\n",
        "x: &x /b\nworkspaces:\n- {id: a, path: /a, alt_workspaces: [*x]}\n",
        "workspaces:\n- {id: a, path: /a, alt_workspaces: &x [/b]}\n",
        "workspaces:\n- {id: a, path: /a, alt_workspaces: [!!str /b]}\n",
        "workspaces:\n- {id: a, path: /a, alt_workspaces: !!set {/b}}\n",
        "x: &x {alt_workspaces: [/b]}\nworkspaces:\n- {id: a, path: /a, <<: *x}\n",
        "x: &x {folders: [{path: /c}]}\nworkspaces:\n- {id: a, path: /a, alt_workspaces: [/b], <<: *x}\n",
        "workspaces:\n- {id: a, path: /a, alt_workspaces: [/b], alt_workspaces: [/c]}\n",
        "workspaces:\n- {id: a, path: /a, alt_workspaces: [/b], folders: &f [{path: /c}]}\n",
        "workspaces:\n- id: a\n  path: /a\n  alt_workspaces:\n  - >\n    /b\n",
        "workspaces:\n- {id: a, path: /a, folders: [], alt_workspaces: [/b # why\n  ]}\n",
        "workspaces:\n- alt_workspaces: [] # why\n  id: a\n  path: /a\n",
        // The second has no folders of its own, and would get those of the first.
        "workspaces:\n- &a {id: a, path: /a, alt_workspaces: [/b]}\n- {<<: *a, id: b, path: /c, alt_workspaces: []}\n",
    ] {
        let (after, left) = migrated(&home, text);
        assert_eq!(after, text);
        assert!(
            !left.is_empty() && left[0].contains("by hand"),
            "{text}{left:?}"
        );
    }
}

#[test]
fn no_comment_of_the_corpus_is_lost_and_no_folder_changes() {
    let home = Home::new();
    let environment: Environment = home.environment();
    let (mut with, mut rewritten) = (0, 0);
    for file in corpus() {
        let Ok(before) = Settings::load_in(Some(&file), &environment) else {
            continue;
        };
        let migration = migration(&file, &environment).unwrap();
        let copy = home.path().join("copy.yaml");
        fs::write(&copy, &migration.after).unwrap();
        let after = Settings::load_in(Some(&copy), &environment).unwrap();
        let name = file.display();
        for (before_one, after_one) in before.workspaces.iter().zip(&after.workspaces) {
            assert_eq!(
                before.folders_in(before_one, &environment),
                after.folders_in(after_one, &environment),
                "{name}"
            );
            with += usize::from(!before_one.alt_workspaces.is_empty());
            rewritten += usize::from(before_one.alt_workspaces != after_one.alt_workspaces);
        }
        let comments = |text: &str| text.matches(" #").count();
        assert_eq!(
            comments(&migration.before),
            comments(&migration.after),
            "{name}"
        );
    }
    assert!(rewritten >= 1 && rewritten <= with, "{rewritten} of {with}");
}

#[test]
fn a_file_is_only_changed_with_yes_and_stays_the_symlink_that_it_is() {
    let home = Home::new();
    let real = home.path().join("real/settings.yaml");
    let text = "workspaces: [{id: a, path: ~/work, alt_workspaces: [/b]}]\n";
    fs::write(&real, text).unwrap();
    fs::set_permissions(&real, fs::Permissions::from_mode(0o640)).unwrap();
    symlink(&real, home.file()).unwrap();
    let (status, out, err) = run(&home, &["settings", "migrate"]);
    assert_eq!(
        (status, fs::read_to_string(&real).unwrap().as_str()),
        (0, text)
    );
    assert!(
        out.contains("\n-workspaces: [{id: a, path: ~/work, alt_workspaces: [/b]}]\n+workspaces:"),
        "{out}"
    );
    assert!(err.contains("rewrite the folders of a; add --yes"), "{err}");
    let (status, out, _) = run(&home, &["settings", "migrate", "--yes"]);
    let after = "workspaces: [{id: a, path: ~/work, folders: [{path: /b, mode: use}]}]\n";
    assert_eq!((status, out.as_str()), (0, ""));
    assert_eq!(fs::read_to_string(&real).unwrap(), after);
    assert_eq!(
        fs::metadata(&real).unwrap().permissions().mode() & 0o777,
        0o640
    );
    assert!(home.file().is_symlink());
    assert_eq!(names(&home.path().join("real")), ["deep", "settings.yaml"]);
    let (status, out, err) = run(&home, &["settings", "migrate", "--yes"]);
    assert_eq!((status, out.as_str()), (0, ""));
    assert!(err.contains("nothing to do"), "{err}");
    fs::write(
        &real,
        "x: &x [/b]\nworkspaces: [{id: a, path: ~/work, alt_workspaces: *x}]\n",
    )
    .unwrap();
    let (status, _, err) = run(&home, &["settings", "migrate", "real"]);
    assert!(status == 1 && err.contains("not a regular file"), "{err}");
    let (status, _, err) = run(&home, &["settings", "migrate", "--yes"]);
    assert_eq!(status, 1);
    assert!(
        err.contains("settings.yaml:2:36: warning: the workspace `a` must be rewritten by hand"),
        "{err}"
    );
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}
