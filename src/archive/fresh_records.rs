//! Keeps the records in the primary's `.xpmfs` younger than the files that a purge by age removes.
//!
//! Scratch disks are purged file by file, by the time of the last access or change. Most records are written once and then only looked
//! up by name, so a purge would take them: pinned jobs would be released, and files that a user removed from archived jobs would come
//! back. A background thread of each writable mount and of `archive --watch` therefore sets both times of old records to now, a moment
//! after its start and then daily.
//!
//! Not touched are the jobs' own files in `.xpmfs` (`internal`, `released`) and the records of compared times (`archive/stamps`): there is
//! one for each archived job, and a lost one only has its job compared again.

use std::ffi::{OsStr, OsString};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{AtFlags, FileType, Statx, Timestamps};
use rustix::io::Result;

use super::pins::PINS;
use crate::sys::at;
use crate::sys::disk_time::NOW;
use crate::sys::priority::lower_priority;
use crate::sys::read_dir::{self, EntryBuffer};
use crate::view::{Location, View};
use crate::workspace::layout::{ARCHIVE, STAMPS, XPMFS};

/// The time before the first pass: a mount begins without this work.
const START: Duration = Duration::from_secs(2);

/// The time between two passes.
const INTERVAL: Duration = Duration::from_secs(24 * 3600);

/// How often the thread checks whether the workspace is still open.
const CHECK_INTERVAL: Duration = Duration::from_secs(60);

/// The age from which the times of a record are set. Shorter than the interval, so that each pass renews the records of the one before;
/// another node that makes a pass soon after finds nothing to do.
const OLD: Duration = Duration::from_secs(12 * 3600);

/// How many records are looked at before a pause, which leaves the disk to others.
const LOOKS: usize = 100;
const PAUSE: Duration = Duration::from_millis(10);

/// How deep the records lie: `archive/damaged/<folder>/<task_id>/<hash>`.
const DEPTH_MAX: usize = 6;

/// Starts a thread that keeps the records of a workspace fresh. It ends with the view.
pub fn start(view: &Arc<View>) {
    let Some(primary) = view.locations().first().map(Arc::downgrade) else {
        return;
    };
    let thread = std::thread::Builder::new().name("xpmfs-fresh".to_owned());
    if let Err(error) = thread.spawn(move || run(&primary)) {
        tracing::error!(
            "the records of the workspace grow old, and a purge may remove them: starting a thread failed: {error}"
        );
    }
}

fn run(primary: &Weak<Location>) {
    lower_priority();
    std::thread::sleep(START);
    let mut last = None;
    while let Some(primary) = primary.upgrade() {
        let now = SystemTime::now();
        // Not by a monotonic clock, which stands still while the machine is suspended.
        let is_due = last.is_none_or(|last| {
            now.duration_since(last)
                .is_ok_and(|passed| passed >= INTERVAL)
        });
        if is_due {
            renew(&primary);
            last = Some(now);
        }
        drop(primary);
        std::thread::sleep(CHECK_INTERVAL);
    }
}

/// Sets the times of the old records in a primary to now.
pub fn renew(primary: &Location) {
    let mut pass = Pass::default();
    if let Err(error) = pass.top(primary) {
        let path = primary.path().join(XPMFS);
        tracing::debug!("cannot renew the records in {}: {error}", path.display());
    }
    if pass.renewed > 0 {
        tracing::debug!("{} old records of the workspace renewed", pass.renewed);
    }
    if let Some(error) = pass.failed {
        // For instance records of another user. That user's own mounts renew them.
        tracing::debug!("some records of the workspace could not be renewed: {error}");
    }
}

#[derive(Default)]
struct Pass {
    looks: usize,
    renewed: usize,
    failed: Option<rustix::io::Errno>,
}

impl Pass {
    fn top(&mut self, primary: &Location) -> Result<()> {
        let root = primary.root()?;
        let Some(own) = at::absent(at::open_dir(root.fd(), OsStr::new(XPMFS)))? else {
            return Ok(());
        };
        self.directory(&own, OsStr::new(PINS), DEPTH_MAX);
        let Some(archive) = at::absent(at::open_dir(&own, OsStr::new(ARCHIVE)))? else {
            return Ok(());
        };
        each_entry(&archive, |name, kind| match kind {
            FileType::Directory if name != STAMPS => self.directory(&archive, name, DEPTH_MAX),
            // The time of other files here has a meaning: when periodic work was last done.
            FileType::RegularFile if name.as_bytes().ends_with(JOURNAL.as_bytes()) => {
                self.record(&archive, name);
            }
            _ => {}
        })
    }

    /// Renews the records in a directory and in those below it. One that cannot be read is left out.
    fn directory(&mut self, parent: impl AsFd, name: &OsStr, depth: usize) {
        let read = at::open_dir(parent, name).and_then(|dir| {
            each_entry(&dir, |name, kind| match kind {
                FileType::Directory if depth > 0 => self.directory(&dir, name, depth - 1),
                FileType::RegularFile => self.record(&dir, name),
                _ => {}
            })
        });
        if let Err(error) = at::absent(read) {
            self.failed = Some(error);
        }
    }

    fn record(&mut self, dir: impl AsFd, name: &OsStr) {
        self.looks += 1;
        if self.looks.is_multiple_of(LOOKS) {
            std::thread::sleep(PAUSE);
        }
        // A record may be removed or replaced meanwhile.
        let Ok(stat) = at::stat(&dir, name) else {
            return;
        };
        if !is_old(&stat) {
            return;
        }
        let times = Timestamps {
            last_access: NOW,
            last_modification: NOW,
        };
        let set = rustix::fs::utimensat(&dir, name, &times, AtFlags::SYMLINK_NOFOLLOW);
        match at::absent(set) {
            Ok(Some(())) => self.renewed += 1,
            Ok(None) => {}
            Err(error) => self.failed = Some(error),
        }
    }
}

/// The suffix of the journals of archiving.
const JOURNAL: &str = ".jsonl";

/// Whether a file was last accessed or last changed so long ago that a purge by either time could come to it.
fn is_old(stat: &Statx) -> bool {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = i64::try_from(now.unwrap_or_default().as_secs()).unwrap_or(i64::MAX);
    let oldest = stat.stx_atime.tv_sec.min(stat.stx_mtime.tv_sec);
    now.saturating_sub(oldest) >= OLD.as_secs().cast_signed()
}

/// Calls `each` with the name and the type of each entry of a directory.
fn each_entry(dir: impl AsFd, mut each: impl FnMut(&OsStr, FileType)) -> Result<()> {
    let list = at::open_to_list(dir, OsStr::new("."))?;
    let mut buffer = EntryBuffer::default();
    loop {
        let mut found: Vec<(OsString, FileType)> = Vec::new();
        let more = read_dir::read_once(&list, &mut buffer, |entry| {
            found.push((entry.name().to_owned(), entry.kind()));
        })?;
        for (name, mut kind) in found {
            // Some file systems do not store the type in the directory.
            if kind == FileType::Unknown
                && let Ok(stat) = at::stat(&list, &name)
            {
                kind = FileType::from_raw_mode(stat.stx_mode.into());
            }
            each(&name, kind);
        }
        if !more {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File, FileTimes};
    use std::path::{Path, PathBuf};

    use super::*;
    use crate::view::ViewSpec;

    const LONG_AGO: Duration = Duration::from_secs(60 * 24 * 3600);

    fn make(top: &Path, name: &str, age: Duration) {
        let path = top.join(XPMFS).join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, name).unwrap();
        let then = SystemTime::now() - age;
        let times = FileTimes::new().set_accessed(then).set_modified(then);
        File::open(path).unwrap().set_times(times).unwrap();
    }

    fn primary(top: &Path) -> Arc<Location> {
        fs::create_dir_all(top.join("jobs")).unwrap();
        let spec = ViewSpec {
            workspace: "test".to_owned(),
            primary: top.canonicalize().unwrap(),
            folders: Vec::new(),
            mountpoint: None,
        };
        View::open(spec, None).unwrap().locations()[0].clone()
    }

    /// How long ago a file was last changed, and last accessed.
    fn ages(top: &Path, name: &str) -> [Duration; 2] {
        let meta = fs::metadata(top.join(XPMFS).join(name)).unwrap();
        let times = [meta.modified().unwrap(), meta.accessed().unwrap()];
        times.map(|time| time.elapsed().unwrap_or_default())
    }

    #[test]
    fn old_records_are_renewed_and_their_contents_stay() {
        let top = tempfile::tempdir().unwrap();
        let top = top.path();
        let renewed = [
            "pins/t/h",
            "archive/removed/t/h",
            "archive/kept/t/h",
            "archive/opt-outs/t/h",
            "archive/folders/f",
            "archive/verified/f",
            "archive/known/f/t",
            "archive/experiments/f/e",
            "archive/damaged/f/t/h",
            "archive/damaged-items/f/h",
            "archive/queue.jsonl",
        ];
        let others = [
            "archive/stamps/t/h",
            "archive/release-search",
            "internal/t/h/t.lock",
            "released/t/h/t.done",
        ];
        for name in renewed.iter().chain(&others) {
            make(top, name, LONG_AGO);
        }
        renew(&primary(top));
        for name in renewed {
            for age in ages(top, name) {
                assert!(age < OLD, "{name} is {age:?} old");
            }
            let text = fs::read_to_string(top.join(XPMFS).join(name)).unwrap();
            assert_eq!(text, name);
        }
        for name in others {
            for age in ages(top, name) {
                assert!(age > LONG_AGO / 2, "{name} is {age:?} old");
            }
        }
    }

    #[test]
    fn young_records_and_symlinks_stay_as_they_are() {
        let top = tempfile::tempdir().unwrap();
        let top = top.path();
        let hour = Duration::from_secs(3600);
        make(top, "pins/t/young", hour);
        make(top, "elsewhere", LONG_AGO);
        let elsewhere: PathBuf = top.join(XPMFS).join("elsewhere");
        std::os::unix::fs::symlink(&elsewhere, top.join(".xpmfs/pins/t/link")).unwrap();
        std::os::unix::fs::symlink(top.join(XPMFS), top.join(".xpmfs/pins/all")).unwrap();
        renew(&primary(top));
        assert!(ages(top, "pins/t/young").iter().all(|age| *age >= hour));
        assert!(ages(top, "elsewhere").iter().all(|age| *age > LONG_AGO / 2));
    }

    #[test]
    fn more_records_than_are_read_at_a_time_are_renewed() {
        let top = tempfile::tempdir().unwrap();
        let top = top.path();
        let name = |number| format!("pins/t/{number:064x}");
        for number in 0..700 {
            make(top, &name(number), LONG_AGO);
        }
        renew(&primary(top));
        let is_young = |number| ages(top, &name(number)).iter().all(|age| *age < OLD);
        assert!((0..700).all(is_young));
    }
}
