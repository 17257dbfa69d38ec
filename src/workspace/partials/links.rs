//! A job's symlinks to partials, and what leads them to another workspace.

use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, Statx, Timespec, Timestamps};

use super::id::PartialId;
use super::params;
use crate::sys::at;
use crate::sys::disk_time::NOW;
use crate::workspace::layout::{JOB_STATE, PARAMS, PARTIALS};
use crate::workspace::read;

/// Whether a directory in a job is that of its symlinks to partials.
#[must_use]
pub fn has_links(directory: &Path) -> bool {
    let mut names = directory.components();
    let found = [JOB_STATE, PARTIALS].map(|name| Some(Component::Normal(OsStr::new(name))));
    found == [names.next(), names.next()] && names.next().is_none()
}

/// Whether two targets of a job's symlink to a partial lead to the same partial, of workspaces at different paths.
#[must_use]
pub fn is_same_in_another_workspace(target: &Path, other: &Path) -> bool {
    let (one, other) = (PartialId::anywhere(target), PartialId::anywhere(other));
    one.is_some() && one == other
}

/// Lets the symlinks of a job to partials of its former workspace, which `params` names in its open directory, lead to the workspace
/// at `workspace`, durably; returns how many. Their times stay.
///
/// # Errors
///
/// A symlink cannot be replaced. A job with another `params.json`, or without one, stays as it is.
pub fn rebase_links(
    params: impl AsFd,
    job: impl AsFd,
    workspace: &Path,
) -> rustix::io::Result<usize> {
    let former = read::whole(&params, Path::new(PARAMS), Path::new(PARAMS));
    let former = former
        .ok()
        .flatten()
        .and_then(|text| params::parse(&text).ok());
    let Some(former) = former.and_then(|paths| paths.workspace) else {
        return Ok(0);
    };
    let names = [OsStr::new(JOB_STATE), OsStr::new(PARTIALS)];
    let Some(directory) = at::absent(at::open_dirs(&job, names.into_iter()))? else {
        return Ok(0);
    };
    let before = at::stat_fd(&directory)?;
    let mut count = 0;
    for name in read::names(Path::new(&at::proc_path(&directory))).found {
        let Ok(target) = at::read_link(&directory, &name).map(PathBuf::from) else {
            continue;
        };
        let relative = target.strip_prefix(&former).ok();
        let Some(id) = relative.and_then(PartialId::of) else {
            continue;
        };
        let mut target = workspace.join(PARTIALS);
        target.extend(id.parts());
        replace_link(&directory, &name, &target)?;
        count += 1;
    }
    if count > 0 {
        set_mtime(&directory, OsStr::new("."), &before)?;
        rustix::fs::fsync(at::open_to_list(&directory, OsStr::new("."))?)?;
    }
    Ok(count)
}

/// Replaces a symlink by one with another target and the same time of change.
fn replace_link(directory: &OwnedFd, name: &OsStr, target: &Path) -> rustix::io::Result<()> {
    let before = at::stat(directory, name)?;
    rustix::fs::unlinkat(directory, name, AtFlags::empty())?;
    rustix::fs::symlinkat(target, directory, name)?;
    set_mtime(directory, name, &before)
}

fn set_mtime(directory: &OwnedFd, name: &OsStr, to: &Statx) -> rustix::io::Result<()> {
    let times = Timestamps {
        last_access: NOW,
        last_modification: Timespec {
            tv_sec: to.stx_mtime.tv_sec,
            tv_nsec: to.stx_mtime.tv_nsec.into(),
        },
    };
    rustix::fs::utimensat(directory, name, &times, AtFlags::SYMLINK_NOFOLLOW)
}

/// The targets of the symlinks in `.experimaestro/partials`.
pub(super) fn targets(job: impl AsFd) -> Vec<PathBuf> {
    let names = [OsStr::new(JOB_STATE), OsStr::new(PARTIALS)];
    let Ok(directory) = at::open_dirs(job, names.into_iter()) else {
        return Vec::new();
    };
    let names = read::names(Path::new(&at::proc_path(&directory))).found;
    let links = names.iter();
    let targets = links.filter_map(|name| at::read_link(&directory, name).ok());
    targets.map(PathBuf::from).collect()
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_to_partials_of_the_former_workspace_lead_to_the_new_one() {
        let top = tempfile::tempdir().unwrap();
        let links = top.path().join(".experimaestro/partials");
        fs::create_dir_all(&links).unwrap();
        fs::write(
            top.path().join("params.json"),
            r#"{"workspace": "/old/ws"}"#,
        )
        .unwrap();
        for (name, target) in [
            ("ck", "/old/ws/partials/t/ck/1f"),
            ("other", "/elsewhere/partials/t/ck/2f"),
            ("inside", "/old/ws/data/x"),
        ] {
            symlink(target, links.join(name)).unwrap();
        }
        let job = File::open(top.path()).unwrap();
        let (ours, theirs) = (links.join("ck"), links.join("other"));
        let time = |path: &Path| path.symlink_metadata().unwrap().modified().unwrap();
        let before = [time(&ours), time(&links)];
        assert_eq!(rebase_links(&job, &job, Path::new("/new")), Ok(1));
        let target = fs::read_link(&ours).unwrap();
        assert_eq!(target, Path::new("/new/partials/t/ck/1f"));
        assert_eq!([time(&ours), time(&links)], before);
        let others = [theirs, links.join("inside")].map(|link| fs::read_link(link).unwrap());
        assert_eq!(others[0], Path::new("/elsewhere/partials/t/ck/2f"));
        assert_eq!(others[1], Path::new("/old/ws/data/x"));
        let former = Path::new("/old/ws/partials/t/ck/1f");
        assert!(is_same_in_another_workspace(&target, former));
        assert!(!is_same_in_another_workspace(&target, &others[0]));
        assert!(!is_same_in_another_workspace(&others[1], &others[1]));
        assert!(has_links(Path::new(".experimaestro/partials")));
        assert!(!has_links(Path::new(".experimaestro/partials/x")));
        assert!(!has_links(Path::new(".experimaestro")));
    }
}
