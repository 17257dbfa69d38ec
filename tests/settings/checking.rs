//! Each mistake, its place, and its message.

use std::fs;
use std::path::PathBuf;

use Severity::{Error, Warning};
use xpmfs::settings::{Folder, Mode, Severity, Workspace, check, validate_folders};

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
fn unknown_keys_are_found_at_every_level_with_the_nearest_known_one() {
    expect(
        "sever: {}",
        &[(
            1,
            1,
            Warning,
            "unknown key `sever`",
            "did you mean `server`?",
        )],
    );
    expect(
        "env:\n  anything: x\nworkspace: []",
        &[(3, 1, Warning, "`workspace`", "`workspaces`")],
    );
    expect(
        "server:\n  prot: 1",
        &[(2, 3, Warning, "`prot` in server", "`port`")],
    );
    expect(
        "history: {max_don: 1}",
        &[(1, 11, Warning, "`max_don` in history", "`max_done`")],
    );
    expect(
        "carbon: {zzz: 1}",
        &[(
            1,
            10,
            Warning,
            "`zzz` in carbon",
            "the keys here are `enabled`, `provider`",
        )],
    );
    expect(
        &workspace("trigger: [a]"),
        &[(4, 5, Warning, "`trigger` in a workspace", "`triggers`")],
    );
    expect(
        &workspace("ssh: {hots: h}"),
        &[(4, 11, Warning, "`hots` in ssh", "`host`")],
    );
    expect(
        &workspace("folders:\n  - {path: ~/a, mod: use}"),
        &[(5, 21, Warning, "`mod` in a folder", "`mode`")],
    );
    // Only xpmfs reads these.
    expect(
        "xpmfs: {settel: 2s}",
        &[(1, 9, Error, "`settel` in xpmfs", "`settle`")],
    );
    expect(
        &workspace("xpmfs: {release: {keepfree: 1G}}"),
        &[(4, 23, Error, "`keepfree`", "`keep_free`")],
    );
}

#[test]
fn wrong_types_are_found_with_the_remedy() {
    expect(
        "server: {port: http}",
        &[(
            1,
            16,
            Error,
            "`port` must be an integer, and this is the string `http`",
            "`port: 3`",
        )],
    );
    expect(
        "server:",
        &[(1, 7, Error, "server must be a mapping", "remove the line")],
    );
    expect(
        "workspaces:\n# - none",
        &[(
            1,
            11,
            Error,
            "`workspaces` must be a list, and this is nothing",
            "workspaces: []",
        )],
    );
    expect(
        "workspaces: {nlp: x}",
        &[(
            1,
            13,
            Error,
            "must be a list, and this is a mapping",
            "- id:",
        )],
    );
    expect(
        "on: 1",
        &[(
            1,
            1,
            Error,
            "a key must be a string, and this one is a boolean",
            "quotes",
        )],
    );
    expect(
        "env: {A: , B: [], 3: x}",
        &[
            (
                1,
                8,
                Error,
                "`A` must be a string, and this is nothing",
                "A: \"…\"",
            ),
            (1, 15, Error, "`B` must be a string, and this is a list", ""),
            (1, 19, Error, "a name in `env` must be a string", "quotes"),
        ],
    );
    expect(
        "env: [A=b]",
        &[(1, 6, Error, "`env` must be a mapping", "NAME: value")],
    );
    expect(
        "workspaces: [{id: 1, path: /tmp}]",
        &[(
            1,
            19,
            Error,
            "`id` must be a string, and this is the integer `1`",
            "`id: \"1\"`",
        )],
    );
    // As it is written, and not as YAML reads it.
    expect(
        "workspaces: [{id: 007, path: /tmp}]",
        &[(1, 19, Error, "the integer `7`", "`id: \"007\"`")],
    );
    expect(
        "workspaces: [{id: a, path: null}]",
        &[(
            1,
            28,
            Error,
            "`path` must be a path, and this is nothing",
            "`path: /path/to/directory`",
        )],
    );
    for (written, advice) in [
        ("664 # shared", "lock_mode: \"0664\""),
        ("0600", "lock_mode: \"0600\""),
        ("0x1b4", "lock_mode: \"0664\""),
        ("89", "lock_mode: \"0131\""),
    ] {
        expect(
            &workspace(&format!("lock_mode: {written}")),
            &[(4, 16, Error, "`lock_mode` must be a string", advice)],
        );
    }
    expect(
        &workspace("lock_mode: 0664"),
        &[(
            4,
            16,
            Error,
            "`lock_mode` must be a string",
            "lock_mode: \"0664\"",
        )],
    );
    expect(
        &workspace("lock_mode: rw"),
        &[(
            4,
            16,
            Warning,
            "`rw` is not a lock mode",
            "`inherit`, `umask`",
        )],
    );
    expect(
        &workspace("triggers: a*"),
        &[(
            4,
            15,
            Error,
            "`triggers` must be a list, and this is the string `a*`",
            "- \"…\"",
        )],
    );
    expect(
        &workspace("triggers: [a, 5]"),
        &[(4, 19, Error, "`triggers` must hold strings", "quotes")],
    );
    expect(
        &workspace("max_retries: ~"),
        &[(
            4,
            18,
            Error,
            "`max_retries` must be an integer, and this is nothing",
            "remove the line",
        )],
    );
    expect(
        &workspace("ssh: user@host"),
        &[(4, 10, Error, "ssh must be a mapping", "one key a line")],
    );
    expect(
        &workspace("folders: [~/a]"),
        &[(4, 15, Error, "a folder must be a mapping", "")],
    );
    expect(
        &workspace("folders:\n  - {path: ~/a, mode: bakup}"),
        &[(5, 27, Error, "`bakup` is not a mode", "`mode: backup`")],
    );
    expect(
        &workspace("folders:\n  - {path: ~/a, mode: }"),
        &[(5, 25, Error, "`mode` is nothing", "the mode is `use`")],
    );
    // Folders with a wrong mode are not compared with the others.
    for wrong in ["bakup", "whatever", "null"] {
        let lines = format!(
            "folders:\n  - {{path: ~/a, mode: {wrong}}}\n  - {{path: ~/b, mode: backup}}\n  - {{path: ~/b, mode: backup}}"
        );
        expect(
            &workspace(&lines),
            &[
                (5, 27, Error, "", "mode"),
                (7, 16, Warning, "is listed twice", ""),
            ],
        );
    }
    let twice = "folders:\n  - {path: ~/a, mode: bakup}\n  - {path: ~/a, mode: backup}";
    expect(
        &workspace(twice),
        &[
            (5, 27, Error, "`bakup` is not a mode", "`mode: backup`"),
            (6, 16, Warning, "is listed twice", ""),
        ],
    );
    expect(
        "xpmfs: {settle: soon, bandwidth: -1, release: {keep_free: 200%}, exclude: ['[']}",
        &[
            (1, 17, Error, "`settle` must be a duration", "5m"),
            (1, 34, Error, "`bandwidth` must be a size", "100M"),
            (
                1,
                59,
                Error,
                "`keep_free` must be a size or a percentage",
                "100G",
            ),
            (1, 76, Error, "this is not a glob", "my.module.*"),
        ],
    );
}

#[test]
fn recover_on_has_three_values() {
    expect("xpmfs: {recover_on: never}", &[]);
    let finding = |found| {
        let message: &'static str = found;
        [(1, 21, Error, message, "`recover_on: write`")]
    };
    expect(
        "xpmfs: {recover_on: read}",
        &finding("`recover_on` is `read`, and must be `never`, `write` or `open`"),
    );
    let keys = "recover_on: open, release: {keep_free: 10G}";
    expect(&format!("xpmfs: {{{keys}}}"), &[]);
    expect(
        "xpmfs: {recover_on: open}",
        &[(
            1,
            9,
            Warning,
            "reading jobs may fill the disk",
            "`release: {keep_free: 100G}`",
        )],
    );
    expect(
        &workspace("xpmfs: {recover_on: open, release: {older_than: 1d}}"),
        &[(
            4,
            13,
            Warning,
            "reading jobs may fill the disk",
            "keep_free",
        )],
    );
    expect("xpmfs: {recover_on: yes}", &finding("`recover_on` is"));
    expect("xpmfs: {recover_on: 1}", &finding("`recover_on` is"));
}

#[test]
fn limits_of_our_own_keys_are_checked() {
    // 0 is no limit: a workspace can lift that of the top.
    expect("xpmfs: {bandwidth: 0, settle: 0, scan_interval: 10ms}", &[]);
    for short in ["0", "0s", "9ms"] {
        expect(
            &format!("xpmfs: {{scan_interval: {short}}}"),
            &[(
                1,
                24,
                Error,
                "`scan_interval` must be at least 10 ms",
                "`scan_interval: 1m`",
            )],
        );
    }
    expect("xpmfs: {folder_timeout: 100ms}", &[]);
    expect(
        "xpmfs: {folder_timeout: 99ms}",
        &[(
            1,
            25,
            Error,
            "`folder_timeout` must be at least 100 ms",
            "`folder_timeout: 2s`",
        )],
    );
    for long in ["1e19", "10000000000000000000", "400000d"] {
        expect(
            &format!("xpmfs: {{settle: {long}}}"),
            &[(1, 17, Error, "`settle` must be a duration", "5m")],
        );
    }
}

#[test]
fn missing_keys_are_found() {
    expect(
        "workspaces:\n  - id: a\n  - path: ~/ws",
        &[
            (2, 5, Error, "a workspace needs the key `path`", "path: …"),
            (3, 5, Error, "a workspace needs the key `id`", "id: …"),
        ],
    );
    expect(
        &workspace("folders:\n  - mode: use"),
        &[(5, 9, Error, "a folder needs the key `path`", "")],
    );
}

#[test]
fn folders_that_cannot_be_attached_are_found() {
    expect(
        &workspace("folders:\n  - path: ~/ws/inside"),
        &[(5, 15, Error, "is inside the workspace", "out of")],
    );
    expect(
        &workspace("folders:\n  - path: ~/ws/"),
        &[(5, 15, Error, "is the workspace itself", "")],
    );
    expect(
        &workspace("folders:\n  - path: ~"),
        &[(
            5,
            15,
            Error,
            "`path` must be a path, and this is nothing",
            "",
        )],
    );
    expect(
        &workspace("folders:\n  - path: ~/"),
        &[(
            5,
            15,
            Error,
            "is inside the folder",
            "a directory of its own",
        )],
    );
    expect(
        &workspace("folders:\n  - path: ~/a/../ws/inside"),
        &[(5, 15, Error, "is inside the workspace", "")],
    );
    // One directory, by two paths.
    expect(
        &workspace("folders:\n  - path: ~/a\n  - path: ~/a-link"),
        &[(6, 15, Warning, "is listed twice", "remove one")],
    );
    expect(
        &workspace("folders:\n  - {path: ~/a, mode: backup}\n  - {path: ~/a, mode: move}"),
        &[(
            6,
            16,
            Error,
            "is listed as `backup` and as `move`",
            "keep one",
        )],
    );
    expect(
        &workspace("folders:\n  - {path: ~/a, mode: move}\n  - {path: ~/b, mode: move}"),
        &[(
            6,
            16,
            Error,
            "more than one `move` folder",
            "make the others `backup` or `use`",
        )],
    );
}

#[test]
fn folders_and_workspaces_that_are_not_there_are_warnings() {
    expect(
        &workspace("folders:\n  - {path: ~/gone, mode: backup}"),
        &[(5, 16, Warning, "gone does not exist", "mkdir -p")],
    );
    expect(
        &workspace("folders:\n  - path: ~/a-file"),
        &[(5, 15, Warning, "is not a directory", "")],
    );
    expect(
        &workspace("folders:\n  - path: a"),
        &[(
            5,
            15,
            Warning,
            "depends on the current directory",
            "in full",
        )],
    );
    expect(
        &workspace("folders:\n  - path: ~/old/jobs"),
        &[(
            5,
            15,
            Warning,
            "used as the jobs directory itself",
            "holds `jobs`",
        )],
    );
    expect(
        "workspaces: [{id: a, path: ~/gone}]",
        &[(1, 28, Warning, "gone does not exist", "mkdir -p")],
    );
    expect(
        "workspaces: [{id: a, path: ~/a-file}]",
        &[(1, 28, Error, "is not a directory", "")],
    );
    expect(
        "workspaces: [{id: a, path: ~/a-file/below}]",
        &[(1, 28, Error, "is not a directory", "")],
    );
    expect(
        &workspace("folders:\n  - path: ~/a-file/below"),
        &[(5, 15, Warning, "is not a directory", "")],
    );
    expect(
        "workspaces: [{id: a, path: ws}]",
        &[(1, 28, Warning, "depends on the current directory", "")],
    );
    // A remote workspace is not checked against the disk.
    expect(
        "workspaces: [{id: a, path: gone, ssh: {host: h}, folders: [{path: gone}]}]",
        &[],
    );
}

#[test]
fn alt_workspaces_are_deprecated_with_the_replacement() {
    let text = workspace("alt_workspaces: [other, ~/b]") + "  - {id: other, path: ~/a}\n";
    let found = findings(&text);
    assert_eq!(found.len(), 1, "{found:#?}");
    assert_eq!(
        (found[0].line, found[0].column, found[0].severity),
        (4, 5, Warning)
    );
    assert!(
        found[0]
            .advice
            .ends_with("folders:\n  - path: ~/a\n    mode: use\n  - path: ~/b\n    mode: use"),
        "{}",
        found[0].advice
    );
    // They are folders, with all that can be wrong with folders.
    expect(
        &workspace("alt_workspaces: [~/ws/inside]"),
        &[
            (
                4,
                5,
                Warning,
                "`alt_workspaces` is deprecated",
                "~/ws/inside",
            ),
            (4, 22, Error, "is inside the workspace", ""),
        ],
    );
}

#[test]
fn duplicate_ids_triggers_and_paths_are_found() {
    expect(
        "workspaces:\n  - {id: a, path: ~/a}\n  - {id: a, path: ~/b}",
        &[(
            3,
            10,
            Error,
            "two workspaces have the id `a`, the first on line 2",
            "another id",
        )],
    );
    expect(
        "workspaces:\n  - {id: a, path: ~/a}\n  - {id: b, path: ~/a-link}",
        &[(3, 19, Warning, "is also the path of the workspace `a`", "")],
    );
    expect(
        "workspaces:\n  - {id: a, path: ~/a, triggers: [x*, y]}\n  - {id: b, path: ~/b, triggers: [z, x*]}",
        &[(
            3,
            38,
            Warning,
            "the trigger `x*` is already in the workspace `a` on line 2",
            "remove it",
        )],
    );
    expect(
        "workspaces: [{id: a, path: x, triggers: [t], ssh: {host: h}}]",
        &[(1, 42, Warning, "has no effect: remote", "remove")],
    );
    expect(
        "workspaces: [{id: '', path: ~/a}]",
        &[(1, 19, Error, "the id is empty", "")],
    );
    expect(
        "server: {port: 1, port: 2}\nserver: {}",
        &[
            (1, 19, Warning, "the key `port` is here a second time", ""),
            (2, 1, Warning, "the key `server` is here a second time", ""),
        ],
    );
}

#[test]
fn unset_variables_are_found_where_they_are_written() {
    expect(
        "env:\n  A: \"é ${env:NOPE} ${oc.env.NOPE_TOO}\"\n  B: ${env:HOME}",
        &[
            (
                2,
                9,
                Warning,
                "`NOPE` is not set: `${env:NOPE}`",
                "export NOPE=",
            ),
            (2, 21, Warning, "`NOPE_TOO` is not set", ""),
        ],
    );
    expect(
        "workspaces: [{id: a, path: \"${env:NOPE}/x\", folders: [{path: \"${env:NOPE}/y\"}]}]",
        &[
            (1, 29, Warning, "`NOPE` is not set", ""),
            (1, 63, Warning, "`NOPE` is not set", ""),
        ],
    );
}

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
fn folders_are_validated_before_mounting() {
    let home = Home::new();
    for name in ["ws", "a", "b", "ws/inside"] {
        fs::create_dir_all(home.path().join(name)).unwrap();
    }
    let at = |name: &str| home.path().join(name);
    let workspace = Workspace::bare(at("ws").canonicalize().unwrap());
    let validate = |folders: &[(Mode, PathBuf)]| {
        let folders: Vec<Folder> = folders
            .iter()
            .map(|(mode, path)| Folder::new(*mode, path))
            .collect();
        validate_folders(&workspace, &folders).map_err(|error| error.to_string())
    };
    assert_eq!(
        validate(&[(Mode::Use, at("a")), (Mode::Move, at("b"))]),
        Ok(vec![])
    );
    let missing = validate(&[(Mode::Backup, at("gone"))]).unwrap();
    assert!(
        missing.len() == 1 && missing[0].contains("does not exist"),
        "{missing:?}"
    );
    for (folders, reason) in [
        (
            vec![(Mode::Use, at("ws/inside"))],
            "is inside the workspace",
        ),
        (vec![(Mode::Use, at(""))], "is inside the folder"),
        (vec![(Mode::Use, at("ws"))], "is the workspace itself"),
        (
            vec![(Mode::Move, at("a")), (Mode::Move, at("b"))],
            "more than one `move`",
        ),
        (
            vec![(Mode::Use, at("a")), (Mode::Backup, at("a"))],
            "as `use` and as `backup`",
        ),
    ] {
        let error = validate(&folders).expect_err(reason);
        assert!(error.contains(reason), "{error}");
    }
}

#[test]
fn a_folder_may_be_a_jobs_directory_itself() {
    let home = Home::new();
    for name in ["old/jobs/my.task", "both/jobs/jobs", "plain/jobs"] {
        fs::create_dir_all(home.path().join(name)).unwrap();
    }
    let jobs = |name: &str| {
        let jobs = Folder::new(Mode::Use, home.path().join(name)).jobs();
        jobs.strip_prefix(home.path()).unwrap().to_owned()
    };
    assert_eq!(jobs("old/jobs"), PathBuf::from("old/jobs"));
    assert_eq!(jobs("both/jobs"), PathBuf::from("both/jobs/jobs"));
    assert_eq!(jobs("plain"), PathBuf::from("plain/jobs"));
    assert_eq!(jobs("gone/jobs"), PathBuf::from("gone/jobs/jobs"));
}

#[test]
fn a_folder_is_read_from_the_command_line() {
    let folder: Folder = "backup:/a//b:c/".parse().unwrap();
    assert_eq!(
        (folder.mode, folder.path),
        (Mode::Backup, PathBuf::from("/a/b:c"))
    );
    let home: Folder = "use:~/x".parse().unwrap();
    assert!(
        home.path.is_absolute() && home.path.ends_with("x"),
        "{home:?}"
    );
    for wrong in [
        "",
        "/a",
        "copy:/a",
        "use:",
        ":/a",
        "Use:/a",
        "use:~no-such-user-here/x",
    ] {
        assert!(wrong.parse::<Folder>().is_err(), "{wrong}");
    }
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
fn more_folders_than_can_be_mounted_are_an_error() {
    for (count, errors) in [(250, 0), (251, 1)] {
        let folders: String = (0..count)
            .map(|number| format!("\n  - path: ~/many/{number}"))
            .collect();
        let found = findings(&workspace(&format!("folders:{folders}"))).into_iter();
        let found: Vec<_> = found.filter(|it| it.severity == Error).collect();
        assert_eq!(found.len(), errors, "{found:?}");
        assert!(
            found
                .iter()
                .all(|it| it.line == 255 && it.message.contains("251 folders"))
        );
    }
}

#[test]
fn no_advice_creates_a_directory_at_an_incomplete_path() {
    let folders =
        "folders:\n  - {path: rel, mode: backup}\n  - {path: '${env:NOT_SET}/x', mode: move}";
    for text in [
        "workspaces: [{id: a, path: not/there}]".to_owned(),
        "workspaces: [{id: a, path: '${env:NOT_SET}/there'}]".to_owned(),
        workspace(folders),
    ] {
        let found = findings(&text);
        assert!(!found.is_empty());
        assert!(
            found.iter().all(|it| !it.advice.contains("mkdir")),
            "{found:?}"
        );
    }
    let folders = ["rel", "${env:NOT_SET}/x"].map(|path| Folder::new(Mode::Backup, path));
    let nlp = Workspace::bare(std::env::temp_dir().join("not-there"));
    let warnings = validate_folders(&nlp, &folders).unwrap();
    assert!(
        warnings.iter().all(|it| !it.contains("mkdir")),
        "{warnings:?}"
    );
    assert!(warnings[0].contains("in full"), "{warnings:?}");
    assert!(warnings[1].contains("export"), "{warnings:?}");
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
        let began = std::time::Instant::now();
        assert!(findings(&text).len() >= 10_000);
        // A check that is not linear takes minutes.
        assert!(began.elapsed().as_secs() < 30, "{:?}", began.elapsed());
    }
}
