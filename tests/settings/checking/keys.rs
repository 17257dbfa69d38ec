//! Unknown, missing and duplicate keys; values of wrong types and beyond their limits.

use xpmfs::settings::Severity::{Error, Warning};

use super::{expect, workspace};

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
