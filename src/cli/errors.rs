//! Turns the error of a command into a message and an exit status.

use std::io;
use std::process::ExitCode;

use super::jobs::Ambiguous;
use crate::daemon::options::OptionError;
use crate::daemon::unmount::UnmountError;
use crate::sys::printable::printable;

/// The exit status of a command line that is not understood.
pub const WRONG_USAGE: u8 = 2;

/// An error and its causes in one line, with control characters in names escaped. A cause that an error's own text contains is not
/// repeated.
#[must_use]
pub fn sentence(error: &anyhow::Error) -> String {
    error.chain().fold(String::new(), |text, cause| {
        let mut message = without_numbers(&cause.to_string());
        // These list processes or jobs on lines of their own, and escape names themselves.
        let has_lines = matches!(cause.downcast_ref(), Some(UnmountError::Busy { .. }))
            || cause.is::<Ambiguous>();
        if !has_lines {
            message = printable(&message).into_owned();
        }
        if text.is_empty() {
            message
        } else if text.contains(&message) {
            text
        } else {
            format!("{text}: {message}")
        }
    })
}

/// A text without the numbers of errors, which mean nothing to a person.
fn without_numbers(text: &str) -> String {
    let mut words = text.to_owned();
    while let Some(start) = words.find(" (os error ")
        && let Some(length) = words.get(start..).and_then(|rest| rest.find(')'))
    {
        words.replace_range(start..=start + length, "");
    }
    words
}

/// Whether a command failed because its output is no longer read.
#[must_use]
pub fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let mut causes = error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<io::Error>());
    causes.any(|cause| cause.kind() == io::ErrorKind::BrokenPipe)
}

/// The exit status of a command that failed.
#[must_use]
pub fn status_of(error: &anyhow::Error) -> ExitCode {
    if error.is::<OptionError>() || error.is::<Usage>() {
        ExitCode::from(WRONG_USAGE)
    } else {
        ExitCode::FAILURE
    }
}

/// A command line that is not understood, where the parser has not seen it.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Usage(pub(super) String);

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;

    #[test]
    fn a_cause_is_printed_once() {
        let cause = || std::io::Error::from_raw_os_error(13);
        let error = crate::settings::SettingsError::Read {
            path: "/s".into(),
            source: cause(),
        };
        let text = sentence(&error.into());
        assert_eq!(text.matches("Permission denied").count(), 1, "{text}");
        let error = Err::<(), _>(cause()).context("cannot write /x");
        let text = sentence(&error.unwrap_err());
        assert_eq!(text, "cannot write /x: Permission denied");
    }
}
