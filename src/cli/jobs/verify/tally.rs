//! Counts the copies that `jobs verify` has read, by their state.

use super::differences::contents;
use crate::archive::job::verify::Verified;

/// Counts copies by their state.
#[derive(Debug, Clone, Default)]
pub(super) struct Tally {
    pub(super) ok: u64,
    pub(super) damaged: u64,
    pub(super) incomplete: u64,
    pub(super) missing: u64,
    pub(super) unread: u64,
    pub(super) no_manifest: u64,
    /// Copies that are right, and differ from the workspace's job.
    pub(super) differ: u64,
    /// Jobs that no folder has.
    pub(super) absent: u64,
}

impl Tally {
    /// Copies that are not as they should be, or could not be read.
    pub(super) fn wrong(&self) -> u64 {
        self.damaged + self.incomplete + self.missing + self.unread
    }

    /// Counts a copy that was read.
    pub(super) fn add(&mut self, verified: &Verified) {
        let count = match verified.is_whole() {
            _ if verified.is_incomplete() => &mut self.incomplete,
            _ if !verified.present => &mut self.missing,
            _ if verified.is_denied() => &mut self.unread,
            Some(true) => &mut self.ok,
            Some(false) => &mut self.damaged,
            None => &mut self.no_manifest,
        };
        *count += 1;
        let changed = verified.primary.as_deref().unwrap_or_default();
        if verified.is_whole() != Some(false) && contents(changed).next().is_some() {
            self.differ += 1;
        }
    }

    /// `7 copies OK, 0 damaged`, and the other counts that are not 0.
    pub(super) fn summary(&self, verbose: bool) -> String {
        let copies = if self.ok == 1 { "copy" } else { "copies" };
        let mut text = format!("{} {copies} OK, {} damaged", self.ok, self.damaged);
        for (count, what) in [
            (self.incomplete, "incomplete"),
            (self.missing, "missing"),
            (self.unread, "could not be read"),
            (self.no_manifest, "without a manifest to compare with"),
        ] {
            if count > 0 {
                text.push_str(&format!(", {count} {what}"));
            }
        }
        if self.no_manifest > 0 {
            text.push_str(match verbose {
                true => {
                    " (`xpmfs jobs archive --all` writes one where the workspace has the same job)"
                }
                false => " (-v shows how to write one)",
            });
        }
        if self.absent > 0 {
            let jobs = if self.absent == 1 { "job" } else { "jobs" };
            text.push_str(&format!(", {} {jobs} in no folder", self.absent));
        }
        if self.differ > 0 {
            let differ = match self.differ {
                1 => "1 differs".to_owned(),
                count => format!("{count} differ"),
            };
            let hint = if verbose { "" } else { ": -v shows how" };
            text.push_str(&format!(", {differ} from the workspace's job{hint}"));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_lists_the_counts_that_are_not_zero() {
        let summary = |tally: Tally| tally.summary(false);
        let mut tally = Tally {
            ok: 7,
            ..Tally::default()
        };
        assert_eq!(summary(tally.clone()), "7 copies OK, 0 damaged");
        tally.ok = 1;
        tally.missing = 2;
        tally.absent = 1;
        tally.differ = 1;
        assert_eq!(
            summary(tally),
            "1 copy OK, 0 damaged, 2 missing, 1 job in no folder, 1 differs from the workspace's job: -v shows how"
        );
    }
}
