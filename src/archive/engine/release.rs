//! Releases jobs by the rule of the settings: `xpmfs.release`.
//!
//! While there is enough free space and nothing is too old, only the free space is queried. A search looks at every file of every
//! finished job in the primary, so it runs hourly at most; while space is short and the last search could free enough, every ten
//! minutes.

use std::collections::HashMap;
use std::sync::LazyLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crossbeam_channel::{Receiver, RecvTimeoutError};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::archive::env::Env;
use crate::archive::release_rules::{Event, lacking, release_by_rule};
use crate::settings::Release;
use crate::transfer::Progress;
use crate::workspace::JobId;

/// How often the free space is queried, and how long after the start it is queried first.
const SPACE_CHECK_INTERVAL: Duration = Duration::from_secs(60);

/// The shortest time between two searches.
const SEARCH_INTERVAL: Duration = Duration::from_secs(3600);

/// The same, while space is short and the last search found enough jobs to release.
const SHORT_INTERVAL: Duration = Duration::from_secs(600);

/// How long a search pauses after each job, so that other programs get the disk.
const PAUSE: Duration = Duration::from_millis(1);

/// The most reasons that are counted.
const REASONS_MAX: usize = 20;

/// By how much a test of a debug build divides these times.
fn divisor() -> u32 {
    static SET: LazyLock<Option<u32>> = LazyLock::new(|| {
        std::env::var("XPMFS_TEST_RELEASE_DIVISOR")
            .ok()?
            .parse()
            .ok()
    });
    SET.filter(|_| cfg!(debug_assertions)).unwrap_or(1).max(1)
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
    /// When the last search ended, in seconds since 1970.
    pub last_search: Option<f64>,
    /// When the last job was released, in seconds since 1970.
    pub last_release: Option<f64>,
    /// Jobs that were released since the start.
    pub jobs: u64,
    /// The bytes that this freed.
    pub freed: u64,
    /// The jobs that the last search would have released and kept.
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

/// Releases jobs until the engine stops.
pub(super) fn run(env: &Env<'_>, rule: Release, state: &ReleaseState, end: &Receiver<()>) {
    if rule == Release::default() {
        return;
    }
    *state.report.lock() = Some(ReleaseReport {
        older_than: rule.older_than.map(|age| age.as_secs_f64()),
        ..ReleaseReport::default()
    });
    let mut searched: Option<(Instant, bool)> = None;
    while end.recv_timeout(SPACE_CHECK_INTERVAL / divisor()) == Err(RecvTimeoutError::Timeout) {
        let lacks = match look(env, rule, state) {
            Ok(lacks) => lacks,
            Err(error) => {
                tracing::warn!("cannot query the free space of the primary: {error}");
                continue;
            }
        };
        let due = match searched {
            None => lacks > 0 || rule.older_than.is_some(),
            Some((at, enough)) => {
                let short = lacks > 0 && enough;
                let interval = if short {
                    SHORT_INTERVAL
                } else {
                    SEARCH_INTERVAL
                };
                (lacks > 0 || rule.older_than.is_some()) && at.elapsed() >= interval / divisor()
            }
        };
        if due {
            let enough = search(env, rule, state);
            searched = Some((Instant::now(), enough));
        }
    }
}

/// Queries the free space for the report; returns the missing bytes.
fn look(env: &Env<'_>, rule: Release, state: &ReleaseState) -> rustix::io::Result<u64> {
    let Some(wanted) = rule.keep_free else {
        return Ok(0);
    };
    let space = rustix::fs::fstatvfs(env.view.primary().root()?.fd())?;
    let total = space.f_blocks.saturating_mul(space.f_frsize);
    let lacks = lacking(env, rule)?;
    if let Some(report) = &mut *state.report.lock() {
        report.keep_free = Some(wanted.of(total));
        report.lacking = Some(lacks);
    }
    Ok(lacks)
}

/// Releases jobs by the rule once; returns whether there is enough free space then.
fn search(env: &Env<'_>, rule: Release, state: &ReleaseState) -> bool {
    let update = |change: &dyn Fn(&mut ReleaseReport)| {
        if let Some(report) = &mut *state.report.lock() {
            change(report);
        }
    };
    update(&|report| report.searching = true);
    let mut reasons: HashMap<String, u64> = HashMap::new();
    let mut kept = 0;
    let mut note = |job: &JobId, event: Event| match event {
        Event::Released(released) => {
            let freed = released.usage.freed;
            tracing::info!("released {job}: {freed} bytes freed");
            update(&|report| {
                report.jobs += 1;
                report.freed = report.freed.saturating_add(freed);
                report.last_release = Some(now());
            });
        }
        Event::Refused(refusal) => {
            tracing::debug!("{job} is not released: {}", refusal.why);
            kept += 1;
            add(&mut reasons, refusal.reason.describe());
        }
        Event::Failed(error) if error.is_cancelled() => {}
        Event::Failed(error) => {
            tracing::warn!("cannot release {error}");
            kept += 1;
            add(&mut reasons, "an error, which the log has");
        }
        Event::Would(_) => {}
    };
    let pause = || std::thread::sleep(PAUSE / divisor());
    let enough = release_by_rule(env, rule, true, &pause, &mut note);
    let enough = enough.unwrap_or_else(|error| {
        tracing::warn!("cannot look for jobs to release: {error}");
        false
    });
    let most = reasons.into_iter().max_by_key(|(_, count)| *count);
    let why = most.map(|(why, _)| why);
    update(&|report| {
        report.searching = false;
        report.last_search = Some(now());
        report.kept = kept;
        report.why.clone_from(&why);
    });
    if let Ok(lacks) = look(env, rule, state)
        && lacks > 0
        && !env.progress.is_cancelled()
    {
        tracing::warn!(
            "{lacks} bytes less are free than `release.keep_free` asks for, and no other job can be released"
        );
    }
    enough
}

fn add(reasons: &mut HashMap<String, u64>, why: &str) {
    if let Some(count) = reasons.get_mut(why) {
        *count += 1;
    } else if reasons.len() < REASONS_MAX {
        reasons.insert(why.to_owned(), 1);
    }
}

fn now() -> f64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.unwrap_or_default().as_secs_f64()
}
