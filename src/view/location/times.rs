//! The times of one folder's `jobs/` and `jobs/<task_id>/`.
//!
//! The kernel may hold locks that other processes need while it waits for attributes: a folder is asked with a deadline,
//! and at most once a second for each directory. A late answer counts when it comes, and until then the previous one.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::fs::StatxTimestamp;
use rustix::io::Result;

use super::root::Root;
use crate::sys::at;
use crate::sys::deadline::Asker;

/// How long a request waits for the times of a folder's directory.
const TIMES_TIMEOUT: Duration = Duration::from_millis(100);

/// How long the times of a folder's directory are used before it is asked again.
const TTL: Duration = Duration::from_secs(1);

/// The maximum number of directories of one folder whose times are kept.
const DIRECTORIES_MAX: usize = 1024;

/// The mtime and the ctime of a directory.
pub(in crate::view) type Changed = (StatxTimestamp, StatxTimestamp);

/// The times of one folder's directories.
#[derive(Debug, Default)]
pub(in crate::view) struct Times {
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
    /// The times of `jobs/` (an empty name) or of a task, in a folder with this root.
    pub(in crate::view) fn get(&self, root: Option<Arc<Root>>, task: &OsStr) -> Option<Changed> {
        self.ask(root, [task].into_iter());
        let known = self.known.lock();
        known.get(task).and_then(|known| known.changed)
    }

    /// Asks for the times of directories that are not up to date.
    pub(in crate::view) fn ask<'a>(
        &self,
        root: Option<Arc<Root>>,
        tasks: impl Iterator<Item = &'a OsStr>,
    ) {
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
        let asked = self.asker.ask(TIMES_TIMEOUT, move || {
            for task in wanted {
                // After an error, the previous times count.
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

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::path::Path;
    use std::time::SystemTime;

    use rustix::fs::Statx;

    use super::*;
    use crate::settings::Mode;
    use crate::view::{FolderSpec, PRIMARY, View, ViewSpec};

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
