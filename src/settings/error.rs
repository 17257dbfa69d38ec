//! Errors of the settings, and findings in a settings file.

use std::fmt;
use std::io;
use std::path::PathBuf;

use serde::Serialize;

use super::yaml::Position;

/// Why settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The file cannot be read.
    #[error("cannot read the settings {}: {source}; {}", path.display(), advice(source))]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file has mistakes.
    #[error("{}", invalid(path, findings))]
    Invalid {
        /// The file.
        path: PathBuf,
        /// The errors, in the order of the file; at least one.
        findings: Vec<Finding>,
    },
    /// No workspace has the id, or no workspace can be chosen.
    #[error("{0}")]
    Selection(String),
    /// A path cannot be used.
    #[error("{}: {reason}", path.display())]
    Path {
        /// The path, as it is written.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The file cannot be rewritten.
    #[error("cannot rewrite the settings {}: {reason}", path.display())]
    Rewrite {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The folders of a workspace contradict each other or the primary.
    #[error("{0}")]
    Folders(String),
}

/// The remedy for a file that cannot be read.
fn advice(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::NotFound => {
            "create it with `workspaces:`, and for each an `id` and a `path`, or give another file"
        }
        io::ErrorKind::InvalidData => "save it as UTF-8",
        io::ErrorKind::FileTooLarge => "remove what is not settings",
        io::ErrorKind::PermissionDenied => {
            "make it readable for this user, or give another file with --settings"
        }
        io::ErrorKind::InvalidInput => "give the path of a YAML file",
        _ => "check that its disk is mounted, or give another file with --settings",
    }
}

/// The first mistake, and the command that shows the others.
fn invalid(path: &std::path::Path, findings: &[Finding]) -> String {
    let Some(first) = findings.first() else {
        return format!("{} is not valid", path.display());
    };
    let mut text = format!(
        "{}:{}:{}: {}",
        path.display(),
        first.line,
        first.column,
        first.message
    );
    if !first.advice.is_empty() {
        text.push_str("; ");
        text.push_str(&first.advice);
    }
    if findings.len() > 1 {
        text.push_str(&format!(
            " (and {} more: see `xpmfs settings check`)",
            findings.len() - 1
        ));
    }
    text
}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The file, or a workspace in it, cannot be used like this.
    Error,
    /// It can be used, but it may not do what is meant.
    Warning,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Severity::Error => "error",
            Severity::Warning => "warning",
        })
    }
}

/// A mistake in a settings file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Finding {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// How bad it is.
    pub severity: Severity,
    /// What is wrong.
    pub message: String,
    /// What to write instead; empty if the message is enough.
    pub advice: String,
}

impl Finding {
    /// An error at a place.
    pub(crate) fn error(
        at: Position,
        message: impl Into<String>,
        advice: impl Into<String>,
    ) -> Finding {
        Finding::new(Severity::Error, at, message, advice)
    }

    /// A warning at a place.
    pub(crate) fn warning(
        at: Position,
        message: impl Into<String>,
        advice: impl Into<String>,
    ) -> Finding {
        Finding::new(Severity::Warning, at, message, advice)
    }

    fn new(
        severity: Severity,
        at: Position,
        message: impl Into<String>,
        advice: impl Into<String>,
    ) -> Finding {
        let (message, advice) = (message.into(), advice.into());
        Finding {
            line: at.line,
            column: at.column,
            severity,
            message,
            advice,
        }
    }
}

/// The known word that a misspelt one probably means.
pub(crate) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let score = |candidate: &&str| {
        strsim::normalized_damerau_levenshtein(&word.to_lowercase(), &candidate.to_lowercase())
    };
    known
        .into_iter()
        .map(|candidate| (score(&candidate), candidate))
        .filter(|(score, candidate)| {
            *score >= 0.6 || candidate.starts_with(word) && word.len() >= 3
        })
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}
