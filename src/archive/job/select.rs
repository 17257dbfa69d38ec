//! Selects the entries of a job that are copied: all except experimaestro's internal files.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::transfer::{Candidate, Difference};
pub use crate::workspace::internal::is_removed;
use crate::workspace::internal::{classify, classify_nested, is_bookkeeping};
use crate::workspace::jobs::JobId;
use crate::workspace::layout::{JOB_STATE, OPT_OUT_FILE};

/// Whether an entry of a job is copied. A non-empty `*.lock` is the user's data (`uv.lock`), and is copied.
#[must_use]
pub fn is_copied(job: &JobId, candidate: &Candidate<'_>) -> bool {
    let (name, job) = (candidate.name().as_bytes(), job.name().as_bytes());
    if candidate.is_file() && is_removed(candidate.name()) {
        return false;
    }
    let directory = candidate.is_directory();
    let size = || match name.ends_with(b".lock") {
        true => candidate.size(),
        false => Some(0),
    };
    let class = match candidate.depth() {
        0 => classify(name, job, directory, size()),
        1 if candidate.parent() == JOB_STATE && is_opt_out(name, directory) => return false,
        1 if candidate.parent() == JOB_STATE => classify_nested(name, job, directory, size()),
        _ => return true,
    };
    !class.is_internal()
}

/// Whether an entry of `.experimaestro` opts the job out. The entry is not copied: it would opt out the recovered job.
fn is_opt_out(name: &[u8], directory: bool) -> bool {
    name == OPT_OUT_FILE.as_bytes() && !directory
}

/// Whether a path in a job is that of the opt-out file. Manifests of earlier copies may contain it.
pub(in crate::archive) fn is_opt_out_path(path: &Path) -> bool {
    path.parent() == Some(Path::new(JOB_STATE))
        && path.file_name() == Some(OsStr::new(OPT_OUT_FILE))
}

/// Whether a difference concerns the content of a job's files. Ignores attributes, the opt-out file, and the bookkeeping that
/// experimaestro rewrites in a finished job, also in an archived one, when a plan runs again at another path.
#[must_use]
pub fn is_of_content(difference: &Difference) -> bool {
    let bookkeeping = difference.path.parent() == Some(Path::new(JOB_STATE))
        && difference
            .path
            .file_name()
            .is_some_and(|name| is_bookkeeping(name.as_bytes()));
    difference.what.is_content() && !bookkeeping && !is_opt_out_path(&difference.path)
}
