//! `xpmfs settings` and `xpmfs workspaces`, as they are typed.

use std::fs;

use assert_cmd::Command;
use serde_json::{Value, json};

use crate::oracle::Home;

fn xpmfs(home: &Home) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_xpmfs"));
    command
        .env_clear()
        .env("HOME", home.path())
        .current_dir(home.path());
    command
}

/// Status, standard output and standard error; the home's path as `~`.
pub(crate) fn run(home: &Home, args: &[&str]) -> (i32, String, String) {
    run_in(home, args, &[])
}

/// [`run`] with more variables.
pub(crate) fn run_in(home: &Home, args: &[&str], vars: &[(&str, &str)]) -> (i32, String, String) {
    let mut command = xpmfs(home);
    command.envs(vars.iter().copied());
    let output = command.args(args).output().unwrap();
    let text = |bytes: Vec<u8>| {
        let real = home.path().canonicalize().unwrap();
        String::from_utf8(bytes)
            .unwrap()
            .replace(real.to_str().unwrap(), "~")
            .replace(home.path().to_str().unwrap(), "~")
    };
    (
        output.status.code().unwrap(),
        text(output.stdout),
        text(output.stderr),
    )
}

#[test]
fn check_prints_place_message_and_advice_and_fails_on_errors_alone() {
    let home = Home::new();
    fs::write(home.file(), "server:\n  prot: 1\n  port: x\n").unwrap();
    let file = "~/.config/experimaestro/settings.yaml";
    let (status, out, err) = run(&home, &["settings", "check"]);
    assert_eq!(status, 1);
    assert_eq!(
        out,
        format!(
            "{file}:2:3: warning: unknown key `prot` in server: it is ignored\n    did you mean `port`?\n\
             {file}:3:9: error: `port` must be an integer, and this is the string `x`\n    write for example `port: 3`\n"
        )
    );
    assert_eq!(err, format!("{file}: 1 error, 1 warning\n"));

    fs::write(home.path().join("other.yaml"), "sever: 1\n").unwrap();
    let (status, out, err) = run(&home, &["settings", "check", "other.yaml"]);
    assert_eq!((status, err.as_str()), (0, "other.yaml: 1 warning\n"));
    assert!(out.starts_with("other.yaml:1:1: warning: "), "{out}");

    let (status, out, _) = run(&home, &["--json", "settings", "check"]);
    let findings: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((status, findings.as_array().unwrap().len()), (1, 2));
    assert_eq!(
        (&findings[1]["line"], &findings[1]["severity"]),
        (&json!(3), &json!("error"))
    );

    fs::write(home.file(), "{}").unwrap();
    assert_eq!(
        run(&home, &["settings", "check"]),
        (0, String::new(), format!("{file}: no mistakes\n"))
    );
    assert_eq!(
        run(&home, &["-q", "settings", "check"]),
        (0, String::new(), String::new())
    );
}

#[test]
fn check_of_no_file_is_an_error_that_names_it() {
    let home = Home::new();
    let (status, out, err) = run(&home, &["settings", "check"]);
    assert_eq!((status, out.as_str()), (1, ""));
    assert!(
        err.contains("~/.config/experimaestro/settings.yaml: there is no such file; create it"),
        "{err}"
    );
    assert_eq!(err.matches("no such file").count(), 1, "{err}");
}

#[test]
fn a_file_that_is_no_text_is_named_with_its_line_once() {
    let home = Home::new();
    fs::write(home.file(), b"env: {}\nserver: {}\n\xff\n").unwrap();
    for command in [&["settings", "check"][..], &["workspaces", "list"]] {
        let (status, out, err) = run(&home, command);
        assert_eq!((status, out.as_str()), (1, ""));
        assert!(err.contains("line 3 is not UTF-8"), "{err}");
        assert_eq!(err.matches("UTF-8 text").count(), 1, "{err}");
    }
}

#[test]
fn path_prints_where_the_file_is_or_would_be() {
    let home = Home::new();
    let file = "~/.config/experimaestro/settings.yaml\n";
    let (status, out, err) = run(&home, &["settings", "path"]);
    assert_eq!((status, out.as_str()), (1, file));
    assert!(err.contains("create it"), "{err}");
    fs::write(home.file(), "{}").unwrap();
    assert_eq!(
        run(&home, &["settings", "path"]),
        (0, file.to_owned(), String::new())
    );
    assert_eq!(
        run(&home, &["--settings", "a-file", "settings", "path"]).1,
        "a-file\n"
    );
    for arguments in [
        &["settings", "path", "--json"][..],
        &["--json", "settings", "path"],
    ] {
        let (status, out, _) = run(&home, arguments);
        let printed: Value = serde_json::from_str(&out).unwrap();
        assert_eq!(status, 0);
        assert_eq!(printed, json!({"path": file.trim_end(), "exists": true}));
    }
}

#[test]
fn workspaces_are_listed_in_short_in_full_and_as_json() {
    let home = Home::new();
    fs::write(
        home.file(),
        "workspaces:\n- {id: nlp, path: ~/real, triggers: ['n*'], env: {KEY: secret}, alt_workspaces: [old],\n   folders: [{path: ~/work, mode: backup}, {path: ~/gone, mode: move}]}\n\
         - {id: old, path: ~/gone-too}\n- {id: far, path: ~/x, ssh: {host: me@cluster}}\n",
    )
    .unwrap();
    let (status, out, err) = run(&home, &["workspaces", "list"]);
    assert_eq!((status, err.as_str()), (0, ""));
    let lines: Vec<Vec<&str>> = out
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(
        lines,
        [
            vec!["ID", "PATH", "FOLDERS"],
            vec!["nlp", "~/real", "1", "use,", "1", "backup,", "1", "move"],
            vec!["old", "~/gone-too"],
            vec!["far", "me@cluster:~/x"],
        ]
    );
    let (_, out, _) = run(&home, &["workspaces", "list", "-v"]);
    for line in [
        "- nlp: ~/real\n",
        "\n- path: ~/work\n",
        "\n- path: ~/gone  # missing\n",
        "\n- old: ~/gone-too  # missing\n",
        "\n- far: ~/x [remote: me@cluster]\n",
        "\nalt_workspaces:\n- old\n",
    ] {
        assert!(out.contains(line), "{line}{out}");
    }
    let (_, out, _) = run(&home, &["--json", "workspaces", "list"]);
    assert!(!out.contains("secret"), "{out}");
    let listed: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(
        (
            &listed[0]["exists"],
            &listed[1]["exists"],
            &listed[2]["exists"]
        ),
        (&json!(true), &json!(false), &Value::Null)
    );
    assert_eq!(
        listed[0]["folders"][0],
        json!({"path": "~/gone-too", "mode": "use", "exclude": [], "exists": false})
    );
    assert_eq!(
        (&listed[2]["remote"], &listed[2]["ssh"]["host"]),
        (&json!(true), &json!("me@cluster"))
    );
}

#[test]
fn settings_that_cannot_be_used_stop_every_command_with_their_first_mistake() {
    let home = Home::new();
    fs::write(home.file(), "server: {port: x}\nworkspaces: 5\n").unwrap();
    let (status, out, err) = run(&home, &["workspaces", "list"]);
    assert_eq!((status, out.as_str()), (1, ""));
    assert!(
        err.contains("settings.yaml:1:16: `port` must be an integer") && err.contains("and 1 more"),
        "{err}"
    );
    fs::remove_file(home.file()).unwrap();
    let (status, out, err) = run(&home, &["workspaces", "list"]);
    assert_eq!((status, out.as_str()), (0, ""));
    assert!(err.contains("does not exist"), "{err}");
}
