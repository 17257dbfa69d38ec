//! The characters of a text with their places, and the text of scalars: plain, quoted and in blocks.

use std::ops::Range;

use super::tree::{Position, SyntaxError};

/// A place in a text, from which it is read. The end of the text is read as NUL, which no text may hold.
pub(super) struct Cursor {
    chars: Vec<char>,
    index: usize,
    line: usize,
    column: usize,
}

/// Whether a character ends a line in YAML 1.1.
pub(super) fn is_break(c: char) -> bool {
    matches!(c, '\n' | '\u{2028}' | '\u{2029}')
}

/// Whether a character is a space, a tab, a line break or the end.
pub(super) fn is_blank(c: char) -> bool {
    matches!(c, '\0' | ' ' | '\t') || is_break(c)
}

impl Cursor {
    /// Starts at the beginning of a text.
    ///
    /// # Errors
    ///
    /// The place of a control character: PyYAML refuses them, and NUL has a meaning here.
    pub(super) fn new(text: &str) -> Result<Cursor, SyntaxError> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        // U+0085 is a line break like the others; `\r` is one as soon as Python reads the file.
        let text = text.replace("\r\n", "\n").replace(['\r', '\u{85}'], "\n");
        let mut cursor = Cursor {
            chars: text.chars().collect(),
            index: 0,
            line: 1,
            column: 0,
        };
        let is_control = |c: &char| c.is_control() && !matches!(c, '\t' | '\n');
        if let Some(index) = cursor.chars.iter().position(is_control) {
            let message = format!(
                "the character U+{:04X} is not allowed",
                u32::from(cursor.peek_at(index))
            );
            cursor.advance(index);
            return Err(cursor.error(message));
        }
        Ok(cursor)
    }

    pub(super) fn at(&self) -> Position {
        Position {
            line: self.line,
            column: self.column + 1,
        }
    }

    /// How many characters come before.
    pub(super) fn index(&self) -> usize {
        self.index
    }

    /// The column, from 0.
    pub(super) fn column(&self) -> usize {
        self.column
    }

    pub(super) fn error(&self, message: impl Into<String>) -> SyntaxError {
        SyntaxError::new(self.at(), message)
    }

    pub(super) fn peek(&self) -> char {
        self.peek_at(0)
    }

    /// The character that comes after `offset` others.
    pub(super) fn peek_at(&self, offset: usize) -> char {
        self.chars.get(self.index + offset).copied().unwrap_or('\0')
    }

    pub(super) fn advance(&mut self, count: usize) {
        for _ in 0..count {
            match is_break(self.peek()) {
                true => (self.line, self.column) = (self.line + 1, 0),
                false => self.column += 1,
            }
            self.index += 1;
        }
    }

    /// Reads characters for as long as they fit; the end never does.
    pub(super) fn take_while(&mut self, fits: impl Fn(char) -> bool) -> String {
        let mut out = String::new();
        while self.peek() != '\0' && fits(self.peek()) {
            out.push(self.peek());
            self.advance(1);
        }
        out
    }

    /// Reads a line break.
    pub(super) fn line_break(&mut self) -> Option<char> {
        let c = self.peek();
        is_break(c).then(|| self.advance(1)).map(|()| c)
    }

    /// Skips spaces, and a comment up to the end of its line. Returns where that is.
    pub(super) fn skip_comment(&mut self) -> Option<Range<usize>> {
        self.take_while(|c| c == ' ');
        let start = self.index;
        if self.peek() == '#' {
            self.take_while(|c| !is_break(c));
        }
        (self.index > start).then_some(start..self.index)
    }

    /// The text, with `\n` in the place of other line breaks, and without a byte order mark.
    pub(super) fn into_chars(self) -> Vec<char> {
        self.chars
    }

    /// Whether `---` or `...` on a line of its own comes here.
    pub(super) fn is_document_marker(&self) -> bool {
        let marker = [self.peek(), self.peek_at(1), self.peek_at(2)];
        self.column == 0 && (marker == ['-'; 3] || marker == ['.'; 3]) && is_blank(self.peek_at(3))
    }

    /// Reads a plain scalar, whose lines after the first begin at column `indent` or later. Returns whether the cursor is
    /// on a later line than its last character, too.
    pub(super) fn plain(&mut self, indent: usize, in_flow: bool) -> (String, bool) {
        let mut out = String::new();
        let mut blanks = String::new();
        let mut is_line_over = false;
        while self.peek() != '#' {
            let ends = |c: char, next: char| {
                let flow = |c: char, of: &str| in_flow && of.contains(c);
                is_blank(c)
                    || (c == ':' && (is_blank(next) || flow(next, ",[]{}")))
                    || flow(c, ",?[]{}")
            };
            if ends(self.peek(), self.peek_at(1)) {
                break;
            }
            out.push_str(&blanks);
            while !ends(self.peek(), self.peek_at(1)) {
                out.push(self.peek());
                self.advance(1);
            }
            (blanks, is_line_over) = self.plain_blanks();
            if blanks.is_empty() || (!in_flow && self.column < indent) {
                break;
            }
        }
        (out, is_line_over)
    }

    /// What spaces and line breaks mean between the words of a plain scalar; empty if it cannot go on after them.
    fn plain_blanks(&mut self) -> (String, bool) {
        let spaces = self.take_while(|c| c == ' ');
        let Some(first) = self.line_break() else {
            return (spaces, false);
        };
        let mut breaks = String::new();
        while !self.is_document_marker() {
            if self.peek() == ' ' {
                self.advance(1);
            } else if let Some(more) = self.line_break() {
                breaks.push(more);
            } else {
                return (folded(first, breaks), true);
            }
        }
        (String::new(), true)
    }

    /// Reads a scalar in single or double quotes.
    ///
    /// # Errors
    ///
    /// A quote that is not closed; an escape that does not exist.
    pub(super) fn quoted(&mut self) -> Result<String, SyntaxError> {
        let start = self.at();
        let quote = self.peek();
        self.advance(1);
        let mut out = String::new();
        loop {
            match self.peek() {
                '\0' => return Err(SyntaxError::new(start, "this quote is not closed")),
                '\'' if quote == '\'' && self.peek_at(1) == '\'' => {
                    out.push('\'');
                    self.advance(2);
                }
                c if c == quote => {
                    self.advance(1);
                    return Ok(out);
                }
                '\\' if quote == '"' => out.push_str(&self.escape()?),
                c if is_blank(c) => {
                    let blanks = self.take_while(|c| matches!(c, ' ' | '\t'));
                    match self.line_break() {
                        Some(first) => out.push_str(&folded(first, self.more_breaks())),
                        None => out.push_str(&blanks),
                    }
                }
                c => {
                    out.push(c);
                    self.advance(1);
                }
            }
        }
    }

    /// Reads line breaks with blanks before, between and after.
    fn more_breaks(&mut self) -> String {
        let mut out = String::new();
        loop {
            self.take_while(|c| matches!(c, ' ' | '\t'));
            match self.line_break() {
                Some(more) => out.push(more),
                None => return out,
            }
        }
    }

    fn escape(&mut self) -> Result<String, SyntaxError> {
        let start = self.at();
        let c = self.peek_at(1);
        self.advance(1);
        if self.line_break().is_some() {
            return Ok(self.more_breaks());
        }
        self.advance(1);
        let digits = match c {
            'x' => 2,
            'u' => 4,
            'U' => 8,
            _ => 0,
        };
        let escaped = match c {
            '0' => '\u{0}',
            'a' => '\x07',
            'b' => '\x08',
            't' | '\t' => '\t',
            'n' => '\n',
            'v' => '\x0b',
            'f' => '\x0c',
            'r' => '\r',
            'e' => '\x1b',
            ' ' | '"' | '\\' | '/' => c,
            'N' => '\u{85}',
            '_' => '\u{a0}',
            'L' => '\u{2028}',
            'P' => '\u{2029}',
            'x' | 'u' | 'U' => {
                let code: String = (0..digits).map(|offset| self.peek_at(offset)).collect();
                let code = u32::from_str_radix(&code, 16)
                    .ok()
                    .filter(|code| *code <= 0x10_ffff);
                let code = code.ok_or_else(|| {
                    SyntaxError::new(start, format!("`\\{c}` takes {digits} hexadecimal digits"))
                })?;
                self.advance(digits);
                // Python has half of a surrogate pair as a character.
                char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER)
            }
            '\0' => return Err(SyntaxError::new(start, "this quote is not closed")),
            _ => {
                let message = format!(
                    "`\\{c}` is not an escape sequence: write `\\\\` for a backslash, or use single quotes"
                );
                return Err(SyntaxError::new(start, message));
            }
        };
        Ok(escaped.to_string())
    }

    /// Reads a block scalar, whose lines begin at column `min_indent` or later.
    ///
    /// # Errors
    ///
    /// A header that is not one.
    pub(super) fn block(&mut self, min_indent: usize) -> Result<String, SyntaxError> {
        let is_folded = self.peek() == '>';
        self.advance(1);
        let header = self.take_while(|c| !is_blank(c));
        let keep = header.contains('+').then_some(true);
        let keep = keep.or(header.contains('-').then_some(false));
        let digit = header.chars().find_map(|c| c.to_digit(10));
        self.skip_comment();
        let is_header =
            header.len() <= 2 && header.chars().all(|c| matches!(c, '+' | '-' | '1'..='9'));
        if !is_header || !matches!(self.peek(), '\0' | '\n' | '\u{2028}' | '\u{2029}') {
            return Err(
                self.error("after `|` or `>`, only `+`, `-` and a digit are allowed on the line")
            );
        }
        self.line_break();
        let (mut breaks, indent) = match digit {
            Some(digit) => {
                let indent = min_indent + digit as usize - 1;
                (self.block_breaks(indent), indent)
            }
            None => self.block_indent(min_indent),
        };
        let mut out = String::new();
        let mut last_break = None;
        while self.column == indent && self.peek() != '\0' {
            out.push_str(&breaks);
            let is_text = |c: char| !matches!(c, ' ' | '\t');
            let was_text = is_text(self.peek());
            out.push_str(&self.take_while(|c| !is_break(c)));
            last_break = self.line_break();
            breaks = self.block_breaks(indent);
            if self.column != indent || self.peek() == '\0' {
                break;
            }
            if is_folded && last_break == Some('\n') && was_text && is_text(self.peek()) {
                out.push_str(if breaks.is_empty() { " " } else { "" });
            } else {
                out.extend(last_break);
            }
        }
        if keep != Some(false) {
            out.extend(last_break);
        }
        if keep == Some(true) {
            out.push_str(&breaks);
        }
        Ok(out)
    }

    /// Reads empty lines, and the indentation of the line after them.
    fn block_breaks(&mut self, indent: usize) -> String {
        let mut out = String::new();
        loop {
            while self.column < indent && self.peek() == ' ' {
                self.advance(1);
            }
            match self.line_break() {
                Some(c) => out.push(c),
                None => return out,
            }
        }
    }

    /// Reads empty lines, and finds the indentation of a block scalar: that of its first line, or of a longer empty one.
    fn block_indent(&mut self, min_indent: usize) -> (String, usize) {
        let (mut out, mut indent) = (String::new(), min_indent);
        loop {
            self.take_while(|c| c == ' ');
            indent = indent.max(self.column);
            match self.line_break() {
                Some(c) => out.push(c),
                None => return (out, indent),
            }
        }
    }
}

/// A single line break is a space; of several, all but the first stay.
fn folded(first: char, more: String) -> String {
    match (first, more.is_empty()) {
        ('\n', true) => " ".to_owned(),
        ('\n', false) => more,
        _ => first.to_string() + &more,
    }
}
