//! What `jobs verify --json` prints for a copy: docs/json.md lists the keys.

use serde_json::{Value, json};

use super::differences::{contents, name};
use crate::archive::job::verify::Verified;
use crate::transfer::{Difference, What};
use crate::workspace::jobs::JobId;

/// The entry of a copy that was read.
pub(super) fn copy(job: &JobId, folder: String, verified: &Verified) -> Value {
    let result = match verified.is_whole() {
        _ if verified.is_incomplete() => "incomplete",
        _ if !verified.present => "missing",
        _ if verified.is_denied() => "unreadable",
        Some(true) => "ok",
        Some(false) => "damaged",
        None => "no_manifest",
    };
    let mut line = entry(Some(job), Some(folder), result, None);
    line["whole"] = verified.is_whole().into();
    line["present"] = verified.present.into();
    line["manifest"] = verified.manifest.into();
    line["finished"] = verified.finished.into();
    line["files"] = verified.files.into();
    line["bytes"] = verified.bytes.into();
    line["differences"] = differences(&mut verified.differences.iter()).into();
    line["in_workspace"] = verified
        .primary
        .as_ref()
        .map(|found| differences(&mut contents(found)))
        .into();
    line
}

/// A list of differences.
pub(super) fn differences(differences: &mut dyn Iterator<Item = &Difference>) -> Vec<Value> {
    differences
        .map(|difference| {
            json!({
                "path": name(&difference.path).to_string_lossy(),
                "kind": kind(&difference.what),
                "what": difference.what.to_string(),
            })
        })
        .collect()
}

/// An entry with every key.
pub(super) fn entry(
    job: Option<&JobId>,
    folder: Option<String>,
    result: &str,
    why: Option<&str>,
) -> Value {
    json!({
        "job": job.map(JobId::to_string),
        "item": null,
        "folder": folder,
        "result": result,
        "whole": false,
        "present": null,
        "manifest": null,
        "finished": null,
        "files": null,
        "bytes": null,
        "differences": [],
        "in_workspace": null,
        "why": why,
    })
}

/// The entry of what cannot be listed: whether copies there are whole is unknown.
pub(super) fn unlisted(why: &str) -> Value {
    let mut entry = entry(None, None, "unlisted", Some(why));
    entry["whole"] = Value::Null;
    entry
}

/// The fixed name of a difference.
fn kind(what: &What) -> &'static str {
    match what {
        What::Missing => "missing",
        What::Extra => "extra",
        What::Fifo => "fifo",
        What::Kind => "type",
        What::Size { .. } => "size",
        What::Content => "content",
        What::Target => "target",
        What::Links => "links",
        What::Mode => "mode",
        What::Mtime => "mtime",
        What::Unreadable(_) => "unreadable",
    }
}
