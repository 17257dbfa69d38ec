//! Reads a tree into typed values, and reports every mistake with what to write instead.
//!
//! [`Decode`] is implemented for each type that a key can have. [`table!`] implements it for a struct, from the list of its
//! fields: the name of a field is the key, its type says how the key is read.

use std::collections::BTreeMap;

use super::coerce::{self, Expected, Scalar};
use super::environment::Environment;
use super::error::{Finding, nearest};
use super::yaml::{Lines, Node, Position, Value};

/// A type that a key can have.
pub(super) trait Decode: Sized {
    /// Reads the value of a key. Returns `None` after it has reported an error.
    fn decode(decoder: &mut Decoder<'_>, key: &str, node: &Node) -> Option<Self>;
}

/// A type of which there are lists.
pub(super) trait ListItem: Decode {
    /// How the list is written under a key.
    fn example(key: &str) -> String;

    /// Reads an item. Returns `None` after it has reported an error.
    fn item(decoder: &mut Decoder<'_>, key: &str, node: &Node) -> Option<Self> {
        Self::decode(decoder, key, node)
    }
}

/// Collects the mistakes in a file.
pub(super) struct Decoder<'e> {
    /// The file, to quote values as they are written.
    lines: Lines<'e>,
    pub(super) environment: &'e Environment,
    pub(super) findings: Vec<Finding>,
}

/// The keys of a mapping.
pub(super) struct Schema {
    /// What the mapping is called in messages.
    pub(super) name: &'static str,
    pub(super) keys: &'static [&'static str],
    /// Whether only xpmfs reads it: then an unknown key is an error.
    pub(super) is_ours: bool,
}

/// What the whole file is called in messages.
pub(super) const THE_FILE: &str = "the settings";

/// Implements [`Decode`] for a struct, from `field: how` lines, where `how` is a method of [`Decoder`]. `finish` is called
/// with the decoder, the node and the struct.
macro_rules! table {
    ($type:ident, $name:expr, $is_ours:literal, $default:expr $(, finish $finish:path)? => { $($key:ident: $how:ident,)* }) => {
        impl $crate::settings::decode::Decode for $type {
            fn decode(decoder: &mut $crate::settings::decode::Decoder<'_>, _: &str, node: &$crate::settings::yaml::Node) -> Option<$type> {
                const SCHEMA: $crate::settings::decode::Schema = $crate::settings::decode::Schema {
                    name: $name,
                    keys: &[$(stringify!($key)),*],
                    is_ours: $is_ours,
                };
                decoder.mapping(node, &SCHEMA)?;
                let mut out: $type = $default;
                $(decoder.$how(&SCHEMA, node, stringify!($key), &mut out.$key);)*
                $($finish(decoder, node, &mut out);)?
                Some(out)
            }
        }
    };
}
pub(super) use table;

impl<'e> Decoder<'e> {
    pub(super) fn new(text: &'e str, environment: &'e Environment) -> Decoder<'e> {
        Decoder {
            lines: Lines::new(text),
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

    /// Checks that a node is a mapping whose keys are strings, and warns of unknown keys. Returns `None` if it is not a mapping.
    pub(super) fn mapping(&mut self, node: &Node, schema: &Schema) -> Option<()> {
        let name = schema.name;
        let Value::Map(entries) = &node.value else {
            let message = format!(
                "{name} must be a mapping (`key: value` lines), and this is {}",
                node.value.kind()
            );
            let advice = match node.value {
                Value::Null if name == THE_FILE => {
                    "write `{}` for settings that are all default, or remove the file"
                }
                Value::Null => "write the keys below it, indented, or remove the line",
                _ => "write one key a line, each followed by `: ` and its value",
            };
            self.error(node.at, message, advice);
            return None;
        };
        for (key, _) in entries {
            let Some(name) = key.as_str() else {
                let message = format!(
                    "a key must be a string, and this one is {}",
                    key.value.kind()
                );
                let advice =
                    "put it in quotes: YAML reads words such as `on`, `yes` and `null` otherwise";
                self.error(key.at, message, advice);
                continue;
            };
            if !schema.keys.contains(&name) {
                self.unknown_key(key.at, name, schema);
            }
        }
        Some(())
    }

    fn unknown_key(&mut self, at: Position, name: &str, schema: &Schema) {
        let advice = match nearest(name, schema.keys.iter().copied()) {
            Some(key) => format!("did you mean `{key}`?"),
            None => format!("the keys here are {}", listed(schema.keys)),
        };
        let message = format!("unknown key `{name}` in {}", schema.name);
        self.findings.push(match schema.is_ours {
            true => Finding::error(at, message, advice),
            false => Finding::warning(at, format!("{message}: it is ignored"), advice),
        });
    }

    /// Reads a key that may be missing.
    pub(super) fn optional<T: Decode>(&mut self, _: &Schema, node: &Node, key: &str, to: &mut T) {
        let value = node.get(key).and_then(|value| T::decode(self, key, value));
        if let Some(value) = value {
            *to = value;
        }
    }

    /// Reads a key that may be missing, but not null.
    pub(super) fn not_null<T: Decode>(
        &mut self,
        _: &Schema,
        node: &Node,
        key: &str,
        to: &mut Option<T>,
    ) {
        *to = node.get(key).and_then(|value| T::decode(self, key, value));
    }

    /// Reads a key that must be there.
    pub(super) fn required<T: Scalar>(
        &mut self,
        schema: &Schema,
        node: &Node,
        key: &str,
        to: &mut T,
    ) {
        match node.get(key) {
            None => {
                let message = format!("{} needs the key `{key}`", schema.name);
                self.error(node.at, message, format!("add `{key}: …`"));
            }
            Some(value) if value.value == Value::Null => {
                let Expected { kind, example, .. } = T::EXPECTED;
                let message = format!("`{key}` must be {kind}, and this is nothing");
                self.error(
                    value.at,
                    message,
                    format!("write for example `{key}: {example}`"),
                );
            }
            Some(_) => self.optional(schema, node, key, to),
        }
    }

    fn wrong_type(&mut self, node: &Node, key: &str, expected: Expected) {
        let found = written(&node.value);
        let message = format!("`{key}` must be {}, and this is {found}", expected.kind);
        let advice = match &node.value {
            Value::Int(digits) if key == "lock_mode" => {
                let mode = self.octal(node.at, digits);
                format!("put it in quotes: `lock_mode: \"{mode}\"`")
            }
            Value::Null => "write a value, or remove the line to have the default".to_owned(),
            Value::Int(_) | Value::Float(_) | Value::Bool(_) | Value::Date if expected.is_text => {
                let word = self.word_at(node.at).unwrap_or("…");
                format!("put it in quotes: `{key}: \"{word}\"`")
            }
            _ => {
                let forms = expected.forms.map(|forms| format!(" ({forms})"));
                let forms = forms.unwrap_or_default();
                format!("write for example `{key}: {}`{forms}", expected.example)
            }
        };
        self.error(node.at, message, advice);
    }

    /// The mode that an integer is meant to be: 664 and 0664 (which YAML reads as 436) both mean 0664.
    fn octal(&self, at: Position, digits: &str) -> String {
        let word = self.word_at(at).unwrap_or_default();
        if word.bytes().all(|b| matches!(b, b'0'..=b'7')) && !word.is_empty() {
            return format!("{word:0>4}");
        }
        let value = digits.parse().ok().filter(|mode| *mode <= 0o7777_u64);
        format!("{:04o}", value.unwrap_or(0o664))
    }

    /// The number or word at a place, as it is written.
    fn word_at(&self, at: Position) -> Option<&'e str> {
        let line = self.lines.rest(at);
        let word = line.split([' ', '\t', ',', ']', '}', '#']).next()?;
        let is_plain =
            |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '+' | '-' | ':');
        (!word.is_empty() && word.chars().all(is_plain)).then_some(word)
    }
}

impl<T: Scalar> Decode for T {
    fn decode(decoder: &mut Decoder<'_>, key: &str, node: &Node) -> Option<T> {
        let value = T::from_value(&node.value);
        if value.is_none() {
            decoder.wrong_type(node, key, T::EXPECTED);
        }
        value
    }
}

/// A value that may be null.
impl<T: Decode> Decode for Option<T> {
    fn decode(decoder: &mut Decoder<'_>, key: &str, node: &Node) -> Option<Option<T>> {
        match node.value {
            Value::Null => Some(None),
            _ => T::decode(decoder, key, node).map(Some),
        }
    }
}

/// A list, or a set, which pydantic accepts too. Items with mistakes are left out.
impl<T: ListItem> Decode for Vec<T> {
    fn decode(decoder: &mut Decoder<'_>, key: &str, node: &Node) -> Option<Vec<T>> {
        if !matches!(node.value, Value::Seq(_) | Value::Set(_)) {
            let found = written(&node.value);
            let advice = match node.value {
                Value::Null => format!("write `{key}: []`, or remove the line"),
                _ => format!("write {}", T::example(key)),
            };
            decoder.error(
                node.at,
                format!("`{key}` must be a list, and this is {found}"),
                advice,
            );
            return None;
        }
        let items = node.items().iter();
        Some(
            items
                .filter_map(|item| T::item(decoder, key, item))
                .collect(),
        )
    }
}

impl ListItem for String {
    fn example(key: &str) -> String {
        format!("`{key}: [\"…\", \"…\"]`, or `- \"…\"`, one a line")
    }

    fn item(decoder: &mut Decoder<'_>, key: &str, node: &Node) -> Option<String> {
        let text = coerce::string(&node.value);
        if text.is_none() {
            let message = format!(
                "`{key}` must hold strings, and this is {}",
                written(&node.value)
            );
            decoder.error(node.at, message, "put it in quotes");
        }
        text
    }
}

/// A mapping from strings to strings.
impl Decode for BTreeMap<String, String> {
    fn decode(
        decoder: &mut Decoder<'_>,
        key: &str,
        node: &Node,
    ) -> Option<BTreeMap<String, String>> {
        let Value::Map(entries) = &node.value else {
            let found = written(&node.value);
            let message =
                format!("`{key}` must be a mapping (`NAME: value` lines), and this is {found}");
            let advice = "write `NAME: value`, one a line, indented, or remove the line";
            decoder.error(node.at, message, advice);
            return None;
        };
        let mut out = BTreeMap::new();
        for (name, value) in entries {
            let Some(text) = coerce::string(&name.value) else {
                let message = format!(
                    "a name in `{key}` must be a string, and this is {}",
                    name.value.kind()
                );
                decoder.error(name.at, message, "put it in quotes");
                continue;
            };
            let Some(value_text) = coerce::string(&value.value) else {
                let message = format!(
                    "`{text}` must be a string, and this is {}",
                    written(&value.value)
                );
                decoder.error(value.at, message, format!("write `{text}: \"…\"`"));
                continue;
            };
            out.insert(text, value_text);
        }
        Some(out)
    }
}

/// A value in a message: its kind, and itself if it is short.
fn written(value: &Value) -> String {
    match value {
        Value::Str(text) if text.chars().count() <= 40 => format!("the string `{text}`"),
        Value::Int(digits) if digits.len() <= 20 => format!("the integer `{digits}`"),
        Value::Float(x) => format!("the number `{x}`"),
        Value::Bool(flag) => format!("the boolean `{flag}`"),
        _ => value.kind().to_owned(),
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
