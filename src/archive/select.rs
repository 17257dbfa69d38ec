//! What of a job is copied: all but what experimaestro keeps for itself.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::transfer::{Candidate, Difference};
use crate::workspace::internal::{classify, classify_nested, is_bookkeeping};
use crate::workspace::jobs::JobId;
use crate::workspace::layout::JOB_STATE;

/// Whether an entry of a job is copied. A `*.lock` that holds something is the user's data (`uv.lock`), and is.
#[must_use]
pub fn is_copied(job: &JobId, candidate: &Candidate<'_>) -> bool {
    let (name, job) = (candidate.name().as_bytes(), job.name().as_bytes());
    let directory = candidate.is_directory();
    let size = || match name.ends_with(b".lock") {
        true => candidate.size(),
        false => Some(0),
    };
    let class = match candidate.depth() {
        0 => classify(name, job, directory, size()),
        1 if candidate.parent() == JOB_STATE => classify_nested(name, job, directory, size()),
        _ => return true,
    };
    !class.is_internal()
}

/// Whether a difference is about what files of a job hold, and not about attributes, nor about what experimaestro writes anew
/// in a finished job, also in an archived one, whenever a plan is run again at another path.
#[must_use]
pub fn is_of_content(difference: &Difference) -> bool {
    let bookkeeping = difference.path.parent() == Some(Path::new(JOB_STATE))
        && difference
            .path
            .file_name()
            .is_some_and(|name| is_bookkeeping(name.as_bytes()));
    difference.what.is_content() && !bookkeeping
}
