//! Copies one item to a folder: it appears there whole or not at all, and is durable before it does.
//!
//! 1. Locks the item's staging directory beside its place, and compares the item with the folder's copy.
//! 2. Copies it, and makes it durable; then looks at the source again, and asks the caller whether it is still unused.
//! 3. Writes its manifest to `<folder>/.xpmfs/<path of the item>.json`, beside its place.
//! 4. Renames the copy into place, or exchanges it for an older one; then renames the manifest.

use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::compare::{ItemComparison, compare};
use super::links::{self, Target};
use super::{Item, damage};
use crate::archive::env::Env;
use crate::archive::error::Cause;
use crate::archive::job::manifests;
use crate::archive::job::select::is_removed;
use crate::archive::job::store::{Skipped, Stored};
use crate::archive::space::{Claim, Disk, Refused};
use crate::archive::{folder_alias, obstacle, places, state_dir};
use crate::sys::at;
use crate::transfer::staging::{Staging, sweep_with};
use crate::transfer::{self, Candidate, Manifest, Options, Originals};
use crate::view::{Location, Root};
use crate::workspace::layout::{JOBS, XPMFS};
use crate::workspace::runs::RunId;

/// A result about one item.
pub(super) type Result<T> = std::result::Result<T, Cause>;

/// With this many free bytes, the size of the copy is not compared with them: the size may be unknown until the files are written back.
const SPARE_BYTES: u64 = 1 << 20;

/// The directory of experimaestro's locks in a partial's `.experimaestro`.
const LOCKS: &str = "locks";

/// The symlink in an experiment's directory that names the newest run.
pub(super) const CURRENT: &str = "current";

/// A folder that items are copied to.
pub(super) struct Store<'a> {
    pub(super) env: &'a Env<'a>,
    pub(super) folder: &'a Location,
    /// Its directory when the pass began.
    pub(super) root: Arc<Root>,
}

impl Store<'_> {
    /// Opens an item in the primary; `None` if it is missing.
    pub(super) fn source(&self, item: &Item) -> Result<Option<OwnedFd>> {
        let primary = self.env.view.primary();
        let path = item.path(primary);
        let root = primary.root();
        let root = root.map_err(|errno| Cause::io("open", primary.path(), errno))?;
        open(&root, item).map_err(|errno| Cause::io("open", &path, errno))
    }

    /// Looks at an item's files without reading them: when they were last changed, and how much there is.
    pub(super) fn measure(&self, item: &Item, source: &OwnedFd) -> Result<transfer::Measured> {
        let measured = self.with_options(item, |options| transfer::measure(source, options));
        measured.map_err(|error| Cause::transfer(&item.path(self.env.view.primary()), error))
    }

    /// Whether the folder has a copy of an item.
    pub(super) fn has(&self, item: &Item) -> bool {
        matches!(open(&self.root, item), Ok(Some(_)))
    }

    /// Whether the folder has the same copy of an item.
    pub(super) fn is_same(&self, item: &Item, source: &OwnedFd) -> bool {
        let ours = self.with_options(item, |options| transfer::outline(source, options));
        match (ours, self.existing(item)) {
            (Ok(ours), Ok(Some(existing))) => existing.compare(item, &ours) == ItemComparison::Same,
            _ => false,
        }
    }

    /// Copies an item to the folder, unless that has the same, or more. `check` is called right before the copy gets its place.
    pub(super) fn store(
        &self,
        item: &Item,
        source: &OwnedFd,
        check: &dyn Fn() -> Result<()>,
    ) -> Result<Stored> {
        let (from, at) = (item.path(self.env.view.primary()), item.path(self.folder));
        let ours = self.with_options(item, |options| transfer::outline(source, options));
        let ours = ours.map_err(|error| Cause::transfer(&from, error))?;
        let compared = |existing: &Existing| existing.compare(item, &ours);
        // Before anything is made in the folder.
        if self.existing(item)?.as_ref().map(compared) == Some(ItemComparison::Same) {
            return Ok(Stored::Already);
        }
        let parent = places::make_like(&self.root, self.env.view.primary(), &item.parents());
        let parent = parent.map_err(|errno| {
            let cause = Cause::io("make the directory of", &at, errno);
            self.name_obstacle(cause, &item.parents())
        })?;
        sweep(&parent, self.folder);
        let staging = |error| Cause::staging(&at, error);
        let Some(mut staged) = Staging::take(&parent, item.name()).map_err(staging)? else {
            return Err(Cause::Busy(
                "another process copies it to the same folder".into(),
            ));
        };
        // Another process may have been faster.
        let existing = self.existing(item)?;
        if let Some(existing) = &existing {
            match compared(existing) {
                ItemComparison::Same => return Ok(Stored::Already),
                ItemComparison::Less => return Ok(Stored::Skipped(Skipped::Older)),
                ItemComparison::Newer => {}
            }
        }
        let _claim = self.claim_space(item, source)?;
        let to = staged.make().map_err(staging)?;
        let copied = self.with_options(item, |options| transfer::copy(source, &to, options));
        let copied = copied.map_err(|error| Cause::transfer_between(&from, &at, error))?;
        if let Item::Run(_) = item {
            let made = links::copy(source, &to, Target::StagingContext);
            made.map_err(|errno| Cause::io("make the symlinks of", &at, errno))?;
        }
        for loss in &copied.losses {
            tracing::warn!("{item} in {}: {loss}", self.folder.path().display());
        }
        check()?;
        let unchanged = self.with_options(item, |options| copied.unchanged(source, options.select));
        unchanged.map_err(|error| Cause::transfer(&from, error))?;
        self.expect_same_folder()?;
        let (name, written) = (item.name(), |error: io::Error| {
            let own = [&[OsStr::new(XPMFS)], &*item.parents()].concat();
            self.name_obstacle(Cause::io("write the manifest of", &at, error), &own)
        });
        let manifest = &copied.manifest;
        let manifests_dir =
            manifests::stage_named(&self.root, &item.parents(), name, manifest, true);
        let manifests_dir = manifests_dir.map_err(written)?;
        let placed = match &existing {
            Some(existing) => staged.exchange(&existing.copy).map(drop),
            None => staged.publish(),
        };
        if let Err(error) = placed.and_then(|()| staged.sync()) {
            manifests::discard_in(&manifests_dir, name);
            return Err(staging(error));
        }
        manifests::place_in(&manifests_dir, name, true).map_err(written)?;
        staged.finish(None).map_err(staging)?;
        // Only `status` would show an earlier finding.
        let _ = damage::set(self.env.view.primary(), self.folder, item, None);
        let (files, bytes) = (manifest.files(), manifest.bytes());
        Ok(match existing {
            Some(_) => Stored::Replaced { files, bytes },
            None => Stored::Copied { files, bytes },
        })
    }

    /// The folder's copy of an item, and its content by its manifest, or as it looks if the manifest does not match it.
    fn existing(&self, item: &Item) -> Result<Option<Existing>> {
        let at = item.path(self.folder);
        let copy = open(&self.root, item).map_err(|errno| Cause::io("open", &at, errno))?;
        let Some(copy) = copy else {
            return Ok(None);
        };
        let seen = self.with_options(item, |options| transfer::outline(&copy, options));
        let seen = seen.map_err(|error| Cause::transfer(&at, error))?;
        let known = manifest(self.folder, item).unwrap_or_else(|error| {
            tracing::warn!("cannot use the manifest of {}: {error}", at.display());
            None
        });
        // The disk may keep times less precisely than the manifest.
        let known = known.filter(|known| compare(item, known, &seen) == ItemComparison::Same);
        Ok(Some(Existing {
            copy,
            has_manifest: known.is_some(),
            content: known.unwrap_or(seen),
        }))
    }

    fn with_options<T>(&self, item: &Item, call: impl FnOnce(&Options<'_>) -> T) -> T {
        with_options(self.env, item, None, call)
    }

    fn claim_space(&self, item: &Item, source: &OwnedFd) -> Result<Claim> {
        let needed = || Ok(self.measure(item, source)?.taken);
        claim_space(self.env, self.folder, needed)
    }

    /// Checks that the folder's path leads to the same directory as when the pass began.
    fn expect_same_folder(&self) -> Result<()> {
        let is_same = self
            .folder
            .root()
            .is_ok_and(|now| Arc::ptr_eq(&now, &self.root));
        let there = at::file_id(self.root.fd()).and_then(|begun| {
            let now = at::stat_path(self.folder.path())?;
            Ok(crate::sys::file_id::FileId::of(&now) == begun)
        });
        match is_same && there == Ok(true) {
            true => Ok(()),
            false => Err(self.unusable(
                "its path does not lead to the directory any more that was copied to: see whether its disk is mounted",
            )),
        }
    }

    /// Checks that items may be copied to the folder at all.
    pub(super) fn expect_usable(&self) -> Result<()> {
        let primary = self.env.view.primary();
        if let Some(why) = folder_alias::shared(self.env.view, self.folder) {
            return Err(self.unusable(&why));
        }
        let known = state_dir::is_known(primary, self.folder);
        let known = known.map_err(|errno| Cause::Unsafe(state_dir::explain(primary, errno)))?;
        let has_jobs = matches!(at::absent(self.root.jobs()), Ok(Some(_)));
        match known && !has_jobs {
            true => Err(self.unusable(places::NO_DISK)),
            false => Ok(()),
        }
    }

    /// Replaces `ENOTDIR` by an error that names the file in the place of one of these nested directories, if there is one.
    fn name_obstacle(&self, cause: Cause, names: &[&OsStr]) -> Cause {
        if cause.errno() != Some(Errno::NOTDIR) {
            return cause;
        }
        let obstacle = obstacle::in_path(self.folder, &self.root, names);
        obstacle.map_or(cause, Cause::Obstacle)
    }

    fn unusable(&self, why: &str) -> Cause {
        Cause::Folder {
            folder: self.folder.path().to_owned(),
            why: why.to_owned(),
        }
    }
}

/// A folder's copy of an item.
struct Existing {
    copy: OwnedFd,
    content: Manifest,
    /// Whether its manifest matches it. A crash right after the copy got its place leaves it without.
    has_manifest: bool,
}

impl Existing {
    /// Compares the primary's item with the copy. One without a manifest is made anew, so that it can be verified.
    fn compare(&self, item: &Item, ours: &Manifest) -> ItemComparison {
        match compare(item, ours, &self.content) {
            ItemComparison::Same if !self.has_manifest => ItemComparison::Newer,
            comparison => comparison,
        }
    }
}

/// Opens an item in a location; `None` if it is missing, or another entry is in the place of a directory.
pub(super) fn open(root: &Root, item: &Item) -> rustix::io::Result<Option<OwnedFd>> {
    let parent = at::absent(at::open_dirs(root.fd(), item.parents().into_iter()))?;
    match parent {
        Some(parent) => places::open(parent, item.name()),
        None => Ok(None),
    }
}

/// The manifest of a folder's copy of an item, if it has one.
pub(super) fn manifest(
    folder: &Location,
    item: &Item,
) -> std::result::Result<Option<Manifest>, manifests::ManifestError> {
    manifests::read_named(folder, &item.parents(), item.name())
}

/// Whether an entry of an item is copied: all but locks, what jobs hold locks with, and files that were removed while they were open. The
/// symlinks to the jobs of a run are made by [`links`].
fn is_copied(item: &Item, candidate: &Candidate<'_>) -> bool {
    let name = candidate.name();
    if candidate.is_file() && is_removed(name) {
        return false;
    }
    match item {
        Item::Run(_) if candidate.depth() == 0 => {
            let is_lock = candidate.is_file()
                && name.as_bytes().ends_with(b".lock")
                && candidate.size() == Some(0);
            name != OsStr::new(JOBS) && !is_lock
        }
        Item::Partial(_) if candidate.depth() == 2 && candidate.parent() == LOCKS => {
            name != OsStr::new("ipc.lock") && name != OsStr::new("jobs")
        }
        _ => true,
    }
}

/// Calls a function with the options for reading or copying an item.
pub(super) fn with_options<T>(
    env: &Env<'_>,
    item: &Item,
    originals: Option<&Originals>,
    call: impl FnOnce(&Options<'_>) -> T,
) -> T {
    let select = |candidate: &Candidate<'_>| is_copied(item, candidate);
    call(&Options {
        originals,
        ..env.options(&select)
    })
}

/// Claims the free bytes of a location that a copy needs, so that the copy does not fill a disk that others use.
pub(super) fn claim_space(
    env: &Env<'_>,
    location: &Location,
    needed: impl FnOnce() -> Result<u64>,
) -> Result<Claim> {
    let path = location.path();
    let disk = Disk::of(location).map_err(|errno| Cause::io("open", path, errno))?;
    let needed = needed()?.saturating_add(SPARE_BYTES);
    let claim = disk.claim(needed, || env.progress.is_cancelled());
    claim.map_err(|refused| match refused {
        Refused::Cancelled => Cause::Cancelled,
        Refused::System(errno) => Cause::io("look at the space of", path, errno),
        Refused::Lacking { .. } => Cause::Folder {
            folder: path.to_owned(),
            why: refused.to_string(),
        },
    })
}

/// Removes the unfinished copies of crashed processes in a directory of items.
pub(super) fn sweep(parent: &OwnedFd, location: &Location) {
    match sweep_with(parent, &|_| false, &mut |_: &OsStr| {}) {
        Ok(0) => {}
        Ok(count) => tracing::info!(
            "removed {count} copies in {} that were never completed",
            location.path().display()
        ),
        Err(error) => tracing::debug!("cannot clear {}: {error}", location.path().display()),
    }
}

/// Removes the unfinished copies of crashed processes from all directories of items in a location.
pub(super) fn sweep_all(location: &Location, top: &Path) {
    let clear = |path: &Path| {
        if let Ok(parent) = at::open_to_list(rustix::fs::CWD, path.as_os_str()) {
            sweep(&parent, location);
        }
    };
    for experiment in crate::workspace::experiments::list(top).found {
        if experiment.layout == crate::workspace::runs::Layout::V2 {
            clear(&experiment.path);
        }
    }
    for parent in crate::workspace::partials::parents(top) {
        clear(&parent);
    }
}

/// Makes `current` in an experiment's directory name a run, unless it names a newer one that is there. Returns false if another process
/// does this now.
pub(super) fn set_current(parent: &OwnedFd, run: &OsStr, at: &Path) -> Result<bool> {
    let name = OsStr::new(CURRENT);
    let looked = |errno: Errno| Cause::io("look at", at, errno);
    let staging = |error| Cause::staging(at, error);
    let Some(mut staged) = Staging::take(parent, name).map_err(staging)? else {
        return Ok(false);
    };
    let itself = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let old = rustix::fs::openat(parent, name, itself, Mode::empty());
    let old = at::absent(old).map_err(looked)?;
    if let Some(old) = &old {
        let target = PathBuf::from(at::read_link(old, OsStr::new("")).map_err(looked)?);
        let target = target.file_name().unwrap_or_default();
        let is_there = places::open(parent, target).is_ok_and(|found| found.is_some());
        if is_there && RunId::new(target) >= RunId::new(run) {
            return Ok(true);
        }
    }
    staged.link(Path::new(run)).map_err(staging)?;
    match &old {
        Some(old) => staged.exchange(old).map(drop),
        None => staged.publish(),
    }
    .and_then(|()| staged.sync())
    .and_then(|()| staged.finish(None))
    .map_err(staging)?;
    Ok(true)
}
