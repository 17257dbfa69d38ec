//! What the first Ctrl-C of a command ends: it removes what it has begun. The second ends the command at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Instant;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::{Handle, Signals};

use crate::cli::front::{self, Handled, SAME_SIGNAL};
use crate::cli::print;
use crate::transfer::Progress;

/// Cancels what a progress counts at the first SIGINT or SIGTERM, until it is dropped.
pub(super) struct Interrupt {
    came: Arc<AtomicBool>,
    handle: Option<Handle>,
    thread: Option<JoinHandle<()>>,
    /// What a command does without this.
    _handled: Option<Handled>,
}

impl Interrupt {
    /// From now on. Where signals cannot be taken, they end the command at once, as they would without this.
    pub(super) fn cancels(progress: &Arc<Progress>) -> Interrupt {
        let came = Arc::new(AtomicBool::new(false));
        let (theirs, progress) = (came.clone(), progress.clone());
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
            let mut first = None;
            for signal in signals.forever() {
                if theirs.swap(true, Ordering::SeqCst) {
                    if first.is_some_and(|first: Instant| first.elapsed() < SAME_SIGNAL) {
                        continue;
                    }
                    // What is left then, the next start removes.
                    front::end_by(signal);
                }
                first = Some(Instant::now());
                progress.cancel();
                print::line("interrupted: removing what was begun (once more to leave it to the next start)");
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
    pub(super) fn came(&self) -> bool {
        self.came.load(Ordering::SeqCst)
    }
}

impl Drop for Interrupt {
    fn drop(&mut self) {
        if let Some(handle) = &self.handle {
            handle.close();
        }
        if let Some(thread) = self.thread.take() {
            // It ends by itself.
            let _ = thread.join();
        }
    }
}
