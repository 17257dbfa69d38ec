//! Shows the progress of a command on a terminal's standard error: bytes, total, rate and time left.

use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use indicatif::{HumanBytes, HumanDuration, ProgressBar, ProgressState, ProgressStyle};

use crate::cli::{Global, print};
use crate::transfer::{Progress, Size};
use crate::workspace::jobs::JobId;

/// How often the line is drawn.
const TICK: Duration = Duration::from_millis(100);

/// The line where the total amount is known.
const WITH_TOTAL: &str = "{bytes} of {total_bytes}, {rate}, {left}, {msg} {wide_bar}";

/// The line where it is not.
const WITHOUT_TOTAL: &str = "{spinner} {bytes}, {rate}, {msg}";

/// A line with the progress of a command.
pub(in crate::cli) struct Meter {
    bar: ProgressBar,
    progress: Arc<Progress>,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// What the thread that draws reads.
#[derive(Debug, Default)]
struct Shared {
    done: AtomicU64,
    jobs: AtomicU64,
    /// Whether the total amount is still being measured.
    measuring: AtomicBool,
    over: AtomicBool,
}

impl Shared {
    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }
}

impl Meter {
    /// Shows the progress of so many jobs; hidden with `--quiet`, and if standard error is not a terminal.
    pub(in crate::cli) fn new(jobs: usize, progress: &Arc<Progress>, global: &Global) -> Meter {
        let shared = Arc::new(Shared::default());
        shared.jobs.store(jobs as u64, Ordering::Relaxed);
        let visible = !global.quiet && std::io::stderr().is_terminal();
        let bar = match visible {
            true => ProgressBar::new(0),
            false => ProgressBar::hidden(),
        };
        let draw = {
            let (bar, progress, shared) = (bar.clone(), progress.clone(), shared.clone());
            move || draw(&bar, &progress, &shared)
        };
        Meter {
            bar,
            progress: progress.clone(),
            shared,
            // Without a thread, the line is not drawn.
            thread: visible
                .then(|| std::thread::Builder::new().spawn(draw).ok())
                .flatten(),
        }
    }

    /// Runs `work` while a thread adds up the sizes of jobs, if the progress is visible.
    pub(in crate::cli) fn measured<T>(
        &self,
        jobs: &[JobId],
        size: impl Fn(&JobId) -> Size + Sync,
        work: impl FnOnce() -> T,
    ) -> T {
        if self.thread.is_none() {
            return work();
        }
        self.shared.measuring.store(true, Ordering::Relaxed);
        let working = AtomicBool::new(true);
        std::thread::scope(|scope| {
            let measure = || {
                for job in jobs {
                    if !working.load(Ordering::Relaxed) {
                        return;
                    }
                    self.progress.expect_more(size(job));
                }
                self.shared.measuring.store(false, Ordering::Relaxed);
            };
            // Without a thread, no total is shown.
            let _ = std::thread::Builder::new().spawn_scoped(scope, measure);
            let result = work();
            working.store(false, Ordering::Relaxed);
            result
        })
    }

    /// Adds jobs to the total.
    pub(in crate::cli) fn jobs(&self, more: u64) {
        self.shared.jobs.fetch_add(more, Ordering::Relaxed);
    }

    /// Counts a job that is done.
    pub(in crate::cli) fn job(&self) {
        self.shared.done.fetch_add(1, Ordering::Relaxed);
    }

    /// How many jobs are done.
    pub(in crate::cli) fn done(&self) -> u64 {
        self.shared.done.load(Ordering::Relaxed)
    }

    /// Prints a message above the line; control characters in names are escaped.
    pub(in crate::cli) fn say(&self, line: &str) {
        self.bar.suspend(|| print::line(line));
    }

    /// Prints a text on standard output, above the line.
    ///
    /// # Errors
    ///
    /// Standard output accepts no more.
    pub(in crate::cli) fn print(&self, text: &str) -> anyhow::Result<()> {
        self.bar.suspend(|| print::text(text))
    }

    /// Removes the line.
    pub(in crate::cli) fn end(mut self) {
        self.shared.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // A panic in it would only lack the line.
            let _ = thread.join();
        }
        self.bar.finish_and_clear();
    }
}

/// Draws the line until the command is over.
fn draw(bar: &ProgressBar, progress: &Progress, shared: &Shared) {
    let (with, without) = (style(WITH_TOTAL), style(WITHOUT_TOTAL));
    let mut has_total = None;
    while !shared.is_over() {
        let bytes = progress.bytes();
        let total = match progress.expected() {
            // A job may have grown since it was measured.
            Some(total) if total.bytes > 0 && total.bytes >= bytes => Some(total.bytes),
            _ => None,
        };
        let total = total.filter(|_| !shared.measuring.load(Ordering::Relaxed));
        if has_total.replace(total.is_some()) != Some(total.is_some()) {
            let style = if total.is_some() { &with } else { &without };
            if let Some(style) = style {
                bar.set_style(style.clone());
            }
        }
        bar.set_length(total.unwrap_or(bytes));
        bar.set_position(bytes);
        let (done, jobs) = (&shared.done, &shared.jobs);
        let (done, jobs) = (done.load(Ordering::Relaxed), jobs.load(Ordering::Relaxed));
        bar.set_message(format!("{done} of {jobs} {}", noun(jobs)));
        bar.tick();
        std::thread::park_timeout(TICK);
    }
}

fn noun(jobs: u64) -> &'static str {
    if jobs == 1 { "job" } else { "jobs" }
}

fn style(template: &str) -> Option<ProgressStyle> {
    let rate = |state: &ProgressState, out: &mut dyn std::fmt::Write| {
        let _ = write!(out, "{}/s", HumanBytes(state.per_sec() as u64));
    };
    let left = |state: &ProgressState, out: &mut dyn std::fmt::Write| {
        let _ = match state.per_sec() < 1.0 {
            true => write!(out, "time left unknown"),
            false => write!(out, "{:#} left", HumanDuration(state.eta())),
        };
    };
    let style = ProgressStyle::with_template(template).ok()?;
    Some(style.with_key("rate", rate).with_key("left", left))
}
