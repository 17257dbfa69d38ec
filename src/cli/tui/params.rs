//! Makes `params.json` readable: the task with its parameters, and the objects in these in their places.
//!
//! The file is a list of objects that refer to each other by their ids; the last one is the task.

use std::collections::HashMap;

use serde_json::{Map, Value};

/// How deep objects are shown.
const DEPTH_MAX: usize = 24;

/// The most lines: objects may be shared many times.
const LINES_MAX: usize = 20_000;

/// The parameters as lines; the text itself if it is not understood.
pub(super) fn lines(text: &[u8]) -> Vec<String> {
    let Ok(json) = serde_json::from_slice::<Value>(text) else {
        let text = String::from_utf8_lossy(text);
        return text.lines().take(LINES_MAX).map(str::to_owned).collect();
    };
    let objects = json.get("objects").and_then(Value::as_array);
    let objects = objects.map(Vec::as_slice).unwrap_or_default();
    let by_id = objects.iter().filter_map(|object| {
        let id = object.get("id")?.to_string();
        Some((id, object.as_object()?))
    });
    let mut writer = Writer {
        objects: by_id.collect(),
        lines: Vec::new(),
    };
    match objects.last().and_then(Value::as_object) {
        Some(task) => {
            writer.line(0, &name(task));
            writer.fields(task, 1);
        }
        None => writer.value("", &json, 0),
    }
    if let Some(tags) = json.get("tags").filter(|tags| !is_empty(tags)) {
        writer.line(0, "");
        writer.value("tags", tags, 0);
    }
    writer.lines
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Object(map) => map.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Null => true,
        _ => false,
    }
}

/// `module.Type`
fn name(object: &Map<String, Value>) -> String {
    let part = |key: &str| object.get(key).and_then(Value::as_str).unwrap_or_default();
    match (part("module"), part("type")) {
        ("", "") => "?".to_owned(),
        ("", name) => name.to_owned(),
        (module, name) => format!("{module}.{name}"),
    }
}

struct Writer<'a> {
    objects: HashMap<String, &'a Map<String, Value>>,
    lines: Vec<String>,
}

impl Writer<'_> {
    fn line(&mut self, depth: usize, text: &str) {
        if self.lines.len() < LINES_MAX {
            self.lines.push("  ".repeat(depth) + text);
        }
    }

    fn fields(&mut self, object: &Map<String, Value>, depth: usize) {
        let fields = object.get("fields").and_then(Value::as_object);
        for (name, value) in fields.into_iter().flatten() {
            self.value(name, value, depth);
        }
    }

    fn value(&mut self, key: &str, value: &Value, depth: usize) {
        let label = match key.is_empty() {
            true => String::new(),
            false => format!("{key}: "),
        };
        if self.lines.len() >= LINES_MAX {
            return;
        }
        if depth > DEPTH_MAX {
            return self.line(depth, &format!("{label}..."));
        }
        match value {
            Value::Object(map) => {
                let inner = map.get("value");
                match (map.get("type").and_then(Value::as_str), inner) {
                    (Some("python"), Some(id)) => {
                        let object = self.objects.get(&id.to_string()).copied();
                        match object {
                            Some(object) => {
                                self.line(depth, &format!("{label}{}", name(object)));
                                self.fields(object, depth + 1);
                            }
                            None => self.line(depth, &format!("{label}object {id}")),
                        }
                    }
                    // A path, an enumeration and so on.
                    (Some(_), Some(inner)) => self.value(key, inner, depth),
                    _ if map.is_empty() => self.line(depth, &format!("{label}{{}}")),
                    _ => {
                        self.line(depth, label.trim_end());
                        for (key, value) in map {
                            self.value(key, value, depth + 1);
                        }
                    }
                }
            }
            Value::Array(list) if list.iter().all(|it| !it.is_object() && !it.is_array()) => {
                let parts: Vec<String> = list.iter().map(plain).collect();
                self.line(depth, &format!("{label}[{}]", parts.join(", ")));
            }
            Value::Array(list) => {
                self.line(depth, label.trim_end());
                for value in list {
                    self.value("-", value, depth + 1);
                }
            }
            plain_value => {
                let text = plain(plain_value);
                let mut parts = text.split('\n');
                let first = parts.next().unwrap_or_default();
                self.line(depth, &format!("{label}{first}"));
                for part in parts {
                    self.line(depth + 1, part);
                }
            }
        }
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_are_shown_in_their_places() {
        let text = br#"{"workspace": "/w", "tags": {"lr": 0.1}, "version": 3, "objects": [
            {"id": 7, "module": "m.model", "type": "Model", "fields": {"layers": 2, "sizes": [1, 2]}},
            {"id": 9, "module": "m.train", "type": "Train", "fields": {
                "model": {"type": "python", "value": 7}, "out": {"type": "path", "value": "a/b"},
                "parts": [{"type": "python", "value": 7}, {"type": "python", "value": 8}],
                "text": "a\nb"}}]}"#;
        assert_eq!(
            lines(text),
            [
                "m.train.Train",
                "  model: m.model.Model",
                "    layers: 2",
                "    sizes: [1, 2]",
                "  out: a/b",
                "  parts:",
                "    -: m.model.Model",
                "      layers: 2",
                "      sizes: [1, 2]",
                "    -: object 8",
                "  text: a",
                "    b",
                "",
                "tags:",
                "  lr: 0.1",
            ]
        );
    }

    #[test]
    fn strange_files_do_no_harm() {
        assert_eq!(lines(b"no json\n\xff"), ["no json", "\u{fffd}"]);
        assert_eq!(lines(b"[1]"), ["[1]"]);
        // An object that refers to itself ends.
        let circle = br#"{"objects": [{"id": 1, "type": "A", "fields": {"a": {"type": "python", "value": 1}, "b": {"type": "python", "value": 1}}}]}"#;
        assert!(lines(circle).len() <= LINES_MAX);
        let deep = "[".repeat(120) + &"]".repeat(120);
        assert!(!lines(deep.as_bytes()).is_empty());
    }
}
