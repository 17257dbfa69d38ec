//! The type and value of a scalar in YAML 1.1, as in PyYAML's `resolver.py` and `constructor.py`.
//!
//! The text of a plain scalar determines its type ([`resolve`]). That type, or an explicit tag, determines how the text is read
//! ([`construct`]).

use std::sync::LazyLock;

use regex::RegexSet;

use super::tree::Value;

/// The types of nodes, which are tags below `tag:yaml.org,2002:`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Tag {
    Null,
    Bool,
    Int,
    Float,
    Str,
    Timestamp,
    Binary,
    /// `<<`, which is only valid as a key.
    Merge,
    /// `=`, which is only valid as a key, and is a string there.
    Value,
    Seq,
    Map,
    Set,
    Omap,
    Pairs,
}

impl Tag {
    /// The tag with this name below `tag:yaml.org,2002:`, if `yaml.safe_load` knows it.
    pub(super) fn from_name(name: &str) -> Option<Tag> {
        Some(match name {
            "null" => Tag::Null,
            "bool" => Tag::Bool,
            "int" => Tag::Int,
            "float" => Tag::Float,
            "str" => Tag::Str,
            "timestamp" => Tag::Timestamp,
            "binary" => Tag::Binary,
            "merge" => Tag::Merge,
            "value" => Tag::Value,
            "seq" => Tag::Seq,
            "map" => Tag::Map,
            "set" => Tag::Set,
            "omap" => Tag::Omap,
            "pairs" => Tag::Pairs,
            _ => return None,
        })
    }
}

/// PyYAML's regular expressions for the types that need one, in the order in which it tries them.
const RESOLVERS: [(Tag, &str); 4] = [
    (
        Tag::Bool,
        "yes|Yes|YES|no|No|NO|true|True|TRUE|false|False|FALSE|on|On|ON|off|Off|OFF",
    ),
    (
        Tag::Float,
        r"[-+]?[0-9][0-9_]*\.[0-9_]*(?:[eE][-+][0-9]+)?|\.[0-9][0-9_]*(?:[eE][-+][0-9]+)?
        |[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+\.[0-9_]*|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
    ),
    (
        Tag::Int,
        "[-+]?0b[01_]+|[-+]?0[0-7_]+|[-+]?(?:0|[1-9][0-9_]*)|[-+]?0x[0-9a-fA-F_]+|[-+]?[1-9][0-9_]*(?::[0-5]?[0-9])+",
    ),
    (
        Tag::Timestamp,
        r"[0-9]{4}-[0-9]{2}-[0-9]{2}|[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}(?:[Tt]|[\x20\t]+)[0-9]{1,2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]*)?
        (?:[\x20\t]*(?:Z|[-+][0-9]{1,2}(?::[0-9]{2})?))?",
    ),
];

/// The type of a plain scalar, from its text.
pub(super) fn resolve(text: &str) -> Tag {
    static PATTERNS: LazyLock<Option<RegexSet>> = LazyLock::new(|| {
        let patterns = RESOLVERS.map(|(_, pattern)| format!("^(?x:{pattern})$"));
        RegexSet::new(patterns).ok()
    });
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Tag::Null,
        "<<" => Tag::Merge,
        "=" => Tag::Value,
        _ => {
            let first = PATTERNS
                .as_ref()
                .and_then(|it| it.matches(text).iter().next());
            let known = first.and_then(|index| RESOLVERS.get(index));
            known.map_or(Tag::Str, |(tag, _)| *tag)
        }
    }
}

fn unsigned(text: &str) -> &str {
    text.strip_prefix(['-', '+']).unwrap_or(text)
}

/// The value of a scalar of a given type, as PyYAML's `SafeConstructor` makes it.
///
/// # Errors
///
/// The reason, as a phrase.
pub(super) fn construct(tag: Tag, text: &str) -> Result<Value, String> {
    match tag {
        Tag::Null => Ok(Value::Null),
        Tag::Str => Ok(Value::Str(text.to_owned())),
        Tag::Bool => match text.to_lowercase().as_str() {
            "yes" | "true" | "on" => Ok(Value::Bool(true)),
            "no" | "false" | "off" => Ok(Value::Bool(false)),
            _ => Err(format!("`{text}` is not a boolean")),
        },
        Tag::Int => int(text)
            .map(Value::Int)
            .ok_or_else(|| format!("`{text}` is not an integer")),
        Tag::Float => float(text)
            .map(Value::Float)
            .ok_or_else(|| format!("`{text}` is not a number")),
        Tag::Timestamp => Ok(Value::Date),
        Tag::Binary => base64(text)
            .map(Value::Bytes)
            .ok_or_else(|| "this is not base64".to_owned()),
        Tag::Merge => Err("`<<` is only valid as a key".to_owned()),
        Tag::Value => Err("`=` is not a value in YAML: put it in quotes".to_owned()),
        Tag::Seq | Tag::Omap | Tag::Pairs => Err("a list is expected here".to_owned()),
        Tag::Map | Tag::Set => Err("a mapping is expected here".to_owned()),
    }
}

/// `construct_yaml_int`, as decimal digits. In another base, what is beyond 128 bits becomes the greatest integer of 128 bits.
fn int(text: &str) -> Option<String> {
    let text = text.replace('_', "");
    let text = text.trim();
    let body = unsigned(text);
    let digits = if let Some(bits) = body.strip_prefix("0b") {
        number(bits, 2)?
    } else if let Some(hex) = body.strip_prefix("0x") {
        number(hex, 16)?
    } else if body.len() > 1 && body.starts_with('0') {
        number(body, 8)?
    } else if body.contains(':') {
        // Digits of base 60.
        let parts = body.split(':').map(|part| number(part, 10));
        parts.reduce(|all, part| Some(all?.saturating_mul(60).saturating_add(part?)))??
    } else {
        let is_number = !body.is_empty() && body.bytes().all(|b| b.is_ascii_digit());
        let sign = if text.starts_with('-') && body != "0" {
            "-"
        } else {
            ""
        };
        return is_number.then(|| format!("{sign}{body}"));
    };
    let sign = if text.starts_with('-') && digits != 0 {
        "-"
    } else {
        ""
    };
    Some(format!("{sign}{digits}"))
}

fn number(digits: &str, base: u32) -> Option<u128> {
    let mut digits = digits.chars().map(|c| c.to_digit(base)).peekable();
    digits.peek()?;
    digits.try_fold(0_u128, |all, digit| {
        Some(
            all.saturating_mul(base.into())
                .saturating_add(digit?.into()),
        )
    })
}

/// `construct_yaml_float`
fn float(text: &str) -> Option<f64> {
    let text = text.replace('_', "").to_lowercase();
    let text = text.trim();
    let sign = if text.starts_with('-') { -1.0 } else { 1.0 };
    let body = unsigned(text);
    let value = match body {
        ".inf" => f64::INFINITY,
        ".nan" => return Some(f64::NAN),
        _ if body.contains(':') => {
            let mut value = 0.0;
            let mut base = 1.0;
            for part in body.split(':').rev() {
                value += part.parse::<f64>().ok()? * base;
                base *= 60.0;
            }
            value
        }
        _ => body.parse().ok()?,
    };
    Some(sign * value)
}

/// Python's `base64.decodebytes`: skips characters that are not of the alphabet.
fn base64(text: &str) -> Option<Vec<u8>> {
    if !text.is_ascii() {
        return None;
    }
    let (mut out, mut bits, mut have, mut sextets) = (Vec::new(), 0u32, 0u32, 0usize);
    let mut padding = 0usize;
    for b in text.bytes() {
        let sextet = match b {
            b'A'..=b'Z' => b - b'A',
            b'a'..=b'z' => b - b'a' + 26,
            b'0'..=b'9' => b - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            b'=' => {
                padding += 1;
                if sextets % 4 >= 2 && sextets % 4 + padding >= 4 {
                    return Some(out);
                }
                continue;
            }
            _ => continue,
        };
        padding = 0;
        sextets += 1;
        bits = (bits << 6 | u32::from(sextet)) & 0xffff;
        have += 6;
        if have >= 8 {
            have -= 8;
            out.push((bits >> have & 0xff) as u8);
        }
    }
    sextets.is_multiple_of(4).then_some(out)
}
