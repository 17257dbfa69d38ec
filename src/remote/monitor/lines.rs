//! Reads lines of a limited length.

use std::io::{self, BufRead, Read};

/// A line that was read, without its end.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    Whole(Vec<u8>),
    /// The input ended within it.
    Half(Vec<u8>),
    /// It is longer than the limit: where it ends is unknown.
    TooLong,
    /// The input has ended.
    End,
}

/// Reads the next line, of at most `max` bytes.
pub(super) fn next(input: &mut impl BufRead, max: usize) -> io::Result<Line> {
    let mut line = Vec::new();
    let limit = u64::try_from(max).unwrap_or(u64::MAX).saturating_add(1);
    input.take(limit).read_until(b'\n', &mut line)?;
    Ok(match line.last() {
        None => Line::End,
        Some(b'\n') => {
            line.pop();
            Line::Whole(line)
        }
        Some(_) if line.len() > max => Line::TooLong,
        Some(_) => Line::Half(line),
    })
}

/// Reads the next part of a text: a line, or the part of a longer one that the limit allows. `None` at the end.
pub(super) fn next_part(input: &mut impl BufRead, max: u64) -> io::Result<Option<String>> {
    let mut part = Vec::new();
    if input.take(max).read_until(b'\n', &mut part)? == 0 {
        return Ok(None);
    }
    Ok(Some(text(&part)))
}

/// A line for a person.
pub(super) fn text(line: &[u8]) -> String {
    String::from_utf8_lossy(line).trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_up_to_the_limit() {
        let mut input = &b"abc\n\nabcd\nx"[..];
        assert_eq!(next(&mut input, 4).unwrap(), Line::Whole(b"abc".to_vec()));
        assert_eq!(next(&mut input, 4).unwrap(), Line::Whole(Vec::new()));
        assert_eq!(next(&mut input, 4).unwrap(), Line::Whole(b"abcd".to_vec()));
        assert_eq!(next(&mut input, 4).unwrap(), Line::Half(b"x".to_vec()));
        assert_eq!(next(&mut input, 4).unwrap(), Line::End);
        assert_eq!(next(&mut &b"abcde\n"[..], 4).unwrap(), Line::TooLong);
        assert_eq!(next_part(&mut &b"abcde"[..], 4).unwrap().unwrap(), "abcd");
    }
}
