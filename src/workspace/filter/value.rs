//! The values of tags and of the other variables, compared.

use std::borrow::Cow;

use serde_json::{Number, Value};

/// The value of a variable.
#[derive(Debug, Clone, Copy)]
pub(super) enum Operand<'a> {
    /// No tag has the name, or it is `null`.
    None,
    /// A state: case does not matter.
    State(&'a str),
    Text(&'a str),
    Number(&'a Number),
    Boolean(bool),
    /// A list or an object, which experimaestro does not accept as a tag.
    Other,
}

impl<'a> Operand<'a> {
    pub(super) fn of(tag: &'a Value) -> Operand<'a> {
        match tag {
            Value::Null => Operand::None,
            Value::String(text) => Operand::Text(text),
            Value::Number(number) => Operand::Number(number),
            Value::Bool(boolean) => Operand::Boolean(*boolean),
            Value::Array(_) | Value::Object(_) => Operand::Other,
        }
    }

    /// Whether it is what a text of the filter says: a number if the text is the same number.
    pub(super) fn is(&self, text: &str) -> bool {
        match self {
            Operand::None | Operand::Other => false,
            Operand::Text(value) => *value == text,
            Operand::State(state) => state.eq_ignore_ascii_case(text),
            Operand::Boolean(_) => self
                .text()
                .is_some_and(|value| value.eq_ignore_ascii_case(text)),
            Operand::Number(number) => {
                let same = |written: f64| number.as_f64() == Some(written);
                // Integers beyond 2^53 have no exact f64.
                match (number.as_i128(), text.parse::<i128>()) {
                    (Some(integer), Ok(written)) => integer == written,
                    _ => text.parse().is_ok_and(same),
                }
            }
        }
    }

    /// Whether two values are the same, as in Python: two missing ones are, and a boolean is 0 or 1.
    pub(super) fn equals(&self, other: &Operand<'_>) -> bool {
        match (self, other) {
            (Operand::None, Operand::None) => true,
            (Operand::State(a), Operand::State(b) | Operand::Text(b))
            | (Operand::Text(b), Operand::State(a)) => a.eq_ignore_ascii_case(b),
            (Operand::Text(a), Operand::Text(b)) => a == b,
            _ => match (self.number(), other.number()) {
                (Some(a), Some(b)) => a == b,
                _ => false,
            },
        }
    }

    fn number(&self) -> Option<f64> {
        match self {
            Operand::Number(number) => number.as_f64(),
            Operand::Boolean(boolean) => Some(f64::from(u8::from(*boolean))),
            _ => None,
        }
    }

    /// Its text, as Python's `str` writes it; `None` if it has none.
    pub(super) fn text(&self) -> Option<Cow<'a, str>> {
        match self {
            Operand::None | Operand::Other => None,
            Operand::State(text) | Operand::Text(text) => Some(Cow::Borrowed(text)),
            Operand::Boolean(true) => Some(Cow::Borrowed("True")),
            Operand::Boolean(false) => Some(Cow::Borrowed("False")),
            Operand::Number(number) => Some(Cow::Owned(number_text(number))),
        }
    }
}

/// The value of a tag as a text: a number, a boolean and `None` as Python writes them.
#[must_use]
pub fn tag_text(tag: &Value) -> Cow<'_, str> {
    match Operand::of(tag) {
        Operand::None => Cow::Borrowed("None"),
        Operand::Other => Cow::Owned(tag.to_string()),
        value => value.text().unwrap_or_default(),
    }
}

/// A number as Python writes it.
fn number_text(number: &Number) -> String {
    match number.as_f64() {
        Some(float) if number.is_f64() => {
            let text = format!("{float:?}");
            match text.split_once('e') {
                // Python's exponents have a sign and two digits at least.
                Some((digits, exponent)) => {
                    let (sign, exponent) = match exponent.strip_prefix('-') {
                        Some(exponent) => ('-', exponent),
                        None => ('+', exponent),
                    };
                    format!("{digits}e{sign}{exponent:0>2}")
                }
                None => text,
            }
        }
        _ => number.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn numbers_are_written_as_by_python() {
        for (number, text) in [
            (json!(0.1), "0.1"),
            (json!(1e-5), "1e-05"),
            (json!(1.5e-7), "1.5e-07"),
            (json!(0.0001), "0.0001"),
            (json!(1e16), "1e+16"),
            (json!(1e15), "1000000000000000.0"),
            (json!(1e100), "1e+100"),
            (json!(-2.0), "-2.0"),
            (json!(3), "3"),
            (json!(u64::MAX), "18446744073709551615"),
        ] {
            assert_eq!(Operand::of(&number).text().as_deref(), Some(text));
            assert!(Operand::of(&number).is(text), "{text}");
        }
        assert!(!Operand::of(&json!(9_007_199_254_740_993_u64)).is("9007199254740992"));
        assert!(!Operand::of(&json!("1")).equals(&Operand::of(&json!(1))));
        assert!(Operand::of(&json!(true)).equals(&Operand::of(&json!(1.0))));
    }
}
