//! Keeps the trash of a workspace in order: completes deletions in folders that are back, and removes what has expired.
//!
//! A thread for each location, since a folder may hang. Several daemons may do this at the same time, on any number of machines: all changes are
//! renames, of which one succeeds.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;

use super::env::{Env, Hooks};
use super::job::trash::list::{self, TrashCount};
use super::job::trash::{empty, finish};
use crate::settings::Mode;
use crate::sys::debug_setting;
use crate::sys::priority::lower_priority;
use crate::transfer::Progress;
use crate::view::View;
use crate::view::location::Role;

/// The time before the first pass: a mount begins without this work.
const START: Duration = Duration::from_secs(2);

/// How often deletions that are not complete are looked for.
const FINISH_INTERVAL: Duration = Duration::from_secs(10);

/// How often expired jobs are looked for.
const EXPIRE_INTERVAL: Duration = Duration::from_secs(3600);

/// By how much a test of a debug build divides these times.
fn divisor() -> u32 {
    debug_setting::divisor("XPMFS_TEST_TRASH_DIVISOR")
}

/// How many deleted jobs each location has, by its number, as of the last pass.
#[derive(Debug, Default)]
pub struct TrashCounts(Mutex<BTreeMap<u8, TrashCount>>);

impl TrashCounts {
    /// That of a location, unless it has none.
    #[must_use]
    pub fn of(&self, location: u8) -> Option<TrashCount> {
        let count = self.0.lock().get(&location).copied();
        count.filter(|count| *count != TrashCount::default())
    }
}

/// Starts the threads of a view. They end with it. A deleted job is kept for `keep`. Returns what they count.
pub fn start(view: &Arc<View>, keep: Duration, hooks: &Arc<dyn Hooks>) -> Arc<TrashCounts> {
    let counts = Arc::new(TrashCounts::default());
    for location in view.locations() {
        if location.role() == Role::Folder(Mode::Use) {
            continue;
        }
        let (view, hooks, index) = (Arc::downgrade(view), hooks.clone(), location.index());
        let thread = std::thread::Builder::new().name(format!("xpmfs-trash-{index}"));
        let counted = counts.clone();
        let spawned = thread.spawn(move || run(&view, index, keep, &*hooks, &counted));
        if let Err(error) = spawned {
            tracing::error!(
                "deleted jobs stay in the trash of {}: starting a thread failed: {error}",
                location.path().display()
            );
        }
    }
    counts
}

fn run(view: &Weak<View>, index: u8, keep: Duration, hooks: &dyn Hooks, counts: &TrashCounts) {
    lower_priority();
    std::thread::sleep(START / divisor());
    let mut expired: Option<SystemTime> = None;
    while let Some(view) = view.upgrade() {
        let progress = Progress::new();
        let env = Env {
            view: &view,
            hooks,
            progress: &progress,
            bandwidth: None,
            out: None,
            settle: Duration::ZERO,
            threads: 1,
            force: false,
        };
        let Some(location) = view.location(index) else {
            return;
        };
        match location.role() {
            Role::Primary => finish::interrupted(&env),
            Role::Folder(_) => drop(finish::in_folder(&env, location)),
        }
        // Not by a monotonic clock, which stands still while the machine is suspended.
        let now = SystemTime::now();
        let is_due = expired.is_none_or(|last| {
            now.duration_since(last)
                .is_ok_and(|passed| passed >= EXPIRE_INTERVAL / divisor())
        });
        if is_due && location.root().is_ok() {
            expired = Some(now);
            let (count, first) = empty::expire(location, keep, &|| true);
            if count > 0 {
                tracing::info!(
                    "{count} deleted jobs were removed from the trash of {}",
                    location.path().display()
                );
            }
            if let Err(error) = first {
                // For instance jobs of another user, which that user's own mounts remove.
                tracing::debug!(
                    "cannot empty the trash of {}: {error}",
                    location.path().display()
                );
            }
        }
        counts
            .0
            .lock()
            .insert(index, list::count(view.primary(), location));
        drop(view);
        std::thread::sleep(FINISH_INTERVAL / divisor());
    }
}
