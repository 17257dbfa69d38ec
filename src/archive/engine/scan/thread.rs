//! Runs a scanner in its thread.

use crossbeam_channel::{Receiver, Sender};

use super::Scanner;
use crate::archive::engine::core::Core;
use crate::archive::engine::events::Event;
use crate::archive::engine::shared::Shared;

/// To scan once.
#[derive(Debug, Clone, Copy)]
pub(in crate::archive::engine) struct Request {
    /// How many jobs may be found.
    pub(in crate::archive::engine) room: usize,
    /// Whether also jobs are looked at that were looked at in vain.
    pub(in crate::archive::engine) forgive: bool,
}

/// Scans on request, and cleans up after processes that died, until the request channel closes.
pub(in crate::archive::engine) fn run(
    mut scanner: Scanner,
    core: &dyn Core,
    requests: &Receiver<Request>,
    events: &Sender<Event>,
    shared: &Shared,
) {
    let stopping = || shared.is_stopping();
    for request in requests {
        if request.forgive {
            scanner.forgive();
        }
        let found = scanner.scan(request.room, &stopping);
        for task in &found.staging {
            if !stopping() {
                core.clear(task);
            }
        }
        shared.tell_back(core, events);
        let folder = scanner.folder;
        if stopping() || events.send(Event::Scanned { folder, found }).is_err() {
            return;
        }
    }
}
