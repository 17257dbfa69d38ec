//! Finds every mistake in a settings file, in one pass.
//!
//! `decode` has reported wrong types and missing keys. This finds values of the right type that cannot be used, or that are
//! probably not meant. Each part of the file is checked by itself, so that a mistake in one part hides no other.

use std::path::Path;

use super::check_workspaces::check_workspaces;
use super::coerce;
use super::environment::Environment;
use super::error::{Finding, SettingsError};
use super::interpolate::Unset;
use super::load;
use super::yaml::{Conflict, Lines, Node};

/// Checks a settings file, in an environment. Returns the findings in the order of their places.
///
/// # Errors
///
/// [`SettingsError::Read`] if the file is missing or cannot be read.
pub fn check(path: &Path, environment: &Environment) -> Result<Vec<Finding>, SettingsError> {
    let text = load::read_existing(path)?;
    Ok(check_text(&text, path, environment))
}

/// [`check`] for the text of a file.
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
                format!("the key `{key}` is here a second time: the last one counts"),
                "remove one of the two",
            )
        }));
        findings.extend(unlimited_read_through(&document.root));
        let workspaces = document.root.get("workspaces").map_or(&[][..], Node::items);
        findings.extend(check_workspaces(workspaces, environment));
    }
    findings.sort();
    findings.dedup();
    findings
}

/// Warns of a key that one `<<` merges with different values.
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

/// Warns of `recover_on: open` without `release.keep_free`.
fn unlimited_read_through(root: &Node) -> Vec<Finding> {
    let keeps_free = |node: &Node| {
        let release = node.get("xpmfs").and_then(|xpmfs| xpmfs.get("release"));
        release.is_some_and(|release| release.get("keep_free").is_some())
    };
    let workspaces = root.get("workspaces").map_or(&[][..], Node::items);
    let all = [root].into_iter().chain(workspaces);
    let keys = all.filter(|node| !keeps_free(node) && !keeps_free(root));
    let keys = keys.filter_map(|node| {
        let (key, value) = node.get("xpmfs")?.entry("recover_on")?;
        (coerce::string(&value.value)? == "open").then_some(key.at)
    });
    let findings = keys.map(|at| {
        Finding::warning(
            at,
            "with `recover_on: open`, reading jobs may fill the disk of the primary",
            "write `release: {keep_free: 100G}` beside it, with the space that is to stay free",
        )
    });
    findings.collect()
}

/// Warns of a variable that is not set, at its exact place if it can be found: a value knows only where it begins.
fn unset_variable(lines: &Lines<'_>, unset: &Unset) -> Finding {
    /// The most bytes that are searched: a line may be as long as the file.
    const MAX_SEARCH: usize = 4096;
    let mut at = unset.at;
    let rest = lines.rest(at);
    let mut end = rest.len().min(MAX_SEARCH + unset.written.len());
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
