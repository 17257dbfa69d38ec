//! Selects and names the differences between a copy and what it should be.

use std::path::Path;

use crate::archive::job::select::is_of_content;
use crate::transfer::Difference;

/// The name of an entry, in manifests as well: the job's own directory is `.`.
pub(super) fn name(path: &Path) -> &Path {
    match path.as_os_str().is_empty() {
        true => Path::new("."),
        false => path,
    }
}

/// The differences of contents: attributes do not count as damage.
pub(super) fn contents(differences: &[Difference]) -> impl Iterator<Item = &Difference> {
    differences
        .iter()
        .filter(|difference| is_of_content(difference))
}
