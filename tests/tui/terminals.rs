//! The terminal is as it was, however the dashboard ends.

use std::process::Command;

use rustix::process::{Signal, kill_process};

use crate::common::{Terminal, Workspace, fails};
use crate::stage::{child_of, start, start_with, workspace};

#[test]
fn every_end_restores_the_terminal() {
    let workspace = workspace();
    for end in ["q", "\x03"] {
        let mut terminal = start(&workspace, 24, 80);
        assert!(!terminal.is_restored());
        terminal.press(end);
        assert!(terminal.end().success());
        assert!(terminal.becomes_restored(), "{end:?}");
    }
    for (signal, name) in [(Signal::TERM, 15), (Signal::INT, 2), (Signal::HUP, 1)] {
        let mut terminal = start(&workspace, 24, 80);
        terminal.kill(signal);
        let status = std::os::unix::process::ExitStatusExt::signal(&terminal.end());
        assert_eq!(status, Some(name));
        assert!(terminal.becomes_restored(), "{name}");
    }
}

/// The process that draws cannot restore the terminal then, so the one that waits for it does.
#[test]
fn a_dashboard_that_is_killed_restores_the_terminal() {
    let workspace = workspace();
    for (signal, status) in [(Signal::KILL, 137), (Signal::QUIT, 131)] {
        // The kernel empties a terminal when its first process ends.
        let mut dashboard = workspace.xpmfs();
        dashboard.arg("tui");
        let mut shell = Command::new("sh");
        shell.args(["-c", "\"$@\"; echo ended: $?; read line", "sh"]);
        shell
            .arg(dashboard.get_program())
            .args(dashboard.get_args());
        for (name, value) in dashboard.get_envs() {
            shell.env(name, value.unwrap_or_default());
        }
        let mut terminal = Terminal::start(&shell, 24, 80);
        terminal.wait_for("COPIES");
        let front = child_of(terminal.child.id());
        kill_process(child_of(front.as_raw_pid()), signal).unwrap();
        terminal.wait_for(&format!("ended: {status}"));
        assert!(terminal.is_restored(), "{status}");
        terminal.press("\n");
        terminal.end();
    }
}

#[test]
fn a_panic_restores_the_terminal_and_shows_what_it_says() {
    let workspace = workspace();
    let mut terminal = start_with(&workspace, 24, 80, |command| {
        command.env("XPMFS_TEST_PANIC", "tui");
    });
    assert!(!terminal.end().success());
    assert!(terminal.becomes_restored());
    terminal.wait_for("panicked");
}

#[test]
fn an_error_shows_on_the_terminal_as_it_was() {
    let workspace = workspace();
    let mut terminal = start_with(&workspace, 24, 80, |command| {
        command.args(["-w", "unknown"]);
    });
    assert_eq!(terminal.end().code(), Some(1));
    terminal.wait_for("unknown workspace");
    assert!(terminal.becomes_restored());
}

#[test]
fn without_a_terminal_it_says_what_to_use() {
    let workspace = Workspace::new();
    let output = fails(workspace.xpmfs().arg("tui"));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        said.contains("must be a terminal; `xpmfs status`"),
        "{said}"
    );
    let mut terminal = start_with(&workspace, 24, 80, |command| {
        command.env("TERM", "dumb");
    });
    assert_eq!(terminal.end().code(), Some(1));
    terminal.wait_for("TERM=dumb");
}

#[test]
fn a_name_cannot_act_on_the_terminal() {
    let workspace = workspace();
    let hash = "g7\x1b[2Jggggg\x07";
    workspace.finished("primary", "my.module.\x1b]0;evil\x07", hash);
    let terminal = start(&workspace, 24, 80);
    terminal.press("/evil\r");
    terminal.wait_for("1 of 8");
    terminal.press("f");
    // The terminal may have no clipboard: the path shows, beside the keys.
    terminal.wait_for("sent to the terminal's clipboard:");
    terminal.wait_for("? keys  q quit");
    terminal.press("\r");
    terminal.wait_for("served by:");
    let written = terminal.written();
    let has = |bytes: &[u8]| written.windows(bytes.len()).any(|it| it == bytes);
    assert!(!has(b"\x1b]0;evil"));
    assert!(!has(b"\x1b[2Jggg"));
    // The path went to the clipboard, encoded.
    assert!(has(b"\x1b]52;c;"));
}
