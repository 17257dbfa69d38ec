//! The dashboard in a window of GNU screen, which has no screen of its own for it, and keeps some keys to itself.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use crate::common::{Terminal, program};

use crate::job_control::{leave_and_return, shell};
use crate::stage::workspace;

/// The sockets of a server of GNU screen, which ends with this.
struct Sockets(PathBuf);

impl Drop for Sockets {
    fn drop(&mut self) {
        let mut quit = Command::new("screen");
        let _ = quit.args(["-X", "quit"]).env("SCREENDIR", &self.0).output();
    }
}

#[test]
fn it_works_in_gnu_screen() {
    let Some(program) = program("screen") else {
        return;
    };
    let workspace = workspace();
    let sockets = Sockets(workspace.top().join("screen"));
    fs::create_dir(&sockets.0).unwrap();
    fs::set_permissions(&sockets.0, Permissions::from_mode(0o700)).unwrap();
    let settings = workspace.top().join("screenrc");
    fs::write(&settings, "startup_message off\n").unwrap();
    let (shell, line) = shell(&workspace);
    let mut screen = Command::new(program);
    screen.arg("-U").arg("-c").arg(settings);
    screen.arg(shell.get_program()).args(shell.get_args());
    for (name, value) in shell.get_envs() {
        screen.env(name, value.unwrap_or_default());
    }
    screen.env("SCREENDIR", &sockets.0).env_remove("STY");
    let mut terminal = Terminal::start(&screen, 24, 80);
    terminal.press(&line);
    terminal.wait_for("COPIES");
    terminal.press("?");
    terminal.wait_for("keys: Jobs");
    // Alone: no other key lets it through.
    terminal.press("\x1b");
    terminal.wait_until("the help to close", |screen| !screen.contains("keys: Jobs"));
    terminal.press("\x1a");
    leave_and_return(&terminal);
    terminal.press("q");
    // The prompt is below the picture, which stays.
    terminal.wait_until("the shell", |screen| {
        let place = |text| screen.lines().position(|line| line.starts_with(text));
        place("bash-") > place(" 1 Jobs")
    });
    terminal.look(|screen| assert!(!screen.hide_cursor()));
    terminal.press("exit\n");
    assert!(terminal.end().success());
}
