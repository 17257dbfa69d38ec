//! `xpmfs workspaces`: the workspaces of the settings file.

use std::path::Path;
use std::process::ExitCode;

use clap::Subcommand;
use serde_json::{Value, json};

use super::{Global, Listing, print, table};
use crate::settings::{self, Folder, Mode, Settings, Workspace};
use crate::sys::printable::printable;

/// What to do with workspaces.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Lists them in the order of the settings; with -v, every key of each, as experimaestro prints them
    ///
    /// Example: `xpmfs workspaces list -v`
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

/// Every key of each workspace but its id and path, as experimaestro prints them; missing directories are marked.
fn in_full(settings: &Settings) -> String {
    let mut text = "Experimaestro workspaces:\n".to_owned();
    for workspace in &settings.workspaces {
        let missing = |path: &str| match workspace.is_remote() || Path::new(path).is_dir() {
            true => String::new(),
            false => "missing".to_owned(),
        };
        let path = workspace.path.to_string_lossy();
        let state = match &workspace.ssh {
            Some(ssh) if workspace.is_remote() => format!(" [remote: {}]", ssh.host),
            _ if missing(&path).is_empty() => String::new(),
            _ => "  # missing".to_owned(),
        };
        let line = format!("- {}: {path}{state}", workspace.id);
        let folders = workspace
            .folders
            .iter()
            .map(|folder| folder.path.to_string_lossy());
        let folders: Vec<_> = folders.collect();
        let keys = settings::workspace_keys(settings, workspace);
        let keys = keys.to_yaml_with(|text| match folders.iter().any(|folder| folder == text) {
            true => missing(text),
            false => String::new(),
        });
        text.push_str(&format!("{}\n{keys}\n", printable(&line)));
    }
    text
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
