//! Finds the jobs of a listing that no folder has, with one question to each folder, so that looking them up asks no folder.

use std::ffi::OsStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::io::Result;

use super::judge::{COMPARISON_TIMEOUT, NO_COPY_VALID};
use super::record;
use crate::sys::at;
use crate::view::{Location, View};
use crate::workspace::jobs::JobId;

/// How long a folder is asked about the jobs of one listing: the rest are asked for when they are looked up.
const ASKED_MAX: Duration = Duration::from_millis(500);

impl View {
    /// Finds out which of these jobs of a task no folder has. A folder that does not reply in time counts as one without the jobs, as in all
    /// lookups.
    pub fn find_jobs_without_copy<'a>(
        &self,
        task: &OsStr,
        hashes: impl Iterator<Item = &'a OsStr>,
    ) {
        if self.folders().is_empty() {
            return;
        }
        let Ok(primary) = self.primary().root() else {
            return;
        };
        let judgements = &self.judgements;
        let records = record::dir_of_task(&primary, task);
        // A job with a record has a copy.
        let is_recorded = |job: &JobId| {
            let exists = |dir| at::stat(dir, job.hash()).is_ok();
            records.as_ref().is_some_and(exists)
        };
        let jobs = hashes.filter_map(|hash| JobId::new(task, hash).ok());
        let jobs: Arc<[JobId]> = jobs
            .filter(|job| !judgements.has_young(job) && !is_recorded(job))
            .collect();
        if jobs.is_empty() {
            return;
        }
        let questions = self.folders().iter().map(|folder| {
            let (folder, jobs) = (folder.clone(), jobs.clone());
            move || which_exist(&folder, &jobs)
        });
        let answers = judgements.asker.ask_all(COMPARISON_TIMEOUT, questions);
        let answers: Vec<Vec<bool>> = answers.into_iter().flatten().flatten().collect();
        let is_absent = |at| answers.iter().all(|exist| exist.get(at) == Some(&false));
        let absent = (0..).zip(&*jobs).filter(|(at, _)| is_absent(*at));
        judgements.insert_without_copy(absent.map(|(_, job)| job), NO_COPY_VALID);
    }
}

/// Which of the jobs of a task exist in a folder: as many as it could be asked about, in order.
fn which_exist(folder: &Location, jobs: &[JobId]) -> Result<Vec<bool>> {
    let Some(first) = jobs.first() else {
        return Ok(Vec::new());
    };
    let began = Instant::now();
    let root = folder.root()?;
    let Some(task) = at::absent(root.task(first.task_id()))? else {
        return Ok(vec![false; jobs.len()]);
    };
    let asked = jobs.iter().take_while(|_| began.elapsed() < ASKED_MAX);
    let exists = |job: &JobId| Ok(at::absent(at::stat(&*task, job.hash()))?.is_some());
    asked.map(exists).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;
    use crate::settings::Mode;
    use crate::view::purged::judgements::PurgedFinding;
    use crate::view::purged::record::Stamp;
    use crate::view::{FolderSpec, ViewSpec};

    fn view(top: &Path, folders: &[&str]) -> View {
        let folder = |name: &&str| FolderSpec {
            mode: Mode::Backup,
            path: top.join(name),
        };
        let spec = ViewSpec {
            workspace: String::new(),
            primary: top.join("primary"),
            folders: folders.iter().map(folder).collect(),
            mountpoint: None,
        };
        View::open(spec, None).unwrap()
    }

    #[test]
    fn jobs_that_a_folder_may_have_are_left_to_their_lookups() {
        let top = tempfile::tempdir().unwrap();
        let make = |path: &str| fs::create_dir_all(top.path().join(path)).unwrap();
        let of_primary = ["alone", "copied", "recorded", "judged"];
        for job in of_primary {
            make(&format!("primary/jobs/t/{job}"));
        }
        make("first/jobs/other");
        make("second/jobs/t/copied");
        make("primary/.xpmfs/archive/stamps/t/recorded");
        let view = view(top.path(), &["first", "second", "missing"]);
        let id = |hash: &str| JobId::new("t", hash).unwrap();
        let finding = |job: &str| {
            let latest = view.judgements.latest(&id(job));
            latest.map(|it| it.finding)
        };
        let hour = Duration::from_secs(3600);
        let judged = PurgedFinding::Whole;
        view.judgements
            .insert(&id("judged"), Stamp::default(), judged, hour);
        view.find_jobs_without_copy(OsStr::new("t"), of_primary.iter().map(OsStr::new));
        assert_eq!(finding("alone"), Some(PurgedFinding::NoCopy));
        assert_eq!(finding("copied"), None);
        assert_eq!(finding("recorded"), None);
        assert_eq!(finding("judged"), Some(judged));
    }
}
