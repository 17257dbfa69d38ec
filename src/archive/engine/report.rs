//! Reports the state of archiving, for `status`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::experiments::state::ExperimentsReport;
use super::queue::folder_queue::{FolderQueue, InProgress};
use super::queue::{At, QueuedJob, Step, Turn};
use super::refusals::Refusals;
use super::release::ReleaseReport;
use super::shared::{FolderScans, Shared};
use super::verify_records::{DamagedCopy, VerifiedFolder, VerifyRecords};
use crate::settings::Mode;
use crate::transfer::Size;
use crate::view::View;
use crate::view::location::{Role, explain};
use crate::workspace::JobId;

/// The most jobs of each kind that a report lists by name.
pub const NAMES_MAX: usize = 100;

/// The state of archiving.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Report {
    /// How many jobs are queued, including those being copied and those that failed.
    pub queued: usize,
    /// Jobs that wait, and have not failed: the first few.
    pub waiting: Vec<WaitingJob>,
    /// The waiting jobs that were refused for now, for each reason.
    #[serde(default)]
    pub refusals: Refusals,
    /// Jobs that failed: the first few.
    pub failed: Vec<FailedJob>,
    /// How many jobs have failed in all.
    pub failures: usize,
    /// Copies that `verify` found damaged or missing: the first few.
    #[serde(default)]
    pub damaged: Vec<DamagedCopy>,
    /// How many copies are damaged or missing in all.
    #[serde(default)]
    pub damages: usize,
    /// When all copies of each folder were verified last, of those that have been.
    #[serde(default)]
    pub verified: Vec<VerifiedFolder>,
    /// The state of each `backup` and `move` folder.
    pub folders: Vec<FolderReport>,
    /// The runs of experiments and the partials, for each `backup` folder.
    #[serde(default)]
    pub experiments: Vec<ExperimentsReport>,
    /// The state of automatic releases, if the settings have a rule.
    #[serde(default)]
    pub release: Option<ReleaseReport>,
    /// Why the queued jobs are not in the journal, if so: a restart finds them again nonetheless.
    pub journal: Option<String>,
}

/// A job that waits.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct WaitingJob {
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
pub struct FailedJob {
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

/// The state of a folder.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FolderReport {
    /// `backup` or `move`.
    pub mode: String,
    /// Its directory.
    pub path: PathBuf,
    /// How many jobs wait for it.
    pub waiting: usize,
    /// What is being copied to it.
    pub under_way: Option<CopyInProgress>,
    /// Why the folder accepts no job, if so.
    pub refuses: Option<FolderRefusal>,
    /// Jobs that were copied to it since the start.
    pub jobs: u64,
    /// Files of these.
    pub files: u64,
    /// Bytes of these.
    pub bytes: u64,
    /// Jobs that are in the primary and not in the folder, finished or not, as of the last scan.
    pub missing: usize,
    /// Moved jobs that it does not have, and that are still to be copied to it from their `move` folder; without those that failed.
    #[serde(default)]
    pub moved_missing: usize,
    /// When the primary was last compared with the folder, in seconds since 1970.
    pub last_scan: Option<f64>,
    /// Which paths the last scan could not read.
    pub trouble: Option<String>,
}

/// What is being copied.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CopyInProgress {
    /// The jobs, which go together: `task_id/hash`.
    pub jobs: Vec<String>,
    /// Files that are done.
    pub files: u64,
    /// Bytes that are done.
    pub bytes: u64,
    /// The total amount, if it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total: Option<Total>,
    /// The time since the copy began, in seconds.
    pub seconds: f64,
}

/// The amount to copy, of jobs that the folder does not have yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Total {
    /// Files.
    pub files: u64,
    /// Bytes of these.
    pub bytes: u64,
}

/// Why and until when a folder accepts no job.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FolderRefusal {
    /// Why.
    pub why: String,
    /// How often in a row it was tried.
    pub tries: u32,
    /// When it is tried again, in seconds from now; if `None`, as soon as the folder is there.
    pub next_try: Option<f64>,
}

/// Returns the state of archiving.
pub(super) fn report(shared: &Shared, view: &View, now: Instant) -> Report {
    let mut report = queued(shared, view, now);
    report.release = shared.release.report.lock().clone();
    report.add_verify_records(view);
    report
}

/// The copies that are on record as damaged or missing, of a workspace that no process archives now.
#[must_use]
pub fn damaged(view: &View) -> Report {
    let mut report = Report::default();
    report.add_verify_records(view);
    report
}

/// The copies that folders have lost since a mount recorded them, of such a workspace. Asks the folders' disks, without a limit.
#[must_use]
pub fn lost_copies(view: &View) -> Report {
    let mut records = VerifyRecords::default();
    records.add_lost(view, NAMES_MAX);
    for (path, why) in records.unread {
        tracing::warn!("{}: {why}", path.display());
    }
    Report {
        damaged: records.damaged,
        damages: records.damages,
        ..Report::default()
    }
}

/// The report of the queue and the scans.
fn queued(shared: &Shared, view: &View, now: Instant) -> Report {
    let state = &*shared.state.lock();
    let mut report = Report {
        queued: state.queue.jobs.len(),
        journal: state.journal.clone(),
        ..Report::default()
    };
    let folder_queues: BTreeMap<u8, &FolderQueue> = state
        .queue
        .folder_queues
        .iter()
        .map(|folder_queue| (folder_queue.folder, folder_queue))
        .collect();
    for (id, job) in &state.queue.jobs {
        report.add(id, job, &folder_queues, view, now);
    }
    let scans = state.scans.iter();
    report.folders = scans
        .filter_map(|scan| Some(folder(folder_queues.get(&scan.folder)?, scan, view, now)))
        .collect();
    let experiments = shared.experiments.lock();
    let experiments = experiments.iter();
    report.experiments = experiments
        .filter_map(|state| state.report(view, now))
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

    /// Adds what `verify` recorded.
    fn add_verify_records(&mut self, view: &View) {
        let recorded = VerifyRecords::read(view, NAMES_MAX);
        self.damaged = recorded.damaged;
        self.damages = recorded.damages;
        self.verified = recorded.verified;
        for (path, why) in recorded.unread {
            let mut reports = self.folders.iter_mut();
            match reports.find(|report| report.path == path) {
                Some(report) => drop(report.trouble.get_or_insert(why)),
                None => tracing::warn!("{why}"),
            }
        }
    }

    fn add(
        &mut self,
        id: &Arc<JobId>,
        job: &QueuedJob,
        folder_queues: &BTreeMap<u8, &FolderQueue>,
        view: &View,
        now: Instant,
    ) {
        let turns: Vec<(Option<u8>, &Turn)> = match &job.step {
            Step::Look(turn) => vec![(None, turn)],
            Step::Store(wants) => wants
                .iter()
                .map(|want| (Some(want.destination.folder), &want.turn))
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
                    self.failed.push(FailedJob {
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
        if !failed && !job.is_worked_on() {
            let refusal = turns.iter().find_map(|(_, turn)| turn.refusal.as_ref());
            let held = turns.iter().any(|(folder, turn)| {
                let folder_queue = folder.and_then(|folder| folder_queues.get(&folder));
                folder_queue.is_some_and(|folder_queue| {
                    turn.at != At::Later && folder_queue.refuses(view, now)
                })
            });
            let (why, refused) = match (refusal, &job.step) {
                (_, Step::Store(_)) if held => ("its folder accepts no job now", false),
                (Some(refusal), _) => (&*refusal.failure.why, true),
                (None, Step::Look(_)) => ("settling", false),
                (None, Step::Store(_)) => ("queued", false),
            };
            self.add_waiting(id, why, refused);
        }
    }

    /// Adds a job that waits, and has not failed.
    pub(super) fn add_waiting(&mut self, job: &JobId, why: &str, refused: bool) {
        if refused {
            self.refusals.add(job, why);
        }
        if self.waiting.len() < NAMES_MAX {
            self.waiting.push(WaitingJob {
                job: job.to_string(),
                why: why.to_owned(),
                refused,
            });
        }
    }
}

fn folder(
    folder_queue: &FolderQueue,
    scan: &FolderScans,
    view: &View,
    now: Instant,
) -> FolderReport {
    let location = view.location(folder_queue.folder);
    let mode = location.map(|location| location.role());
    let under_way = folder_queue
        .in_progress
        .as_ref()
        .map(|in_progress| under_way(in_progress, now));
    let held = folder_queue
        .hold
        .as_ref()
        .filter(|_| folder_queue.is_held(now));
    let refuses = match (why_absent(view, folder_queue.folder), held) {
        (Some(why), _) => Some(FolderRefusal {
            why,
            tries: 0,
            next_try: None,
        }),
        (None, Some(hold)) => Some(FolderRefusal {
            why: hold.why.clone(),
            tries: hold.tries,
            next_try: Some(hold.until.saturating_duration_since(now).as_secs_f64()),
        }),
        (None, None) => None,
    };
    FolderReport {
        mode: match mode {
            Some(Role::Folder(Mode::Move)) => "move".to_owned(),
            _ => "backup".to_owned(),
        },
        path: location
            .map(|location| location.path().to_owned())
            .unwrap_or_default(),
        waiting: folder_queue.waiting.len(),
        under_way,
        refuses,
        jobs: folder_queue.counts.jobs,
        files: folder_queue.counts.files,
        bytes: folder_queue.counts.bytes,
        missing: scan.candidates,
        moved_missing: 0,
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

fn under_way(in_progress: &InProgress, now: Instant) -> CopyInProgress {
    let (files, bytes) = (in_progress.progress.files(), in_progress.progress.bytes());
    // The total is unknown for jobs that grew since the last look, or whose copy was restarted.
    let expected = in_progress.progress.expected();
    let expected = expected.filter(|size| size.files >= files && size.bytes >= bytes);
    CopyInProgress {
        jobs: in_progress.jobs.iter().map(ToString::to_string).collect(),
        files,
        bytes,
        total: expected.map(|Size { files, bytes }| Total { files, bytes }),
        seconds: now
            .saturating_duration_since(in_progress.since)
            .as_secs_f64(),
    }
}

/// Why a folder cannot be used, if so, by the cached state: this waits for no disk.
pub(super) fn why_absent(view: &View, folder: u8) -> Option<String> {
    let error = view.location(folder)?.root().err()?;
    Some(match error {
        Errno::TIMEDOUT => "it does not answer".to_owned(),
        Errno::NOENT => "the folder is missing".to_owned(),
        Errno::NOTDIR => "it is not a directory".to_owned(),
        Errno::ACCESS | Errno::PERM => "it may not be opened: permission denied".to_owned(),
        error => format!("it cannot be used: {}", explain(error)),
    })
}

impl FolderQueue {
    /// Whether the folder accepts no job now.
    pub(super) fn refuses(&self, view: &View, now: Instant) -> bool {
        !self.there || self.is_held(now) || why_absent(view, self.folder).is_some()
    }
}
