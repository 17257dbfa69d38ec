//! What the first Ctrl-C of a command ends: it removes what it has begun. The second ends the command at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::{Handle, Signals};

use crate::cli::print;
use crate::transfer::Progress;

/// Cancels what a progress counts at the first SIGINT or SIGTERM, until it is dropped.
pub(super) struct Interrupt {
    came: Arc<AtomicBool>,
    handle: Option<Handle>,
    thread: Option<JoinHandle<()>>,
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
            };
        };
        let handle = signals.handle();
        let thread = std::thread::Builder::new().name("xpmfs-signals".to_owned());
        let thread = thread.spawn(move || {
            for signal in signals.forever() {
                if theirs.swap(true, Ordering::SeqCst) {
                    // What is left then, the next start removes.
                    let _ = signal_hook::low_level::emulate_default_handler(signal);
                }
                progress.cancel();
                print::line("interrupted: removing what was begun (once more to leave it to the next start)");
            }
        });
        Interrupt {
            came,
            handle: Some(handle),
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
