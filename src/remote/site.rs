//! A workspace on another machine: what it has, and where.
//!
//! Every question is one script for many jobs. Answers are texts that end with NUL. The machine needs a POSIX shell, `find` of GNU or one
//! that has `-printf`, and `rsync`.

use std::ffi::{OsStr, OsString};
use std::io::{self, BufRead};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use super::hollow::{Listing, SiteJob, serving};
use super::shell::Script;
use super::ssh::{Connection, SshError, expect_record, number, record};
use crate::archive::experiments::RunName;
use crate::settings::{Folder, Mode, Workspace};
use crate::transfer::Size;
use crate::workspace::jobs::JobId;
use crate::workspace::jobs_jsonl::JobsJsonl;
use crate::workspace::layout::{EXPERIMENTS, JOBS};

/// For how many jobs one script asks.
const JOBS_MAX: usize = 1000;

/// A workspace on another machine.
#[derive(Debug)]
pub struct Site {
    id: String,
    pub(super) connection: Connection,
    /// The path as it is written in the settings.
    path: OsString,
    folders: Vec<Folder>,
    /// The path there, with links followed.
    real: OnceLock<PathBuf>,
}

/// A run there.
pub(super) struct SiteRun {
    /// The number of its location: 0 for the workspace's own directory, then the folders.
    pub(super) location: usize,
    pub(super) size: Size,
    /// The symlinks to its jobs, and where they lead.
    pub(super) links: Vec<(JobId, PathBuf)>,
    pub(super) jobs: Vec<JobId>,
    pub(super) unread: Vec<String>,
}

/// An experiment there: its id, its runs, and the run that `current` names.
pub type SiteExperiment = (OsString, Vec<OsString>, Option<OsString>);

impl Site {
    /// Prepares the connection to a workspace of the settings with these folders; connects when it is used.
    ///
    /// # Errors
    ///
    /// The workspace's `ssh.host` is an option of `ssh`.
    pub fn new(workspace: &Workspace, folders: Vec<Folder>) -> Result<Site, SshError> {
        let ssh = workspace.ssh.clone().unwrap_or_default();
        Ok(Site {
            id: workspace.id.clone(),
            connection: Connection::new(&workspace.id, &ssh.host, &ssh.options)?,
            path: workspace.path.as_os_str().to_owned(),
            folders,
            real: OnceLock::new(),
        })
    }

    /// Connects, unless it is done, so that all that follows shares the connection.
    ///
    /// # Errors
    ///
    /// The machine cannot be reached, or has no such directory.
    pub fn connect(&self) -> Result<(), SshError> {
        if self.connection.is_connected() {
            return Ok(());
        }
        let script = self.script().add("printf 'ready\\0'\nexec cat >/dev/null");
        self.connection.keep(&script).map(drop)
    }

    /// The workspace's id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// A location, as `xpmfs jobs where` writes it.
    pub(super) fn label(&self, location: usize) -> String {
        match location
            .checked_sub(1)
            .and_then(|index| self.folders.get(index))
        {
            Some(folder) => format!("{}:{}", folder.mode, folder.path.display()),
            None => "primary".to_owned(),
        }
    }

    /// A path in the workspace, for messages: `host:/path`.
    #[must_use]
    pub fn shown(&self, below: &Path) -> PathBuf {
        let mut shown = OsString::from(&self.connection.host);
        shown.push(":");
        shown.push(&self.path);
        PathBuf::from(shown).join(below)
    }

    /// A script in the workspace's directory.
    pub(super) fn script(&self) -> Script {
        Script::new().enter(&self.path).add(" || exit 1\n")
    }

    /// The commands that set `f` to the directory of a location, below which its `jobs` are.
    fn set_location(&self, script: Script, location: usize) -> Script {
        match location
            .checked_sub(1)
            .and_then(|index| self.folders.get(index))
        {
            // A path that names the directory of jobs itself.
            Some(folder) => script
                .add("f=")
                .word(folder.path.as_os_str())
                .add("\ncase $f in */jobs) [ -d \"$f/jobs\" ] || f=${f%/jobs};; esac\n"),
            None => script.add("f=.\n"),
        }
    }

    /// A script in a directory of a location, for rsync: commands that are joined by `&&`.
    pub(super) fn enter(&self, location: usize, below: &Path) -> Script {
        let script = Script::new().enter(&self.path).add(" && {\n");
        let script = self.set_location(script, location).add("}");
        script.add(" && cd -- \"$f\"/").word(below)
    }

    /// The workspace's path there, with links followed.
    pub(super) fn real(&self) -> Result<&Path, SshError> {
        if let Some(real) = self.real.get() {
            return Ok(real);
        }
        // A path may end in a newline, which `$()` would remove.
        let script = self
            .script()
            .add("p=$(pwd -P && echo x)\nprintf '%s' \"${p%?x}\"");
        let printed = self.connection.output(&script)?;
        let real = PathBuf::from(OsStr::from_bytes(&printed));
        match real.is_absolute() {
            true => Ok(self.real.get_or_init(|| real)),
            false => Err(self
                .connection
                .failed("its directory has no absolute path".to_owned())),
        }
    }

    /// The experiments that have runs.
    ///
    /// # Errors
    ///
    /// The connection fails.
    pub fn experiments(&self) -> Result<Vec<SiteExperiment>, SshError> {
        self.connect()?;
        let script = self.script().add(
            "[ -d experiments ] || exit 0\n\
             find experiments/. -mindepth 1 -maxdepth 2 \\( -type d -o -type l -name current \\) -printf '%y\\0%P\\0%l\\0'",
        );
        let mut found: Vec<SiteExperiment> = self.connection.run(&script, |output| {
            let mut found =
                std::collections::BTreeMap::<OsString, (Vec<OsString>, Option<OsString>)>::new();
            while let Some(kind) = record(output)? {
                let (path, target) = (
                    PathBuf::from(expect_record(output)?),
                    expect_record(output)?,
                );
                let mut names = path.iter().map(OsStr::to_owned);
                let Some(experiment) = names.next() else {
                    continue;
                };
                let entry = found.entry(experiment).or_default();
                match (names.next(), kind == "l") {
                    (Some(_), true) => {
                        entry.1 = Path::new(&target).file_name().map(OsStr::to_owned)
                    }
                    (Some(run), false) if !run.as_bytes().starts_with(b".") => entry.0.push(run),
                    _ => {}
                }
            }
            Ok(found
                .into_iter()
                .map(|(id, (runs, current))| (id, runs, current))
                .collect())
        })?;
        for (_, runs, _) in &mut found {
            runs.sort_by_cached_key(|run| crate::workspace::runs::RunId::new(run));
        }
        Ok(found)
    }

    /// Reads a run, from the first location that has it; `None` if none has.
    pub(super) fn run(&self, run: &RunName) -> Result<Option<SiteRun>, SshError> {
        let path = run_path(run);
        let mut script = self.script().add("r=").word(&path).add("\n");
        for location in self.locations(|mode| mode == Mode::Backup) {
            script = self.set_location(script, location).add(&format!(
                "if [ -d \"$f/$r\" ] && [ ! -L \"$f/$r\" ]; then\n\
                 cd -- \"$f/$r\" || exit 1\n\
                 printf '{location}\\0'\n\
                 find . -mindepth 1 -path ./jobs -prune -o ! -type d -printf '=F\\0%s\\0' || exit 1\n\
                 if [ -d jobs ]; then find jobs -mindepth 2 -maxdepth 2 -type l -printf '=K\\0%P\\0%l\\0' || exit 1; fi\n\
                 if [ -f jobs.jsonl ]; then printf '=T\\0'; cat jobs.jsonl || exit 1; else printf '=N\\0'; fi\n\
                 exit 0\nfi\n"
            ));
        }
        let shown = self.shown(&path).join("jobs.jsonl");
        self.connection.run(&script.add("exit 0"), |output| {
            let Some(location) = record(output)? else {
                return Ok(None);
            };
            let mut found = SiteRun {
                location: number(&location)? as usize,
                size: Size::default(),
                links: Vec::new(),
                jobs: Vec::new(),
                unread: Vec::new(),
            };
            found.read(output, &shown)?;
            Ok(Some(found))
        })
    }

    /// The numbers of the workspace's own directory and of the folders with some modes.
    fn locations(&self, wanted: impl Fn(Mode) -> bool) -> Vec<usize> {
        let folders = self.folders.iter().enumerate();
        let folders = folders.filter(|(_, folder)| wanted(folder.mode));
        std::iter::once(0)
            .chain(folders.map(|(index, _)| index + 1))
            .collect()
    }

    /// Whether the workspace has each job, in its own directory or in a folder.
    pub(super) fn has(&self, jobs: &[JobId]) -> Vec<Result<bool, String>> {
        let mut answers = Vec::with_capacity(jobs.len());
        for jobs in jobs.chunks(JOBS_MAX) {
            match self.has_some(jobs) {
                Ok(some) => answers.extend(some),
                Err(error) => answers.extend(jobs.iter().map(|_| Err(error.to_string()))),
            }
        }
        answers
    }

    fn has_some(&self, jobs: &[JobId]) -> Result<Vec<Result<bool, String>>, SshError> {
        let mut script = self.script().add(
            "has() {\nt=${1%%/*}; n=${t##*.}\n\
             if [ -d \"jobs/$1\" ]; then printf p; return; fi\n",
        );
        for (index, folder) in self.folders.iter().enumerate() {
            script = self.set_location(script, index + 1).add(match folder.mode {
                Mode::Use => "if [ -e \"$f/jobs/$1/$n.done\" ]; then printf p; return; fi\n",
                _ => "if [ -d \"$f/jobs/$1\" ]; then printf p; return; fi\n",
            });
        }
        script = script.add(
            "if [ -L \"jobs/$1\" ]; then printf l; elif [ -e \"jobs/$1\" ]; then printf o; else printf -- -; fi\n}\n\
             for j in",
        );
        script = script
            .words(jobs.iter().map(JobId::path))
            .add("; do has \"$j\"; done");
        self.connection.run(&script, |output| {
            let mut answers = vec![0; jobs.len()];
            output.read_exact(&mut answers)?;
            let answers = jobs.iter().zip(answers).map(|(job, answer)| {
                let path = || self.shown(&Path::new(JOBS).join(job.path())).display().to_string();
                match answer {
                    b'p' => Ok(true),
                    b'-' => Ok(false),
                    b'l' => Err(format!(
                        "{} is a symlink to a directory that is missing: see whether its disk is mounted, or remove the symlink",
                        path()
                    )),
                    _ => Err(format!("{} is not a directory: move it out of the way", path())),
                }
            });
            Ok(answers.collect())
        })
    }

    /// Where each job is, and its size.
    pub(super) fn find(&self, jobs: &[JobId]) -> Vec<Result<SiteJob, String>> {
        let mut found = Vec::with_capacity(jobs.len());
        for jobs in jobs.chunks(JOBS_MAX) {
            match self.find_some(jobs) {
                Ok(some) => found.extend(some),
                Err(error) => found.extend(jobs.iter().map(|_| Err(error.to_string()))),
            }
        }
        found
    }

    fn find_some(&self, jobs: &[JobId]) -> Result<Vec<Result<SiteJob, String>>, SshError> {
        let mut script = self.script().add(
            "look() {\n[ -d \"$2\" ] || return 0\nprintf '=D\\0%s\\0' \"$1\"\n\
             if [ -f \"$2/$n.lock\" ] && command -v flock >/dev/null; then\n\
             flock -E 9 -n -s \"$2/$n.lock\" true 2>/dev/null; [ $? -ne 9 ] || printf '=L\\0'\nfi\n\
             find \"$2/.\" -mindepth 1 -printf '%y\\0%s\\0%T@\\0%P\\0' && printf '=E\\0'\n}\n\
             all() {\nt=${1%%/*}; n=${t##*.}\nprintf '=J\\0'\nlook 0 \"jobs/$1\"\n",
        );
        for location in 1..=self.folders.len() {
            script = self
                .set_location(script, location)
                .add(&format!("look {location} \"$f/jobs/$1\"\n"));
        }
        script = script
            .add("}\nfor j in")
            .words(jobs.iter().map(JobId::path));
        script = script.add("; do all \"$j\"; done\nexit 0");
        self.connection.run(&script, |output| {
            let mut next = record(output)?;
            let mut found = Vec::with_capacity(jobs.len());
            for job in jobs {
                if next.as_deref() != Some(OsStr::new("=J")) {
                    return Err(io::Error::other("the list of files ended too early"));
                }
                next = record(output)?;
                let mut listings = Vec::new();
                while next.as_deref() == Some(OsStr::new("=D")) {
                    let location = number(&expect_record(output)?)? as usize;
                    let mode = location
                        .checked_sub(1)
                        .and_then(|index| self.folders.get(index));
                    let mut listing = Listing::new(location, mode.map(|folder| folder.mode), job);
                    next = listing.read(output)?;
                    listings.push(listing);
                }
                found.push(serving(&listings));
            }
            Ok(found)
        })
    }

    /// Whether it has a run.
    pub(super) fn has_run(&self, run: &RunName) -> Result<bool, SshError> {
        let script = self.script().add("r=").word(run_path(run));
        let script = script.add("\nif [ -e \"$r\" ] || [ -L \"$r\" ]; then printf y; fi");
        Ok(!self.connection.output(&script)?.is_empty())
    }
}

/// The path of a run in a workspace.
pub(super) fn run_path(run: &RunName) -> PathBuf {
    Path::new(EXPERIMENTS).join(&run.experiment).join(&run.run)
}

impl SiteRun {
    /// Reads the files, the symlinks, and `jobs.jsonl`, which is last.
    fn read(&mut self, output: &mut dyn BufRead, shown: &Path) -> io::Result<()> {
        loop {
            let tag = expect_record(output)?;
            match tag.to_str() {
                Some("=F") => {
                    self.size.files += 1;
                    self.size.bytes = self
                        .size
                        .bytes
                        .saturating_add(number(&expect_record(output)?)?);
                }
                Some("=K") => {
                    let (path, target) = (expect_record(output)?, expect_record(output)?);
                    if let Ok(job) = JobId::parse(&path) {
                        self.links.push((job, target.into()));
                    }
                }
                Some("=T") => break,
                _ => {
                    self.jobs = self.links.iter().map(|(job, _)| job.clone()).collect();
                    self.jobs.sort_unstable();
                    return Ok(());
                }
            }
        }
        let mut seen = std::collections::HashSet::new();
        for line in JobsJsonl::from_reader(output, shown) {
            match line {
                Ok(job) if seen.insert(job.id.clone()) => self.jobs.push(job.id),
                Ok(_) => {}
                Err(error) => self.unread.push(error.to_string()),
            }
        }
        Ok(())
    }
}
