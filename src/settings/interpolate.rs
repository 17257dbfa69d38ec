//! Replaces `${env:VAR}` and its other forms, as experimaestro's `settings.py` (`_interpolate`).

use std::ffi::OsStr;
use std::sync::LazyLock;

use regex::{Captures, Regex};

use super::environment::Environment;
use super::yaml::{Node, Position, Value};

/// A variable in a value that is not set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unset {
    /// Where the value begins.
    pub(crate) at: Position,
    /// As it is written, `${env:VAR}`.
    pub(crate) written: String,
    /// Its name.
    pub(crate) variable: String,
}

/// Replaces variables in every string value of the tree (not in keys), and turns the numbers and booleans
/// below an `env` key into strings. Returns the variables that are not set, which stay as they are written.
pub(crate) fn interpolate(node: &mut Node, environment: &Environment) -> Vec<Unset> {
    let mut unset = Vec::new();
    walk(node, false, environment, &mut unset);
    unset
}

fn walk(node: &mut Node, in_env: bool, environment: &Environment, unset: &mut Vec<Unset>) {
    let at = node.at;
    match &mut node.value {
        Value::Map(entries) => {
            for (key, value) in entries {
                let in_env = in_env || key.as_str() == Some("env");
                walk(value, in_env, environment, unset);
            }
        }
        Value::Seq(items) => items
            .iter_mut()
            .for_each(|item| walk(item, in_env, environment, unset)),
        Value::Str(text) => *text = replace(text, at, environment, unset),
        other if in_env => {
            if let Some(text) = python_str(other) {
                *other = Value::Str(text);
            }
        }
        _ => {}
    }
}

/// Replaces references from left to right. The values are not replaced again.
fn replace(text: &str, at: Position, environment: &Environment, unset: &mut Vec<Unset>) -> String {
    static REFERENCE: LazyLock<Option<Regex>> =
        LazyLock::new(|| Regex::new(r"\$\{(?:oc\.)?env[:.]([^}]+)\}").ok());
    let Some(reference) = REFERENCE.as_ref() else {
        return text.to_owned();
    };
    let value = |found: &Captures<'_>| {
        let [written, variable] = [0, 1].map(|index| found.get(index).map_or("", |it| it.as_str()));
        let value = environment.var(variable).and_then(OsStr::to_str);
        if value.is_none() {
            unset.push(Unset {
                at,
                written: written.to_owned(),
                variable: variable.to_owned(),
            });
        }
        value.unwrap_or(written).to_owned()
    };
    reference.replace_all(text, value).into_owned()
}

/// A text with its variables replaced.
pub(super) fn replaced(text: &str, environment: &Environment) -> String {
    replace(text, Position::START, environment, &mut Vec::new())
}

/// Python's `str()` of an `int`, `float` or `bool`.
fn python_str(value: &Value) -> Option<String> {
    match value {
        Value::Bool(true) => Some("True".to_owned()),
        Value::Bool(false) => Some("False".to_owned()),
        Value::Int(digits) => Some(digits.clone()),
        Value::Float(x) => Some(python_float(*x)),
        _ => None,
    }
}

/// Python's `repr()` of a `float`: the shortest digits that read back the same, an exponent below 1e-4 and from
/// 1e16.
pub(super) fn python_float(x: f64) -> String {
    if x.is_nan() {
        return "nan".to_owned();
    }
    if x.is_infinite() {
        return if x > 0.0 { "inf" } else { "-inf" }.to_owned();
    }
    let scientific = format!("{x:e}");
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if x != 0.0 && !(-4..16).contains(&exponent) {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{mantissa}e{sign}{:02}", exponent.abs());
    }
    let plain = format!("{x}");
    if plain.contains('.') {
        plain
    } else {
        plain + ".0"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_are_written_as_python_writes_them() {
        let cases = [
            (1.0, "1.0"),
            (0.1, "0.1"),
            (1e16, "1e+16"),
            (1e15, "1000000000000000.0"),
            (1e-5, "1e-05"),
            (0.0001, "0.0001"),
            (-0.0, "-0.0"),
            (1.5e300, "1.5e+300"),
            (123456789.125, "123456789.125"),
            (f64::INFINITY, "inf"),
            (f64::NEG_INFINITY, "-inf"),
            (f64::NAN, "nan"),
        ];
        for (x, expected) in cases {
            assert_eq!(python_float(x), expected);
        }
    }

    #[test]
    fn references_are_replaced_and_unset_ones_stay() {
        let environment = Environment::new([("A", "1"), ("B", "${env:A}")], "/");
        let at = Position { line: 1, column: 1 };
        for (text, expected) in [
            ("${env:A}", "1"),
            ("${env.A}", "1"),
            ("${oc.env:A}", "1"),
            ("${oc.env.A}x", "1x"),
            ("${env:B}", "${env:A}"),
            ("${env:}", "${env:}"),
            ("${env:C}-${env:A}", "${env:C}-1"),
            ("${envA}", "${envA}"),
            ("$${env:A}", "$1"),
            ("${${env:A}}", "${1}"),
            ("${env:A", "${env:A"),
            ("${ env:A}", "${ env:A}"),
            ("${env:A,default}", "${env:A,default}"),
        ] {
            assert_eq!(replace(text, at, &environment, &mut Vec::new()), expected);
        }
        let mut unset = Vec::new();
        replace("a ${oc.env.NOT} b", at, &environment, &mut unset);
        assert_eq!(
            unset,
            [Unset {
                at,
                written: "${oc.env.NOT}".into(),
                variable: "NOT".into()
            }]
        );
    }
}
