//! `settings show` and `workspaces list -v`, against experimaestro.

use std::fs;
use std::path::Path;
use std::process::Command;

use regex::{Captures, Regex};
use serde_json::{Value, json};
use xpmfs::settings::Settings;

use crate::commands::run;
use crate::loading::corpus;
use crate::oracle::{Home, Oracle, python};

/// The settings in effect, used as a settings file, are the same settings: for experimaestro, and here.
#[test]
fn the_settings_in_effect_are_settings_with_the_same_values() {
    let Some(mut oracle) = Oracle::start() else {
        return;
    };
    let home = Home::new();
    let shown = home.path().join("shown.yaml");
    let bare = home.without_variables();
    let mut count = 0;
    for file in corpus() {
        let Ok(settings) = Settings::load_in(Some(&file), &home.environment()) else {
            continue;
        };
        let name = file.display();
        let entry = xpmfs::settings::effective(&settings, &home.environment(), None, true).unwrap();
        let text = entry.to_yaml();
        fs::write(&shown, &text).unwrap();
        // Variables are replaced once: a value with `${env:…}` in it stays.
        let again = Settings::load_in(Some(&shown), &bare.environment());
        let again = again.unwrap_or_else(|error| panic!("{name}: {error}\n{text}"));
        let plain = |settings: &Settings, home: &Home| {
            let mut value = serde_json::to_value(settings).unwrap();
            value["file"].take();
            value["server"]["token"] = json!(settings.server.token);
            // Defaults are written out.
            value["xpmfs"] = tuning(&settings.xpmfs);
            for (index, workspace) in settings.workspaces.iter().enumerate() {
                let shown = &mut value["workspaces"][index];
                let folders = settings.folders_in(workspace, &home.environment());
                shown["folders"] = json!(folders);
                shown["alt_workspaces"].take();
                shown["raw_path"].take();
                shown["xpmfs"] = tuning(&settings.tuning_of(workspace));
            }
            value
        };
        assert_eq!(
            plain(&again, &bare),
            plain(&settings, &home),
            "{name}\n{text}"
        );
        if !file
            .file_name()
            .unwrap()
            .to_string_lossy()
            .starts_with("good-")
        {
            continue;
        }
        let mut ask = |question: &str, file: &Path| {
            let home = if file == shown { &bare } else { &home };
            oracle.ask(&home.question(json!({ question: file })))["ok"].take()
        };
        assert_eq!(
            ask("folders", &shown),
            ask("folders", &file),
            "{name}\n{text}"
        );
        let plain = |mut value: Value| {
            for workspace in value["workspaces"].as_array_mut().unwrap() {
                for key in ["alt_workspaces", "folders", "raw_path"] {
                    workspace[key].take();
                }
            }
            value
        };
        assert_eq!(
            plain(ask("load", &shown)),
            plain(ask("load", &file)),
            "{name}\n{text}"
        );
        count += 1;
    }
    assert!(count >= 20, "{count}");
}

fn tuning(tuning: &xpmfs::settings::Tuning) -> Value {
    json!([
        tuning.settle(),
        tuning.scan_interval(),
        tuning.exclude.clone().unwrap_or_default(),
        tuning.release,
        tuning.bandwidth.unwrap_or(0),
        tuning.recover_on(),
        tuning.folder_timeout(),
        tuning.trash(),
    ])
}

const SETTINGS: &str = "\
server: {token: sesame, port: 012}
env:
  TOKEN: ${env:XPM_PORT}
workspaces:
- id: nlp
  path: ~/link/deep
  alt_workspaces: [old]
  folders:
  - {path: ~/work, mode: backup, exclude: ['debug.*']}
  - {path: '${env:XPM_PATH}', mode: move}
  xpmfs: {settle: 1h30m, bandwidth: 100M}
- {id: old, path: ~/gone, env: {N: 012}, triggers: ['n*', 'yes', '12'], ssh: null}
- {id: far, path: ~/x, ssh: {host: me@cluster, options: [-o, 'yes']}, lock_mode: '0664'}
xpmfs:
  trash: 36h
  release: {keep_free: 10%}
";

#[test]
fn each_value_is_shown_with_the_line_that_it_is_from() {
    let home = Home::new();
    fs::write(home.file(), SETTINGS).unwrap();
    let (status, out, err) = run_with_variables(&home, &["settings", "show"]);
    assert_eq!((status, err.as_str()), (0, ""));
    for line in [
        "# ~/.config/experimaestro/settings.yaml",
        "  port: 10 # line 1",
        "  token: '********' # line 1, shown with --secrets",
        "  host: null # default",
        "  path: ~/real/deep # line 6: ~/link/deep",
        "  - path: ~/gone # line 7, alt_workspaces: old",
        "    mode: use # line 7, alt_workspaces",
        "  - path: ~/work # line 9: ~/work",
        "    - debug.* # line 9",
        "  - path: /data/from-variable # line 10: ${env:XPM_PATH}",
        "    settle: 90m # line 11: 1h30m",
        "    bandwidth: 100M # line 11",
        "    trash: 36h # line 15, for all workspaces",
        "      keep_free: 10% # line 16, for all workspaces",
        "    scan_interval: 1m # default",
        "  TOKEN: '********' # line 3, shown with --secrets",
        "- id: far # line 13",
        "  path: ~/x # line 13",
        "  lock_mode: '0664' # line 13",
        "  ssh: null # line 12",
    ] {
        let squeezed = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        let indent = |text: &str| text.len() - text.trim_start().len();
        let mut lines = out.lines();
        let found = lines.any(|it| squeezed(it) == squeezed(line) && indent(it) == indent(line));
        assert!(found, "{line}\n{out}");
    }
    assert!(!out.contains("sesame") && !out.contains("4321"), "{out}");
    let (_, out, _) = run_with_variables(&home, &["settings", "show", "--secrets"]);
    assert!(out.contains("sesame") && out.contains("4321"), "{out}");

    let (_, out, _) = run_with_variables(&home, &["settings", "show", "--json"]);
    let json: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(json["settings"]["workspaces"][0]["xpmfs"]["trash"], "36h");
    assert_eq!(json["settings"]["server"]["token"], "********");
    let origins = json["origins"].as_array().unwrap();
    let origin = |key: &str| origins.iter().find(|origin| origin["key"] == key).unwrap();
    assert_eq!(
        *origin("workspaces[0].folders[2].path"),
        json!({"key": "workspaces[0].folders[2].path", "line": 10, "written": "${env:XPM_PATH}", "note": ""})
    );
    assert_eq!(origin("history.max_done")["line"], Value::Null);

    // Of the workspaces, one alone.
    let (status, out, _) = run_with_variables(&home, &["settings", "show", "-w", "old"]);
    assert_eq!(status, 0);
    let ids: Vec<&str> = out
        .lines()
        .filter(|line| line.starts_with("- id: "))
        .collect();
    assert!(ids.len() == 1 && ids[0].starts_with("- id: old "), "{out}");
    assert!(
        out.contains("# line 12") && out.contains("\nxpmfs:"),
        "{out}"
    );
    let arguments = ["settings", "show", "--workspace", "old", "--json"];
    let (_, out, _) = run_with_variables(&home, &arguments);
    let json: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(json["settings"]["workspaces"].as_array().unwrap().len(), 1);
    assert_eq!(json["settings"]["workspaces"][0]["id"], "old");
    let (status, out, err) = run_with_variables(&home, &["settings", "show", "-w", "odl"]);
    assert_eq!((status, out.as_str()), (1, ""));
    assert!(err.contains("odl") && err.contains("old"), "{err}");

    fs::remove_file(home.file()).unwrap();
    let (status, out, err) = run(&home, &["settings", "show"]);
    assert_eq!(status, 0);
    assert!(
        out.contains("workspaces: []") && err.contains("does not exist"),
        "{out}{err}"
    );
}

/// `experimaestro workspaces list -v`, without the Python object that it prints for each mode.
#[test]
fn workspaces_in_full_are_printed_as_by_experimaestro() {
    let Some(python) = python() else { return };
    let home = Home::new();
    fs::create_dir(home.path().join("gone")).unwrap();
    let own = ["exclude", "xpmfs", "trash", "release"];
    let text: String = SETTINGS
        .replace(", exclude: ['debug.*']", "")
        .lines()
        .filter(|line| !own.iter().any(|key| line.trim_start().starts_with(key)))
        .map(|line| format!("{line}\n"))
        .collect();
    fs::write(home.file(), text.replace("${env:XPM_PATH}", "~/real")).unwrap();
    let theirs = Command::new(python)
        .args(["-m", "experimaestro", "workspaces", "list", "-v"])
        .env("HOME", home.path())
        .env("NO_COLOR", "1")
        .output()
        .unwrap();
    let theirs = String::from_utf8(theirs.stdout).unwrap();
    // By the value, or by the name, as the version of Python writes an enum.
    let object = Regex::new(
        r"!!python/object/apply:(experimaestro\.settings\.FolderMode|builtins\.getattr\n +- \S+( !!python/name:\S+ '')?)\n +- (\w+)",
    );
    let theirs = object
        .unwrap()
        .replace_all(&theirs, |found: &Captures<'_>| found[3].to_lowercase());
    assert!(
        theirs.contains("mode: backup") && theirs.contains("mode: move"),
        "{theirs}"
    );
    let home_path = home.path().canonicalize().unwrap();
    let theirs = theirs
        .replace(home_path.to_str().unwrap(), "~")
        .replace(home.path().to_str().unwrap(), "~");
    let (status, ours, err) = run(&home, &["workspaces", "list", "-v"]);
    assert_eq!((status, err.as_str()), (0, ""));
    assert_eq!(ours.trim_end(), theirs.trim_end());
}

fn run_with_variables(home: &Home, args: &[&str]) -> (i32, String, String) {
    let variables = [("XPM_PATH", "/data/from-variable"), ("XPM_PORT", "4321")];
    crate::commands::run_in(home, args, &variables)
}
