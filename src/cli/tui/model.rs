//! What the dashboard of a workspace knows: the last answers of its threads.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::jobs::JobTable;
use super::reported::Reported;
use super::row::Row;
use super::safety::Places;
use super::theme::Theme;
use crate::archive::copies::JobCopies;
use crate::archive::experiments::copies::ExperimentCopies;
use crate::archive::orphans::Orphans;
use crate::cli::jobs::session::Session;
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
    pub(super) reported: Reported,
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
        let started = Instant::now();
        Model {
            theme,
            started,
            session: None,
            places: Places::default(),
            jobs: None,
            generation: 0,
            reported: Reported::new(started),
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

    /// A location as `xpmfs jobs where` writes it.
    pub(super) fn label(&self, location: u8) -> String {
        let session = self.session.as_ref();
        session.map_or_else(String::new, |session| session.label(location))
    }
}
