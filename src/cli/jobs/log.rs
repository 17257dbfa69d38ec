//! `xpmfs jobs log`.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use clap_complete::engine::ArgValueCompleter;
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

use super::session::{Session, Which};
use crate::archive::places;
use crate::cli::open::More;
use crate::cli::{Global, Select, candidates, print};
use crate::sys::at;
use crate::sys::file_id::FileId;
use crate::view::{Location, PRIMARY, Served};
use crate::workspace::job_locks::is_locked;
use crate::workspace::jobs::JobId;
use crate::workspace::markers::{self, State};

/// How often a log that is followed is read.
const POLL_INTERVAL: Duration = Duration::from_millis(250);

/// How many lines are printed first of a log that is followed.
const LINES: u64 = 10;

/// How much is read at a time.
const BLOCK: usize = 64 << 10;

/// Which log.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Print the last lines, and then what the job writes, until it ends
    #[arg(short, long)]
    follow: bool,
    /// Standard output in place of standard error
    #[arg(long)]
    std: bool,
    /// Only the last N lines [default: all; with --follow: 10]
    #[arg(short = 'n', long, value_name = "N")]
    lines: Option<u64>,
    /// The job: task_id/hash, the start of a hash, or a path
    #[arg(value_name = "JOB", add = ArgValueCompleter::new(candidates::jobs))]
    job: OsString,
    /// More folders.
    #[command(flatten)]
    more: More,
    /// Which workspace.
    #[command(flatten)]
    select: Select,
}

pub(super) fn run(arguments: &Arguments, global: &Global) -> anyhow::Result<ExitCode> {
    let which = Which {
        jobs: Vec::new(),
        more: arguments.more.clone(),
        select: arguments.select.clone(),
    };
    let session = Session::open(&which, &[], global)?;
    let job = session.named_one(&arguments.job)?;
    let source = Source::new(&session, job, arguments.std);
    let lines = arguments
        .lines
        .or_else(|| arguments.follow.then_some(LINES));
    match arguments.follow {
        true => source.follow(lines, global),
        false => match source.open()? {
            Some(mut log) => {
                log.skip_to_last(lines)?;
                log.print()?;
                Ok(ExitCode::SUCCESS)
            }
            None => bail!("{}", source.why_absent()),
        },
    }
}

/// The log of a job, wherever that is.
pub(in crate::cli) struct Source<'a> {
    session: &'a Session,
    job: JobId,
    /// The name of the log in the job.
    name: OsString,
}

/// A part of a log.
#[derive(Debug, Default)]
pub(in crate::cli) struct Window {
    /// Where it begins.
    pub(in crate::cli) start: u64,
    pub(in crate::cli) bytes: Vec<u8>,
    /// The length of the log.
    pub(in crate::cli) length: u64,
}

/// An open log.
pub(in crate::cli) struct Log {
    file: File,
    id: FileId,
    /// The number of its location.
    location: u8,
    /// How much has been printed.
    printed: u64,
}

impl<'a> Source<'a> {
    /// What a job wrote to standard output (`std`) or to standard error.
    pub(in crate::cli) fn new(session: &'a Session, job: JobId, std: bool) -> Source<'a> {
        let mut name = job.name().to_owned();
        name.push(if std { ".out" } else { ".err" });
        Source { session, job, name }
    }
}

impl Source<'_> {
    /// The location that serves the job, and the directory of its task there.
    fn place(&self) -> anyhow::Result<Option<(&Location, std::sync::Arc<OwnedFd>)>> {
        let view = &self.session.opened.view;
        let served = view.resolve(self.job.task_id(), self.job.hash());
        let served = served.with_context(|| format!("cannot look for {}", self.job))?;
        let location = match served {
            Some(Served::Job { location, .. }) => location,
            Some(Served::AsItIs { .. }) => PRIMARY,
            None => return Ok(None),
        };
        let location = view.location(location).unwrap_or(view.primary());
        let task = places::task(location, &self.job)
            .with_context(|| format!("cannot open {}", self.path(location).display()))?;
        Ok(task.map(|task| (location, task)))
    }

    fn path(&self, location: &Location) -> std::path::PathBuf {
        places::path(location, &self.job).join(&self.name)
    }

    /// Opens the log; `None` if it does not exist.
    pub(in crate::cli) fn open(&self) -> anyhow::Result<Option<Log>> {
        let Some((location, task)) = self.place()? else {
            return Ok(None);
        };
        let path = self.path(location);
        let cannot = || format!("cannot open {}", path.display());
        // NONBLOCK: otherwise opening a FIFO waits for a writer.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let name = Path::new(self.job.hash()).join(&self.name);
        let file = match rustix::fs::openat(&*task, &name, flags, Mode::empty()) {
            Ok(file) => file,
            Err(Errno::NOENT) => return Ok(None),
            Err(errno) => return Err(errno).with_context(cannot),
        };
        let stat = at::stat_fd(&file).with_context(cannot)?;
        if FileType::from_raw_mode(stat.stx_mode.into()) != FileType::RegularFile {
            bail!("{} is not a regular file", path.display());
        }
        Ok(Some(Log {
            file: file.into(),
            id: FileId::of(&stat),
            location: location.index(),
            printed: 0,
        }))
    }

    pub(in crate::cli) fn why_absent(&self) -> String {
        match self.place() {
            Ok(Some((location, _))) => format!(
                "there is no {} yet: the job has not started, or it was removed",
                self.path(location).display()
            ),
            _ => format!("no location has {}", self.job),
        }
    }

    /// How the job ended; `None` while it may still write.
    pub(in crate::cli) fn ended(&self) -> Option<State> {
        let (_, task) = self.place().ok()??;
        let directory = places::open(&*task, self.job.hash()).ok()??;
        let state = markers::read(&directory, self.job.name()).ok()?.state();
        // A job holds its lock until it has written everything.
        let runs = is_locked(&directory, &self.job).unwrap_or(false);
        (state != State::Unfinished && !runs).then_some(state)
    }

    fn follow(&self, lines: Option<u64>, global: &Global) -> anyhow::Result<ExitCode> {
        let mut log: Option<Log> = None;
        let mut has_waited = false;
        loop {
            // Before the log is read: what a job writes before its end is not missed.
            let ended = self.ended();
            let now = self.open()?;
            match (&mut log, now) {
                (Some(log), Some(now)) if log.id == now.id => {}
                (Some(log), Some(mut now)) => {
                    log.print()?;
                    match log.location == now.location {
                        true => print::line(&format!("{} runs again", self.job)),
                        // The same log, in the copy of the job that is served now.
                        false => now.printed = log.printed,
                    }
                    *log = now;
                }
                (None, Some(mut now)) => {
                    now.skip_to_last(lines.filter(|_| !has_waited))?;
                    log = Some(now);
                }
                (Some(_), None) => {}
                (None, None) => {
                    if ended.is_some() {
                        bail!("{}", self.why_absent());
                    }
                    if !std::mem::replace(&mut has_waited, true) && !global.quiet {
                        print::line(&format!("waiting for {} to start", self.job));
                    }
                }
            }
            if let Some(log) = &mut log {
                log.print()?;
            }
            match ended {
                Some(state) => {
                    if !global.quiet {
                        let how = match state {
                            State::Failed => "failed",
                            State::Done | State::Unfinished => "is done",
                        };
                        print::line(&format!("{} {how}", self.job));
                    }
                    return Ok(ExitCode::SUCCESS);
                }
                None => thread::sleep(POLL_INTERVAL),
            }
        }
    }
}

impl Log {
    /// Reads at most so many bytes: from a place on, or the last ones.
    pub(in crate::cli) fn window(&mut self, from: Option<u64>, most: u64) -> io::Result<Window> {
        let length = self.file.metadata()?.len();
        let start = from.unwrap_or_else(|| length.saturating_sub(most));
        let start = start.min(length);
        self.file.seek(SeekFrom::Start(start))?;
        let mut bytes = Vec::new();
        (&mut self.file).take(most).read_to_end(&mut bytes)?;
        Ok(Window {
            start,
            bytes,
            length,
        })
    }

    /// Skips all but the last lines.
    fn skip_to_last(&mut self, lines: Option<u64>) -> anyhow::Result<()> {
        if let Some(lines) = lines {
            self.printed = start_of_last(&mut self.file, lines).context("cannot read the log")?;
        }
        Ok(())
    }

    /// Prints what has not been printed.
    fn print(&mut self) -> anyhow::Result<()> {
        let length = self.file.metadata().context("cannot read the log")?.len();
        if length < self.printed {
            // It was truncated.
            self.printed = 0;
        }
        let sought = self.file.seek(SeekFrom::Start(self.printed));
        sought.context("cannot read the log")?;
        let mut out = io::stdout().lock();
        let mut block = vec![0; BLOCK];
        loop {
            let read = match self.file.read(&mut block) {
                Ok(0) => break,
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error).context("cannot read the log"),
            };
            let written = out.write_all(block.get(..read).unwrap_or_default());
            written.context("cannot write to standard output")?;
            self.printed += read as u64;
        }
        out.flush().context("cannot write to standard output")
    }
}

/// Where the last lines of a file begin.
fn start_of_last(file: &mut (impl Read + Seek), lines: u64) -> io::Result<u64> {
    let end = file.seek(SeekFrom::End(0))?;
    if lines == 0 {
        return Ok(end);
    }
    let (mut at, mut seen) = (end, 0);
    let mut block = vec![0; BLOCK];
    while at > 0 {
        let from = at.saturating_sub(BLOCK as u64);
        file.seek(SeekFrom::Start(from))?;
        let length = usize::try_from(at - from).unwrap_or(BLOCK);
        let part = block.get_mut(..length).unwrap_or_default();
        file.read_exact(part)?;
        for (index, byte) in part.iter().enumerate().rev() {
            let place = from + index as u64;
            // The newline at the end ends the last line.
            if *byte != b'\n' || place + 1 == end {
                continue;
            }
            seen += 1;
            if seen == lines {
                return Ok(place + 1);
            }
        }
        at = from;
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_of_a_file_are_found() {
        let start = |text: &str, lines| start_of_last(&mut io::Cursor::new(text), lines).unwrap();
        for (text, lines, expected) in [
            ("", 3, 0),
            ("a\nb\nc\n", 1, 4),
            ("a\nb\nc", 1, 4),
            ("a\nb\nc\n", 2, 2),
            ("a\nb\nc\n", 3, 0),
            ("a\nb\nc\n", 9, 0),
            ("a\nb\nc\n", 0, 6),
            ("\n\n\n", 2, 1),
        ] {
            assert_eq!(start(text, lines), expected, "{text:?} {lines}");
        }
        let long = "x".repeat(BLOCK) + "\n" + &"y".repeat(BLOCK * 2) + "\nz\n";
        assert_eq!(start(&long, 2), BLOCK as u64 + 1);
        assert_eq!(start(&long, 3), 0);
    }
}
