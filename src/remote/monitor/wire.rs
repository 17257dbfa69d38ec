//! What the server's answers are made of, with the names that experimaestro gives to them. What may be missing or null is optional.

use std::collections::HashMap;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;

use super::model::{RemoteJob, RemoteProcess, RemoteRun, RemoteService};
use crate::workspace::filter::tag_text;
use crate::workspace::job_files::JobState;
use crate::workspace::jobs::JobId;
use crate::workspace::python_json::time;

#[derive(Deserialize)]
pub(super) struct WireJob {
    task_id: String,
    job_id: String,
    #[serde(default)]
    state: Option<JobState>,
    #[serde(default)]
    scheduler_state: Option<JobState>,
    #[serde(default)]
    failure_reason: Option<String>,
    #[serde(default)]
    scheduler_failure_reason: Option<String>,
    #[serde(default, deserialize_with = "time")]
    started_time: Option<Timestamp>,
    #[serde(default, deserialize_with = "time")]
    ended_time: Option<Timestamp>,
    #[serde(default)]
    retry_count: Option<u64>,
    #[serde(default)]
    progress: Option<Vec<WireProgress>>,
}

#[derive(Deserialize)]
pub(super) struct WireProgress {
    #[serde(default)]
    pub(super) progress: Option<f64>,
    #[serde(default)]
    pub(super) desc: Option<String>,
}

impl WireProgress {
    pub(super) fn text(&self) -> String {
        let percent = self.progress.unwrap_or_default() * 100.0;
        let desc = self.desc.as_deref().unwrap_or_default();
        format!("{percent:.0} % {desc}").trim_end().to_owned()
    }
}

impl WireJob {
    pub(super) fn job(self) -> Option<RemoteJob> {
        let own = self.state.unwrap_or(JobState::Unscheduled);
        let state = match (own, self.scheduler_state) {
            (JobState::Unscheduled, Some(scheduler)) => scheduler,
            (own, _) => own,
        };
        let progress = self.progress.filter(|_| state == JobState::Running);
        let levels = progress.unwrap_or_default();
        let levels: Vec<String> = levels.iter().map(WireProgress::text).collect();
        Some(RemoteJob {
            id: JobId::new(self.task_id, self.job_id).ok()?,
            state,
            reason: self.failure_reason.or(self.scheduler_failure_reason),
            started: self.started_time,
            ended: self.ended_time,
            progress: (!levels.is_empty()).then(|| levels.join(", ")),
            retries: self.retry_count.unwrap_or_default(),
        })
    }
}

#[derive(Deserialize)]
pub(super) struct WireRun {
    experiment_id: String,
    #[serde(default)]
    run_id: Option<String>,
    #[serde(default)]
    status: Option<String>,
    #[serde(default)]
    hostname: Option<String>,
    #[serde(default, deserialize_with = "time")]
    started_at: Option<Timestamp>,
    #[serde(default)]
    job_states: Option<HashMap<String, JobState>>,
    #[serde(default)]
    job_infos: Option<HashMap<String, WireInfo>>,
    #[serde(default)]
    runs_count: Option<u64>,
}

#[derive(Deserialize)]
pub(super) struct WireInfo {
    #[serde(default)]
    tags: Option<HashMap<String, Value>>,
}

impl WireRun {
    pub(super) fn run(self) -> RemoteRun {
        let states = self.job_states.unwrap_or_default();
        let infos = self.job_infos.unwrap_or_default();
        let count = |state: JobState| states.values().filter(|it| **it == state).count();
        let mut all = RemoteRun {
            experiment: self.experiment_id,
            run: self.run_id.unwrap_or_default(),
            status: self.status.unwrap_or_default(),
            hostname: self.hostname,
            started: self.started_at,
            jobs: infos.len().max(states.len()),
            done: count(JobState::Done),
            failed: count(JobState::Error),
            runs: self.runs_count.unwrap_or(1),
            tags: HashMap::new(),
        };
        for (hash, info) in infos {
            let tags = info.tags.unwrap_or_default();
            let mut tags: Vec<String> = tags
                .iter()
                .map(|(name, value)| format!("{name}={}", tag_text(value)))
                .collect();
            tags.sort();
            all.tags.insert(hash, tags.join("\n").into_boxed_str());
        }
        all
    }
}

#[derive(Deserialize)]
pub(super) struct WireService {
    service_id: String,
    #[serde(default)]
    description: Option<String>,
    #[serde(default)]
    url: Option<String>,
    #[serde(default)]
    experiment_id: Option<String>,
    #[serde(default)]
    run_id: Option<String>,
}

impl WireService {
    pub(super) fn service(self) -> RemoteService {
        RemoteService {
            id: self.service_id,
            description: self.description.unwrap_or_default(),
            url: self.url,
            experiment: self.experiment_id.unwrap_or_default(),
            run: self.run_id.unwrap_or_default(),
        }
    }
}

#[derive(Deserialize)]
pub(super) struct WireProcess {
    #[serde(default)]
    pid: Value,
    #[serde(default, rename = "type")]
    kind: Option<String>,
    #[serde(default)]
    running: bool,
    #[serde(default)]
    cpu_percent: Option<f64>,
    #[serde(default)]
    memory_mb: Option<f64>,
    #[serde(default)]
    num_threads: Option<i64>,
}

impl WireProcess {
    pub(super) fn process(self) -> RemoteProcess {
        RemoteProcess {
            pid: self.pid.as_i64().unwrap_or_default(),
            kind: self.kind.unwrap_or_default(),
            running: self.running,
            cpu: self.cpu_percent,
            memory: self.memory_mb,
            threads: self.num_threads,
        }
    }
}

#[derive(Deserialize)]
pub(super) struct WireActed {
    pub(super) success: bool,
    #[serde(default)]
    pub(super) message: Option<String>,
    #[serde(default)]
    pub(super) error: Option<String>,
}
