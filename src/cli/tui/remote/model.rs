//! The last answers of the server on the other machine, and the state of the connection.

use std::collections::HashMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use jiff::Timestamp;

use super::tab::RemoteTab;
use crate::archive::job_list::JobLocation;
use crate::cli::status::gather::Status;
use crate::cli::tui::jobs::JobTable;
use crate::cli::tui::read::Want;
use crate::cli::tui::row::Row;
use crate::cli::tui::theme::Theme;
use crate::remote::monitor::MonitorEvent;
use crate::remote::monitor::log::LogPart;
use crate::remote::monitor::model::{
    Answer, Notice, RemoteJob, RemoteProcess, RemoteQuestion, RemoteRun, RemoteService,
};
use crate::view::inventory::LocationSet;
use crate::workspace::job_files::JobState;
use crate::workspace::jobs::JobId;
use crate::workspace::layout::JOBS;

/// Of how many experiments all runs are asked for.
const EXPERIMENTS_MAX: usize = 50;

/// The state of a job that was killed from here.
const KILLED: &str = "killed";

/// What the threads report.
pub(super) enum RemoteFound {
    Monitor(MonitorEvent),
    Log(Want, Result<Option<LogPart>, String>),
    Status(Result<Status, String>),
}

/// How the connection is.
pub(super) enum LinkState {
    Connecting,
    Connected,
    /// Why it ended, and when there is a next one.
    Lost(String, Instant),
}

/// Changes a job, and its row in the list.
type Change<'a> = &'a dyn Fn(&mut RemoteJob, &mut Row);

/// A list of jobs.
#[derive(Default)]
pub(super) struct RemoteJobs {
    /// For the list on the screen.
    pub(super) table: JobTable,
    /// As the server has them, in the same order.
    pub(super) jobs: Vec<RemoteJob>,
}

/// Everything that is shown.
pub(super) struct RemoteModel {
    pub(super) theme: Theme,
    pub(super) started: Instant,
    pub(super) host: String,
    pub(super) workdir: PathBuf,
    pub(super) link: LinkState,
    /// Since when the server has not answered.
    pub(super) late: Option<Instant>,
    /// The run whose jobs are shown; `None`: the newest of each experiment.
    pub(super) run: Option<(String, String)>,
    jobs: Option<RemoteJobs>,
    orphans: Option<RemoteJobs>,
    strays: Option<RemoteJobs>,
    /// Changes when a list of jobs changes.
    pub(super) generation: u64,
    /// The newest run of each experiment.
    pub(super) newest: Option<Vec<RemoteRun>>,
    /// The runs of experiments that have several.
    runs: HashMap<String, Vec<RemoteRun>>,
    pub(super) services: Option<Vec<RemoteService>>,
    pub(super) process: Option<(JobId, Option<RemoteProcess>)>,
    /// Jobs that were killed, and when they had started: the server lists them as running until they are run again.
    killed: HashMap<JobId, Option<Timestamp>>,
    /// Questions that the server could not answer, and why.
    errors: HashMap<RemoteQuestion, String>,
}

impl RemoteModel {
    pub(super) fn new(host: &str, workdir: String) -> RemoteModel {
        RemoteModel {
            theme: Theme::of_terminal(),
            started: Instant::now(),
            host: host.to_owned(),
            workdir: PathBuf::from(workdir),
            link: LinkState::Connected,
            late: None,
            run: None,
            jobs: None,
            orphans: None,
            strays: None,
            generation: 0,
            newest: None,
            runs: HashMap::new(),
            services: None,
            process: None,
            killed: HashMap::new(),
            errors: HashMap::new(),
        }
    }

    /// The jobs of a tab.
    pub(super) fn jobs(&self, tab: RemoteTab) -> Option<&RemoteJobs> {
        match tab {
            RemoteTab::Orphans => self.orphans.as_ref(),
            RemoteTab::Strays => self.strays.as_ref(),
            _ => self.jobs.as_ref(),
        }
    }

    /// What is asked for to have the jobs of the first tab.
    pub(super) fn jobs_question(&self) -> RemoteQuestion {
        match self.run.clone() {
            Some((experiment, run)) => RemoteQuestion::RunJobs(experiment, run),
            None => RemoteQuestion::Jobs,
        }
    }

    /// Shows the jobs of a run, or those of the newest runs.
    pub(super) fn show_run(&mut self, run: Option<(String, String)>) {
        if self.run != run {
            self.run = run;
            self.jobs = None;
            self.generation += 1;
        }
    }

    /// A job of any list.
    pub(super) fn job(&self, id: &JobId) -> Option<(&RemoteJob, &Row)> {
        let lists = [&self.jobs, &self.orphans, &self.strays];
        let mut lists = lists.into_iter().flatten();
        lists.find_map(|list| {
            let index = list.table.find(id)?;
            list.jobs.get(index).zip(list.table.rows.get(index))
        })
    }

    /// Whether a job may still write to its log.
    pub(super) fn may_write(&self, id: &JobId) -> bool {
        let job = self.job(id);
        job.is_none_or(|(job, _)| !matches!(job.state, JobState::Done | JobState::Error))
    }

    /// The directory of a job on the other machine.
    pub(super) fn path(&self, id: &JobId) -> PathBuf {
        self.workdir.join(Path::new(JOBS)).join(id.path())
    }

    /// All runs, the newest of each experiment first.
    pub(super) fn all_runs(&self) -> Vec<(&RemoteRun, bool)> {
        let mut all = Vec::new();
        for newest in self.newest.iter().flatten() {
            all.push((newest, true));
            let runs = self.runs.get(&newest.experiment);
            let mut older: Vec<&RemoteRun> = runs.into_iter().flatten().collect();
            older.retain(|run| run.run != newest.run);
            older.sort_by(|a, b| b.run.cmp(&a.run));
            all.extend(older.into_iter().map(|run| (run, false)));
        }
        all
    }

    /// The questions to the server whose answers a tab shows.
    pub(super) fn questions(&self, tab: RemoteTab) -> Vec<RemoteQuestion> {
        match tab {
            // The experiments have the tags of the jobs.
            RemoteTab::Jobs => vec![self.jobs_question(), RemoteQuestion::Experiments],
            RemoteTab::Experiments => {
                let newest = self.newest.iter().flatten();
                let several = newest.filter(|run| run.runs > 1).take(EXPERIMENTS_MAX);
                let runs = several.map(|run| RemoteQuestion::Runs(run.experiment.clone()));
                std::iter::once(RemoteQuestion::Experiments)
                    .chain(runs)
                    .collect()
            }
            RemoteTab::Services => vec![RemoteQuestion::Services],
            RemoteTab::Orphans => vec![RemoteQuestion::Orphans],
            RemoteTab::Strays => vec![RemoteQuestion::Strays],
            // `xpmfs` there is asked.
            RemoteTab::Folders | RemoteTab::Archive => Vec::new(),
        }
    }

    /// Why the server could not answer one of these questions.
    pub(super) fn error(&self, questions: &[RemoteQuestion]) -> Option<String> {
        questions.iter().find_map(|question| {
            let why = self.errors.get(question)?;
            Some(format!("cannot read {}: {why}", question.subject()))
        })
    }

    /// Keeps an answer.
    pub(super) fn set(&mut self, question: RemoteQuestion, answer: Result<Answer, String>) {
        let answer = match answer {
            Ok(answer) => answer,
            Err(why) => {
                self.errors.insert(question, why);
                return;
            }
        };
        self.errors.remove(&question);
        match (question, answer) {
            (RemoteQuestion::Experiments, Answer::Runs(runs)) => {
                self.newest = Some(runs);
                self.name_jobs();
            }
            (RemoteQuestion::Runs(experiment), Answer::Runs(runs)) => {
                self.runs.insert(experiment, runs);
                let newest = self.newest.as_deref().unwrap_or_default();
                self.runs
                    .retain(|id, _| newest.iter().any(|run| run.experiment == *id));
                self.name_jobs();
            }
            (RemoteQuestion::Orphans, Answer::Jobs(jobs)) => self.orphans = Some(self.list(jobs)),
            (RemoteQuestion::Strays, Answer::Jobs(jobs)) => self.strays = Some(self.list(jobs)),
            // Not an answer about another run, which was shown before.
            (question, Answer::Jobs(jobs)) if question == self.jobs_question() => {
                self.jobs = Some(self.list(jobs));
            }
            (RemoteQuestion::Services, Answer::Services(services)) => {
                self.services = Some(services);
            }
            (RemoteQuestion::Process(job), Answer::Process(process)) => {
                self.process = Some((job, process));
            }
            _ => {}
        }
        self.generation += 1;
    }

    /// Forgets why questions could not be answered: they are asked again.
    pub(super) fn forget_errors(&mut self) {
        self.errors.clear();
    }

    /// Applies what has changed to the lists, before the server is asked again.
    pub(super) fn apply(&mut self, notice: &Notice) {
        let (id, change): (_, Change<'_>) = match notice {
            Notice::JobState(id, state, reason) => (id, &|job, row| {
                (job.state, row.state) = (state.clone(), state.clone());
                job.reason.clone_from(reason);
                row.reason = reason.clone().map(String::into_boxed_str);
            }),
            Notice::Progress(id, text) => (id, &|job, _| job.progress = Some(text.clone())),
            _ => return,
        };
        for list in [&mut self.jobs, &mut self.orphans, &mut self.strays] {
            let found = list.as_mut().and_then(|list| {
                let index = list.table.find(id)?;
                let job = list.jobs.get_mut(index)?;
                Some((job, list.table.rows.get_mut(index)?))
            });
            if let Some((job, row)) = found {
                change(job, row);
                self.generation += 1;
            }
        }
    }

    /// Shows a job as killed.
    pub(super) fn set_killed(&mut self, id: JobId) {
        let started = self.job(&id).and_then(|(job, _)| job.started);
        self.killed.insert(id, started);
        self.name_jobs();
        self.strays = self.strays.take().map(|list| self.list(list.jobs));
        self.generation += 1;
    }

    /// Gives the jobs the tags and experiments of the runs.
    fn name_jobs(&mut self) {
        if let Some(list) = self.jobs.take() {
            self.jobs = Some(self.list(list.jobs));
        }
    }

    fn list(&self, mut jobs: Vec<RemoteJob>) -> RemoteJobs {
        // A job of two experiments is listed twice.
        jobs.sort_by(|a, b| a.id.cmp(&b.id));
        jobs.dedup_by(|a, b| a.id == b.id);
        for job in &mut jobs {
            let killed = self.killed.get(&job.id);
            if job.state == JobState::Running && killed == Some(&job.started) {
                job.state = JobState::Other(KILLED.to_owned());
            }
        }
        let mut known: HashMap<&str, (&str, Arc<OsString>)> = HashMap::new();
        let others = self.runs.values().flatten();
        let others = others.filter(|it| {
            self.run
                .as_ref()
                .is_some_and(|(id, run)| *id == it.experiment && *run == it.run)
        });
        for run in self.newest.iter().flatten().chain(others) {
            let experiment = Arc::new(OsString::from(&run.experiment));
            for (hash, tags) in &run.tags {
                known.insert(hash, (tags, experiment.clone()));
            }
        }
        let row = |job: &RemoteJob| {
            let known = job.id.hash().to_str().and_then(|hash| known.get(hash));
            Row {
                id: job.id.clone(),
                state: job.state.clone(),
                reason: job.reason.clone().map(String::into_boxed_str),
                location: JobLocation::At(0),
                copies: LocationSet::default(),
                outdated: LocationSet::default(),
                changed: job.ended.or(job.started).map(|time| time.as_second()),
                tags: known.map_or_else(Box::default, |(tags, _)| Box::from(*tags)),
                experiment: known.map(|(_, experiment)| experiment.clone()),
                bytes: None,
            }
        };
        let table = JobTable {
            rows: jobs.iter().map(row).collect(),
            ..JobTable::default()
        };
        RemoteJobs { table, jobs }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(hash: &str, state: JobState) -> RemoteJob {
        RemoteJob {
            id: JobId::new("my.train", hash).unwrap(),
            state,
            reason: None,
            started: None,
            ended: None,
            progress: None,
            retries: 0,
        }
    }

    #[test]
    fn what_has_changed_shows_before_the_next_answer() {
        let mut model = RemoteModel::new("host", "/w".to_owned());
        let twice = vec![
            job("b", JobState::Waiting),
            job("a", JobState::Done),
            job("b", JobState::Waiting),
        ];
        model.set(RemoteQuestion::Jobs, Ok(Answer::Jobs(twice)));
        assert_eq!(model.jobs(RemoteTab::Jobs).unwrap().jobs.len(), 2);
        let id = JobId::new("my.train", "b").unwrap();
        model.apply(&Notice::JobState(id.clone(), JobState::Running, None));
        model.apply(&Notice::Progress(id.clone(), "40 %".to_owned()));
        let (job, row) = model.job(&id).unwrap();
        assert_eq!(
            (&job.state, &row.state),
            (&JobState::Running, &JobState::Running)
        );
        assert_eq!(job.progress.as_deref(), Some("40 %"));
    }

    #[test]
    fn a_job_that_was_killed_is_not_shown_as_running_until_it_starts_again() {
        let mut model = RemoteModel::new("host", "/w".to_owned());
        let mut running = job("a", JobState::Running);
        running.started = Some(Timestamp::UNIX_EPOCH);
        let answer = |job: &RemoteJob| Ok(Answer::Jobs(vec![job.clone()]));
        let state = |model: &RemoteModel| {
            model
                .job(&job("a", JobState::Done).id)
                .unwrap()
                .1
                .state
                .to_string()
        };
        model.set(RemoteQuestion::Jobs, answer(&running));
        model.set_killed(running.id.clone());
        assert_eq!(state(&model), "killed");
        model.set(RemoteQuestion::Jobs, answer(&running));
        assert_eq!(state(&model), "killed");
        running.started = Some(Timestamp::MAX);
        model.set(RemoteQuestion::Jobs, answer(&running));
        assert_eq!(state(&model), "running");
    }

    #[test]
    fn an_answer_about_a_run_that_is_not_shown_any_more_is_left_out() {
        let mut model = RemoteModel::new("host", "/w".to_owned());
        model.show_run(Some(("x".to_owned(), "1".to_owned())));
        let jobs = vec![job("a", JobState::Done)];
        model.set(RemoteQuestion::Jobs, Ok(Answer::Jobs(jobs.clone())));
        assert!(model.jobs(RemoteTab::Jobs).is_none());
        let question = model.jobs_question();
        model.set(question.clone(), Err("no".to_owned()));
        let error = model.error(std::slice::from_ref(&question));
        assert_eq!(error.as_deref(), Some("cannot read the jobs: no"));
        model.set(question.clone(), Ok(Answer::Jobs(jobs)));
        assert!(model.jobs(RemoteTab::Jobs).is_some());
        assert_eq!(model.error(&[question]), None);
    }
}
