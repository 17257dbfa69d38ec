//! A YAML document as a tree, with the place of every key and value.
//!
//! The values are those of Python's `yaml.safe_load`, with as many types as the checks of the settings need.

/// The most nodes that a file may have, after aliases and merge keys are expanded.
pub(super) const MAX_NODES: usize = 100_000;

/// The deepest nesting. Python reaches its limit of recursion at 495 levels.
pub(super) const MAX_DEPTH: usize = 500;

/// A place in a text file, as editors count: line and column both start at 1, columns are characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Position {
    /// Line, from 1.
    pub(crate) line: usize,
    /// Column in characters, from 1.
    pub(crate) column: usize,
}

impl Position {
    /// Where a text begins.
    pub(crate) const START: Position = Position { line: 1, column: 1 };
}

/// What is wrong with a text, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SyntaxError {
    pub(crate) at: Position,
    /// A sentence without its full stop.
    pub(crate) message: String,
}

impl SyntaxError {
    pub(super) fn new(at: Position, message: impl Into<String>) -> SyntaxError {
        SyntaxError {
            at,
            message: message.into(),
        }
    }
}

/// The lines of a text, for access by number.
pub(crate) struct Lines<'t> {
    /// Each with whether it is ASCII, which makes columns bytes.
    lines: Vec<(&'t str, bool)>,
}

impl<'t> Lines<'t> {
    pub(crate) fn new(text: &'t str) -> Lines<'t> {
        let lines = text.lines().map(|line| (line, line.is_ascii()));
        Lines {
            lines: lines.collect(),
        }
    }

    /// The rest of a line, from a place on.
    pub(crate) fn rest(&self, at: Position) -> &'t str {
        let Some((line, ascii)) = self.lines.get(at.line.saturating_sub(1)) else {
            return "";
        };
        let column = at.column.saturating_sub(1);
        let start = match ascii {
            true => column,
            false => {
                let mut chars = line.char_indices();
                chars.nth(column).map_or(line.len(), |(index, _)| index)
            }
        };
        line.get(start..).unwrap_or("")
    }
}

/// A value and the place where it begins.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Node {
    pub(crate) value: Value,
    /// Where it begins; for an alias, where the anchor's value begins.
    pub(crate) at: Position,
}

/// A value of `yaml.safe_load`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    /// `None`
    Null,
    /// `bool`
    Bool(bool),
    /// `int`, of any size: its decimal digits, after a `-` if it is negative.
    Int(String),
    /// `float`
    Float(f64),
    /// `str`
    Str(String),
    /// `bytes`, from `!!binary`
    Bytes(Vec<u8>),
    /// `datetime.date` or `datetime.datetime`, which may not exist in the calendar; no key of the settings accepts one.
    Date,
    /// A pair of an `!!omap` or `!!pairs`; no key of the settings accepts one.
    Pair,
    /// `list`
    Seq(Vec<Node>),
    /// `set`, from `!!set`
    Set(Vec<Node>),
    /// `dict`, in its order, each key once
    Map(Vec<(Node, Node)>),
}

impl Value {
    /// The name of this kind of value in messages.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Value::Null => "nothing",
            Value::Bool(_) => "a boolean",
            Value::Int(_) => "an integer",
            Value::Float(_) => "a number",
            Value::Str(_) => "a string",
            Value::Bytes(_) => "binary data",
            Value::Date => "a date",
            Value::Pair => "a pair",
            Value::Seq(_) => "a list",
            Value::Set(_) => "a set",
            Value::Map(_) => "a mapping",
        }
    }

    /// A text that is equal for equal keys of a Python `dict` (`1`, `1.0` and `True` are equal); `None` for values that are never
    /// compared.
    pub(crate) fn identity(&self) -> Option<String> {
        Some(match self {
            Value::Null => "None".to_owned(),
            Value::Bool(flag) => u8::from(*flag).to_string(),
            Value::Int(digits) => digits.clone(),
            // Adding zero makes -0.0 the same as 0.
            Value::Float(x) if x.fract() == 0.0 => format!("{:.0}", x + 0.0),
            Value::Float(x) => x.to_string(),
            Value::Str(text) => format!("={text}"),
            _ => return None,
        })
    }
}

impl Node {
    /// The string, if the value is one.
    pub(crate) fn as_str(&self) -> Option<&str> {
        match &self.value {
            Value::Str(text) => Some(text),
            _ => None,
        }
    }

    /// The value of a key, if this is a mapping that has it.
    pub(crate) fn get(&self, key: &str) -> Option<&Node> {
        self.entry(key).map(|(_, value)| value)
    }

    /// A key and its value, if this is a mapping that has it.
    pub(crate) fn entry(&self, key: &str) -> Option<(&Node, &Node)> {
        match &self.value {
            Value::Map(entries) => entries
                .iter()
                .find(|(name, _)| name.as_str() == Some(key))
                .map(|(name, value)| (name, value)),
            _ => None,
        }
    }

    /// The items of this list or set; empty for other values.
    pub(crate) fn items(&self) -> &[Node] {
        match &self.value {
            Value::Seq(items) | Value::Set(items) => items,
            _ => &[],
        }
    }
}
