//! What `status --json` prints, and reads it: docs/json.md lists its keys.
//!
//! A daemon reports times as seconds, and refers to folders by their paths. What is printed has every time in RFC 3339, and every folder that
//! is referred to as `mode:path`. Both directions go over the same places ([`rewrite`]).

use std::time::Duration;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::gather::Status;

/// Returns the status with every time in RFC 3339, and every folder that is referred to as `mode:path`.
///
/// # Errors
///
/// The status cannot be represented in JSON.
pub(super) fn json(status: &Status) -> anyhow::Result<Value> {
    let mut json = serde_json::to_value(status)?;
    rewrite(&mut json, &PRINTING);
    Ok(json)
}

/// Reads what [`json`] returned, perhaps on another machine and by another version.
///
/// # Errors
///
/// It is not the status that this version knows.
pub(in crate::cli) fn parse(printed: &[u8]) -> Result<Status, serde_json::Error> {
    let mut json = serde_json::from_slice(printed)?;
    rewrite(&mut json, &READING);
    Status::deserialize(json)
}

/// How the entries of a status are rewritten.
struct Rewriting {
    /// Rewrites a time, which is in seconds since the given one.
    time: fn(&mut Value, Timestamp),
    /// From the path of a folder and its label, what is replaced by what.
    label: fn(Value, Value) -> (Value, Value),
}

const PRINTING: Rewriting = Rewriting {
    time: to_time,
    label: |path, label| (path, label),
};

const READING: Rewriting = Rewriting {
    time: to_seconds,
    label: |path, label| (label, path),
};

/// Rewrites the reports of a status. Skips what is not as expected.
fn rewrite(json: &mut Value, rewriting: &Rewriting) {
    let now = Timestamp::now();
    for list in ["mounts", "archivers"] {
        let listed = json.get_mut(list).and_then(Value::as_array_mut);
        let reports = listed.into_iter().flatten();
        for report in reports.filter_map(|each| each.get_mut("archive")?.as_object_mut()) {
            archive(report, now, rewriting);
        }
    }
    let workspaces = json.get_mut("workspaces").and_then(Value::as_array_mut);
    for workspace in workspaces.into_iter().flatten() {
        if let Some(workspace) = workspace.as_object_mut() {
            let labels = labels(workspace, "locations", rewriting);
            label(workspace, "damaged", &labels);
            label(workspace, "verified", &labels);
        }
    }
}

/// Rewrites the report of an archiver.
fn archive(report: &mut Map<String, Value>, now: Timestamp, rewriting: &Rewriting) {
    let labels = labels(report, "folders", rewriting);
    for list in ["damaged", "verified", "failed", "experiments"] {
        label(report, list, &labels);
    }
    let time = |entry: Option<&mut Value>, from| {
        if let Some(time) = entry {
            (rewriting.time)(time, from);
        }
    };
    for list in ["experiments", "failed"] {
        for entry in entries(report, list) {
            time(entry.get_mut("next_try"), now);
        }
    }
    if let Some(release) = report.get_mut("release") {
        for key in ["last_search", "last_release"] {
            time(release.get_mut(key), Timestamp::UNIX_EPOCH);
        }
    }
    for folder in entries(report, "folders") {
        time(folder.get_mut("last_scan"), Timestamp::UNIX_EPOCH);
        let refuses = folder.get_mut("refuses");
        time(refuses.and_then(|it| it.get_mut("next_try")), now);
    }
}

/// What replaces the references to a list of folders: the path of each, or `mode:path`.
fn labels(report: &Map<String, Value>, list: &str, rewriting: &Rewriting) -> Vec<(Value, Value)> {
    let folders = report.get(list).and_then(Value::as_array);
    let labels = folders.into_iter().flatten().filter_map(|folder| {
        let (mode, path) = (folder.get("mode")?.as_str()?, folder.get("path")?.as_str()?);
        Some((rewriting.label)(
            path.into(),
            format!("{mode}:{path}").into(),
        ))
    });
    labels.collect()
}

/// Replaces the folders of a list's entries.
fn label(report: &mut Map<String, Value>, list: &str, labels: &[(Value, Value)]) {
    for folder in entries(report, list).filter_map(|entry| entry.get_mut("folder")) {
        let label = labels.iter().find(|(from, _)| from == folder);
        if let Some((_, label)) = label {
            *folder = label.clone();
        }
    }
}

fn entries<'a>(
    report: &'a mut Map<String, Value>,
    list: &str,
) -> impl Iterator<Item = &'a mut Value> {
    let listed = report.get_mut(list).and_then(Value::as_array_mut);
    listed.into_iter().flatten()
}

/// Replaces seconds after the given time by that time, in RFC 3339.
fn to_time(seconds: &mut Value, from: Timestamp) {
    let after = seconds
        .as_f64()
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    if let Some(after) = after {
        *seconds = from
            .checked_add(after)
            .map_or(Value::Null, |time| time.to_string().into());
    }
}

/// Replaces a time in RFC 3339 by the seconds after the given one; 0 if it has passed.
fn to_seconds(time: &mut Value, from: Timestamp) {
    let parsed = time.as_str().and_then(|text| text.parse().ok());
    if let Some(parsed) = parsed {
        let after: jiff::SignedDuration = from.duration_until(parsed);
        *time = after.as_secs_f64().max(0.0).into();
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::archive::engine::Report;

    /// The report of a daemon, as it has it.
    fn report() -> Value {
        json!({
            "queued": 1, "waiting": [], "failures": 1, "journal": null, "damages": 1,
            "failed": [{"job": "t/a", "folder": "/b", "why": "no", "tries": 2, "next_try": 30.0}],
            "damaged": [{"job": "t/a", "item": null, "folder": "/b", "finding": "missing", "remedy": "x"}],
            "folders": [{
                "mode": "backup", "path": "/b", "waiting": 1, "under_way": null, "jobs": 1, "files": 1, "bytes": 1, "missing": 0,
                "refuses": {"why": "full", "tries": 1, "next_try": 60.0}, "last_scan": 86_400.0, "trouble": null,
            }],
        })
    }

    fn status(archive: &Value) -> Value {
        json!({
            "mounts": [{
                "mountpoint": "/m", "workspace": "w", "primary": "/m", "state": "ok", "user": null, "advice": null, "pid": 7,
                "supervisor": null, "version": "1.0.0", "since": null, "read_only": false, "log": null, "shared": false,
                "locations": [{"mode": "primary", "path": "/m", "state": "ok", "free": 1, "total": 2}],
                "holders": [], "recoveries": [], "archive": archive,
            }],
            "archivers": [], "workspaces": [],
        })
    }

    #[test]
    fn what_is_printed_is_read_as_it_was() {
        let before = Status::deserialize(status(&report())).unwrap();
        let printed = json(&before).unwrap();
        let archive = &printed["mounts"][0]["archive"];
        assert_eq!(archive["failed"][0]["folder"], "backup:/b");
        assert_eq!(archive["folders"][0]["last_scan"], "1970-01-02T00:00:00Z");
        let after = parse(printed.to_string().as_bytes()).unwrap();
        let read: &Report = after.mounts[0].archive.as_ref().unwrap();
        let folder = &read.folders[0];
        assert_eq!(folder.last_scan, Some(86_400.0));
        // Some of the time has passed.
        let left = folder.refuses.as_ref().unwrap().next_try.unwrap();
        assert!((1.0..=60.0).contains(&left), "{left}");
        assert!((0.0..=30.0).contains(&read.failed[0].next_try));
        assert_eq!(read.failed[0].folder, Some("/b".into()));
        assert_eq!(read.damaged[0].folder, std::path::Path::new("/b"));
        assert_eq!(after.mounts[0].locations, before.mounts[0].locations);
    }

    #[test]
    fn anything_else_is_refused() {
        let odd = [
            json!(null),
            json!(3),
            json!("x"),
            json!([1]),
            json!({"folder": 1}),
        ];
        for printed in ["", "{", "[]", "{}", "null"] {
            assert!(parse(printed.as_bytes()).is_err(), "{printed}");
        }
        // Whatever is in the place of a value, nothing panics.
        for path in [
            "/mounts",
            "/mounts/0",
            "/mounts/0/archive",
            "/mounts/0/archive/folders",
            "/mounts/0/archive/folders/0",
            "/mounts/0/archive/folders/0/refuses",
            "/mounts/0/archive/failed/0/next_try",
            "/mounts/0/archive/failed",
            "/workspaces",
        ] {
            for value in &odd {
                let mut changed = status(&report());
                *changed.pointer_mut(path).unwrap() = value.clone();
                let _ = parse(changed.to_string().as_bytes());
            }
        }
    }
}
