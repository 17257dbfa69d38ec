//! What PyYAML refuses and `saphyr-parser` lets pass.
//!
//! Both read the same YAML where people write it; these are the differences that matter to "where
//! experimaestro refuses a file, so do we": tabs between tokens, characters that cannot be printed, one anchor
//! defined twice.

use std::collections::HashSet;

use saphyr_parser::{Event, ScalarStyle, Span};

use super::compose::SyntaxError;
use super::document::Position;

/// PyYAML's `check_printable`.
pub(super) fn printable(text: &str) -> Result<(), SyntaxError> {
    for (line, content) in text.split('\n').enumerate() {
        for (column, c) in content.chars().enumerate() {
            let fits = matches!(c, '\t' | '\n' | ' '..='~' | '\u{85}' | '\u{a0}'..='\u{fffd}' | '\u{10000}'..);
            if !fits {
                let at = Position {
                    line: line + 1,
                    column: column + 1,
                };
                return Err(SyntaxError::new(
                    at,
                    format!("the character U+{:04X} is not allowed", u32::from(c)),
                ));
            }
        }
    }
    Ok(())
}

/// A character that is part of no quoted or block scalar and no comment.
struct Bare {
    at: Position,
    c: char,
    /// Whether it is part of a plain scalar.
    plain: bool,
}

/// The characters of the text that are bare.
fn bare(text: &str, events: &[(Event<'_>, Span)]) -> Vec<Bare> {
    let mut scalars = events
        .iter()
        .filter_map(|(event, span)| match event {
            Event::Scalar(_, style, ..) => Some((*style, span.start.index(), span.end.index())),
            _ => None,
        })
        .peekable();
    let mut out = Vec::new();
    let (mut line, mut column, mut comment, mut before) = (1, 1, false, '\n');
    for (index, c) in text.chars().enumerate() {
        while scalars.next_if(|(_, _, end)| *end <= index).is_some() {}
        let scalar = scalars
            .peek()
            .filter(|(_, start, _)| *start <= index)
            .map(|(style, ..)| *style);
        if scalar.is_none() && c == '#' && matches!(before, ' ' | '\n' | '\t') {
            comment = true;
        }
        if !comment && matches!(scalar, None | Some(ScalarStyle::Plain)) {
            out.push(Bare {
                at: Position { line, column },
                c,
                plain: scalar.is_some(),
            });
        }
        before = c;
        if c == '\n' {
            (line, column, comment) = (line + 1, 1, false);
        } else {
            column += 1;
        }
    }
    out
}

/// PyYAML separates tokens with spaces alone: a tab may stand in quotes, in block scalars and in comments only.
pub(super) fn spaces(text: &str, events: &[(Event<'_>, Span)]) -> Result<(), SyntaxError> {
    if !text.contains('\t') {
        return Ok(());
    }
    match bare(text, events).into_iter().find(|bare| bare.c == '\t') {
        Some(tab) => {
            let message = "a tab cannot stand here: YAML indents and separates with spaces";
            Err(SyntaxError::new(tab.at, message))
        }
        None => Ok(()),
    }
}

/// PyYAML refuses to define an anchor twice.
///
/// Events carry numbers in place of an anchor's name, so the names are read from the text.
pub(super) fn anchors(text: &str, events: &[(Event<'_>, Span)]) -> Result<(), SyntaxError> {
    if !text.contains('&') {
        return Ok(());
    }
    let mut seen = HashSet::new();
    let mut rest = bare(text, events)
        .into_iter()
        .filter(|bare| !bare.plain)
        .peekable();
    while let Some(mark) = rest.next() {
        if mark.c != '&' {
            continue;
        }
        let mut name = String::new();
        while let Some(next) =
            rest.next_if(|bare| bare.c.is_alphanumeric() || matches!(bare.c, '-' | '_'))
        {
            name.push(next.c);
        }
        if !seen.insert(name.clone()) {
            return Err(SyntaxError::new(
                mark.at,
                format!("the anchor `{name}` is defined twice"),
            ));
        }
    }
    Ok(())
}
