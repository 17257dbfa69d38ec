//! The threads that look at a workspace for the dashboard, so that the screen waits for no disk.
//!
//! Each has a question of its own. One that a folder keeps waiting delays no other, and is not asked again before it is answered.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::Duration;

use crossbeam_channel::Sender;
use jiff::Timestamp;

use super::actions::{ActionOutcome, ActionPlan};
use super::event::{Event, Watch, worker};
use super::jobs::JobTable;
use super::model::{ReadList, TrashRow};
use super::order::Order;
use super::read::{Content, Reader, Want};
use crate::archive::copies::{CopySearch, JobCopies};
use crate::archive::experiments::copies::{self, ExperimentCopies};
use crate::archive::job::opt_out::OptOuts;
use crate::archive::job::trash::list::list_trash;
use crate::archive::job_list::{self, Query};
use crate::archive::orphans::{self, Orphans, Search};
use crate::cli::jobs::session::Session;
use crate::cli::sentence;
use crate::cli::status::gather::{self, Status, gather};
use crate::cli::{Global, Select};
use crate::daemon::archiving;
use crate::transfer::Progress;
use crate::workspace::jobs::JobId;

/// How often the jobs are listed, at most.
const JOBS_INTERVAL: Duration = Duration::from_secs(2);

/// How often mounts and archivers are asked.
const STATUS_INTERVAL: Duration = Duration::from_secs(1);

/// How often the other lists are read while they show.
const OTHERS_INTERVAL: Duration = Duration::from_secs(5);

/// The tabs, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tab {
    Jobs,
    Folders,
    Archive,
    Experiments,
    Orphans,
    Trash,
}

impl Tab {
    pub(super) const ALL: [Tab; 6] = [
        Tab::Jobs,
        Tab::Folders,
        Tab::Archive,
        Tab::Experiments,
        Tab::Orphans,
        Tab::Trash,
    ];

    pub(super) fn title(self) -> &'static str {
        match self {
            Tab::Jobs => "Jobs",
            Tab::Folders => "Folders",
            Tab::Archive => "Archive",
            Tab::Experiments => "Experiments",
            Tab::Orphans => "Orphans",
            Tab::Trash => "Trash",
        }
    }
}

/// What the threads find.
pub(super) enum WatchResult {
    Opened(anyhow::Result<Arc<Session>>),
    Jobs(JobTable),
    Status(Result<Status, String>),
    Experiments(ReadList<Vec<ExperimentCopies>>),
    Orphans(Orphans),
    Trash(ReadList<Vec<TrashRow>>),
    Looked(JobId, JobCopies),
    Read(Want, Result<Content, String>),
    /// What an action would do, by the number of the question.
    Planned(u64, Order, Result<ActionPlan, String>),
    /// An action begins; its progress.
    Acting(Arc<Progress>),
    Acted(Result<ActionOutcome, String>),
}

/// The threads.
pub(super) struct Watchers {
    jobs: Watch,
    status: Watch,
    others: Vec<(Tab, Watch)>,
    /// The tab that shows.
    tab: Arc<AtomicU8>,
    /// Whether the sizes are measured with the next list.
    sizes: Arc<AtomicBool>,
    looks: Sender<Vec<JobId>>,
    pub(super) reader: Reader,
}

type Events = Sender<Event<WatchResult>>;

fn send(events: &Events, found: WatchResult) -> bool {
    events.send(Event::Found(found)).is_ok()
}

impl Watchers {
    /// Starts them for a workspace.
    ///
    /// # Errors
    ///
    /// A thread cannot be started.
    pub(super) fn start(
        session: &Arc<Session>,
        select: &Select,
        global: &Global,
        events: &Events,
    ) -> std::io::Result<Watchers> {
        let tab = Arc::new(AtomicU8::new(0));
        let sizes = Arc::new(AtomicBool::new(false));
        let jobs = {
            let (session, events, sizes) = (session.clone(), events.clone(), sizes.clone());
            Watch::start("xpmfs-jobs", JOBS_INTERVAL, move || {
                let query = Query {
                    sizes: sizes.swap(false, Ordering::Relaxed),
                    outdated: true,
                    ..Query::default()
                };
                match job_list::list(&session.opened.view, &query) {
                    Ok(list) => send(&events, WatchResult::Jobs(JobTable::of(list))),
                    // Only a query for an experiment fails.
                    Err(_) => true,
                }
            })?
        };
        let status = {
            let (events, global) = (events.clone(), global.clone());
            let arguments = gather::Arguments::of(of_session(session, select));
            Watch::start("xpmfs-status", STATUS_INTERVAL, move || {
                let status = gather(&arguments, &global);
                let status = status.map_err(|error| sentence(&error));
                send(&events, WatchResult::Status(status))
            })?
        };
        let other = |shown: Tab, look: fn(&Session) -> WatchResult| {
            let (session, events, tab) = (session.clone(), events.clone(), tab.clone());
            let watch = Watch::start("xpmfs-lists", OTHERS_INTERVAL, move || {
                let shows = tab.load(Ordering::Relaxed) == shown as u8;
                !shows || send(&events, look(&session))
            })?;
            Ok::<_, std::io::Error>((shown, watch))
        };
        let others = vec![
            other(Tab::Experiments, experiments)?,
            other(Tab::Orphans, |session| {
                let search = Search {
                    ignore_folders: true,
                    sizes: true,
                };
                WatchResult::Orphans(orphans::find(&session.opened.view, search))
            })?,
            other(Tab::Trash, trash)?,
        ];
        let reader = {
            let events = events.clone();
            Reader::start(session.clone(), move |want, content| {
                send(&events, WatchResult::Read(want, content))
            })?
        };
        Ok(Watchers {
            jobs,
            status,
            others,
            tab,
            sizes,
            looks: look(session.clone(), events.clone())?,
            reader,
        })
    }

    /// Looks at everything again.
    pub(super) fn refresh(&self) {
        self.jobs.wake();
        self.status.wake();
        for (_, watch) in &self.others {
            watch.wake();
        }
    }

    /// Another tab shows.
    pub(super) fn show(&self, tab: Tab) {
        self.tab.store(tab as u8, Ordering::Relaxed);
        for (shown, watch) in &self.others {
            if *shown == tab {
                watch.wake();
            }
        }
    }

    /// Measures the sizes of all jobs with the next list.
    pub(super) fn measure(&self, now: bool) {
        self.sizes.store(true, Ordering::Relaxed);
        if now {
            self.jobs.wake();
        }
    }

    /// Looks at the copies of jobs, unless it still looks at others.
    pub(super) fn look(&self, jobs: Vec<JobId>) {
        if !jobs.is_empty() {
            let _ = self.looks.try_send(jobs);
        }
    }
}

/// The selection of the workspace that was opened: `status` without one shows all.
fn of_session(session: &Session, select: &Select) -> Select {
    let workspace = &session.opened.workspace;
    match (select.is_given(), workspace.id.is_empty()) {
        (true, _) => select.clone(),
        (false, false) => Select {
            workspace: Some(workspace.id.clone()),
            ..Select::default()
        },
        (false, true) => Select {
            workdir: Some(workspace.path.clone()),
            ..Select::default()
        },
    }
}

fn experiments(session: &Session) -> WatchResult {
    let (found, unread) = copies::list(&session.opened.view);
    WatchResult::Experiments(ReadList { found, unread })
}

fn trash(session: &Session) -> WatchResult {
    let env = session.env();
    let listed = list_trash(&env);
    let keep = session.opened.tuning.trash();
    let mut found: Vec<TrashRow> = listed
        .jobs
        .iter()
        .map(|deleted| {
            let sizes = deleted.copies.iter().map(|it| it.usage(&env, deleted));
            let sizes = sizes.map(|usage| usage.map(|(size, _)| size.bytes));
            let places = deleted.copies.iter().map(|it| session.label(it.location));
            let waits = deleted.waits.iter();
            let waits = waits.map(|it| format!("{} (waiting for it)", session.label(*it)));
            let places: Vec<String> = places.chain(waits).collect();
            TrashRow {
                job: deleted.job.clone(),
                batch: deleted.batch.clone(),
                until: Timestamp::try_from(deleted.until(keep)).ok(),
                bytes: sizes.sum(),
                places: places.join(", "),
            }
        })
        .collect();
    // The last deletion is what is most likely to be brought back.
    found.reverse();
    WatchResult::Trash(ReadList {
        found,
        unread: listed.unseen,
    })
}

/// Starts the thread that looks at the copies of the jobs that show.
fn look(session: Arc<Session>, events: Events) -> std::io::Result<Sender<Vec<JobId>>> {
    let opened = &session.opened;
    let config = archiving::config(&opened.tuning, &opened.folders);
    let out = OptOuts::new(config.exclude, config.folder_exclude);
    worker("xpmfs-look", 1, move |jobs: Vec<JobId>| {
        let search = CopySearch::new(&session.opened.view, &out);
        jobs.into_iter().all(|job| {
            let copies = search.of(&job);
            send(&events, WatchResult::Looked(job, copies))
        })
    })
}
