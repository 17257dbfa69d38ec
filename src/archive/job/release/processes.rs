//! Finds the processes that have files of jobs open, for many jobs by one look at all processes.
//!
//! A look at all processes takes seconds on a machine with thousands of them, and each job that is released needs its result twice before
//! it is renamed and once after that, while programs that change the job wait. So one look serves all jobs:
//!
//! 1. Before the rename, the result only saves work, and one that is a little old will do.
//! 2. After the rename, the look must begin when the grace period of the job has passed: it serves all jobs for which that is so.
//! 3. A process that hangs in the kernel may make the look hang. Then no job is released: see [`SCAN_TIMEOUT`].

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use crate::archive::env::Env;
use crate::sys::at;
use crate::sys::deadline::Asker;
use crate::sys::debug_setting;
use crate::sys::open_files::{self, User};
use crate::workspace::jobs::JobId;
use crate::workspace::layout::{JOBS, RELEASED, XPMFS};

/// How long a look at all processes may take.
const SCAN_TIMEOUT: Duration = Duration::from_secs(30);

/// How many times longer than it took a result serves to save work: looking then takes a tenth of the time at most.
const REUSE: u32 = 9;

/// The most jobs in use that are kept. Of more, the look finds too many to be sure of any.
const USED_MAX: usize = 100_000;

/// While a look hangs, no other one is begun.
static ASKER: LazyLock<Asker> = LazyLock::new(Asker::default);

/// [`SCAN_TIMEOUT`], or the milliseconds that a test of a debug build sets.
fn timeout() -> Duration {
    debug_setting::milliseconds("XPMFS_TEST_SCAN_MS", SCAN_TIMEOUT)
}

/// The processes that use jobs of a workspace.
#[derive(Debug, Default)]
pub struct Processes {
    last: Option<Scan>,
}

/// One look at all processes.
#[derive(Debug)]
struct Scan {
    began: Instant,
    took: Duration,
    /// A process for each job in use; `None` if that could not be found out.
    users: Option<HashMap<JobId, User>>,
}

impl Processes {
    /// Which process has a file of the job open, if one does. The result may be a little old.
    pub(in crate::archive) fn user_lately(&mut self, env: &Env<'_>, job: &JobId) -> Option<String> {
        let is_recent = |last: &Scan| last.began.elapsed() <= last.took * (REUSE + 1);
        match self.last.as_ref().filter(|last| is_recent(last)) {
            Some(last) => last.user(job),
            None => self.user_since(env, job, Instant::now()),
        }
    }

    /// Which process has a file of the job open, as found by a look that began at `not_before` or later.
    pub(super) fn user_since(
        &mut self,
        env: &Env<'_>,
        job: &JobId,
        not_before: Instant,
    ) -> Option<String> {
        let last = self.last.take().filter(|last| last.began >= not_before);
        let last = last.unwrap_or_else(|| scan(env));
        self.last.insert(last).user(job)
    }
}

fn scan(env: &Env<'_>) -> Scan {
    let tops = tops(env);
    let began = Instant::now();
    let users = ASKER.ask(timeout(), move || users_below(&tops));
    Scan {
        began,
        took: began.elapsed(),
        users: users.ok().flatten(),
    }
}

impl Scan {
    /// Which process used the job, if one did or may have done so.
    fn user(&self, job: &JobId) -> Option<String> {
        let Some(users) = &self.users else {
            let why = "which processes use it could not be found out: there are too many, or one of them hangs";
            return Some(why.to_owned());
        };
        let User { pid, name, path } = users.get(job)?;
        let path = path.display();
        Some(format!("the process {name} ({pid}) uses {path}"))
    }
}

/// A process for each job with a used file below one of these directories of tasks. `None` for too many.
fn users_below(tops: &[PathBuf]) -> Option<HashMap<JobId, User>> {
    let mut users = HashMap::new();
    open_files::each_user(tops, is_xpmfs, |user| {
        if users.len() < USED_MAX
            && let Some(job) = tops.iter().find_map(|top| job_at(top, &user.path))
        {
            users.entry(job).or_insert(user);
        }
    });
    (users.len() < USED_MAX).then_some(users)
}

/// The job that a path leads to or into, below a directory of tasks.
fn job_at(top: &Path, path: &Path) -> Option<JobId> {
    let mut names = path.strip_prefix(top).ok()?.components();
    let (task, hash) = (names.next()?, names.next()?);
    JobId::new(task.as_os_str(), hash.as_os_str()).ok()
}

/// The directories of tasks in the primary and in its mounts, and that of released jobs, by all paths that lead there.
fn tops(env: &Env<'_>) -> Vec<PathBuf> {
    let primary = env.view.primary();
    let mountpoints = env.hooks.mountpoints().into_iter();
    let mut tops: Vec<PathBuf> = mountpoints.map(|root| root.join(JOBS)).collect();
    let mut roots = vec![primary.path().to_owned()];
    // The settings may lead to the primary through a symlink.
    if let Ok(root) = primary.root() {
        roots.extend(std::fs::read_link(at::proc_path(root.fd())));
        tops.extend(root.jobs_paths().iter().cloned());
        // `jobs` may be a symlink.
        let jobs = root
            .jobs()
            .map(|jobs| std::fs::read_link(at::proc_path(&*jobs)));
        tops.extend(jobs.into_iter().flatten());
    }
    for root in roots {
        tops.push(root.join(XPMFS).join(RELEASED));
        tops.push(root.join(JOBS));
    }
    tops.sort();
    tops.dedup();
    tops
}

/// Whether a process of this name is one of ours: a daemon keeps directories open, and the programs that use them through its mount
/// are found by themselves. The kernel keeps 15 bytes of a name.
fn is_xpmfs(name: &str) -> bool {
    name.starts_with("xpmfs") || name.starts_with("mount.fuse.xpmf")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_used_path_names_its_job() {
        let job = |path: &str| job_at(Path::new("/w/jobs"), Path::new(path));
        let expected = JobId::new("t", "h").unwrap();
        assert_eq!(job("/w/jobs/t/h"), Some(expected.clone()));
        assert_eq!(job("/w/jobs/t/h/data/file (deleted)"), Some(expected));
        assert_eq!(job("/w/jobs/t"), None);
        assert_eq!(job("/w/jobs2/t/h"), None);
    }

    #[test]
    fn a_result_that_is_too_old_is_not_used() {
        let top = tempfile::tempdir().unwrap();
        let tops = vec![top.path().canonicalize().unwrap()];
        std::fs::create_dir_all(tops[0].join("t/h")).unwrap();
        assert_eq!(users_below(&tops), Some(HashMap::new()));
        let mut sleep = std::process::Command::new("sleep");
        let mut process = sleep
            .arg("60")
            .current_dir(tops[0].join("t/h"))
            .spawn()
            .unwrap();
        let job = JobId::new("t", "h").unwrap();
        let users = users_below(&tops).unwrap();
        process.kill().unwrap();
        process.wait().unwrap();
        assert_eq!(users.get(&job).map(|user| &*user.name), Some("sleep"));
    }
}
