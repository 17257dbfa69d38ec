//! The state of a process, by the files that `/proc` has of it.

use signal_hook::consts::SIGKILL;

use super::process_end::End;

/// Whether a process, by its `/proc/PID/status`, is ending: its first thread has ended, or SIGKILL waits for it.
pub(super) fn is_ending(status: &str) -> bool {
    let has_ended = state(status).starts_with(['Z', 'X']);
    has_ended || has(mask(status, "SigPnd:"), SIGKILL)
}

/// Whether a process, by its `/proc/PID/status`, is stopped.
pub(super) fn is_stopped(status: &str) -> bool {
    state(status).starts_with('T')
}

fn state(status: &str) -> &str {
    let state = status.lines().find_map(|line| line.strip_prefix("State:"));
    state.map_or("", str::trim_start)
}

/// Whether a process, by its `/proc/PID/status`, is traced (`ptrace(2)`).
pub(super) fn is_traced(status: &str) -> bool {
    let tracer = status
        .lines()
        .find_map(|line| line.strip_prefix("TracerPid:"));
    tracer.is_some_and(|tracer| tracer.trim() != "0")
}

/// A set of signals in a `/proc/PID/status`.
pub(super) fn mask(status: &str, name: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.map_or(0, |mask| u64::from_str_radix(mask.trim(), 16).unwrap_or(0))
}

/// Whether a set has a signal.
pub(super) fn has(mask: u64, signal: i32) -> bool {
    (mask >> (signal - 1)) & 1 == 1
}

/// How a process ends, by its `/proc/PID/stat`: the last field, as wait(2) returns it. `None` if the caller may not know.
pub(super) fn end_of(stat: &str) -> Option<End> {
    let status: i32 = stat.rsplit(' ').next()?.trim().parse().ok()?;
    match (status & 0x7f, (status >> 8) & 0xff) {
        (0, 0) => None,
        (0, status) => u8::try_from(status).ok().map(End::Status),
        (signal, _) => Some(End::Signal(signal)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_is_ending_is_recognised() {
        assert!(is_ending(
            "Name:\tx\nState:\tZ (zombie)\nSigPnd:\t0000000000000000\n"
        ));
        assert!(is_ending(
            "State:\tD (disk sleep)\nSigPnd:\t0000000000000100\n"
        ));
        assert!(!is_ending(
            "State:\tD (disk sleep)\nSigPnd:\t0000000000000002\n"
        ));
        assert!(!is_ending(""));
    }

    #[test]
    fn a_stopped_process_is_recognised() {
        assert!(is_stopped("Name:\tx\nState:\tT (stopped)\n"));
        // By a debugger.
        assert!(!is_stopped("State:\tt (tracing stop)\n"));
    }

    #[test]
    fn a_traced_process_is_recognised() {
        assert!(is_traced("Name:\tx\nTracerPid:\t17\n"));
        assert!(!is_traced("Name:\tx\nTracerPid:\t0\n"));
    }

    #[test]
    fn an_end_is_read_as_wait_returns_it() {
        assert_eq!(end_of("12 (a b) Z 1 0 512\n"), Some(End::Status(2)));
        assert_eq!(end_of("12 (a b) Z 1 0 15\n"), Some(End::Signal(15)));
        assert_eq!(end_of("12 (a b) Z 1 0 134\n"), Some(End::Signal(6)));
        assert_eq!(end_of("12 (a b) Z 1 0 0\n"), None);
    }
}
