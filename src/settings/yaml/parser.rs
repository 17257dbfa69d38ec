//! Parses tokens into nodes, as PyYAML's `Parser` and `Composer`: structure, anchors, tags, one document.

use std::collections::HashMap;
use std::ops::Range;

use super::scalar::{self, Tag};
use super::scanner::{Kind, Scanner, Token};
use super::tree::{MAX_DEPTH, MAX_NODES, Position, SyntaxError};

/// How tags of YAML itself begin.
const YAML_TAG: &str = "tag:yaml.org,2002:";

/// A node before aliases and merge keys are expanded.
#[derive(Debug)]
pub(in crate::settings) struct RawNode {
    pub(in crate::settings) content: NodeContent,
    pub(super) tag: Tag,
    pub(in crate::settings) at: Position,
}

/// What a node holds; lists and mappings have the indices of what is in them.
#[derive(Debug)]
pub(in crate::settings) enum NodeContent {
    Scalar(String),
    List(Vec<usize>),
    Map(Vec<(usize, usize)>),
}

/// Parses a text with one document. Returns its nodes, and the index of the root.
///
/// # Errors
///
/// The first place that is not YAML.
pub(super) fn parse(text: &str) -> Result<(Vec<RawNode>, usize), SyntaxError> {
    let (parser, root) = parsed(text)?;
    Ok((parser.nodes, root))
}

/// [`parse`], with where everything is in the text.
///
/// # Errors
///
/// As [`parse`].
pub(in crate::settings) fn parse_written(
    text: &str,
) -> Result<(Vec<RawNode>, usize, Written), SyntaxError> {
    let (parser, root) = parsed(text)?;
    let (chars, comments) = parser.scanner.finish();
    let written = Written {
        chars,
        comments,
        pairs: parser.pairs,
        items: parser.items,
    };
    Ok((parser.nodes, root, written))
}

fn parsed(text: &str) -> Result<(Parser, usize), SyntaxError> {
    let mut parser = Parser {
        scanner: Scanner::new(text)?,
        nodes: Vec::new(),
        anchors: HashMap::new(),
        tag_handles: HashMap::new(),
        end: 0,
        pairs: HashMap::new(),
        items: HashMap::new(),
    };
    let root = parser.document()?;
    Ok((parser, root))
}

/// Where the parts of a text are, in characters.
#[derive(Debug)]
pub(in crate::settings) struct Written {
    pub(in crate::settings) chars: Vec<char>,
    pub(in crate::settings) comments: Vec<Range<usize>>,
    /// By the node of the key.
    pub(in crate::settings) pairs: HashMap<usize, WrittenPair>,
    /// By the node of the list: each item from its anchor, tag or value on.
    pub(in crate::settings) items: HashMap<usize, Vec<WrittenItem>>,
}

/// Where a key and its value are.
#[derive(Debug, Clone)]
pub(in crate::settings) struct WrittenPair {
    pub(in crate::settings) key: Position,
    /// The ends include blanks after a plain scalar.
    pub(in crate::settings) key_end: usize,
    pub(in crate::settings) value: Position,
    pub(in crate::settings) value_end: usize,
}

/// Where an item of a list is.
#[derive(Debug, Clone)]
pub(in crate::settings) struct WrittenItem {
    /// Of its `-`; in brackets, of the item.
    pub(in crate::settings) start: Position,
    pub(in crate::settings) value: Position,
    /// Includes blanks after a plain scalar.
    pub(in crate::settings) end: usize,
}

/// Where a node is, which says what may come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Context {
    /// Between brackets.
    Flow,
    Block,
    /// In a mapping, where the `-` of a list need not be indented.
    BlockMapping,
}

struct Parser {
    scanner: Scanner,
    nodes: Vec<RawNode>,
    anchors: HashMap<String, usize>,
    /// What `%TAG` defines.
    tag_handles: HashMap<String, String>,
    /// The end of the last token that is written.
    end: usize,
    pairs: HashMap<usize, WrittenPair>,
    items: HashMap<usize, Vec<WrittenItem>>,
}

impl Parser {
    fn peek(&mut self) -> Result<Kind, SyntaxError> {
        Ok(self.scanner.peek()?.0)
    }

    fn take(&mut self) -> Result<Token, SyntaxError> {
        let token = self.scanner.take()?;
        // The others are inserted where no character stands for them.
        if !matches!(
            token.kind,
            Kind::BlockSequenceStart
                | Kind::BlockMappingStart
                | Kind::BlockEnd
                | Kind::Key
                | Kind::StreamEnd
        ) {
            self.end = token.end;
        }
        Ok(token)
    }

    /// Takes the next token if it is of a kind.
    fn take_if(&mut self, kind: Kind) -> Result<Option<Token>, SyntaxError> {
        let fits = self.peek()? == kind;
        fits.then(|| self.take()).transpose()
    }

    fn document(&mut self) -> Result<usize, SyntaxError> {
        while self.take_if(Kind::DocumentEnd)?.is_some() {}
        while let Some(directive) = self.take_if(Kind::Directive)? {
            if let ["%TAG", handle, prefix, ..] = directive
                .text
                .split_whitespace()
                .collect::<Vec<_>>()
                .as_slice()
            {
                self.tag_handles
                    .insert((*handle).to_owned(), (*prefix).to_owned());
            }
            if !matches!(self.peek()?, Kind::Directive | Kind::DocumentStart) {
                let message = "`---` must follow a line that begins with `%`";
                return Err(SyntaxError::new(directive.at, message));
            }
        }
        let start = self.take_if(Kind::DocumentStart)?;
        let (next, at) = self.scanner.peek()?;
        let root = match next {
            Kind::Directive | Kind::DocumentStart | Kind::DocumentEnd | Kind::StreamEnd => {
                let at = start.map_or(Position::START, |_| at);
                self.empty(at)?
            }
            _ => self.node(Context::Block, 0)?,
        };
        while self.take_if(Kind::DocumentEnd)?.is_some() {}
        match self.scanner.peek()? {
            (Kind::StreamEnd, _) => Ok(root),
            (Kind::DocumentStart | Kind::Directive, at) => Err(SyntaxError::new(
                at,
                "a second document begins here, and only one is expected",
            )),
            (_, at) => Err(SyntaxError::new(at, "the end of the file is expected here")),
        }
    }

    fn add(&mut self, content: NodeContent, tag: Tag, at: Position) -> Result<usize, SyntaxError> {
        if self.nodes.len() >= MAX_NODES {
            let message = format!("the file has more than {MAX_NODES} values");
            return Err(SyntaxError::new(at, message));
        }
        self.nodes.push(RawNode { content, tag, at });
        Ok(self.nodes.len() - 1)
    }

    /// Adds a value that is not written.
    fn empty(&mut self, at: Position) -> Result<usize, SyntaxError> {
        self.add(NodeContent::Scalar(String::new()), Tag::Null, at)
    }

    /// Parses a node with its anchor and tag, or an alias.
    fn node(&mut self, context: Context, depth: usize) -> Result<usize, SyntaxError> {
        let (_, at) = self.scanner.peek()?;
        if depth >= MAX_DEPTH {
            return Err(SyntaxError::new(at, "this is nested too deeply"));
        }
        if let Some(alias) = self.take_if(Kind::Alias)? {
            let known = self.anchors.get(&alias.text).copied();
            return known.ok_or_else(|| {
                let message = format!(
                    "this alias refers to no anchor: `&{}` does not come before",
                    alias.text
                );
                SyntaxError::new(at, message)
            });
        }
        let (mut anchor, mut tag) = (None, None);
        loop {
            match self.peek()? {
                Kind::Anchor if anchor.is_none() => anchor = Some(self.take()?),
                Kind::Tag if tag.is_none() => tag = Some(self.take()?),
                _ => break,
            }
        }
        let (kind, next) = self.scanner.peek()?;
        let is_list = matches!(kind, Kind::BlockSequenceStart | Kind::FlowSequenceStart)
            || kind == Kind::BlockEntry && context == Context::BlockMapping;
        let (content, default) = match kind {
            _ if is_list => (NodeContent::List(Vec::new()), Tag::Seq),
            Kind::BlockMappingStart | Kind::FlowMappingStart => {
                (NodeContent::Map(Vec::new()), Tag::Map)
            }
            Kind::PlainScalar | Kind::QuotedScalar => {
                let text = self.take()?.text;
                // The tag `!` makes a quoted scalar a plain one.
                let is_plain =
                    kind == Kind::PlainScalar || tag.as_ref().is_some_and(|tag| tag.text == "!");
                let default = if is_plain {
                    scalar::resolve(&text)
                } else {
                    Tag::Str
                };
                (NodeContent::Scalar(text), default)
            }
            _ if anchor.is_some() || tag.is_some() => {
                (NodeContent::Scalar(String::new()), Tag::Null)
            }
            _ => {
                return Err(SyntaxError::new(
                    next,
                    format!("a value is expected here, {}", found(kind)),
                ));
            }
        };
        let tag = match tag {
            Some(tag) => self.tag(&tag)?.unwrap_or(default),
            None => default,
        };
        let id = self.add(content, tag, at)?;
        if let Some(Token { at, text, .. }) = anchor {
            // Before what is in the node, which may refer to it.
            if self.anchors.contains_key(&text) {
                return Err(SyntaxError::new(
                    at,
                    format!("the anchor `{text}` is defined twice"),
                ));
            }
            self.anchors.insert(text, id);
        }
        let content = match kind {
            Kind::BlockMappingStart => NodeContent::Map(self.block_map(depth + 1)?),
            Kind::FlowMappingStart => NodeContent::Map(self.flow_map(depth + 1)?),
            Kind::FlowSequenceStart => NodeContent::List(self.flow_list(id, depth + 1)?),
            _ if is_list => NodeContent::List(self.block_list(id, kind, depth + 1)?),
            _ => return Ok(id),
        };
        if let Some(node) = self.nodes.get_mut(id) {
            node.content = content;
        }
        Ok(id)
    }

    /// The type that a tag names; `None` for `!`, which leaves it to the value.
    fn tag(&self, token: &Token) -> Result<Option<Tag>, SyntaxError> {
        let text = token.text.as_str();
        if text == "!" {
            return Ok(None);
        }
        let verbatim = text
            .strip_prefix("!<")
            .and_then(|text| text.strip_suffix('>'));
        let full = match verbatim {
            Some(text) => text.to_owned(),
            None => {
                // `!!str`, `!handle!str` or `!str`
                let second = text.get(1..).and_then(|rest| rest.find('!'));
                let (handle, suffix) = text.split_at(second.map_or(1, |index| index + 2));
                let default = if handle == "!!" { YAML_TAG } else { handle };
                let prefix = self.tag_handles.get(handle).map_or(default, String::as_str);
                format!("{prefix}{suffix}")
            }
        };
        let known = unescaped(&full).and_then(|full| Tag::from_name(full.strip_prefix(YAML_TAG)?));
        known
            .map(Some)
            .ok_or_else(|| SyntaxError::new(token.at, format!("the tag `{text}` is not known")))
    }

    /// Parses a node, or adds an empty one at `at` if one of `ends` comes instead.
    fn node_or_empty(
        &mut self,
        at: Position,
        ends: &[Kind],
        context: Context,
        depth: usize,
    ) -> Result<usize, SyntaxError> {
        if ends.contains(&self.peek()?) {
            return self.empty(at);
        }
        self.node(context, depth)
    }

    /// Parses a key and its value, from [`Kind::Key`] on.
    fn pair(
        &mut self,
        ends: &[Kind],
        context: Context,
        depth: usize,
    ) -> Result<(usize, usize), SyntaxError> {
        let at = self.take()?.at;
        let key = self.node_or_empty(at, ends, context, depth)?;
        let key_end = self.end;
        let (_, colon) = self.scanner.peek()?;
        let (value, value_at) = match self.take_if(Kind::Value)? {
            Some(_) => {
                let (_, value_at) = self.scanner.peek()?;
                (self.node_or_empty(colon, ends, context, depth)?, value_at)
            }
            None => (self.empty(colon)?, colon),
        };
        let pair = WrittenPair {
            key: at,
            key_end,
            value: value_at,
            value_end: self.end,
        };
        self.pairs.insert(key, pair);
        Ok((key, value))
    }

    /// Parses a list outside of brackets: one that is indented and has an end, or one that begins with its first `-`.
    fn block_list(
        &mut self,
        id: usize,
        start: Kind,
        depth: usize,
    ) -> Result<Vec<usize>, SyntaxError> {
        let is_indented = start == Kind::BlockSequenceStart;
        self.take_if(Kind::BlockSequenceStart)?;
        let ends: &[Kind] = match is_indented {
            true => &[Kind::BlockEntry, Kind::BlockEnd],
            false => &[Kind::BlockEntry, Kind::Key, Kind::Value, Kind::BlockEnd],
        };
        let mut items = Vec::new();
        while let Some(entry) = self.take_if(Kind::BlockEntry)? {
            let (_, value) = self.scanner.peek()?;
            items.push(self.node_or_empty(entry.at, ends, Context::Block, depth)?);
            self.add_item(id, entry.at, value);
        }
        if is_indented {
            self.close(
                Kind::BlockEnd,
                "`- ` or the end of this list is expected here",
            )?;
        }
        Ok(items)
    }

    fn add_item(&mut self, list: usize, start: Position, value: Position) {
        let end = self.end;
        let items = self.items.entry(list).or_default();
        items.push(WrittenItem { start, value, end });
    }

    fn block_map(&mut self, depth: usize) -> Result<Vec<(usize, usize)>, SyntaxError> {
        self.take()?;
        let mut pairs = Vec::new();
        while self.peek()? == Kind::Key {
            let ends = [Kind::Key, Kind::Value, Kind::BlockEnd];
            pairs.push(self.pair(&ends, Context::BlockMapping, depth)?);
        }
        self.close(
            Kind::BlockEnd,
            "`key: value` or the end of this mapping is expected here",
        )?;
        Ok(pairs)
    }

    fn flow_list(&mut self, id: usize, depth: usize) -> Result<Vec<usize>, SyntaxError> {
        self.take()?;
        let ends = [Kind::Value, Kind::FlowEntry, Kind::FlowSequenceEnd];
        let mut items = Vec::new();
        while self.peek()? != Kind::FlowSequenceEnd {
            let (kind, at) = self.scanner.peek()?;
            items.push(match kind {
                // `[a: b]` is a list with a mapping.
                Kind::Key => {
                    let pair = self.pair(&ends, Context::Flow, depth)?;
                    self.add(NodeContent::Map(vec![pair]), Tag::Map, at)?
                }
                _ => self.node(Context::Flow, depth)?,
            });
            self.add_item(id, at, at);
            if self.take_if(Kind::FlowEntry)?.is_none() {
                break;
            }
        }
        self.close(Kind::FlowSequenceEnd, "`,` or `]` is expected here")?;
        Ok(items)
    }

    fn flow_map(&mut self, depth: usize) -> Result<Vec<(usize, usize)>, SyntaxError> {
        self.take()?;
        let ends = [Kind::Value, Kind::FlowEntry, Kind::FlowMappingEnd];
        let mut pairs = Vec::new();
        while self.peek()? != Kind::FlowMappingEnd {
            pairs.push(match self.peek()? {
                Kind::Key => self.pair(&ends, Context::Flow, depth)?,
                _ => {
                    let key = self.node(Context::Flow, depth)?;
                    let (_, at) = self.scanner.peek()?;
                    (key, self.empty(at)?)
                }
            });
            if self.take_if(Kind::FlowEntry)?.is_none() {
                break;
            }
        }
        self.close(Kind::FlowMappingEnd, "`,` or `}` is expected here")?;
        Ok(pairs)
    }

    fn close(&mut self, end: Kind, expected: &str) -> Result<(), SyntaxError> {
        match self.scanner.peek()? {
            (kind, _) if kind == end => self.take().map(drop),
            (kind, at) => Err(SyntaxError::new(at, format!("{expected}, {}", found(kind)))),
        }
    }
}

/// What is in the place of something else, for messages.
fn found(kind: Kind) -> &'static str {
    match kind {
        Kind::StreamEnd => "and this is the end of the file",
        Kind::BlockEnd => "and this line is indented less",
        Kind::BlockEntry => "and this is `-`",
        Kind::FlowEntry => "and this is `,`",
        Kind::FlowSequenceEnd => "and this is `]`",
        Kind::FlowMappingEnd => "and this is `}`",
        Kind::Key | Kind::Value => "and this is a key or `:`",
        Kind::DocumentStart | Kind::DocumentEnd | Kind::Directive => "and this ends the document",
        _ => "and this is a value",
    }
}

/// A tag without its `%` escapes; `None` if they are not UTF-8.
fn unescaped(tag: &str) -> Option<String> {
    let mut parts = tag.split('%');
    let mut bytes = parts.next()?.as_bytes().to_vec();
    for part in parts {
        let (code, rest) = part.split_at_checked(2)?;
        bytes.push(u8::from_str_radix(code, 16).ok()?);
        bytes.extend_from_slice(rest.as_bytes());
    }
    String::from_utf8(bytes).ok()
}
