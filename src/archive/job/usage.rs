//! When a job was last used, and how much space its removal frees.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{FileType, Statx};
use rustix::io::Result;

use crate::sys::at;
use crate::sys::dir_stack::DirStack;
use crate::sys::file_id::FileId;
use crate::sys::read_dir::{self, EntryBuffer};
use crate::transfer::{Size, Time};
use crate::workspace::internal::{classify, classify_nested, is_bookkeeping};
use crate::workspace::jobs::JobId;
use crate::workspace::layout::JOB_STATE;

/// The unit of `stx_blocks`, on every disk.
const BLOCK: u64 = 512;

/// How a job uses its disk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DiskUsage {
    /// The newest time of access or change of a file. Internal files and bookkeeping do not count: a plan that is run again, and
    /// programs that show the state of jobs, open these in every job. The access of a directory does not count either: a search
    /// lists all of them.
    pub last_used: Time,
    /// Files and bytes.
    pub size: Size,
    /// The bytes on the disk that are free when the job is removed. A file that has another name outside of the job stays.
    pub freed: u64,
}

/// The names of a file with several names that were found so far.
struct Names {
    found: u32,
    all: u32,
    taken: u64,
}

/// Looks at every entry of a job. Reads no file, and changes no time of access.
///
/// # Errors
///
/// An error of listing a directory.
pub fn of(job: &JobId, directory: &OwnedFd) -> Result<DiskUsage> {
    of_each(job, directory, &mut || {})
}

/// As [`of`]; calls a function after each entry.
///
/// # Errors
///
/// As [`of`].
pub fn of_each(job: &JobId, directory: &OwnedFd, each: &mut dyn FnMut()) -> Result<DiskUsage> {
    let mut usage = DiskUsage::default();
    let mut several: HashMap<FileId, Names> = HashMap::new();
    let mut stack = DirStack::new(at::open_to_list(directory, OsStr::new("."))?);
    // The directories that are still to be visited, at each level of the current path.
    let mut waiting: Vec<Vec<OsString>> = Vec::new();
    let mut entered: Vec<OsString> = Vec::new();
    let mut buffer = EntryBuffer::default();
    loop {
        let here = stack.current().clone();
        let mut names = Vec::new();
        while read_dir::read_once(&*here, &mut buffer, |entry| {
            names.push(entry.name().to_owned());
        })? {}
        let mut directories = Vec::new();
        for name in names {
            let stat = at::absent(at::stat_at(&*here, &name))?;
            each();
            let Some(stat) = stat else {
                continue;
            };
            if at::is_dir(&stat) {
                directories.push(name);
            } else {
                let counts = counts_as_use(job, &entered, &name, stat.stx_size);
                usage.add(&stat, counts, &mut several);
            }
        }
        if entered.is_empty() {
            usage.last_used = usage.last_used.max(mtime(&at::stat_fd(&*here)?));
        }
        waiting.push(directories);
        loop {
            let Some(level) = waiting.last_mut() else {
                return Ok(usage);
            };
            let Some(name) = level.pop() else {
                waiting.pop();
                if entered.pop().is_some() {
                    stack.up()?;
                }
                continue;
            };
            // Removed since, or replaced by something else.
            if let Some(fd) = at::absent(at::open_to_list(&**stack.current(), &name))? {
                stack.down(fd)?;
                entered.push(name);
                break;
            }
        }
    }
}

impl DiskUsage {
    fn add(&mut self, stat: &Statx, counts: bool, several: &mut HashMap<FileId, Names>) {
        self.size.files += 1;
        if counts {
            self.last_used = self.last_used.max(mtime(stat));
            // Listing shows the target of a symlink, which is an access to it.
            if is_file(stat) {
                self.last_used = self.last_used.max(time(stat.stx_atime));
            }
        }
        let taken = stat.stx_blocks.saturating_mul(BLOCK);
        if stat.stx_nlink <= 1 {
            self.size.bytes = self.size.bytes.saturating_add(stat.stx_size);
            self.freed = self.freed.saturating_add(taken);
            return;
        }
        let names = several.entry(FileId::of(stat)).or_insert(Names {
            found: 0,
            all: stat.stx_nlink,
            taken,
        });
        if names.found == 0 {
            self.size.bytes = self.size.bytes.saturating_add(stat.stx_size);
        }
        names.found += 1;
        if names.found == names.all {
            self.freed = self.freed.saturating_add(names.taken);
        }
    }
}

/// Whether a job is used by who uses a file of it: `name`, in the directories `entered` of the job.
#[must_use]
pub fn counts_as_use<N: AsRef<OsStr>>(job: &JobId, entered: &[N], name: &OsStr, size: u64) -> bool {
    let (bytes, size) = (name.as_bytes(), Some(size));
    match entered {
        [] => !classify(bytes, job.name().as_bytes(), false, size).is_internal(),
        [parent] if parent.as_ref() == JOB_STATE => {
            let class = classify_nested(bytes, job.name().as_bytes(), false, size);
            !class.is_internal() && !is_bookkeeping(bytes)
        }
        _ => true,
    }
}

fn is_file(stat: &Statx) -> bool {
    FileType::from_raw_mode(stat.stx_mode.into()) == FileType::RegularFile
}

fn mtime(stat: &Statx) -> Time {
    time(stat.stx_mtime)
}

fn time(time: rustix::fs::StatxTimestamp) -> Time {
    Time {
        seconds: time.tv_sec,
        nanoseconds: time.tv_nsec,
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File, FileTimes};
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    #[test]
    fn internal_files_and_links_to_outside_do_not_count() {
        let top = tempfile::tempdir().unwrap();
        let directory = top.path().join("job");
        fs::create_dir_all(directory.join(".experimaestro")).unwrap();
        fs::create_dir_all(directory.join("a/b/c")).unwrap();
        let write = |name: &str, length: usize, accessed: u64, changed: u64| {
            fs::write(directory.join(name), vec![1; length]).unwrap();
            let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
            let times = FileTimes::new();
            let times = times.set_accessed(at(accessed)).set_modified(at(changed));
            let file = File::open(directory.join(name)).unwrap();
            file.set_times(times).unwrap();
        };
        write("train.lock", 0, 9000, 9000);
        write("train.pid", 1, 9000, 9000);
        write(".experimaestro/status.json", 1, 9000, 9000);
        write("a/b/c/data", 100_000, 5000, 1000);
        write("shared", 100_000, 1000, 1000);
        fs::hard_link(directory.join("a/b/c/data"), directory.join("again")).unwrap();
        let old = FileTimes::new().set_modified(UNIX_EPOCH + Duration::from_secs(2000));
        let opened = File::open(&directory).unwrap();
        opened.set_times(old).unwrap();
        let of = || {
            let job = JobId::new("my.train", "1").unwrap();
            super::of(&job, &OwnedFd::from(File::open(&directory).unwrap())).unwrap()
        };
        let used = of();
        assert_eq!(used.last_used.seconds, 5000);
        assert_eq!((used.size.files, used.size.bytes), (6, 200_002));
        assert!((200_000..300_000).contains(&used.freed), "{used:?}");
        fs::hard_link(directory.join("shared"), top.path().join("outside")).unwrap();
        let freed = of().freed;
        assert!((100_000..150_000).contains(&freed), "{freed}");
    }
}
