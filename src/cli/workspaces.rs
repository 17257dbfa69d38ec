//! `xpmfs workspaces`: the workspaces of the settings file.

use std::path::Path;
use std::process::ExitCode;

use clap::Subcommand;
use serde_json::{Value, json};

use super::{Global, Listing, print, table};
use crate::settings::{Folder, Mode, Settings, Workspace};

/// What to do with workspaces.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Lists them in the order of the settings; with -v also their folders and triggers, and whether they exist
    List {
        /// How they are printed.
        #[command(flatten)]
        listing: Listing,
    },
}

/// Runs the command.
///
/// # Errors
///
/// If the settings cannot be read.
pub fn run(command: &Command, global: &Global) -> anyhow::Result<ExitCode> {
    let settings = Settings::load(global.settings.as_deref())?;
    match command {
        Command::List { .. } if global.json => {
            let listed: Vec<Value> = settings
                .workspaces
                .iter()
                .zip(settings.all_folders())
                .map(|(workspace, folders)| as_json(&settings, workspace, folders))
                .collect();
            print::json(&listed)?;
        }
        Command::List { .. } if settings.workspaces.is_empty() => {
            let file = settings.file.display();
            let why = if settings.file.is_file() {
                "has no workspaces"
            } else {
                "does not exist"
            };
            print::line(&format!(
                "{file} {why}; add one: `workspaces:` with an `id` and a `path`"
            ));
        }
        Command::List { .. } if global.verbose > 0 => print::text(&in_full(&settings))?,
        Command::List { .. } => print::text(&in_short(&settings))?,
    }
    Ok(ExitCode::SUCCESS)
}

/// A line for each; nothing is looked up on a disk.
fn in_short(settings: &Settings) -> String {
    let mut table = table::plain(&["ID", "PATH", "FOLDERS"]);
    for (workspace, folders) in settings.workspaces.iter().zip(settings.all_folders()) {
        let counts = Mode::ALL.into_iter().filter_map(|mode| {
            let count = folders.iter().filter(|folder| folder.mode == mode).count();
            (count > 0).then(|| format!("{count} {mode}"))
        });
        let counts: Vec<String> = counts.collect();
        table::row(
            &mut table,
            [workspace.id.as_str(), &place(workspace), &counts.join(", ")],
        );
    }
    table::text(&table)
}

/// A line for each workspace, folder and trigger.
fn in_full(settings: &Settings) -> String {
    let mut table = table::plain(&["ID", "KEY", "VALUE", "STATE"]);
    let missing = |path: &Path| if path.is_dir() { "" } else { "missing" };
    for (workspace, folders) in settings.workspaces.iter().zip(settings.all_folders()) {
        let state = if workspace.is_remote() {
            "remote"
        } else {
            missing(&workspace.path)
        };
        table::row(
            &mut table,
            [workspace.id.as_str(), "path", &place(workspace), state],
        );
        for Folder { path, mode, .. } in folders {
            let state = if workspace.is_remote() {
                ""
            } else {
                missing(&path)
            };
            table::row(
                &mut table,
                ["", mode.name(), &path.display().to_string(), state],
            );
        }
        for trigger in &workspace.triggers {
            table::row(&mut table, ["", "trigger", trigger, ""]);
        }
    }
    table::text(&table)
}

/// Where a workspace is: its path, with the host in front if it is elsewhere.
fn place(workspace: &Workspace) -> String {
    let path = workspace.path.display();
    match &workspace.ssh {
        Some(ssh) if workspace.is_remote() => format!("{}:{path}", ssh.host),
        _ => path.to_string(),
    }
}

/// Everything but environment variables: they may be secrets, and listings are pasted into reports.
fn as_json(settings: &Settings, workspace: &Workspace, folders: Vec<Folder>) -> Value {
    let local = |path: &Path| {
        if workspace.is_remote() {
            Value::Null
        } else {
            json!(path.is_dir())
        }
    };
    let folders = folders.into_iter().map(|folder| {
        let path = folder.path.to_string_lossy();
        json!({"path": path, "mode": folder.mode, "exclude": folder.exclude, "exists": local(&folder.path)})
    });
    json!({
        "id": workspace.id,
        "path": workspace.path.to_string_lossy(),
        "raw_path": workspace.raw_path,
        "exists": local(&workspace.path),
        "remote": workspace.is_remote(),
        "ssh": workspace.ssh,
        "folders": folders.collect::<Vec<_>>(),
        "triggers": workspace.triggers,
        "max_retries": workspace.max_retries,
        "lock_mode": workspace.lock_mode,
        "history": workspace.history,
        "xpmfs": settings.tuning_of(workspace),
    })
}
