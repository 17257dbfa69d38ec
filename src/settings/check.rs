//! Every mistake in a settings file, in one pass.
//!
//! What the loader refuses is there already (`decode`); here is what is legal YAML, of the right types, and still
//! cannot be used or is not what was meant. Each part of the file is looked at for itself, so that a mistake in
//! one hides nothing in another.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};

use super::coerce;
use super::environment::Environment;
use super::error::{Error, Finding};
use super::interpolate::Unset;
use super::load;
use super::model::{Folder, Mode};
use super::path;
use super::placement;
use super::yaml::Conflict;
use super::yaml::{Lines, Node, Position};

/// Checks a settings file, in an environment; gives the findings in the order of their places.
///
/// # Errors
///
/// [`Error::Read`] if there is no such file or it cannot be read.
pub fn check(path: &Path, environment: &Environment) -> Result<Vec<Finding>, Error> {
    let text = load::read(path)?.ok_or_else(|| Error::Read {
        path: path.to_path_buf(),
        source: match path.exists() {
            true => io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file"),
            false => io::Error::new(io::ErrorKind::NotFound, "there is no such file"),
        },
    })?;
    Ok(check_text(&text, path, environment))
}

/// [`check`] for a text that is (to be) in a file.
pub(super) fn check_text(text: &str, file: &Path, environment: &Environment) -> Vec<Finding> {
    let reading = load::parse(text, file, environment);
    let mut findings = reading.findings;
    if let Some(document) = &reading.document {
        let lines = Lines::new(text);
        let unset = reading.unset.iter();
        findings.extend(unset.map(|unset| unset_variable(&lines, unset)));
        findings.extend(document.conflicts.iter().map(conflict));
        findings.extend(document.duplicates.iter().map(|(at, key)| {
            Finding::warning(
                *at,
                format!("the key `{key}` stands here a second time: the last one counts"),
                "remove one of the two",
            )
        }));
        findings.extend(release(&document.root));
        let workspaces = document.root.get("workspaces").map_or(&[][..], Node::items);
        let places: Vec<Place<'_>> = workspaces
            .iter()
            .map(|node| Place::read(node, environment))
            .collect();
        let places = Places::new(&places);
        let mut checker = Checker {
            environment,
            findings: Vec::new(),
        };
        checker.workspaces(&places);
        findings.append(&mut checker.findings);
    }
    findings.sort();
    findings.dedup();
    findings
}

/// A key that one `<<` merges with different values.
fn conflict(conflict: &Conflict) -> Finding {
    let (key, [first, other]) = (&conflict.key, conflict.values);
    Finding::warning(
        conflict.at,
        format!(
            "the mappings that this `<<` merges have different values for `{key}`, on lines {} and {}: here and for experimaestro with \
             PyYAML up to 6.0.3 the first in the list counts, with PyYAML 6.0.4 the last",
            first.line, other.line
        ),
        format!("write `{key}: …` beside the `<<`, or in one of the merged mappings alone"),
    )
}

/// `release` is read, and does nothing yet.
fn release(root: &Node) -> Vec<Finding> {
    let workspaces = root.get("workspaces").map_or(&[][..], Node::items);
    let all = [root].into_iter().chain(workspaces);
    let keys = all.filter_map(|node| Some(node.get("xpmfs")?.entry("release")?.0));
    let findings = keys.map(|key| {
        Finding::warning(
            key.at,
            "`release` does nothing yet: no copy in the workspace's own directory is released",
            "do not rely on it to keep space free, or remove it",
        )
    });
    findings.collect()
}

/// Where exactly the variable is written, if it can be found: values know only where they begin.
fn unset_variable(lines: &Lines<'_>, unset: &Unset) -> Finding {
    /// Bytes that are searched: a line may be as long as the file.
    const SEARCHED: usize = 4096;
    let mut at = unset.at;
    let rest = lines.rest(at);
    let mut end = rest.len().min(SEARCHED + unset.written.len());
    while !rest.is_char_boundary(end) {
        end -= 1;
    }
    let found = rest.get(..end).and_then(|near| near.find(&unset.written));
    if let Some(offset) = found {
        at.column += rest.get(..offset).unwrap_or("").chars().count();
    }
    let variable = &unset.variable;
    Finding::warning(
        at,
        format!(
            "the variable `{variable}` is not set: `{}` stays as it is written",
            unset.written
        ),
        format!(
            "set it (export {variable}=…) before xpmfs and experimaestro run, or write the value"
        ),
    )
}

/// The workspaces of the file.
struct Places<'p, 'n> {
    all: &'p [Place<'n>],
    /// The last with each id, as experimaestro finds what `alt_workspaces` refers to.
    by_id: HashMap<&'n str, &'p Place<'n>>,
}

impl<'p, 'n> Places<'p, 'n> {
    fn new(all: &'p [Place<'n>]) -> Places<'p, 'n> {
        let by_id = all.iter().filter_map(|place| Some((place.id?.0, place)));
        Places {
            all,
            by_id: by_id.collect(),
        }
    }

    fn by_id(&self, id: &str) -> Option<&'p Place<'n>> {
        self.by_id.get(id).copied()
    }

    /// The path that an item of `alt_workspaces` stands for, as it is written in the file.
    fn written_path(&self, reference: &'n str) -> &'n str {
        let known = self.by_id(reference);
        let path = known.and_then(|place| place.node.get("path")?.as_str());
        path.unwrap_or(reference)
    }
}

/// A workspace of the file, as far as it can be read.
struct Place<'n> {
    node: &'n Node,
    id: Option<(&'n str, Position)>,
    /// As it is written, resolved, and where it is written; of a local workspace.
    primary: Option<(&'n str, PathBuf, Position)>,
    remote: bool,
}

impl<'n> Place<'n> {
    fn read(node: &'n Node, environment: &Environment) -> Place<'n> {
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
                path::expand_and_resolve(Path::new(written), environment).ok()?,
                at,
            ))
        });
        Place {
            node,
            id: text("id"),
            primary,
            remote,
        }
    }

    /// Its strings below a key that holds a list, and where they are.
    fn strings(&self, key: &str) -> Vec<(&'n str, Position)> {
        let items = self.node.get(key).map_or(&[][..], Node::items);
        items
            .iter()
            .filter_map(|item| Some((item.as_str()?, item.at)))
            .collect()
    }

    /// What to call it in a message.
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

    fn workspaces(&mut self, places: &Places<'_, '_>) {
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

    fn ids(&mut self, places: &[Place<'_>]) {
        let mut seen: HashMap<&str, Position> = HashMap::new();
        for (id, at) in places.iter().filter_map(|place| place.id) {
            if id.is_empty() {
                self.error(
                    at,
                    "the id is empty: it cannot be given to --workspace",
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

    fn triggers(&mut self, places: &[Place<'_>]) {
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

    /// `alt_workspaces` is deprecated; shows what to write instead.
    fn alternatives(&mut self, place: &Place<'_>, places: &Places<'_, '_>) {
        let Some((key, _)) = place.node.entry("alt_workspaces") else {
            return;
        };
        let entries: Vec<String> = place
            .strings("alt_workspaces")
            .into_iter()
            .map(|(reference, _)| {
                format!(
                    "  - path: {}\n    mode: use",
                    quoted(places.written_path(reference))
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

    /// As experimaestro's `locking.py` (`parse_lock_mode`): what is none of these is taken for `inherit`.
    fn lock_mode(&mut self, place: &Place<'_>) {
        let Some(node) = place.node.get("lock_mode") else {
            return;
        };
        let Some(text) = node.as_str() else { return };
        let mode = text.trim();
        let digits = mode.strip_prefix("0o").unwrap_or(mode);
        let octal = !digits.is_empty() && digits.bytes().all(|b| matches!(b, b'0'..=b'7'));
        if !octal && !matches!(mode, "inherit" | "umask") {
            let message = format!("`{text}` is not a lock mode, and taken for `inherit`");
            let advice = "write `inherit`, `umask`, or an octal mode in quotes, as in \"0664\"";
            self.warning(node.at, message, advice);
        }
    }

    fn primary(&mut self, written: &str, primary: &Path, at: Position) {
        if open(written) {
            return;
        }
        if !written.starts_with(['/', '~']) {
            let message = match written {
                "" => "the path is empty, which means the current directory".to_owned(),
                _ => format!("the path `{written}` depends on the current directory"),
            };
            self.warning(at, message, "write it in full, or from `~/`");
            // Whether it is there depends on that, too.
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
                    format!("correct the path, or create it: mkdir -p {shown}"),
                );
            }
            Err(error) => {
                self.warning(
                    at,
                    format!("the directory {shown} cannot be looked at: {error}"),
                    "see to its permissions, and whether its disk is mounted",
                );
            }
        }
    }

    fn not_a_directory(&mut self, at: Position, path: &Path) {
        let message = format!("{} is not a directory", path.display());
        self.error(at, message, "give the path of a directory");
    }

    fn folders(&mut self, place: &Place<'_>, primary: &Path, places: &Places<'_, '_>) {
        let (mut folders, mut at) = (Vec::new(), Vec::new());
        for (reference, place) in place.strings("alt_workspaces") {
            let known = places.by_id(reference);
            let known = known.and_then(|other| Some(other.primary.as_ref()?.1.clone()));
            let path = known.unwrap_or_else(|| PathBuf::from(reference));
            folders.push(Folder::new(
                Mode::Use,
                path::expand_user(&path, self.environment).unwrap_or(path),
            ));
            at.push(place);
        }
        for folder in place.node.get("folders").map_or(&[][..], Node::items) {
            let Some(path) = folder.get("path") else {
                continue;
            };
            let written = path
                .as_str()
                .filter(|text| !open(text))
                .map(|text| path::expand_user(Path::new(text), self.environment));
            let Some(Ok(expanded)) = written else {
                continue;
            };
            let mode = match folder.get("mode") {
                None => Some(Mode::Use),
                Some(mode) => coerce::string(&mode.value).and_then(|text| Mode::meant(&text)),
            };
            // What is wrong with it has been said; what follows from it need not be.
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

    fn shared_primaries(&mut self, places: &[Place<'_>]) {
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
                        "--workdir and mounting know the first one only: keep one of the two",
                    );
                }
                None => drop(seen.insert(primary, place.name())),
            }
        }
    }
}

/// Whether a variable in a path is not set: that has a warning of its own, and where the path leads is not known.
fn open(written: &str) -> bool {
    written.contains("${")
}

/// A path as a YAML value.
fn quoted(path: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || matches!(c, '/' | '.' | '_' | '-' | '~');
    let starts = path.starts_with(['/', '.']) || path.starts_with("~/");
    if starts && path.chars().all(plain) {
        path.to_owned()
    } else {
        format!("{path:?}")
    }
}
