//! Bounds the jobs that a dry run lists: the first few, then how many more there are.

/// The most jobs.
const LISTED_MAX: usize = 20;

/// Counts jobs, of which the first few are listed.
#[derive(Debug, Default)]
pub(super) struct FirstJobs(usize);

impl FirstJobs {
    /// Counts a job; returns whether it is listed.
    pub(super) fn lists_next(&mut self) -> bool {
        self.0 += 1;
        self.0 <= LISTED_MAX
    }

    /// How many jobs were left out, as a line, if any.
    pub(super) fn rest(&self) -> Option<String> {
        let more = self.0.checked_sub(LISTED_MAX).filter(|more| *more > 0)?;
        Some(format!("and {more} more: -v lists them all"))
    }
}
