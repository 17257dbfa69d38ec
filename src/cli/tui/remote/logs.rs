//! The thread that reads logs of jobs on the other machine.

use crossbeam_channel::Sender;

use crate::cli::sentence;
use crate::cli::tui::event::worker;
use crate::cli::tui::read::{LOG_MAX, Want};
use crate::remote::monitor::log::{LogPart, Logs};

/// Asks the thread.
#[derive(Debug)]
pub(super) struct LogReader(Sender<Want>);

impl LogReader {
    /// Starts the thread; `done` gets what it reads, and returns false at the end.
    ///
    /// # Errors
    ///
    /// No thread can be started.
    pub(super) fn start(
        logs: Logs,
        done: impl Fn(Want, Result<Option<LogPart>, String>) -> bool + Send + 'static,
    ) -> std::io::Result<LogReader> {
        let read = move |want: Want| {
            let part = logs.read(&want.job, want.std, want.from, LOG_MAX);
            let part = part.map_err(|error| sentence(&error.into()));
            done(want, part)
        };
        Ok(LogReader(worker("xpmfs-logs", 1, read)?))
    }

    /// Asks for a part. Returns false if another one is still being read: it is to be asked for again.
    pub(super) fn ask(&self, want: Want) -> bool {
        self.0.try_send(want).is_ok()
    }
}
