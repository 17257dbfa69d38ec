//! From a value of the tree to a value of a type, with what pydantic's lax mode lets pass: a string of digits is
//! an integer, `1.0` is `1`, `yes` is true; but a number is no string.

use super::document::Value;

/// pydantic's `str`: a string, or bytes that are UTF-8.
pub(super) fn string(value: &Value) -> Option<String> {
    match value {
        Value::Str(text) => Some(text.clone()),
        Value::Bytes(bytes) => String::from_utf8(bytes.clone()).ok(),
        _ => None,
    }
}

/// pydantic's `int`. Python's integers have no bounds: what is beyond 64 bits becomes the nearest integer of 64 bits.
pub(super) fn integer(value: &Value) -> Option<i64> {
    match value {
        Value::Int(digits) => nearest(digits),
        Value::Bool(flag) => Some(i64::from(*flag)),
        Value::Float(x) if x.fract() == 0.0 && x.abs() < 9.2e18 => Some(*x as i64),
        Value::Str(_) | Value::Bytes(_) => integer_text(&string(value)?),
        _ => None,
    }
}

/// A sign, digits with single underscores between them, a fraction of zeros.
fn integer_text(text: &str) -> Option<i64> {
    let text = text.trim();
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    if fraction.is_empty() || fraction.bytes().any(|b| b != b'0') {
        return None;
    }
    let body = whole.strip_prefix(['-', '+']).unwrap_or(whole);
    if !body.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    nearest(&without_underscores(whole)?)
}

/// The integer of 64 bits that is nearest to one of any size.
fn nearest(digits: &str) -> Option<i64> {
    use std::num::IntErrorKind::{NegOverflow, PosOverflow};
    match digits.parse::<i64>() {
        Ok(number) => Some(number),
        Err(error) => match error.kind() {
            PosOverflow => Some(i64::MAX),
            NegOverflow => Some(i64::MIN),
            _ => None,
        },
    }
}

/// pydantic's `float`.
pub(super) fn float(value: &Value) -> Option<f64> {
    match value {
        // An integer too large for a float is an `OverflowError`.
        Value::Int(digits) => digits.parse().ok().filter(|x: &f64| x.is_finite()),
        Value::Bool(flag) => Some(f64::from(u8::from(*flag))),
        Value::Float(x) => Some(*x),
        Value::Str(_) | Value::Bytes(_) => without_underscores(string(value)?.trim())?.parse().ok(),
        _ => None,
    }
}

fn without_underscores(text: &str) -> Option<String> {
    let odd = text.starts_with('_') || text.ends_with('_') || text.contains("__");
    (!odd).then(|| text.replace('_', ""))
}

/// pydantic's `bool`.
pub(super) fn boolean(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(flag) => Some(*flag),
        Value::Int(digits) => match digits.as_str() {
            "0" => Some(false),
            "1" => Some(true),
            _ => None,
        },
        Value::Float(x) if *x == 0.0 => Some(false),
        Value::Float(x) if *x == 1.0 => Some(true),
        Value::Str(_) | Value::Bytes(_) => match string(value)?.to_ascii_lowercase().as_str() {
            "0" | "off" | "f" | "false" | "n" | "no" => Some(false),
            "1" | "on" | "t" | "true" | "y" | "yes" => Some(true),
            _ => None,
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_read_from_what_pydantic_reads_them_from() {
        let text = |t: &str| integer(&Value::Str(t.into()));
        for (t, n) in [
            ("123", 123),
            (" 12 ", 12),
            ("1_000", 1000),
            ("+1", 1),
            ("-0.0", 0),
            ("1.00", 1),
            ("007", 7),
            ("00_1", 1),
            ("1_000.0", 1000),
        ] {
            assert_eq!(text(t), Some(n), "{t}");
        }
        for t in [
            "1.5", "0x10", "1e3", "", "1_", "_1", "1__0", "1.", ".0", "+-1", "10.0_0", "-", "1 2",
            "+_1",
        ] {
            assert_eq!(text(t), None, "{t}");
        }
        assert_eq!(integer(&Value::Float(1.0)), Some(1));
        assert_eq!(integer(&Value::Float(1.5)), None);
        assert_eq!(integer(&Value::Float(f64::NAN)), None);
        assert_eq!(integer(&Value::Bool(true)), Some(1));
        assert_eq!(integer(&Value::Null), None);
    }
}
