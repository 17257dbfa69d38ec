//! Rewrites `alt_workspaces` as `use` folders, in the text of a settings file.
//!
//! Everything else in the text stays, comments included. What makes this hard:
//!
//! 1. Each list may be in brackets or in lines, and `folders` may come before, after, or not be there. Without `folders`, the key gets
//!    the new name and each item becomes a folder, in its place ([`Rewriter::rename`]); with it, the items are inserted before its
//!    first one and the old list is removed ([`Rewriter::merge`]).
//! 2. Aliases and merge keys make one text mean several values. Such a workspace is not rewritten: see [`Migration::left`].
//! 3. A text that is rewritten wrongly would detach folders. So the new text is read, and refused unless every workspace has the
//!    folders that it had ([`same_meaning`]).
//!
//! `rewriter`: edits the text of one workspace; `text`: characters of a text by line, and edits of it

mod rewriter;
mod text;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};

use rewriter::Rewriter;
use text::Text;

use super::environment::{self, Environment};
use super::error::Finding;
use super::load;
use super::model::{Folder, Settings};
use super::yaml::{self, Node, Position, parse_written};
use super::{SettingsError, Severity};

/// What a migration does to a text.
#[derive(Debug)]
pub struct Migration {
    /// The text as it is.
    pub before: String,
    /// The text as it will be; the same if nothing can be rewritten.
    pub after: String,
    /// The ids of the workspaces that are rewritten.
    pub rewritten: Vec<String>,
    /// Workspaces that must be rewritten by hand, and why.
    pub left: Vec<Finding>,
}

/// Works out the migration of a settings file; changes nothing.
///
/// # Errors
///
/// The file is missing, cannot be read, or has mistakes.
pub fn migration(path: &Path, environment: &Environment) -> Result<Migration, SettingsError> {
    let text = load::read_existing(path)?;
    let reading = load::parse(&text, path, environment);
    let errors = reading.findings.into_iter();
    let errors: Vec<Finding> = errors
        .filter(|finding| finding.severity == Severity::Error)
        .collect();
    if !errors.is_empty() {
        return Err(SettingsError::Invalid {
            path: path.to_path_buf(),
            findings: errors,
        });
    }
    let (Ok(raw), Ok((nodes, root, written))) = (yaml::parse(&text), parse_written(&text)) else {
        return Err(SettingsError::Rewrite {
            path: path.to_path_buf(),
            reason: "it is not valid YAML".to_owned(),
        });
    };
    let mut rewriter = Rewriter {
        nodes: &nodes,
        text: Text::new(&written),
        written: &written,
        root: &raw.root,
        environment,
        edits: Vec::new(),
    };
    let (mut rewritten, mut left) = (Vec::new(), Vec::new());
    let workspaces = raw.root.get("workspaces").map_or(&[][..], Node::items);
    let ids = rewriter.workspace_nodes(root);
    for (index, workspace) in workspaces.iter().enumerate() {
        let Some((key, _)) = workspace.entry("alt_workspaces") else {
            continue;
        };
        let before = rewriter.edits.len();
        let id = workspace.get("id").and_then(Node::as_str).unwrap_or("");
        match rewriter.workspace(ids.get(index).copied(), workspace, key.at) {
            Ok(()) => rewritten.push(id.to_owned()),
            Err(unable) => {
                rewriter.edits.truncate(before);
                left.push(Finding::warning(
                    unable.at,
                    format!(
                        "the workspace `{id}` must be rewritten by hand: {}",
                        unable.why
                    ),
                    "`xpmfs settings check` prints what to write",
                ));
            }
        }
    }
    if !rewritten.is_empty() && rewriter.text.apply(&[], &text) != text {
        return Err(SettingsError::Rewrite {
            path: path.to_path_buf(),
            reason: "its lines end in several ways (LF, CR LF, CR): save it with one, and run the command again".to_owned(),
        });
    }
    let after = rewriter.text.apply(&rewriter.edits, &text);
    if rewritten.is_empty() || !same_meaning(&text, &after, path, environment) {
        let why = "a change of the text would change more than that";
        let unable = rewritten.iter().map(|id| {
            let message = format!("the workspace `{id}` must be rewritten by hand: {why}");
            Finding::warning(
                Position::START,
                message,
                "`xpmfs settings check` prints what to write",
            )
        });
        left.extend(unable);
        return Ok(Migration {
            after: text.clone(),
            before: text,
            rewritten: Vec::new(),
            left,
        });
    }
    Ok(Migration {
        before: text,
        after,
        rewritten,
        left,
    })
}

/// Whether two texts have the same settings, but for how folders are written.
fn same_meaning(before: &str, after: &str, path: &Path, environment: &Environment) -> bool {
    let settings = [before, after].map(|text| {
        let reading = load::parse(text, path, environment);
        let mut findings = reading.findings.iter();
        let wrong = findings.any(|finding| finding.severity == Severity::Error);
        (!wrong).then_some(reading.settings)
    });
    let [Some(before), Some(after)] = settings else {
        return false;
    };
    let plain = |settings: &Settings| {
        let mut settings = settings.clone();
        for workspace in &mut settings.workspaces {
            workspace.alt_workspaces.clear();
            workspace.folders.clear();
        }
        settings
    };
    let folders = |settings: &Settings| {
        let workspaces = settings.workspaces.iter();
        let folders = workspaces.map(|workspace| {
            let folders = settings.folders_in(workspace, environment).into_iter();
            // A workspace's own path has its links followed, that of a folder does not.
            let resolved = |folder: Folder| {
                let path = environment::expand_and_resolve(&folder.path, environment);
                (path.unwrap_or(folder.path), folder.mode, folder.exclude)
            };
            folders.map(resolved).collect::<Vec<_>>()
        });
        folders.collect::<Vec<_>>()
    };
    // Debug compares NaN as equal.
    format!("{:?}", plain(&before)) == format!("{:?}", plain(&after))
        && folders(&before) == folders(&after)
}

/// Replaces the file by the new text, in one step. A file that is a symlink stays one. Returns the file that was written.
///
/// # Errors
///
/// The file was changed since it was read, or cannot be written.
pub fn write(path: &Path, migration: &Migration) -> Result<PathBuf, SettingsError> {
    let failed = |source: io::Error| SettingsError::Rewrite {
        path: path.to_path_buf(),
        reason: source.to_string(),
    };
    if load::read(path)?.as_deref() != Some(migration.before.as_str()) {
        let message = "it was changed meanwhile: run the command again";
        return Err(failed(io::Error::other(message)));
    }
    let target = fs::canonicalize(path).map_err(failed)?;
    replace(&target, &migration.after).map_err(failed)?;
    Ok(target)
}

fn replace(target: &Path, text: &str) -> io::Result<()> {
    let metadata = fs::metadata(target)?;
    let dir = target.parent().unwrap_or(Path::new("/"));
    let name = target.file_name().unwrap_or_default().to_string_lossy();
    let new = dir.join(format!(".{name}.{}.tmp", std::process::id()));
    let mut options = OpenOptions::new();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&new)?;
    let written = (|| {
        let own = file.metadata()?;
        if (own.uid(), own.gid()) != (metadata.uid(), metadata.gid()) {
            fchown(&file, Some(metadata.uid()), Some(metadata.gid()))?;
        }
        file.set_permissions(metadata.permissions())?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, target)
    })();
    if written.is_err() {
        let _ = fs::remove_file(&new);
        return written;
    }
    File::open(dir)?.sync_all()
}
