//! Every tab and every view of a job, as they look: compared by eye once, and by these tests from then on.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::common::Terminal;
use crate::stage::{normal, start, start_with, workspace};

/// How long a screen may take to become what it is to be.
const PATIENCE: Duration = Duration::from_secs(30);

/// The screens: their names, the keys that lead to each from the one before, and a text that shows there.
const SCREENS: [(&str, &str, &str); 15] = [
    ("jobs", "", "train/d4dddddd"),
    ("single", "n", "without a second copy"),
    ("search", "c/lr=0.1", "search: lr=0.1_"),
    ("filter", "\x15@state = \"error\"\r", "1 of 7"),
    ("help", "c?", "keys: Jobs"),
    ("folders", "\x1b2", "safe to release"),
    ("archive", "3", "not mounted"),
    ("experiments", "4", "20260101_000000"),
    ("orphans", "5", "1 orphan"),
    ("orphans-all", "n", "hides"),
    ("trash", "6", "no deleted jobs"),
    ("copies", "1T\r", "served by:"),
    ("files", "\t", "params.json"),
    ("parameters", "\t", "layers: 2"),
    ("log", "\t", "standard error"),
];

/// Waits until the screen is as its snapshot, and compares it.
pub(crate) fn assert_screen(terminal: &Terminal, name: &str) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join(format!("tests/tui/snapshots/tui__looking__{name}.snap"));
    let expected = std::fs::read_to_string(file).unwrap_or_default();
    let expected = expected.splitn(3, "---\n").nth(2).unwrap_or_default();
    let deadline = Instant::now() + PATIENCE;
    let (mut screen, mut since) = (String::new(), Instant::now());
    loop {
        let now = normal(&terminal.screen());
        if now.trim() == expected.trim() || Instant::now() > deadline {
            screen = now;
            break;
        }
        if now != screen {
            (screen, since) = (now, Instant::now());
        }
        // Without a snapshot, what does not change any more is one.
        if expected.is_empty() && since.elapsed() > Duration::from_secs(2) {
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    insta::assert_snapshot!(name, screen);
}

fn look_at_all(rows: u16, columns: u16) {
    let workspace = workspace();
    let mut terminal = start(&workspace, rows, columns);
    for (name, keys, text) in SCREENS {
        // A lone escape, and what follows it, would be one key.
        for key in keys.split_inclusive('\x1b') {
            terminal.press(key);
            std::thread::sleep(Duration::from_millis(60));
        }
        terminal.wait_for(text);
        assert_screen(&terminal, &format!("{name}-{columns}x{rows}"));
    }
    terminal.press("q");
    assert!(terminal.end().success());
    assert!(terminal.becomes_restored());
}

#[test]
fn screens_of_80_columns() {
    look_at_all(24, 80);
}

#[test]
fn screens_of_200_columns() {
    look_at_all(60, 200);
}

#[test]
fn without_colour_and_in_ascii_it_says_the_same() {
    let workspace = workspace();
    let terminal = start_with(&workspace, 24, 80, |command| {
        command.env("NO_COLOR", "1").env("LC_ALL", "C");
    });
    terminal.wait_for("primary ONLY");
    terminal.press("2");
    terminal.wait_for("safe to release");
    assert_screen(&terminal, "folders-ascii");
    let written = String::from_utf8(terminal.written()).unwrap();
    assert!(written.is_ascii(), "{written}");
    let colours = regex::Regex::new(r"\x1b\[[\d;]*\b(3[0-7]|38|9[0-7])\b[\d;]*m").unwrap();
    let found = colours.find(&written).map(|it| it.as_str());
    assert_eq!(found, None);
}

#[test]
fn it_follows_the_size_of_the_terminal() {
    let workspace = workspace();
    let mut terminal = start(&workspace, 24, 80);
    for (rows, columns) in [(60, 200), (6, 20), (3, 10), (1, 1), (24, 80)] {
        terminal.resize(rows, columns);
        let text = match rows {
            1 => "",
            3 => "too small",
            6 => "1 Jobs",
            _ => "primary ONLY",
        };
        terminal.wait_for(text);
    }
    terminal.press("?");
    terminal.wait_for("keys: Jobs");
    terminal.resize(8, 30);
    terminal.wait_for("keys: Jobs");
    terminal.press("\x1b");
    terminal.resize(24, 80);
    terminal.wait_for("train/d4dddddd");
    terminal.press("q");
    assert!(terminal.end().success());
}

#[test]
fn the_mouse_chooses_tabs_rows_and_columns() {
    let workspace = workspace();
    let terminal = start(&workspace, 24, 80);
    let click = |column: u16, row: u16| {
        terminal.press(&format!("\x1b[<0;{column};{row}M\x1b[<0;{column};{row}m"));
    };
    // The title of the tab of folders, and that of the jobs.
    click(12, 1);
    terminal.wait_for("not mounted");
    click(3, 1);
    terminal.wait_for("primary ONLY");
    // The third row; a second click opens it.
    click(20, 7);
    terminal.wait_until("the third row to be selected", |screen| {
        let line = screen.lines().nth(6).unwrap_or_default();
        line.starts_with('>')
    });
    let line = terminal.screen().lines().nth(6).unwrap().to_owned();
    click(20, 7);
    terminal.wait_for("served by:");
    let hash = line.split('/').nth(1).unwrap();
    let hash = hash.split_whitespace().next().unwrap();
    assert!(terminal.screen().contains(hash), "{line}");
    terminal.press("\x1b");
    terminal.wait_for("primary ONLY");
    // The title of the column of states.
    click(5, 4);
    terminal.wait_for("STATE▼");
    click(5, 4);
    terminal.wait_for("STATE▲");
}
