//! The state of a job, as experimaestro's monitor sees it (`MockJob.load_from_disk` in its `scheduler/state_provider.py`):
//!
//! 1. a marker, `<name>.done` or `<name>.failed`;
//! 2. otherwise what `.experimaestro/status.json` says, and its events since. A job with a `<name>.pid` and no status is running;
//! 3. otherwise, without a `<name>.pid` or an event, what the run says that submitted it: the status may be that of an earlier one.

use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::path::Path;

use jiff::Timestamp;
use rustix::fs::{FileType, Mode, OFlags, Statx};
use rustix::io::Errno;

use crate::archive::job::usage::{self, DiskUsage};
use crate::sys::at;
use crate::view::inventory::{LocatedJob, LocationSet};
use crate::workspace::events::{PendingEvents, StateChange};
use crate::workspace::job_files::{JobState, JobStatus};
use crate::workspace::markers;

/// The most bytes of a marker, or of a file with a process id, that are read.
const SMALL_FILE_MAX: usize = 64 << 10;

/// The reasons of a failure that experimaestro knows (`JobFailureStatus`).
const FAILURE_REASONS: [&str; 9] = [
    "DEPENDENCY",
    "FAILED",
    "MEMORY",
    "TIMEOUT",
    "CANCELLED",
    "REJECTED_TIMELIMIT",
    "REJECTED_OTHER",
    "MISSING_OUTPUTS",
    "DELETED",
];

/// What was seen of a job.
#[derive(Debug)]
pub(in crate::archive) struct Seen {
    pub(in crate::archive) state: StateChange,
    /// Whether the state is that of the job itself, and not only of its last known status.
    pub(in crate::archive) is_certain: bool,
    /// When it ended; of other jobs, when its directory changed last.
    pub(in crate::archive) changed: Option<Timestamp>,
    pub(in crate::archive) usage: Option<DiskUsage>,
    /// The copies that are of an earlier run, if they were compared.
    pub(in crate::archive) outdated: LocationSet,
}

/// Looks at a job.
pub(super) fn look<'a>(
    job: &LocatedJob<'_>,
    sizes: bool,
    events: impl Fn() -> &'a PendingEvents,
) -> Seen {
    let mut seen = ended(job).unwrap_or_else(|| unfinished(job, events));
    if sizes {
        seen.usage = measured(job);
    }
    seen
}

/// What a marker says of a job, if it has one.
fn ended(job: &LocatedJob<'_>) -> Option<Seen> {
    let name = job.id.name();
    if let Some(stat) = file(job, &markers::done(name)) {
        return Some(Seen {
            state: StateChange {
                state: JobState::Done,
                failure_reason: None,
            },
            is_certain: true,
            changed: modified(&stat),
            usage: None,
            outdated: LocationSet::default(),
        });
    }
    let marker = markers::failed(name);
    let stat = file(job, &marker)?;
    let content = small_file(job, &marker).unwrap_or_default();
    let reason = failure(&content);
    Some(Seen {
        state: StateChange {
            state: reason.as_ref().map_or(JobState::Done, |_| JobState::Error),
            failure_reason: reason,
        },
        is_certain: true,
        changed: modified(&stat),
        usage: None,
        outdated: LocationSet::default(),
    })
}

fn unfinished<'a>(job: &LocatedJob<'_>, events: impl Fn() -> &'a PendingEvents) -> Seen {
    let (task, hash) = (job.task, job.id.hash());
    let shown = job.location.path().join("jobs").join(job.id.path());
    // A status that cannot be read counts as missing, as in experimaestro.
    let status = JobStatus::read_at(task, Path::new(hash), &shown)
        .ok()
        .flatten();
    let (mut state, mut reason) = (JobState::Unscheduled, None);
    let said = status.as_ref().and_then(|status| status.state.as_ref());
    match said.map(|said| JobState::from(said.to_string().to_lowercase())) {
        Some(JobState::Other(other)) if other != "failed" => {}
        None => {}
        Some(JobState::Other(_) | JobState::Error) => {
            let said = status.as_ref().and_then(|it| it.failure_reason.as_deref());
            reason = Some(known_reason(said));
            state = JobState::Error;
        }
        Some(said) => state = said,
    }
    let mut name = job.id.name().to_owned();
    name.push(".pid");
    let has_pid = file(job, &name).is_some();
    if has_pid && matches!(state, JobState::Unscheduled | JobState::Transient) {
        let content = small_file(job, &name).unwrap_or_default();
        if serde_json::from_slice::<serde::de::IgnoredAny>(&content).is_ok() {
            state = JobState::Running;
        }
    }
    let mut is_certain = has_pid;
    let count = status.as_ref().and_then(|status| status.events_count);
    if let Some(change) = count.and_then(|count| events().last_state(hash, count)) {
        reason = (change.state == JobState::Error)
            .then(|| known_reason(change.failure_reason.as_deref()));
        state = change.state;
        is_certain = true;
    }
    let directory = rustix::fs::openat(task, hash, OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
    let stat = directory.and_then(at::stat_fd).ok();
    Seen {
        state: StateChange {
            state,
            failure_reason: reason,
        },
        is_certain,
        changed: stat.as_ref().and_then(modified),
        usage: None,
        outdated: LocationSet::default(),
    }
}

/// Why a job failed, by the content of its `.failed`; `None` if it did not: very old versions wrote the exit status into it.
fn failure(content: &[u8]) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Failure {
        #[serde(default)]
        failure_status: Option<String>,
        #[serde(default)]
        reason: Option<String>,
    }

    let text = content.trim_ascii();
    if text.starts_with(b"{")
        && let Ok(failure) = serde_json::from_slice::<Failure>(text)
    {
        let said = [failure.failure_status, failure.reason];
        let said = said.into_iter().flatten().map(|said| said.to_uppercase());
        let known = said.filter(|said| FAILURE_REASONS.contains(&said.as_str()));
        return Some(
            known
                .into_iter()
                .next()
                .unwrap_or_else(|| known_reason(None)),
        );
    }
    let code = std::str::from_utf8(text).ok();
    let code = code.and_then(|text| text.parse::<i64>().ok());
    (code != Some(0)).then(|| known_reason(None))
}

fn known_reason(said: Option<&str>) -> String {
    let said = said.filter(|said| FAILURE_REASONS.contains(said));
    said.unwrap_or("FAILED").to_owned()
}

/// The attributes of a file of a job, if it is there.
fn file(job: &LocatedJob<'_>, name: &OsStr) -> Option<Statx> {
    let mut path = OsString::with_capacity(job.id.hash().len() + 1 + name.len());
    path.push(job.id.hash());
    path.push("/");
    path.push(name);
    let stat = at::stat_at(job.task, &path).ok()?;
    (FileType::from_raw_mode(stat.stx_mode.into()) == FileType::RegularFile).then_some(stat)
}

/// The start of a small file of a job.
fn small_file(job: &LocatedJob<'_>, name: &OsStr) -> Option<Vec<u8>> {
    let path = Path::new(job.id.hash()).join(name);
    // NONBLOCK: otherwise opening a FIFO waits for a writer.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = rustix::fs::openat(job.task, &path, flags, Mode::empty()).ok()?;
    let mut content = vec![0; SMALL_FILE_MAX];
    let mut length = 0;
    while let Some(rest) = content.get_mut(length..).filter(|rest| !rest.is_empty()) {
        match rustix::io::read(&file, rest) {
            Ok(0) => break,
            Ok(read) => length += read,
            Err(Errno::INTR) => {}
            Err(_) => return None,
        }
    }
    content.truncate(length);
    Some(content)
}

fn measured(job: &LocatedJob<'_>) -> Option<DiskUsage> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory: OwnedFd =
        rustix::fs::openat(job.task, job.id.hash(), flags, Mode::empty()).ok()?;
    // Each system call is a question to the folder, and not the whole job.
    let mut answered = || drop(job.location.asking_inside_job());
    usage::of_each(job.id, &directory, &mut answered).ok()
}

fn modified(stat: &Statx) -> Option<Timestamp> {
    let nanoseconds = i32::try_from(stat.stx_mtime.tv_nsec).ok()?;
    Timestamp::new(stat.stx_mtime.tv_sec, nanoseconds).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_read_in_each_form() {
        for (content, reason) in [
            (&b"1\n"[..], Some("FAILED")),
            (b"0", None),
            (b"", Some("FAILED")),
            (b"what", Some("FAILED")),
            (b"\xff", Some("FAILED")),
            (b"{\"failure_status\": \"timeout\"}", Some("TIMEOUT")),
            (b"{\"reason\": \"MEMORY\", \"code\": 1}", Some("MEMORY")),
            (
                b"{\"failure_status\": \"new\", \"reason\": \"memory\"}",
                Some("MEMORY"),
            ),
            (b"{}", Some("FAILED")),
            (b"[\"TIMEOUT\"]", Some("FAILED")),
        ] {
            assert_eq!(failure(content).as_deref(), reason, "{content:?}");
        }
    }
}
