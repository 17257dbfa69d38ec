//! What `status --json` prints: docs/json.md lists its keys.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Map, Value};

use super::gather::Status;

/// Returns the status with every time in RFC 3339, and every folder that is referred to as `mode:path`.
///
/// # Errors
///
/// The status cannot be represented in JSON.
pub(super) fn json(status: &Status) -> anyhow::Result<Value> {
    let mut json = serde_json::to_value(status)?;
    let now = Timestamp::now();
    for list in ["mounts", "archivers"] {
        let listed = json.get_mut(list).and_then(Value::as_array_mut);
        let reports = listed.into_iter().flatten();
        for report in reports.filter_map(|each| each.get_mut("archive")?.as_object_mut()) {
            archive(report, now);
        }
    }
    let workspaces = json.get_mut("workspaces").and_then(Value::as_array_mut);
    for workspace in workspaces.into_iter().flatten() {
        if let Some(workspace) = workspace.as_object_mut() {
            let labels = labels(workspace, "locations");
            label(workspace, "damaged", &labels);
            label(workspace, "verified", &labels);
        }
    }
    Ok(json)
}

/// Rewrites the report of an archiver.
fn archive(report: &mut Map<String, Value>, now: Timestamp) {
    let labels = labels(report, "folders");
    label(report, "damaged", &labels);
    label(report, "verified", &labels);
    label(report, "failed", &labels);
    label(report, "experiments", &labels);
    for folder in entries(report, "experiments") {
        if let Some(next_try) = folder.get_mut("next_try") {
            at(next_try, now);
        }
    }
    for failed in entries(report, "failed") {
        if let Some(next_try) = failed.get_mut("next_try") {
            at(next_try, now);
        }
    }
    if let Some(release) = report.get_mut("release").and_then(Value::as_object_mut) {
        for key in ["last_search", "last_release"] {
            if let Some(time) = release.get_mut(key) {
                at(time, Timestamp::UNIX_EPOCH);
            }
        }
    }
    for folder in entries(report, "folders") {
        if let Some(last_scan) = folder.get_mut("last_scan") {
            at(last_scan, Timestamp::UNIX_EPOCH);
        }
        if let Some(next_try) = folder["refuses"].get_mut("next_try") {
            at(next_try, now);
        }
    }
}

/// The paths of a list of folders, each with `mode:path`.
fn labels(report: &Map<String, Value>, list: &str) -> Vec<(Value, Value)> {
    let folders = report.get(list).and_then(Value::as_array);
    let labels = folders.into_iter().flatten().filter_map(|folder| {
        let (mode, path) = (folder["mode"].as_str()?, folder["path"].as_str()?);
        Some((folder["path"].clone(), format!("{mode}:{path}").into()))
    });
    labels.collect()
}

/// Refers to the folders of a list's entries as `mode:path`.
fn label(report: &mut Map<String, Value>, list: &str, labels: &[(Value, Value)]) {
    for entry in entries(report, list) {
        let label = labels.iter().find(|(path, _)| *path == entry["folder"]);
        if let Some((_, label)) = label {
            entry["folder"] = label.clone();
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
fn at(seconds: &mut Value, from: Timestamp) {
    let after = seconds
        .as_f64()
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    if let Some(after) = after {
        *seconds = from
            .checked_add(after)
            .map_or(Value::Null, |time| time.to_string().into());
    }
}
