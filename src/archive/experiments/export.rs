//! Copies a run out of its workspace, for a workspace at another path: from the primary, or from a `backup` folder if the primary lacks
//! the run.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use super::recover::{candidates, copy_into, mark};
use super::store::{self, Result, set_current, with_options};
use super::{Item, RunName, links, shown, top};
use crate::archive::env::Env;
use crate::archive::error::Cause;
use crate::archive::places;
use crate::sys::at;
use crate::transfer::durable::sync_directory;
use crate::transfer::{self, Manifest, Size};
use crate::view::PRIMARY;
use crate::workspace::jobs::JobId;
use crate::workspace::runs::{Layout, Run, RunId};

/// What can be done about a copy that differs from its manifest.
const VERIFY: &str = "`xpmfs jobs verify --all` shows how to mend it";

/// A directory that a run is copied from.
#[derive(Debug)]
pub struct RunOrigin {
    /// The number of the location.
    pub location: u8,
    /// The run's directory.
    pub directory: OwnedFd,
    /// Its path, for messages.
    pub path: PathBuf,
    manifest: Option<Manifest>,
}

/// Opens the directory that a run is copied from; `None` if no location has the run.
///
/// # Errors
///
/// A file system fails.
pub fn origin(env: &Env<'_>, run: &RunName) -> Result<Option<RunOrigin>> {
    let item = Item::Run(run.clone());
    let primary = env.view.primary();
    let path = item.path(primary);
    let root = primary.root();
    let root = root.map_err(|errno| Cause::io("open", primary.path(), errno))?;
    let there = store::open(&root, &item).map_err(|errno| Cause::io("open", &path, errno))?;
    if let Some(directory) = there {
        return Ok(Some(RunOrigin {
            location: PRIMARY,
            directory,
            path,
            manifest: None,
        }));
    }
    let found = candidates(env, &item)?.into_iter().next();
    Ok(found.map(|(folder, directory, manifest)| RunOrigin {
        location: folder.index(),
        directory,
        path: item.path(folder),
        manifest,
    }))
}

/// The jobs of a run, each once, and what could not be read. Those of `jobs.jsonl`; without that file, those to which the run has symlinks.
///
/// # Errors
///
/// The file cannot be opened.
pub fn jobs(
    env: &Env<'_>,
    run: &RunName,
    origin: &RunOrigin,
) -> std::result::Result<(Vec<JobId>, Vec<String>), String> {
    let Some(location) = env.view.location(origin.location) else {
        return Err("its location is gone".to_owned());
    };
    let mut path =
        top(location).map_err(|errno| Cause::io("open", location.path(), errno).to_string())?;
    path.extend(Item::Run(run.clone()).parents());
    path.push(&run.run);
    let opened = Run {
        id: RunId::new(&run.run),
        layout: Layout::V2,
        path,
    };
    let (mut found, mut unread, mut seen) = (Vec::new(), Vec::new(), HashSet::new());
    let mut add = |job: JobId| {
        if seen.insert(job.clone()) {
            found.push(job);
        }
    };
    match opened.jobs().map_err(|error| shown(location, &error))? {
        Some(lines) => {
            for line in lines {
                match line {
                    Ok(job) => add(job.id),
                    Err(error) => unread.push(shown(location, &error)),
                }
            }
        }
        None => {
            let links = opened.job_links();
            links.found.into_iter().for_each(&mut add);
            unread.extend(links.errors.iter().map(|error| shown(location, error)));
        }
    }
    Ok((found, unread))
}

/// The size of a copy of a run.
///
/// # Errors
///
/// Fails with the error of the location's file system.
pub fn size(env: &Env<'_>, run: &RunName, origin: &RunOrigin) -> Result<Size> {
    let item = Item::Run(run.clone());
    let measured = with_options(env, &item, None, |options| {
        transfer::measure(&origin.directory, options)
    });
    let measured = measured.map_err(|error| Cause::transfer(&origin.path, error))?;
    Ok(measured.size)
}

/// Copies a run to the empty, private directory `to`, durably, without the directories of its jobs; its symlinks to jobs lead to the
/// workspace at `workspace`. `at` is the path that the run will have, for messages.
///
/// # Errors
///
/// The run changes meanwhile, or does not match its manifest; a file system fails. The caller must remove the partial copy.
pub fn export(
    env: &Env<'_>,
    run: &RunName,
    origin: &RunOrigin,
    (to, at): (&OwnedFd, &Path),
    workspace: &Path,
) -> Result<Size> {
    let item = Item::Run(run.clone());
    let from = (&*origin.path, &origin.directory, origin.manifest.as_ref());
    let copied = copy_into(env, &item, from, (to, at), (workspace, VERIFY))?;
    Ok(Size {
        files: copied.manifest.files(),
        bytes: copied.manifest.bytes(),
    })
}

/// Makes the symlinks to the jobs of a run in its copy `to`, which has none yet; they lead to the workspace at `workspace`.
///
/// # Errors
///
/// A file system fails.
pub fn export_links(
    origin: &RunOrigin,
    (to, at): (&OwnedFd, &Path),
    workspace: &Path,
) -> Result<()> {
    let made = links::copy(&origin.directory, to, links::Target::Workspace(workspace));
    made.map_err(|errno| Cause::io("make the symlinks of", at, errno))
}

/// As [`export_links`], from a list of the jobs and of where their symlinks lead.
///
/// # Errors
///
/// A file system fails.
pub fn make_links(
    listed: &[(JobId, PathBuf)],
    (to, at): (&OwnedFd, &Path),
    workspace: &Path,
) -> Result<()> {
    let made = links::make_listed(listed, to, links::Target::Workspace(workspace));
    made.map_err(|errno| Cause::io("make the symlinks of", at, errno))
}

/// Whether the primary has a run, as a directory or anything else.
///
/// # Errors
///
/// A file system fails.
pub fn is_in_primary(env: &Env<'_>, run: &RunName) -> Result<bool> {
    let item = Item::Run(run.clone());
    let primary = env.view.primary();
    let path = item.path(primary);
    let looked = |errno| Cause::io("look at", &path, errno);
    let root = primary.root().map_err(looked)?;
    let parent = at::absent(at::open_dirs(root.fd(), item.parents().into_iter()));
    let Some(parent) = parent.map_err(looked)? else {
        return Ok(false);
    };
    let there = at::absent(at::stat(&parent, item.name())).map_err(looked)?;
    Ok(there.is_some())
}

/// Moves a complete copy of a run, `name` in the directory `staged`, into the primary; returns false if the primary has the run.
///
/// # Errors
///
/// A file system fails.
pub fn place(env: &Env<'_>, run: &RunName, (staged, name): (impl AsFd, &OsStr)) -> Result<bool> {
    let item = Item::Run(run.clone());
    let primary = env.view.primary();
    let path = item.path(primary);
    let root = primary.root();
    let root = root.map_err(|errno| Cause::io("open", primary.path(), errno))?;
    let parent = places::make_like(&root, primary, &item.parents());
    let parent = parent.map_err(|errno| Cause::io("make the directory of", &path, errno))?;
    match at::move_new((staged, name), (&parent, item.name())) {
        Ok(()) => {}
        Err(rustix::io::Errno::EXIST) => return Ok(false),
        Err(errno) => return Err(Cause::io("move the copy to", &path, errno)),
    }
    let synced = at::open_to_list(&parent, OsStr::new(".")).and_then(sync_directory);
    synced.map_err(|errno| Cause::io("sync the directory of", &path, errno))?;
    mark(env);
    Ok(true)
}

/// Makes `current` in the primary name a run that is there, unless it names one already.
///
/// # Errors
///
/// A file system fails.
pub fn set_missing_current(env: &Env<'_>, run: &RunName) -> Result<bool> {
    let item = Item::Run(run.clone());
    let primary = env.view.primary();
    let path = item.path(primary).with_file_name(store::CURRENT);
    let looked = |errno| Cause::io("look at", &path, errno);
    let root = primary.root().map_err(looked)?;
    let parent = at::open_dirs(root.fd(), item.parents().into_iter()).map_err(looked)?;
    let name = OsStr::new(store::CURRENT);
    let entry = at::absent(at::stat(&parent, name)).map_err(looked)?;
    if entry.as_ref().is_some_and(|entry| !at::is_symlink(entry)) {
        return Ok(false);
    }
    if entry.is_some() {
        let target = PathBuf::from(at::read_link(&parent, name).map_err(looked)?);
        let target = target.file_name().unwrap_or_default();
        if places::open(&parent, target).is_ok_and(|found| found.is_some()) {
            return Ok(false);
        }
    }
    set_current(&parent, &run.run, &path)
}
