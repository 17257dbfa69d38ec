//! The name of a partial, and the partial that a path leads to.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::{Component, Path};

use crate::workspace::jobs::is_job_entry;
use crate::workspace::layout::PARTIALS;

/// A directory that jobs share: `partials/<task_id>/<partial>/<identifier>`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartialId([OsString; 3]);

impl PartialId {
    /// The partial with this task, name and identifier; `None` if one is not a safe name.
    #[must_use]
    pub fn new(task: &OsStr, name: &OsStr, identifier: &OsStr) -> Option<PartialId> {
        let parts = [task, name, identifier];
        let safe = parts.iter().all(|part| is_job_entry(part));
        safe.then(|| PartialId(parts.map(OsStr::to_owned)))
    }

    /// The partial that a path below a workspace lies in.
    pub(super) fn of(path: &Path) -> Option<PartialId> {
        let mut parts = path.components().map(|part| match part {
            Component::Normal(name) => Some(name),
            _ => None,
        });
        if parts.next()?? != PARTIALS {
            return None;
        }
        PartialId::new(parts.next()??, parts.next()??, parts.next()??)
    }

    /// The partial in some workspace that an absolute path leads to.
    pub(super) fn anywhere(path: &Path) -> Option<PartialId> {
        let identifier = path.file_name()?;
        let name = path.parent()?;
        let task = name.parent()?;
        let is_partial = path.is_absolute() && task.parent()?.file_name()? == PARTIALS;
        let id = PartialId::new(task.file_name()?, name.file_name()?, identifier);
        id.filter(|_| is_partial)
    }

    /// The three names below `partials/`.
    #[must_use]
    pub fn parts(&self) -> &[OsString; 3] {
        &self.0
    }
}

impl fmt::Display for PartialId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [task, name, identifier] = &self.0;
        let (task, name) = (task.display(), name.display());
        write!(f, "{PARTIALS}/{task}/{name}/{}", identifier.display())
    }
}
