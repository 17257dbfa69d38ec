//! From the nodes of a document to their values, as PyYAML's `SafeConstructor`: aliases, merge keys, duplicate keys.

use std::collections::{HashMap, HashSet};

use super::compose::{Conflict, DEEPEST, Document, Kind, Raw, SyntaxError};
use super::document::{Node, Position, Value};
use super::scalar::{self, Tag};

/// How many nodes, and bytes of text, aliases and merge keys may add to those that are written: more cannot be meant as
/// settings, and takes gigabytes.
const MOST_NODES: usize = 100_000;
const MOST_BYTES: usize = 16 << 20;

/// Said if they add more.
const TOO_LARGE: &str = "aliases and merge keys make this too large (more than 100000 values or 16 MiB beside those that are written)";

/// Said of what is nested deeper than Python can follow.
const TOO_DEEP: &str = "aliases make this too deep";

/// Makes the values of a document, from the root on.
///
/// # Errors
///
/// The first node that `yaml.safe_load` refuses too.
pub(super) fn construct(raw: &[Raw], root: usize, written: usize) -> Result<Document, SyntaxError> {
    let mut constructor = Constructor {
        raw,
        duplicates: Vec::new(),
        conflicts: Vec::new(),
        nodes_left: raw.len() + MOST_NODES,
        bytes_left: written + MOST_BYTES,
    };
    let root = constructor.construct(root, 0)?;
    let mut duplicates = constructor.duplicates;
    // What is reached through several aliases is made several times.
    duplicates.sort();
    duplicates.dedup();
    let mut conflicts = constructor.conflicts;
    conflicts.sort();
    conflicts.dedup();
    Ok(Document {
        root,
        duplicates,
        conflicts,
    })
}

struct Constructor<'r> {
    raw: &'r [Raw],
    duplicates: Vec<(Position, String)>,
    conflicts: Vec<Conflict>,
    nodes_left: usize,
    bytes_left: usize,
}

impl<'r> Constructor<'r> {
    fn get(&self, id: usize) -> Result<&'r Raw, SyntaxError> {
        let nowhere = Position { line: 1, column: 1 };
        self.raw
            .get(id)
            .ok_or_else(|| SyntaxError::new(nowhere, "the document is not complete"))
    }

    /// PyYAML's `construct_object`.
    fn construct(&mut self, id: usize, depth: usize) -> Result<Node, SyntaxError> {
        let raw = self.get(id)?;
        let (tag, at) = (raw.tag, raw.at);
        if depth > DEEPEST {
            return Err(SyntaxError::new(at, TOO_DEEP));
        }
        let bytes = match &raw.kind {
            Kind::Scalar(text) => text.len(),
            Kind::Seq(_) | Kind::Map(_) => 0,
        };
        let left = (
            self.nodes_left.checked_sub(1),
            self.bytes_left.checked_sub(bytes),
        );
        let (Some(nodes_left), Some(bytes_left)) = left else {
            return Err(SyntaxError::new(at, TOO_LARGE));
        };
        (self.nodes_left, self.bytes_left) = (nodes_left, bytes_left);
        let value = match &raw.kind {
            Kind::Scalar(text) => {
                scalar::construct(tag, text).map_err(|what| SyntaxError::new(at, what))?
            }
            Kind::Seq(items) => match tag {
                Tag::Seq => Value::Seq(self.sequence(items, depth)?),
                Tag::Omap | Tag::Pairs => Value::Seq(self.pairs(items, depth)?),
                _ => return Err(SyntaxError::new(at, "the tag does not fit a list")),
            },
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
        self.find_conflicts(id, depth)?;
        let (pairs, own) = self.flatten(id, depth)?;
        let first_own = pairs.len() - own;
        let mut entries: Vec<(Node, Node)> = Vec::new();
        // Where a key is among the entries, and whether it is one of the mapping's own.
        let mut known: HashMap<String, (usize, bool)> = HashMap::new();
        for (index, (key, value)) in pairs.into_iter().enumerate() {
            let own = index >= first_own;
            let key = self.key(key, depth)?;
            let value = self.construct(value, depth + 1)?;
            let identity = key.value.identity();
            let before = identity.as_ref().and_then(|name| known.get(name)).copied();
            if let (Some((_, true)), true) = (before, own) {
                let name = key.as_str().unwrap_or(key.value.kind()).to_owned();
                self.duplicates.push((key.at, name));
            }
            let place = before.map_or(entries.len(), |(place, _)| place);
            if let Some(name) = identity {
                known.insert(name, (place, own));
            }
            match entries.get_mut(place) {
                Some(entry) => *entry = (key, value),
                None => entries.push((key, value)),
            }
        }
        Ok(entries)
    }

    /// Finds keys that several mappings of one `<<: [*a, *b]` have, with different values.
    fn find_conflicts(&mut self, id: usize, depth: usize) -> Result<(), SyntaxError> {
        let Kind::Map(pairs) = &self.get(id)?.kind else {
            return Ok(());
        };
        for (key, value) in pairs {
            let merge = self.get(*key)?;
            let Kind::Seq(items) = &self.get(*value)?.kind else {
                continue;
            };
            if merge.tag != Tag::Merge {
                continue;
            }
            let own = pairs.iter().filter_map(|(key, _)| self.name(*key));
            let own: HashSet<(Tag, &str)> = own.collect();
            let mut first: HashMap<(Tag, &str), usize> = HashMap::new();
            let mut found = Vec::new();
            for item in items {
                // Of one mapping, the last value of a key counts.
                let mut merged: HashMap<(Tag, &str), usize> = HashMap::new();
                for (key, value) in self.flatten(*item, depth + 1)?.0 {
                    merged.extend(self.name(key).map(|name| (name, value)));
                }
                for (name, value) in merged {
                    let earlier = *first.entry(name).or_insert(value);
                    if own.contains(&name) || self.is_same(earlier, value, 0) {
                        continue;
                    }
                    found.push(Conflict {
                        at: merge.at,
                        key: name.1.to_owned(),
                        values: [self.get(earlier)?.at, self.get(value)?.at],
                    });
                }
            }
            self.conflicts.append(&mut found);
        }
        Ok(())
    }

    /// The type and text of a key that is a scalar.
    fn name(&self, key: usize) -> Option<(Tag, &'r str)> {
        let raw = self.raw.get(key)?;
        match &raw.kind {
            Kind::Scalar(text) => Some((raw.tag, text)),
            Kind::Seq(_) | Kind::Map(_) => None,
        }
    }

    /// Whether two nodes are written alike. Those that are nested deeply are taken to differ.
    fn is_same(&self, one: usize, other: usize, depth: usize) -> bool {
        const DEEP: usize = 4;
        if one == other {
            return true;
        }
        let (Some(a), Some(b)) = (self.raw.get(one), self.raw.get(other)) else {
            return false;
        };
        let same = |a: &usize, b: &usize| self.is_same(*a, *b, depth + 1);
        a.tag == b.tag
            && depth < DEEP
            && match (&a.kind, &b.kind) {
                (Kind::Scalar(a), Kind::Scalar(b)) => a == b,
                (Kind::Seq(a), Kind::Seq(b)) => {
                    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b))
                }
                (Kind::Map(a), Kind::Map(b)) => {
                    let alike = |((ka, va), (kb, vb)): (&(usize, usize), &(usize, usize))| {
                        same(ka, kb) && same(va, vb)
                    };
                    a.len() == b.len() && a.iter().zip(b).all(alike)
                }
                _ => false,
            }
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
            return Err(SyntaxError::new(raw.at, TOO_DEEP));
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
                    let message = "`<<` takes a mapping or a list of mappings";
                    return Err(SyntaxError::new(source.at, message));
                }
            }
            if merged.len() > self.raw.len() + MOST_NODES {
                return Err(SyntaxError::new(raw.at, TOO_LARGE));
            }
        }
        let count = own.len();
        merged.append(&mut own);
        Ok((merged, count))
    }
}
