//! From text to an expression.
//!
//! ```text
//! expression = operand { ("and" | "or") operand }            from left to right
//! operand    = comparison | "(" expression ")"
//! comparison = variable "=" (variable | string)
//!            | variable "~" string
//!            | variable "in" "[" string { "," string } "]"
//!            | variable "not in" "[" string { "," string } "]"
//! variable   = "@state" | "@name" | letter { letter | digit | "_" | "-" }
//! string     = in double or single quotes, in which \t, \n, \f and \r are the characters of these names
//! ```
//!
//! As experimaestro's parser (`cli/filter.py`, with pyparsing) reads it: letters and digits are those of ASCII, white space may be missing
//! wherever no name would grow by that, and `not in` has one space.

use super::expression::{Expression, Operator, Variable};
use super::pattern::Pattern;

/// Why a text is not a filter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message} in column {column} of the filter {text:?}")]
pub struct FilterError {
    /// The filter.
    pub text: String,
    /// Where the mistake is: the number of characters up to it, from 1.
    pub column: usize,
    /// What was expected, or is wrong.
    pub message: String,
}

/// How deep parentheses may be nested.
const DEPTH_MAX: usize = 100;

pub(super) fn parse(text: &str) -> Result<Expression, FilterError> {
    let mut parser = Parser { text, at: 0 };
    let expression = parser.expression(0)?;
    parser.space();
    match parser.rest().is_empty() {
        true => Ok(expression),
        false => Err(parser.expected("`and`, `or` or the end")),
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Parser<'a> {
    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn space(&mut self) {
        let rest = self.rest();
        let trimmed = rest.trim_start_matches([' ', '\t', '\r', '\n']);
        self.at += rest.len() - trimmed.len();
    }

    /// Skips white space and a text, if that comes next.
    fn take(&mut self, text: &str) -> bool {
        self.space();
        let taken = self.rest().starts_with(text);
        if taken {
            self.at += text.len();
        }
        taken
    }

    fn expected(&self, what: &str) -> FilterError {
        self.wrong(self.at, format!("expected {what}"))
    }

    fn wrong(&self, at: usize, message: String) -> FilterError {
        let before = self.text.get(..at).unwrap_or_default();
        FilterError {
            text: self.text.to_owned(),
            column: before.chars().count() + 1,
            message,
        }
    }

    fn expression(&mut self, depth: usize) -> Result<Expression, FilterError> {
        let first = self.operand(depth)?;
        let mut others = Vec::new();
        loop {
            let operator = match self.take("and") {
                true => Operator::And,
                false if self.take("or") => Operator::Or,
                false if others.is_empty() => return Ok(first),
                false => return Ok(Expression::Chain(Box::new(first), others)),
            };
            others.push((operator, self.operand(depth)?));
        }
    }

    fn operand(&mut self, depth: usize) -> Result<Expression, FilterError> {
        if !self.take("(") {
            return self.comparison();
        }
        if depth == DEPTH_MAX {
            return Err(self.wrong(self.at, "too many nested parentheses".to_owned()));
        }
        let inner = self.expression(depth + 1)?;
        match self.take(")") {
            true => Ok(inner),
            false => Err(self.expected("`and`, `or` or `)`")),
        }
    }

    fn comparison(&mut self) -> Result<Expression, FilterError> {
        self.space();
        let Some(variable) = self.variable() else {
            return Err(self.expected("a tag, @state or @name"));
        };
        if self.take("=") {
            self.space();
            if let Some(other) = self.variable() {
                return Ok(Expression::IsSame(variable, other));
            }
            return match self.string()? {
                Some(text) => Ok(Expression::IsText(variable, text)),
                None => Err(self.expected("a text in quotes (also a number), or a tag")),
            };
        }
        if self.take("~") {
            self.space();
            let at = self.at;
            let Some(text) = self.string()? else {
                return Err(self.expected("a pattern in quotes"));
            };
            let ignores_case = variable == Variable::State;
            let pattern = Pattern::new(&text, ignores_case)
                .map_err(|why| self.wrong(at, format!("the pattern is not valid ({why})")))?;
            return Ok(Expression::Matches(variable, pattern));
        }
        let negated = self.take("not in");
        if !negated && !self.take("in") {
            return Err(self.expected("`=`, `~`, `in` or `not in`"));
        }
        Ok(Expression::IsIn {
            variable,
            texts: self.list()?,
            negated,
        })
    }

    fn list(&mut self) -> Result<Vec<String>, FilterError> {
        if !self.take("[") {
            return Err(self.expected("`[`"));
        }
        let mut texts = Vec::new();
        loop {
            self.space();
            match self.string()? {
                Some(text) => texts.push(text),
                None => return Err(self.expected("a text in quotes (also a number)")),
            }
            if self.take("]") {
                return Ok(texts);
            }
            if !self.take(",") {
                return Err(self.expected("`,` or `]`"));
            }
        }
    }

    fn variable(&mut self) -> Option<Variable> {
        for (name, variable) in [("@state", Variable::State), ("@name", Variable::Name)] {
            if self.take(name) {
                return Some(variable);
            }
        }
        let rest = self.rest();
        if !rest.starts_with(|c: char| c.is_ascii_alphabetic()) {
            return None;
        }
        let in_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        let name = rest.split(|c| !in_name(c)).next().unwrap_or_default();
        self.at += name.len();
        Some(Variable::Tag(name.to_owned()))
    }

    /// A string; `None` if none comes next.
    fn string(&mut self) -> Result<Option<String>, FilterError> {
        let rest = self.rest();
        let Some(quote) = rest.chars().next().filter(|c| matches!(c, '"' | '\'')) else {
            return Ok(None);
        };
        let inside = rest.get(1..).unwrap_or_default();
        let end = inside.find([quote, '\n', '\r']);
        let Some(end) = end.filter(|end| inside[*end..].starts_with(quote)) else {
            return Err(self.wrong(self.at, format!("the text has no closing {quote}")));
        };
        self.at += end + 2;
        Ok(Some(unescaped(inside.get(..end).unwrap_or_default())))
    }
}

/// Replaces `\t`, `\n`, `\f` and `\r`; every other backslash is itself.
fn unescaped(text: &str) -> String {
    let mut unescaped = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(character) = rest.chars().next() {
        let escape = [
            (r"\t", '\t'),
            (r"\n", '\n'),
            (r"\f", '\u{c}'),
            (r"\r", '\r'),
        ];
        let escape = escape.iter().find(|(written, _)| rest.starts_with(written));
        let (length, character) = match escape {
            Some((written, meant)) => (written.len(), *meant),
            None => (character.len_utf8(), character),
        };
        unescaped.push(character);
        rest = rest.get(length..).unwrap_or_default();
    }
    unescaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistake_has_a_place_and_a_remedy() {
        for (text, column, part) in [
            ("", 1, "a tag, @state or @name"),
            ("model", 6, "`=`, `~`, `in` or `not in`"),
            ("model = ", 9, "a text in quotes (also a number), or a tag"),
            ("lr = 0.1", 6, "also a number"),
            ("lr in [1]", 8, "also a number"),
            (r#"model = "x"#, 9, "no closing \""),
            (r#"é = "x""#, 1, "a tag"),
            (r#"a = "é" x"#, 9, "`and`, `or` or the end"),
            (r#"a in []"#, 7, "a text in quotes"),
            (r#"a in ["x" "y"]"#, 11, "`,` or `]`"),
            (r#"a not  in ["x"]"#, 3, "`=`, `~`"),
            (r#"(a = "x""#, 9, "`)`"),
            (r#"a = "x" and"#, 12, "a tag"),
            (r#"a ~ "(""#, 5, "pattern is not valid"),
            (r#"@states = "x""#, 7, "`=`, `~`"),
        ] {
            let error = parse(text).unwrap_err();
            assert_eq!(error.column, column, "{error}");
            assert!(error.message.contains(part), "{error}");
        }
        assert!(parse(&"(".repeat(100_000)).is_err());
        assert!(parse(&format!("a = b{}", " and a = b".repeat(10_000))).is_ok());
    }

    #[test]
    fn strings_are_those_of_experimaestro() {
        assert_eq!(unescaped(r"a\tb\\n\d"), "a\tb\\\n\\d");
        for text in [
            r#"a="x"and b='y'"#,
            "a\n in\t[\"x\",'y' , \"z\"]",
            "and = or",
        ] {
            assert!(parse(text).is_ok(), "{text}");
        }
    }
}
