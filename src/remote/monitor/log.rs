//! Reads logs of jobs on another machine, over the connection of the monitor.

use std::ffi::OsString;
use std::io::{self, BufRead, Read};
use std::path::Path;
use std::sync::Arc;

use super::super::ssh::{Connection, SshError, expect_record, number};
use crate::workspace::jobs::JobId;
use crate::workspace::layout::JOBS;

/// A part of a log.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct LogPart {
    /// Where it begins.
    pub start: u64,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// The length of the log.
    pub length: u64,
}

/// The logs of a workspace.
#[derive(Debug, Clone)]
pub struct Logs {
    connection: Arc<Connection>,
    workdir: OsString,
}

impl Logs {
    pub(super) fn new(connection: Arc<Connection>, workdir: OsString) -> Logs {
        Logs {
            connection,
            workdir,
        }
    }

    /// Reads at most `max` bytes of the log of a job: of standard output (`std`) or standard error, from a position on or its end. `None` if
    /// the job has no log.
    ///
    /// # Errors
    ///
    /// There is no connection, or the log cannot be read.
    pub fn read(
        &self,
        job: &JobId,
        std: bool,
        from: Option<u64>,
        max: u64,
    ) -> Result<Option<LogPart>, SshError> {
        let mut path = Path::new(JOBS)
            .join(job.path())
            .join(job.name())
            .into_os_string();
        path.push(if std { ".out" } else { ".err" });
        let start = match from {
            Some(from) => format!("a={from}\n"),
            None => format!("a=$((s > {max} ? s - {max} : 0))\n"),
        };
        let script = super::super::shell::Script::new()
            .enter(&self.workdir)
            .add(" || exit 1\nf=./")
            .word(path)
            .add("\n[ -f \"$f\" ] || { printf 'absent\\0'; exit 0; }\ns=$(($(wc -c <\"$f\"))) || exit 1\n")
            .add(&start)
            .add("printf 'log\\0%s\\0%s\\0' \"$s\" \"$a\"\n")
            .add(&format!("tail -c +$((a + 1)) \"$f\" | head -c {max}\n"));
        self.connection.run(&script, |output| part(output, max))
    }
}

fn part(output: &mut dyn BufRead, max: u64) -> io::Result<Option<LogPart>> {
    match expect_record(output)?.to_str() {
        Some("log") => {}
        Some("absent") => return Ok(None),
        _ => return Err(io::Error::other("the log was not printed as expected")),
    }
    let length = number(&expect_record(output)?)?;
    let start = number(&expect_record(output)?)?;
    let mut bytes = Vec::new();
    output.take(max).read_to_end(&mut bytes)?;
    Ok(Some(LogPart {
        start,
        // It may have grown meanwhile.
        length: length.max(start.saturating_add(bytes.len() as u64)),
        bytes,
    }))
}
