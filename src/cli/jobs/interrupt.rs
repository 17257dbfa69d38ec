//! Ends a command in order at the first Ctrl-C: it removes its unfinished copies. The second Ctrl-C ends the command at once, and
//! names the unfinished copies that remain.

use std::collections::{HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::{Handle, Signals};

use super::session::Session;
use crate::cli::front::{self, Handled, SAME_SIGNAL};
use crate::cli::print;
use crate::sys::at;
use crate::sys::deadline::within;
use crate::transfer::{Progress, staging};
use crate::view::{Location, Root};
use crate::workspace::jobs::JobId;
use crate::workspace::layout::{JOBS, STAGING_PREFIX};

/// How long the search for unfinished copies may take; those found by then are named.
const SEARCH_TIMEOUT: Duration = Duration::from_secs(2);

/// The most unfinished copies that are named.
const NAMED_MAX: usize = 5;

/// The directories in which a command makes copies, and of which jobs.
#[derive(Debug, Clone, Default)]
pub(in crate::cli) struct Destinations {
    roots: Vec<(PathBuf, Arc<Root>)>,
    jobs: Arc<Vec<JobId>>,
}

impl Destinations {
    /// Those of these locations that can be opened.
    pub(in crate::cli) fn of<'a>(
        locations: impl IntoIterator<Item = &'a Location>,
        jobs: &Arc<Vec<JobId>>,
    ) -> Destinations {
        let opened = locations.into_iter().filter_map(|location| {
            let root = location.root().ok()?;
            Some((location.path().join(JOBS), root))
        });
        Destinations {
            roots: opened.collect(),
            jobs: jobs.clone(),
        }
    }

    /// Lists the unfinished copies of the jobs.
    fn unfinished(&self) -> Vec<PathBuf> {
        let mut tasks: HashMap<&OsStr, HashSet<&OsStr>> = HashMap::new();
        for job in self.jobs.iter() {
            tasks.entry(job.task_id()).or_default().insert(job.hash());
        }
        let mut found = Vec::new();
        for (path, root) in &self.roots {
            for (task, hashes) in &tasks {
                let Ok(directory) = root.task(task) else {
                    continue;
                };
                let left = staging::leftovers(&*directory).unwrap_or_default();
                for hash in left.iter().filter(|hash| hashes.contains(hash.as_os_str())) {
                    let mut name = OsString::from(STAGING_PREFIX);
                    name.push(hash);
                    // Some have left a lock file only.
                    if at::stat(&*directory, &name).is_ok() {
                        found.push(path.join(task).join(name));
                    }
                }
            }
        }
        found.sort_unstable();
        found
    }

    /// Describes the unfinished copies that remain, and how to remove them.
    pub(in crate::cli) fn describe(self) -> Vec<String> {
        let Some(found) = within(SEARCH_TIMEOUT, move || self.unfinished()) else {
            return vec![
                "unfinished copies may remain; the same command removes them and continues, a mount does too"
                    .to_owned(),
            ];
        };
        let mut lines = match found.len() {
            0 => return vec!["no unfinished copies remain; the same command continues".to_owned()],
            1 => vec!["1 unfinished copy remains; the same command removes it and continues, a mount does too".to_owned()],
            count => vec![format!(
                "{count} unfinished copies remain; the same command removes them and continues, a mount does too"
            )],
        };
        let named = found.iter().take(NAMED_MAX);
        lines.extend(named.map(|path| format!("  {}", path.display())));
        if let Some(more @ 1..) = found.len().checked_sub(NAMED_MAX) {
            lines.push(format!("  and {more} more"));
        }
        lines
    }
}

/// Cancels the progress of a command at the first SIGINT or SIGTERM, until it is dropped.
pub(in crate::cli) struct Interrupt {
    came: Arc<AtomicBool>,
    handle: Option<Handle>,
    thread: Option<JoinHandle<()>>,
    /// Keeps the default handling of the signals off.
    _handled: Option<Handled>,
}

impl Interrupt {
    /// Handles the signals from now on. Where that fails, they end the command at once.
    pub(in crate::cli) fn cancels(session: &Session, destinations: Destinations) -> Interrupt {
        Interrupt::of(&session.progress, destinations)
    }

    /// As [`Interrupt::cancels`], for the progress of a command on several workspaces.
    pub(in crate::cli) fn of(progress: &Arc<Progress>, destinations: Destinations) -> Interrupt {
        let came = Arc::new(AtomicBool::new(false));
        let (seen, progress) = (came.clone(), progress.clone());
        let Ok(mut signals) = Signals::new([SIGINT, SIGTERM]) else {
            return Interrupt {
                came,
                handle: None,
                thread: None,
                _handled: None,
            };
        };
        let handle = signals.handle();
        let thread = std::thread::Builder::new().name("xpmfs-signals".to_owned());
        let thread = thread.spawn(move || {
            let copies = !destinations.roots.is_empty();
            let mut destinations = Some(destinations);
            let mut first = None;
            for signal in signals.forever() {
                if seen.swap(true, Ordering::SeqCst) {
                    if first.is_some_and(|first: Instant| first.elapsed() < SAME_SIGNAL) {
                        continue;
                    }
                    let left = destinations.take().filter(|_| copies);
                    for line in left.map(Destinations::describe).unwrap_or_default() {
                        print::line(&line);
                    }
                    front::end_by(signal);
                }
                first = Some(Instant::now());
                progress.cancel();
                print::line(match copies {
                    true => "interrupted: removing unfinished copies; a second Ctrl-C leaves them to the next start",
                    false => "interrupted: ending; a second Ctrl-C ends at once",
                });
            }
        });
        Interrupt {
            came,
            handle: Some(handle),
            _handled: thread.is_ok().then(Handled::new),
            thread: thread.ok(),
        }
    }

    /// Whether a signal came.
    pub(in crate::cli) fn came(&self) -> bool {
        self.came.load(Ordering::SeqCst)
    }
}

impl Drop for Interrupt {
    fn drop(&mut self) {
        if let Some(handle) = &self.handle {
            handle.close();
        }
        if let Some(thread) = self.thread.take() {
            // A panic in it would not concern the command.
            let _ = thread.join();
        }
    }
}
