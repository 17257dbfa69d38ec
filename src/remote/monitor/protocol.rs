//! The messages: JSON-RPC 2.0, one on each line, as `experimaestro/scheduler/remote/protocol.py` has them. Version 2.0 of the protocol.
//!
//! Python writes `Infinity` and `NaN`, which JSON lacks, in tags.

use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::{Value, json};

use super::model::{Answer, Notice, RemoteQuestion};
use super::wire::{WireActed, WireJob, WireProcess, WireProgress, WireRun, WireService};
use crate::workspace::job_files::JobState;
use crate::workspace::jobs::JobId;
use crate::workspace::python_json::object;

/// The version of the protocol that is spoken here.
pub(super) const VERSION: &str = "2.0";

/// The question that is asked first.
pub(super) const HANDSHAKE: &str = "get_sync_info";

/// What a line is.
pub(super) enum Envelope {
    /// The answer to the question with this number, or the server's error.
    Answer(u64, Option<String>),
    Notice(Notice),
    /// Not a message of the protocol.
    Stray,
}

/// The server's answer to the first question.
#[derive(Debug, Deserialize)]
pub(super) struct Greeting {
    #[serde(default)]
    pub(super) protocol_version: Value,
    #[serde(default)]
    pub(super) workspace_path: Option<String>,
}

/// A request as a line.
pub(super) fn request(number: u64, method: &str, params: &Value) -> Vec<u8> {
    let request = json!({"jsonrpc": "2.0", "id": number, "method": method, "params": params});
    let mut line = request.to_string().into_bytes();
    line.push(b'\n');
    line
}

/// The method and the parameters of a question. `refresh`: the server is to look at the disk again.
pub(super) fn method(question: &RemoteQuestion, refresh: bool) -> (&'static str, Value) {
    let job = |id: &JobId| json!({"task_id": id.task_id().to_string_lossy(), "job_id": id.hash().to_string_lossy()});
    let (method, mut params) = match question {
        RemoteQuestion::Experiments => ("get_experiments", json!({})),
        RemoteQuestion::Runs(id) => ("get_experiment_runs", json!({"experiment_id": id})),
        RemoteQuestion::Jobs => ("get_all_jobs", json!({})),
        RemoteQuestion::RunJobs(id, run) => {
            ("get_jobs", json!({"experiment_id": id, "run_id": run}))
        }
        RemoteQuestion::Services => ("get_services", json!({})),
        RemoteQuestion::Orphans => ("get_orphan_jobs", json!({})),
        RemoteQuestion::Strays => ("get_stray_jobs", json!({})),
        RemoteQuestion::Process(id) => return ("get_process_info", job(id)),
        RemoteQuestion::Kill(id) => return ("kill_job", job(id)),
        RemoteQuestion::Delete(id) => return ("delete_job_safely", job(id)),
        RemoteQuestion::CanDelete(id) => {
            let mut params = job(id);
            params["perform"] = json!(false);
            return ("delete_job_safely", params);
        }
    };
    if refresh {
        params["refresh"] = json!(true);
    }
    (method, params)
}

/// What a line is.
pub(super) fn envelope(line: &[u8]) -> Envelope {
    #[derive(Deserialize)]
    struct Outer {
        jsonrpc: String,
        #[serde(default)]
        id: Option<u64>,
        #[serde(default)]
        method: Option<String>,
        #[serde(default)]
        error: Option<Failure>,
        #[serde(default)]
        params: Option<IgnoredAny>,
    }
    #[derive(Deserialize)]
    struct Failure {
        #[serde(default)]
        message: String,
    }
    let Ok(outer) = object::<Outer>(line) else {
        return Envelope::Stray;
    };
    match (outer.id, outer.method) {
        _ if outer.jsonrpc != "2.0" => Envelope::Stray,
        (_, Some(method)) => {
            let params = outer.params.is_some();
            Envelope::Notice(notice(&method, params.then_some(line)))
        }
        (Some(number), None) => Envelope::Answer(number, outer.error.map(|it| it.message)),
        (None, None) => Envelope::Stray,
    }
}

/// The result in a line that is an answer.
pub(super) fn result<T: DeserializeOwned>(line: &[u8]) -> Result<T, String> {
    #[derive(Deserialize)]
    struct Outer<T> {
        result: T,
    }
    let outer = object::<Outer<T>>(line);
    outer
        .map(|outer| outer.result)
        .map_err(|error| format!("the answer is not as expected: {error}"))
}

/// The answer to a question.
pub(super) fn answer(question: &RemoteQuestion, line: &[u8]) -> Result<Answer, String> {
    Ok(match question {
        RemoteQuestion::Experiments | RemoteQuestion::Runs(_) => {
            let runs: Vec<WireRun> = result(line)?;
            Answer::Runs(runs.into_iter().map(WireRun::run).collect())
        }
        RemoteQuestion::Jobs
        | RemoteQuestion::RunJobs(..)
        | RemoteQuestion::Orphans
        | RemoteQuestion::Strays => {
            let jobs: Vec<WireJob> = result(line)?;
            Answer::Jobs(jobs.into_iter().filter_map(WireJob::job).collect())
        }
        RemoteQuestion::Services => {
            let services: Vec<WireService> = result(line)?;
            Answer::Services(services.into_iter().map(WireService::service).collect())
        }
        RemoteQuestion::Process(_) => {
            let process: Option<WireProcess> = result(line)?;
            Answer::Process(process.map(WireProcess::process))
        }
        RemoteQuestion::CanDelete(_) | RemoteQuestion::Delete(_) | RemoteQuestion::Kill(_) => {
            let acted: WireActed = result(line)?;
            let said = acted.message.or(acted.error).unwrap_or_default();
            Answer::Acted(acted.success, said)
        }
    })
}

/// What a notification is about. A server of a later release may send some that are unknown here.
fn notice(method: &str, line: Option<&[u8]>) -> Notice {
    #[derive(Deserialize)]
    struct Outer {
        params: Params,
    }
    #[derive(Deserialize)]
    struct Params {
        #[serde(default)]
        event_type: String,
        #[serde(default)]
        data: Data,
        #[serde(default)]
        reason: String,
        #[serde(default)]
        message: Option<String>,
    }
    #[derive(Deserialize, Default)]
    struct Data {
        #[serde(default)]
        task_id: String,
        #[serde(default)]
        job_id: String,
        #[serde(default)]
        state: Option<JobState>,
        #[serde(default)]
        failure_reason: Option<String>,
        #[serde(default)]
        progress: Value,
        #[serde(default)]
        desc: Option<String>,
        #[serde(default)]
        description: String,
        #[serde(default)]
        error_message: String,
    }
    let Some(params) = line.and_then(|line| object::<Outer>(line).ok()) else {
        return Notice::Other;
    };
    let Params {
        event_type,
        data,
        reason,
        message,
    } = params.params;
    let job = JobId::new(&data.task_id, &data.job_id).ok();
    match (method, event_type.as_str()) {
        ("notification.shutdown", _) => Notice::Shutdown(message.unwrap_or(reason)),
        ("notification.state_event", "JobStateChangedEvent") => match (job, data.state) {
            (Some(job), Some(state)) => Notice::JobState(job, state, data.failure_reason),
            _ => Notice::Jobs,
        },
        ("notification.state_event", "JobProgressEvent") => match job {
            Some(job) => {
                let progress = WireProgress {
                    progress: data.progress.as_f64(),
                    desc: data.desc,
                };
                Notice::Progress(job, progress.text())
            }
            None => Notice::Other,
        },
        ("notification.state_event", "JobSubmittedEvent" | "ExperimentJobStateEvent") => {
            Notice::Jobs
        }
        ("notification.state_event", "WarningEvent") => Notice::Warning(data.description),
        ("notification.state_event", "ErrorEvent") => Notice::Warning(data.error_message),
        ("notification.state_event", name) if name.starts_with("Service") => Notice::Services,
        ("notification.state_event", name)
            if name.starts_with("Run") || name.starts_with("Experiment") =>
        {
            Notice::Experiments
        }
        _ => Notice::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job() -> JobId {
        JobId::new("my.train", "ab").unwrap()
    }

    #[test]
    fn questions_are_requests_of_the_protocol() {
        let line = |question: &RemoteQuestion, refresh| {
            let (method, params) = method(question, refresh);
            String::from_utf8(request(7, method, &params)).unwrap()
        };
        assert_eq!(
            line(&RemoteQuestion::Jobs, true),
            "{\"id\":7,\"jsonrpc\":\"2.0\",\"method\":\"get_all_jobs\",\"params\":{\"refresh\":true}}\n"
        );
        assert_eq!(
            line(&RemoteQuestion::CanDelete(job()), true),
            "{\"id\":7,\"jsonrpc\":\"2.0\",\"method\":\"delete_job_safely\",\
             \"params\":{\"job_id\":\"ab\",\"perform\":false,\"task_id\":\"my.train\"}}\n"
        );
    }

    #[test]
    fn jobs_are_read_and_names_that_are_none_are_left_out() {
        let line = br#"{"jsonrpc": "2.0", "id": 4, "result": [
            {"task_id": "my.train", "job_id": "ab", "state": "unscheduled", "scheduler_state": "waiting",
             "failure_reason": null, "progress": [], "new": {"x": NaN}},
            {"task_id": "my.train", "job_id": "cd", "state": "running", "started_time": "2026-01-01T00:00:00",
             "progress": [{"level": 0, "progress": 0.4, "desc": "epochs"}, {"level": 1, "progress": 1.0}]},
            {"task_id": "../..", "job_id": "etc", "state": "done"}]}"#;
        assert!(matches!(envelope(line), Envelope::Answer(4, None)));
        let Ok(Answer::Jobs(jobs)) = answer(&RemoteQuestion::Jobs, line) else {
            panic!("no jobs");
        };
        let states: Vec<_> = jobs.iter().map(|job| job.state.to_string()).collect();
        assert_eq!(states, ["waiting", "running"]);
        let progress = jobs.last().unwrap().progress.as_deref();
        assert_eq!(progress, Some("40 % epochs, 100 %"));
    }

    #[test]
    fn runs_have_their_tags_also_those_that_are_not_json() {
        let line = br#"{"jsonrpc": "2.0", "id": 4, "result": [{"experiment_id": "x", "run_id": "1", "status": "running",
            "job_states": {"ab": "done", "cd": "error"}, "runs_count": 2,
            "job_infos": {"ab": {"task_id": "t", "tags": {"limit": Infinity, "b": 1}}}}]}"#;
        let Ok(Answer::Runs(runs)) = answer(&RemoteQuestion::Experiments, line) else {
            panic!("no runs");
        };
        let run = runs.first().unwrap();
        assert_eq!((run.jobs, run.done, run.failed, run.runs), (2, 1, 1, 2));
        assert_eq!(&*run.tags["ab"], "b=1\nlimit=Infinity");
    }

    #[test]
    fn notifications_say_what_changed() {
        let event = |name: &str, data: &str| {
            let line = format!(
                "{{\"jsonrpc\": \"2.0\", \"method\": \"notification.state_event\", \
                 \"params\": {{\"event_type\": \"{name}\", \"data\": {data}}}}}"
            );
            match envelope(line.as_bytes()) {
                Envelope::Notice(notice) => notice,
                _ => panic!("not a notification"),
            }
        };
        let ids = r#"{"task_id": "my.train", "job_id": "ab", "state": "error", "failure_reason": "MEMORY", "progress": []}"#;
        let changed = Notice::JobState(job(), JobState::Error, Some("MEMORY".to_owned()));
        assert_eq!(event("JobStateChangedEvent", ids), changed);
        assert_eq!(
            event("JobStateChangedEvent", "{\"job_id\": \"ab\"}"),
            Notice::Jobs
        );
        assert_eq!(event("RunCompletedEvent", "{}"), Notice::Experiments);
        assert_eq!(event("NewEvent", "{\"x\": 1}"), Notice::Other);
        assert_eq!(event("JobStateChangedEvent", "[1]"), Notice::Other);
    }

    #[test]
    fn other_lines_are_stray() {
        for line in [
            "",
            "hello",
            "[]",
            "{}",
            "1",
            "{\"jsonrpc\": \"1.0\", \"id\": 1}",
            "{\"jsonrpc\": \"2.0\"}",
            "{\"jsonrpc\": \"2.0\", \"id\": -1, \"result\": 1}",
            "\u{0}\u{1b}[2J",
        ] {
            assert!(
                matches!(envelope(line.as_bytes()), Envelope::Stray),
                "{line}"
            );
        }
        let wrong = br#"{"jsonrpc": "2.0", "id": 1, "result": {"jobs": 3}}"#;
        assert!(answer(&RemoteQuestion::Jobs, wrong).is_err());
        let error = br#"{"jsonrpc": "2.0", "id": 1, "error": {"code": -1, "message": "no"}}"#;
        assert!(matches!(envelope(error), Envelope::Answer(1, Some(why)) if why == "no"));
    }
}
