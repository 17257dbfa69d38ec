//! A tree of values that know where they are from.

use std::path::Path;

use serde_json::{Map, Number, Value as Json, json};

use super::super::interpolate::python_float;
use super::super::units;
use super::super::yaml::{self, Emitted, EmittedValue, Node};

/// What is shown in the place of a secret.
const HIDDEN: &str = "********";

/// A part of the settings.
#[derive(Debug, Clone, PartialEq)]
pub struct SettingsEntry {
    content: Content,
    /// Where it is from. Lists and mappings with content have none.
    origin: Option<Origin>,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Content {
    Null,
    Bool(bool),
    Number(Number),
    Text(String),
    List(Vec<SettingsEntry>),
    Map(Vec<(String, SettingsEntry)>),
}

/// Where a value is from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The line of the file; `None` for a default.
    pub line: Option<usize>,
    /// The text there, if it differs from the value: with variables and `~`.
    pub written: Option<String>,
    /// More about it, for people.
    pub note: &'static str,
}

impl Origin {
    /// For people: `line 3: ${env:DATA}/nlp`.
    #[must_use]
    pub fn described(&self) -> String {
        let note = match self.note {
            "" => String::new(),
            note => format!(", {note}"),
        };
        match (self.line, &self.written) {
            (None, _) => format!("default{note}"),
            (Some(line), None) => format!("line {line}{note}"),
            (Some(line), Some(written)) => format!("line {line}{note}: {written}"),
        }
    }
}

/// The same place in the tree of the file before and after variables were replaced; `None` if the file lacks it.
#[derive(Clone, Copy)]
pub(super) struct Spot<'n> {
    pub(super) node: Option<&'n Node>,
    pub(super) raw: Option<&'n Node>,
    pub(super) note: &'static str,
}

impl<'n> Spot<'n> {
    pub(super) const NONE: Spot<'static> = Spot {
        node: None,
        raw: None,
        note: "",
    };

    pub(super) fn get(self, key: &str) -> Spot<'n> {
        Spot {
            node: self.node.and_then(|node| node.get(key)),
            raw: self.raw.and_then(|node| node.get(key)),
            ..self
        }
    }

    pub(super) fn item(self, index: usize) -> Spot<'n> {
        Spot {
            node: self.node.and_then(|node| node.items().get(index)),
            raw: self.raw.and_then(|node| node.items().get(index)),
            ..self
        }
    }

    pub(super) fn origin(self, value: &str) -> Option<Origin> {
        let written = self
            .raw
            .and_then(Node::as_str)
            .filter(|raw| !raw.is_empty() && *raw != value);
        Some(Origin {
            line: self.node.map(|node| node.at.line),
            written: written.map(str::to_owned),
            note: self.note,
        })
    }

    pub(super) fn scalar(self, content: Content) -> SettingsEntry {
        let text = match &content {
            Content::Text(text) => text.clone(),
            Content::Number(number) => number.to_string(),
            Content::Bool(value) => value.to_string(),
            _ => String::new(),
        };
        let origin = self.origin(&text);
        SettingsEntry { content, origin }
    }

    pub(super) fn text(self, text: impl Into<String>) -> SettingsEntry {
        self.scalar(Content::Text(text.into()))
    }

    pub(super) fn number(self, number: impl Into<Number>) -> SettingsEntry {
        self.scalar(Content::Number(number.into()))
    }

    pub(super) fn bool(self, value: bool) -> SettingsEntry {
        self.scalar(Content::Bool(value))
    }

    pub(super) fn optional(self, text: Option<&str>) -> SettingsEntry {
        text.map_or_else(|| self.scalar(Content::Null), |text| self.text(text))
    }

    pub(super) fn size(self, bytes: u64) -> SettingsEntry {
        let text = units::written_size(bytes);
        match text.parse::<u64>() {
            Ok(bytes) => self.number(bytes),
            Err(_) => self.text(text),
        }
    }

    pub(super) fn path(self, path: &Path) -> SettingsEntry {
        self.text(path.to_string_lossy())
    }

    pub(super) fn list(self, items: Vec<SettingsEntry>) -> SettingsEntry {
        let origin = items.is_empty().then(|| self.origin("")).flatten();
        let content = Content::List(items);
        SettingsEntry { content, origin }
    }

    pub(super) fn strings(self, texts: &[String]) -> SettingsEntry {
        let texts = texts.iter().enumerate();
        self.list(
            texts
                .map(|(index, text)| self.item(index).text(text))
                .collect(),
        )
    }

    pub(super) fn map(self, pairs: Vec<(&str, SettingsEntry)>) -> SettingsEntry {
        let origin = pairs.is_empty().then(|| self.origin("")).flatten();
        let pairs = pairs
            .into_iter()
            .map(|(key, entry)| (key.to_owned(), entry));
        SettingsEntry {
            content: Content::Map(pairs.collect()),
            origin,
        }
    }

    /// A secret: what is written in its place is not shown either.
    pub(super) fn hidden(self) -> SettingsEntry {
        let mut entry = self.text(HIDDEN);
        if let Some(origin) = &mut entry.origin {
            origin.written = None;
            origin.note = "shown with --secrets";
        }
        entry
    }
}

impl SettingsEntry {
    /// As YAML, with its origin behind each value.
    #[must_use]
    pub fn to_yaml(&self) -> String {
        yaml::emit(&self.emitted(&|entry| {
            let origin = entry.origin.as_ref();
            origin.map(Origin::described).unwrap_or_default()
        }))
    }

    /// As YAML, with a comment behind each `path` for which `comment` returns one.
    #[must_use]
    pub fn to_yaml_with(&self, comment: impl Fn(&str) -> String) -> String {
        yaml::emit(&self.emitted(&|entry| match &entry.content {
            Content::Text(text) if entry.origin.is_some() => comment(text),
            _ => String::new(),
        }))
    }

    fn emitted(&self, comment: &dyn Fn(&SettingsEntry) -> String) -> Emitted {
        let value = match &self.content {
            Content::Null => EmittedValue::Plain("null".to_owned()),
            Content::Bool(value) => EmittedValue::Plain(value.to_string()),
            Content::Number(number) => EmittedValue::Plain(python_number(number)),
            Content::Text(text) => EmittedValue::Text(text.clone()),
            Content::List(items) => {
                EmittedValue::List(items.iter().map(|item| item.emitted(comment)).collect())
            }
            Content::Map(pairs) => EmittedValue::Map(
                pairs
                    .iter()
                    .map(|(key, entry)| (key.clone(), entry.emitted(comment)))
                    .collect(),
            ),
        };
        Emitted {
            value,
            comment: comment(self),
        }
    }

    /// The values alone.
    #[must_use]
    pub fn to_json(&self) -> Json {
        match &self.content {
            Content::Null => Json::Null,
            Content::Bool(value) => json!(value),
            Content::Number(number) => Json::Number(number.clone()),
            Content::Text(text) => json!(text),
            Content::List(items) => items.iter().map(SettingsEntry::to_json).collect(),
            Content::Map(pairs) => {
                let pairs = pairs
                    .iter()
                    .map(|(key, entry)| (key.clone(), entry.to_json()));
                Json::Object(pairs.collect::<Map<_, _>>())
            }
        }
    }

    /// Each value's place, as `workspaces[0].path`, and its origin.
    #[must_use]
    pub fn origins(&self) -> Vec<(String, &Origin)> {
        let mut found = Vec::new();
        self.add_origins("", &mut found);
        found
    }

    fn add_origins<'e>(&'e self, name: &str, found: &mut Vec<(String, &'e Origin)>) {
        if let Some(origin) = &self.origin {
            found.push((name.to_owned(), origin));
        }
        match &self.content {
            Content::List(items) => {
                for (index, item) in items.iter().enumerate() {
                    item.add_origins(&format!("{name}[{index}]"), found);
                }
            }
            Content::Map(pairs) => {
                for (key, entry) in pairs {
                    let dot = if name.is_empty() { "" } else { "." };
                    entry.add_origins(&format!("{name}{dot}{key}"), found);
                }
            }
            _ => {}
        }
    }
}

/// YAML 1.1 has no exponent without a point and a sign.
fn python_number(number: &Number) -> String {
    match number.as_f64().filter(|_| number.is_f64()) {
        Some(value) => {
            let text = python_float(value);
            match text.split_once('e') {
                Some((digits, exponent)) if !digits.contains('.') => {
                    format!("{digits}.0e{exponent}")
                }
                _ => text,
            }
        }
        None => number.to_string(),
    }
}
