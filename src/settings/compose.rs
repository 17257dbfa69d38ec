//! From the text of a file to a [`Node`], as `yaml.safe_load` goes from a file to Python values.
//!
//! `saphyr-parser` reads the syntax, because it tells where each event stands (a deserializer such as
//! `yaml_serde` does not). It reads YAML 1.2, and PyYAML reads YAML 1.1: what a scalar means is
//! decided in [`super::scalar`], what the text may hold in [`super::strict`], and here the rest of
//! PyYAML's composer is followed: tags, anchors, one document; [`super::construct`] does the rest.

use std::collections::HashMap;

use saphyr_parser::{Event, ScalarStyle, Span};

use super::construct::construct;
use super::document::{Node, Position, Value};
use super::older;
use super::scalar::{self, Tag};
use super::strict;

/// Nesting beyond which Python gives up with a `RecursionError`, or nearly so.
pub(super) const DEEPEST: usize = 150;

/// What is wrong with a text, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SyntaxError {
    /// Where.
    pub(crate) at: Position,
    /// What, as a sentence without its full stop.
    pub(crate) message: String,
}

impl SyntaxError {
    pub(super) fn new(at: Position, message: impl Into<String>) -> SyntaxError {
        SyntaxError {
            at,
            message: message.into(),
        }
    }
}

/// A file's tree.
#[derive(Debug)]
pub(crate) struct Document {
    /// The one document of the file; an empty file is [`Value::Null`].
    pub(crate) root: Node,
    /// Keys that stand twice in one mapping: the later place and the key.
    pub(crate) duplicates: Vec<(Position, String)>,
    /// Merge keys (`<<`) that bring in one key with different values.
    pub(crate) conflicts: Vec<Conflict>,
}

/// A key that several mappings have which one `<<` merges, with different values: YAML and PyYAML up to 6.0.3 take the first,
/// PyYAML 6.0.4 takes the last.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Conflict {
    /// Where the `<<` is.
    pub(crate) at: Position,
    /// The key.
    pub(crate) key: String,
    /// Where the value that counts is, and one that differs.
    pub(crate) values: [Position; 2],
}

/// Reads a text.
///
/// # Errors
///
/// The first place that `yaml.safe_load` refuses too.
pub(crate) fn compose(text: &str) -> Result<Document, SyntaxError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    // As Python's text files do.
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    strict::printable(&text)?;
    let text = older::line_breaks(&text);
    let adapted;
    let (text, events, is_adapted) = match older::parse(&text) {
        Ok(events) => (&text, events, false),
        Err(error) => {
            adapted = older::adapt(&text);
            match adapted.as_ref().and_then(|it| Some((it, it.parse()?))) {
                Some((adapted, events)) => (&adapted.text, events, true),
                None => return Err(error),
            }
        }
    };
    strict::syntax(text, &events)?;
    older::separators(text, &events)?;
    let composer = Composer {
        written: text.len(),
        is_adapted,
        ..Composer::default()
    };
    composer.document(&events)
}

/// A parser's marker as editors count.
pub(super) fn position(marker: saphyr_parser::Marker) -> Position {
    Position {
        line: marker.line().max(1),
        column: marker.col() + 1,
    }
}

/// A node before aliases and merge keys are followed.
pub(super) struct Raw {
    pub(super) kind: Kind,
    pub(super) tag: Tag,
    pub(super) at: Position,
}

/// Lists and mappings hold the indices of what is in them.
pub(super) enum Kind {
    Scalar(String),
    Seq(Vec<usize>),
    Map(Vec<(usize, usize)>),
}

/// A list or mapping whose end has not come yet.
struct Open {
    id: usize,
    children: Vec<usize>,
}

#[derive(Default)]
struct Composer {
    raw: Vec<Raw>,
    open: Vec<Open>,
    anchors: HashMap<usize, usize>,
    root: Option<usize>,
    documents: usize,
    /// How long the text is, in bytes.
    written: usize,
    /// Whether the text was adapted for the parser.
    is_adapted: bool,
}

impl Composer {
    fn document(mut self, events: &[(Event<'_>, Span)]) -> Result<Document, SyntaxError> {
        for (event, span) in events {
            self.event(event, *span)?;
        }
        let Some(root) = self.root else {
            let at = Position { line: 1, column: 1 };
            let root = Node {
                value: Value::Null,
                at,
            };
            return Ok(Document {
                root,
                duplicates: Vec::new(),
                conflicts: Vec::new(),
            });
        };
        construct(&self.raw, root, self.written)
    }

    fn event(&mut self, event: &Event<'_>, span: Span) -> Result<(), SyntaxError> {
        let at = position(span.start);
        match event {
            Event::DocumentStart(_) => {
                self.documents += 1;
                if self.documents > 1 {
                    return Err(SyntaxError::new(
                        at,
                        "a second document begins here, and only one is expected",
                    ));
                }
            }
            Event::Scalar(text, style, anchor, tag) => {
                let text = &older::restore(text, *style, self.is_adapted);
                let by_look = match style {
                    ScalarStyle::Plain => scalar::resolve(text),
                    _ => Tag::Str,
                };
                let tag = explicit(tag.as_deref(), at)?.unwrap_or(by_look);
                let id = self.add(
                    Raw {
                        kind: Kind::Scalar(text.to_string()),
                        tag,
                        at,
                    },
                    *anchor,
                );
                self.attach(id);
            }
            Event::SequenceStart(anchor, tag) => {
                let tag = explicit(tag.as_deref(), at)?.unwrap_or(Tag::Seq);
                self.begin(
                    Raw {
                        kind: Kind::Seq(Vec::new()),
                        tag,
                        at,
                    },
                    *anchor,
                )?;
            }
            Event::MappingStart(anchor, tag) => {
                let tag = explicit(tag.as_deref(), at)?.unwrap_or(Tag::Map);
                self.begin(
                    Raw {
                        kind: Kind::Map(Vec::new()),
                        tag,
                        at,
                    },
                    *anchor,
                )?;
            }
            Event::SequenceEnd | Event::MappingEnd => self.end(),
            Event::Alias(anchor) => match self.anchors.get(anchor) {
                Some(id) if self.open.iter().any(|open| open.id == *id) => {
                    return Err(SyntaxError::new(
                        at,
                        "this alias stands inside what it refers to",
                    ));
                }
                Some(id) => self.attach(*id),
                None => return Err(SyntaxError::new(at, "this alias refers to no anchor")),
            },
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => {}
        }
        Ok(())
    }

    fn add(&mut self, raw: Raw, anchor: usize) -> usize {
        let id = self.raw.len();
        self.raw.push(raw);
        if anchor != 0 {
            self.anchors.insert(anchor, id);
        }
        id
    }

    fn attach(&mut self, id: usize) {
        match self.open.last_mut() {
            Some(open) => open.children.push(id),
            None => self.root = Some(id),
        }
    }

    fn begin(&mut self, raw: Raw, anchor: usize) -> Result<(), SyntaxError> {
        if self.open.len() >= DEEPEST {
            return Err(SyntaxError::new(raw.at, "this is nested too deeply"));
        }
        let id = self.add(raw, anchor);
        self.attach(id);
        self.open.push(Open {
            id,
            children: Vec::new(),
        });
        Ok(())
    }

    fn end(&mut self) {
        let Some(Open { id, children }) = self.open.pop() else {
            return;
        };
        let Some(raw) = self.raw.get_mut(id) else {
            return;
        };
        raw.kind = match raw.kind {
            Kind::Map(_) => Kind::Map(
                children
                    .chunks_exact(2)
                    .filter_map(|p| Some((*p.first()?, *p.get(1)?)))
                    .collect(),
            ),
            _ => Kind::Seq(children),
        };
    }
}

/// The tag that is written at a node; none for one without, and for `!`, which PyYAML takes for nothing.
fn explicit(tag: Option<&saphyr_parser::Tag>, at: Position) -> Result<Option<Tag>, SyntaxError> {
    let Some(tag) = tag else { return Ok(None) };
    let full = format!("{}{}", tag.handle, tag.suffix);
    if full == "!" {
        return Ok(None);
    }
    match full
        .strip_prefix("tag:yaml.org,2002:")
        .and_then(Tag::from_name)
    {
        Some(tag) => Ok(Some(tag)),
        None => Err(SyntaxError::new(
            at,
            format!("the tag `{full}` is not known"),
        )),
    }
}
