//! An expression, and whether a job passes it.

use std::collections::BTreeSet;

use super::pattern::{Pattern, PatternTooSlow};
use super::value::Operand;
use crate::workspace::job_files::JobState;
use crate::workspace::tags::Tags;

/// What a filter looks at.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// The state of the job, in lower case.
    pub state: &'a str,
    /// The id of its task: experimaestro's `@name`.
    pub task: &'a str,
    /// Its tags.
    pub tags: &'a Tags,
}

/// What stands on one side of a comparison.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Variable {
    State,
    Name,
    Tag(String),
}

#[derive(Debug, Clone)]
pub(super) enum Expression {
    /// `model = "bm25"`.
    IsText(Variable, String),
    /// `model = other`.
    IsSame(Variable, Variable),
    /// `model in ["bm25"]`; negated for `not in`.
    IsIn {
        variable: Variable,
        texts: Vec<String>,
        negated: bool,
    },
    /// `model ~ "bm.*"`.
    Matches(Variable, Pattern),
    /// Comparisons with `and` and `or` between them, from left to right. A list, so that a long one does not recurse.
    Chain(Box<Expression>, Vec<(Operator, Expression)>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operator {
    And,
    Or,
}

impl Variable {
    fn of<'a>(&self, subject: &Subject<'a>) -> Operand<'a> {
        match self {
            Variable::State => Operand::State(subject.state),
            Variable::Name => Operand::Text(subject.task),
            Variable::Tag(name) => subject.tags.get(name).map_or(Operand::None, Operand::of),
        }
    }
}

impl Expression {
    pub(super) fn holds(&self, subject: &Subject<'_>) -> Result<bool, PatternTooSlow> {
        Ok(match self {
            Expression::IsText(variable, text) => variable.of(subject).is(text),
            Expression::IsSame(one, other) => one.of(subject).equals(&other.of(subject)),
            Expression::IsIn {
                variable,
                texts,
                negated,
            } => {
                let value = variable.of(subject);
                texts.iter().any(|text| value.is(text)) != *negated
            }
            Expression::Matches(variable, pattern) => match variable.of(subject).text() {
                // As in experimaestro, an empty value matches no pattern.
                Some(text) if !text.is_empty() => pattern.matches(&text)?,
                _ => false,
            },
            Expression::Chain(first, others) => {
                let mut holds = first.holds(subject)?;
                for (operator, other) in others {
                    holds = match operator {
                        Operator::And => holds && other.holds(subject)?,
                        Operator::Or => holds || other.holds(subject)?,
                    };
                }
                holds
            }
        })
    }

    pub(super) fn needs_tags(&self) -> bool {
        let is_tag = |variable: &Variable| matches!(variable, Variable::Tag(_));
        match self {
            Expression::IsText(variable, _)
            | Expression::IsIn { variable, .. }
            | Expression::Matches(variable, _) => is_tag(variable),
            Expression::IsSame(one, other) => is_tag(one) || is_tag(other),
            Expression::Chain(first, others) => {
                first.needs_tags() || others.iter().any(|(_, other)| other.needs_tags())
            }
        }
    }

    pub(super) fn collect_tags<'a>(&'a self, tags: &mut BTreeSet<&'a str>) {
        let mut add = |variable: &'a Variable| match variable {
            Variable::Tag(name) => drop(tags.insert(name.as_str())),
            Variable::State | Variable::Name => {}
        };
        match self {
            Expression::IsText(variable, _)
            | Expression::IsIn { variable, .. }
            | Expression::Matches(variable, _) => add(variable),
            Expression::IsSame(one, other) => [one, other].into_iter().for_each(add),
            Expression::Chain(first, others) => {
                first.collect_tags(tags);
                for (_, other) in others {
                    other.collect_tags(tags);
                }
            }
        }
    }

    pub(super) fn collect_unknown_states<'a>(&'a self, unknown: &mut Vec<&'a str>) {
        let mut check = |text: &'a str| {
            let state = JobState::from(text.to_lowercase());
            if matches!(state, JobState::Other(_)) && !unknown.contains(&text) {
                unknown.push(text);
            }
        };
        match self {
            Expression::IsText(Variable::State, text) => check(text),
            Expression::IsIn {
                variable: Variable::State,
                texts,
                ..
            } => texts.iter().for_each(|text| check(text)),
            Expression::Chain(first, others) => {
                first.collect_unknown_states(unknown);
                for (_, other) in others {
                    other.collect_unknown_states(unknown);
                }
            }
            _ => {}
        }
    }
}
