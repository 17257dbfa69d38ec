//! Notifies systemd of the daemon's state (sd_notify(3)), if it runs in the foreground as a service.

use std::sync::atomic::{AtomicBool, Ordering};

use sd_notify::NotifyState;

/// Whether the supervisor notifies the service manager, which accepts messages only of the process that was started by it.
static LEFT: AtomicBool = AtomicBool::new(false);

/// Makes this process send no messages: its supervisor does.
pub fn disable() {
    LEFT.store(true, Ordering::Relaxed);
}

/// The mount replies: `Type=notify` units count as started.
pub fn ready(status: &str) {
    notify(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// The daemon is about to end.
pub fn stopping(status: &str) {
    notify(&[NotifyState::Stopping, NotifyState::Status(status)]);
}

/// Does nothing where no `NOTIFY_SOCKET` is set.
fn notify(states: &[NotifyState<'_>]) {
    if LEFT.load(Ordering::Relaxed) {
        return;
    }
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!("cannot notify the service manager: {error}");
    }
}
