//! Records of deletions that are not complete, in the primary's `.xpmfs/archive/deleted`.
//!
//! | file | meaning |
//! | --- | --- |
//! | `intents/<task_id>/<hash>` | the job is being deleted |
//! | `undeletions/<task_id>/<hash>` | the job is being brought back |
//! | `<BLAKE3 of a folder's path>/<task_id>/<hash>` | the mark: the copy in this folder does not count, and is to go to the trash |
//!
//! Each is durable before it gets its name. The caller holds the lock of the job's staging in the primary, or, to remove a mark, in the folder.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::time::SystemTime;

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::{Errno, Result};
use serde::{Deserialize, Serialize};

use super::batch::Batch;
use crate::archive::{places, state_dir};
use crate::sys::at;
use crate::sys::read_dir::{self, EntryBuffer};
use crate::transfer::durable::sync_directory;
use crate::view::Location;
use crate::view::jobs::names;
use crate::view::location::deleted::DELETED;
use crate::workspace::jobs::JobId;
use crate::workspace::layout::{ARCHIVE, folder_name};

/// The most bytes of a record that are read.
const BYTES_MAX: u64 = 1 << 16;

/// The beginning of the name of a record that is being written. The rest is the job's hash, which is short enough for the name of a staging.
const STAGED: &str = ".new.";

/// The version of the records that are written.
const VERSION: u32 = 1;

/// A kind of record.
#[derive(Debug, Clone, Copy)]
pub(super) enum RecordKind<'a> {
    Intents,
    Undeletions,
    /// The marks of this folder.
    Marks(&'a Location),
    /// The marks of a folder that this process may not know, by the name of their directory.
    MarksOf(&'a str),
}

impl RecordKind<'_> {
    fn directory(self) -> OsString {
        match self {
            RecordKind::Intents => "intents".into(),
            RecordKind::Undeletions => "undeletions".into(),
            RecordKind::Marks(folder) => folder_name(folder.path()).into(),
            RecordKind::MarksOf(name) => name.into(),
        }
    }
}

/// What a record says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) batch: Batch,
    /// Of an intent: whether the primary had an entry of the job.
    pub(super) primary: bool,
    /// Of an intent: the directories of marks of the folders that may have the job.
    pub(super) folders: Vec<String>,
}

#[derive(Serialize, Deserialize)]
struct Document {
    version: u32,
    date: String,
    #[serde(default)]
    primary: bool,
    #[serde(default)]
    folders: Vec<String>,
}

/// How often the directories of a record are made again, if other processes remove them as empty.
const TRIES: usize = 100;

/// Writes the record of a job, durably.
pub(super) fn write(
    primary: &Location,
    kind: RecordKind<'_>,
    job: &JobId,
    record: &Record,
) -> Result<()> {
    let mut written = Err(Errno::NOENT);
    for _ in 0..TRIES {
        written = try_to_write(primary, kind, job, record);
        // [`remove`] removes an empty directory of records, also one that was just made for this record.
        if written != Err(Errno::NOENT) {
            break;
        }
    }
    written
}

fn try_to_write(
    primary: &Location,
    kind: RecordKind<'_>,
    job: &JobId,
    record: &Record,
) -> Result<()> {
    let directory = kind.directory();
    let names = [ARCHIVE, DELETED].map(OsStr::new);
    let names = names.into_iter().chain([&*directory, job.task_id()]);
    let dir = places::make_own(primary, names)?;
    let document = Document {
        version: VERSION,
        date: record.batch.to_string(),
        primary: record.primary,
        folders: record.folders.clone(),
    };
    let text = serde_json::to_vec(&document).map_err(|_| Errno::INVAL)?;
    let staged = staged(job);
    // Left by a process that has crashed.
    at::absent(rustix::fs::unlinkat(&dir, &staged, AtFlags::empty()))?;
    let file = state_dir::create(primary.root()?.fd(), &dir, &staged)?;
    let written = rustix::io::write(&file, &text)
        .and_then(|_| rustix::fs::fdatasync(&file))
        .and_then(|()| rustix::fs::renameat(&dir, &staged, &dir, job.hash()));
    if written.is_err() {
        let _ = rustix::fs::unlinkat(&dir, &staged, AtFlags::empty());
    }
    written?;
    sync_directory(at::open_to_list(&dir, OsStr::new("."))?)
}

/// Reads the record of a job. One that is damaged counts from when it was written.
pub(super) fn read(
    primary: &Location,
    kind: RecordKind<'_>,
    job: &JobId,
) -> Result<Option<Record>> {
    let Some(dir) = open(primary, kind, Some(job.task_id()))? else {
        return Ok(None);
    };
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let opened = rustix::fs::openat(&dir, job.hash(), flags, Mode::empty());
    let Some(file) = at::absent(opened)?.map(File::from) else {
        return Ok(None);
    };
    let io = |error: std::io::Error| Errno::from_io_error(&error).unwrap_or(Errno::IO);
    let mut text = Vec::new();
    (&file).take(BYTES_MAX).read_to_end(&mut text).map_err(io)?;
    let document: Option<Document> = serde_json::from_slice(&text).ok();
    let parsed = document.and_then(|document| {
        Some(Record {
            batch: Batch::parse(OsStr::new(&document.date))?,
            primary: document.primary,
            folders: document.folders,
        })
    });
    Ok(Some(match parsed {
        Some(record) => record,
        None => Record {
            batch: Batch::at_time(
                file.metadata()
                    .and_then(|metadata| metadata.modified())
                    .unwrap_or(SystemTime::UNIX_EPOCH),
            ),
            primary: false,
            folders: Vec::new(),
        },
    }))
}

/// Removes the record of a job, and the directories that are empty then, so that a lookup finds no directory of records at once.
pub(super) fn remove(primary: &Location, kind: RecordKind<'_>, job: &JobId) -> Result<()> {
    let Some(dir) = open(primary, kind, Some(job.task_id()))? else {
        return Ok(());
    };
    at::absent(rustix::fs::unlinkat(&dir, job.hash(), AtFlags::empty()))?;
    at::absent(rustix::fs::unlinkat(&dir, staged(job), AtFlags::empty()))?;
    sync_directory(at::open_to_list(&dir, OsStr::new("."))?)?;
    let directory = kind.directory();
    let upwards: [(&[&OsStr], &OsStr); 3] = [
        (&[OsStr::new(DELETED), &directory], job.task_id()),
        (&[OsStr::new(DELETED)], &directory),
        (&[], OsStr::new(DELETED)),
    ];
    for (names, name) in upwards {
        let Ok(Some(parent)) = state_dir::open(primary, names) else {
            return Ok(());
        };
        if rustix::fs::unlinkat(&parent, name, AtFlags::REMOVEDIR).is_err() {
            return Ok(());
        }
    }
    Ok(())
}

/// The name of a record that is being written.
fn staged(job: &JobId) -> OsString {
    let mut name = OsString::from(STAGED);
    name.push(job.hash());
    name
}

/// The jobs of which a record was being written when that was interrupted, or is being written now, each with its kind.
pub(super) fn unfinished(primary: &Location) -> Result<Vec<(String, JobId)>> {
    let mut found = Vec::new();
    let Some(kinds) = state_dir::open(primary, &[OsStr::new(DELETED)])? else {
        return Ok(found);
    };
    for kind in names(&kinds)? {
        let Some(tasks) = at::absent(at::open_dir(&kinds, &kind))? else {
            continue;
        };
        for task in names(&tasks)? {
            let Some(dir) = at::absent(at::open_to_list(&tasks, &task))? else {
                continue;
            };
            let mut buffer = EntryBuffer::default();
            while read_dir::read_once(&dir, &mut buffer, |entry| {
                let hash = entry.name().as_bytes().strip_prefix(STAGED.as_bytes());
                let job = hash.map(|hash| JobId::new(&task, OsStr::from_bytes(hash)));
                let kind = kind.to_string_lossy().into_owned();
                found.extend(job.and_then(|job| Some((kind, job.ok()?))));
            })? {}
        }
    }
    Ok(found)
}

/// Removes what is left of a record that was being written. The caller has the lock of the job's staging in the primary.
pub(super) fn remove_unfinished(primary: &Location, kind: &str, job: &JobId) -> Result<()> {
    match read(primary, RecordKind::MarksOf(kind), job)? {
        Some(_) => {
            let dir = open(primary, RecordKind::MarksOf(kind), Some(job.task_id()))?;
            let dir = dir.ok_or(Errno::NOENT)?;
            at::absent(rustix::fs::unlinkat(&dir, staged(job), AtFlags::empty())).map(drop)
        }
        None => remove(primary, RecordKind::MarksOf(kind), job),
    }
}

/// The jobs with a record.
pub(super) fn jobs(primary: &Location, kind: RecordKind<'_>) -> Result<Vec<JobId>> {
    let mut jobs = Vec::new();
    let Some(tasks) = open(primary, kind, None)? else {
        return Ok(jobs);
    };
    for task in names(&tasks)? {
        let Some(dir) = at::absent(at::open_dir(&tasks, &task))? else {
            continue;
        };
        let hashes = names(&dir)?.into_iter();
        jobs.extend(hashes.filter_map(|hash| JobId::new(&task, hash).ok()));
    }
    Ok(jobs)
}

fn open(primary: &Location, kind: RecordKind<'_>, task: Option<&OsStr>) -> Result<Option<OwnedFd>> {
    let directory = kind.directory();
    let mut names = vec![OsStr::new(DELETED), &directory];
    names.extend(task);
    state_dir::open(primary, &names)
}
