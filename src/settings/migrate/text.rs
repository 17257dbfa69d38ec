//! The characters of a text by line, and edits of it.

use std::ops::Range;

use super::super::yaml::{Position, Written};

/// The characters of a text, by line.
pub(super) struct Text<'w> {
    chars: &'w [char],
    /// Where each line begins.
    lines: Vec<usize>,
}

impl<'w> Text<'w> {
    pub(super) fn new(written: &'w Written) -> Text<'w> {
        let ends = written.chars.iter().enumerate();
        let ends = ends.filter(|(_, c)| matches!(c, '\n' | '\u{2028}' | '\u{2029}'));
        let lines = [0].into_iter().chain(ends.map(|(index, _)| index + 1));
        Text {
            chars: &written.chars,
            lines: lines.collect(),
        }
    }

    pub(super) fn index(&self, at: Position) -> usize {
        let line = self.lines.get(at.line - 1).copied();
        line.map_or(self.chars.len(), |start| start + at.column - 1)
    }

    pub(super) fn char(&self, index: usize) -> char {
        self.chars.get(index).copied().unwrap_or('\0')
    }

    pub(super) fn get(&self, range: Range<usize>) -> String {
        self.chars.get(range).unwrap_or(&[]).iter().collect()
    }

    pub(super) fn line_of(&self, index: usize) -> usize {
        self.lines.partition_point(|start| *start <= index) - 1
    }

    pub(super) fn line_start(&self, index: usize) -> usize {
        self.lines.get(self.line_of(index)).copied().unwrap_or(0)
    }

    /// Where the next line begins.
    pub(super) fn line_end(&self, index: usize) -> usize {
        let next = self.lines.get(self.line_of(index) + 1).copied();
        next.unwrap_or(self.chars.len())
    }

    /// An end without the blanks before it.
    pub(super) fn trimmed(&self, mut end: usize) -> usize {
        while end > 0
            && matches!(
                self.char(end - 1),
                ' ' | '\t' | '\n' | '\u{2028}' | '\u{2029}'
            )
        {
            end -= 1;
        }
        end
    }

    /// Makes the edits, with the line ends of the original.
    pub(super) fn apply(&self, edits: &[Edit], original: &str) -> String {
        let mut edits: Vec<&Edit> = edits.iter().collect();
        edits.sort_by_key(|edit| (edit.range.start, edit.range.end));
        let (mut out, mut done) = (String::new(), 0);
        for edit in edits {
            out.push_str(&self.get(done..edit.range.start.max(done)));
            out.push_str(&edit.text);
            done = edit.range.end.max(done);
        }
        out.push_str(&self.get(done..self.chars.len()));
        let mark = if original.starts_with('\u{feff}') {
            "\u{feff}"
        } else {
            ""
        };
        match original.contains("\r\n") {
            true => mark.to_owned() + &out.replace('\n', "\r\n"),
            false => mark.to_owned() + &out,
        }
    }
}

pub(super) struct Edit {
    pub(super) range: Range<usize>,
    pub(super) text: String,
}
