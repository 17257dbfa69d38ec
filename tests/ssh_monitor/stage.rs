//! A workspace that the settings also have as one of another machine, which is this one.

use std::fs;

use serde_json::{Value, json};

use crate::common::sshd::Sshd;
use crate::common::{Terminal, Workspace, python};

/// Has the workspace of a test as `cluster` on the machine of an `sshd`. `None` if the test may be skipped.
pub(crate) fn stage(workspace: &Workspace) -> Option<Sshd> {
    let python = python::interpreter()?;
    // Neither the settings nor the shell's profile of the person who runs the tests matter.
    let home = workspace.top().join("home-there");
    fs::create_dir(&home).unwrap();
    let sshd = Sshd::with(&format!("SetEnv HOME={}", home.display()))?;
    let mut ssh = sshd.ssh();
    ssh["xpm_path"] = json!(format!("{} -m experimaestro", python.display()));
    ssh["shell_init"] = json!("export GREETING='a b' # with a comment that ends with the line");
    attach(workspace, &ssh);
    Some(sshd)
}

fn attach(workspace: &Workspace, ssh: &Value) {
    let cluster = json!({"id": "cluster", "path": workspace.primary(), "ssh": ssh});
    let settings = fs::read_to_string(workspace.settings()).unwrap();
    fs::write(workspace.settings(), format!("{settings}  - {cluster}\n")).unwrap();
}

/// The dashboard in a terminal, not waiting for anything.
pub(crate) fn start(workspace: &Workspace, arguments: &[&str]) -> Terminal {
    let mut command = workspace.xpmfs();
    command
        .args(["ssh-monitor", "-w", "cluster"])
        .args(arguments);
    Terminal::start(&command, 30, 140)
}

/// Ends it as a person does.
pub(crate) fn quit(mut terminal: Terminal) {
    terminal.press("q");
    assert!(terminal.end().success());
    assert!(terminal.becomes_restored());
}
