//! YAML as PyYAML's `safe_load` reads it, into a tree that knows lines and columns.
//!
//! experimaestro reads its settings with PyYAML. Libraries for Rust read YAML 1.2, which refuses some of what PyYAML
//! accepts (a closing bracket without indentation, `}#comment`, `[-]`) and gives other values (`yes`, `012`, `1:30`). So
//! the scanner and the parser follow PyYAML's, function by function. They leave out checks: what PyYAML refuses may be
//! read here.
//!
//! - `cursor`: the characters of the text and their places; the text of scalars
//! - `scanner`: tokens; `parser`: nodes, anchors and tags; `scalar`: the type and value of a scalar
//! - `emit`: values as text that is read back unchanged
//! - `construct`: nodes to values: aliases, merge keys, duplicate keys
//! - `tree`: the result

mod construct;
mod cursor;
mod emit;
mod parser;
mod scalar;
mod scanner;
mod tree;

use std::thread;

pub(super) use construct::{Conflict, Document};
pub(super) use emit::{Emitted, EmittedValue, document as emit, scalar as emit_scalar};
pub(super) use parser::{NodeContent, RawNode, Written, WrittenItem, WrittenPair, parse_written};
pub(super) use tree::{Lines, Node, Position, SyntaxError, Value};

/// The most bytes that a file may have.
pub(super) const MAX_BYTES: usize = 1_000_000;

/// The stack of the thread that parses, for [`MAX_DEPTH`](tree::MAX_DEPTH).
const STACK_BYTES: usize = 32 << 20;

/// Parses a text.
///
/// # Errors
///
/// The first place that is not YAML, or that exceeds a limit.
pub(super) fn parse(text: &str) -> Result<Document, SyntaxError> {
    if text.len() > MAX_BYTES {
        let message = format!("the file is larger than {MAX_BYTES} bytes");
        return Err(SyntaxError::new(Position::START, message));
    }
    let parse = || {
        let (nodes, root) = parser::parse(text)?;
        construct::construct(&nodes, root)
    };
    // The parser is recursive, and the caller's stack may be small.
    thread::scope(|scope| {
        let thread = thread::Builder::new()
            .stack_size(STACK_BYTES)
            .spawn_scoped(scope, parse);
        let document = thread.ok().and_then(|thread| thread.join().ok());
        document.unwrap_or_else(|| {
            Err(SyntaxError::new(
                Position::START,
                "cannot start a thread to parse the file",
            ))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::tree::MAX_NODES;
    use super::*;

    fn error(text: &str) -> String {
        parse(text).unwrap_err().message
    }

    #[test]
    fn sizes_are_limited() {
        let long = format!("a: {}", "x".repeat(MAX_BYTES - 3));
        assert!(parse(&long).is_ok());
        assert!(error(&(long + "x")).contains("larger"));
        let nodes = |count: usize| format!("[{}]", "x,".repeat(count));
        assert!(parse(&nodes(MAX_NODES - 1)).is_ok());
        assert!(error(&nodes(MAX_NODES)).contains("100000"));
        // The list of 50,000 is counted each time that it is used.
        let twice = format!("a: &a {}\nb: *a", nodes(49_000));
        assert!(parse(&twice).is_ok());
        assert!(error(&(twice + "\nc: *a")).contains("100000"));
    }

    #[test]
    fn expansion_takes_bounded_time_and_memory() {
        let levels = |first: &str, more: &dyn Fn(usize) -> String| {
            (1..30).fold(format!("a0: &a0 {first}\n"), |text, level| {
                text + &format!("a{level}: &a{level} {}\n", more(level - 1))
            })
        };
        let lists = levels("[x]", &|it| format!("[*a{it}, *a{it}]"));
        let merged = levels("{k: 1}", &|it| format!("{{<<: [*a{it}, *a{it}, *a{it}]}}"));
        let text = format!("a: &a {}\nb: [{}]", "x".repeat(500_000), "*a,".repeat(100));
        for text in [lists, merged, text] {
            assert!(error(&text).contains("expand"), "{text:.80}");
        }
        let empty = levels("{}", &|it| format!("{{<<: [*a{it}, *a{it}, *a{it}]}}"));
        assert!(parse(&empty).is_ok());
    }

    #[test]
    fn nesting_is_limited() {
        let lists = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        let maps = |depth: usize| "{a: ".repeat(depth) + &"}".repeat(depth);
        let block = |depth: usize| "- ".repeat(depth);
        for (text, fits) in [
            (lists(499), true),
            (maps(499), true),
            (block(499), true),
            (lists(100_000), false),
            (maps(100_000), false),
            (block(100_000), false),
            ("? ".repeat(100_000), false),
            ("a: &a [*a]".to_owned(), false),
            ("a: &a {b: *a}".to_owned(), false),
        ] {
            assert_eq!(parse(&text).is_ok(), fits, "{text:.20}");
        }
    }
}
