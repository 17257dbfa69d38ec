//! Checks the workspaces of a settings file against each other and against the disk.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};

use super::coerce;
use super::environment::{self, Environment};
use super::error::Finding;
use super::model::{Folder, Mode};
use super::placement;
use super::yaml::{Node, Position, emit_scalar};
use crate::sys::shell_word::shell_word;

/// Finds the mistakes in the workspaces of a file.
pub(super) fn check_workspaces(workspaces: &[Node], environment: &Environment) -> Vec<Finding> {
    let places = workspaces
        .iter()
        .map(|node| WorkspaceNode::read(node, environment));
    let places: Vec<WorkspaceNode<'_>> = places.collect();
    let mut checker = Checker {
        environment,
        findings: Vec::new(),
    };
    checker.workspaces(&WorkspaceNodes::new(&places));
    checker.findings
}

/// The workspaces of the file.
struct WorkspaceNodes<'p, 'n> {
    all: &'p [WorkspaceNode<'n>],
    /// The last workspace with each id: experimaestro uses that one for `alt_workspaces`.
    by_id: HashMap<&'n str, &'p WorkspaceNode<'n>>,
}

impl<'p, 'n> WorkspaceNodes<'p, 'n> {
    fn new(all: &'p [WorkspaceNode<'n>]) -> WorkspaceNodes<'p, 'n> {
        let by_id = all.iter().filter_map(|place| Some((place.id?.0, place)));
        WorkspaceNodes {
            all,
            by_id: by_id.collect(),
        }
    }

    fn by_id(&self, id: &str) -> Option<&'p WorkspaceNode<'n>> {
        self.by_id.get(id).copied()
    }

    /// The path that an item of `alt_workspaces` means, as it is written in the file.
    fn written_path(&self, reference: &'n str) -> &'n str {
        let known = self.by_id(reference);
        let path = known.and_then(|place| place.node.get("path")?.as_str());
        path.unwrap_or(reference)
    }
}

/// A workspace of the file, as far as it can be read.
struct WorkspaceNode<'n> {
    node: &'n Node,
    id: Option<(&'n str, Position)>,
    /// Of a local workspace: the path as it is written, resolved, and its place.
    primary: Option<(&'n str, PathBuf, Position)>,
    remote: bool,
}

impl<'n> WorkspaceNode<'n> {
    fn read(node: &'n Node, environment: &Environment) -> WorkspaceNode<'n> {
        let text = |key| {
            node.get(key)
                .and_then(|value| Some((value.as_str()?, value.at)))
        };
        let host = node
            .get("ssh")
            .and_then(|ssh| ssh.get("host"))
            .and_then(|host| coerce::string(&host.value));
        let remote = host.is_some_and(|host| !host.is_empty());
        let primary = text("path").filter(|_| !remote).and_then(|(written, at)| {
            Some((
                written,
                environment::expand_and_resolve(Path::new(written), environment).ok()?,
                at,
            ))
        });
        WorkspaceNode {
            node,
            id: text("id"),
            primary,
            remote,
        }
    }

    /// The strings in the list of a key, and their places.
    fn strings(&self, key: &str) -> Vec<(&'n str, Position)> {
        let items = self.node.get(key).map_or(&[][..], Node::items);
        items
            .iter()
            .filter_map(|item| Some((item.as_str()?, item.at)))
            .collect()
    }

    /// Its name in messages.
    fn name(&self) -> String {
        self.id.map_or_else(
            || "a workspace without id".to_owned(),
            |(id, _)| format!("the workspace `{id}`"),
        )
    }
}

struct Checker<'e> {
    environment: &'e Environment,
    findings: Vec<Finding>,
}

impl Checker<'_> {
    fn error(&mut self, at: Position, message: impl Into<String>, advice: impl Into<String>) {
        self.findings.push(Finding::error(at, message, advice));
    }

    fn warning(&mut self, at: Position, message: impl Into<String>, advice: impl Into<String>) {
        self.findings.push(Finding::warning(at, message, advice));
    }

    fn workspaces(&mut self, places: &WorkspaceNodes<'_, '_>) {
        self.ids(places.all);
        self.triggers(places.all);
        for place in places.all {
            self.alternatives(place, places);
            self.lock_mode(place);
            if let Some((written, primary, at)) = &place.primary {
                self.primary(written, primary, *at);
                self.folders(place, primary, places);
            }
        }
        self.shared_primaries(places.all);
    }

    fn ids(&mut self, places: &[WorkspaceNode<'_>]) {
        let mut seen: HashMap<&str, Position> = HashMap::new();
        for (id, at) in places.iter().filter_map(|place| place.id) {
            if id.is_empty() {
                self.error(
                    at,
                    "the id is empty: --workspace cannot select it",
                    "write a name",
                );
            } else if let Some(first) = seen.get(id) {
                let message = format!(
                    "two workspaces have the id `{id}`, the first on line {}",
                    first.line
                );
                self.error(
                    at,
                    message,
                    "only the first can be selected: give this one another id",
                );
            } else {
                seen.insert(id, at);
            }
        }
    }

    fn triggers(&mut self, places: &[WorkspaceNode<'_>]) {
        let mut seen: HashMap<&str, (String, usize)> = HashMap::new();
        for place in places {
            for (trigger, at) in place.strings("triggers") {
                if place.remote {
                    let message = format!(
                        "the trigger `{trigger}` has no effect: remote workspaces are never chosen by triggers"
                    );
                    self.warning(at, message, "remove it");
                } else if let Some((owner, line)) = seen.get(trigger) {
                    let message = format!(
                        "the trigger `{trigger}` is already in {owner} on line {line}, which comes first"
                    );
                    self.warning(at, message, "remove it, or make it different");
                } else {
                    seen.insert(trigger, (place.name(), at.line));
                }
            }
        }
    }

    /// Warns of `alt_workspaces`, with what to write instead.
    fn alternatives(&mut self, place: &WorkspaceNode<'_>, places: &WorkspaceNodes<'_, '_>) {
        let Some((key, _)) = place.node.entry("alt_workspaces") else {
            return;
        };
        let entries: Vec<String> = place
            .strings("alt_workspaces")
            .into_iter()
            .map(|(reference, _)| {
                format!(
                    "  - path: {}\n    mode: use",
                    emit_scalar(places.written_path(reference), false)
                )
            })
            .collect();
        let advice = if entries.is_empty() {
            "remove it".to_owned()
        } else {
            format!(
                "remove it and write, before the other folders:\nfolders:\n{}",
                entries.join("\n")
            )
        };
        self.warning(key.at, "`alt_workspaces` is deprecated", advice);
    }

    /// Warns of a value that experimaestro's `parse_lock_mode` (`locking.py`) reads as `inherit`.
    fn lock_mode(&mut self, place: &WorkspaceNode<'_>) {
        let Some(node) = place.node.get("lock_mode") else {
            return;
        };
        let Some(text) = node.as_str() else { return };
        let mode = text.trim();
        let digits = mode.strip_prefix("0o").unwrap_or(mode);
        let octal = !digits.is_empty() && digits.bytes().all(|b| matches!(b, b'0'..=b'7'));
        if !octal && !matches!(mode, "inherit" | "umask") {
            let message = format!("`{text}` is not a lock mode, and read as `inherit`");
            let advice = "write `inherit`, `umask`, or an octal mode in quotes, as in \"0664\"";
            self.warning(node.at, message, advice);
        }
    }

    fn primary(&mut self, written: &str, primary: &Path, at: Position) {
        if has_variable(written) {
            return;
        }
        if !written.starts_with(['/', '~']) {
            let message = match written {
                "" => "the path is empty, which means the current directory".to_owned(),
                _ => format!("the path `{written}` depends on the current directory"),
            };
            self.warning(at, message, "write it in full, or from `~/`");
            // Whether it exists depends on that, too.
            return;
        }
        let shown = primary.display();
        match std::fs::metadata(primary) {
            Ok(metadata) if metadata.is_dir() => {}
            Ok(_) => self.not_a_directory(at, primary),
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
                self.not_a_directory(at, primary);
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.warning(
                    at,
                    format!("the directory {shown} does not exist"),
                    format!(
                        "correct the path, or create it: mkdir -p {}",
                        shell_word(primary)
                    ),
                );
            }
            Err(error) => {
                self.warning(
                    at,
                    format!("the directory {shown} cannot be read: {error}"),
                    "check its permissions, and that its disk is mounted",
                );
            }
        }
    }

    fn not_a_directory(&mut self, at: Position, path: &Path) {
        let message = format!("{} is not a directory", path.display());
        self.error(at, message, "give the path of a directory");
    }

    fn folders(
        &mut self,
        place: &WorkspaceNode<'_>,
        primary: &Path,
        places: &WorkspaceNodes<'_, '_>,
    ) {
        let (mut folders, mut at) = (Vec::new(), Vec::new());
        for (reference, place) in place.strings("alt_workspaces") {
            let known = places.by_id(reference);
            let known = known.and_then(|other| Some(other.primary.as_ref()?.1.clone()));
            let path = known.unwrap_or_else(|| PathBuf::from(reference));
            folders.push(Folder::new(
                Mode::Use,
                environment::expand_user(&path, self.environment).unwrap_or(path),
            ));
            at.push(place);
        }
        for folder in place.node.get("folders").map_or(&[][..], Node::items) {
            let Some(path) = folder.get("path") else {
                continue;
            };
            let written = path
                .as_str()
                .filter(|text| !has_variable(text))
                .map(|text| environment::expand_user(Path::new(text), self.environment));
            let Some(Ok(expanded)) = written else {
                continue;
            };
            let mode = match folder.get("mode") {
                None => Some(Mode::Use),
                Some(mode) => coerce::string(&mode.value).and_then(|text| Mode::meant(&text)),
            };
            // A wrong mode is reported already.
            let Some(mode) = mode else { continue };
            folders.push(Folder::new(mode, expanded));
            at.push(path.at);
        }
        for problem in placement::problems(primary, &folders, self.environment) {
            let Some(at) = at.get(problem.folder) else {
                continue;
            };
            if problem.fatal {
                self.error(*at, problem.message, problem.advice);
            } else {
                self.warning(*at, problem.message, problem.advice);
            }
        }
    }

    fn shared_primaries(&mut self, places: &[WorkspaceNode<'_>]) {
        let mut seen: HashMap<&Path, String> = HashMap::new();
        for place in places {
            let Some((_, primary, at)) = &place.primary else {
                continue;
            };
            match seen.get(primary.as_path()) {
                Some(owner) => {
                    let message = format!("{} is also the path of {owner}", primary.display());
                    self.warning(
                        *at,
                        message,
                        "--workdir and `mount` use only the first one: keep one of the two",
                    );
                }
                None => drop(seen.insert(primary, place.name())),
            }
        }
    }
}

/// Whether a path has a variable that is not set. That has its own warning, and the path cannot be resolved.
fn has_variable(written: &str) -> bool {
    written.contains("${")
}
