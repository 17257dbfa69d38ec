//! Reads what an open job shows: its files, its parameters and its logs.

use std::fs;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use crossbeam_channel::Sender;
use rustix::fs::{Mode, OFlags};

use super::event::worker;
use super::params;
use super::request::Part;
use crate::archive::places;
use crate::cli::jobs::log::{Source, Window};
use crate::cli::jobs::session::Session;
use crate::cli::sentence;
use crate::sys::at;
use crate::sys::deadline::Asker;
use crate::view::{PRIMARY, Served};
use crate::workspace::jobs::JobId;

/// How long a folder may take to return a part of a job.
const READ_TIMEOUT: Duration = Duration::from_secs(10);

/// How many questions to folders may be without an answer.
const LATE_MAX: usize = 8;

/// The most files of a job that are listed.
const FILES_MAX: usize = 5000;

/// How deep directories are listed.
const DEPTH_MAX: usize = 32;

/// The largest `params.json` that is shown.
const PARAMS_MAX: u64 = 8 << 20;

/// How much of a log is in memory.
pub(super) const LOG_MAX: u64 = 512 << 10;

/// What to read.
#[derive(Debug, Clone)]
pub(super) struct Want {
    pub(super) job: JobId,
    pub(super) part: Part,
    /// Of a log: standard output in place of standard error.
    pub(super) std: bool,
    /// Of a log: from where on; `None`: its end.
    pub(super) from: Option<u64>,
}

/// A file of a job.
#[derive(Debug)]
pub(super) struct JobFile {
    pub(super) path: PathBuf,
    pub(super) bytes: u64,
    /// The target, if it is a symlink.
    pub(super) target: Option<PathBuf>,
}

/// What was read.
#[derive(Debug)]
pub(super) enum Content {
    /// Files, and whether there are more.
    Files(Vec<JobFile>, bool),
    /// Lines of a text.
    Text(Vec<String>),
    /// A part of a log, and whether the job may still write to it.
    Log(Window, bool),
}

/// A thread that reads parts of jobs, one after the other.
#[derive(Debug, Clone)]
pub(super) struct Reader(Sender<Want>);

impl Reader {
    /// Starts the thread; `done` gets what it reads.
    ///
    /// # Errors
    ///
    /// No thread can be started.
    pub(super) fn start(
        session: Arc<Session>,
        done: impl Fn(Want, Result<Content, String>) -> bool + Send + 'static,
    ) -> std::io::Result<Reader> {
        let asker = Asker::new(LATE_MAX);
        let read = move |want: Want| {
            let (session, wanted) = (session.clone(), want.clone());
            let read = asker.ask(READ_TIMEOUT, move || read(&session, &wanted));
            let content = match read {
                Ok(content) => content.map_err(|error| sentence(&error)),
                Err(errno) => Err(format!("the folder does not answer: {errno}")),
            };
            done(want, content)
        };
        Ok(Reader(worker("xpmfs-read", 4, read)?))
    }

    /// Asks for a part. Returns false if others are still to be read: it is to be asked for again.
    pub(super) fn ask(&self, want: Want) -> bool {
        self.0.try_send(want).is_ok()
    }
}

fn read(session: &Session, want: &Want) -> anyhow::Result<Content> {
    match want.part {
        // Others look at copies.
        Part::Job | Part::Copies => Ok(Content::Text(Vec::new())),
        Part::Files => {
            let directory = directory(session, &want.job)?;
            let (files, more) = files(&directory);
            Ok(Content::Files(files, more))
        }
        Part::Parameters => {
            let directory = directory(session, &want.job)?;
            Ok(Content::Text(parameters(&directory)?))
        }
        Part::Log => {
            let source = Source::new(session, want.job.clone(), want.std);
            let runs = source.ended().is_none();
            match source.open()? {
                Some(mut log) => {
                    let window = log.window(want.from, LOG_MAX);
                    Ok(Content::Log(window.context("cannot read the log")?, runs))
                }
                None if runs => Ok(Content::Log(Window::default(), true)),
                None => bail!("{}", source.why_absent()),
            }
        }
    }
}

/// Opens the directory of a job, wherever it is served from.
fn directory(session: &Session, job: &JobId) -> anyhow::Result<OwnedFd> {
    let view = &session.opened.view;
    let served = view.resolve(job.task_id(), job.hash());
    let location = match served.with_context(|| format!("cannot look for {job}"))? {
        Some(Served::Job { location, .. }) => location,
        Some(Served::AsItIs { .. }) => PRIMARY,
        None => bail!("no location has {job}"),
    };
    let location = view.location(location).unwrap_or(view.primary());
    let path = places::path(location, job);
    let directory = places::job(location, job);
    let directory = directory.with_context(|| format!("cannot open {}", path.display()))?;
    directory.with_context(|| format!("{} is not a directory", path.display()))
}

/// The files below a directory, in order, and whether there are more.
fn files(directory: &OwnedFd) -> (Vec<JobFile>, bool) {
    let top = at::proc_path(directory);
    let mut found = Vec::new();
    let more = walk(Path::new(&top), Path::new(""), 0, &mut found);
    found.sort_by(|a, b| a.path.cmp(&b.path));
    (found, more)
}

/// Adds the files below a directory. Returns whether some were left out.
fn walk(top: &Path, below: &Path, depth: usize, found: &mut Vec<JobFile>) -> bool {
    let Ok(entries) = fs::read_dir(top.join(below)) else {
        return true;
    };
    let mut more = depth >= DEPTH_MAX;
    for entry in entries.flatten() {
        if found.len() >= FILES_MAX {
            return true;
        }
        let path = below.join(entry.file_name());
        let Ok(metadata) = entry.metadata() else {
            continue;
        };
        if metadata.is_dir() && depth < DEPTH_MAX {
            more |= walk(top, &path, depth + 1, found);
        } else {
            let target = metadata.is_symlink().then(|| fs::read_link(entry.path()));
            found.push(JobFile {
                path,
                bytes: metadata.len(),
                target: target.and_then(Result::ok),
            });
        }
    }
    more
}

/// The parameters of a job, as lines.
fn parameters(directory: &OwnedFd) -> anyhow::Result<Vec<String>> {
    // NONBLOCK: otherwise opening a FIFO waits for a writer.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = rustix::fs::openat(directory, "params.json", flags, Mode::empty());
    let file = fs::File::from(file.context("cannot open params.json")?);
    if !file.metadata()?.is_file() {
        bail!("params.json is not a regular file");
    }
    let mut text = Vec::new();
    let mut file = file.take(PARAMS_MAX + 1);
    file.read_to_end(&mut text)
        .context("cannot read params.json")?;
    if text.len() as u64 > PARAMS_MAX {
        bail!("params.json is larger than {} MiB", PARAMS_MAX >> 20);
    }
    Ok(params::lines(&text))
}
