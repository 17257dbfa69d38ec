//! Records which jobs folders have, so that a job of a folder that is away is not mistaken for one that does not exist.
//!
//! The record of a task is `<primary>/.xpmfs/archive/known/<BLAKE3 of the folder's path>/<task_id>`: a line about the task's directory,
//! then the names of its jobs in order, each with a 0 byte at its end. A name is found by bisection, in some twenty reads of a million jobs.
//! Requests only read it; `recorder` writes it in the background. [`gone`] has the jobs that a folder has lost.

pub(super) mod gone;
mod recorder;

use std::cmp::Ordering;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags, Statx};
use rustix::io::{Errno, Result};

use super::location::{KNOWN, known_dir};
use super::record_files;
use super::{Location, Root, View};
use crate::sys::at;
use crate::workspace::jobs;
use crate::workspace::layout::folder_name;

/// The first word of a record.
const HEAD: &str = "xpmfs-known-1";

/// The most bytes of the first line.
const HEAD_MAX: usize = 512;

/// The most bytes of a name, with the 0 byte.
const NAME_MAX: u64 = 256;

/// How much of a record is read at once for a listing.
const CHUNK: usize = 64 << 10;

/// The most bytes of a record that is written anew because of one job.
const REWRITTEN_MAX: u64 = 1 << 20;

/// The attributes of a task's directory that are recorded.
const FIELDS: usize = 12;

/// The record of a folder's jobs of one task.
#[derive(Debug)]
pub(super) struct Record {
    file: File,
    /// The attributes of the task's directory when it was listed.
    fields: [i64; FIELDS],
    /// Whether it has every job that the directory had then, and each later change shows in the directory's times.
    complete: bool,
    /// Where the names begin and end.
    begin: u64,
    end: u64,
}

fn fields(stat: &Statx) -> [i64; FIELDS] {
    [
        stat.stx_dev_major.into(),
        stat.stx_dev_minor.into(),
        stat.stx_ino.cast_signed(),
        stat.stx_btime.tv_sec,
        stat.stx_btime.tv_nsec.into(),
        stat.stx_mode.into(),
        stat.stx_uid.into(),
        stat.stx_gid.into(),
        stat.stx_mtime.tv_sec,
        stat.stx_mtime.tv_nsec.into(),
        stat.stx_ctime.tv_sec,
        stat.stx_ctime.tv_nsec.into(),
    ]
}

impl Record {
    /// Opens the record of a task; `None` if it does not exist or cannot be used.
    fn open(primary: &Root, folder: &Location, task: &OsStr) -> Option<Record> {
        let path = known_dir(folder.path()).join(task);
        let flags = OFlags::RDONLY | OFlags::NONBLOCK;
        let file = File::from(at::open_below(primary.fd(), &path, flags).ok()?);
        let mut head = Vec::with_capacity(HEAD_MAX);
        (&file).take(HEAD_MAX as u64).read_to_end(&mut head).ok()?;
        let length = head.iter().position(|byte| *byte == b'\n')?;
        let line = std::str::from_utf8(head.get(..length)?).ok()?;
        let mut words = line.strip_prefix(HEAD)?.split_whitespace();
        let complete = words.next()? == "complete";
        let names: u64 = words.next()?.parse().ok()?;
        let mut fields = [0; FIELDS];
        for field in &mut fields {
            *field = words.next()?.parse().ok()?;
        }
        let begin = length as u64 + 1;
        let end = begin.checked_add(names)?;
        // A record that was not written to its end is worth nothing.
        (file.metadata().ok()?.len() == end).then_some(Record {
            file,
            fields,
            complete,
            begin,
            end,
        })
    }

    /// Whether it has every job of a task's directory with these attributes.
    fn is_of(&self, stat: &Statx) -> bool {
        self.complete && self.fields == fields(stat)
    }

    /// Whether it has a job.
    fn has(&self, hash: &OsStr) -> std::io::Result<bool> {
        let (mut low, mut high) = (self.begin, self.end);
        let mut buffer = [0; 2 * NAME_MAX as usize];
        while low < high {
            let middle = low.midpoint(high);
            let from = middle.saturating_sub(NAME_MAX).max(low);
            let length = usize::try_from((self.end - from).min(buffer.len() as u64)).unwrap_or(0);
            let window = buffer.get_mut(..length).unwrap_or_default();
            self.file.read_exact_at(window, from)?;
            let at = usize::try_from(middle - from).unwrap_or(0);
            let (before, _) = window.split_at_checked(at).unwrap_or_default();
            let start = before
                .iter()
                .rposition(|byte| *byte == 0)
                .map_or(0, |at| at + 1);
            let rest = window.get(start..).unwrap_or_default();
            let Some(length) = rest.iter().position(|byte| *byte == 0) else {
                return Ok(false);
            };
            let name = rest.get(..length).unwrap_or_default();
            match name.cmp(hash.as_bytes()) {
                Ordering::Equal => return Ok(true),
                Ordering::Less => low = from + (start + length) as u64 + 1,
                Ordering::Greater => high = from + start as u64,
            }
        }
        Ok(false)
    }

    /// Passes the names from a position on to `each`, with the position after each, until it returns `false`. Position 0 is the beginning.
    /// Returns whether the end was reached.
    fn names(&self, from: u64, each: &mut dyn FnMut(&OsStr, u64) -> bool) -> std::io::Result<bool> {
        let mut from = from.max(self.begin);
        while from < self.end {
            let length = usize::try_from(self.end - from).map_or(CHUNK, |left| left.min(CHUNK));
            let mut chunk = vec![0; length];
            self.file.read_exact_at(&mut chunk, from)?;
            let mut whole = 0;
            for name in chunk.split_inclusive(|byte| *byte == 0) {
                let Some(name) = name.strip_suffix(b"\0") else {
                    break;
                };
                whole += name.len() + 1;
                if !each(OsStr::from_bytes(name), from + whole as u64) {
                    return Ok(false);
                }
            }
            if whole == 0 {
                return Err(std::io::ErrorKind::InvalidData.into());
            }
            from += whole as u64;
        }
        Ok(true)
    }

    /// All names.
    fn all(&self) -> Vec<OsString> {
        let mut names = Vec::new();
        let read = self.names(0, &mut |name, _| {
            names.push(name.to_owned());
            true
        });
        match read {
            Ok(_) => names,
            Err(_) => Vec::new(),
        }
    }

    /// The attributes of the task's directory as it was recorded; `like` has the ones that are not.
    fn stat(&self, like: &Statx) -> Statx {
        let mut stat = *like;
        let [
            dev_major,
            dev_minor,
            ino,
            btime,
            btime_ns,
            mode,
            uid,
            gid,
            mtime,
            mtime_ns,
            ctime,
            ctime_ns,
        ] = self.fields;
        let small = |field: i64| u32::try_from(field).unwrap_or(0);
        (stat.stx_dev_major, stat.stx_dev_minor) = (small(dev_major), small(dev_minor));
        stat.stx_ino = ino.cast_unsigned();
        (stat.stx_btime.tv_sec, stat.stx_btime.tv_nsec) = (btime, small(btime_ns));
        stat.stx_mode = u16::try_from(mode).unwrap_or(0);
        (stat.stx_uid, stat.stx_gid) = (small(uid), small(gid));
        (stat.stx_mtime.tv_sec, stat.stx_mtime.tv_nsec) = (mtime, small(mtime_ns));
        (stat.stx_ctime.tv_sec, stat.stx_ctime.tv_nsec) = (ctime, small(ctime_ns));
        stat.stx_nlink = 2;
        stat
    }
}

/// Replaces the record of a task.
fn write(
    primary: &Root,
    folder: &Location,
    task: &OsStr,
    stat: &Statx,
    complete: bool,
    names: &[OsString],
) -> Result<()> {
    let dir = record_files::make_dir(primary, KNOWN, OsStr::new(&folder_name(folder.path())))?;
    let length: usize = names.iter().map(|name| name.len() + 1).sum();
    let mut bytes = Vec::with_capacity(length + HEAD_MAX);
    let complete = if complete { "complete" } else { "partial" };
    let _ = write!(bytes, "{HEAD} {complete} {length}");
    for field in fields(stat) {
        let _ = write!(bytes, " {field}");
    }
    bytes.push(b'\n');
    for name in names {
        bytes.extend_from_slice(name.as_bytes());
        bytes.push(0);
    }
    replace(primary, &dir, task, &bytes)
}

/// Replaces a file of the record by a rename. Other nodes may write the same file at the same time: one of the two stays.
fn replace(primary: &Root, dir: &std::os::fd::OwnedFd, name: &OsStr, bytes: &[u8]) -> Result<()> {
    let staged = OsString::from(format!(
        ".new-{}-{}",
        std::process::id(),
        blake3::hash(name.as_bytes()).to_hex()
    ));
    let flags =
        OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::openat(dir, &staged, flags, Mode::RUSR | Mode::WUSR)?;
    let written = record_files::share(primary, dir, &file)
        .and_then(|()| record_files::write_all(&file, bytes))
        .and_then(|()| rustix::fs::fdatasync(&file))
        .and_then(|()| rustix::fs::renameat(dir, &staged, dir, name));
    if written.is_err() {
        let _ = rustix::fs::unlinkat(dir, &staged, AtFlags::empty());
    }
    written
}

impl View {
    /// The folder that cannot be used now and has a job on record.
    pub(super) fn recorded_in(&self, task: &OsStr, hash: &OsStr) -> Option<&Location> {
        let away = self.folders().iter().filter(|it| it.is_away());
        let primary = self.primary().root().ok()?;
        let mut having = away.filter(|folder| {
            let record = Record::open(&primary, folder, task);
            record.is_some_and(|record| record.has(hash).unwrap_or(false))
                && !folder.has_deleted(task, hash)
        });
        having.next().map(AsRef::as_ref)
    }

    /// Makes sure that a job which no location has is not one of a folder that cannot be used now.
    ///
    /// # Errors
    ///
    /// `EIO` if a folder that cannot be used now has the job on record.
    pub fn expect_unrecorded(&self, task: &OsStr, hash: &OsStr) -> Result<()> {
        if !self.folders().iter().any(|folder| folder.is_away()) || !jobs::is_job_entry(hash) {
            return Ok(());
        }
        match self.recorded_in(task, hash) {
            None => Ok(()),
            Some(folder) => {
                folder.report_missed(&Path::new(task).join(hash));
                Err(Errno::IO)
            }
        }
    }

    /// The attributes of a task's directory that only a folder has which cannot be used now, as they were recorded, and the folder's
    /// number.
    pub fn recorded_task(&self, task: &OsStr) -> Option<(u8, Statx)> {
        let away = self.folders().iter().filter(|it| it.is_away());
        let mut away = away.peekable();
        away.peek()?;
        let primary = self.primary().root().ok()?;
        let like = at::stat_fd(primary.fd()).ok()?;
        let mut found = away.filter_map(|folder| {
            let record = Record::open(&primary, folder, task)?;
            Some((folder.index(), record.stat(&like)))
        });
        found.next()
    }

    /// The names of the tasks that a folder has on record, in order.
    pub fn recorded_tasks(&self, folder: &Location) -> Vec<OsString> {
        let dir = self.primary().root().and_then(|root| {
            let dir: PathBuf = known_dir(folder.path());
            at::open_below(root.fd(), &dir, OFlags::RDONLY | OFlags::DIRECTORY)
        });
        dir.and_then(super::jobs::names).unwrap_or_default()
    }

    /// Passes the names of the jobs of a task that a folder has on record to `each`, with the position after each, from a position on, until it
    /// returns `false`. Position 0 is the beginning. Returns whether the end was reached.
    pub fn recorded_jobs(
        &self,
        folder: &Location,
        task: &OsStr,
        from: u64,
        each: &mut dyn FnMut(&OsStr, u64) -> bool,
    ) -> bool {
        let primary = self.primary().root().ok();
        let record = primary.and_then(|primary| Record::open(&primary, folder, task));
        let mut each = |name: &OsStr, next| folder.has_deleted(task, name) || each(name, next);
        record.is_none_or(|record| record.names(from, &mut each).unwrap_or(true))
    }

    /// Takes a job off the record of a folder that has lost it, unless the record is long: then the next pass does that.
    pub fn take_off_record(&self, folder: &Location, task: &OsStr, hash: &OsStr) -> Result<()> {
        let primary = self.primary().root()?;
        let Some(record) = Record::open(&primary, folder, task) else {
            return Ok(());
        };
        if record.end - record.begin > REWRITTEN_MAX {
            return Ok(());
        }
        let mut names = record.all();
        let Ok(at) = names.binary_search_by(|name| name.as_os_str().cmp(hash)) else {
            return Ok(());
        };
        names.remove(at);
        let stat = record.stat(&at::stat_fd(primary.fd())?);
        // Incomplete, so that the next pass lists the directory.
        write(&primary, folder, task, &stat, false, &names)
    }

    /// Whether a folder has a job on record: while the folder is away, it counts as the one that has the job.
    pub fn has_on_record(&self, folder: &Location, task: &OsStr, hash: &OsStr) -> bool {
        let primary = self.primary().root().ok();
        let record = primary.and_then(|primary| Record::open(&primary, folder, task));
        record.is_some_and(|record| record.has(hash).unwrap_or(false))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Mode as FolderMode;
    use crate::view::{FolderSpec, ViewSpec};

    fn view(top: &Path) -> View {
        std::fs::create_dir_all(top.join("primary/jobs")).unwrap();
        let folder = FolderSpec {
            mode: FolderMode::Use,
            path: top.join("folder"),
        };
        let spec = ViewSpec {
            workspace: String::new(),
            primary: top.join("primary"),
            folders: vec![folder],
            mountpoint: None,
        };
        View::open(spec, None).unwrap()
    }

    #[test]
    fn a_record_has_the_names_that_were_written_and_no_others() {
        let top = tempfile::tempdir().unwrap();
        let view = view(top.path());
        let (primary, folder) = (view.primary().root().unwrap(), &*view.folders()[0]);
        let stat = at::stat_fd(primary.fd()).unwrap();
        let task = OsStr::new("t");
        let mut names = Vec::new();
        for count in [0, 1, 2, 3, 1000] {
            names = (0..count)
                .map(|number: usize| format!("{}-{number}", "x".repeat(number % 250)).into())
                .collect();
            names.sort_unstable();
            write(&primary, folder, task, &stat, true, &names).unwrap();
            let record = Record::open(&primary, folder, task).unwrap();
            for name in &names {
                assert!(record.has(name).unwrap(), "{name:?}");
            }
            for other in ["", "a", "x", "xx-", "zz", "x-1 "] {
                let listed = names.iter().any(|name| name == other);
                assert_eq!(record.has(OsStr::new(other)).unwrap(), listed, "{other}");
            }
            assert_eq!(record.all(), names);
            assert_eq!(fields(&record.stat(&stat)), fields(&stat));
            assert!(record.complete);
        }
        view.take_off_record(folder, task, OsStr::new("none"))
            .unwrap();
        assert!(Record::open(&primary, folder, task).unwrap().complete);
        let taken = names.remove(500);
        view.take_off_record(folder, task, &taken).unwrap();
        let record = Record::open(&primary, folder, task).unwrap();
        assert_eq!(record.all(), names);
        assert!(!record.complete);
        let path = top
            .path()
            .join("primary")
            .join(known_dir(folder.path()))
            .join("t");
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, &whole[..whole.len() - 1]).unwrap();
        assert!(Record::open(&primary, folder, task).is_none());
    }
}
