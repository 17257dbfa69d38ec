//! experimaestro's filter expressions over jobs: `@state = "DONE" and model in ["bm25", "splade"]`.
//!
//! The grammar is that of experimaestro 2.7.0 (`cli/filter.py`), and an expression means what its documentation says. Its program has faults
//! that are not repeated:
//!
//! 1. `~` fails for every pattern, `in` selects no job and `not in` all: its strings are objects that equal no tag.
//! 2. Its states are in lower case, so that the documented `@state = "DONE"` selects no job. Here, case does not matter in `@state`.
//! 3. Parentheses are part of its grammar, but not of what it reads. Here, they are read.
//! 4. A tag that is a number or a boolean equals no string, and `~` fails for it. Here, `lr = "0.1"` selects the number.
//!
//! As there, `and` and `or` have the same rank, and are read from left to right.
//!
//! - `parse`: from text to an `expression`
//! - `pattern`: the regular expressions of Python
//! - `value`: the values of tags, compared

mod expression;
mod parse;
mod pattern;
mod value;

pub use self::expression::Subject;
pub use self::parse::FilterError;
pub use self::pattern::PatternTooSlow;
pub use self::value::tag_text;

use std::collections::BTreeSet;

use self::expression::Expression;
use self::parse::parse;

/// A filter over jobs.
#[derive(Debug, Clone)]
pub struct Filter {
    expression: Expression,
}

impl Filter {
    /// Reads a filter.
    ///
    /// # Errors
    ///
    /// It does not follow the grammar, or has a pattern that is not valid.
    pub fn parse(text: &str) -> Result<Filter, FilterError> {
        let expression = parse(text)?;
        Ok(Filter { expression })
    }

    /// Whether a job passes.
    ///
    /// # Errors
    ///
    /// A pattern takes too long.
    pub fn matches(&self, subject: &Subject<'_>) -> Result<bool, PatternTooSlow> {
        self.expression.holds(subject)
    }

    /// The states that it compares with and that no job can have.
    #[must_use]
    pub fn unknown_states(&self) -> Vec<&str> {
        let mut unknown = Vec::new();
        self.expression.collect_unknown_states(&mut unknown);
        unknown
    }

    /// The tags that it looks at, in order.
    #[must_use]
    pub fn tags(&self) -> BTreeSet<&str> {
        let mut tags = BTreeSet::new();
        self.expression.collect_tags(&mut tags);
        tags
    }

    /// Whether it looks at tags.
    #[must_use]
    pub fn needs_tags(&self) -> bool {
        self.expression.needs_tags()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    use crate::workspace::tags::Tags;

    fn tags() -> Tags {
        let tags = json!({"model": "bm25", "lr": 1e-5, "n": 3, "on": true, "none": null, "empty": "", "copy": "bm25"});
        serde_json::from_value(tags).unwrap()
    }

    #[track_caller]
    fn holds(text: &str) -> bool {
        let subject = Subject {
            state: "done",
            task: "my.module.train",
            tags: &tags(),
        };
        Filter::parse(text).unwrap().matches(&subject).unwrap()
    }

    #[test]
    fn an_expression_means_what_it_says() {
        for text in [
            r#"@state = "DONE" and model in ["bm25", "splade"]"#,
            r#"@state = "done""#,
            r#"@state ~ "DO""#,
            r#"@state in ['ERROR', 'Done']"#,
            r#"@name = "my.module.train""#,
            r#"@name ~ "my\.""#,
            r#"model ~ "(?=bm)..25""#,
            r#"model not in ["splade"]"#,
            r#"absent not in ["splade"]"#,
            r#"none not in ["None"]"#,
            r#"model = copy"#,
            r#"absent = missing"#,
            r#"lr = "1e-05""#,
            r#"lr = "0.00001""#,
            r#"lr ~ "1e-05$""#,
            r#"n = "3" and n ~ "3" and n in ["2", "3"]"#,
            r#"on = "True" and on = "true""#,
            r#"empty = """#,
            r#"(model = "x" or n = "3") and (on = "True")"#,
            r#"model = "bm25" or model = "bm25" and n = "3""#,
        ] {
            assert!(holds(text), "{text}");
        }
        for text in [
            r#"@state = "ERROR""#,
            r#"model = "bm""#,
            r#"model ~ "m25""#,
            r#"model not in ["bm25"]"#,
            r#"none = "None""#,
            r#"none ~ ".*""#,
            r#"empty ~ ".*""#,
            r#"absent = "x""#,
            r#"n = model"#,
            // From left to right: (x or y) and z.
            r#"model = "bm25" or model = "bm25" and n = "4""#,
        ] {
            assert!(!holds(text), "{text}");
        }
    }

    #[test]
    fn states_that_no_job_has_are_known() {
        let filter = Filter::parse(r#"@state = "DONE" or (@state in ["FAIL", "error"])"#).unwrap();
        assert_eq!(filter.unknown_states(), ["FAIL"]);
        assert!(!filter.needs_tags());
        assert!(Filter::parse("a = b").unwrap().needs_tags());
    }

    #[test]
    fn a_pattern_that_explodes_is_an_error() {
        let tags = serde_json::from_value(json!({"t": "ab".repeat(40)})).unwrap();
        let subject = Subject {
            state: "done",
            task: "t",
            tags: &tags,
        };
        let filter = Filter::parse(r#"t ~ "(a|b|ab)*(?>c)""#).unwrap();
        assert!(filter.matches(&subject).is_err());
    }
}
