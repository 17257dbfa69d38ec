//! Reads the copies of runs and partials in `backup` folders again, and compares them with their manifests.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use super::store::{manifest, open, with_options};
use super::{Item, RunName, damage};
use crate::archive::env::Env;
use crate::archive::error::Cause;
use crate::archive::places;
use crate::settings::Mode;
use crate::transfer::{self, Difference, What};
use crate::view::Location;
use crate::view::jobs::names;
use crate::workspace::layout::{EXPERIMENTS, PARTIALS};
use crate::workspace::partials::PartialId;

/// The result for one copy.
#[derive(Debug)]
pub enum VerifiedItem {
    /// It is as its manifest says, or differs from it so.
    Read {
        /// How many files it should have, including symlinks.
        files: u64,
        /// How many bytes they should have.
        bytes: u64,
        /// How its content differs: damage.
        damage: Vec<Difference>,
    },
    /// Only its manifest is left.
    Missing,
    /// It cannot be read.
    Unread(Cause),
}

/// The finding about a missing copy.
pub const COPY_GONE: &str = "the copy is gone";

/// How a copy with this finding is made anew, as a clause.
#[must_use]
pub fn remedy(finding: &str) -> &'static str {
    match finding {
        COPY_GONE => "`xpmfs archive` copies it again if the workspace has it",
        _ => "if the workspace has it, remove that copy and run `xpmfs archive`",
    }
}

impl VerifiedItem {
    /// What is wrong with the copy, if anything; `None` if that is unknown, since it could not be read.
    fn finding(&self) -> Option<Option<String>> {
        match self {
            VerifiedItem::Unread(_) => None,
            VerifiedItem::Missing => Some(Some(COPY_GONE.to_owned())),
            VerifiedItem::Read { damage, .. } => {
                let mut read = damage.iter();
                match read.find(|it| !matches!(it.what, What::Unreadable(_))) {
                    Some(first) => {
                        let (path, what) = (first.path.display(), &first.what);
                        Some(Some(format!("the copy is damaged: {path} {what}")))
                    }
                    None if damage.is_empty() => Some(None),
                    None => None,
                }
            }
        }
    }
}

/// Verifies every copy that has a manifest, and reports each with the folder's number, until the progress is cancelled. Records what is
/// wrong, for `status`; returns the error of that, if any.
///
/// # Errors
///
/// An error of the primary's file system; the copies were verified all the same.
pub fn verify(
    env: &Env<'_>,
    report: &mut dyn FnMut(u8, &Item, VerifiedItem),
) -> rustix::io::Result<()> {
    let primary = env.view.primary();
    let mut recorded_all = Ok(());
    for folder in places::folders_of_mode(env.view, Mode::Backup) {
        let items = recorded(folder);
        for item in &items {
            if env.progress.is_cancelled() {
                return recorded_all;
            }
            let verified = verify_item(env, folder, item).unwrap_or_else(VerifiedItem::Unread);
            if let Some(finding) = verified.finding() {
                let set = damage::set(primary, folder, item, finding.as_deref());
                recorded_all = recorded_all.and(set);
            }
            report(folder.index(), item, verified);
        }
        if folder.root().is_ok() && !folder.is_away() {
            recorded_all = recorded_all.and(damage::retain(primary, folder, &items));
        }
    }
    recorded_all
}

fn verify_item(env: &Env<'_>, folder: &Location, item: &Item) -> Result<VerifiedItem, Cause> {
    let at = item.path(folder);
    let known = manifest(folder, item);
    let known = known.map_err(|error| Cause::Unsafe(format!("its manifest: {error}")))?;
    let root = folder
        .root()
        .map_err(|errno| Cause::io("open", &at, errno))?;
    let copy = open(&root, item).map_err(|errno| Cause::io("open", &at, errno))?;
    let (Some(known), Some(copy)) = (known, copy) else {
        return Ok(VerifiedItem::Missing);
    };
    let found = with_options(env, item, None, |options| {
        transfer::verify(&copy, &known, options)
    });
    let mut damage = found.map_err(|error| Cause::transfer(&at, error))?;
    damage.retain(|difference| difference.what.is_content());
    Ok(VerifiedItem::Read {
        files: known.files(),
        bytes: known.bytes(),
        damage,
    })
}

/// The items that have a manifest in a folder.
fn recorded(folder: &Location) -> Vec<Item> {
    let mut items = Vec::new();
    let experiments = OsStr::new(EXPERIMENTS);
    for experiment in below(folder, &[experiments]) {
        for run in manifests(folder, &[experiments, &experiment]) {
            let experiment = experiment.clone();
            items.push(Item::Run(RunName { experiment, run }));
        }
    }
    let partials = OsStr::new(PARTIALS);
    for task in below(folder, &[partials]) {
        for name in below(folder, &[partials, &task]) {
            for identifier in manifests(folder, &[partials, &task, &name]) {
                items.extend(PartialId::new(&task, &name, &identifier).map(Item::Partial));
            }
        }
    }
    items
}

/// The names in a directory in a folder's `.xpmfs`.
fn below(folder: &Location, directory: &[&OsStr]) -> Vec<OsString> {
    match places::own(folder, directory.iter().copied()) {
        Ok(Some(directory)) => names(&directory).unwrap_or_default(),
        _ => Vec::new(),
    }
}

fn manifests(folder: &Location, directory: &[&OsStr]) -> Vec<OsString> {
    let files = below(folder, directory).into_iter();
    let names = files.filter_map(|file| {
        let name = file.as_bytes().strip_suffix(b".json")?;
        Some(OsStr::from_bytes(name).to_owned())
    });
    names.collect()
}
