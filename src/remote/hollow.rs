//! Which location of another machine serves a job, by the names, sizes and times of its files: the rules of `view`, without its
//! descriptors.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::io::{self, BufRead};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::ssh::{expect_record, number, record};
use crate::settings::Mode;
use crate::transfer::Size;
use crate::workspace::internal::is_rewritten;
use crate::workspace::jobs::JobId;
use crate::workspace::markers;

/// A job there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SiteJob {
    /// The number of the location that serves it.
    pub(super) location: usize,
    pub(super) size: Size,
}

/// The files of a job in one location.
pub(super) struct Listing {
    location: usize,
    /// `None` for the workspace's own directory.
    mode: Option<Mode>,
    done: OsString,
    failed: OsString,
    name: OsString,
    /// Each file that is not rewritten in a finished job, with its size and the second of its last change.
    files: HashMap<OsString, (u64, u64)>,
    size: Size,
    is_locked: bool,
    is_complete: bool,
}

impl Listing {
    pub(super) fn new(location: usize, mode: Option<Mode>, job: &JobId) -> Listing {
        Listing {
            location,
            mode,
            done: markers::done(job.name()),
            failed: markers::failed(job.name()),
            name: job.name().to_owned(),
            files: HashMap::new(),
            size: Size::default(),
            is_locked: false,
            is_complete: false,
        }
    }

    /// Reads the entries of a directory; returns the first record after them.
    pub(super) fn read(&mut self, output: &mut dyn BufRead) -> io::Result<Option<OsString>> {
        loop {
            let Some(kind) = record(output)? else {
                return Ok(None);
            };
            match kind.to_str() {
                Some("=L") => self.is_locked = true,
                Some("=E") => {
                    self.is_complete = true;
                    return record(output);
                }
                Some("=J" | "=D") => return Ok(Some(kind)),
                _ => {
                    let size = number(&expect_record(output)?)?;
                    let time = number(&expect_record(output)?)?;
                    let path = expect_record(output)?;
                    if kind != "d" {
                        self.add(path, size, time);
                    }
                }
            }
        }
    }

    fn add(&mut self, path: OsString, size: u64, time: u64) {
        let at = Path::new(&path);
        let (above, name) = (
            at.parent().unwrap_or(at),
            at.file_name().unwrap_or(OsStr::new("")),
        );
        let is_lock = at.parent() == Some(Path::new("")) && name.as_bytes().ends_with(b".pid");
        if !is_lock {
            self.size.files += 1;
            self.size.bytes = self.size.bytes.saturating_add(size);
        }
        if !is_rewritten(above, name, &self.name, false, size) {
            self.files.insert(path, (size, time));
        }
    }

    fn is_done(&self) -> bool {
        self.files.contains_key(&self.done)
    }

    /// Whether it is what a purge has left of the finished job in `whole`.
    fn is_left_of(&self, whole: &Listing) -> bool {
        let is_unchanged = self
            .files
            .iter()
            .all(|(path, file)| whole.files.get(path) == Some(file));
        let has_failed = self.files.contains_key(&self.failed);
        whole.is_done()
            && is_unchanged
            && !has_failed
            && !self.is_locked
            && self.files.len() < whole.files.len()
    }
}

/// The location that serves a job: the workspace's own directory, unless a folder has the whole of what is left of the job there; else the
/// first folder with a finished copy, or with any.
pub(super) fn serving(listings: &[Listing]) -> Result<SiteJob, String> {
    let folders = listings.iter().filter(|listing| match listing.mode {
        None => false,
        Some(Mode::Use) => listing.is_done(),
        Some(_) => true,
    });
    let mut folders: Vec<&Listing> = folders.collect();
    folders.sort_by_key(|listing| !listing.is_done());
    let own = listings.iter().find(|listing| listing.mode.is_none());
    let own = own.filter(|own| !folders.iter().any(|whole| own.is_left_of(whole)));
    let Some(serving) = own.or(folders.first().copied()) else {
        return Err("it is neither in the workspace nor in a folder of it".to_owned());
    };
    match (serving.is_locked, serving.is_complete) {
        (true, _) => Err(
            "a process holds its lock: it is running; copy it again when it has ended".to_owned(),
        ),
        (_, false) => Err("its files cannot be listed: see whether you may read them".to_owned()),
        _ => Ok(SiteJob {
            location: serving.location,
            size: serving.size,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listing(location: usize, mode: Option<Mode>, files: &[&str]) -> Listing {
        let job = JobId::new("m.train", "1f").unwrap();
        let mut listing = Listing::new(location, mode, &job);
        let mut text: Vec<u8> = Vec::new();
        for file in files {
            text.extend_from_slice(format!("f\x00{}\x001.5\0{file}\0", file.len()).as_bytes());
        }
        text.extend_from_slice(b"=E\0=J\0");
        let next = listing.read(&mut &text[..]).unwrap();
        assert_eq!(next.as_deref(), Some(OsStr::new("=J")));
        listing
    }

    fn location(listings: &[Listing]) -> Option<usize> {
        serving(listings).ok().map(|found| found.location)
    }

    #[test]
    fn a_folder_serves_what_the_workspace_lacks_or_has_in_part() {
        let whole = ["train.done", "model", "params.json"];
        let own = |files: &[&str]| listing(0, None, files);
        let backup = |files: &[&str]| listing(1, Some(Mode::Backup), files);
        let used = |files: &[&str]| listing(2, Some(Mode::Use), files);
        assert_eq!(location(&[]), None);
        assert_eq!(location(&[own(&whole), backup(&whole)]), Some(0));
        assert_eq!(location(&[own(&["model"]), backup(&whole)]), Some(1));
        assert_eq!(
            location(&[
                own(&[".experimaestro/status.json", "train.lock"]),
                backup(&whole)
            ]),
            Some(1)
        );
        assert_eq!(location(&[own(&["model", "new"]), backup(&whole)]), Some(0));
        assert_eq!(location(&[own(&["train.failed"]), backup(&whole)]), Some(0));
        assert_eq!(
            location(&[own(&["model"]), backup(&["model", "x"])]),
            Some(0)
        );
        assert_eq!(location(&[backup(&["model"]), used(&whole)]), Some(2));
        assert_eq!(location(&[used(&["model"])]), None);
        let mut locked = own(&whole);
        locked.is_locked = true;
        assert!(serving(&[locked]).unwrap_err().contains("running"));
        let mut unreadable = own(&whole);
        unreadable.is_complete = false;
        assert!(serving(&[unreadable]).unwrap_err().contains("read them"));
    }
}
