//! What PyYAML refuses and `saphyr-parser` lets pass.
//!
//! Both read the same YAML where people write it; these are the differences that matter to "where
//! experimaestro refuses a file, so do we": characters that cannot be printed; tabs between tokens; between braces
//! and brackets, a plain scalar that begins with `:`, `|` or `>` or holds a `?`, a key that is not there or
//! not on one line; an anchor defined twice; names of anchors, aliases and tags that run into what follows.
//!
//! What is left are things that PyYAML reads and this refuses, none of which is a mistake that changes a value:
//! lines between brackets or quotes that are indented no further than the key to which they belong (a closing bracket
//! may be), or with a tab; U+2028 and U+2029 but between quotes and at the end of a comment (see [`super::older`]); `*a: b` for an alias as a key, `{?a: b}` for `{? a: b}`, and `[a:{b: c}]`.

use std::collections::HashSet;
use std::iter::Peekable;

use saphyr_parser::{Event, ScalarStyle, Span};

use super::compose::SyntaxError;
use super::document::Position;

/// PyYAML's `check_printable`.
pub(super) fn printable(text: &str) -> Result<(), SyntaxError> {
    for (line, content) in text.split('\n').enumerate() {
        for (column, c) in content.chars().enumerate() {
            let fits =
                matches!(c, '\t' | ' '..='~' | '\u{85}' | '\u{a0}'..='\u{fffd}' | '\u{10000}'..);
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

/// Refuses what PyYAML refuses in a text of which these are the events.
pub(super) fn syntax(text: &str, events: &[(Event<'_>, Span)]) -> Result<(), SyntaxError> {
    directives(text)?;
    let mut scan = Scan {
        depth: 0,
        before: ' ',
        key_line: 0,
        explicit: false,
        anchors: HashSet::new(),
    };
    let mut rest = visible(text, events).into_iter().peekable();
    while let Some(next) = rest.next() {
        if next.first {
            scan.key_line = next.at.line;
        }
        match next.scalar {
            Some(ScalarStyle::Plain) => scan.plain(next)?,
            Some(_) => scan.before = '"',
            None => scan.bare(next, &mut rest)?,
        }
    }
    Ok(())
}

/// What may stand before a document: comments, and directives of YAML 1.x.
fn directives(text: &str) -> Result<(), SyntaxError> {
    for (index, line) in text.split('\n').enumerate() {
        let refused = |message: &str| {
            let at = Position {
                line: index + 1,
                column: 1,
            };
            Err(SyntaxError::new(at, message))
        };
        if let Some(directive) = line.strip_prefix('%') {
            let (name, value) = directive.split_once(' ').unwrap_or((directive, ""));
            if name == "YAML" && !value.trim_start().starts_with("1.") {
                return refused("only YAML 1 is read");
            }
            let named = name
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'));
            if name.is_empty() || !named {
                return refused("this is no directive, and nothing else may begin with `%`");
            }
        } else if line.starts_with("...") {
            return refused("a document cannot end before it has begun");
        } else if !line.trim_start().is_empty() && !line.trim_start().starts_with('#') {
            break;
        }
    }
    Ok(())
}

/// A character that is not part of a comment.
#[derive(Clone, Copy)]
struct Visible {
    at: Position,
    c: char,
    /// The style of the scalar that it is part of; the anchor and tag of a scalar are no part of it.
    scalar: Option<ScalarStyle>,
    /// Whether it is the first of its scalar.
    first: bool,
}

/// The characters of the text without its comments.
fn visible(text: &str, events: &[(Event<'_>, Span)]) -> Vec<Visible> {
    let chars: Vec<char> = text.chars().collect();
    let mut scalars = events
        .iter()
        .filter_map(|(event, span)| match event {
            // A value that is not there has the place of something else.
            Event::Scalar(text, ScalarStyle::Plain, ..) if text.is_empty() => None,
            Event::Scalar(_, style, ..) => {
                Some((*style, content(&chars, span), end(&chars, *style, span)))
            }
            _ => None,
        })
        .peekable();
    let mut out = Vec::with_capacity(chars.len());
    let (mut line, mut column, mut comment, mut before) = (1, 1, false, '\n');
    for (index, c) in chars.iter().copied().enumerate() {
        while scalars.next_if(|(_, _, end)| *end <= index).is_some() {}
        let scalar = scalars.peek().filter(|(_, start, _)| *start <= index);
        if scalar.is_none() && c == '#' && matches!(before, ' ' | '\n' | '\t') {
            comment = true;
        }
        if !comment {
            let first = scalar.is_some_and(|(_, start, _)| *start == index);
            out.push(Visible {
                at: Position { line, column },
                c,
                scalar: scalar.map(|(style, ..)| *style),
                first,
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

/// Where a scalar ends: the span of a quoted one may go on to what follows.
pub(super) fn end(chars: &[char], style: ScalarStyle, span: &Span) -> usize {
    let mut end = span.end.index();
    if matches!(style, ScalarStyle::SingleQuoted | ScalarStyle::DoubleQuoted) {
        while end > span.start.index() && !matches!(chars.get(end - 1), Some('"' | '\'')) {
            end -= 1;
        }
    }
    end
}

/// Where a scalar begins, behind its anchor and tag, which its span holds.
pub(super) fn content(chars: &[char], span: &Span) -> usize {
    let end = span.end.index();
    let mut at = span.start.index();
    while at < end && matches!(chars.get(at), Some('&' | '!')) {
        while at < end && chars.get(at).is_some_and(|c| !c.is_whitespace()) {
            at += 1;
        }
        while at < end && chars.get(at).is_some_and(|c| c.is_whitespace()) {
            at += 1;
        }
    }
    at
}

struct Scan {
    /// How many braces and brackets are open.
    depth: usize,
    /// The last character that is no space.
    before: char,
    /// The line on which the last scalar or alias begins: what may be a key.
    key_line: usize,
    /// Whether `?` announced the key that is being read.
    explicit: bool,
    anchors: HashSet<String>,
}

impl Scan {
    fn plain(&mut self, next: Visible) -> Result<(), SyntaxError> {
        self.before = 'x';
        match next.c {
            '\t' => Err(tab(next.at)),
            ':' | '|' | '>' if next.first && self.depth > 0 => {
                let message = format!("between brackets, a value cannot begin with `{}`", next.c);
                Err(SyntaxError::new(next.at, message))
            }
            '?' if self.depth > 0 => {
                let message = "between brackets, a value that holds `?` needs quotes";
                Err(SyntaxError::new(next.at, message))
            }
            _ => Ok(()),
        }
    }

    fn bare(
        &mut self,
        next: Visible,
        rest: &mut Peekable<impl Iterator<Item = Visible>>,
    ) -> Result<(), SyntaxError> {
        if matches!(next.c, '&' | '*' | '!') {
            self.key_line = next.at.line;
        }
        let refused = |message: String| Err(SyntaxError::new(next.at, message));
        match next.c {
            '\t' => return Err(tab(next.at)),
            '{' | '[' => self.depth += 1,
            '}' | ']' => self.depth = self.depth.saturating_sub(1),
            ':' if self.depth > 0 && matches!(self.before, '{' | '[' | ',') => {
                return refused("there is no key before this `:`".to_owned());
            }
            ':' if !self.explicit && next.at.line != self.key_line => {
                return refused("there is no key on the line of this `:`".to_owned());
            }
            ':' | ',' => self.explicit = false,
            '?' => self.explicit = true,
            '&' | '*' => {
                let name = word(rest, |c| {
                    c.is_ascii_alphanumeric() || matches!(c, '-' | '_')
                });
                let ends = rest.peek().is_none_or(|after| {
                    after.c.is_whitespace() || matches!(after.c, ',' | ']' | '}')
                });
                if name.is_empty() || !ends {
                    return refused(
                        "the name after `&` or `*` takes letters, digits, `-` and `_` alone"
                            .to_owned(),
                    );
                }
                if next.c == '&' && !self.anchors.insert(name.clone()) {
                    return refused(format!("the anchor `{name}` is defined twice"));
                }
            }
            '!' => {
                let tag = word(rest, |c| !c.is_whitespace());
                if !tag.starts_with('<') && tag.contains([',', '[', ']', '{', '}']) {
                    return refused("a tag must be followed by a space".to_owned());
                }
            }
            _ => {}
        }
        if !next.c.is_whitespace() {
            self.before = next.c;
        }
        Ok(())
    }
}

/// Takes the characters that fit.
fn word(rest: &mut Peekable<impl Iterator<Item = Visible>>, fits: impl Fn(char) -> bool) -> String {
    let mut out = String::new();
    while let Some(next) = rest.next_if(|next| next.scalar.is_none() && fits(next.c)) {
        out.push(next.c);
    }
    out
}

fn tab(at: Position) -> SyntaxError {
    SyntaxError::new(
        at,
        "a tab cannot stand here: YAML indents and separates with spaces",
    )
}
