//! Translates symlinks: those in the place of a moved job, and absolute ones that must lead into the mount.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

use super::View;

impl View {
    /// The location whose directory of the same job, `<location>/jobs/<task>/<hash>`, the target of the symlink
    /// `jobs/<task>/<hash>` of location `holder` names, if any. Compares the text only.
    pub(super) fn moved_to(
        &self,
        holder: u8,
        task: &OsStr,
        hash: &OsStr,
        target: &OsStr,
    ) -> Option<u8> {
        let target = Path::new(target);
        let absolute = if target.is_absolute() {
            normalize(target)
        } else {
            let jobs = self.location(holder)?.jobs_paths();
            normalize(&jobs.last()?.join(task).join(target))
        };
        self.locations().iter().find_map(|location| {
            let named = location.jobs_paths().iter().any(|jobs| {
                absolute
                    .strip_prefix(jobs)
                    .is_ok_and(|rest| rest == Path::new(task).join(hash))
            });
            (named && location.index() != holder).then(|| location.index())
        })
    }

    /// The target that a symlink shows: the primary's path is replaced by the mount point's, if that is elsewhere. `None`: the
    /// target is unchanged.
    pub fn shown_target(&self, target: &OsStr) -> Option<OsString> {
        replace_prefix(target, self.primary_path(), self.elsewhere()?)
    }

    /// The inverse of [`View::shown_target`], for a symlink made through the mount: the stored target is right without the
    /// mount too, and reads back as it was written.
    pub fn stored_target(&self, target: &OsStr) -> Option<OsString> {
        replace_prefix(target, self.elsewhere()?, self.primary_path())
    }
}

/// Replaces the directory `from` at the beginning of an absolute `path` by `to`, byte for byte.
fn replace_prefix(path: &OsStr, from: &Path, to: &Path) -> Option<OsString> {
    let rest = path.as_bytes().strip_prefix(from.as_os_str().as_bytes())?;
    if !rest.is_empty() && !rest.starts_with(b"/") || climbs_out(rest) {
        return None;
    }
    let mut replaced = to.as_os_str().as_bytes().to_vec();
    replaced.extend_from_slice(rest);
    Some(OsString::from_vec(replaced))
}

/// Whether the `..` in a path lead above where it begins.
fn climbs_out(path: &[u8]) -> bool {
    let mut depth = 0_usize;
    path.split(|byte| *byte == b'/').any(|name| match name {
        b"" | b"." => false,
        b".." => match depth.checked_sub(1) {
            Some(above) => {
                depth = above;
                false
            }
            None => true,
        },
        _ => {
            depth += 1;
            false
        }
    })
}

/// Resolves `.` and `..` in the text alone: asking a file system could lead into this process's own mount.
fn normalize(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => {
                normal.pop();
            }
            Component::CurDir => {}
            other => normal.push(other),
        }
    }
    normal
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replaced(path: &str, from: &str, to: &str) -> Option<String> {
        replace_prefix(OsStr::new(path), Path::new(from), Path::new(to))
            .map(|path| path.into_string().unwrap())
    }

    #[test]
    fn a_prefix_is_replaced_only_at_a_component_boundary() {
        assert_eq!(replaced("/ws/jobs/a", "/ws", "/m").unwrap(), "/m/jobs/a");
        assert_eq!(replaced("/ws", "/ws", "/m").unwrap(), "/m");
        assert_eq!(replaced("/ws//x/", "/ws", "/m").unwrap(), "/m//x/");
        assert_eq!(replaced("/ws2/jobs", "/ws", "/m"), None);
        assert_eq!(
            replaced("/ws/a/./../b", "/ws", "/m").unwrap(),
            "/m/a/./../b"
        );
        assert_eq!(replaced("/ws/../other", "/ws", "/m"), None);
        assert_eq!(replaced("/ws/a/../../other/..", "/ws", "/m"), None);
        assert_eq!(replaced("ws/jobs", "/ws", "/m"), None);
    }

    #[test]
    fn paths_are_normalized_by_their_words() {
        assert_eq!(normalize(Path::new("/a/./b/../c")), Path::new("/a/c"));
        assert_eq!(normalize(Path::new("/../a")), Path::new("/a"));
    }
}
