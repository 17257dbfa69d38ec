//! Telling systemd how the daemon does (sd_notify(3)), when it runs in the foreground for it.

use sd_notify::NotifyState;

/// The mount answers: `Type=notify` units count as started.
pub fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// The daemon is about to end.
pub fn stopping(status: &str) {
    tell(&[NotifyState::Stopping, NotifyState::Status(status)]);
}

/// Does nothing where no `NOTIFY_SOCKET` is set.
fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!("cannot tell the service manager: {error}");
    }
}
