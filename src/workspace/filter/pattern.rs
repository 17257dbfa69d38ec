//! Regular expressions of Python's `re`, as `re.match` applies them: from the start of the text on.

use fancy_regex::{Regex, RegexBuilder};

/// How many steps a pattern with look-around or backreferences may take for one value. Other patterns take time in proportion to the
/// value's length.
const STEPS_MAX: usize = 100_000;

/// The most bytes that a compiled pattern may take.
const SIZE_MAX: usize = 8 << 20;

/// A pattern that has tried too many ways to match a value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the pattern {pattern:?} takes too long on {value:?}")]
pub struct PatternTooSlow {
    /// The pattern.
    pub pattern: String,
    /// The value.
    pub value: String,
}

/// A compiled pattern.
#[derive(Debug, Clone)]
pub(super) struct Pattern {
    text: String,
    regex: Regex,
}

impl Pattern {
    /// Compiles a pattern; `ignore_case` as Python's `re.IGNORECASE`.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub(super) fn new(text: &str, ignore_case: bool) -> Result<Pattern, String> {
        let regex = RegexBuilder::new(&translated(text))
            .case_insensitive(ignore_case)
            .backtrack_limit(STEPS_MAX)
            .delegate_size_limit(SIZE_MAX)
            .build()
            .map_err(|error| error.to_string())?;
        Ok(Pattern {
            text: text.to_owned(),
            regex,
        })
    }

    /// Whether it matches at the start of a value.
    pub(super) fn matches(&self, value: &str) -> Result<bool, PatternTooSlow> {
        // The leftmost match is found first: one at the start, if there is any.
        match self.regex.find(value) {
            Ok(found) => Ok(found.is_some_and(|found| found.start() == 0)),
            Err(_) => Err(PatternTooSlow {
                pattern: self.text.clone(),
                value: value.to_owned(),
            }),
        }
    }
}

/// Writes a pattern of Python so that it means the same here: `\Z` is the end of the text, and in a set `[`, `&&`, `--` and `~~` are
/// themselves.
fn translated(pattern: &str) -> String {
    let mut written = String::with_capacity(pattern.len() + 8);
    let mut rest = pattern.chars().peekable();
    // In a set: the number of its characters so far.
    let mut in_set: Option<usize> = None;
    while let Some(character) = rest.next() {
        let at = in_set;
        in_set = in_set.map(|count| count + 1);
        match (character, at) {
            ('\\', _) => match rest.next() {
                Some('Z') if at.is_none() => written.push_str(r"\z"),
                Some(escaped) => written.extend(['\\', escaped]),
                None => written.push('\\'),
            },
            ('[', None) => {
                written.push('[');
                if rest.next_if_eq(&'^').is_some() {
                    written.push('^');
                }
                in_set = Some(0);
            }
            // First in a set, it is itself.
            (']', Some(0)) => written.push_str(r"\]"),
            (']', Some(_)) => {
                written.push(']');
                in_set = None;
            }
            ('[', Some(_)) => written.push_str(r"\["),
            ('&' | '~' | '-', Some(_)) if rest.peek() == Some(&character) => {
                written.extend(['\\', character]);
            }
            _ => written.push(character),
        }
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn matches(pattern: &str, value: &str) -> bool {
        Pattern::new(pattern, false)
            .unwrap()
            .matches(value)
            .unwrap()
    }

    #[test]
    fn patterns_are_those_of_python() {
        assert!(matches("bm", "bm25") && !matches("25", "bm25"));
        assert!(matches(r"bm25\Z", "bm25") && !matches(r"bm\Z", "bm25"));
        assert!(matches("[[]x", "[x") && matches("[]]x", "]x") && matches("[^]]x", "yx"));
        assert!(matches("[a&&b]+$", "a&b"));
        assert!(matches("(?P<a>b)(?P=a)", "bb") && matches("(?!c)b", "b"));
        assert!(matches("(?i)BM", "bm") && matches("(?x) b m # comment", "bm"));
        assert!(matches("", "x"));
        assert!(Pattern::new("(", false).is_err() && Pattern::new("*", false).is_err());
    }
}
