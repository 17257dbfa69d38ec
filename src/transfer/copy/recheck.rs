//! Checks whether a source is still as it was copied.

use std::ffi::OsStr;
use std::os::fd::AsFd;

use super::work::Excluded;
use crate::sys::at::{self, open_dirs, open_to_list};
use crate::sys::dir_stack::IndexedDirStack;
use crate::transfer::error::{Context, Error, Failure};
use crate::transfer::manifest::{self, Kind, Manifest};
use crate::transfer::options::{Candidate, Selector};
use crate::transfer::stamp::Stamp;

/// The state of a source when it was read.
#[derive(Debug)]
pub(super) struct Remembered {
    /// The stamps, in the order of the manifest.
    pub(super) stamps: Vec<Stamp>,
    pub(super) excluded: Vec<Excluded>,
}

impl Remembered {
    /// Checks that the source is as it was when it was read; `renamed`: it was renamed since.
    ///
    /// # Errors
    ///
    /// The first entry that is different, or that could not be looked at.
    pub(super) fn unchanged(
        &self,
        source: impl AsFd,
        manifest: &Manifest,
        select: Option<&Selector<'_>>,
        renamed: bool,
    ) -> Result<(), Error> {
        let top = open_to_list(&source, OsStr::new("."))
            .source("open")
            .map_err(|failure| failure.at("".into()))?;
        let mut steps = IndexedDirStack::new(top);
        for (index, (entry, stamp)) in manifest.entries().iter().zip(&self.stamps).enumerate() {
            let mut look = || {
                if index == 0 {
                    return compare(&**steps.current(), OsStr::new(""), stamp, renamed);
                }
                while steps.position() != entry.parent {
                    if steps.up().listed("leave")?.is_none() {
                        break;
                    }
                }
                compare(&**steps.current(), &entry.name, stamp, false)?;
                if matches!(entry.kind, Kind::Directory) {
                    let fd = open_to_list(&**steps.current(), &entry.name).listed("open")?;
                    steps.down(index, fd).source("look at")?;
                }
                Ok(())
            };
            look().map_err(|failure: Failure| failure.at(manifest.path(index)))?;
        }
        self.still_excluded(source, manifest, select)
    }

    /// Checks that no entry that was left out is data now, for example a lock that a process has written to.
    fn still_excluded(
        &self,
        source: impl AsFd,
        manifest: &Manifest,
        select: Option<&Selector<'_>>,
    ) -> Result<(), Error> {
        let Some(select) = select else {
            return Ok(());
        };
        for excluded in &self.excluded {
            let names = manifest::names(manifest.entries(), excluded.parent);
            let parent = names.last().copied().unwrap_or_default();
            let wanted = open_dirs(&source, names.iter().copied())
                .listed("open")
                .map(|directory| {
                    let place = (names.len(), parent);
                    select(&Candidate::new(
                        directory.as_fd(),
                        place,
                        &excluded.name,
                        excluded.kind,
                    ))
                });
            let path = || manifest.path(excluded.parent).join(&*excluded.name);
            if wanted.map_err(|failure| failure.at(path()))? {
                return Err(Failure::Changed("it is no longer to be left out").at(path()));
            }
        }
        Ok(())
    }
}

fn compare(dir: impl AsFd, name: &OsStr, before: &Stamp, renamed: bool) -> Result<(), Failure> {
    let stat = at::stat_now(dir, name).listed("look at")?;
    let now = Stamp::of(&stat);
    let before = if renamed {
        before.renamed(&now)
    } else {
        *before
    };
    match before.change(&now) {
        None => Ok(()),
        Some(how) => Err(Failure::Changed(how)),
    }
}
