//! The state, tags, process and path of an open job, in lines.

use super::model::RemoteModel;
use crate::cli::style::{Tone, local};
use crate::cli::tui::tabs::jobs_view::tone;
use crate::workspace::jobs::JobId;

/// The lines of a job.
pub(super) fn lines(id: &JobId, model: &RemoteModel) -> Vec<(String, Tone)> {
    let mut lines = Vec::new();
    let mut add = |title: &str, text: String, tone: Tone| {
        lines.push((format!("{title:<13}{text}"), tone));
    };
    let Some((job, row)) = model.job(id) else {
        return vec![("the server does not list the job".to_owned(), Tone::Warning)];
    };
    let reason = job.reason.as_deref();
    let reason = reason.map_or_else(String::new, |reason| format!(" ({reason})"));
    add("state:", format!("{}{reason}", job.state), tone(&job.state));
    if let Some(experiment) = &row.experiment {
        add(
            "experiment:",
            experiment.to_string_lossy().into(),
            Tone::Plain,
        );
    }
    for (index, tag) in row.tags.lines().enumerate() {
        add(
            if index == 0 { "tags:" } else { "" },
            tag.to_owned(),
            Tone::Plain,
        );
    }
    if let Some(progress) = &job.progress {
        add("progress:", progress.clone(), Tone::Plain);
    }
    for (title, time) in [("started:", job.started), ("ended:", job.ended)] {
        if let Some(time) = time {
            add(title, local(time), Tone::Plain);
        }
    }
    if job.retries > 0 {
        add("retries:", job.retries.to_string(), Tone::Plain);
    }
    if let Some((of, Some(process))) = &model.process
        && of == id
    {
        let mut text = format!("{} ({})", process.pid, process.kind);
        if !process.running {
            text.push_str(", has ended");
        }
        if let Some(cpu) = process.cpu {
            text.push_str(&format!(", {cpu:.0} % of a processor"));
        }
        if let Some(memory) = process.memory {
            text.push_str(&format!(", {memory:.0} MiB"));
        }
        if let Some(threads) = process.threads {
            text.push_str(&format!(", {threads} threads"));
        }
        add("process:", text, Tone::Plain);
    }
    let path = model.path(id);
    add(
        "path:",
        format!("{}:{}", model.host, path.display()),
        Tone::Plain,
    );
    lines
}
