//! The terminal is as it was, however the dashboard ends.

use rustix::process::Signal;

use crate::common::{Workspace, fails};
use crate::stage::{start, start_with, workspace};

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
    terminal.wait_for("copied: ");
    terminal.press("\r");
    terminal.wait_for("served by:");
    let written = terminal.written();
    let has = |bytes: &[u8]| written.windows(bytes.len()).any(|it| it == bytes);
    assert!(!has(b"\x1b]0;evil"));
    assert!(!has(b"\x1b[2Jggg"));
    // The path went to the clipboard, encoded.
    assert!(has(b"\x1b]52;c;"));
}
