//! Makes the values of nodes, as PyYAML's `SafeConstructor`: aliases, merge keys, duplicate keys.

use std::cell::Cell;
use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use super::parser::{NodeContent, RawNode};
use super::scalar::{self, Tag};
use super::tree::{MAX_DEPTH, MAX_NODES, Node, Position, SyntaxError, Value};

/// The most bytes that strings may have together, after aliases are expanded.
const MAX_TEXT: usize = 16 << 20;

/// A file's values.
#[derive(Debug)]
pub(crate) struct Document {
    /// The one document of the file; an empty file is [`Value::Null`].
    pub(crate) root: Node,
    /// Keys that are twice in one mapping: the later place and the key.
    pub(crate) duplicates: Vec<(Position, String)>,
    /// Merge keys (`<<`) that bring in one key with different values.
    pub(crate) conflicts: Vec<Conflict>,
}

/// A key that one `<<` merges from several mappings, with different values. YAML and PyYAML up to 6.0.3 take the first, PyYAML
/// 6.0.4 takes the last.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Conflict {
    /// Where the `<<` is.
    pub(crate) at: Position,
    pub(crate) key: String,
    /// Where the value is that is used, and one that differs.
    pub(crate) values: [Position; 2],
}

/// A key and its value, as indices.
type Pair = (usize, usize);

/// Makes the values of a document.
///
/// # Errors
///
/// The first node without a value; expansion beyond a limit.
pub(super) fn construct(nodes: &[RawNode], root: usize) -> Result<Document, SyntaxError> {
    let mut constructor = Constructor {
        nodes,
        flat: HashMap::new(),
        duplicates: Vec::new(),
        conflicts: Vec::new(),
        nodes_left: MAX_NODES,
        merges_left: 2 * MAX_NODES,
        text_left: MAX_TEXT,
        comparisons_left: Cell::new(10 * MAX_NODES),
    };
    let root = constructor.value(root, 0)?;
    let (mut duplicates, mut conflicts) = (constructor.duplicates, constructor.conflicts);
    // A mapping with several aliases is made several times.
    duplicates.sort();
    duplicates.dedup();
    conflicts.sort();
    conflicts.dedup();
    Ok(Document {
        root,
        duplicates,
        conflicts,
    })
}

struct Constructor<'n> {
    nodes: &'n [RawNode],
    /// The pairs of mappings with their merge keys replaced; `None` while that is being done.
    flat: HashMap<usize, Option<Rc<Flat>>>,
    duplicates: Vec<(Position, String)>,
    conflicts: Vec<Conflict>,
    nodes_left: usize,
    merges_left: usize,
    text_left: usize,
    comparisons_left: Cell<usize>,
}

/// The pairs of a mapping: first those that are merged, so that its own replace them.
struct Flat {
    pairs: Vec<Pair>,
    /// How many are merged.
    merged: usize,
}

fn spend(left: &mut usize, count: usize, at: Position) -> Result<(), SyntaxError> {
    let too_large = || {
        let message = format!(
            "the file expands too far: aliases and merge keys may make {MAX_NODES} values and {} MiB of text",
            MAX_TEXT >> 20
        );
        SyntaxError::new(at, message)
    };
    *left = left.checked_sub(count).ok_or_else(too_large)?;
    Ok(())
}

impl<'n> Constructor<'n> {
    fn get(&self, id: usize) -> Result<&'n RawNode, SyntaxError> {
        let incomplete = || SyntaxError::new(Position::START, "the document is not complete");
        self.nodes.get(id).ok_or_else(incomplete)
    }

    /// `construct_object`
    fn value(&mut self, id: usize, depth: usize) -> Result<Node, SyntaxError> {
        let node = self.get(id)?;
        let (tag, at) = (node.tag, node.at);
        let refused = |message: &str| Err(SyntaxError::new(at, message));
        if depth >= MAX_DEPTH {
            return refused("this is nested too deeply, or contains itself by an alias");
        }
        spend(&mut self.nodes_left, 1, at)?;
        let value = match (&node.content, tag) {
            (NodeContent::Scalar(text), _) => {
                spend(&mut self.text_left, text.len(), at)?;
                scalar::construct(tag, text).map_err(|message| SyntaxError::new(at, message))?
            }
            (NodeContent::List(items), Tag::Seq) => {
                let items = items.iter().map(|item| self.value(*item, depth + 1));
                Value::Seq(items.collect::<Result<_, _>>()?)
            }
            (NodeContent::List(items), Tag::Omap | Tag::Pairs) => {
                let items = items.iter().map(|item| self.pair(*item));
                Value::Seq(items.collect::<Result<_, _>>()?)
            }
            (NodeContent::List(_), _) => return refused("the tag does not fit a list"),
            (NodeContent::Map(_), Tag::Map) => Value::Map(self.mapping(id, depth)?),
            (NodeContent::Map(_), Tag::Set) => {
                let entries = self.mapping(id, depth)?;
                Value::Set(entries.into_iter().map(|(key, _)| key).collect())
            }
            (NodeContent::Map(_), _) => return refused("the tag does not fit a mapping"),
        };
        Ok(Node { value, at })
    }

    /// An item of an `!!omap` or `!!pairs`, whose content nothing reads.
    fn pair(&self, id: usize) -> Result<Node, SyntaxError> {
        let node = self.get(id)?;
        match &node.content {
            NodeContent::Map(pairs) if pairs.len() == 1 => Ok(Node {
                value: Value::Pair,
                at: node.at,
            }),
            _ => Err(SyntaxError::new(
                node.at,
                "a mapping with one key is expected here",
            )),
        }
    }

    /// `construct_mapping`: a key that comes again replaces the value of the first.
    fn mapping(&mut self, id: usize, depth: usize) -> Result<Vec<(Node, Node)>, SyntaxError> {
        self.find_conflicts(id)?;
        let flat = self.flatten(id)?;
        let mut entries: Vec<(Node, Node)> = Vec::new();
        // Where a key is among the entries, and whether it is the mapping's own.
        let mut known: HashMap<String, (usize, bool)> = HashMap::new();
        for (index, (key, value)) in flat.pairs.iter().enumerate() {
            let is_own = index >= flat.merged;
            let key = self.key(*key, depth)?;
            let value = self.value(*value, depth + 1)?;
            let identity = key.value.identity();
            let before = identity.as_ref().and_then(|name| known.get(name)).copied();
            if is_own && before.is_some_and(|(_, was_own)| was_own) {
                let name = key.as_str().unwrap_or(key.value.kind()).to_owned();
                self.duplicates.push((key.at, name));
            }
            let place = before.map_or(entries.len(), |(place, _)| place);
            if let Some(name) = identity {
                known.insert(name, (place, is_own));
            }
            match entries.get_mut(place) {
                Some(entry) => *entry = (key, value),
                None => entries.push((key, value)),
            }
        }
        Ok(entries)
    }

    fn key(&mut self, id: usize, depth: usize) -> Result<Node, SyntaxError> {
        let node = self.get(id)?;
        if let (Tag::Value, NodeContent::Scalar(text)) = (node.tag, &node.content) {
            return Ok(Node {
                value: Value::Str(text.clone()),
                at: node.at,
            });
        }
        let key = self.value(id, depth + 1)?;
        match key.value {
            Value::Seq(_) | Value::Map(_) | Value::Set(_) => Err(SyntaxError::new(
                key.at,
                format!("{} cannot be a key", key.value.kind()),
            )),
            _ => Ok(key),
        }
    }

    /// `flatten_mapping`: replaces merge keys by the pairs that they bring in.
    fn flatten(&mut self, id: usize) -> Result<Rc<Flat>, SyntaxError> {
        let node = self.get(id)?;
        let NodeContent::Map(pairs) = &node.content else {
            return Err(SyntaxError::new(node.at, "a mapping is expected here"));
        };
        let (merges, own): (Vec<Pair>, Vec<Pair>) = pairs.iter().partition(|(key, _)| {
            self.nodes
                .get(*key)
                .is_some_and(|key| key.tag == Tag::Merge)
        });
        match self.flat.get(&id) {
            Some(Some(known)) => return Ok(Rc::clone(known)),
            // Merged into itself.
            Some(None) => {
                return Ok(Rc::new(Flat {
                    pairs: own,
                    merged: 0,
                }));
            }
            None => drop(self.flat.insert(id, None)),
        }
        let mut pairs = Vec::new();
        for (_, value) in merges {
            for source in self.merge_sources(value)?.into_iter().rev() {
                let source = self.flatten(source)?;
                spend(&mut self.merges_left, 1 + source.pairs.len(), node.at)?;
                pairs.extend_from_slice(&source.pairs);
            }
        }
        let merged = pairs.len();
        pairs.extend(own);
        let flat = Rc::new(Flat { pairs, merged });
        self.flat.insert(id, Some(Rc::clone(&flat)));
        Ok(flat)
    }

    /// The mappings that a `<<` with this value merges.
    fn merge_sources(&self, value: usize) -> Result<Vec<usize>, SyntaxError> {
        let node = self.get(value)?;
        match &node.content {
            NodeContent::Map(_) => Ok(vec![value]),
            NodeContent::List(items) => Ok(items.clone()),
            NodeContent::Scalar(_) => {
                let message = "`<<` takes a mapping or a list of mappings";
                Err(SyntaxError::new(node.at, message))
            }
        }
    }

    /// Finds keys that several mappings of one `<<: [*a, *b]` have, with different values.
    fn find_conflicts(&mut self, id: usize) -> Result<(), SyntaxError> {
        let NodeContent::Map(pairs) = &self.get(id)?.content else {
            return Ok(());
        };
        for (merge, value) in pairs {
            let merge = self.get(*merge)?;
            if merge.tag != Tag::Merge {
                continue;
            }
            let own = pairs.iter().filter_map(|(key, _)| self.name(*key));
            let own: HashSet<(Tag, &str)> = own.collect();
            let mut first: HashMap<(Tag, &str), usize> = HashMap::new();
            for source in self.merge_sources(*value)? {
                let source = self.flatten(source)?;
                // Of one mapping, the last value of a key is used.
                let names = source
                    .pairs
                    .iter()
                    .filter_map(|(key, value)| Some((self.name(*key)?, *value)));
                let merged: HashMap<(Tag, &str), usize> = names.collect();
                spend(&mut self.merges_left, 1 + source.pairs.len(), merge.at)?;
                for (name, value) in merged {
                    let earlier = *first.entry(name).or_insert(value);
                    if !own.contains(&name) && !self.is_same(earlier, value, 0) {
                        self.conflicts.push(Conflict {
                            at: merge.at,
                            key: name.1.to_owned(),
                            values: [self.get(earlier)?.at, self.get(value)?.at],
                        });
                    }
                }
            }
        }
        Ok(())
    }

    /// The type and text of a key that is a scalar.
    fn name(&self, key: usize) -> Option<(Tag, &'n str)> {
        let node = self.nodes.get(key)?;
        match &node.content {
            NodeContent::Scalar(text) => Some((node.tag, text)),
            NodeContent::List(_) | NodeContent::Map(_) => None,
        }
    }

    /// Whether two nodes are written alike. Nodes that are nested deeply are taken to differ, as are all after many
    /// comparisons.
    fn is_same(&self, one: usize, other: usize, depth: usize) -> bool {
        const MAX_COMPARED_DEPTH: usize = 4;
        let left = self.comparisons_left.get();
        self.comparisons_left.set(left.saturating_sub(1));
        let (Some(a), Some(b)) = (self.nodes.get(one), self.nodes.get(other)) else {
            return false;
        };
        let same = |a: &usize, b: &usize| self.is_same(*a, *b, depth + 1);
        let alike = |(a, b): (&Pair, &Pair)| same(&a.0, &b.0) && same(&a.1, &b.1);
        let is_alike = || match (&a.content, &b.content) {
            (NodeContent::Scalar(a), NodeContent::Scalar(b)) => a == b,
            (NodeContent::List(a), NodeContent::List(b)) => {
                a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b))
            }
            (NodeContent::Map(a), NodeContent::Map(b)) => {
                a.len() == b.len() && a.iter().zip(b).all(alike)
            }
            _ => false,
        };
        one == other || (a.tag == b.tag && depth < MAX_COMPARED_DEPTH && left > 0 && is_alike())
    }
}
