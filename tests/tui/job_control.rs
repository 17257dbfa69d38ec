//! The dashboard in a shell with job control: it is stopped, and goes on.

use std::fs;
use std::process::Command;

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use crate::common::hanging_fs::HangingFs;
use crate::common::{Terminal, Workspace, eventually, run};
use crate::stage::{SINGLE, child_of, workspace, workspace_with};

/// A shell with job control, and the line that starts the dashboard in it.
pub(crate) fn shell(workspace: &Workspace) -> (Command, String) {
    let mut dashboard = workspace.xpmfs();
    dashboard.arg("tui");
    let words = std::iter::once(dashboard.get_program()).chain(dashboard.get_args());
    let words = words.map(|word| format!("'{}'", word.to_str().unwrap()));
    let line = words.collect::<Vec<_>>().join(" ") + "\n";
    let mut shell = Command::new("bash");
    shell.args(["--norc", "--noprofile", "-i"]);
    for (name, value) in dashboard.get_envs() {
        shell.env(name, value.unwrap_or_default());
    }
    (shell, line)
}

/// A shell in which the dashboard was started.
fn in_shell(workspace: &Workspace) -> Terminal {
    let (shell, line) = shell(workspace);
    let terminal = Terminal::start(&shell, 24, 80);
    terminal.press(&line);
    terminal.wait_for("COPIES");
    terminal
}

/// The shell has the terminal as it was, and `fg` brings the dashboard back. The shell's screen is cleared, so that the next stop can be told
/// from this one: what is typed before the shell has the terminal is lost.
pub(crate) fn leave_and_return(terminal: &Terminal) {
    terminal.wait_for("Stopped");
    terminal.press("clear; echo al''ive\n");
    terminal.wait_until("the shell's screen to be cleared", |screen| {
        !screen.contains("Stopped")
    });
    terminal.wait_for("alive");
    bring_back(terminal);
}

/// `fg` brings the dashboard back.
fn bring_back(terminal: &Terminal) {
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
    let terminal = in_shell(&workspace);
    terminal.press("\x1a");
    terminal.wait_for("Stopped");
    terminal.look(|screen| {
        assert!(!screen.alternate_screen() && !screen.hide_cursor());
    });
    leave_and_return(&terminal);
    // By another process, which does not ask.
    let front = child_of(terminal.child.id());
    kill_process_group(front, Signal::STOP).unwrap();
    leave_and_return(&terminal);
    leave_for_good(terminal);
}

/// Ends the dashboard and the shell.
fn leave_for_good(mut terminal: Terminal) {
    terminal.press("q");
    // What is typed before its prompt may still be read by the dashboard.
    eventually("the shell's prompt", || {
        terminal.look(|screen| {
            let (row, column) = screen.cursor_position();
            let mut rows = screen.rows(0, column);
            let before = rows.nth(row.into()).unwrap_or_default();
            before.starts_with("bash-") && before.trim_end().ends_with(['#', '$'])
        })
    });
    terminal.press("exit\n");
    assert!(terminal.end().success());
}

/// The dashboard has two processes, and a person sees both in `ps`.
#[test]
fn a_stop_of_one_process_stops_both() {
    let workspace = workspace();
    let terminal = in_shell(&workspace);
    let front = child_of(terminal.child.id());
    let child = child_of(front.as_raw_pid());
    for process in [front, child] {
        kill_process(process, Signal::TSTP).unwrap();
        terminal.wait_for("Stopped");
        terminal.look(|screen| {
            assert!(!screen.alternate_screen() && !screen.hide_cursor());
        });
        for process in [front, child] {
            eventually("it is stopped", || state_of(process) == 'T');
        }
        leave_and_return(&terminal);
    }
    leave_for_good(terminal);
}

/// It cannot notice that: SIGSTOP cannot be handled.
#[test]
fn a_front_that_is_stopped_alone_leaves_the_terminal_to_the_shell() {
    let workspace = workspace();
    let terminal = in_shell(&workspace);
    let front = child_of(terminal.child.id());
    let child = child_of(front.as_raw_pid());
    kill_process(front, Signal::STOP).unwrap();
    let leaves = || {
        eventually("both are stopped", || {
            state_of(front) == 'T' && state_of(child) == 'T'
        });
        eventually("the shell has its screen", || {
            terminal.look(|screen| !screen.alternate_screen() && !screen.hide_cursor())
        });
    };
    leaves();
    // It does not take the terminal from the shell when it goes on.
    kill_process(front, Signal::CONT).unwrap();
    leaves();
    terminal.press("clear; echo al''ive\n");
    terminal.wait_for("alive");
    bring_back(&terminal);
    leave_for_good(terminal);
}

/// The state of a process, as in `ps`.
fn state_of(process: Pid) -> char {
    let stat = fs::read_to_string(format!("/proc/{}/stat", process.as_raw_pid())).unwrap();
    let (_, rest) = stat.rsplit_once(") ").unwrap();
    rest.chars().next().unwrap()
}

#[test]
fn an_action_goes_on_when_the_dashboard_comes_back() {
    let workspace = workspace_with(&["backup"]);
    run(workspace.xpmfs().args(["jobs", "archive", SINGLE]));
    let at = workspace.top().join("hangs");
    let folder = HangingFs::mount(&workspace.folder("backup"), &at);
    workspace.with_folders(&[]);
    workspace.attach("backup", &at);
    let terminal = in_shell(&workspace);
    terminal.press("/a1aaaaaa\r");
    terminal.wait_for("1 of ");
    terminal.press("v");
    terminal.wait_for("Read the archived copies of 1 job");
    folder.hold(|operation, path| operation == "read" && path.ends_with("train.out"));
    terminal.press("y");
    eventually("the copy is being read", || folder.parked() > 0);
    terminal.wait_for("verifying 1 job: ");
    terminal.press("\x1a");
    leave_and_return(&terminal);
    terminal.wait_for("verifying 1 job: ");
    terminal.press("\x1a");
    terminal.wait_for("Stopped");
    // It is stopped, too: the copy is not read to its end meanwhile.
    folder.go_on();
    leave_and_return(&terminal);
    terminal.wait_for("1 copy OK");
    leave_for_good(terminal);
}
