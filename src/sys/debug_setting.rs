//! Numbers that a test of a debug build sets in the environment, so that it need not wait as long as people do.

use std::time::Duration;

/// The number in an environment variable; `None` in a build for use: no caller can shorten there what protects data.
#[must_use]
pub fn number(variable: &str) -> Option<u64> {
    match cfg!(debug_assertions) {
        true => std::env::var(variable).ok()?.parse().ok(),
        false => None,
    }
}

/// The milliseconds in an environment variable, or else `usual`.
#[must_use]
pub fn milliseconds(variable: &str, usual: Duration) -> Duration {
    number(variable).map_or(usual, Duration::from_millis)
}

/// By how much a time is divided: the number in an environment variable, or else 1.
#[must_use]
pub fn divisor(variable: &str) -> u32 {
    let number = number(variable).and_then(|number| u32::try_from(number).ok());
    number.unwrap_or(1).max(1)
}
