//! The times of `jobs/` and of `jobs/<task_id>/`, which several locations may have.
//!
//! Programs look at the mtime of a directory to see whether there is anything new in it, so such a directory shows the
//! newest times that it has in any location. The kernel may hold locks of others while it waits for attributes: a folder
//! is asked with a deadline, and at most once a second for each directory. One that does not answer in time counts with
//! the times that it had before; its answer counts when it comes.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::fs::{Statx, StatxTimestamp};
use rustix::io::Result;

use super::{Root, View};
use crate::sys::at;
use crate::sys::deadline::Asker;
use crate::workspace::jobs;

/// How long a request waits for the times of a folder's directory.
const FOLDER_REPLY_TIMEOUT: Duration = Duration::from_millis(100);

/// How long the times of a folder's directory are believed.
const TTL: Duration = Duration::from_secs(1);

/// Directories of one folder whose times are kept at most.
const DIRECTORIES_MAX: usize = 1024;

/// When a directory was changed: mtime and ctime.
type Changed = (StatxTimestamp, StatxTimestamp);

/// The times of one folder's directories.
#[derive(Debug, Default)]
pub(super) struct Times {
    /// By the task; of `jobs/` itself under an empty name.
    known: Arc<Mutex<HashMap<Box<OsStr>, Known>>>,
    asker: Asker,
}

#[derive(Debug, Clone, Copy)]
struct Known {
    /// `None` if the folder does not have the directory.
    changed: Option<Changed>,
    asked: Instant,
}

impl Times {
    /// The times of `jobs/`, or of a task, in the folder that has this root now, if it has one.
    fn get(&self, root: Option<Arc<Root>>, task: &OsStr) -> Option<Changed> {
        self.ask(root, [task].into_iter());
        let known = self.known.lock();
        known.get(task).and_then(|known| known.changed)
    }

    /// Asks for the times of directories that have not been asked for lately.
    fn ask<'a>(&self, root: Option<Arc<Root>>, tasks: impl Iterator<Item = &'a OsStr>) {
        let wanted: Vec<Box<OsStr>> = {
            let known = self.known.lock();
            let is_fresh = |task: &OsStr| {
                let known = known.get(task);
                known.is_some_and(|known| known.asked.elapsed() < TTL)
            };
            let wanted = tasks.filter(|task| !is_fresh(task)).map(Box::from);
            wanted.take(DIRECTORIES_MAX).collect()
        };
        let Some(root) = root.filter(|_| !wanted.is_empty()) else {
            return;
        };
        let known = self.known.clone();
        let asked = self.asker.ask(FOLDER_REPLY_TIMEOUT, move || {
            for task in wanted {
                // Otherwise unknown: what it was counts.
                if let Ok(changed) = look(&root, &task) {
                    note(&known, task, changed);
                }
            }
        });
        if let Err(error) = asked {
            tracing::trace!(%error, "a folder has not reported the times of its directories in time");
        }
    }
}

fn look(root: &Root, task: &OsStr) -> Result<Option<Changed>> {
    let jobs = at::absent(root.jobs())?;
    let stat = match jobs {
        None => None,
        Some(jobs) if task.is_empty() => Some(at::stat_fd(jobs)?),
        Some(jobs) => at::absent(at::stat(jobs, task))?.filter(at::is_dir),
    };
    Ok(stat.map(|stat| (stat.stx_mtime, stat.stx_ctime)))
}

fn note(known: &Mutex<HashMap<Box<OsStr>, Known>>, task: Box<OsStr>, changed: Option<Changed>) {
    let mut known = known.lock();
    if known.len() >= DIRECTORIES_MAX && !known.contains_key(&task) {
        known.retain(|_, known| known.asked.elapsed() < TTL);
        if known.len() >= DIRECTORIES_MAX {
            known.clear();
        }
    }
    let asked = Instant::now();
    known.insert(task, Known { changed, asked });
}

impl View {
    /// Makes the times of `jobs/`, or of a task, as they are in the location `place`, the newest of all locations.
    pub fn make_newest(&self, stat: &mut Statx, place: u8, task: Option<&OsStr>) {
        if task.is_some_and(|task| !jobs::is_job_entry(task)) {
            return;
        }
        for folder in self.folders() {
            if folder.index() == place {
                continue;
            }
            let root = folder.root().ok();
            if let Some((mtime, ctime)) = folder.times().get(root, task.unwrap_or(OsStr::new(""))) {
                stat.stx_mtime = later(stat.stx_mtime, mtime);
                stat.stx_ctime = later(stat.stx_ctime, ctime);
            }
        }
    }

    /// Asks each folder once for the times of several tasks, which are about to be listed with their attributes.
    pub fn ask_times<'a>(&self, tasks: impl Iterator<Item = &'a OsStr> + Clone) {
        for folder in self.folders() {
            let tasks = tasks.clone().filter(|task| jobs::is_job_entry(task));
            folder.times().ask(folder.root().ok(), tasks);
        }
    }
}

fn later(one: StatxTimestamp, other: StatxTimestamp) -> StatxTimestamp {
    match (one.tv_sec, one.tv_nsec) >= (other.tv_sec, other.tv_nsec) {
        true => one,
        false => other,
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::path::Path;
    use std::time::SystemTime;

    use super::*;
    use crate::settings::Mode;
    use crate::view::{FolderSpec, PRIMARY, ViewSpec};

    fn view(top: &Path) -> View {
        let folder = |name: &str| FolderSpec {
            mode: Mode::Backup,
            path: top.join(name),
        };
        let spec = ViewSpec {
            workspace: String::new(),
            primary: top.join("primary"),
            folders: vec![folder("one"), folder("two")],
            mountpoint: None,
        };
        View::open(spec, None).unwrap()
    }

    fn stat_of(path: &Path) -> Statx {
        at::stat_fd(File::open(path).unwrap()).unwrap()
    }

    fn age(path: &Path, seconds: u64) {
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        File::open(path).unwrap().set_modified(at).unwrap();
    }

    #[test]
    fn the_newest_times_of_all_locations_count() {
        let top = tempfile::tempdir().unwrap();
        for task in ["primary/jobs/t", "one/jobs/t", "two/jobs/t", "two/jobs/u"] {
            fs::create_dir_all(top.path().join(task)).unwrap();
        }
        for (path, seconds) in [
            ("primary/jobs", 1000),
            ("one/jobs", 3000),
            ("two/jobs", 2000),
            ("primary/jobs/t", 300),
            ("one/jobs/t", 200),
            ("two/jobs/t", 100),
            ("two/jobs/u", 900),
        ] {
            age(&top.path().join(path), seconds);
        }
        let view = view(top.path());
        let newest = |place: &str, index, task: Option<&str>| {
            let jobs = top.path().join(place).join("jobs");
            let path = task.map_or(jobs.clone(), |task| jobs.join(task));
            let mut stat = stat_of(&path);
            view.make_newest(&mut stat, index, task.map(OsStr::new));
            stat.stx_mtime.tv_sec
        };
        assert_eq!(newest("primary", PRIMARY, None), 3000);
        assert_eq!(newest("primary", PRIMARY, Some("t")), 300);
        assert_eq!(newest("two", 2, Some("t")), 200);
        assert_eq!(newest("two", 2, Some("u")), 900);
        // Asked again only after a while, and without an answer, what it was counts.
        age(&top.path().join("one/jobs/t"), 5000);
        let one = &view.folders()[0];
        let ago = Instant::now().checked_sub(TTL).unwrap();
        let expire = || {
            let mut known = one.times().known.lock();
            known.values_mut().for_each(|known| known.asked = ago);
        };
        assert_eq!(newest("primary", PRIMARY, Some("t")), 300);
        expire();
        assert_eq!(
            one.times().get(None, OsStr::new("t")).unwrap().0.tv_sec,
            200
        );
        assert_eq!(newest("primary", PRIMARY, Some("t")), 5000);
        fs::remove_dir(top.path().join("one/jobs/t")).unwrap();
        expire();
        assert_eq!(newest("primary", PRIMARY, Some("t")), 300);
    }

    #[test]
    fn times_of_few_directories_are_kept() {
        let top = tempfile::tempdir().unwrap();
        for location in ["primary", "one", "two"] {
            fs::create_dir_all(top.path().join(location).join("jobs")).unwrap();
        }
        let view = view(top.path());
        let one = &view.folders()[0];
        for number in 0..2 * DIRECTORIES_MAX {
            one.times()
                .get(one.root().ok(), OsStr::new(&number.to_string()));
        }
        assert!(one.times().known.lock().len() <= DIRECTORIES_MAX);
    }
}
