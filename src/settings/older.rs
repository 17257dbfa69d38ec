//! Lets `saphyr-parser`, which reads YAML 1.2, read what only YAML 1.1 has, with the values that PyYAML reads.
//!
//! 1. U+0085 is a line break, and becomes one.
//! 2. U+2028 and U+2029 are line breaks that stay in a value. They are accepted between quotes, and at the end of a
//!    comment, and refused elsewhere ([`separators`]).
//!
//! If the parser refuses the text:
//!
//! 3. Between brackets, `-` before `,` or a bracket is a value. A placeholder takes its place for the parser.
//! 4. A comment may follow a bracket or quote at once. A space is put between.

use std::borrow::Cow;

use saphyr_parser::{Event, Parser, ScalarStyle, Span};

use super::compose::{SyntaxError, position};
use super::document::Position;
use super::strict;

/// U+2028 and U+2029, line and paragraph separator.
const SEPARATORS: [char; 2] = ['\u{2028}', '\u{2029}'];

/// Said where they are refused.
const SEPARATOR: &str =
    "the line break U+2028 or U+2029 is read between quotes, and at the end of a comment, alone";

/// Stands for a `-` that the parser would refuse. A text that has it is not adapted.
const DASH: char = '\u{f8ff}';

/// A text with what the parser would refuse replaced. Characters stay on their lines, and in their columns but in comments.
pub(super) struct Adapted {
    pub(super) text: String,
    /// The characters that differ: each [`DASH`], and each space that was put before a `#`.
    changed: Vec<usize>,
}

/// Makes line breaks of YAML 1.1 that are none in 1.2 ordinary ones.
pub(super) fn line_breaks(text: &str) -> String {
    text.replace('\u{85}', "\n")
}

/// Adapts a text that the parser refuses; `None` if there is nothing to adapt.
pub(super) fn adapt(text: &str) -> Option<Adapted> {
    if text.contains(DASH) {
        return None;
    }
    let mut scanner = Scanner::default();
    let mut out = String::with_capacity(text.len());
    let (mut changed, mut length) = (Vec::new(), 0);
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match scanner.step(c, chars.peek().copied().unwrap_or('\n')) {
            Found::Dash => {
                changed.push(length);
                out.push(DASH);
            }
            Found::Comment => {
                changed.push(length);
                out.extend([' ', c]);
                length += 1;
            }
            Found::Other => out.push(c),
        }
        length += 1;
    }
    (!changed.is_empty()).then_some(Adapted { text: out, changed })
}

impl Adapted {
    /// The events; `None` if the parser refuses it still, or what was replaced is part of a value: the scanner knows no block
    /// scalars, and may take a part of one for something else.
    pub(super) fn parse(&self) -> Option<Vec<(Event<'_>, Span)>> {
        let events = parse(&self.text).ok()?;
        let chars: Vec<char> = self.text.chars().collect();
        let mut scalars = events
            .iter()
            .filter_map(|(event, span)| match event {
                Event::Scalar(text, ScalarStyle::Plain, ..) if text.is_empty() => None,
                Event::Scalar(_, style, ..) => Some((
                    *style,
                    strict::content(&chars, span)..strict::end(&chars, *style, span),
                )),
                _ => None,
            })
            .peekable();
        let right = self.changed.iter().all(|index| {
            while scalars.next_if(|(_, span)| span.end <= *index).is_some() {}
            let scalar = scalars.peek().filter(|(_, span)| span.contains(index));
            match (chars.get(*index), scalar) {
                (Some(&DASH), Some((style, span))) => {
                    *style == ScalarStyle::Plain && span.start == *index
                }
                (Some(&DASH), None) => false,
                (_, scalar) => scalar.is_none(),
            }
        });
        right.then_some(events)
    }
}

/// What a character is.
enum Found {
    /// A `-` between brackets that is a value.
    Dash,
    /// A `#` that begins a comment right behind something else.
    Comment,
    Other,
}

/// Where in a text we are, as far as comments, quotes and brackets go. It knows no block scalars: see [`Adapted::parse`].
struct Scanner {
    depth: usize,
    inside: Inside,
    /// The last character that is not blank, on any line.
    before: char,
    /// Whether a blank or line break came right before.
    blank: bool,
    /// Whether the next character is escaped, or the second of two quotes.
    skip: bool,
}

impl Default for Scanner {
    fn default() -> Scanner {
        Scanner {
            depth: 0,
            inside: Inside::Nothing,
            before: '\n',
            blank: true,
            skip: false,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Inside {
    Nothing,
    Comment,
    Plain,
    /// An anchor, an alias or a tag.
    Word,
    Single,
    Double,
}

impl Scanner {
    fn step(&mut self, c: char, next: char) -> Found {
        let blank = matches!(c, ' ' | '\t' | '\n');
        let was_blank = std::mem::replace(&mut self.blank, blank);
        if std::mem::take(&mut self.skip) {
            return Found::Other;
        }
        let flow = |c: char| matches!(c, ',' | '[' | ']' | '{' | '}');
        match self.inside {
            Inside::Comment => {
                if c == '\n' {
                    self.inside = Inside::Nothing;
                }
                return Found::Other;
            }
            Inside::Double => {
                self.skip = c == '\\';
                if c == '"' {
                    (self.inside, self.before) = (Inside::Nothing, c);
                }
                return Found::Other;
            }
            Inside::Single => {
                if c == '\'' {
                    match next == '\'' {
                        true => self.skip = true,
                        false => (self.inside, self.before) = (Inside::Nothing, c),
                    }
                }
                return Found::Other;
            }
            Inside::Word if blank || (self.depth > 0 && flow(c)) => self.inside = Inside::Nothing,
            Inside::Word => return Found::Other,
            Inside::Plain => {
                let ends = c == '\n'
                    || (c == ':'
                        && (matches!(next, ' ' | '\t' | '\n') || (self.depth > 0 && flow(next))))
                    || (self.depth > 0 && flow(c))
                    || (c == '#' && was_blank);
                if !ends {
                    return Found::Other;
                }
                self.inside = Inside::Nothing;
            }
            Inside::Nothing => {}
        }
        let mut found = Found::Other;
        match c {
            _ if blank => return Found::Other,
            '#' => {
                // Behind a scalar or a key it is part of one; behind these, it begins a comment.
                let closed = flow(self.before) || matches!(self.before, '"' | '\'');
                if !was_blank
                    && closed
                    && (self.depth > 0 || matches!(self.before, ']' | '}' | '"' | '\''))
                {
                    found = Found::Comment;
                }
                if was_blank || matches!(found, Found::Comment) {
                    self.inside = Inside::Comment;
                    return found;
                }
                self.inside = Inside::Plain;
            }
            '"' => self.inside = Inside::Double,
            '\'' => self.inside = Inside::Single,
            '[' | '{' => self.depth += 1,
            ']' | '}' => self.depth = self.depth.saturating_sub(1),
            '&' | '*' | '!' => self.inside = Inside::Word,
            ',' | ':' | '?' => {}
            '-' if self.depth > 0 && flow(next) => found = Found::Dash,
            '-' if matches!(next, ' ' | '\n') => {}
            _ => self.inside = Inside::Plain,
        }
        self.before = c;
        found
    }
}

/// The events of a text.
pub(super) fn parse(text: &str) -> Result<Vec<(Event<'_>, Span)>, SyntaxError> {
    let events = Parser::new_from_str(text);
    let events = events.map(|event| {
        event.map_err(|error| {
            let message = match text.contains(SEPARATORS) {
                true => format!("{}; and {SEPARATOR}", error.info()),
                false => error.info().to_owned(),
            };
            SyntaxError::new(position(*error.marker()), message)
        })
    });
    events.collect()
}

/// The value of a scalar, of a text that was adapted or not.
pub(super) fn restore(text: &str, style: ScalarStyle, adapted: bool) -> Cow<'_, str> {
    match style {
        ScalarStyle::Plain if adapted && text.starts_with(DASH) => {
            Cow::Owned(text.replacen(DASH, "-", 1))
        }
        ScalarStyle::SingleQuoted | ScalarStyle::DoubleQuoted
            if text.contains(SEPARATORS) && text.contains([' ', '\t']) =>
        {
            Cow::Owned(without_blanks(text))
        }
        _ => Cow::Borrowed(text),
    }
}

/// Line breaks that stay in a value take the blanks around them away.
fn without_blanks(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut broken = false;
    for c in text.chars() {
        match c {
            ' ' | '\t' if broken => continue,
            _ if SEPARATORS.contains(&c) => {
                out.truncate(out.trim_end_matches([' ', '\t']).len());
                broken = true;
            }
            _ => broken = false,
        }
        out.push(c);
    }
    out
}

/// Refuses separators where their meaning in YAML 1.1 is another than in 1.2.
pub(super) fn separators(text: &str, events: &[(Event<'_>, Span)]) -> Result<(), SyntaxError> {
    if !text.contains(SEPARATORS) {
        return Ok(());
    }
    let chars: Vec<char> = text.chars().collect();
    let mut quoted = events
        .iter()
        .filter_map(|(event, span)| match event {
            Event::Scalar(
                value,
                style @ (ScalarStyle::SingleQuoted | ScalarStyle::DoubleQuoted),
                ..,
            ) => Some((span.start.index()..strict::end(&chars, *style, span), value)),
            _ => None,
        })
        .peekable();
    let blank = |c: &&char| matches!(c, ' ' | '\t');
    let (mut line, mut column) = (1, 0);
    for (index, c) in chars.iter().copied().enumerate() {
        column += 1;
        if c == '\n' {
            (line, column) = (line + 1, 0);
        }
        if !SEPARATORS.contains(&c) {
            continue;
        }
        while quoted.next_if(|(span, _)| span.end <= index).is_some() {}
        let after = chars.iter().skip(index + 1).find(|c| !blank(c));
        let before = chars.iter().take(index).rev().find(|c| !blank(c));
        let fits = match quoted.peek().filter(|(span, _)| span.contains(&index)) {
            Some((span, value)) => {
                let written = chars.get(span.clone()).unwrap_or_default();
                let written = written.iter().filter(|c| SEPARATORS.contains(c)).count();
                let had = value.chars().filter(|c| SEPARATORS.contains(c)).count();
                let breaks = |c: Option<&char>| matches!(c, Some('\n' | '\\'));
                written == had && !breaks(after) && !breaks(before)
            }
            // The end of a comment, or of a line with nothing else.
            None => {
                let start = chars.iter().take(index).rev().take_while(|c| **c != '\n');
                let only = chars.iter().take(index).rev().find(|c| !blank(c));
                let comment = start.clone().any(|c| *c == '#');
                (comment || only.is_none_or(|c| *c == '\n')) && after.is_none_or(|c| *c == '\n')
            }
        };
        if !fits {
            return Err(SyntaxError::new(Position { line, column }, SEPARATOR));
        }
    }
    Ok(())
}
