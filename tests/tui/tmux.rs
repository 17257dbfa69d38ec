//! The clipboard of the terminal in tmux, also where only the type of the terminal is known, as over `ssh`.

use std::path::PathBuf;
use std::process::Command;

use crate::common::{Terminal, eventually, program};
use crate::stage::workspace;

/// A tmux of the test's own, which ends with this.
struct Tmux {
    program: PathBuf,
    socket: PathBuf,
}

impl Tmux {
    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("-S").arg(&self.socket).env_remove("TMUX");
        command
    }
}

impl Drop for Tmux {
    fn drop(&mut self) {
        let _ = self.command().arg("kill-server").output();
    }
}

#[test]
fn a_path_goes_to_the_clipboard_in_tmux() {
    let Some(program) = program("tmux") else {
        return;
    };
    let workspace = workspace();
    let socket = workspace.top().join("tmux");
    let tmux = Tmux { program, socket };
    let settings = workspace.top().join("tmux.conf");
    let types = "set -g default-terminal screen-256color";
    std::fs::write(&settings, format!("{types}\nset -s set-clipboard on\n")).unwrap();
    let mut dashboard = workspace.xpmfs();
    dashboard.arg("tui");
    for known in [true, false] {
        let mut command = tmux.command();
        command.arg("-f").arg(&settings).args(["-u", "new-session"]);
        command.arg("env");
        if !known {
            // As `ssh` leaves it: it passes the type of the terminal on, and no other variable.
            command.args(["-u", "TMUX"]);
        }
        for (name, value) in dashboard.get_envs() {
            let (name, value) = (name.to_str().unwrap(), value.unwrap_or_default());
            command.arg(format!("{name}={}", value.to_str().unwrap()));
        }
        command
            .arg(dashboard.get_program())
            .args(dashboard.get_args());
        let mut terminal = Terminal::start(&command, 24, 80);
        terminal.wait_for("COPIES");
        terminal.press("/a1aaaaaa\r");
        terminal.wait_for("1 of ");
        terminal.press("f");
        terminal.wait_for("sent to the terminal's clipboard:");
        eventually("tmux to have the path", || {
            let output = tmux.command().arg("show-buffer").output().unwrap();
            String::from_utf8(output.stdout)
                .unwrap()
                .ends_with("a1aaaaaa11111111")
        });
        let deleted = tmux.command().arg("delete-buffer").status();
        assert!(deleted.unwrap().success());
        terminal.press("q");
        terminal.end();
    }
}
