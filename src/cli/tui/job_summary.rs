//! The summary of an open job: its state and tags, which location serves it, and each of its copies.

use indicatif::HumanBytes;

use super::model::Model;
use crate::archive::copies::CopyState;
use crate::cli::style::{Tone, local};
use crate::workspace::jobs::JobId;

/// The summary of a job, in lines.
pub(super) fn job_summary(job: &JobId, model: &Model) -> Vec<(String, Tone)> {
    let mut lines = Vec::new();
    let row = model.jobs.as_ref().and_then(|jobs| {
        let index = jobs.find(job)?;
        jobs.rows.get(index)
    });
    if let Some(row) = row {
        let reason = row.reason.as_deref();
        let reason = reason.map_or_else(String::new, |reason| format!(" ({reason})"));
        let text = format!("state:       {}{reason}", row.state);
        lines.push((text, super::tabs::jobs_view::tone(&row.state)));
        if let Some(experiment) = &row.experiment {
            lines.push((
                format!("experiment:  {}", experiment.display()),
                Tone::Plain,
            ));
        }
        for (index, tag) in row.tags.lines().enumerate() {
            let title = if index == 0 { "tags:" } else { "" };
            lines.push((format!("{title:<13}{tag}"), Tone::Plain));
        }
    }
    let Some(looked) = model.looked(job) else {
        lines.push(("looking at the copies...".to_owned(), Tone::Plain));
        return lines;
    };
    let served = looked.served.map(|location| model.label(location));
    let served = served.unwrap_or_else(|| "no location".to_owned());
    lines.push((format!("served by:   {served}"), Tone::Plain));
    if looked.pinned {
        lines.push(("pinned:      never released".to_owned(), Tone::Plain));
    }
    if looked.kept {
        let text = "recovered:   stays in the primary".to_owned();
        lines.push((text, Tone::Plain));
    }
    if let Some(how) = &looked.opted_out {
        lines.push((format!("opted out:   {how}"), Tone::Plain));
    }
    for unknown in &looked.unknown {
        lines.push((format!("! {unknown}"), Tone::Bad));
    }
    for copy in &looked.copies {
        lines.push((String::new(), Tone::Plain));
        let (text, tone) = match &copy.state {
            CopyState::Absent => ("no copy".to_owned(), Tone::Plain),
            CopyState::Present if copy.finished => ("a finished copy".to_owned(), Tone::Good),
            CopyState::Present => ("a copy that is not finished".to_owned(), Tone::Plain),
            CopyState::Purged => (
                "purged: some of its files are gone".to_owned(),
                Tone::Warning,
            ),
            CopyState::Link(target) => (format!("a symlink to {}", target.display()), Tone::Plain),
            CopyState::File => (
                "neither a directory nor a symlink".to_owned(),
                Tone::Warning,
            ),
            CopyState::Lost => ("LOST: the copy is not there any more".to_owned(), Tone::Bad),
            CopyState::Offline(why) => (why.clone(), Tone::Bad),
        };
        lines.push((format!("{}: {text}", model.label(copy.location)), tone));
        if let Some(size) = copy.size {
            let text = format!("  {} files, {}", size.files, HumanBytes(size.bytes));
            lines.push((text, Tone::Plain));
        }
        if copy.state == CopyState::Present && model.places.archives.has(copy.location) {
            let (text, tone) = match (copy.verified, copy.manifest) {
                (Some(time), _) => (format!("  verified {}", local(time)), Tone::Good),
                (None, true) => ("  not verified since it was made".to_owned(), Tone::Plain),
                (None, false) => ("  it has no manifest".to_owned(), Tone::Warning),
            };
            lines.push((text, tone));
        }
        if let Some(damage) = &copy.damage {
            lines.push((format!("  DAMAGED: {damage}"), Tone::Bad));
        }
    }
    lines
}
