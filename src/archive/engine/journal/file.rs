//! Writes the journal of this process: makes, extends, rewrites and removes its file.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use super::line::Line;
use crate::archive::places::{self, Sharing};
use crate::archive::state_dir::ARCHIVE;
use crate::sys::shared_dir;
use crate::view::View;

/// How the name of a journal ends.
pub(super) const SUFFIX: &str = ".jsonl";

/// How the name of a journal ends that is being rewritten.
pub(super) const STAGED: &str = ".jsonl.new";

/// A journal of fewer lines is not rewritten.
pub(super) const LINES_MIN: usize = 1_000;

/// The most attempts to make a journal, if other processes take it for abandoned.
const ATTEMPTS_MAX: usize = 100;

/// The directory of a workspace's journals, made if need be.
///
/// # Errors
///
/// The error of the primary's file system.
pub(super) fn directory(view: &View) -> io::Result<OwnedFd> {
    Ok(places::make_own(view.primary(), [OsStr::new(ARCHIVE)])?)
}

/// Our own journal.
#[derive(Debug)]
pub(in crate::archive::engine) struct Journal {
    directory: OwnedFd,
    /// Of its file.
    sharing: Sharing,
    name: String,
    file: File,
    lines: usize,
}

impl Journal {
    /// Makes an empty journal.
    ///
    /// # Errors
    ///
    /// The error of the primary's file system.
    pub(in crate::archive::engine) fn make(view: &View) -> io::Result<Journal> {
        let directory = directory(view)?;
        // All users who may write to the workspace may take over the journal.
        let sharing = places::sharing(view.primary().root()?.fd(), &directory)?;
        let host = rustix::system::uname();
        let host: String = host
            .nodename()
            .to_string_lossy()
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c } else { '_' })
            .take(100)
            .collect();
        let start = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let process = std::process::id();
        let name = format!("{host}-{process}-{}", start.as_nanos());
        let file = replace(&directory, sharing, &name, &[])?;
        Ok(Journal {
            directory,
            sharing,
            name,
            file,
            lines: 0,
        })
    }

    /// Adds lines.
    ///
    /// # Errors
    ///
    /// The error of the primary's file system.
    pub(in crate::archive::engine) fn append(&mut self, lines: &[Line]) -> io::Result<()> {
        self.file.write_all(&text(lines.iter()))?;
        self.lines += lines.len();
        Ok(())
    }

    /// Whether the journal is too long for the number of queued jobs, and should be rewritten.
    pub(in crate::archive::engine) fn is_long(&self, live: usize) -> bool {
        self.lines > LINES_MIN.max(live.saturating_mul(2))
    }

    /// Rewrites the journal.
    ///
    /// # Errors
    ///
    /// The error of the primary's file system; the journal is then unchanged.
    pub(in crate::archive::engine) fn rewrite(&mut self, live: &[Line]) -> io::Result<()> {
        self.file = replace(
            &self.directory,
            self.sharing,
            &self.name,
            &text(live.iter()),
        )?;
        self.lines = live.len();
        Ok(())
    }

    /// The file's name.
    pub(in crate::archive::engine) fn file_name(&self) -> String {
        format!("{}{SUFFIX}", self.name)
    }

    /// The journal's directory.
    pub(in crate::archive::engine) fn directory(&self) -> &OwnedFd {
        &self.directory
    }

    /// Removes the journal: no job is queued any more.
    pub(in crate::archive::engine) fn remove(self) {
        // A journal that stays lists no job, and the next process removes it.
        let _ = rustix::fs::unlinkat(&self.directory, self.file_name(), AtFlags::empty());
    }
}

fn text<'a>(lines: impl Iterator<Item = &'a Line>) -> Vec<u8> {
    let mut text = Vec::new();
    for line in lines {
        line.write(&mut text);
    }
    text
}

/// Makes a journal with this text, and replaces any journal of that name. It is locked before it gets its name.
///
/// Between creating and locking the file, a process that looks for journals without an owner may find the file and
/// remove it. This function then makes another.
fn replace(directory: &OwnedFd, sharing: Sharing, name: &str, text: &[u8]) -> io::Result<File> {
    let mut tries = 0;
    loop {
        tries += 1;
        // Each try uses a new name: a process that took the last one for abandoned may be about to remove it.
        let staged = format!("{name}-{tries}{STAGED}");
        match place(directory, sharing, &staged, name, text) {
            Err(error) if tries < ATTEMPTS_MAX && was_taken(&error) => {}
            placed => return placed,
        }
    }
}

/// Whether a journal could not be locked or given its name, as when another process has locked or removed it.
fn was_taken(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(Errno::WOULDBLOCK | Errno::NOENT)
    )
}

/// Makes a journal under one name, and renames it to the other.
fn place(
    directory: &OwnedFd,
    sharing: Sharing,
    staged: &str,
    name: &str,
    text: &[u8],
) -> io::Result<File> {
    match rustix::fs::unlinkat(directory, staged, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(error) => return Err(error.into()),
    }
    let flags = OFlags::RDWR
        | OFlags::CREATE
        | OFlags::EXCL
        | OFlags::APPEND
        | OFlags::NOFOLLOW
        | OFlags::CLOEXEC;
    let fd = rustix::fs::openat(directory, staged, flags, Mode::from_raw_mode(0o600))?;
    let mut file = File::from(fd);
    let written = lock(&file)
        .and_then(|()| Ok(shared_dir::share(&file, sharing.group, sharing.of_file())?))
        .and_then(|()| file.write_all(text))
        .and_then(|()| {
            let name = format!("{name}{SUFFIX}");
            Ok(rustix::fs::renameat(directory, staged, directory, name)?)
        });
    if written.is_err() {
        let _ = rustix::fs::unlinkat(directory, staged, AtFlags::empty());
    }
    written.map(|()| file)
}

pub(super) fn lock(file: impl AsFd) -> io::Result<()> {
    Ok(rustix::fs::flock(
        file,
        FlockOperation::NonBlockingLockExclusive,
    )?)
}
