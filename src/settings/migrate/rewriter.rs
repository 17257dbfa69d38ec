//! Edits the text of one workspace.

use std::ops::Range;

use super::super::environment::Environment;
use super::super::interpolate::replaced;
use super::super::yaml::{
    Node, NodeContent, Position, RawNode, Written, WrittenItem, WrittenPair, emit_scalar,
};
use super::text::{Edit, Text};

/// Why a workspace is not rewritten.
pub(super) struct Unable {
    pub(super) at: Position,
    pub(super) why: &'static str,
}

pub(super) struct Rewriter<'w> {
    pub(super) nodes: &'w [RawNode],
    pub(super) text: Text<'w>,
    pub(super) written: &'w Written,
    /// The values, before variables are replaced.
    pub(super) root: &'w Node,
    pub(super) environment: &'w Environment,
    pub(super) edits: Vec<Edit>,
}

impl Rewriter<'_> {
    /// The nodes of the workspaces.
    pub(super) fn workspace_nodes(&self, root: usize) -> Vec<usize> {
        let list = self.own(root, "workspaces");
        let items = list.and_then(|list| match &self.nodes.get(list.value)?.content {
            NodeContent::List(items) => Some(items.clone()),
            _ => None,
        });
        items.unwrap_or_default()
    }

    /// The last pair with this key in a mapping itself.
    fn own(&self, mapping: usize, name: &str) -> Option<Own> {
        let NodeContent::Map(pairs) = &self.nodes.get(mapping)?.content else {
            return None;
        };
        let is_named = |key: usize| matches!(self.nodes.get(key).map(|key| &key.content), Some(NodeContent::Scalar(text)) if text == name);
        let (key, value) = *pairs.iter().rfind(|(key, _)| is_named(*key))?;
        Some(Own {
            value,
            pair: self.written.pairs.get(&key)?.clone(),
            count: pairs.iter().filter(|(key, _)| is_named(*key)).count(),
        })
    }

    pub(super) fn workspace(
        &mut self,
        id: Option<usize>,
        workspace: &Node,
        at: Position,
    ) -> Result<(), Unable> {
        let unable = |why| Unable { at, why };
        let id = id.ok_or_else(|| unable("`workspaces` is not a list as it is written"))?;
        let alternatives = self
            .own(id, "alt_workspaces")
            .filter(|own| own.count == 1)
            .ok_or_else(|| {
                unable("a merge key (`<<`) has its `alt_workspaces`, or it is there twice")
            })?;
        let folders = self.own(id, "folders");
        if folders.as_ref().is_some_and(|own| own.count > 1)
            || folders.is_some() != workspace.get("folders").is_some()
        {
            return Err(unable(
                "a merge key (`<<`) has its `folders`, or it is there twice",
            ));
        }
        let items = self.list(&alternatives).ok_or_else(|| {
            unable("`alt_workspaces` has an anchor, an alias or a tag, or an item of several lines")
        })?;
        let references = workspace.get("alt_workspaces").map_or(&[][..], Node::items);
        let entries: Option<Vec<String>> = references
            .iter()
            .map(|item| Some(self.folder(item.as_str()?)))
            .collect();
        let entries = entries.filter(|entries| entries.len() == items.len());
        let entries =
            entries.ok_or_else(|| unable("an item of `alt_workspaces` is not a string"))?;
        match folders {
            _ if items.is_empty() => self.remove(id, &alternatives, false),
            None => self.rename(&alternatives, &items, entries),
            Some(folders) => self.merge(id, &alternatives, &items, entries, &folders),
        }
        .map_err(unable)
    }

    /// The items of a list that is written there, each on one line.
    fn list(&self, own: &Own) -> Option<Vec<WrittenItem>> {
        let node = self.nodes.get(own.value)?;
        let NodeContent::List(ids) = &node.content else {
            return None;
        };
        let special = |at| {
            matches!(
                self.text.char(self.text.index(at)),
                '*' | '&' | '!' | '|' | '>' | '?'
            )
        };
        let items = self.written.items.get(&own.value);
        let items = items.cloned().unwrap_or_default();
        let simple = |item: &WrittenItem| {
            let start = self.text.index(item.value);
            !special(item.value)
                && self.text.line_of(start) == self.text.line_of(self.text.trimmed(item.end))
        };
        (ids.len() == items.len() && !special(own.pair.value) && items.iter().all(simple))
            .then_some(items)
    }

    /// A `use` folder for an item of `alt_workspaces`: an id, or a path.
    fn folder(&self, reference: &str) -> String {
        let meant = replaced(reference, self.environment);
        let workspaces = self.root.get("workspaces").map_or(&[][..], Node::items);
        let is_meant = |workspace: &&Node| {
            let id = workspace.get("id").and_then(Node::as_str);
            id.is_some_and(|id| replaced(id, self.environment) == meant)
        };
        let known = workspaces.iter().rfind(is_meant);
        let path = known.and_then(|workspace| workspace.get("path")?.as_str());
        let path = path.unwrap_or(reference);
        format!("{{path: {}, mode: use}}", emit_scalar(path, true))
    }

    /// Names the key `folders`, and makes a folder of each item, in its place.
    fn rename(
        &mut self,
        own: &Own,
        items: &[WrittenItem],
        entries: Vec<String>,
    ) -> Result<(), &'static str> {
        let key = self.text.index(own.pair.key)..self.text.trimmed(own.pair.key_end);
        if !self.text.get(key.clone()).contains("alt_workspaces")
            || self.text.char(key.start) == '?'
        {
            return Err("its key is written in an unusual way");
        }
        self.edit(key, "folders".to_owned());
        for (item, entry) in items.iter().zip(entries) {
            let range = self.text.index(item.value)..self.text.trimmed(item.end);
            self.edit(range, entry);
        }
        Ok(())
    }

    /// Inserts the items before the folders, and removes the key.
    fn merge(
        &mut self,
        mapping: usize,
        own: &Own,
        items: &[WrittenItem],
        entries: Vec<String>,
        folders: &Own,
    ) -> Result<(), &'static str> {
        let start = self.text.index(folders.pair.value);
        let first = self
            .written
            .items
            .get(&folders.value)
            .and_then(|items| items.first());
        if self.text.char(start) == '[' {
            let mut text = entries.join(", ");
            if first.is_some() {
                text.push_str(", ");
            }
            self.edit(start + 1..start + 1, text);
            return self.remove(mapping, own, false);
        }
        let Some(first) = first.filter(|_| self.text.char(start) == '-') else {
            return Err("`folders` has an anchor, an alias or a tag");
        };
        let indent = " ".repeat(first.start.column - 1);
        let mut text = String::new();
        // Items in lines take along what is written behind them.
        let in_lines = self.text.char(self.text.index(own.pair.value)) == '-';
        for (item, entry) in items.iter().zip(entries) {
            let comment = self.comment_on_line(item.end).filter(|_| in_lines);
            let comment = comment.map_or_else(String::new, |comment| format!("  {comment}"));
            text.push_str(&format!("{indent}- {entry}{comment}\n"));
        }
        let line = self.text.line_end(self.text.trimmed(folders.pair.key_end));
        self.edit(line..line, text);
        self.remove(mapping, own, in_lines)
    }

    /// Removes a key and its value; comments stay, but for those behind items that were moved.
    fn remove(&mut self, mapping: usize, own: &Own, moved: bool) -> Result<(), &'static str> {
        let start = self.text.index(own.pair.key);
        let end = self.text.trimmed(own.pair.value_end);
        let (line, next) = (self.text.line_start(start), self.text.line_end(end - 1));
        let in_brackets = self.in_brackets(mapping);
        let comments = self.written.comments.iter();
        let inside = comments.filter(|it| (start..next).contains(&it.start));
        let inside: Vec<Range<usize>> = inside.cloned().collect();
        if in_brackets {
            if inside.iter().any(|comment| comment.start < end) {
                return Err("it has a comment between braces");
            }
            let range = self.with_comma(start, end);
            self.edit(range, String::new());
            return Ok(());
        }
        if !self.text.get(line..start).trim().is_empty() {
            // The first key of an item, behind the `-`: the next key takes its place.
            let after = self.next_key(mapping, start).ok_or("it is the only key")?;
            if !inside.is_empty() {
                return Err("it is the first key, and has comments");
            }
            self.edit(start..after, String::new());
            return Ok(());
        }
        let indent = self.text.get(line..start);
        let items = self
            .written
            .items
            .get(&own.value)
            .map_or(&[][..], Vec::as_slice);
        let mut kept = String::new();
        for comment in inside {
            let line = self.text.line_of(comment.start);
            let is_behind =
                |item: &WrittenItem| self.text.line_of(self.text.trimmed(item.end) - 1) == line;
            if !(moved && items.iter().any(is_behind)) {
                kept.push_str(&format!("{indent}{}\n", self.text.get(comment)));
            }
        }
        self.edit(line..next, kept);
        Ok(())
    }

    /// Whether a mapping is written between braces.
    fn in_brackets(&self, mapping: usize) -> bool {
        let node = self.nodes.get(mapping);
        let mut start = node.map_or(0, |node| self.text.index(node.at));
        // Behind an anchor or a tag.
        while matches!(self.text.char(start), '&' | '!') {
            while !matches!(self.text.char(start), ' ' | '\n' | '\0') {
                start += 1;
            }
            while matches!(self.text.char(start), ' ' | '\n') {
                start += 1;
            }
        }
        self.text.char(start) == '{'
    }

    /// A pair between braces, with the comma after it, or else the one before it.
    fn with_comma(&self, start: usize, end: usize) -> Range<usize> {
        let blank = |c: char| matches!(c, ' ' | '\n' | '\t');
        let mut after = end;
        while blank(self.text.char(after)) {
            after += 1;
        }
        if self.text.char(after) == ',' {
            after += 1;
            while self.text.char(after) == ' ' {
                after += 1;
            }
            return start..after;
        }
        let before = self.text.trimmed(start);
        match before
            .checked_sub(1)
            .map(|index| (index, self.text.char(index)))
        {
            Some((comma, ',')) => comma..end,
            _ => start..end,
        }
    }

    /// Where the key after this one begins, in the same mapping.
    fn next_key(&self, mapping: usize, start: usize) -> Option<usize> {
        let NodeContent::Map(pairs) = &self.nodes.get(mapping)?.content else {
            return None;
        };
        let pairs = pairs
            .iter()
            .filter_map(|(key, _)| self.written.pairs.get(key));
        let starts = pairs.map(|pair: &WrittenPair| self.text.index(pair.key));
        starts.filter(|other| *other > start).min()
    }

    /// The comment on the line on which something ends.
    fn comment_on_line(&self, end: usize) -> Option<String> {
        let line = self.text.line_of(self.text.trimmed(end) - 1);
        let mut comments = self.written.comments.iter();
        let comment = comments.find(|it| self.text.line_of(it.start) == line)?;
        Some(self.text.get(comment.clone()))
    }

    fn edit(&mut self, range: Range<usize>, text: String) {
        self.edits.push(Edit { range, text });
    }
}

/// A pair of a mapping as it is written.
struct Own {
    value: usize,
    pair: WrittenPair,
    /// How often the mapping has the key.
    count: usize,
}
