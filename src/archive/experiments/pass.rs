//! One pass over all experiments of the primary: archives in one folder what has ended and is not there.
//!
//! 1. For each experiment, the runs that have ended are compared with what is remembered ([`super::state`]): a few `statx` for each run.
//! 2. Of a run that has changed, first the partials that its jobs name are archived, then the run: a run in the folder has its partials,
//!    except those that were in use.
//! 3. A run that has settled, with all its partials, is remembered.
//! 4. `current` in the folder follows, once the run that it names is there. It never goes back to an older run.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::in_use::{self, InProgress, UsedPartials};
use super::named::NamedPartials;
use super::state::{self, ArchivedRuns, Record};
use super::store::{self, Result, Store};
use super::{Item, RunName, shown, top};
use crate::archive::env::Env;
use crate::archive::error::{Cause, Scope};
use crate::archive::job::opt_out::OptOuts;
use crate::archive::job::store::Stored;
use crate::archive::places;
use crate::sys::at;
use crate::transfer::{self, Time};
use crate::view::{Location, Root};
use crate::workspace::experiments::{self, Experiment};
use crate::workspace::layout::MARKER;
use crate::workspace::partials::PartialId;
use crate::workspace::runs::{Layout, Run, RunId};

/// A change further in the future than this does not settle, by the clock of this machine: the clock of the machine that made it is wrong.
const CLOCK_ERROR_MAX: Duration = Duration::from_secs(60);

/// The result for one item.
#[derive(Debug)]
pub enum ItemOutcome {
    /// The item was stored, or the folder has it already.
    Stored(Stored),
    /// It waits for a moment: it changed a moment ago, or another process copies it.
    Waiting(String),
    /// It waits for a job that may go on for long.
    InUse(String),
    /// It could not be archived.
    Failed(Cause),
}

/// Receives what a pass does.
pub trait PassObserver {
    /// The pass begins to copy an item.
    fn begin(&mut self, item: &Item);
    /// The pass is done with an item.
    fn end(&mut self, item: &Item, outcome: ItemOutcome);
    /// Something cannot be read.
    fn trouble(&mut self, why: String);
}

/// Archives the experiments of a primary in one folder, pass after pass.
#[derive(Debug)]
pub struct FolderPasses {
    folder: u8,
    /// Whether the records of earlier processes count: if not, the first pass compares everything.
    trusts_records: bool,
    /// The folder's directory of the last pass. Not held open: its disk may be unmounted.
    with: Weak<Root>,
    archived: ArchivedRuns,
    /// The run that `current` names in the folder, of each experiment.
    currents: HashMap<std::ffi::OsString, RunId>,
}

/// What one pass shares.
struct Pass<'a> {
    store: Store<'a>,
    out: Option<&'a OptOuts>,
    report: &'a mut dyn PassObserver,
    /// The partials of this pass, and whether each is archived.
    partials: HashMap<PartialId, bool>,
    /// The partials that running jobs name, once that was looked at.
    used: Option<UsedPartials>,
    /// Whether anything is in the folder that belongs to a workspace.
    any: bool,
}

/// Whether items may be archived in a folder: not if its path names a bare `jobs` directory, which has no place for them.
#[must_use]
pub fn has_place(folder: &Location) -> bool {
    folder.root().is_ok_and(|root| !root.is_bare_jobs())
}

impl FolderPasses {
    /// The passes over a folder.
    #[must_use]
    pub fn new(folder: u8) -> FolderPasses {
        FolderPasses {
            folder,
            trusts_records: true,
            with: Weak::new(),
            archived: ArchivedRuns::default(),
            currents: HashMap::new(),
        }
    }

    /// As [`FolderPasses::new`], but the first pass compares everything, whatever earlier processes have recorded.
    #[must_use]
    pub fn thorough(folder: u8) -> FolderPasses {
        FolderPasses {
            trusts_records: false,
            ..FolderPasses::new(folder)
        }
    }

    /// Forgets what earlier passes have found.
    pub fn forget(&mut self) {
        self.archived.clear();
        self.currents.clear();
    }

    /// Archives what has ended and the folder lacks. Returns once all of it was tried; an error that concerns the whole folder ends the
    /// pass, and so does a cancellation.
    ///
    /// # Errors
    ///
    /// The folder cannot be used, or the primary cannot be read.
    pub fn pass(
        &mut self,
        env: &Env<'_>,
        report: &mut dyn PassObserver,
    ) -> std::result::Result<(), Cause> {
        let Some(folder) = places::folder(env.view, self.folder) else {
            return Ok(());
        };
        let root = folder.root();
        let root = root.map_err(|errno| Cause::io("open", folder.path(), errno))?;
        if root.is_bare_jobs() {
            return Ok(());
        }
        let primary = env.view.primary();
        let top = top(primary).map_err(|errno| Cause::io("open", primary.path(), errno))?;
        let listed = experiments::list(&top);
        for error in listed.errors {
            report.trouble(shown(primary, &error));
        }
        let mut experiments = listed.found;
        experiments.retain(|experiment| experiment.layout == Layout::V2);
        if experiments.is_empty() {
            return Ok(());
        }
        let store = Store {
            env,
            folder,
            root: root.clone(),
        };
        store.expect_usable()?;
        if !std::ptr::eq(self.with.as_ptr(), Arc::as_ptr(&root)) {
            self.forget();
            self.with = Arc::downgrade(&root);
            if let Ok(there) = super::top(folder) {
                store::sweep_all(folder, &there);
            }
        }
        let mut pass = Pass {
            store,
            out: env.out,
            report,
            partials: HashMap::new(),
            used: None,
            any: false,
        };
        for experiment in &experiments {
            self.experiment(&mut pass, experiment)?;
        }
        match pass.any {
            true => mark(&root).map_err(|errno| Cause::io("mark", folder.path(), errno)),
            false => Ok(()),
        }
    }

    fn experiment(&mut self, pass: &mut Pass<'_>, experiment: &Experiment) -> Result<()> {
        let (primary, folder) = (pass.store.env.view.primary(), pass.store.folder);
        // A symlink leads out of the primary, to a directory of another workspace perhaps.
        let is_link = std::fs::symlink_metadata(&experiment.path);
        if is_link.is_ok_and(|metadata| metadata.is_symlink()) {
            let path = Item::Run(name(experiment, OsStr::new(""))).path(primary);
            pass.report.trouble(format!(
                "{} is a symlink, and is not archived",
                path.display()
            ));
            return Ok(());
        }
        let runs = experiment.runs();
        for error in runs.errors {
            pass.report.trouble(shown(primary, &error));
        }
        let runs = runs.found;
        let in_progress = InProgress::of(experiment);
        let mut record: Option<(Record, bool)> = None;
        for run in &runs {
            if pass.store.env.progress.is_cancelled() {
                return Err(Cause::Cancelled);
            }
            let run_name = name(experiment, run.id.as_os_str());
            let Some(stamp) = state::stamp(run) else {
                continue;
            };
            if self.archived.has(&run_name, stamp) {
                continue;
            }
            if in_progress.is(run) {
                continue;
            }
            let (known, changed) = record.get_or_insert_with(|| {
                let mut known = state::read(primary, folder, &experiment.id);
                let pruned = state::prune(&mut known, &runs);
                (known, pruned)
            });
            let item = Item::Run(run_name.clone());
            let is_known =
                self.trusts_records && state::is_recorded(known, run.id.as_os_str(), stamp);
            if !(is_known && pass.store.has(&item)) {
                if !pass.run(&item, experiment, run)? {
                    continue;
                }
                state::record(known, run.id.as_os_str(), stamp);
                *changed = true;
            }
            pass.any = true;
            self.archived.add(run_name, stamp);
        }
        if let Some((known, true)) = record {
            state::write(primary, folder, &experiment.id, &known);
        }
        self.current(pass, experiment, &in_progress);
        Ok(())
    }

    /// Makes `current` in the folder name the run that it names in the primary.
    fn current(&mut self, pass: &mut Pass<'_>, experiment: &Experiment, seen: &InProgress) {
        let Some(current) = &seen.current else {
            return;
        };
        if self.currents.get(&experiment.id) == Some(current) {
            return;
        }
        let item = Item::Run(name(experiment, current.as_os_str()));
        if !pass.store.has(&item) {
            return;
        }
        let path = Item::Run(name(experiment, OsStr::new(store::CURRENT))).path(pass.store.folder);
        let parent = at::open_dirs(pass.store.root.fd(), item.parents().into_iter());
        let parent = parent.map_err(|errno| Cause::io("open the directory of", &path, errno));
        match parent.and_then(|parent| store::set_current(&parent, current.as_os_str(), &path)) {
            Ok(true) => drop(self.currents.insert(experiment.id.clone(), current.clone())),
            Ok(false) => {}
            Err(cause) => pass.report.trouble(cause.to_string()),
        }
    }
}

fn name(experiment: &Experiment, run: &OsStr) -> RunName {
    RunName {
        experiment: experiment.id.clone(),
        run: run.to_owned(),
    }
}

impl Pass<'_> {
    /// Archives a run with the partials of its jobs; returns whether all of it is in the folder.
    fn run(&mut self, item: &Item, experiment: &Experiment, run: &Run) -> Result<bool> {
        let Some(source) = self.store.source(item)? else {
            return Ok(false);
        };
        match self.settled(item, &source) {
            Ok(Some(size)) if size.files > 0 => {}
            // The plan is just making it, or a purge has left only directories.
            Ok(Some(_)) => return Ok(false),
            Ok(None) => return Ok(false),
            Err(cause) => return self.failed(item, cause).map(|()| false),
        }
        let named = NamedPartials::of(self.store.env, run, (self.out, self.store.folder.index()));
        let mut whole = named.unknown.is_none() && !named.pending;
        if named.pending {
            let why = "a run that names its jobs is being written";
            self.report.end(item, ItemOutcome::Waiting(why.to_owned()));
        }
        if let Some(why) = named.unknown {
            let why = format!("which partials its jobs name is unknown: {why}");
            self.report
                .end(item, ItemOutcome::Failed(Cause::Unsafe(why)));
        }
        for partial in named.partials {
            whole &= match self.partials.get(&partial) {
                Some(known) => *known,
                None => {
                    let stored = self.partial(&partial)?;
                    self.partials.insert(partial, stored);
                    stored
                }
            };
        }
        let check = || match InProgress::of(experiment).is(run) {
            true => Err(Cause::Busy("a plan runs".into())),
            false => Ok(()),
        };
        Ok(self.store(item, &source, &check)? && whole)
    }

    /// Archives a partial; returns whether it is in the folder, or is not in the primary.
    fn partial(&mut self, partial: &PartialId) -> Result<bool> {
        let item = Item::Partial(partial.clone());
        let Some(source) = self.store.source(&item)? else {
            return Ok(true);
        };
        let in_use = |why: &str| ItemOutcome::InUse(why.to_owned());
        if in_use::is_partial_locked(&source).unwrap_or(false) {
            self.report.end(&item, in_use("a job writes to it"));
            return Ok(false);
        }
        match self.settled(&item, &source) {
            // Only locks.
            Ok(Some(size)) if size.files == 0 => return Ok(true),
            Ok(Some(_)) => {}
            Ok(None) => return Ok(false),
            Err(cause) => return self.failed(&item, cause).map(|()| false),
        }
        let (env, progress) = (self.store.env, self.store.env.progress);
        if self.store.is_same(&item, &source) {
            return Ok(true);
        }
        if self.used.is_none() {
            let used = UsedPartials::of(env.view, &|| progress.is_cancelled());
            let at = env.view.primary().path();
            self.used = Some(used.map_err(|errno| Cause::io("list the jobs of", at, errno))?);
        }
        if let Some(used) = &self.used
            && let Some(why) = used.why(partial)
        {
            self.report.end(&item, ItemOutcome::InUse(why));
            return Ok(false);
        }
        let check = || match in_use::is_partial_locked(&source) {
            Ok(false) => Ok(()),
            _ => Err(Cause::Busy("a job writes to it".into())),
        };
        self.store(&item, &source, &check)
    }

    /// Copies an item, and reports that; returns whether the folder has it.
    fn store(
        &mut self,
        item: &Item,
        source: &OwnedFd,
        check: &dyn Fn() -> Result<()>,
    ) -> Result<bool> {
        self.report.begin(item);
        match self.store.store(item, source, check) {
            Ok(stored) => {
                self.any = true;
                self.report.end(item, ItemOutcome::Stored(stored));
                Ok(true)
            }
            Err(cause) => self.failed(item, cause).map(|()| false),
        }
    }

    /// Reports an error; returns it if it concerns all items.
    fn failed(&mut self, item: &Item, cause: Cause) -> Result<()> {
        match cause.scope() {
            Scope::Folder | Scope::Space | Scope::Cancelled => Err(cause),
            Scope::Soon => {
                self.report
                    .end(item, ItemOutcome::Waiting(cause.to_string()));
                Ok(())
            }
            Scope::Job | Scope::Again => {
                self.report.end(item, ItemOutcome::Failed(cause));
                Ok(())
            }
        }
    }

    /// The amount to copy of an item that has settled; `None`, and a report, for one that changed a moment ago.
    fn settled(&mut self, item: &Item, source: &OwnedFd) -> Result<Option<transfer::Size>> {
        let measured = self.store.measure(item, source)?;
        if rest(measured.newest, self.store.env.settle).is_none() {
            return Ok(Some(measured.size));
        }
        self.report
            .end(item, ItemOutcome::Waiting("settling".to_owned()));
        Ok(None)
    }
}

/// How long something with this last change must still be unchanged; `None` if it has settled.
fn rest(newest: Time, settle: Duration) -> Option<Duration> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.unwrap_or_default();
    let newest = u64::try_from(newest.seconds).map_or(Duration::ZERO, |seconds| {
        Duration::new(seconds, newest.nanoseconds)
    });
    if newest > now + CLOCK_ERROR_MAX {
        return None;
    }
    (newest + settle)
        .checked_sub(now)
        .filter(|rest| !rest.is_zero())
}

/// Marks a folder as a workspace, as experimaestro marks one.
fn mark(root: &Root) -> rustix::io::Result<()> {
    if at::absent(at::stat(root.fd(), OsStr::new(MARKER)))?.is_some() {
        return Ok(());
    }
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    match rustix::fs::openat(root.fd(), MARKER, flags, Mode::from_raw_mode(0o666)) {
        Ok(_) | Err(Errno::EXIST) => Ok(()),
        Err(errno) => Err(errno),
    }
}
