//! The terminal is as it was, however the dashboard ends.

use std::fs;
use std::process::Command;

use rustix::process::{Pid, Signal, kill_process_group};

use crate::common::{Terminal, Workspace, fails};
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

/// A shell with job control, in which the dashboard was started.
fn in_shell(workspace: &Workspace) -> Terminal {
    let mut dashboard = workspace.xpmfs();
    dashboard.arg("tui");
    let words = std::iter::once(dashboard.get_program()).chain(dashboard.get_args());
    let words = words.map(|word| format!("'{}'", word.to_str().unwrap()));
    let line = words.collect::<Vec<_>>().join(" ");
    let mut shell = Command::new("bash");
    shell.args(["--norc", "--noprofile", "-i"]);
    for (name, value) in dashboard.get_envs() {
        shell.env(name, value.unwrap_or_default());
    }
    let terminal = Terminal::start(&shell, 24, 80);
    terminal.press(&format!("{line}\n"));
    terminal.wait_for("COPIES");
    terminal
}

/// The shell has the terminal as it was, and `fg` brings the dashboard back.
fn leave_and_return(terminal: &Terminal) {
    terminal.wait_for("Stopped");
    terminal.press("echo al''ive\n");
    terminal.wait_for("alive");
    terminal.press("fg\n");
    terminal.wait_for("COPIES");
    terminal.press("?");
    terminal.wait_for("keys: Jobs");
    terminal.press("\x1b");
    terminal.wait_until("the help to close", |screen| !screen.contains("keys: Jobs"));
}

#[test]
fn a_stopped_dashboard_leaves_the_terminal_to_the_shell() {
    let workspace = workspace();
    let mut terminal = in_shell(&workspace);
    terminal.press("\x1a");
    terminal.wait_for("Stopped");
    terminal.look(|screen| {
        assert!(!screen.alternate_screen() && !screen.hide_cursor());
    });
    leave_and_return(&terminal);
    // By another process, which does not ask.
    let shell = terminal.child.id();
    let children = fs::read_to_string(format!("/proc/{shell}/task/{shell}/children")).unwrap();
    let front: i32 = children.split_whitespace().next().unwrap().parse().unwrap();
    kill_process_group(Pid::from_raw(front).unwrap(), Signal::STOP).unwrap();
    leave_and_return(&terminal);
    terminal.press("q");
    terminal.wait_until("the shell", |screen| screen.contains("alive"));
    terminal.press("exit\n");
    assert!(terminal.end().success());
}
