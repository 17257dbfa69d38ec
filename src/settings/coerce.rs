//! Converts single values to types, as pydantic's lax mode: a string of digits is an integer, `1.0` is `1`, `yes` is true;
//! but a number is not a string.

use std::path::PathBuf;
use std::time::Duration;

use super::units;
use super::xpmfs::KeepFree;
use super::yaml::Value;

/// A type that a single value can have.
pub(super) trait Scalar: Sized {
    const EXPECTED: Expected;

    fn from_value(value: &Value) -> Option<Self>;
}

/// A type, for messages.
pub(super) struct Expected {
    pub(super) kind: &'static str,
    pub(super) example: &'static str,
    /// What else is accepted, if the example does not show it.
    pub(super) forms: Option<&'static str>,
    /// Whether quotes would make a number right.
    pub(super) is_text: bool,
}

/// Implements [`Scalar`] by a function.
macro_rules! scalar {
    ($type:ty, $from_value:path, $kind:literal, $example:literal, is_text: $is_text:literal) => {
        scalar!($type, $from_value, $kind, $example, None, is_text: $is_text);
    };
    ($type:ty, $from_value:path, $kind:literal, $example:literal, $forms:expr, is_text: $is_text:literal) => {
        impl Scalar for $type {
            const EXPECTED: Expected = Expected {
                kind: $kind,
                example: $example,
                forms: $forms,
                is_text: $is_text,
            };

            fn from_value(value: &Value) -> Option<$type> {
                $from_value(value)
            }
        }
    };
}

scalar!(String, string, "a string", "\"…\"", is_text: true);
scalar!(PathBuf, path, "a path", "/path/to/directory", is_text: true);
scalar!(i64, integer, "an integer", "3", is_text: false);
scalar!(f64, float, "a number", "60.0", is_text: false);
scalar!(bool, boolean, "true or false", "true", is_text: false);
scalar!(Duration, duration, "a duration", "5m", Some(units::DURATIONS), is_text: false);
scalar!(u64, size, "a size per second", "100M", Some(units::SIZES), is_text: false);
scalar!(KeepFree, keep_free, "a size or a percentage", "100G", Some(units::KEEP_FREES), is_text: false);

/// pydantic's `str`: a string, or bytes that are UTF-8.
pub(super) fn string(value: &Value) -> Option<String> {
    match value {
        Value::Str(text) => Some(text.clone()),
        Value::Bytes(bytes) => String::from_utf8(bytes.clone()).ok(),
        _ => None,
    }
}

/// pydantic's `int`. Python's integers have no bounds: those beyond 64 bits become the nearest integer of 64 bits.
fn integer(value: &Value) -> Option<i64> {
    match value {
        Value::Int(digits) => nearest(digits),
        Value::Bool(flag) => Some(i64::from(*flag)),
        Value::Float(x) if x.fract() == 0.0 && x.abs() < 9.2e18 => Some(*x as i64),
        Value::Str(_) | Value::Bytes(_) => integer_text(&string(value)?),
        _ => None,
    }
}

/// Reads a sign, digits with single underscores between them, and a fraction of zeros.
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
fn float(value: &Value) -> Option<f64> {
    match value {
        // Python raises `OverflowError` for an integer that is too large for a float.
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
fn boolean(value: &Value) -> Option<bool> {
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

/// pydantic's `Path`: only a string.
fn path(value: &Value) -> Option<PathBuf> {
    match value {
        Value::Str(text) => Some(PathBuf::from(text)),
        _ => None,
    }
}

/// Seconds, or a duration with its units.
fn duration(value: &Value) -> Option<Duration> {
    match value {
        Value::Int(digits) => units::seconds(digits.parse().ok()?),
        Value::Float(x) => units::seconds(*x),
        Value::Str(text) => units::duration(text).ok(),
        _ => None,
    }
}

/// Bytes, or a size with its unit.
fn size(value: &Value) -> Option<u64> {
    match value {
        Value::Int(digits) => digits.parse().ok(),
        Value::Str(text) => units::size(text),
        _ => None,
    }
}

fn keep_free(value: &Value) -> Option<KeepFree> {
    match value {
        Value::Str(text) if text.contains('%') => units::percent(text).map(KeepFree::Percent),
        _ => size(value).map(KeepFree::Bytes),
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
