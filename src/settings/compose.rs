//! From the text of a file to a [`Node`], as `yaml.safe_load` goes from a file to Python values.
//!
//! `saphyr-parser` reads the syntax, because it tells where each event stands (a deserializer such as
//! `yaml_serde` does not). It reads YAML 1.2, and PyYAML reads YAML 1.1: what a scalar means is
//! decided in [`super::scalar`], what the text may hold in [`super::strict`], and here the rest of
//! PyYAML's composer and constructor is followed: tags, anchors, merge keys, duplicate keys.

use std::collections::HashMap;

use saphyr_parser::{Event, Parser, ScalarStyle, Span};

use super::document::{Node, Position, Value};
use super::scalar::{self, Tag};
use super::strict;

/// Nesting beyond which Python gives up with a `RecursionError`, or nearly so.
const DEEPEST: usize = 150;

/// More nodes than this cannot come from settings but from aliases of aliases.
const MOST_NODES: usize = 1_000_000;

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
    let mut events = Vec::new();
    for event in Parser::new_from_str(&text) {
        match event {
            Ok(event) => events.push(event),
            Err(error) => {
                let at = position(*error.marker());
                return Err(SyntaxError::new(at, error.info()));
            }
        }
    }
    strict::syntax(&text, &events)?;
    Composer::default().document(&events)
}

/// A parser's marker as editors count.
pub(super) fn position(marker: saphyr_parser::Marker) -> Position {
    Position {
        line: marker.line().max(1),
        column: marker.col() + 1,
    }
}

/// A node before aliases and merge keys are followed.
struct Raw {
    kind: Kind,
    tag: Tag,
    at: Position,
}

enum Kind {
    Scalar(String),
    Seq(Vec<usize>),
    Map(Vec<(usize, usize)>),
}

impl Kind {
    fn name(&self) -> &'static str {
        match self {
            Kind::Scalar(_) => "a scalar",
            Kind::Seq(_) => "a list",
            Kind::Map(_) => "a mapping",
        }
    }
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
    duplicates: Vec<(Position, String)>,
    made: usize,
}

impl Composer {
    fn document(mut self, events: &[(Event<'_>, Span)]) -> Result<Document, SyntaxError> {
        for (event, span) in events {
            self.event(event, *span)?;
        }
        let root = match self.root {
            Some(root) => self.construct(root, 0)?,
            None => Node {
                value: Value::Null,
                at: Position { line: 1, column: 1 },
            },
        };
        self.duplicates.sort();
        self.duplicates.dedup();
        Ok(Document {
            root,
            duplicates: self.duplicates,
        })
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

    fn get(&self, id: usize) -> Result<&Raw, SyntaxError> {
        let nowhere = Position { line: 1, column: 1 };
        self.raw
            .get(id)
            .ok_or_else(|| SyntaxError::new(nowhere, "the document is not complete"))
    }

    /// PyYAML's `construct_object`.
    fn construct(&mut self, id: usize, depth: usize) -> Result<Node, SyntaxError> {
        self.made += 1;
        let raw = self.get(id)?;
        let (tag, at) = (raw.tag, raw.at);
        if depth > DEEPEST || self.made > MOST_NODES {
            return Err(SyntaxError::new(
                at,
                "aliases make this too deep or too large",
            ));
        }
        let value = match &raw.kind {
            Kind::Scalar(text) => {
                scalar::construct(tag, text).map_err(|what| SyntaxError::new(at, what))?
            }
            Kind::Seq(items) => {
                let items = items.clone();
                match tag {
                    Tag::Seq => Value::Seq(self.sequence(&items, depth)?),
                    Tag::Omap | Tag::Pairs => Value::Seq(self.pairs(&items, depth)?),
                    _ => return Err(SyntaxError::new(at, "the tag does not fit a list")),
                }
            }
            Kind::Map(_) => {
                let entries = self.mapping(id, depth)?;
                match tag {
                    Tag::Map => Value::Map(entries),
                    Tag::Set => Value::Set(entries.into_iter().map(|(key, _)| key).collect()),
                    _ => return Err(SyntaxError::new(at, "the tag does not fit a mapping")),
                }
            }
        };
        Ok(Node { value, at })
    }

    fn sequence(&mut self, items: &[usize], depth: usize) -> Result<Vec<Node>, SyntaxError> {
        items
            .iter()
            .map(|item| self.construct(*item, depth + 1))
            .collect()
    }

    fn pairs(&mut self, items: &[usize], depth: usize) -> Result<Vec<Node>, SyntaxError> {
        let mut out = Vec::new();
        for item in items {
            let raw = self.get(*item)?;
            let at = raw.at;
            let Kind::Map(entries) = &raw.kind else {
                return Err(SyntaxError::new(at, "expected a mapping of length 1"));
            };
            let [(key, value)] = entries.as_slice() else {
                return Err(SyntaxError::new(at, "expected a mapping of length 1"));
            };
            let (key, value) = (*key, *value);
            self.construct(key, depth + 1)?;
            self.construct(value, depth + 1)?;
            out.push(Node {
                value: Value::Pair,
                at,
            });
        }
        Ok(out)
    }

    /// PyYAML's `construct_mapping`: a key that comes again replaces the value of the first.
    fn mapping(&mut self, id: usize, depth: usize) -> Result<Vec<(Node, Node)>, SyntaxError> {
        let (pairs, own) = self.flatten(id, depth)?;
        let mut entries: Vec<(Node, Node)> = Vec::new();
        let first_own = pairs.len() - own;
        let mut own_keys: Vec<Value> = Vec::new();
        for (index, (key, value)) in pairs.into_iter().enumerate() {
            let key = self.key(key, depth)?;
            let value = self.construct(value, depth + 1)?;
            if index >= first_own {
                if own_keys.iter().any(|known| known.same_key(&key.value)) {
                    let name = key
                        .as_str()
                        .map_or_else(|| key.value.kind().to_owned(), str::to_owned);
                    self.duplicates.push((key.at, name));
                }
                own_keys.push(key.value.clone());
            }
            match entries
                .iter_mut()
                .find(|(known, _)| known.value.same_key(&key.value))
            {
                Some(entry) => *entry = (key, value),
                None => entries.push((key, value)),
            }
        }
        Ok(entries)
    }

    fn key(&mut self, id: usize, depth: usize) -> Result<Node, SyntaxError> {
        let raw = self.get(id)?;
        if let (Tag::Value, Kind::Scalar(text)) = (raw.tag, &raw.kind) {
            return Ok(Node {
                value: Value::Str(text.clone()),
                at: raw.at,
            });
        }
        let key = self.construct(id, depth + 1)?;
        match key.value {
            Value::Seq(_) | Value::Map(_) | Value::Set(_) => Err(SyntaxError::new(
                key.at,
                format!("{} cannot be a key", key.value.kind()),
            )),
            _ => Ok(key),
        }
    }

    /// PyYAML's `flatten_mapping`: what merge keys bring in comes first, so that the mapping's own keys win.
    /// Gives the pairs, and how many at their end are the mapping's own.
    fn flatten(
        &self,
        id: usize,
        depth: usize,
    ) -> Result<(Vec<(usize, usize)>, usize), SyntaxError> {
        let raw = self.get(id)?;
        let Kind::Map(pairs) = &raw.kind else {
            return Err(SyntaxError::new(raw.at, "expected a mapping"));
        };
        if depth > DEEPEST {
            return Err(SyntaxError::new(
                raw.at,
                "aliases make this too deep or too large",
            ));
        }
        let (mut merged, mut own) = (Vec::new(), Vec::new());
        for (key, value) in pairs {
            if self.get(*key)?.tag != Tag::Merge {
                own.push((*key, *value));
                continue;
            }
            let source = self.get(*value)?;
            match &source.kind {
                Kind::Map(_) => merged.extend(self.flatten(*value, depth + 1)?.0),
                Kind::Seq(items) => {
                    for item in items.iter().rev() {
                        merged.extend(self.flatten(*item, depth + 1)?.0);
                    }
                }
                Kind::Scalar(_) => {
                    let message = format!(
                        "`<<` takes a mapping or a list of mappings, and this is {}",
                        source.kind.name()
                    );
                    return Err(SyntaxError::new(source.at, message));
                }
            }
            if merged.len() > MOST_NODES {
                return Err(SyntaxError::new(
                    raw.at,
                    "aliases make this too deep or too large",
                ));
            }
        }
        let count = own.len();
        merged.append(&mut own);
        Ok((merged, count))
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
