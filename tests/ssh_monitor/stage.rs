//! A workspace that the settings also have as one of another machine, which is this one.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};

use crate::common::sshd::Sshd;
use crate::common::{Terminal, Workspace, python, run};

/// The workspace of a test, which is `cluster` on the machine of an `sshd`.
pub(crate) struct Stage {
    pub(crate) workspace: Workspace,
    sshd: Sshd,
}

impl Stage {
    /// `None` if the test may be skipped.
    pub(crate) fn new() -> Option<Stage> {
        Stage::of(Workspace::new())
    }

    /// With a workspace of the test's own.
    pub(crate) fn of(workspace: Workspace) -> Option<Stage> {
        let python = python::interpreter()?;
        let sshd = Sshd::start()?;
        let mut ssh = sshd.ssh();
        ssh["xpm_path"] = json!(format!("{} -m experimaestro", python.display()));
        ssh["shell_init"] = json!("export GREETING='a b' # with a comment that ends with the line");
        attach(&workspace, &ssh);
        Some(Stage { workspace, sshd })
    }

    /// The home directory there.
    pub(crate) fn home(&self) -> PathBuf {
        self.sshd.home()
    }

    /// Writes a shell script there, and returns its path.
    pub(crate) fn program(&self, name: &str, script: &str) -> PathBuf {
        let path = self.home().join(name);
        let text = self.workspace.top().join("program");
        fs::write(&text, format!("#!/bin/sh\n{script}\n")).unwrap();
        // By another process: while this one has a program open for writing, a child that another test starts has it as well, and it is busy.
        run(Command::new("install").arg("-D").arg(&text).arg(&path));
        path
    }

    /// The dashboard in a terminal, not waiting for anything.
    pub(crate) fn start(&self, arguments: &[&str]) -> Terminal {
        let mut command = self.workspace.xpmfs();
        command.args(["ssh-monitor", "-w", "cluster"]);
        Terminal::start(command.args(arguments), 30, 140)
    }

    /// Cuts the connection. Returns when that shows.
    pub(crate) fn cut(&self, terminal: &Terminal) {
        self.sshd.cut();
        terminal.wait_for("NOT CONNECTED");
    }
}

fn attach(workspace: &Workspace, ssh: &Value) {
    let cluster = json!({"id": "cluster", "path": workspace.primary(), "ssh": ssh});
    let settings = fs::read_to_string(workspace.settings()).unwrap();
    fs::write(workspace.settings(), format!("{settings}  - {cluster}\n")).unwrap();
}

/// Waits for the next connection.
pub(crate) fn wait_for_connection(terminal: &Terminal) {
    terminal.wait_until("the connection to be there again", |screen| {
        !screen.contains("NOT CONNECTED") && !screen.contains("connecting to")
    });
}

/// Ends it as a person does.
pub(crate) fn quit(mut terminal: Terminal) {
    terminal.press("q");
    assert!(terminal.end().success());
    assert!(terminal.becomes_restored());
}
