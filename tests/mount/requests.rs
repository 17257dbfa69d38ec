//! For how many requests of the kernel programs wait in everyday operations.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use crate::common::thread::truncate;
use crate::common::tracer::{Tracer, serving};
use crate::common::{Workspace, eventually, is_root, program, say};

/// How often each operation is done in a row.
const ROUNDS: usize = 8;

/// How many requests may be added in all rounds: attributes and names are cached for a second.
const SLACK: usize = 2;

/// How often all is tried: each operation must do with its requests once.
const ATTEMPTS: usize = 20;

/// What is read of each request: its length and its kind.
const HEADER: usize = 8;

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
        17 => "STATFS",
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

/// The requests that the process that serves a mount receives.
struct Trace {
    _tracer: Tracer,
    file: PathBuf,
    read: usize,
}

impl Trace {
    fn of(workspace: &Workspace, mountpoint: &Path) -> Trace {
        let file = workspace.top().join("trace");
        let (length, to) = (HEADER.to_string(), file.to_str().unwrap());
        let options = ["-xx", "-e", "trace=read", "-s", &length, "-o", to];
        Trace {
            _tracer: Tracer::of_process(serving(workspace, mountpoint), &options),
            file,
            read: 0,
        }
    }

    /// For which requests programs have waited since the last time, and how many.
    fn requests(&mut self, mountpoint: &Path) -> BTreeMap<String, usize> {
        // The kernel passes each of these on.
        rustix::fs::statfs(mountpoint).unwrap();
        let mut requests = BTreeMap::new();
        eventually("all requests are traced", || {
            let text = fs::read_to_string(&self.file).unwrap_or_default();
            // The last line may still be written.
            let new = text[self.read..].rsplit_once('\n').unwrap_or_default().0;
            let numbers = new.lines().filter_map(number);
            let numbers: Vec<u32> = numbers.filter(|one| !BACKGROUND.contains(one)).collect();
            let is_whole = numbers.last() == Some(&17);
            if is_whole {
                self.read += new.len();
                for name in numbers
                    .iter()
                    .map(|one| kind(*one))
                    .filter(|one| one != "STATFS")
                {
                    *requests.entry(name).or_insert(0) += 1;
                }
            }
            is_whole
        });
        requests
    }
}

/// The kind of the request that a traced call has read; `None` if the call has read something else.
fn number(line: &str) -> Option<u32> {
    let (_, after) = line.split_once('"')?;
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

/// An operation on a file or directory, and the requests for which it waits.
struct Operation {
    name: &'static str,
    run: fn(&Path),
    requests: &'static str,
}

impl Operation {
    /// What is wrong with the requests of all rounds, if anything is.
    fn compare(&self, found: &BTreeMap<String, usize>) -> Option<String> {
        let mut expected = BTreeMap::new();
        for name in self.requests.split_whitespace() {
            *expected.entry(name.to_owned()).or_insert(0) += ROUNDS;
        }
        let surplus = |(name, count): (&String, &usize)| {
            count.saturating_sub(expected.get(name).copied().unwrap_or(0))
        };
        let extra: usize = found.iter().map(surplus).sum();
        (extra > SLACK).then(|| format!("{}: {found:?}, expected {expected:?}", self.name))
    }
}

/// In the order in which they are done.
const OPERATIONS: &[Operation] = &[
    Operation {
        name: "create, write, close",
        run: |path| fs::write(path, "some").unwrap(),
        // The kernel asks for the set-id bits' attribute before the first write.
        requests: "GETATTR LOOKUP CREATE GETXATTR",
    },
    Operation {
        name: "stat of a file that was written",
        run: |path| assert!(path.exists()),
        requests: "GETATTR",
    },
    Operation {
        name: "stat",
        run: |path| assert!(path.exists()),
        requests: "",
    },
    Operation {
        name: "open, read, close",
        run: |path| {
            let mut bytes = [0; 4];
            File::open(path).unwrap().read_exact(&mut bytes).unwrap();
        },
        requests: "OPEN",
    },
    Operation {
        name: "chmod",
        run: |path| fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap(),
        requests: "SETATTR",
    },
    Operation {
        name: "open, append, close",
        run: |path| {
            let mut file = File::options().append(true).open(path).unwrap();
            file.write_all(b"more").unwrap();
        },
        // It asks again whenever it has asked for the attributes of the file.
        requests: "OPEN GETXATTR",
    },
    Operation {
        name: "truncate a file that was written",
        run: |path| truncate(path, 1).unwrap(),
        requests: "GETATTR SETATTR GETXATTR",
    },
    Operation {
        name: "symlink",
        run: |path| symlink("target", path.with_extension("symlink")).unwrap(),
        requests: "GETATTR LOOKUP SYMLINK",
    },
    Operation {
        name: "readlink",
        run: |path| drop(fs::read_link(path.with_extension("symlink")).unwrap()),
        requests: "READLINK",
    },
    Operation {
        name: "rename",
        run: |path| fs::rename(path, path.with_extension("new")).unwrap(),
        requests: "GETATTR LOOKUP RENAME",
    },
    Operation {
        name: "remove",
        run: |path| fs::remove_file(path.with_extension("new")).unwrap(),
        requests: "GETATTR UNLINK",
    },
    Operation {
        name: "link",
        run: |path| fs::hard_link(path.with_extension("symlink"), path).unwrap(),
        requests: "GETATTR LOOKUP LINK",
    },
    Operation {
        name: "mkdir",
        run: |path| fs::create_dir(path.with_extension("dir")).unwrap(),
        requests: "GETATTR LOOKUP MKDIR",
    },
    Operation {
        name: "list an empty directory",
        run: |path| assert_eq!(fs::read_dir(path.with_extension("dir")).unwrap().count(), 0),
        // The second request is for what follows the end.
        requests: "READDIRPLUS READDIRPLUS",
    },
    Operation {
        name: "list it again",
        run: |path| assert_eq!(fs::read_dir(path.with_extension("dir")).unwrap().count(), 0),
        requests: "GETATTR",
    },
    Operation {
        name: "rmdir",
        run: |path| fs::remove_dir(path.with_extension("dir")).unwrap(),
        requests: "GETATTR RMDIR",
    },
];

#[test]
fn everyday_operations_wait_for_few_requests() {
    if !is_root() {
        say("SKIPPED: only root traces the daemon");
        return;
    }
    if program("strace").is_none() {
        return;
    }
    let workspace = Workspace::new();
    let jobs = workspace.primary().join("jobs/task");
    let mountpoint = workspace.mountpoint("elsewhere");
    let _mounted = workspace.mount_at(&mountpoint);
    let mut trace = Trace::of(&workspace, &mountpoint);
    // On a busy machine an attempt may take longer than attributes are cached.
    let mut wrong = Vec::new();
    for attempt in 0..ATTEMPTS {
        fs::create_dir_all(jobs.join(attempt.to_string())).unwrap();
        let directory = mountpoint.join("jobs/task").join(attempt.to_string());
        let found = OPERATIONS.iter().map(|operation| {
            fs::metadata(&directory).unwrap();
            trace.requests(&mountpoint);
            for round in 0..ROUNDS {
                (operation.run)(&directory.join(round.to_string()));
            }
            operation.compare(&trace.requests(&mountpoint))
        });
        let found: Vec<Option<String>> = found.collect();
        match wrong.is_empty() {
            true => wrong = found,
            false => (wrong.iter_mut().zip(found))
                .filter(|(_, found)| found.is_none())
                .for_each(|(wrong, _)| *wrong = None),
        }
        if wrong.iter().all(Option::is_none) {
            return;
        }
    }
    let wrong: Vec<&String> = wrong.iter().flatten().collect();
    panic!("{wrong:#?}");
}
