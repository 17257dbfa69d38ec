//! Reports the state of archiving, for `status` and for callers that wait for its end.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::lane::{Flight, Lane};
use super::queue::{At, Job, Step, Turn};
use super::shared::{Scan, Shared, State};
use super::walk::MANY;
use crate::archive::remedy::remedy;
use crate::archive::state_dir;
use crate::settings::Mode;
use crate::transfer::Size;
use crate::view::location::Role;
use crate::view::{Location, View};
use crate::workspace::JobId;

/// The most jobs of each kind that a report lists by name.
const NAMES_MAX: usize = 100;

/// A scan that takes longer than this is no longer waited for: its folder hangs.
const SCAN_MAX: Duration = Duration::from_secs(60);

/// The state of archiving.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Report {
    /// How many jobs are queued, including those being copied and those that failed.
    pub queued: usize,
    /// Jobs that wait, and have not failed: the first few.
    pub waiting: Vec<Waiting>,
    /// Jobs that failed: the first few.
    pub failed: Vec<Failed>,
    /// How many jobs have failed in all.
    pub failures: usize,
    /// Copies that `verify` found damaged or missing: the first few.
    #[serde(default)]
    pub damaged: Vec<Damaged>,
    /// How many copies are damaged or missing in all.
    #[serde(default)]
    pub damages: usize,
    /// The state of each `backup` and `move` folder.
    pub folders: Vec<Folder>,
    /// Why the queued jobs are not in the journal, if so: a restart finds them again nonetheless.
    pub journal: Option<String>,
}

/// A job that waits.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Waiting {
    /// `task_id/hash`.
    pub job: String,
    /// Why it waits, in a few words.
    pub why: String,
    /// Whether an attempt was made and refused for now.
    #[serde(default)]
    pub refused: bool,
}

/// A job that could not be archived.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Failed {
    /// `task_id/hash`.
    pub job: String,
    /// The folder, unless the job itself could not be looked at.
    pub folder: Option<PathBuf>,
    /// Why.
    pub why: String,
    /// How often in a row.
    pub tries: u32,
    /// When it is tried again, in seconds from now.
    pub next_try: f64,
}

/// A copy that `verify` found damaged or missing.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Damaged {
    /// `task_id/hash`.
    pub job: String,
    /// The folder.
    pub folder: PathBuf,
    /// What is wrong with it.
    pub finding: String,
    /// The command that makes the copy anew, as a clause.
    #[serde(default)]
    pub remedy: String,
}

impl fmt::Display for Damaged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Damaged {
            job,
            folder,
            finding,
            remedy,
        } = self;
        write!(f, "{job} in {}: {finding}", folder.display())?;
        match remedy.is_empty() {
            true => Ok(()),
            false => write!(f, "; {remedy}"),
        }
    }
}

/// The state of a folder.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Folder {
    /// `backup` or `move`.
    pub mode: String,
    /// Its directory.
    pub path: PathBuf,
    /// How many jobs wait for it.
    pub waiting: usize,
    /// What is being copied to it.
    pub under_way: Option<UnderWay>,
    /// Why the folder accepts no job, if so.
    pub refuses: Option<Refuses>,
    /// Jobs that were copied to it since the start.
    pub jobs: u64,
    /// Files of these.
    pub files: u64,
    /// Bytes of these.
    pub bytes: u64,
    /// Jobs that are in the primary and not in the folder, finished or not, as of the last scan.
    pub missing: usize,
    /// When the primary was last compared with the folder, in seconds since 1970.
    pub last_scan: Option<f64>,
    /// Which paths the last scan could not read.
    pub trouble: Option<String>,
}

/// What is being copied.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct UnderWay {
    /// The jobs, which go together: `task_id/hash`.
    pub jobs: Vec<String>,
    /// Files that are done.
    pub files: u64,
    /// Bytes that are done.
    pub bytes: u64,
    /// How much there is in all, if that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total: Option<Total>,
    /// For how long, in seconds.
    pub seconds: f64,
}

/// How much there is to copy, of jobs that the folder does not have yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Total {
    /// Files.
    pub files: u64,
    /// Bytes of these.
    pub bytes: u64,
}

/// Why and until when a folder accepts no job.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Refuses {
    /// Why.
    pub why: String,
    /// How often in a row it was tried.
    pub tries: u32,
    /// When it is tried again, in seconds from now; if `None`, as soon as the folder is there.
    pub next_try: Option<f64>,
}

/// Whether there is anything left to archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "lowercase")]
pub enum Idle {
    /// Nothing.
    Yes,
    /// Jobs are queued, or a scan is looking for some.
    Busy {
        /// Jobs that are queued.
        left: usize,
    },
    /// All jobs that are left have failed, or their folders accept no job; or it is unknown whether any job is left,
    /// since some folders or directories cannot be read.
    Stuck {
        /// Jobs that are queued.
        failed: usize,
    },
}

/// Returns the state of archiving.
pub(super) fn report(shared: &Shared, view: &View, now: Instant) -> Report {
    let mut report = queued(shared, view, now);
    report.add_damaged(view);
    report
}

/// The copies that `verify` found damaged or missing, of a workspace that no process archives now.
#[must_use]
pub fn damaged(view: &View) -> Report {
    let mut report = Report::default();
    report.add_damaged(view);
    report
}

/// The report of the queue and the scans.
fn queued(shared: &Shared, view: &View, now: Instant) -> Report {
    let state = &*shared.state.lock();
    let mut report = Report {
        queued: state.queue.jobs.len(),
        journal: state.journal.clone(),
        ..Report::default()
    };
    let lanes: BTreeMap<u8, &Lane> = state
        .queue
        .lanes
        .iter()
        .map(|lane| (lane.folder, lane))
        .collect();
    for (id, job) in &state.queue.jobs {
        report.add(id, job, &lanes, view, now);
    }
    let scans = state.scans.iter();
    report.folders = scans
        .filter_map(|scan| Some(folder(lanes.get(&scan.folder)?, scan, view, now)))
        .collect();
    report
}

impl Report {
    /// Why some finished jobs may not have been found yet, if so.
    #[must_use]
    pub fn unseen(&self) -> Option<String> {
        self.folders.iter().find_map(|folder| {
            let away = folder.refuses.as_ref();
            let away = away.filter(|refuses| refuses.next_try.is_none());
            let away = away.map(|refuses| format!("{}: {}", folder.path.display(), refuses.why));
            away.or_else(|| folder.trouble.clone())
        })
    }

    /// The first damaged or missing copy, if any, as a sentence.
    #[must_use]
    pub fn first_damaged(&self) -> Option<String> {
        Some(self.damaged.first()?.to_string())
    }

    /// Adds the findings of `verify`, which are in the primary.
    fn add_damaged(&mut self, view: &View) {
        for folder in archived_to(view) {
            let limit = NAMES_MAX.saturating_sub(self.damaged.len());
            let found = match state_dir::damaged(view.primary(), folder, limit) {
                Ok(found) => found,
                Err(error) => {
                    let mut reports = self.folders.iter_mut();
                    let why = || state_dir::explain(view.primary(), error);
                    match reports.find(|report| report.path == folder.path()) {
                        Some(report) => drop(report.trouble.get_or_insert_with(why)),
                        None => tracing::warn!("{}", why()),
                    }
                    continue;
                }
            };
            self.damages += found.count;
            self.damaged
                .extend(found.first.into_iter().map(|(job, finding)| Damaged {
                    job: job.to_string(),
                    folder: folder.path().to_owned(),
                    finding,
                    remedy: remedy(view, folder, &job),
                }));
        }
    }

    fn add(
        &mut self,
        id: &Arc<JobId>,
        job: &Job,
        lanes: &BTreeMap<u8, &Lane>,
        view: &View,
        now: Instant,
    ) {
        let turns: Vec<(Option<u8>, &Turn)> = match &job.step {
            Step::Look(turn) => vec![(None, turn)],
            Step::Store(wants) => wants
                .iter()
                .map(|want| (Some(want.stop.folder), &want.turn))
                .collect(),
        };
        let mut failed = false;
        for (folder, turn) in &turns {
            if let (true, Some(refusal), At::Due(due)) =
                (turn.has_failed(now), &turn.refusal, turn.at)
            {
                failed = true;
                if self.failed.len() < NAMES_MAX {
                    let path = folder.and_then(|folder| Some(view.location(folder)?.path()));
                    self.failed.push(Failed {
                        job: id.to_string(),
                        folder: path.map(ToOwned::to_owned),
                        why: refusal.failure.why.clone(),
                        tries: refusal.tries,
                        next_try: due.saturating_duration_since(now).as_secs_f64(),
                    });
                }
            }
        }
        self.failures += usize::from(failed);
        if !failed && !job.is_worked_on() && self.waiting.len() < NAMES_MAX {
            let refusal = turns.iter().find_map(|(_, turn)| turn.refusal.as_ref());
            let held = turns.iter().any(|(folder, turn)| {
                let lane = folder.and_then(|folder| lanes.get(&folder));
                lane.is_some_and(|lane| turn.at != At::Later && lane.refuses(view, now))
            });
            let (why, refused) = match (refusal, &job.step) {
                (_, Step::Store(_)) if held => ("its folder takes no job now", false),
                (Some(refusal), _) => (&*refusal.failure.why, true),
                (None, Step::Look(_)) => ("to be left alone for a while", false),
                (None, Step::Store(_)) => ("its turn", false),
            };
            self.waiting.push(Waiting {
                job: id.to_string(),
                why: why.to_owned(),
                refused,
            });
        }
    }
}

/// The folders that jobs are archived to.
fn archived_to(view: &View) -> impl Iterator<Item = &Location> {
    let folders = view.folders().iter().map(|folder| &**folder);
    folders.filter(|folder| folder.role() != Role::Folder(Mode::Use))
}

fn folder(lane: &Lane, scan: &Scan, view: &View, now: Instant) -> Folder {
    let location = view.location(lane.folder);
    let mode = location.map(|location| location.role());
    let under_way = lane.flight.as_ref().map(|flight| under_way(flight, now));
    let held = lane.hold.as_ref().filter(|_| lane.is_held(now));
    let refuses = match (why_absent(view, lane.folder), held) {
        (Some(why), _) => Some(Refuses {
            why,
            tries: 0,
            next_try: None,
        }),
        (None, Some(hold)) => Some(Refuses {
            why: hold.why.clone(),
            tries: hold.tries,
            next_try: Some(hold.until.saturating_duration_since(now).as_secs_f64()),
        }),
        (None, None) => None,
    };
    Folder {
        mode: match mode {
            Some(Role::Folder(Mode::Move)) => "move".to_owned(),
            _ => "backup".to_owned(),
        },
        path: location
            .map(|location| location.path().to_owned())
            .unwrap_or_default(),
        waiting: lane.waiting.len(),
        under_way,
        refuses,
        jobs: lane.counts.jobs,
        files: lane.counts.files,
        bytes: lane.counts.bytes,
        missing: scan.candidates,
        last_scan: scan.last.and_then(|last: SystemTime| {
            let since = last.duration_since(UNIX_EPOCH).ok()?;
            Some(since.as_secs_f64())
        }),
        trouble: match scan.hangs(now) {
            true => {
                location.map(|location| format!("{} does not answer", location.path().display()))
            }
            false => scan.trouble.clone(),
        },
    }
}

fn under_way(flight: &Flight, now: Instant) -> UnderWay {
    let (files, bytes) = (flight.progress.files(), flight.progress.bytes());
    // The total is unknown for jobs that grew since the last look, or whose copy was restarted.
    let expected = flight.progress.expected();
    let expected = expected.filter(|size| size.files >= files && size.bytes >= bytes);
    UnderWay {
        jobs: flight.jobs.iter().map(ToString::to_string).collect(),
        files,
        bytes,
        total: expected.map(|Size { files, bytes }| Total { files, bytes }),
        seconds: now.saturating_duration_since(flight.since).as_secs_f64(),
    }
}

/// Why a folder cannot be used, if so, by the cached state: this waits for no disk.
fn why_absent(view: &View, folder: u8) -> Option<String> {
    let error = view.location(folder)?.root().err()?;
    Some(match error {
        Errno::TIMEDOUT => "it does not answer".to_owned(),
        Errno::NOENT => "it is not there".to_owned(),
        Errno::NOTDIR => "it is not a directory".to_owned(),
        Errno::ACCESS | Errno::PERM => "it may not be opened: permission denied".to_owned(),
        error => format!("it cannot be opened: {error}"),
    })
}

impl Lane {
    /// Whether the folder accepts no job now.
    fn refuses(&self, view: &View, now: Instant) -> bool {
        !self.there || self.is_held(now) || why_absent(view, self.folder).is_some()
    }
}

/// Returns whether there is anything left to do; a copy that is damaged or missing, and is not made anew, keeps it from being
/// [`Idle::Yes`].
pub(super) fn idle(shared: &Shared, view: &View, now: Instant) -> Idle {
    match idle_queue(shared, view, now) {
        Idle::Yes if is_any_damaged(view) => Idle::Stuck { failed: 0 },
        idle => idle,
    }
}

fn is_any_damaged(view: &View) -> bool {
    archived_to(view).any(|folder| {
        state_dir::damaged(view.primary(), folder, 0).is_ok_and(|damaged| damaged.count > 0)
    })
}

/// As `idle`, by the queue and the scans only. Jobs that are only rechecked by routine do not count.
fn idle_queue(shared: &Shared, view: &View, now: Instant) -> Idle {
    let state = &*shared.state.lock();
    let is_there = |folder| why_absent(view, folder).is_none();
    let jobs = state.queue.jobs.values().filter(|job| !job.routine);
    let left = jobs.clone().count();
    let wanted = shared.wanted.load(Ordering::SeqCst);
    let scanning = state.scans.iter().any(|scan| {
        let hangs = scan.hangs(now);
        // A scan that stopped for lack of room goes on when jobs have been archived, if any can be.
        let full = scan.more && scan.since.is_none() && scan.asked == wanted;
        let known = scan.answered >= wanted || hangs || full;
        !known && is_there(scan.folder)
    });
    let comparing = state.scans.iter();
    let comparing = comparing
        .filter(|scan| scan.compared < wanted)
        .any(|scan| is_there(scan.folder));
    if scanning || shared.unheard.load(Ordering::SeqCst) > 0 {
        return Idle::Busy { left };
    }
    if comparing {
        // Jobs that are found wait for room, and for ever if none of the queued jobs can be archived.
        let mut all = state.queue.jobs.values();
        let stuck = state.queue.jobs.len() > MANY && all.all(|job| is_stuck(job, state, view, now));
        return match stuck {
            true => Idle::Stuck { failed: left },
            false => Idle::Busy { left },
        };
    }
    let mut stuck = jobs.map(|job| is_stuck(job, state, view, now));
    let unseen = |scan: &Scan| !is_there(scan.folder) || scan.hangs(now) || scan.trouble.is_some();
    let unseen = state.scans.iter().any(unseen);
    match (left, stuck.all(|stuck| stuck)) {
        (0, _) if unseen => Idle::Stuck { failed: 0 },
        (0, _) => Idle::Yes,
        (failed, true) => Idle::Stuck { failed },
        (left, false) => Idle::Busy { left },
    }
}

impl Scan {
    /// Whether the scan takes so long that callers should not wait for it.
    fn hangs(&self, now: Instant) -> bool {
        let long = |since| now.saturating_duration_since(since) > SCAN_MAX;
        self.since.is_some_and(long)
    }
}

/// Whether nothing can be done for a job now.
fn is_stuck(job: &Job, state: &State, view: &View, now: Instant) -> bool {
    let wants = match &job.step {
        Step::Look(turn) => return turn.has_failed(now),
        Step::Store(wants) => wants,
    };
    wants.iter().all(|want| {
        let lanes = &state.queue.lanes;
        let lane = lanes.iter().find(|lane| lane.folder == want.stop.folder);
        match want.turn.at {
            // The folder's thread waits for a reply of its disk.
            At::Now => why_absent(view, want.stop.folder).is_some(),
            At::Later => true,
            At::Due(_) => {
                want.turn.has_failed(now) || lane.is_none_or(|lane| lane.refuses(view, now))
            }
        }
    })
}
