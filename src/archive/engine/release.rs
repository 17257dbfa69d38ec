//! Releases jobs by the rule of the settings: `xpmfs.release`.
//!
//! 1. While there is enough free space and nothing is too old, only the free space is queried.
//! 2. A search looks at every file of every finished job in the primary, so it runs hourly at most. While space is short, and the
//!    last search could free enough or jobs were archived since, it runs every ten minutes.
//! 3. One process of the workspace searches at a time, and the others count its search as their own (`turn`): no job is verified
//!    or released twice.
//! 4. A job whose release failed is skipped for longer each time: verifying it again reads all of its copy.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read as _, Seek as _, Write as _};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crossbeam_channel::{Receiver, RecvTimeoutError};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::archive::env::Env;
use crate::archive::job::release::{Reason, offline};
use crate::archive::releases::{ReleaseEvent, ReleaseSearch, release_by_rule, space_by_rule};
use crate::archive::retries::Retries;
use crate::archive::turn;
use crate::settings::Release;
use crate::sys::debug_setting;
use crate::transfer::Progress;
use crate::workspace::JobId;

/// The file of `turn` that the searching process has locked.
const FILE_NAME: &str = "release-search";

/// How often the free space is queried, and how long after the start it is queried first.
const SPACE_CHECK_INTERVAL: Duration = Duration::from_secs(60);

/// The shortest time between two searches.
const SEARCH_INTERVAL: Duration = Duration::from_secs(3600);

/// The same, while space is short, and the last search could free enough or jobs were archived since.
const SHORT_INTERVAL: Duration = Duration::from_secs(600);

/// How long a job is skipped after its first failure, and at most.
const RETRY_AFTER: Duration = Duration::from_secs(2 * 3600);
const RETRY_AFTER_MAX: Duration = Duration::from_secs(24 * 3600);

/// How long a search pauses after each job, so that other programs get the disk.
const PAUSE: Duration = Duration::from_millis(1);

/// By how much a test of a debug build divides these times.
fn divisor() -> u32 {
    debug_setting::divisor("XPMFS_TEST_RELEASE_DIVISOR")
}

/// The state of automatic releases, for `status`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ReleaseReport {
    /// The bytes that are to be kept free, if any.
    pub keep_free: Option<u64>,
    /// The bytes that are missing for that.
    pub lacking: Option<u64>,
    /// The age from which jobs are released, in seconds, if any.
    pub older_than: Option<f64>,
    /// Whether a search is running.
    pub searching: bool,
    /// Why there is no search although one is due, if so.
    #[serde(default)]
    pub waits: Option<String>,
    /// When the last search ended, in seconds since 1970.
    pub last_search: Option<f64>,
    /// When the last job was released, in seconds since 1970.
    pub last_release: Option<f64>,
    /// That job, as `task_id/hash`.
    #[serde(default)]
    pub last_job: Option<String>,
    /// Jobs that were released since the start.
    pub jobs: u64,
    /// The bytes that this freed.
    pub freed: u64,
    /// Whether there was enough free space after the last search.
    #[serde(default)]
    pub enough: bool,
    /// The jobs that the rule selected in the last search, and that stayed.
    pub kept: u64,
    /// The most frequent reason for these.
    pub why: Option<String>,
}

/// What the thread that releases jobs shares with the others.
#[derive(Debug, Default)]
pub(super) struct ReleaseState {
    /// Cancels the releases.
    pub(super) progress: Progress,
    /// `None` without a rule.
    pub(super) report: Mutex<Option<ReleaseReport>>,
}

impl ReleaseState {
    fn update(&self, change: impl FnOnce(&mut ReleaseReport)) {
        if let Some(report) = &mut *self.report.lock() {
            change(report);
        }
    }
}

/// The last search of this process.
struct LastSearch {
    at: Instant,
    /// Whether there was enough free space then.
    enough: bool,
    /// How many jobs had been archived before.
    archived: u64,
}

/// Releases jobs until the engine stops. `archived` counts the jobs that were archived.
pub(super) fn run(
    env: &Env<'_>,
    rule: Release,
    archived: &AtomicU64,
    state: &ReleaseState,
    end: &Receiver<()>,
) {
    if rule == Release::default() {
        return;
    }
    *state.report.lock() = Some(ReleaseReport {
        older_than: rule.older_than.map(|age| age.as_secs_f64()),
        ..ReleaseReport::default()
    });
    let mut last: Option<LastSearch> = None;
    let mut retries = Retries::new(RETRY_AFTER, RETRY_AFTER_MAX);
    let mut is_unknown = false;
    while end.recv_timeout(SPACE_CHECK_INTERVAL / divisor()) == Err(RecvTimeoutError::Timeout) {
        let lacking = match query_space(env, rule, state) {
            Ok(lacking) => lacking,
            Err(error) => {
                if !std::mem::replace(&mut is_unknown, true) {
                    tracing::warn!("cannot query the free space of the primary: {error}");
                }
                continue;
            }
        };
        is_unknown = false;
        let may_find = last
            .as_ref()
            .is_none_or(|last| last.enough || archived.load(Ordering::Relaxed) != last.archived);
        let interval = match lacking > 0 && may_find {
            true => SHORT_INTERVAL,
            false => SEARCH_INTERVAL,
        } / divisor();
        let is_due = (lacking > 0 || rule.older_than.is_some())
            && last
                .as_ref()
                .is_none_or(|last| last.at.elapsed() >= interval);
        if !is_due {
            state.update(|report| report.waits = None);
            continue;
        }
        match begin(env, rule, interval) {
            Ok(turn) => {
                let archived = archived.load(Ordering::Relaxed);
                let enough = search(env, rule, state, &mut retries);
                turn.end(rule);
                let at = Instant::now();
                last = Some(LastSearch {
                    at,
                    enough,
                    archived,
                });
            }
            Err(waits) => state.update(|report| report.waits = waits),
        }
    }
}

/// The search of this process; the other processes of the workspace make none until this is dropped.
struct Turn(Option<File>);

impl Turn {
    fn end(self, rule: Release) {
        if let Turn(Some(mut file)) = self {
            let written = file
                .rewind()
                .and_then(|()| file.set_len(0))
                .and_then(|()| write!(file, "{rule:?}"));
            if let Err(error) = written {
                tracing::debug!("cannot record the rule of the last search: {error}");
            }
            turn::record(&file);
        }
    }
}

/// Begins a search, or returns why there is none now; `None` if another process has just made one by the same rule.
fn begin(env: &Env<'_>, rule: Release, interval: Duration) -> Result<Turn, Option<String>> {
    if let Some(offline) = offline(env) {
        return Err(Some(offline));
    }
    let mut file = match turn::file(env.view, FILE_NAME) {
        Ok(file) => file,
        Err(error) => {
            tracing::debug!("several processes may search for jobs to release: {error}");
            return Ok(Turn(None));
        }
    };
    if !turn::lock(&file) {
        return Err(Some("another process of the workspace searches".to_owned()));
    }
    let mut text = String::new();
    // A file that cannot be read is of another rule.
    let _ = (&mut file).take(RULE_MAX).read_to_string(&mut text);
    match text == format!("{rule:?}") && !turn::is_due(&file, interval) {
        true => Err(None),
        false => Ok(Turn(Some(file))),
    }
}

/// The most bytes that are read of a recorded rule.
const RULE_MAX: u64 = 1024;

/// Queries the free space for the report; returns the missing bytes.
fn query_space(env: &Env<'_>, rule: Release, state: &ReleaseState) -> rustix::io::Result<u64> {
    let Some(space) = space_by_rule(env.view, rule)? else {
        return Ok(0);
    };
    state.update(|report| {
        report.keep_free = Some(space.wanted);
        report.lacking = Some(space.lacking());
    });
    Ok(space.lacking())
}

/// Releases jobs by the rule once; returns whether there is enough free space then.
fn search(env: &Env<'_>, rule: Release, state: &ReleaseState, retries: &mut Retries) -> bool {
    state.update(|report| (report.searching, report.waits) = (true, None));
    let mut reasons: BTreeMap<&'static str, u64> = BTreeMap::new();
    let retries_before = retries.clone();
    let mut note = |job: &JobId, event: ReleaseEvent| match event {
        ReleaseEvent::Released(released) => {
            let freed = released.usage.freed;
            tracing::info!("released {job}: {freed} bytes freed");
            retries.forget(job);
            state.update(|report| {
                report.jobs += 1;
                report.freed = report.freed.saturating_add(freed);
                report.last_release = Some(now());
                report.last_job = Some(job.to_string());
            });
        }
        ReleaseEvent::Refused(refusal) => {
            tracing::debug!("{job} is not released: {}", refusal.why);
            if matches!(refusal.reason, Reason::Damaged | Reason::Unsafe) {
                retries.failed(job, Instant::now());
            }
            *reasons.entry(refusal.reason.describe()).or_default() += 1;
        }
        ReleaseEvent::Failed(error) if error.is_cancelled() => {}
        ReleaseEvent::Failed(error) => {
            tracing::warn!("cannot release {error}");
            retries.failed(job, Instant::now());
            *reasons.entry("an error, which the log has").or_default() += 1;
        }
        ReleaseEvent::Skipped => {
            *reasons
                .entry("it failed before, and is retried later")
                .or_default() += 1
        }
        ReleaseEvent::Would(_) => {}
    };
    let search = ReleaseSearch {
        pause: &|| std::thread::sleep(PAUSE / divisor()),
        skips: &|job| retries_before.is_waiting(job, Instant::now()),
        ..ReleaseSearch::of(rule)
    };
    let enough = release_by_rule(env, search, true, &mut note).unwrap_or_else(|error| {
        tracing::warn!("cannot search for jobs to release: {error}");
        false
    });
    let kept = reasons.values().sum();
    let most = reasons.into_iter().max_by_key(|(_, count)| *count);
    state.update(|report| {
        report.searching = false;
        report.last_search = Some(now());
        report.enough = enough;
        report.kept = kept;
        report.why = most.map(|(why, _)| why.to_owned());
    });
    let lacking = query_space(env, rule, state).unwrap_or_default();
    if lacking > 0 && !enough && !env.progress.is_cancelled() {
        tracing::warn!(
            "{lacking} bytes less are free than `release.keep_free` asks for, and no other job can be released"
        );
    }
    enough
}

fn now() -> f64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.unwrap_or_default().as_secs_f64()
}
