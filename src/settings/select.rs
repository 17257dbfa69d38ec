//! Selects the workspace of a command, also by triggers, the patterns of Python's `fnmatch.fnmatch`.
//!
//! Triggers are not shell globs: `*` and `?` match every character, also `/` and newline; `[!x]` negates and `[^x]` does not;
//! there is no escape character and there are no braces. A `[` without its `]` is itself. A set is read as
//! `fnmatch.translate` reads it, with its rules for hyphens.

use std::path::{Path, PathBuf};

use regex::{Regex, RegexBuilder};

use super::environment::{self, Environment};
use super::error::{SettingsError, nearest};
use super::model::{Settings, Workspace};

/// The workspace that the command line names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    /// `--workspace`: an id.
    pub workspace: Option<String>,
    /// `--workdir`: a directory, alone or instead of the workspace's path.
    pub workdir: Option<PathBuf>,
    /// `--experiment`: an id that triggers are matched against.
    pub experiment: Option<String>,
}

impl Settings {
    /// Chooses a workspace as experimaestro's `find_workspace` does: by id (remote ones too), with its path
    /// replaced by `workdir` if that is given; else by `workdir`; else the first local workspace with a trigger
    /// that matches the experiment; else the first local workspace.
    ///
    /// There are two differences. A `workdir` that is the path of a local workspace of the settings selects that workspace,
    /// with its folders; experimaestro uses it without settings. And a `workdir` that replaces a local workspace's path is
    /// made absolute.
    ///
    /// An empty string counts as missing.
    ///
    /// # Errors
    ///
    /// [`SettingsError::Selection`] if no workspace has that id, or no workspace can be chosen; [`SettingsError::Path`] if the
    /// directory's path cannot be resolved.
    pub fn select(&self, selection: &Selection) -> Result<Workspace, SettingsError> {
        self.select_in(selection, &Environment::of_process())
    }

    /// [`Settings::select`] in another environment.
    ///
    /// # Errors
    ///
    /// As [`Settings::select`].
    pub fn select_in(
        &self,
        selection: &Selection,
        environment: &Environment,
    ) -> Result<Workspace, SettingsError> {
        let workdir = selection
            .workdir
            .as_deref()
            .filter(|path| !path.as_os_str().is_empty());
        if let Some(id) = given(&selection.workspace) {
            let mut workspace = self.by_id(id)?.clone();
            if let Some(workdir) = workdir {
                workspace.path = if workspace.is_remote() {
                    environment::normal(workdir)
                } else {
                    resolved(workdir, environment)?
                };
            }
            return Ok(workspace);
        }
        if let Some(workdir) = workdir {
            let path = resolved(workdir, environment)?;
            let known = self.local().find(|workspace| workspace.path == path);
            return Ok(known.cloned().unwrap_or_else(|| Workspace {
                raw_path: environment::normal(workdir).to_string_lossy().into_owned(),
                ..Workspace::bare(path)
            }));
        }
        let triggered =
            given(&selection.experiment).and_then(|experiment| self.triggered_by(experiment));
        triggered
            .or_else(|| self.local().next())
            .cloned()
            .ok_or_else(|| self.nothing_to_choose())
    }

    /// The workspaces on this machine.
    fn local(&self) -> impl Iterator<Item = &Workspace> {
        self.workspaces
            .iter()
            .filter(|workspace| !workspace.is_remote())
    }

    /// The first local workspace with a trigger that matches.
    fn triggered_by(&self, experiment: &str) -> Option<&Workspace> {
        self.local().find(|workspace| {
            workspace
                .triggers
                .iter()
                .any(|text| Trigger::new(text).matches(experiment))
        })
    }

    /// The first workspace with an id.
    fn by_id(&self, id: &str) -> Result<&Workspace, SettingsError> {
        let found = self.workspaces.iter().find(|workspace| workspace.id == id);
        found.ok_or_else(|| {
            let file = self.file.display();
            let ids: Vec<&str> = self
                .workspaces
                .iter()
                .map(|workspace| workspace.id.as_str())
                .collect();
            SettingsError::Selection(match nearest(id, ids.iter().copied()) {
                _ if ids.is_empty() => {
                    format!("unknown workspace `{id}`: {}", self.no_workspaces())
                }
                Some(near) => {
                    format!("unknown workspace `{id}` in {file}; did you mean `{near}`?")
                }
                None => format!(
                    "unknown workspace `{id}` in {file} (known: {})",
                    ids.join(", ")
                ),
            })
        })
    }

    fn nothing_to_choose(&self) -> SettingsError {
        let why = if self.workspaces.is_empty() {
            self.no_workspaces()
        } else {
            format!("all workspaces of {} are remote", self.file.display())
        };
        SettingsError::Selection(format!(
            "no workspace to choose: {why}; give --workdir PATH, or add one to the settings (`id`, `path`)"
        ))
    }

    fn no_workspaces(&self) -> String {
        let file = self.file.display();
        if self.file.is_file() {
            format!("{file} has no workspaces")
        } else {
            format!("{file} does not exist")
        }
    }
}

/// An argument that is given and not empty.
fn given(text: &Option<String>) -> Option<&str> {
    text.as_deref().filter(|text| !text.is_empty())
}

fn resolved(path: &Path, environment: &Environment) -> Result<PathBuf, SettingsError> {
    environment::expand_and_resolve(path, environment).map_err(|error| SettingsError::Path {
        path: path.to_path_buf(),
        reason: error.to_string(),
    })
}

/// The most bytes that a compiled pattern may take.
const MAX_REGEX: usize = 64 << 20;

/// A pattern that experiment ids are matched against.
#[derive(Debug, Clone)]
pub struct Trigger {
    /// `None` for a pattern that is too large.
    regex: Option<Regex>,
}

impl Trigger {
    /// Reads a pattern; every string is one.
    #[must_use]
    pub fn new(pattern: &str) -> Trigger {
        let regex = RegexBuilder::new(&translate(pattern))
            .size_limit(MAX_REGEX)
            .build();
        Trigger { regex: regex.ok() }
    }

    /// Whether the whole name matches.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        self.regex
            .as_ref()
            .is_some_and(|regex| regex.is_match(name))
    }
}

/// `fnmatch.translate`: the regular expression for a pattern.
fn translate(pattern: &str) -> String {
    let mut rest = pattern.chars().collect::<Vec<char>>();
    rest.reverse();
    let mut regex = r"(?s)\A".to_owned();
    while let Some(c) = rest.pop() {
        match c {
            '*' => {
                while rest.last() == Some(&'*') {
                    rest.pop();
                }
                regex.push_str(".*");
            }
            '?' => regex.push('.'),
            '[' => match set_length(&rest) {
                Some(length) => {
                    let set: Vec<char> = rest.drain(rest.len() - length..).rev().collect();
                    rest.pop();
                    regex.push_str(&translate_set(&set));
                }
                None => regex.push_str(r"\["),
            },
            c => regex.push_str(&literal(c)),
        }
    }
    regex + r"\z"
}

/// One character in a regular expression, outside of brackets or inside.
fn literal(c: char) -> String {
    format!(r"\x{{{:x}}}", u32::from(c))
}

/// How many characters are in a set, before its `]`; `None` if it has no end. A `]` that comes first is in the set. The rest of
/// the pattern is in reverse.
fn set_length(rest: &[char]) -> Option<usize> {
    let at = |index: usize| rest.iter().rev().nth(index);
    let first = usize::from(at(0) == Some(&'!'));
    let first = first + usize::from(at(first) == Some(&']'));
    let end = rest.iter().rev().skip(first).position(|c| *c == ']');
    end.map(|end| first + end)
}

/// The regular expression for a set.
fn translate_set(set: &[char]) -> String {
    let mut chunks = chunks(set);
    let first = chunks
        .first_mut()
        .filter(|chunk| chunk.first() == Some(&'!'));
    let is_negated = first.map(|chunk| chunk.remove(0)).is_some();
    let chunks = chunks
        .iter()
        .map(|chunk| chunk.iter().copied().map(literal).collect());
    let chars = chunks.collect::<Vec<String>>().join("-");
    match (is_negated, chars.is_empty()) {
        (false, true) => r"[^\s\S]".to_owned(),
        (true, true) => ".".to_owned(),
        (false, false) => format!("[{chars}]"),
        (true, false) => format!("[^{chars}]"),
    }
}

/// Cuts a set at the hyphens of its ranges. Ranges whose end comes before their start are removed with both their ends, as in
/// Python 3.11 and later.
fn chunks(stuff: &[char]) -> Vec<Vec<char>> {
    let mut chunks: Vec<Vec<char>> = Vec::new();
    let mut start = 0;
    let mut from = if stuff.first() == Some(&'!') { 2 } else { 1 };
    while let Some(hyphen) = (from..stuff.len()).find(|i| stuff.get(*i) == Some(&'-')) {
        chunks.push(stuff.get(start..hyphen).unwrap_or_default().to_vec());
        start = hyphen + 1;
        from = hyphen + 3;
    }
    match stuff.get(start..) {
        Some(rest) if !rest.is_empty() => chunks.push(rest.to_vec()),
        // A hyphen at the end is itself.
        _ => {
            if let Some(last) = chunks.last_mut() {
                last.push('-');
            }
        }
    }
    for k in (1..chunks.len()).rev() {
        let backwards = match (
            chunks.get(k - 1).and_then(|c| c.last()),
            chunks.get(k).and_then(|c| c.first()),
        ) {
            (Some(low), Some(high)) => low > high,
            _ => false,
        };
        if backwards {
            let after = chunks.remove(k);
            if let Some(before) = chunks.get_mut(k - 1) {
                before.pop();
                before.extend(after.into_iter().skip(1));
            }
        }
    }
    chunks
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, name: &str) -> bool {
        Trigger::new(pattern).matches(name)
    }

    #[test]
    fn stars_and_questions_match_every_character() {
        assert!(matches("nlp-*", "nlp-a/b\nc"));
        assert!(matches("a?c", "a/c") && matches("a?c", "a\nc") && matches("a?c", "aéc"));
        assert!(matches("*", "") && !matches("?", ""));
        assert!(!matches("nlp-*", "xnlp-1") && !matches("nlp", "nlp\n"));
    }

    #[test]
    fn brackets_are_python_s() {
        assert!(matches("[!a]", "b") && !matches("[!a]", "a"));
        assert!(matches("[^a]", "^") && matches("[^a]", "a") && !matches("[^a]", "b"));
        assert!(matches("[]]", "]") && matches("[!]]", "x") && !matches("[!]]", "]"));
        assert!(
            matches("[", "[") && matches("[a", "[a") && matches("[!", "[!") && matches("[]", "[]")
        );
        assert!(!matches("[b-a]", "a") && !matches("[b-a]", "b") && matches("[!b-a]", "z"));
        assert!(matches("[a-c-e]", "b") && matches("[a-c-e]", "-") && !matches("[a-c-e]", "d"));
        assert!(matches(r"[\]", r"\") && matches(r"\*", r"\x") && !matches(r"\*", "*"));
        assert!(!matches("{a,b}", "a") && matches("{a,b}", "{a,b}"));
    }

    #[test]
    fn many_stars_take_no_exponential_time() {
        let pattern = "*a".repeat(60) + "b";
        assert!(!matches(&pattern, &"a".repeat(5000)));
    }
}
