//! `xpmfs ssh-monitor`: a dashboard of a workspace on another machine.

use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, ValueHint};
use clap_complete::engine::ArgValueCompleter;

use super::errors::Usage;
use super::tui::remote;
use super::{Global, candidates};
use crate::remote::monitor::{Connected, MonitorServer, words};
use crate::settings::{Selection, Settings};
use crate::sys::printable::printable;

/// The heading of the options about the other machine.
const THERE: &str = "The other machine";

/// The longest time that the server may be given for an answer.
const TIMEOUT_MAX: f64 = 86_400.0;

/// Which workspace, and how it is reached.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The host: user@cluster, or a name of ~/.ssh/config [default: ssh.host of the workspace]
    #[arg(value_name = "HOST", value_hint = ValueHint::Hostname)]
    host: Option<String>,
    /// The workspace's directory there [default: the path of the workspace]
    #[arg(value_name = "WORKDIR", value_hint = ValueHint::Other)]
    workdir: Option<OsString>,
    /// The remote workspace with this id in the settings
    #[arg(short, long, value_name = "ID", add = ArgValueCompleter::new(candidates::workspaces), display_order = 51)]
    workspace: Option<String>,
    /// Commands of the shell there that run first, as in 'module load python' [default: ssh.shell_init]
    #[arg(long, value_name = "COMMANDS", help_heading = THERE, display_order = 61)]
    remote_shell_init: Option<String>,
    /// Let uv there use no network [default: ssh.uv_offline]
    #[arg(long, help_heading = THERE, display_order = 62)]
    uv_offline: bool,
    /// The Python with which uv there runs experimaestro [default: ssh.python]
    #[arg(long, value_name = "PYTHON", help_heading = THERE, display_order = 63)]
    remote_python: Option<String>,
    /// experimaestro there, with arguments if it has any, in place of uv [default: ssh.xpm_path]
    #[arg(long, value_name = "COMMAND", help_heading = THERE, display_order = 64)]
    remote_xpm: Option<String>,
    /// xpmfs there, as in ~/.cargo/bin/xpmfs: shows folders and archiving, too
    #[arg(long, value_name = "PATH", value_hint = ValueHint::Other, help_heading = THERE, display_order = 65)]
    remote_xpmfs: Option<OsString>,
    /// An option of ssh, as in -o '-p 2222' or -o Compression=yes (repeatable) [default: ssh.options]
    #[arg(short = 'o', long = "ssh-option", value_name = "OPTION", allow_hyphen_values = true, help_heading = THERE, display_order = 66)]
    options: Vec<String>,
    /// How many seconds an answer may take
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = timeout, help_heading = THERE, display_order = 67)]
    request_timeout: Duration,
}

fn timeout(text: &str) -> Result<Duration, String> {
    match text.parse::<f64>() {
        Ok(seconds) if seconds > 0.0 && seconds <= TIMEOUT_MAX => {
            Ok(Duration::from_secs_f64(seconds))
        }
        _ => Err(format!("not a number of seconds up to {TIMEOUT_MAX}")),
    }
}

/// Shows the dashboard until it is quit.
///
/// # Errors
///
/// There is no terminal, the arguments name no workspace, or the first connection fails.
pub fn run(arguments: &Arguments, global: &Global) -> anyhow::Result<ExitCode> {
    remote::expect_terminal("`ssh HOST xpmfs status` prints what a mount there does")?;
    let server = server(arguments, global)?;
    let host = server.ssh.host.clone();
    // The dashboard comes up with the connection: until then, `ssh` can ask for a password here.
    if !global.quiet {
        eprintln!("xpmfs: connecting to {}...", printable(&host));
    }
    let said = |text: String| {
        if !global.quiet {
            eprintln!("[{}] {}", printable(&host), printable(&text));
        }
    };
    let connected = Connected::new(server, arguments.request_timeout, &said)?;
    remote::show(connected, &host, arguments.remote_xpmfs.clone())
}

/// The server that the arguments name.
fn server(arguments: &Arguments, global: &Global) -> anyhow::Result<MonitorServer> {
    let mut server = match &arguments.workspace {
        Some(id) => of_settings(id, arguments, global)?,
        None => MonitorServer {
            workspace: String::new(),
            workdir: OsString::new(),
            ssh: Default::default(),
        },
    };
    if let Some(workdir) = &arguments.workdir {
        server.workdir.clone_from(workdir);
    }
    let ssh = &mut server.ssh;
    if let Some(host) = &arguments.host {
        ssh.host.clone_from(host);
    }
    if ssh.host.is_empty() || server.workdir.is_empty() {
        let message = "name a HOST and a WORKDIR there, or a remote workspace of the settings with --workspace";
        return Err(Usage(message.to_owned()).into());
    }
    for (flag, setting) in [
        (&arguments.remote_shell_init, &mut ssh.shell_init),
        (&arguments.remote_python, &mut ssh.python),
        (&arguments.remote_xpm, &mut ssh.xpm_path),
    ] {
        if flag.is_some() {
            setting.clone_from(flag);
        }
    }
    ssh.uv_offline |= arguments.uv_offline;
    if !arguments.options.is_empty() {
        ssh.options = options(&arguments.options)?;
    }
    Ok(server)
}

/// A workspace of the settings, which may have no host if the arguments name one.
fn of_settings(id: &str, arguments: &Arguments, global: &Global) -> anyhow::Result<MonitorServer> {
    let settings = Settings::load(global.settings.as_deref())?;
    let selection = Selection {
        workspace: Some(id.to_owned()),
        ..Selection::default()
    };
    let workspace = settings.select(&selection)?;
    if !workspace.is_remote() && arguments.host.is_none() {
        bail!("the workspace {id} is on this machine: `xpmfs tui -w {id}` shows it");
    }
    Ok(MonitorServer::of(&workspace))
}

/// The arguments of `ssh` for options: `-p 2222` as it is, `Compression=yes` after `-o`.
fn options(given: &[String]) -> anyhow::Result<Vec<String>> {
    let mut options = Vec::new();
    for option in given {
        match option.starts_with('-') {
            true => options.extend(words::split(option).context("cannot use --ssh-option")?),
            false => options.extend(["-o".to_owned(), option.clone()]),
        }
    }
    Ok(options)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        global: Global,
        #[command(flatten)]
        arguments: Arguments,
    }

    const SETTINGS: &str = "workspaces:\n  - id: cluster\n    path: ~/xp\n    ssh: {host: me@cluster, shell_init: module load x, \
        python: python3, xpm_path: /x, options: [-p, '22']}\n  - {id: here, path: /here}\n";

    fn parsed(words: &[&str]) -> anyhow::Result<MonitorServer> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("settings.yaml");
        std::fs::write(&file, SETTINGS).unwrap();
        let first = ["ssh-monitor", "--settings", file.to_str().unwrap()];
        let line = Line::try_parse_from(first.iter().chain(words))?;
        server(&line.arguments, &line.global)
    }

    #[test]
    fn each_setting_is_overridden_by_its_flag() {
        let of_settings = parsed(&["-w", "cluster"]).unwrap();
        assert_eq!(of_settings.workdir, "~/xp");
        assert_eq!(of_settings.ssh.host, "me@cluster");
        assert_eq!(of_settings.ssh.options, ["-p", "22"]);
        let all = [
            "-w",
            "cluster",
            "other",
            "/w",
            "--remote-shell-init",
            "init",
            "--uv-offline",
            "--remote-python",
            "py",
            "--remote-xpm",
            "xpm",
            "-o",
            "-p 2222",
            "-o",
            "Compression=yes",
            "--request-timeout",
            "1.5",
        ];
        let with = parsed(&all).unwrap();
        assert_eq!(
            (with.ssh.host.as_str(), with.workdir.to_str()),
            ("other", Some("/w"))
        );
        assert_eq!(with.ssh.shell_init.as_deref(), Some("init"));
        assert!(with.ssh.uv_offline && !of_settings.ssh.uv_offline);
        assert_eq!(with.ssh.python.as_deref(), Some("py"));
        assert_eq!(with.ssh.xpm_path.as_deref(), Some("xpm"));
        assert_eq!(with.ssh.options, ["-p", "2222", "-o", "Compression=yes"]);
        let bare = parsed(&["host", "/w"]).unwrap();
        assert_eq!((bare.ssh.host.as_str(), bare.ssh.xpm_path), ("host", None));
    }

    #[test]
    fn what_names_no_workspace_there_is_refused() {
        for (words, expected) in [
            (&[][..], "name a HOST"),
            (&["host"], "name a HOST"),
            (&["-w", "here"], "on this machine"),
            (&["host", "/w", "-o", "-p '"], "a quote has no end"),
            (&["host", "/w", "--request-timeout", "0"], "seconds"),
            (&["host", "/w", "--request-timeout", "inf"], "seconds"),
        ] {
            let error = parsed(words).err().map(|error| format!("{error:#}"));
            assert!(
                error.as_ref().is_some_and(|it| it.contains(expected)),
                "{words:?}: {error:?}"
            );
        }
    }
}
