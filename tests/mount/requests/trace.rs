//! Counts the kernel's requests to the process that serves a mount, and the system calls that it makes for each.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use crate::common::tracer::{Tracer, serving};
use crate::common::{Workspace, eventually};

/// What is read of each request: its length and its kind.
const HEADER: usize = 8;

/// The request that marks the end of an operation.
const MARK: &str = "STATFS";

/// The kinds of requests, by their numbers in the protocol (`linux/fuse.h`).
fn kind(number: u32) -> String {
    let name = match number {
        1 => "LOOKUP",
        3 => "GETATTR",
        4 => "SETATTR",
        5 => "READLINK",
        6 => "SYMLINK",
        9 => "MKDIR",
        10 => "UNLINK",
        11 => "RMDIR",
        12 | 45 => "RENAME",
        13 => "LINK",
        14 => "OPEN",
        15 => "READ",
        16 => "WRITE",
        17 => MARK,
        22 => "GETXATTR",
        25 => "FLUSH",
        27 => "OPENDIR",
        28 => "READDIR",
        35 => "CREATE",
        44 => "READDIRPLUS",
        other => return other.to_string(),
    };
    name.to_owned()
}

/// `FORGET`, `RELEASE`, `RELEASEDIR` and `BATCH_FORGET`: no program waits for these.
const BACKGROUND: [u32; 4] = [2, 18, 29, 42];

/// Calls that belong to no request: the connection to the kernel, locks between threads, memory, and the check of a
/// descriptor that a program built for debugging makes before it closes the descriptor.
const UNCOUNTED: [&str; 9] = [
    "read",
    "writev",
    "futex",
    "sched_yield",
    "mmap",
    "munmap",
    "mprotect",
    "madvise",
    "brk",
];
const CHECK: &str = "F_GETFD";

/// How many requests of each kind were received, and how many system calls of each name were made for them.
#[derive(Debug, Default)]
pub(super) struct Requests(BTreeMap<String, Request>);

#[derive(Debug, Default)]
struct Request {
    count: usize,
    calls: BTreeMap<String, usize>,
}

impl Requests {
    /// What a text expects of each round: requests, separated by semicolons; each with its kind, a colon, and its calls.
    pub(super) fn expected(text: &str, rounds: usize) -> Requests {
        let mut requests = Requests::default();
        let texts = text.split(';').map(str::trim);
        for request in texts.filter(|text| !text.is_empty()) {
            let (kind, calls) = request.split_once(':').unwrap_or((request, ""));
            requests.add(kind, rounds);
            for call in calls.split_whitespace() {
                requests.add_calls(kind, call, rounds);
            }
        }
        requests
    }

    fn add(&mut self, kind: &str, count: usize) {
        self.0.entry(kind.to_owned()).or_default().count += count;
    }

    fn add_calls(&mut self, kind: &str, name: &str, count: usize) {
        let calls = &mut self.0.entry(kind.to_owned()).or_default().calls;
        *calls.entry(name.to_owned()).or_default() += count;
    }

    /// How many more requests these are than the others, and how many more system calls were made.
    pub(super) fn surplus(&self, others: &Requests) -> (usize, usize) {
        let more = |ours: usize, theirs: Option<usize>| ours.saturating_sub(theirs.unwrap_or(0));
        let (mut requests, mut all_calls) = (0, 0);
        for (kind, Request { count, calls }) in &self.0 {
            let other = others.0.get(kind);
            requests += more(*count, other.map(|other| other.count));
            let of_other = |name| other?.calls.get(name).copied();
            let surplus = calls
                .iter()
                .map(|(name, count)| more(*count, of_other(name)));
            all_calls += surplus.sum::<usize>();
        }
        (requests, all_calls)
    }
}

impl fmt::Display for Requests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (kind, Request { count, calls }) in &self.0 {
            write!(f, "{count} {kind} {calls:?}, ")?;
        }
        Ok(())
    }
}

/// The requests that the process that serves a mount receives.
pub(super) struct Trace {
    _tracer: Tracer,
    file: PathBuf,
    read: u64,
    /// The kind of the request that a thread processes.
    current: HashMap<String, String>,
}

impl Trace {
    pub(super) fn of(workspace: &Workspace, mountpoint: &Path) -> Trace {
        let file = workspace.top().join("trace");
        let (length, to) = (HEADER.to_string(), file.to_str().unwrap());
        let options = ["-xx", "-s", &length, "-o", to];
        Trace {
            _tracer: Tracer::of_process(serving(workspace, mountpoint), &options),
            file,
            read: 0,
            current: HashMap::new(),
        }
    }

    /// The requests since the last time.
    pub(super) fn requests(&mut self, mountpoint: &Path) -> Requests {
        // The kernel passes each of these on.
        rustix::fs::statfs(mountpoint).unwrap();
        let mut requests = Requests::default();
        eventually("all requests are traced", || {
            let mut text = String::new();
            let mut file = File::open(&self.file).unwrap();
            file.seek(SeekFrom::Start(self.read)).unwrap();
            file.read_to_string(&mut text).unwrap();
            // The last line may still be written.
            let new = text.rsplit_once('\n').unwrap_or_default().0;
            let mut current = self.current.clone();
            let mut found = Requests::default();
            for line in new.lines() {
                note(line, &mut current, &mut found);
            }
            let is_whole = found.0.remove(MARK).is_some_and(|mark| mark.count > 0);
            if is_whole {
                self.read += new.len() as u64;
                self.current = current;
                requests = found;
            }
            is_whole
        });
        requests
    }
}

/// Notes what a line of the trace shows: the thread, then a system call, or the end of one that an earlier line began.
fn note(line: &str, current: &mut HashMap<String, String>, found: &mut Requests) {
    let Some((thread, call)) = line.split_once(' ') else {
        return;
    };
    let call = call.trim_start();
    if let Some(number) = number(call) {
        current.remove(thread);
        if !BACKGROUND.contains(&number) {
            let kind = kind(number);
            found.add(&kind, 1);
            current.insert(thread.to_owned(), kind);
        }
    } else if let Some((name, arguments)) = call.split_once('(')
        && !name.starts_with('<')
        && !UNCOUNTED.contains(&name)
        && !arguments.contains(CHECK)
        && let Some(kind) = current.get(thread)
    {
        found.add_calls(kind, name, 1);
    }
}

/// The kind of the request that a traced call has read; `None` if the call has read something else.
fn number(call: &str) -> Option<u32> {
    if !call.starts_with("read(") && !call.starts_with("<... read ") {
        return None;
    }
    let (_, after) = call.split_once('"')?;
    let (bytes, after) = after.split_once('"')?;
    let bytes: Vec<u8> = bytes
        .split("\\x")
        .skip(1)
        .map(|byte| u8::from_str_radix(byte, 16).unwrap())
        .collect();
    let (length, kind) = bytes.split_at_checked(4)?;
    let length = u32::from_le_bytes(length.try_into().ok()?);
    let kind = u32::from_le_bytes(kind.try_into().ok()?);
    let (_, read) = after.rsplit_once("= ")?;
    (length >= 40 && read.trim().parse() == Ok(length)).then_some(kind)
}
