//! Notifies systemd of the daemon's state (sd_notify(3)), if it runs in the foreground as a service.

use sd_notify::NotifyState;

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
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!("cannot notify the service manager: {error}");
    }
}
