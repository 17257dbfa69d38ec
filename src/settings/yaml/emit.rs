//! Writes values as YAML that PyYAML reads back unchanged, with a comment behind each.
//!
//! Libraries for Rust write YAML 1.2, in which `012`, `1:30` and `2024-01-01` are strings without quotes. Here the rules that read
//! a file ([`scalar::resolve`]) determine what needs quotes.

use super::scalar::{self, Tag};
use crate::sys::printable::printable;

/// The widest line whose comment is in one column with the others.
const MAX_COLUMN: usize = 60;

/// A value with its comment.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::settings) struct Emitted {
    pub(in crate::settings) value: EmittedValue,
    /// Behind the value; empty for none. That of a list or mapping with content is left out.
    pub(in crate::settings) comment: String,
}

/// What is written.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::settings) enum EmittedValue {
    /// A null, boolean or number, as it is written.
    Plain(String),
    Text(String),
    List(Vec<Emitted>),
    Map(Vec<(String, Emitted)>),
}

/// A mapping or list as a document.
pub(in crate::settings) fn document(root: &Emitted) -> String {
    let mut lines = Vec::new();
    add(&mut lines, root, 0, String::new());
    let column = lines
        .iter()
        .filter(|(_, comment)| !comment.is_empty())
        .map(|(line, _)| line.chars().count())
        .filter(|width| *width <= MAX_COLUMN)
        .max()
        .unwrap_or(0);
    let finished = lines
        .into_iter()
        .map(|(line, comment)| match comment.as_str() {
            "" => line + "\n",
            comment => format!("{line:column$}  # {}\n", printable(comment)),
        });
    finished.collect()
}

/// Adds the lines of a value; `start` comes before it on its first line.
fn add(lines: &mut Vec<(String, String)>, item: &Emitted, indent: usize, start: String) {
    let mut line = |value: &str| lines.push((join(&start, value), item.comment.clone()));
    match &item.value {
        EmittedValue::Plain(text) => line(text),
        EmittedValue::Text(text) => line(&scalar(text, false)),
        EmittedValue::List(items) if items.is_empty() => line("[]"),
        EmittedValue::Map(pairs) if pairs.is_empty() => line("{}"),
        EmittedValue::List(items) => {
            if !start.is_empty() {
                lines.push((start, String::new()));
            }
            for item in items {
                add(lines, item, indent + 2, format!("{:indent$}-", ""));
            }
        }
        EmittedValue::Map(pairs) => {
            // The first pair of a list's item is on the line of its `-`.
            let mut first = start.ends_with('-').then_some(start.clone());
            if first.is_none() && !start.is_empty() {
                lines.push((start, String::new()));
            }
            for (key, value) in pairs {
                let key = format!("{}:", scalar(key, false));
                let start = match first.take() {
                    Some(dash) => join(&dash, &key),
                    None => format!("{:indent$}{key}", ""),
                };
                let indent = match value.value {
                    EmittedValue::Map(_) => indent + 2,
                    _ => indent,
                };
                add(lines, value, indent, start);
            }
        }
    }
}

fn join(start: &str, rest: &str) -> String {
    match start {
        "" => rest.to_owned(),
        start => format!("{start} {rest}"),
    }
}

/// A string as a scalar on one line; `in_flow`: between brackets or braces.
pub(in crate::settings) fn scalar(text: &str, in_flow: bool) -> String {
    if is_plain(text, in_flow) {
        return text.to_owned();
    }
    let shown = |c: char| {
        printable(c.encode_utf8(&mut [0; 4])).len() == c.len_utf8()
            && !matches!(c, '\u{feff}' | '\u{fffe}' | '\u{ffff}')
    };
    if text.chars().all(shown) {
        return format!("'{}'", text.replace('\'', "''"));
    }
    let escaped = text.chars().map(|c| match c {
        '"' => "\\\"".to_owned(),
        '\\' => "\\\\".to_owned(),
        '\n' => "\\n".to_owned(),
        '\t' => "\\t".to_owned(),
        c if shown(c) => c.to_string(),
        c if u32::from(c) <= 0xff => format!("\\x{:02x}", u32::from(c)),
        c if u32::from(c) <= 0xffff => format!("\\u{:04x}", u32::from(c)),
        c => format!("\\U{:08x}", u32::from(c)),
    });
    format!("\"{}\"", escaped.collect::<String>())
}

/// Whether a string needs no quotes. Some that need none get them.
fn is_plain(text: &str, in_flow: bool) -> bool {
    let starts = text
        .starts_with(|c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '.' | '_' | '~'))
        || (text.starts_with('-') && !in_flow && text.len() > 1);
    let fits = |c: char| {
        c.is_alphanumeric()
            || matches!(c, '/' | '.' | '_' | '-' | '~' | '+' | '@' | '%' | '=' | ' ')
            || (!in_flow && matches!(c, ':' | '*' | ',' | '$' | '{' | '}'))
    };
    starts
        && text.chars().all(fits)
        && !text.ends_with([' ', ':'])
        && !text.contains(": ")
        && !text.starts_with("---")
        && !text.starts_with("- ")
        && !text.starts_with("...")
        && scalar::resolve(text) == Tag::Str
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::settings::yaml::{self, Value};

    fn text(text: &str) -> Emitted {
        Emitted {
            value: EmittedValue::Text(text.to_owned()),
            comment: String::new(),
        }
    }

    fn map(pairs: Vec<(&str, Emitted)>) -> Emitted {
        let pairs = pairs
            .into_iter()
            .map(|(key, value)| (key.to_owned(), value));
        Emitted {
            value: EmittedValue::Map(pairs.collect()),
            comment: String::new(),
        }
    }

    #[test]
    fn mappings_and_lists_are_in_blocks_with_their_comments_in_a_column() {
        let commented = |value: &str, comment: &str| Emitted {
            comment: comment.to_owned(),
            ..text(value)
        };
        let list = |items| Emitted {
            value: EmittedValue::List(items),
            comment: String::new(),
        };
        let inner = map(vec![
            ("id", commented("a", "one\n")),
            ("env", map(vec![("K", text("012"))])),
        ]);
        let root = map(vec![
            ("w", list(vec![inner, text("- x"), map(vec![])])),
            (
                "nothing",
                Emitted {
                    comment: "two".to_owned(),
                    ..list(vec![])
                },
            ),
        ]);
        let expected =
            "w:\n- id: a      # one\\n\n  env:\n    K: '012'\n- '- x'\n- {}\nnothing: []  # two\n";
        assert_eq!(document(&root), expected);
    }

    proptest! {
        #[test]
        fn every_text_is_read_back(value in any::<String>(), word in "[ -~]{0,12}", in_flow: bool) {
            for value in [value, word] {
                let line = match in_flow {
                    true => format!("[{{path: {}, mode: use}}]", scalar(&value, true)),
                    false => format!("- path: {}", scalar(&value, false)),
                };
                let read = yaml::parse(&line).unwrap().root;
                let read = read.items()[0].get("path").unwrap();
                prop_assert_eq!(&read.value, &Value::Str(value), "{}", line);
            }
        }
    }
}
