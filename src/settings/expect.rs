//! Reading a node as what it must be, and saying what it is if it is not that.

use std::collections::BTreeMap;

use super::coerce;
use super::document::{Lines, Node, Position, Value};
use super::environment::Environment;
use super::error::{Finding, nearest};

/// Reads a tree, and says everything that is wrong with it.
pub(super) struct Decoder<'e> {
    /// The file, in which values are looked up as they are written.
    text: Lines<'e>,
    pub(super) environment: &'e Environment,
    pub(super) findings: Vec<Finding>,
}

/// The known keys of a mapping, and what it is called in messages.
pub(super) struct Schema {
    pub(super) what: &'static str,
    pub(super) keys: &'static [&'static str],
    /// Whether a key that is not known is an error: in what is ours.
    pub(super) closed: bool,
}

/// What the whole file is called in messages.
pub(super) const THE_FILE: &str = "the settings";

/// A type, for messages.
#[derive(Clone, Copy)]
pub(super) struct Expected {
    pub(super) kind: &'static str,
    pub(super) example: &'static str,
    /// Whether quotes would make a number right.
    pub(super) text: bool,
}

impl<'e> Decoder<'e> {
    pub(super) fn new(text: &'e str, environment: &'e Environment) -> Decoder<'e> {
        Decoder {
            text: Lines::new(text),
            environment,
            findings: Vec::new(),
        }
    }

    pub(super) fn error(
        &mut self,
        at: Position,
        message: impl Into<String>,
        advice: impl Into<String>,
    ) {
        self.findings.push(Finding::error(at, message, advice));
    }

    /// Whether a node is a mapping whose keys are strings; says so if not, and warns of keys that are not known.
    pub(super) fn mapping(&mut self, node: &Node, schema: &Schema) -> bool {
        let Value::Map(entries) = &node.value else {
            let what = schema.what;
            let message = format!(
                "{what} must be a mapping (`key: value` lines), and this is {}",
                node.value.kind()
            );
            let advice = match node.value {
                Value::Null if what == THE_FILE => {
                    "write `{}` for settings that are all default, or remove the file"
                }
                Value::Null => "write the keys below it, indented, or remove the line",
                _ => "write one key a line, each followed by `: ` and its value",
            };
            self.error(node.at, message, advice);
            return false;
        };
        for (key, _) in entries {
            match key.as_str() {
                None => {
                    let message = format!(
                        "a key must be a string, and this one is {}",
                        key.value.kind()
                    );
                    self.error(key.at, message, "put it in quotes: YAML reads words such as `on`, `yes` and `null` otherwise");
                }
                Some(name) if !schema.keys.contains(&name) => {
                    self.unknown_key(key.at, name, schema)
                }
                Some(_) => {}
            }
        }
        true
    }

    fn unknown_key(&mut self, at: Position, name: &str, schema: &Schema) {
        let advice = match nearest(name, schema.keys.iter().copied()) {
            Some(key) => format!("did you mean `{key}`?"),
            None => format!("the keys here are {}", listed(schema.keys)),
        };
        let message = format!("unknown key `{name}` in {}", schema.what);
        self.findings.push(if schema.closed {
            Finding::error(at, message, advice)
        } else {
            Finding::warning(at, format!("{message}: it is ignored"), advice)
        });
    }

    /// The value of a key through a function of its own; the default if the key is not there.
    pub(super) fn part<T: Default>(
        &mut self,
        node: &Node,
        key: &str,
        read: impl FnOnce(&mut Self, &Node) -> T,
    ) -> T {
        node.get(key)
            .map_or_else(T::default, |value| read(self, value))
    }

    /// A key that has to be there.
    pub(super) fn required<T>(
        &mut self,
        node: &Node,
        schema: &Schema,
        key: &str,
        read: fn(&Value) -> Option<T>,
        expected: Expected,
    ) -> Option<T> {
        let Some(value) = node.get(key) else {
            let message = format!("{} needs the key `{key}`", schema.what);
            self.error(node.at, message, format!("add `{key}: …`"));
            return None;
        };
        if matches!(value.value, Value::Null) {
            let message = format!("`{key}` must be {}, and this is nothing", expected.kind);
            let advice = format!("write for example `{key}: {}`", expected.example);
            self.error(value.at, message, advice);
            return None;
        }
        self.value(node, key, read, expected)
    }

    /// A key that may be `null`.
    pub(super) fn optional<T>(
        &mut self,
        node: &Node,
        key: &str,
        read: fn(&Value) -> Option<T>,
        expected: Expected,
    ) -> Option<T> {
        match node.get(key) {
            Some(Node {
                value: Value::Null, ..
            }) => None,
            _ => self.value(node, key, read, expected),
        }
    }

    /// A key that may not be there.
    pub(super) fn value<T>(
        &mut self,
        node: &Node,
        key: &str,
        read: fn(&Value) -> Option<T>,
        expected: Expected,
    ) -> Option<T> {
        let value = node.get(key)?;
        let result = read(&value.value);
        if result.is_none() {
            self.wrong_type(value, key, expected);
        }
        result
    }

    pub(super) fn wrong_type(&mut self, node: &Node, key: &str, expected: Expected) {
        let message = format!(
            "`{key}` must be {}, and this is {}",
            expected.kind,
            written(&node.value)
        );
        let advice = match &node.value {
            Value::Int(digits) if key == "lock_mode" => {
                let mode = self.octal(node.at, digits);
                format!("put it in quotes: `lock_mode: \"{mode}\"`")
            }
            Value::Null => "write a value, or remove the line to have the default".to_owned(),
            Value::Int(_) | Value::Float(_) | Value::Bool(_) | Value::Date if expected.text => {
                let written = self.word_at(node.at).unwrap_or("…");
                format!("put it in quotes: `{key}: \"{written}\"`")
            }
            _ => format!("write for example `{key}: {}`", expected.example),
        };
        self.error(node.at, message, advice);
    }

    /// The mode of which `digits` is the value: 664 and 0664 (which YAML takes for 436) are both meant to be 0664.
    fn octal(&self, at: Position, digits: &str) -> String {
        let written = self.word_at(at).unwrap_or_default();
        if written.bytes().all(|b| matches!(b, b'0'..=b'7')) && !written.is_empty() {
            return format!("{written:0>4}");
        }
        let value = digits.parse().ok().filter(|mode| *mode <= 0o7777_u64);
        format!("{:04o}", value.unwrap_or(0o664))
    }

    /// The number or word that stands somewhere, as it is written.
    fn word_at(&self, at: Position) -> Option<&'e str> {
        let word = self
            .text
            .rest(at)
            .split([' ', '\t', ',', ']', '}', '#'])
            .next()?;
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '+' | '-' | ':');
        (!word.is_empty() && word.chars().all(plain)).then_some(word)
    }

    /// A list (or a set, as pydantic lets pass); says so if it is none, and leaves out what cannot be read.
    pub(super) fn list<T>(
        &mut self,
        node: &Node,
        key: &str,
        items: &str,
        read: impl Fn(&mut Self, &Node) -> Option<T>,
    ) -> Vec<T> {
        if !matches!(node.value, Value::Seq(_) | Value::Set(_)) {
            let message = format!(
                "`{key}` must be a list, and this is {}",
                written(&node.value)
            );
            let advice = match node.value {
                Value::Null => format!("write `{key}: []`, or remove the line"),
                _ => format!("write {items}"),
            };
            self.error(node.at, message, advice);
        }
        node.items()
            .iter()
            .filter_map(|item| read(self, item))
            .collect()
    }

    /// A list of strings.
    pub(super) fn strings(&mut self, node: &Node, key: &str) -> Vec<String> {
        let items = format!("`{key}: [\"…\", \"…\"]`, or `- \"…\"`, one a line");
        self.list(node, key, &items, |this, item| {
            let text = coerce::string(&item.value);
            if text.is_none() {
                let message = format!(
                    "`{key}` must hold strings, and this is {}",
                    written(&item.value)
                );
                this.error(item.at, message, "put it in quotes");
            }
            text
        })
    }

    /// A mapping from strings to strings.
    pub(super) fn strings_by_name(&mut self, node: &Node, key: &str) -> BTreeMap<String, String> {
        let Value::Map(entries) = &node.value else {
            let message = format!(
                "`{key}` must be a mapping (`NAME: value` lines), and this is {}",
                written(&node.value)
            );
            self.error(
                node.at,
                message,
                "write `NAME: value`, one a line, indented, or remove the line",
            );
            return BTreeMap::new();
        };
        let mut out = BTreeMap::new();
        for (name, value) in entries {
            let Some(text) = coerce::string(&name.value) else {
                let message = format!(
                    "a name in `{key}` must be a string, and this is {}",
                    name.value.kind()
                );
                self.error(name.at, message, "put it in quotes");
                continue;
            };
            match coerce::string(&value.value) {
                Some(value) => drop(out.insert(text, value)),
                None => {
                    let message = format!(
                        "`{text}` must be a string, and this is {}",
                        written(&value.value)
                    );
                    self.error(value.at, message, format!("write `{text}: \"…\"`"));
                }
            }
        }
        out
    }
}

/// A value in a message: its kind, and itself if it is short.
pub(super) fn written(value: &Value) -> String {
    let kind = value.kind();
    match value {
        Value::Str(text) if text.chars().count() <= 40 => format!("the string `{text}`"),
        Value::Int(digits) if digits.len() <= 20 => format!("the integer `{digits}`"),
        Value::Float(x) => format!("the number `{x}`"),
        Value::Bool(flag) => format!("the boolean `{flag}`"),
        _ => kind.to_owned(),
    }
}

/// `a`, `b` and `c`
fn listed(keys: &[&str]) -> String {
    let quoted: Vec<String> = keys.iter().map(|key| format!("`{key}`")).collect();
    match quoted.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} and {last}", rest.join(", ")),
        _ => quoted.join(""),
    }
}
