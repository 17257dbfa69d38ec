//! What a scalar means: YAML 1.1, as PyYAML's `resolver.py` and `constructor.py` read it.
//!
//! A plain scalar gets its type from its look (`resolve`); an explicit tag or that type then says how it is
//! read (`construct`). The patterns are PyYAML's regular expressions, written out.

use super::document::Value;
use super::timestamp;

/// The types that a scalar can have; what `tag:yaml.org,2002:` is followed by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Tag {
    Null,
    Bool,
    Int,
    Float,
    Str,
    Timestamp,
    Binary,
    /// `<<`: only as a key
    Merge,
    /// `=`: only as a key, where it is a string
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

/// The type of a plain scalar, from its look.
pub(super) fn resolve(text: &str) -> Tag {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Tag::Null,
        "<<" => Tag::Merge,
        "=" => Tag::Value,
        _ if boolean(text).is_some_and(|_| uniform_case(text)) => Tag::Bool,
        _ if looks_like_float(text) => Tag::Float,
        _ if looks_like_int(text) => Tag::Int,
        _ if timestamp::looks_like(text) => Tag::Timestamp,
        _ => Tag::Str,
    }
}

/// `yes`, `Yes` and `YES`, but not `yEs`.
fn uniform_case(text: &str) -> bool {
    let rest = text.get(1..).unwrap_or("");
    text.bytes().all(|b| b.is_ascii_lowercase())
        || text.bytes().all(|b| b.is_ascii_uppercase())
        || (text.starts_with(|c: char| c.is_ascii_uppercase())
            && rest.bytes().all(|b| b.is_ascii_lowercase()))
}

fn boolean(text: &str) -> Option<bool> {
    match text.to_lowercase().as_str() {
        "yes" | "true" | "on" => Some(true),
        "no" | "false" | "off" => Some(false),
        _ => None,
    }
}

fn unsigned(text: &str) -> &str {
    text.strip_prefix(['-', '+']).unwrap_or(text)
}

fn all(text: &str, accept: impl Fn(u8) -> bool) -> bool {
    text.bytes().all(accept)
}

fn digit_or_underscore(b: u8) -> bool {
    b.is_ascii_digit() || b == b'_'
}

/// `[0-9][0-9_]*`
fn digits(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_digit()) && all(text, digit_or_underscore)
}

/// `(?::[0-5]?[0-9])+`, its first colon already taken.
fn sixties(text: &str) -> bool {
    text.split(':').all(|part| match part.as_bytes() {
        [unit] => unit.is_ascii_digit(),
        [ten, unit] => (b'0'..=b'5').contains(ten) && unit.is_ascii_digit(),
        _ => false,
    })
}

fn looks_like_float(text: &str) -> bool {
    let body = unsigned(text);
    if matches!(body, ".inf" | ".Inf" | ".INF") || matches!(text, ".nan" | ".NaN" | ".NAN") {
        return true;
    }
    let Some((whole, rest)) = body.split_once('.') else {
        return false;
    };
    if let Some((head, tail)) = whole.split_once(':') {
        return digits(head) && sixties(tail) && all(rest, digit_or_underscore);
    }
    let (fraction, exponent) = match rest.find(['e', 'E']) {
        Some(at) => (rest.get(..at).unwrap_or(""), rest.get(at + 1..)),
        None => (rest, None),
    };
    let exponent_fits = exponent.is_none_or(|e| {
        e.starts_with(['-', '+']) && e.len() > 1 && all(unsigned(e), |b| b.is_ascii_digit())
    });
    let mantissa_fits = if whole.is_empty() {
        // A leading point takes no sign.
        body.len() == text.len() && digits(fraction)
    } else {
        digits(whole) && all(fraction, digit_or_underscore)
    };
    mantissa_fits && exponent_fits
}

fn looks_like_int(text: &str) -> bool {
    let body = unsigned(text);
    if let Some(bits) = body.strip_prefix("0b") {
        return !bits.is_empty() && all(bits, |b| matches!(b, b'0' | b'1' | b'_'));
    }
    if let Some(hex) = body.strip_prefix("0x") {
        return !hex.is_empty() && all(hex, |b| b.is_ascii_hexdigit() || b == b'_');
    }
    if let Some(octal) = body.strip_prefix('0') {
        return all(octal, |b| matches!(b, b'0'..=b'7' | b'_'));
    }
    match body.split_once(':') {
        Some((head, tail)) => digits(head) && sixties(tail),
        None => digits(body),
    }
}

/// The value of a scalar of a given type, as PyYAML's `SafeConstructor` makes it.
///
/// # Errors
///
/// What is wrong with it, as a phrase.
pub(super) fn construct(tag: Tag, text: &str) -> Result<Value, String> {
    match tag {
        Tag::Null => Ok(Value::Null),
        Tag::Str => Ok(Value::Str(text.to_owned())),
        Tag::Bool => boolean(text)
            .map(Value::Bool)
            .ok_or_else(|| format!("`{text}` is not a boolean")),
        Tag::Int => int(text)
            .map(Value::Int)
            .ok_or_else(|| format!("`{text}` is not an integer")),
        Tag::Float => float(text)
            .map(Value::Float)
            .ok_or_else(|| format!("`{text}` is not a number")),
        Tag::Timestamp if timestamp::exists(text) => Ok(Value::Date),
        Tag::Timestamp => Err(format!(
            "`{text}` looks like a date, and there is no such day or time"
        )),
        Tag::Binary => base64(text)
            .map(Value::Bytes)
            .ok_or_else(|| "this is not base64".to_owned()),
        Tag::Merge => Err("`<<` is a value only as a key of a mapping".to_owned()),
        Tag::Value => Err("`=` has a meaning of its own in YAML".to_owned()),
        Tag::Seq | Tag::Omap | Tag::Pairs => Err("expected a list".to_owned()),
        Tag::Map | Tag::Set => Err("expected a mapping".to_owned()),
    }
}

/// `construct_yaml_int`, to decimal digits.
fn int(text: &str) -> Option<String> {
    let text = text.replace('_', "");
    let negative = text.starts_with('-');
    let body = unsigned(&text);
    let digits = if let Some(bits) = body.strip_prefix("0b") {
        decimal(bits, 2)?
    } else if let Some(hex) = body.strip_prefix("0x") {
        decimal(hex, 16)?
    } else if body.len() > 1 && body.starts_with('0') {
        decimal(body, 8)?
    } else if body.contains(':') {
        sexagesimal(body)?
    } else {
        decimal(body, 10)?
    };
    Some(if negative && digits != "0" {
        format!("-{digits}")
    } else {
        digits
    })
}

/// The decimal digits of a number written in another base, of any size.
fn decimal(text: &str, base: u32) -> Option<String> {
    let mut places = vec![0u32];
    for c in text.chars() {
        multiply_add(&mut places, base, c.to_digit(base)?);
    }
    (!text.is_empty()).then(|| written(&places))
}

/// `1:30:00`: digits to the base of sixty.
fn sexagesimal(text: &str) -> Option<String> {
    let mut places = vec![0u32];
    for part in text.split(':') {
        // Only the first part can be long, and 60 times nothing is nothing.
        if places == [0] {
            places = decimal(part, 10)?
                .chars()
                .rev()
                .map(|c| c.to_digit(10))
                .collect::<Option<_>>()?;
        } else {
            multiply_add(&mut places, 60, part.parse().ok()?);
        }
    }
    Some(written(&places))
}

fn multiply_add(places: &mut Vec<u32>, by: u32, add: u32) {
    let mut carry = add;
    for place in places.iter_mut() {
        let product = *place * by + carry;
        *place = product % 10;
        carry = product / 10;
    }
    while carry > 0 {
        places.push(carry % 10);
        carry /= 10;
    }
}

fn written(places: &[u32]) -> String {
    let text: String = places
        .iter()
        .rev()
        .filter_map(|place| char::from_digit(*place, 10))
        .collect();
    let trimmed = text.trim_start_matches('0');
    if trimmed.is_empty() {
        "0".to_owned()
    } else {
        trimmed.to_owned()
    }
}

/// `construct_yaml_float`
fn float(text: &str) -> Option<f64> {
    let text = text.replace('_', "").to_lowercase();
    let sign = if text.starts_with('-') { -1.0 } else { 1.0 };
    let body = unsigned(&text);
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

/// Python's `base64.decodebytes`: what is not of the alphabet is skipped.
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
