//! Splits a text into tokens, as PyYAML's `Scanner`.
//!
//! Two things make this hard:
//!
//! 1. A key is known as one only when its `:` comes. [`SimpleKey`] remembers where a key may have begun, for each level of
//!    brackets; the `:` then inserts the tokens that belong before it. So a token is handed out only when nothing can be
//!    inserted before it any more ([`Scanner::needs_more`]).
//! 2. Indentation ends collections outside of brackets: [`Scanner::unwind`] adds the tokens for that.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;

use super::cursor::{Cursor, is_blank, is_break};
use super::tree::{Position, SyntaxError};

/// The most characters that a key without `?` may have.
const MAX_KEY: usize = 1024;

/// What a token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    StreamEnd,
    /// `%…`; the text is the line.
    Directive,
    DocumentStart,
    DocumentEnd,
    BlockSequenceStart,
    BlockMappingStart,
    BlockEnd,
    FlowSequenceStart,
    FlowMappingStart,
    FlowSequenceEnd,
    FlowMappingEnd,
    /// `-`
    BlockEntry,
    /// `,`
    FlowEntry,
    Key,
    Value,
    /// The text is the name.
    Alias,
    /// The text is the name.
    Anchor,
    /// The text is the tag, with its `!`.
    Tag,
    PlainScalar,
    QuotedScalar,
}

#[derive(Debug, Clone)]
pub(super) struct Token {
    pub(super) kind: Kind,
    pub(super) at: Position,
    /// How many characters come before its end; with spaces after it, if it is a plain scalar.
    pub(super) end: usize,
    pub(super) text: String,
}

/// Where a key may have begun that `?` does not announce.
struct SimpleKey {
    /// The number of its first token, counted from the start of the text.
    number: usize,
    index: usize,
    column: usize,
    at: Position,
}

pub(super) struct Scanner {
    cursor: Cursor,
    tokens: VecDeque<Token>,
    /// How many tokens have been handed out.
    taken: usize,
    is_done: bool,
    /// How many brackets and braces are open.
    flow_level: usize,
    /// The columns at which the open block collections begin, and the one around them, -1.
    indents: Vec<isize>,
    /// Whether a key may begin here, or a block collection.
    allows_key: bool,
    /// By level of brackets.
    keys: BTreeMap<usize, SimpleKey>,
    /// Where the comments are.
    comments: Vec<Range<usize>>,
}

impl Scanner {
    /// Starts at the beginning of a text.
    ///
    /// # Errors
    ///
    /// As [`Cursor::new`].
    pub(super) fn new(text: &str) -> Result<Scanner, SyntaxError> {
        Ok(Scanner {
            cursor: Cursor::new(text)?,
            tokens: VecDeque::new(),
            taken: 0,
            is_done: false,
            flow_level: 0,
            indents: vec![-1],
            allows_key: true,
            keys: BTreeMap::new(),
            comments: Vec::new(),
        })
    }

    /// The kind and place of the next token.
    pub(super) fn peek(&mut self) -> Result<(Kind, Position), SyntaxError> {
        while self.needs_more() {
            self.fetch()?;
        }
        let end = (Kind::StreamEnd, self.cursor.at());
        Ok(self
            .tokens
            .front()
            .map_or(end, |token| (token.kind, token.at)))
    }

    /// The next token, which is the last one for ever after the end.
    pub(super) fn take(&mut self) -> Result<Token, SyntaxError> {
        let (kind, at) = self.peek()?;
        self.taken += 1;
        let last = Token {
            kind,
            at,
            end: self.cursor.index(),
            text: String::new(),
        };
        Ok(self.tokens.pop_front().unwrap_or(last))
    }

    /// The characters of the text, and the comments in it, each from its `#` on.
    pub(super) fn finish(self) -> (Vec<char>, Vec<Range<usize>>) {
        (self.cursor.into_chars(), self.comments)
    }

    fn needs_more(&mut self) -> bool {
        if self.is_done || self.tokens.is_empty() {
            return !self.is_done;
        }
        self.drop_old_keys();
        let first = self.keys.first_key_value();
        first.is_some_and(|(_, key)| key.number == self.taken)
    }

    /// A key is on one line, and not too long.
    fn drop_old_keys(&mut self) {
        let (line, index) = (self.cursor.at().line, self.cursor.index());
        self.keys
            .retain(|_, key| key.at.line == line && index - key.index <= MAX_KEY);
    }

    fn add(&mut self, kind: Kind, at: Position, text: String) {
        let end = self.cursor.index();
        self.tokens.push_back(Token {
            kind,
            at,
            end,
            text,
        });
    }

    /// Adds the token of an indicator that is `length` characters long.
    fn add_indicator(&mut self, kind: Kind, length: usize) {
        let at = self.cursor.at();
        self.cursor.advance(length);
        self.add(kind, at, String::new());
    }

    /// Remembers that the next token may be a key.
    fn save_key(&mut self) {
        if self.allows_key {
            let key = SimpleKey {
                number: self.taken + self.tokens.len(),
                index: self.cursor.index(),
                column: self.cursor.column(),
                at: self.cursor.at(),
            };
            self.keys.insert(self.flow_level, key);
        }
    }

    fn indent(&self) -> isize {
        self.indents.last().copied().unwrap_or(-1)
    }

    /// Ends the block collections that begin at a later column.
    fn unwind(&mut self, column: isize) {
        while self.flow_level == 0 && self.indent() > column {
            self.indents.pop();
            self.add_indicator(Kind::BlockEnd, 0);
        }
    }

    /// Begins a block collection if this column is later than that of the one around it.
    fn begin(&mut self, column: usize) -> bool {
        let column = isize::try_from(column).unwrap_or(isize::MAX);
        let begins = self.flow_level == 0 && self.indent() < column;
        if begins {
            self.indents.push(column);
        }
        begins
    }

    /// Adds at least one token, or the end.
    fn fetch(&mut self) -> Result<(), SyntaxError> {
        loop {
            self.comments.extend(self.cursor.skip_comment());
            if self.cursor.line_break().is_none() {
                break;
            }
            self.allows_key |= self.flow_level == 0;
        }
        self.drop_old_keys();
        let column = self.cursor.column();
        self.unwind(isize::try_from(column).unwrap_or(isize::MAX));
        let in_flow = self.flow_level > 0;
        let is_alone = is_blank(self.cursor.peek_at(1));
        match self.cursor.peek() {
            '\0' => self.end(Kind::StreamEnd, 0),
            '%' if column == 0 => {
                self.end(Kind::Directive, 0);
                let line = self.cursor.take_while(|c| !is_break(c));
                if let Some(token) = self.tokens.back_mut() {
                    token.text = line;
                }
            }
            '-' if self.cursor.is_document_marker() => self.end(Kind::DocumentStart, 3),
            '.' if self.cursor.is_document_marker() => self.end(Kind::DocumentEnd, 3),
            '[' => self.flow_start(Kind::FlowSequenceStart),
            '{' => self.flow_start(Kind::FlowMappingStart),
            ']' => self.flow_end(Kind::FlowSequenceEnd),
            '}' => self.flow_end(Kind::FlowMappingEnd),
            ',' => {
                self.allows_key = true;
                self.keys.remove(&self.flow_level);
                self.add_indicator(Kind::FlowEntry, 1);
            }
            '-' if is_alone => {
                self.announce(Kind::BlockEntry, Kind::BlockSequenceStart)?;
                self.allows_key = true;
            }
            '?' if in_flow || is_alone => self.announce(Kind::Key, Kind::BlockMappingStart)?,
            ':' if in_flow || is_alone => self.value()?,
            '*' => self.word(Kind::Alias)?,
            '&' => self.word(Kind::Anchor)?,
            '!' => self.word(Kind::Tag)?,
            '|' | '>' if !in_flow => {
                self.allows_key = true;
                self.keys.remove(&self.flow_level);
                let at = self.cursor.at();
                let min_indent = usize::try_from(self.indent() + 1).unwrap_or(0).max(1);
                let text = self.cursor.block(min_indent)?;
                self.add(Kind::QuotedScalar, at, text);
            }
            '\'' | '"' => {
                self.save_key();
                self.allows_key = false;
                let at = self.cursor.at();
                let text = self.cursor.quoted()?;
                self.add(Kind::QuotedScalar, at, text);
            }
            '\t' => {
                let message = "a tab is not allowed here: YAML indents and separates with spaces";
                return Err(self.cursor.error(message));
            }
            c @ ('|' | '>' | '%' | '@' | '`') => {
                return Err(self
                    .cursor
                    .error(format!("a value cannot begin with `{c}`")));
            }
            _ => {
                self.save_key();
                let at = self.cursor.at();
                let indent = usize::try_from(self.indent() + 1).unwrap_or(0);
                let (text, is_line_over) = self.cursor.plain(indent, in_flow);
                self.allows_key = is_line_over;
                self.add(Kind::PlainScalar, at, text);
            }
        }
        Ok(())
    }

    /// Ends a document, or the text.
    fn end(&mut self, kind: Kind, length: usize) {
        self.unwind(-1);
        self.keys.clear();
        self.allows_key = false;
        self.add_indicator(kind, length);
        self.is_done = kind == Kind::StreamEnd;
    }

    fn flow_start(&mut self, kind: Kind) {
        self.save_key();
        self.flow_level += 1;
        self.allows_key = true;
        self.add_indicator(kind, 1);
    }

    fn flow_end(&mut self, kind: Kind) {
        self.keys.remove(&self.flow_level);
        self.flow_level = self.flow_level.saturating_sub(1);
        self.allows_key = false;
        self.add_indicator(kind, 1);
    }

    /// Reads `-`, `?`, or a `:` without a simple key; outside of brackets, they may begin a collection.
    fn announce(&mut self, kind: Kind, start: Kind) -> Result<(), SyntaxError> {
        if self.flow_level == 0 {
            if !self.allows_key {
                let c = self.cursor.peek();
                return Err(self
                    .cursor
                    .error(format!("`{c} ` is not allowed in the middle of a value")));
            }
            if self.begin(self.cursor.column()) {
                self.add_indicator(start, 0);
            }
        }
        self.allows_key = self.flow_level == 0;
        self.keys.remove(&self.flow_level);
        self.add_indicator(kind, 1);
        Ok(())
    }

    fn value(&mut self) -> Result<(), SyntaxError> {
        let Some(key) = self.keys.remove(&self.flow_level) else {
            return self.announce(Kind::Value, Kind::BlockMappingStart);
        };
        let place = key.number.saturating_sub(self.taken).min(self.tokens.len());
        let token = |kind| Token {
            kind,
            at: key.at,
            end: key.index,
            text: String::new(),
        };
        self.tokens.insert(place, token(Kind::Key));
        if self.begin(key.column) {
            self.tokens.insert(place, token(Kind::BlockMappingStart));
        }
        self.allows_key = false;
        self.add_indicator(Kind::Value, 1);
        Ok(())
    }

    /// Reads an alias, an anchor or a tag.
    fn word(&mut self, kind: Kind) -> Result<(), SyntaxError> {
        self.save_key();
        self.allows_key = false;
        let at = self.cursor.at();
        let text = match kind {
            // Flow indicators are a part of it: `[!!str, a]` has an unknown tag.
            Kind::Tag => self.cursor.take_while(|c| !is_blank(c)),
            _ => {
                self.cursor.advance(1);
                let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
                self.cursor.take_while(fits)
            }
        };
        if text.is_empty() {
            let message = "an anchor or alias needs a name of ASCII letters, digits, `-` or `_`";
            return Err(SyntaxError::new(at, message));
        }
        self.add(kind, at, text);
        Ok(())
    }
}
