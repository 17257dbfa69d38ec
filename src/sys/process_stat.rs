//! The parent, the session and the start of a process, from `/proc/PID/stat`.

use std::io;

use rustix::io::Errno;

/// What the kernel reports about a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProcessStat {
    /// The parent; 0 if it is in another pid namespace.
    pub parent: i32,
    /// The session.
    pub session: i32,
    /// When the process was started, in clock ticks since boot. With the pid, this identifies a process: pids are reused.
    pub start: u64,
    /// Whether all threads have ended, also if the parent has not waited for the process yet.
    pub has_ended: bool,
}

impl ProcessStat {
    /// Reads it; `None` if no process has this id.
    ///
    /// # Errors
    ///
    /// `/proc` cannot be read, or has another format.
    pub fn of(pid: i32) -> io::Result<Option<ProcessStat>> {
        match std::fs::read(format!("/proc/{pid}/stat")) {
            Ok(line) => parse(&line).map(Some).ok_or_else(|| {
                io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!("/proc/{pid}/stat has an unknown format"),
                )
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            // The process has ended between opening the file and reading it.
            Err(error) if error.raw_os_error() == Some(Errno::SRCH.raw_os_error()) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Reads the line. The fields follow the name, which is in parentheses and may contain any character.
fn parse(line: &[u8]) -> Option<ProcessStat> {
    let name_end = line.iter().rposition(|byte| *byte == b')')?;
    let rest = std::str::from_utf8(line.get(name_end + 1..)?).ok()?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let threads: u32 = fields.get(17)?.parse().ok()?;
    Some(ProcessStat {
        parent: fields.get(1)?.parse().ok()?,
        session: fields.get(3)?.parse().ok()?,
        start: fields.get(19)?.parse().ok()?,
        has_ended: fields.first()?.starts_with(['Z', 'X']) && threads <= 1,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_are_found_behind_any_name() {
        let line = b"25985 (a) Z (b) S 7 2 3 0 -1 4194304 101 0 0 0 0 0 0 0 20 0 4 0 109 0";
        let expected = ProcessStat {
            parent: 7,
            session: 3,
            start: 109,
            has_ended: false,
        };
        assert_eq!(parse(line), Some(expected));
        assert_eq!(parse(b""), None);
        assert_eq!(parse(b"1 (x"), None);
    }

    #[test]
    fn a_process_that_was_not_waited_for_has_ended() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let limit = std::time::Duration::from_secs(60);
        assert!(crate::sys::deadline::wait_until(limit, || {
            ProcessStat::of(pid).unwrap().unwrap().has_ended
        }));
        child.wait().unwrap();
        assert!(ProcessStat::of(pid).unwrap().is_none());
        let own = ProcessStat::of(rustix::process::getpid().as_raw_pid());
        let own = own.unwrap().unwrap();
        assert!(!own.has_ended && own.start > 0);
    }
}
