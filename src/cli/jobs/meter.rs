//! How far a command is, on a terminal's standard error.

use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use indicatif::{HumanBytes, ProgressBar, ProgressStyle};

use crate::cli::{Global, print};
use crate::transfer::Progress;

/// How often it is drawn.
const TICK: Duration = Duration::from_millis(100);

/// A line that tells how many jobs are done, and how many files and bytes.
pub(super) struct Meter {
    bar: ProgressBar,
    over: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Meter {
    /// Begins to tell of so many jobs; silent with `--quiet`, and where nobody looks.
    pub(super) fn new(jobs: usize, progress: &Arc<Progress>, global: &Global) -> Meter {
        if global.quiet || !std::io::stderr().is_terminal() {
            return Meter {
                bar: ProgressBar::hidden(),
                over: Arc::default(),
                thread: None,
            };
        }
        let bar = ProgressBar::new(jobs as u64);
        if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len} jobs, {msg}") {
            bar.set_style(style);
        }
        let over = Arc::new(AtomicBool::new(false));
        let thread = {
            let (bar, over, progress) = (bar.clone(), over.clone(), progress.clone());
            let begun = std::time::Instant::now();
            let draw = move || {
                while !over.load(Ordering::Relaxed) {
                    let (files, bytes) = (progress.files(), progress.bytes());
                    let speed = bytes as f64 / begun.elapsed().as_secs_f64().max(0.1);
                    bar.set_message(format!(
                        "{files} files, {}, {}/s",
                        HumanBytes(bytes),
                        HumanBytes(speed as u64)
                    ));
                    std::thread::park_timeout(TICK);
                }
            };
            // Without a thread the line shows the jobs alone.
            std::thread::Builder::new().spawn(draw).ok()
        };
        Meter { bar, over, thread }
    }

    /// So many jobs more are to be done.
    pub(super) fn jobs(&self, more: u64) {
        self.bar.inc_length(more);
    }

    /// One job more is done.
    pub(super) fn job(&self) {
        self.bar.inc(1);
    }

    /// Prints a line above the bar, whatever is named in it.
    pub(super) fn say(&self, line: &str) {
        self.bar.suspend(|| print::line(line));
    }

    /// Prints a text on standard output, and keeps the bar below it.
    ///
    /// # Errors
    ///
    /// Standard output takes no more.
    pub(super) fn print(&self, text: &str) -> anyhow::Result<()> {
        self.bar.suspend(|| print::text(text))
    }

    /// Takes the bar away.
    pub(super) fn end(mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // It ends by itself.
            let _ = thread.join();
        }
        self.bar.finish_and_clear();
    }
}
