//! What an action would do, and what it has done, in words.

/// The most lines about single jobs.
const LINES_MAX: usize = 100;

/// What an action would do.
#[derive(Debug, Default)]
pub(in crate::cli::tui) struct ActionPlan {
    /// In words, as lines.
    pub(in crate::cli::tui) lines: Vec<String>,
    /// Whether there is anything to do.
    pub(in crate::cli::tui) has_work: bool,
    /// Why it needs a second thought, if it does: the confirmation is another key then.
    pub(in crate::cli::tui) reasons: Vec<String>,
}

/// What an action has done.
#[derive(Debug, Default)]
pub(in crate::cli::tui) struct ActionOutcome {
    /// In a sentence.
    pub(in crate::cli::tui) summary: String,
    /// About single jobs.
    pub(in crate::cli::tui) lines: Vec<String>,
    /// Whether something went wrong.
    pub(in crate::cli::tui) failed: bool,
}

/// Lines about single jobs, of which the first are kept.
#[derive(Debug, Default)]
pub(super) struct Lines {
    kept: Vec<String>,
    more: usize,
}

impl Lines {
    pub(super) fn add(&mut self, line: String) {
        match self.kept.len() < LINES_MAX {
            true => self.kept.push(line),
            false => self.more += 1,
        }
    }

    pub(super) fn into_lines(self) -> Vec<String> {
        let mut lines = self.kept;
        if self.more > 0 {
            lines.push(format!("and {} more", self.more));
        }
        lines
    }
}
