//! Returns the command that recreates a damaged or missing copy of a job.

use crate::settings::Mode;
use crate::sys::at;
use crate::view::location::Role;
use crate::view::{Location, View};
use crate::workspace::jobs::JobId;

use super::places;

/// The place of a job, according to the primary's own directory.
enum Place {
    Primary,
    /// The job was moved to a folder.
    Moved,
    Unknown,
}

/// Returns a clause with the command that recreates a folder's copy of a job. Reads only the primary's disk.
#[must_use]
pub fn remedy(view: &View, folder: &Location, job: &JobId) -> String {
    let backup = folder.role() == Role::Folder(Mode::Backup);
    match place(view, job) {
        Place::Primary => {
            format!("`xpmfs jobs archive --force {job}` copies it again from the workspace")
        }
        Place::Moved if backup => format!(
            "`xpmfs jobs archive --force {job}` copies it again from the folder that the job was moved to"
        ),
        Place::Moved | Place::Unknown => format!(
            "`xpmfs jobs recover {job}` brings the job back from another folder that has it whole, and \
             `xpmfs jobs archive --force {job}` then copies it again"
        ),
    }
}

fn place(view: &View, job: &JobId) -> Place {
    let Ok(Some(task)) = places::task(view.primary(), job) else {
        return Place::Unknown;
    };
    match at::stat(&*task, job.hash()) {
        Ok(stat) if at::is_dir(&stat) => Place::Primary,
        Ok(stat) if at::is_symlink(&stat) => Place::Moved,
        _ => Place::Unknown,
    }
}
