//! What the dashboard of a workspace knows: the last answers of its threads.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::jobs::JobTable;
use super::row::Row;
use super::safety::Places;
use super::theme::Theme;
use crate::archive::copies::JobCopies;
use crate::archive::engine::Report;
use crate::archive::experiments::copies::ExperimentCopies;
use crate::archive::orphans::Orphans;
use crate::cli::jobs::session::Session;
use crate::cli::status::gather::{MountStatus, Status};
use crate::daemon::inventory::LocationReport;
use crate::transfer::Progress;
use crate::workspace::jobs::JobId;

/// The most jobs whose copies are kept in memory.
const LOOKED_MAX: usize = 2000;

/// How long what was seen of the copies of a job counts.
pub(super) const LOOKED_FRESH: Duration = Duration::from_secs(20);

/// A deleted job.
#[derive(Debug)]
pub(super) struct TrashRow {
    pub(super) job: JobId,
    pub(super) batch: crate::archive::job::trash::batch::Batch,
    pub(super) until: Option<Timestamp>,
    pub(super) bytes: Option<u64>,
    /// Its locations, in words.
    pub(super) places: String,
}

/// An answer, and what could not be read.
#[derive(Debug)]
pub(super) struct ReadList<T> {
    pub(super) found: T,
    pub(super) unread: Vec<String>,
}

/// What an action under way has done so far.
pub(super) struct Working {
    /// In words, as in `archiving 3 jobs`.
    pub(super) what: String,
    pub(super) progress: Arc<Progress>,
    pub(super) since: Instant,
    /// Whether it was asked to stop.
    pub(super) stops: bool,
}

/// Everything that is shown.
pub(super) struct Model {
    pub(super) theme: Theme,
    /// Since when the workspace is being opened.
    pub(super) started: Instant,
    pub(super) session: Option<Arc<Session>>,
    pub(super) places: Places,
    pub(super) jobs: Option<Arc<JobTable>>,
    /// Changes when the jobs change.
    pub(super) generation: u64,
    pub(super) status: Option<Result<Status, String>>,
    pub(super) experiments: Option<ReadList<Vec<ExperimentCopies>>>,
    pub(super) orphans: Option<Arc<Orphans>>,
    pub(super) trash: Option<ReadList<Vec<TrashRow>>>,
    pub(super) working: Option<Working>,
    looked: HashMap<JobId, (Instant, Arc<JobCopies>)>,
    /// The sizes of jobs, by what was seen of their copies.
    sizes: HashMap<JobId, u64>,
}

impl Model {
    pub(super) fn new(theme: Theme) -> Model {
        Model {
            theme,
            started: Instant::now(),
            session: None,
            places: Places::default(),
            jobs: None,
            generation: 0,
            status: None,
            experiments: None,
            orphans: None,
            trash: None,
            working: None,
            looked: HashMap::new(),
            sizes: HashMap::new(),
        }
    }

    /// Replaces the jobs.
    pub(super) fn set_jobs(&mut self, mut jobs: JobTable) {
        if let Some(before) = &self.jobs {
            jobs.keep_sizes(before);
        }
        self.jobs = Some(Arc::new(jobs));
        self.generation += 1;
    }

    /// Keeps what was seen of the copies of a job.
    pub(super) fn set_looked(&mut self, job: JobId, copies: JobCopies) {
        if self.looked.len() >= LOOKED_MAX {
            self.looked.clear();
            self.sizes.clear();
        }
        let served = copies.copies.iter();
        let mut served = served.filter(|copy| Some(copy.location) == copies.served);
        if let Some(size) = served.next().and_then(|copy| copy.size) {
            self.sizes.insert(job.clone(), size.bytes);
        }
        self.looked.insert(job, (Instant::now(), Arc::new(copies)));
    }

    /// What was seen of the copies of a job.
    pub(super) fn looked(&self, job: &JobId) -> Option<&Arc<JobCopies>> {
        self.looked.get(job).map(|(_, copies)| copies)
    }

    /// Whether the copies of a job are to be looked at.
    pub(super) fn is_stale(&self, job: &JobId) -> bool {
        let looked = self.looked.get(job);
        looked.is_none_or(|(at, _)| at.elapsed() > LOOKED_FRESH)
    }

    /// Forgets what was seen of copies, after an action.
    pub(super) fn forget_looked(&mut self) {
        for (at, _) in self.looked.values_mut() {
            *at = at.checked_sub(LOOKED_FRESH).unwrap_or(*at);
        }
    }

    /// The size of a job, if it is known.
    pub(super) fn size(&self, row: &Row) -> Option<u64> {
        row.bytes.or_else(|| self.sizes.get(&row.id).copied())
    }

    /// The mount of the workspace, if there is one.
    pub(super) fn mount(&self) -> Option<&MountStatus> {
        let Some(Ok(status)) = &self.status else {
            return None;
        };
        // A mount that serves says more than a dead one.
        let mounts = status.mounts.iter();
        mounts.max_by_key(|mount| (mount.state == "ok", mount.archive.is_some()))
    }

    /// The report of whatever archives the workspace, and what that is.
    pub(super) fn report(&self) -> Option<(&Report, &'static str)> {
        if let Some(report) = self.mount().and_then(|mount| mount.archive.as_ref()) {
            return Some((report, "mount"));
        }
        let Some(Ok(status)) = &self.status else {
            return None;
        };
        let mut archivers = status.archivers.iter();
        let report = archivers.find_map(|archiver| archiver.archive.as_ref());
        report.map(|report| (report, "xpmfs archive"))
    }

    /// The locations, as they were reported last.
    pub(super) fn locations(&self) -> &[LocationReport] {
        let Some(Ok(status)) = &self.status else {
            return &[];
        };
        let mounts = self.mount().into_iter().map(|mount| &mount.locations);
        let archivers = status.archivers.iter().map(|it| &it.locations);
        let workspaces = status.workspaces.iter().map(|it| &it.locations);
        let mut all = mounts.chain(archivers).chain(workspaces);
        all.find(|it| !it.is_empty()).map_or(&[], Vec::as_slice)
    }

    /// A location as `xpmfs jobs where` writes it.
    pub(super) fn label(&self, location: u8) -> String {
        let session = self.session.as_ref();
        session.map_or_else(String::new, |session| session.label(location))
    }
}
