//! Copies runs and partials from `backup` folders back into the primary.
//!
//! Each is staged beside its place, compared with its manifest, made durable and renamed. What the primary has stays as it is, except a
//! partial without any file: a plan that is submitted makes the directory of its locks.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use rustix::fs::{Mode as FileMode, OFlags};
use rustix::io::Errno;

use super::links::{self, Target};
use super::named::NamedPartials;
use super::store::{self, Result, claim_space, manifest, set_current, with_options};
use super::{Item, RunName, top};
use crate::archive::env::Env;
use crate::archive::error::Cause;
use crate::archive::places;
use crate::settings::Mode;
use crate::sys::at;
use crate::transfer::staging::Staging;
use crate::transfer::{self, Copied, Manifest, Originals};
use crate::view::Location;
use crate::workspace::layout::MARKER;
use crate::workspace::runs::{Layout, Run, RunId};

/// How often to check whether another process has finished its work on the same item.
const OTHER_PROCESS_POLL: Duration = Duration::from_millis(50);

/// What can be done about a copy that differs from its manifest.
const FORCE: &str = "--force recovers it as it is";

/// The result of recovering an item.
#[derive(Debug)]
pub enum RecoveredItem {
    /// It was copied.
    Copied {
        /// The number of the folder that it was copied from.
        folder: u8,
        /// Files, including symlinks.
        files: u64,
        /// Bytes of files.
        bytes: u64,
    },
    /// The primary has it.
    Present,
    /// No folder has it. Only a partial that a job names may lack a copy.
    Absent,
}

/// Recovers runs with the partials that their jobs name, then `current` of their experiments; reports each result.
pub fn recover(
    env: &Env<'_>,
    runs: &[RunName],
    report: &mut dyn FnMut(&Item, std::result::Result<RecoveredItem, Cause>),
) {
    let mut partials = std::collections::BTreeSet::new();
    for name in runs {
        let item = Item::Run(name.clone());
        let recovered = item_or_cancelled(env, &item);
        let is_there = recovered.is_ok();
        report(&item, recovered);
        if !is_there {
            continue;
        }
        let named = named(env, name);
        if let Some(why) = named.unknown {
            let why = format!("which partials its jobs name is not known in full: {why}");
            report(&item, Err(Cause::Unsafe(why)));
        }
        for partial in named.partials {
            if partials.insert(partial.clone()) {
                let item = Item::Partial(partial);
                let recovered = item_or_cancelled(env, &item);
                report(&item, recovered);
            }
        }
    }
    let mut experiments: Vec<&OsStr> = runs.iter().map(|run| &*run.experiment).collect();
    experiments.dedup();
    for experiment in experiments {
        if let Err(cause) = current(env, experiment) {
            let name = RunName {
                experiment: experiment.to_owned(),
                run: store::CURRENT.into(),
            };
            report(&Item::Run(name), Err(cause));
        }
    }
    mark(env);
}

/// The partials that the jobs of a run in the primary name.
fn named(env: &Env<'_>, name: &RunName) -> NamedPartials {
    let Ok(top) = top(env.view.primary()) else {
        return NamedPartials::default();
    };
    let run = Run {
        id: RunId::new(&name.run),
        layout: Layout::V2,
        path: top
            .join("experiments")
            .join(&name.experiment)
            .join(&name.run),
    };
    NamedPartials::of(env, &run, (None, 0))
}

fn item_or_cancelled(env: &Env<'_>, item: &Item) -> Result<RecoveredItem> {
    match env.progress.is_cancelled() {
        true => Err(Cause::Cancelled),
        false => recover_item(env, item),
    }
}

/// The primary's entry of an item.
enum Present {
    Nothing,
    /// A partial without any file.
    Empty(OwnedFd),
    Something,
}

fn recover_item(env: &Env<'_>, item: &Item) -> Result<RecoveredItem> {
    let primary = env.view.primary();
    let at = item.path(primary);
    let staging = |error| Cause::staging(&at, error);
    loop {
        if let Present::Something = present(env, item)? {
            return Ok(RecoveredItem::Present);
        }
        let candidates = candidates(env, item)?;
        let Some((first, _, _)) = candidates.first() else {
            return Ok(RecoveredItem::Absent);
        };
        let root = primary
            .root()
            .map_err(|errno| Cause::io("open", primary.path(), errno))?;
        let parent = places::make_like(&root, first, &item.parents());
        let parent = parent.map_err(|errno| Cause::io("make the directory of", &at, errno))?;
        let Some(mut staged) = Staging::take(&parent, item.name()).map_err(staging)? else {
            std::thread::sleep(OTHER_PROCESS_POLL);
            continue;
        };
        // Another process may have been faster.
        let old = match present(env, item)? {
            Present::Something => return Ok(RecoveredItem::Present),
            Present::Empty(old) => Some(old),
            Present::Nothing => None,
        };
        let (folder, copied) = copy_first(env, item, &candidates, &mut staged)?;
        match old {
            Some(old) => staged.exchange(old).map(drop),
            None => staged.publish(),
        }
        .and_then(|()| staged.sync())
        .and_then(|()| staged.finish(None))
        .map_err(staging)?;
        return Ok(RecoveredItem::Copied {
            folder: folder.index(),
            files: copied.manifest.files(),
            bytes: copied.manifest.bytes(),
        });
    }
}

fn present(env: &Env<'_>, item: &Item) -> Result<Present> {
    let primary = env.view.primary();
    let at = item.path(primary);
    let looked = |errno: Errno| Cause::io("look at", &at, errno);
    let root = primary.root().map_err(looked)?;
    let parent = at::absent(at::open_dirs(root.fd(), item.parents().into_iter()));
    let Some(parent) = parent.map_err(looked)? else {
        return Ok(Present::Nothing);
    };
    if at::absent(at::stat(&parent, item.name()))
        .map_err(looked)?
        .is_none()
    {
        return Ok(Present::Nothing);
    }
    // A file or a symlink may be a person's.
    let Some(directory) = places::open(&parent, item.name()).map_err(looked)? else {
        return Ok(Present::Something);
    };
    if let Item::Run(_) = item {
        return Ok(Present::Something);
    }
    let seen = with_options(env, item, None, |options| {
        transfer::outline(&directory, options)
    });
    let seen = seen.map_err(|error| Cause::transfer(&at, error))?;
    let locks = OsStr::new("informations.json");
    let is_file = |entry: &transfer::Entry| !matches!(entry.kind, transfer::Kind::Directory);
    let mut files = seen.entries().iter().filter(|entry| is_file(entry));
    Ok(match files.all(|entry| *entry.name == *locks) {
        true => Present::Empty(directory),
        false => Present::Something,
    })
}

pub(super) type CandidateCopy<'a> = (&'a Location, OwnedFd, Option<Manifest>);

/// The folders that have an item; those with a manifest come first.
pub(super) fn candidates<'a>(env: &Env<'a>, item: &Item) -> Result<Vec<CandidateCopy<'a>>> {
    let mut found = Vec::new();
    for folder in places::folders_of_mode(env.view, Mode::Backup) {
        let at = item.path(folder);
        // A folder that is missing does not prevent the use of another.
        let Ok(root) = folder.root() else {
            continue;
        };
        let copy = store::open(&root, item).map_err(|errno| Cause::io("open", &at, errno))?;
        let Some(copy) = copy else {
            continue;
        };
        let manifest = manifest(folder, item).unwrap_or_else(|error| {
            tracing::warn!("cannot use the manifest of {}: {error}", at.display());
            None
        });
        found.push((folder, copy, manifest));
    }
    found.sort_by_key(|(_, _, manifest)| manifest.is_none());
    Ok(found)
}

/// Copies from the first folder with an intact copy.
fn copy_first<'a>(
    env: &Env<'_>,
    item: &Item,
    candidates: &[CandidateCopy<'a>],
    staged: &mut Staging,
) -> Result<(&'a Location, Copied)> {
    let mut problem = None;
    for candidate in candidates {
        match copy(env, item, candidate, staged) {
            Ok(copied) => return Ok((candidate.0, copied)),
            Err(cause @ Cause::Cancelled) => return Err(cause),
            Err(cause) => {
                if candidates.len() > 1 {
                    tracing::warn!("{item}: {cause}; trying the next copy");
                }
                problem.get_or_insert(cause);
            }
        }
    }
    Err(problem.unwrap_or_else(|| Cause::Absent("no folder has it".to_owned())))
}

fn copy(
    env: &Env<'_>,
    item: &Item,
    (folder, source, manifest): &CandidateCopy<'_>,
    staged: &mut Staging,
) -> Result<Copied> {
    let primary = env.view.primary();
    let (from, at) = (item.path(folder), item.path(primary));
    let _claim = claim_space(env, primary, || {
        let measured = with_options(env, item, None, |options| {
            transfer::measure(source, options)
        });
        Ok(measured
            .map_err(|error| Cause::transfer(&from, error))?
            .taken)
    })?;
    let to = staged.make().map_err(|error| Cause::staging(&at, error))?;
    let from = (&*from, source, manifest.as_ref());
    copy_into(env, item, from, (&to, &at), (primary.path(), FORCE))
}

/// Copies an item to the empty directory `to`, for the workspace at `workspace`, and compares the copy with the manifest of the source.
/// `at` is the path that the item will have, and `remedy` what can be done about a copy that differs, for messages.
pub(super) fn copy_into(
    env: &Env<'_>,
    item: &Item,
    (from, source, manifest): (&Path, &OwnedFd, Option<&Manifest>),
    (to, at): (&OwnedFd, &Path),
    (workspace, remedy): (&Path, &str),
) -> Result<Copied> {
    let originals = manifest.map(Originals::of).unwrap_or_default();
    let copied = with_options(env, item, Some(&originals), |options| {
        transfer::copy(source, to, options)
    });
    let copied = copied.map_err(|error| Cause::transfer_between(from, at, error))?;
    for loss in &copied.losses {
        tracing::warn!("{item}: {loss}");
    }
    if let Some(manifest) = manifest {
        let differences = manifest.differences(&copied.manifest);
        let damage = differences.iter().find(|found| found.what.is_content());
        if let Some(transfer::Difference { path, what }) = damage {
            let why = format!(
                "the copy is not what its manifest says ({remedy}): {} {what}",
                from.join(path).display()
            );
            match env.force {
                true => tracing::warn!("{item}: {why}"),
                false => return Err(Cause::Unsafe(why)),
            }
        }
    }
    if let Item::Run(_) = item {
        let made = links::copy(source, to, Target::Workspace(workspace));
        made.map_err(|errno| Cause::io("make the symlinks of", at, errno))?;
    }
    Ok(copied)
}

/// Makes `current` name the run that it names in the first folder with one, if the primary's is missing or leads to no run.
fn current(env: &Env<'_>, experiment: &OsStr) -> Result<()> {
    let primary = env.view.primary();
    let item = |run: &OsStr| {
        Item::Run(RunName {
            experiment: experiment.to_owned(),
            run: run.to_owned(),
        })
    };
    let at = item(OsStr::new(store::CURRENT)).path(primary);
    let looked = |errno: Errno| Cause::io("look at", &at, errno);
    let root = primary.root().map_err(looked)?;
    for folder in places::folders_of_mode(env.view, Mode::Backup) {
        let Ok(theirs) = folder.root() else {
            continue;
        };
        let named = at::open_dirs(theirs.fd(), item(OsStr::new("")).parents().into_iter());
        let named = named.and_then(|parent| at::read_link(&parent, OsStr::new(store::CURRENT)));
        let Ok(named) = named else {
            continue;
        };
        let run = std::path::PathBuf::from(named);
        let run = run.file_name().unwrap_or_default();
        let is_there = matches!(store::open(&root, &item(run)), Ok(Some(_)));
        let parent = at::open_dirs(root.fd(), item(run).parents().into_iter()).map_err(looked)?;
        let ours = at::absent(at::read_link(&parent, OsStr::new(store::CURRENT)));
        let leads_to_run = ours.ok().flatten().is_some_and(|ours| {
            let ours = std::path::PathBuf::from(ours);
            let ours = ours.file_name().unwrap_or_default();
            matches!(store::open(&root, &item(ours)), Ok(Some(_)))
        });
        if leads_to_run {
            return Ok(());
        }
        if is_there {
            return set_current(&parent, run, &at).map(drop);
        }
    }
    Ok(())
}

/// Marks the primary as a workspace.
pub fn mark(env: &Env<'_>) {
    let Ok(root) = env.view.primary().root() else {
        return;
    };
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let made = rustix::fs::openat(root.fd(), MARKER, flags, FileMode::from_raw_mode(0o666));
    if let Err(errno) = made
        && errno != Errno::EXIST
    {
        tracing::warn!("cannot make {MARKER} in the primary: {errno}");
    }
}
