//! The loader against experimaestro's `get_settings`.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use xpmfs::settings::{RecoverOn, Settings, SettingsError, Tuning};

use crate::oracle::{Home, Oracle};

/// Our settings as the oracle writes experimaestro's.
fn plain(settings: &Settings) -> Value {
    let mut out = serde_json::to_value(settings).unwrap();
    // Listings hide the token.
    out["server"]["token"] = json!(settings.server.token);
    let interval = settings.carbon.report_interval_s;
    if !interval.is_finite() {
        let repr = if interval.is_nan() {
            "nan".to_owned()
        } else {
            interval.to_string()
        };
        out["carbon"]["report_interval_s"] = json!({ "float": repr });
    }
    out.as_object_mut()
        .unwrap()
        .retain(|key, _| key != "file" && key != "xpmfs");
    for workspace in out["workspaces"].as_array_mut().unwrap() {
        workspace.as_object_mut().unwrap().remove("xpmfs");
        for folder in workspace["folders"].as_array_mut().unwrap() {
            folder.as_object_mut().unwrap().remove("exclude");
        }
    }
    out
}

/// Loads a file both ways. Returns whether experimaestro accepts it, or how ours differs then: what experimaestro refuses, we
/// may read.
pub(crate) fn compare(file: &Path, home: &Home, oracle: &mut Oracle) -> Result<bool, String> {
    let theirs = oracle.ask(&home.question(json!({ "load": file })));
    let ours = Settings::load_in(Some(file), &home.environment());
    match (ours, theirs.get("ok")) {
        (Ok(ours), Some(theirs)) if plain(&ours) == *theirs => Ok(true),
        (Ok(ours), Some(theirs)) => Err(format!("ours   {}\ntheirs {theirs}", plain(&ours))),
        (Err(error), Some(theirs)) => Err(format!("refused: {error}\nthough {theirs}")),
        (_, None) => Ok(false),
    }
}

pub(crate) fn corpus() -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/settings/corpus");
    let mut files: Vec<PathBuf> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    files
}

#[test]
fn every_file_of_the_corpus_that_experimaestro_accepts_has_the_same_values() {
    let Some(mut oracle) = Oracle::start() else {
        return;
    };
    let home = Home::new();
    let files = corpus();
    assert!(files.len() >= 40, "the corpus has {} files", files.len());
    let mut wrong = Vec::new();
    for file in files {
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        match compare(&file, &home, &mut oracle) {
            Ok(accepted) if accepted == name.starts_with("good-") => {}
            Ok(accepted) => wrong.push(format!("{name}: experimaestro accepts it: {accepted}")),
            Err(difference) => wrong.push(format!("{name}:\n{difference}")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

/// Every key of experimaestro's file, where `@` is its value.
const PLACES: &[&str] = &[
    "@",
    "server: @",
    "server: {port: @}",
    "server: {host: @}",
    "server: {token: @}",
    "workspaces: @",
    "workspaces: [@]",
    "env: @",
    "env: {A: @}",
    "env: {@: a}",
    "history: {max_done: @}",
    "carbon: {enabled: @}",
    "carbon: {provider: @}",
    "carbon: {report_interval_s: @}",
    "unknown: @",
    "unknown: {env: [@], @: 1}",
    "@: {a: b}",
    "server: {@: 1}",
    "server: {<<: @}",
    "workspaces: [{id: @, path: /p}]",
    "workspaces: [{id: a, path: @}]",
    "workspaces: [{id: a, path: /p, env: {B: @}}]",
    "workspaces: [{id: a, path: /p, env: @}]",
    "workspaces: [{id: a, path: /p, alt_workspaces: @}]",
    "workspaces: [{id: a, path: /p, alt_workspaces: [@]}]",
    "workspaces: [{id: a, path: /p, triggers: [x, @]}]",
    "workspaces: [{id: a, path: /p, max_retries: @}]",
    "workspaces: [{id: a, path: /p, lock_mode: @}]",
    "workspaces: [{id: a, path: /p, history: @}]",
    "workspaces: [{id: a, path: /p, history: {max_failed: @}}]",
    "workspaces: [{id: a, path: /p, ssh: @}]",
    "workspaces: [{id: a, path: ~/p, ssh: {host: @}}]",
    "workspaces: [{id: a, path: /p, ssh: {uv_offline: @, options: []}}]",
    "workspaces: [{id: a, path: /p, ssh: {options: [@]}}]",
    "workspaces: [{id: a, path: /p, folders: @}]",
    "workspaces: [{id: a, path: /p, folders: [@]}]",
    "workspaces: [{id: a, path: /p, folders: [{path: @}]}]",
    "workspaces: [{id: a, path: /p, folders: [{path: /f, mode: @}]}]",
];

/// Values of every kind, and every look-alike of YAML 1.1.
#[rustfmt::skip]
const VALUES: &[&str] = &[
    "", "~", "null", "Null", "NULL", "nUll", "''", "\"\"", "text", "'quoted'", "a b", "é",
    "\"\\u00e9\\n\"", "yes", "Yes", "YES", "yEs", "y", "Y", "no", "No", "on", "On", "off", "OFF",
    "true", "True", "TRUE", "tRue", "false", "f", "t", "'yes'", "'YES'", "'t'", "' true'",
    "'off'", "'1'", "'0'", "0", "1", "2", "-1", "+1", "-0", "+0", "007", "08", "0o17", "017",
    "0x1F", "0X1f", "-0x1f", "0b101", "0b", "0b_", "0x", "0x_", "0_", "1_000", "_1", "1_", "1__0",
    "1:30", "1:60", "-1:30:15", "190:20:30", "0:30", "01:30", "1:30.5", "190:20:30.15",
    "9223372036854775807", "-9223372036854775808", "1.0", "1.5", "-1.5", "+1.5", ".5", "-.5",
    "5.", "1.e+3", "1.0e3", "1.0e+3", "1.0e-3", "1e3", "1.5E+2", "._", "1._", "._1", ".inf",
    "-.inf", "+.Inf", ".INF", ".iNf", ".nan", ".NaN", ".NAN", "-.nan", "inf", "nan", "1_0.2_5",
    "1.0e+400", "0.0001", "0.00001", "1.0e+16", "123456789012345.6", "2.0", "'1.0'", "'1.5'",
    "' 12 '", "'1_000'", "'0x10'", "'1e3'", "'inf'", "'007'", "2024-01-01", "2024-13-01",
    "2024-02-30", "2024-02-29", "2023-02-29", "1900-02-29", "'1__0'", "'1_'", "'1__0.5'", "2024-1-1", "2024-01-01 10:00:00", "2024-01-01T10:00:00Z",
    "2024-1-1t1:00:00.5 +1:30", "2024-01-01 25:00:00", "2024-01-01T10:00:00+25:00", "0000-01-01",
    "'2024-01-01'", "=", "<<", "'<<'", "'='", "[]", "{}", "[a]", "[1]", "{a: b}", "[[a]]", "[{}]",
    "{1: 2}", "[a, ~]", "{id: b, path: /q}", "{path: /q}", "{port: 5}",
    "[{port: 5}, {port: 6, host: h}]", "!!str 1", "!!str", "!!str yes", "!!int '3'", "!!int abc",
    "!!int 1.5", "!!float 3", "!!float x", "!!bool yes", "!!bool maybe", "!!null x", "!!null ''",
    "! 1", "! text", "!mine x", "!!python/none x", "!!binary aGk=", "!!binary /w==",
    "!!binary MTI=", "!!binary dXNl", "!!set {a}", "!!set {}", "!!omap [a: b]", "!!omap []",
    "!!omap [a]", "!!omap {a: b}", "!!pairs [a: b]", "!!seq []", "!!seq a", "!!map {}",
    "!!map []", "!!timestamp 2024-01-01", "!<tag:yaml.org,2002:str> 5", "/a//b/./c/../d/",
    "//two", "///three", ".", "..", "../x", "./x", "~", "'~'", "~/x", "'~root/x'",
    "~no-such-user/x", "'~root'", "link/x", "link/../y", "work/up/z", "dangling/x",
    "dangling/../x", "loop-a", "loop-a/x", "chain/../q", "absolute/deep/..", "a-file/x",
    "with space/é", "\"/a\\0b\"", "\"~/a\\tb\"", "link//..", "missing/../link/deep", "a?b", "a?",
    "'a?b'", "'${env:XPM_PATH}'", "${env:XPM_PATH}/x", "'${env.XPM_PORT}'",
    "'${oc.env:XPM_PORT}'", "'${oc.env.XPM_PORT}0'", "'${env:NOT_SET}'", "'${env:XPM_EMPTY}'",
    "'${env:XPM_NESTED}'", "'${env:XPM ODD}'", "'${env:}'", "'${env:XPM_PORT'",
    "'$${env:XPM_PORT}'", "'${oc.oc.env:XPM_PORT}'", "'${ENV:XPM_PORT}'", "'${env:HOME}/x'",
    "\"${env:XPM_PORT}\"", "'${${env:XPM_PORT}}'", "use", "backup", "move", "Use", "' use'",
    "copy", "&a x", "*a", "- a", "a: b", "'it''s'", "\"\\x41\\/\"", "\"bad \\q\"", "'open",
    "[open", "@at", "`tick", "%pct", "a #b", "a#b", "#c", "a:b", "a: b: c", "-x", ":x", "|", ">-",
    "[\na,\nb\n]", "{a: b\n}", "[a,\n]#c", "'a\nb'", "\"a\n b\"", "[-, a]", "[a:{b: c}]", "{?a: b}", "[*a: b]", "&a !!str &b c",
    "!!s%74r 5", "! 'yes'", "!!int ' 7 '", "!!float '1e2'", "1:00000000000000000000000000:00",
    "\"\\U0001F600\"", "'a\u{2028} b'", "a\u{2029}",
    "|\n  \ta\n", ">-\n  a\n\n  b\n   c\n  d\n", "|+\n  a\n\n", "|2\n    a\n", ">\n\n  a\n  b\n",
    "? a", "!", "&", "*", "{a", "}", "]", ",", "\ta", "a\tb", "'a\tb'", "a # c\tc",
];

#[test]
fn every_key_accepts_the_values_that_experimaestro_accepts() {
    let Some(mut oracle) = Oracle::start() else {
        return;
    };
    let home = Home::new();
    let file = home.path().join("one.yaml");
    let (mut wrong, mut accepted, mut refused) = (Vec::new(), 0, 0);
    for place in PLACES {
        for value in VALUES {
            let text = place.replace('@', value);
            fs::write(&file, &text).unwrap();
            match compare(&file, &home, &mut oracle) {
                Ok(true) => accepted += 1,
                Ok(false) => refused += 1,
                Err(difference) => wrong.push(format!("{text}\n{difference}")),
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "{} differ:\n{}",
        wrong.len(),
        wrong.join("\n\n")
    );
    assert!(
        accepted > 1000 && refused > 1000,
        "{accepted} accepted, {refused} refused"
    );
}

#[test]
fn what_yaml_allows_around_the_values_is_read_as_experimaestro_does() {
    let Some(mut oracle) = Oracle::start() else {
        return;
    };
    let home = Home::new();
    let file = home.path().join("one.yaml");
    for text in [
        "env: {A: b\n}\nworkspaces: [\n{id: a, path: /p,\ntriggers: [\nx,\n'y\nz'\n]}\n]\n",
        "%YAML 1.2\n%TAG !e! tag:yaml.org,2002:\n---\nenv: {A: !e!str 1, B: !<tag:yaml.org,2002:str> 2}\n...\n",
        "env: &a {<<: *a, A: b}\n",
        "env: {A: -99999999999999999999999999999999999999999999, B: 0xffffffffffffffffffffffffffffffff, C: 1:30:00}\n",
        "carbon: {report_interval_s: 99999999999999999999999999999999999999999999}\n",
        "unknown: &a !!omap [k: *a]\n",
        "? env\n: ? A\n  : b\n",
        "env:\n  ? |\n    A\n  : >\n    b\n    c\n",
        "workspaces:\n- id: a\n  path: /p\n  triggers:\n  - x\n  -\n    y\n  - - z\n",
        "&x env: &y\n  &z A: !!str\n  B: ''\n",
        "--- # c\nenv: # d\n  # e\n  A: b # f\n",
        "--- >\n text\n",
        "\u{feff}env: {A: '\u{feff}'}\u{85}carbon: {}\n",
        "env:\n  A: b\n   c\n  \n   d # e\n",
        "env: {A: ? , ? B : c, 'D': e, \"F\":g, h}\n",
    ] {
        fs::write(&file, text).unwrap();
        let same = compare(&file, &home, &mut oracle);
        assert!(same.is_ok(), "{text}\n{}", same.unwrap_err());
    }
    for (before, after) in [("[", "]"), ("{a: ", "}"), ("- ", "")] {
        let deep = |depth| {
            format!(
                "unknown:\n  {}a{}\n",
                before.repeat(depth),
                after.repeat(depth)
            )
        };
        fs::write(&file, deep(480)).unwrap();
        assert_eq!(compare(&file, &home, &mut oracle), Ok(true), "{before}");
        fs::write(&file, deep(600)).unwrap();
        assert_eq!(compare(&file, &home, &mut oracle), Ok(false), "{before}");
    }
}

/// Python's integers have no bounds; ours end at 64 bits, and nothing here depends on greater ones.
#[test]
fn integers_beyond_64_bits_are_read_as_the_nearest() {
    let Some(mut oracle) = Oracle::start() else {
        return;
    };
    let home = Home::new();
    let file = home.path().join("one.yaml");
    for (written, nearest) in [
        ("99999999999999999999999", i64::MAX),
        ("-9223372036854775809", i64::MIN),
        ("'99999999999999999999999'", i64::MAX),
        ("9223372036854775807", i64::MAX),
    ] {
        for place in [
            "server: {port: @}",
            "history: {max_done: @}",
            "workspaces: [{id: a, path: /p, max_retries: @}]",
        ] {
            fs::write(&file, place.replace('@', written)).unwrap();
            let theirs = oracle.ask(&home.question(json!({ "load": file })));
            assert!(theirs.get("ok").is_some(), "{place} {written}: {theirs}");
            let ours = Settings::load_in(Some(&file), &home.environment()).unwrap();
            let read = [
                ours.server.port.unwrap_or(nearest),
                ours.workspaces.first().map_or(nearest, |it| it.max_retries),
            ];
            assert_eq!(read, [nearest; 2], "{place} {written}");
        }
    }
}

#[test]
fn a_missing_file_counts_as_an_empty_one() {
    let Some(mut oracle) = Oracle::start() else {
        return;
    };
    let home = Home::new();
    for name in [
        "missing.yaml",
        "real",
        "a-file/x.yaml",
        "dangling",
        "loop-a",
    ] {
        assert_eq!(
            compare(&home.path().join(name), &home, &mut oracle),
            Ok(true),
            "{name}"
        );
    }
    // The default file, once missing and once there.
    let settings = Settings::load_in(None, &home.environment()).unwrap();
    assert_eq!(
        settings,
        Settings {
            file: home.file(),
            ..Settings::default()
        }
    );
    fs::write(home.file(), "server: {port: 7}").unwrap();
    assert_eq!(
        Settings::load_in(None, &home.environment())
            .unwrap()
            .server
            .port,
        Some(7)
    );
}

#[test]
fn a_file_that_is_not_text_is_refused() {
    let Some(mut oracle) = Oracle::start() else {
        return;
    };
    let home = Home::new();
    let file = home.path().join("bytes.yaml");
    for (bytes, good) in [
        (&b"env: {A: \"\xff\"}"[..], false),
        (b"env: {A: \"\x01\"}", false),
        (b"env: {A: \"\x7f\"}", false),
        (b"\xef\xbb\xbfenv: {A: b}", true),
        (b"env:\r\n  A: b\r\n  B: c\r\n", true),
        (b"env:\r  A: b\r", true),
        (b"", false),
        (b"# nothing\n", false),
        (b"---\n", false),
        (b"--- {}\n...\n", true),
        (b"--- {}\n--- {}\n", false),
        (b"{}\n...\n# end\n", true),
        (b"env: {A: x\xc2\xa0y}", true),
    ] {
        fs::write(&file, bytes).unwrap();
        assert_eq!(
            compare(&file, &home, &mut oracle),
            Ok(good),
            "{:?}",
            String::from_utf8_lossy(bytes)
        );
    }
}

#[test]
fn folders_come_in_the_scheduler_s_order() {
    let Some(mut oracle) = Oracle::start() else {
        return;
    };
    let home = Home::new();
    let file = home.path().join("folders.yaml");
    fs::write(
        &file,
        "workspaces:\n\
         - {id: a, path: ~/link, alt_workspaces: [b, ~/x, /abs, rel/y, remote, missing-id], folders: [{path: ~/f, mode: move}, {path: link/g}]}\n\
         - {id: b, path: ~/real/deep}\n\
         - {id: b, path: ~/work}\n\
         - {id: remote, path: ~/there, ssh: {host: h}}\n",
    )
    .unwrap();
    let theirs = oracle.ask(&home.question(json!({ "folders": file })));
    let environment = home.environment();
    let settings = Settings::load_in(Some(&file), &environment).unwrap();
    let ours: Vec<Vec<Value>> = settings
        .workspaces
        .iter()
        .map(|workspace| {
            let folders = settings.folders_in(workspace, &environment);
            folders
                .iter()
                .map(|folder| json!([folder.path, folder.mode]))
                .collect()
        })
        .collect();
    assert_eq!(json!(ours), theirs["ok"]);
}

#[test]
fn our_own_keys_are_read_and_a_workspace_s_override_the_top_s() {
    let home = Home::new();
    let file = home.path().join("ours.yaml");
    fs::write(
        &file,
        "xpmfs: {settle: 5, scan_interval: 10m, exclude: ['a.*'], release: {keep_free: 10%, older_than: 30d}, bandwidth: 100M, recover_on: never, folder_timeout: 3s, trash: 2w}\n\
         workspaces:\n- id: a\n  path: /a\n  folders: [{path: /b, mode: backup, exclude: [c/1*]}]\n\
         \x20 xpmfs: {settle: 500ms, release: {keep_free: 2T}}\n- {id: b, path: /b}\n\
         - {id: c, path: /c, xpmfs: {bandwidth: 0, recover_on: write}}\n",
    )
    .unwrap();
    let settings = Settings::load_in(Some(&file), &home.environment()).unwrap();
    let tuning = |index: usize| {
        serde_json::to_value(settings.tuning_of(&settings.workspaces[index])).unwrap()
    };
    assert_eq!(
        tuning(0),
        json!({"settle": 0.5, "scan_interval": 600.0, "exclude": ["a.*"], "bandwidth": 104_857_600u64, "recover_on": "never", "folder_timeout": 3.0, "trash": 1_209_600.0,
               "release": {"keep_free": {"bytes": 2_199_023_255_552u64}, "older_than": 2_592_000.0}})
    );
    assert_eq!(tuning(1)["settle"], json!(5.0));
    assert_eq!(
        tuning(2)["bandwidth"],
        json!(0),
        "no limit, although the top has one"
    );
    assert_eq!(tuning(2)["recover_on"], "write");
    assert_eq!(Tuning::default().recover_on(), RecoverOn::Write);
    assert_eq!(tuning(1)["release"]["keep_free"], json!({"percent": 10.0}));
    assert!(
        settings.workspaces[0].folders[0]
            .exclude
            .matches("c", "123")
    );
    for wrong in [
        "{settle: -1}",
        "{settle: soon}",
        "{settle: ~}",
        "{settel: 2s}",
        "{release: 5}",
        "{release: {keep_free: 120%}}",
        "{bandwidth: fast}",
        "{recover_on: always}",
        "{exclude: a}",
        "{exclude: ['[']}",
        "{release: {older_then: 3d}}",
        "[]",
        "~",
        "{settle: .nan}",
    ] {
        fs::write(&file, format!("xpmfs: {wrong}\n")).unwrap();
        let error = Settings::load_in(Some(&file), &home.environment()).expect_err(wrong);
        assert!(
            matches!(&error, SettingsError::Invalid { findings, .. } if findings[0].line == 1),
            "{wrong}: {error}"
        );
    }
}
