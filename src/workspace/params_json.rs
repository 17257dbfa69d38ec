//! Rewrites the paths in a job's `params.json` for a workspace at another path, and leaves every other byte as it is.
//!
//! As experimaestro 2.7.0 does when it copies an experiment (`_rewrite_params_json` in `copy_experiment.py`): the top-level
//! `workspace`, and below `objects` each `value` of a `{"type": "path", "value": …}` or `"path.serialized"` that has no `base`
//! and lies in the former workspace. Since version 3, paths in the workspace have a `base` and are relative.
//!
//! The text is edited, not parsed and written anew: numbers, the order of keys, unknown keys and `NaN` survive.

use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// How deep values may be nested. experimaestro nests a few.
const DEPTH_MAX: usize = 300;

/// Why a text cannot be rewritten.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum RebaseError {
    /// It is not JSON; with the offset of the first wrong byte.
    #[error("it is not JSON at byte {0}")]
    NotJson(usize),
    /// Its `workspace` is not a path that this program can read.
    #[error("its `workspace` is not a path")]
    NoWorkspace,
}

/// The text with its paths in the workspace at `workspace`; `None` if they are there already, or it names no
/// workspace.
///
/// # Errors
///
/// The text is not a JSON object, or the workspace that it names is not a path.
pub fn rebased(text: &[u8], workspace: &Path) -> Result<Option<Vec<u8>>, RebaseError> {
    let mut scanner = Scanner {
        text,
        at: 0,
        workspaces: Vec::new(),
        paths: Vec::new(),
    };
    let scanned = scanner.document();
    scanned.ok_or(RebaseError::NotJson(scanner.at))?;
    let Some(last) = scanner.workspaces.last() else {
        return Ok(None);
    };
    let former = scanner.string(last).ok_or(RebaseError::NoWorkspace)?;
    let new = workspace.as_os_str().as_bytes();
    if former.as_bytes() == new {
        return Ok(None);
    }
    let mut edits: Vec<(Range<usize>, Vec<u8>)> = Vec::new();
    let written = quoted(new);
    edits.extend(
        scanner
            .workspaces
            .iter()
            .map(|at| (at.clone(), written.clone())),
    );
    for at in &scanner.paths {
        let Some(path) = scanner.string(at) else {
            continue;
        };
        let below = path.strip_prefix(former.trim_end_matches('/'));
        if let Some(below) = below.filter(|below| below.is_empty() || below.starts_with('/')) {
            edits.push((at.clone(), quoted(&[new, below.as_bytes()].concat())));
        }
    }
    edits.sort_by_key(|(at, _)| at.start);
    let mut rebased = Vec::with_capacity(text.len() + 256);
    let mut from = 0;
    for (at, replacement) in edits {
        rebased.extend_from_slice(text.get(from..at.start).unwrap_or_default());
        rebased.extend_from_slice(&replacement);
        from = at.end;
    }
    rebased.extend_from_slice(text.get(from..).unwrap_or_default());
    Ok(Some(rebased))
}

/// A path as Python writes it in JSON: in ASCII, with the bytes that are not UTF-8 as lone surrogates.
fn quoted(path: &[u8]) -> Vec<u8> {
    let mut text = String::from('"');
    for chunk in path.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '"' | '\\' => text.extend(['\\', character]),
                ' '..='~' => text.push(character),
                _ => {
                    let mut units = [0; 2];
                    for unit in character.encode_utf16(&mut units) {
                        text.push_str(&format!("\\u{unit:04x}"));
                    }
                }
            }
        }
        for byte in chunk.invalid() {
            text.push_str(&format!("\\udc{byte:02x}"));
        }
    }
    text.push('"');
    text.into_bytes()
}

/// Finds the strings to rewrite. Its functions return `None` at the first byte that is not JSON.
struct Scanner<'a> {
    text: &'a [u8],
    at: usize,
    /// Where the top-level `workspace` is. Of several, Python reads the last.
    workspaces: Vec<Range<usize>>,
    /// Where paths without `base` are.
    paths: Vec<Range<usize>>,
}

/// What is being scanned.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Top,
    /// In `objects`.
    Objects,
    Elsewhere,
}

impl Scanner<'_> {
    fn document(&mut self) -> Option<()> {
        self.space();
        if self.peek()? != b'{' {
            return None;
        }
        self.value(Place::Top, 0)?;
        self.space();
        (self.at == self.text.len()).then_some(())
    }

    /// The text of a string; `None` for other values, and for a string with lone surrogates.
    fn string(&self, at: &Range<usize>) -> Option<String> {
        serde_json::from_slice(self.text.get(at.clone())?).ok()
    }

    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn space(&mut self) {
        while self.peek().is_some_and(|byte| b" \t\r\n".contains(&byte)) {
            self.at += 1;
        }
    }

    fn take(&mut self, byte: u8) -> Option<()> {
        self.space();
        (self.peek()? == byte).then(|| self.at += 1)
    }

    /// Scans a value; returns where it is.
    fn value(&mut self, place: Place, depth: usize) -> Option<Range<usize>> {
        self.space();
        let from = self.at;
        match self.peek()? {
            _ if depth > DEPTH_MAX => return None,
            b'{' => self.object(place, depth)?,
            b'[' => self.list(place, depth)?,
            b'"' => self.text_of_string()?,
            _ => self.word()?,
        }
        Some(from..self.at)
    }

    fn object(&mut self, place: Place, depth: usize) -> Option<()> {
        self.at += 1;
        let (mut kind, mut value, mut has_base) = (None, None, false);
        let found = self.paths.len();
        let mut first = true;
        while self.take(b'}').is_none() {
            if !std::mem::replace(&mut first, false) {
                self.take(b',')?;
            }
            self.space();
            let from = self.at;
            if self.peek()? != b'"' {
                return None;
            }
            self.text_of_string()?;
            let key = self.string(&(from..self.at)).unwrap_or_default();
            self.take(b':')?;
            let inside = match (place, key.as_str()) {
                (Place::Top, "objects") => Place::Objects,
                (Place::Objects, _) => Place::Objects,
                _ => Place::Elsewhere,
            };
            let at = self.value(inside, depth + 1)?;
            match key.as_str() {
                "workspace" if place == Place::Top => self.workspaces.push(at),
                "type" => kind = self.string(&at),
                "value" => value = Some(at),
                "base" => has_base = true,
                _ => {}
            }
        }
        let is_path = matches!(kind.as_deref(), Some("path" | "path.serialized"));
        if let (Place::Objects, true, false, Some(at)) = (place, is_path, has_base, value) {
            // The entries of a path are not searched for others.
            self.paths.truncate(found);
            self.paths.push(at);
        }
        Some(())
    }

    fn list(&mut self, place: Place, depth: usize) -> Option<()> {
        self.at += 1;
        let mut first = true;
        while self.take(b']').is_none() {
            if !std::mem::replace(&mut first, false) {
                self.take(b',')?;
            }
            self.value(place, depth + 1)?;
        }
        Some(())
    }

    fn text_of_string(&mut self) -> Option<()> {
        self.at += 1;
        loop {
            match self.peek()? {
                b'"' => break,
                b'\\' => self.at += 2,
                _ => self.at += 1,
            }
        }
        self.at += 1;
        Some(())
    }

    /// A number, `true`, `false`, `null`, `NaN` or `Infinity`.
    fn word(&mut self) -> Option<()> {
        let from = self.at;
        let in_word = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
        while self.peek().is_some_and(in_word) {
            self.at += 1;
        }
        (self.at > from).then_some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str, workspace: &str) -> Option<String> {
        let rebased = rebased(text.as_bytes(), Path::new(workspace)).unwrap();
        rebased.map(|bytes| String::from_utf8(bytes).unwrap())
    }

    #[test]
    fn only_paths_of_the_former_workspace_change() {
        let before = r#"{ "workspace" : "/old/ws",
  "version":2, "big": 123456789012345678901234567890, "small": 1.50e-07, "nan": NaN, "inf": -Infinity,
  "é": "/old/ws/é", "other": {"type": "path", "value": "/old/ws/not-in-objects"},
  "objects": [{"z": 1, "a": [
    {"type": "path", "value": "/old/ws/jobs/t/h/x"}, {"value": "/old/ws", "type": "path.serialized", "is_folder": true},
    {"type": "path", "value": "/old/ws2/x"}, {"type": "path", "value": "x", "base": "job"},
    {"type": "path", "value": "/old/ws/x", "base": "workspace"}, {"type": "str", "value": "/old/ws/x"}, "/old/ws/x" ]}] }
"#;
        let after = before
            .replace(r#""workspace" : "/old/ws""#, r#""workspace" : "/new""#)
            .replace("/old/ws/jobs/t/h/x", "/new/jobs/t/h/x")
            .replace(
                r#"{"value": "/old/ws", "type""#,
                r#"{"value": "/new", "type""#,
            );
        assert_eq!(text(before, "/new").as_deref(), Some(&*after));
        // And back again, to the byte.
        assert_eq!(text(&after, "/old/ws").as_deref(), Some(before));
        assert_eq!(text(before, "/old/ws"), None);
    }

    #[test]
    fn odd_names_are_written_as_python_does() {
        let before = r#"{"workspace": "/\u00e9 \"old\"", "objects": [{"type": "path", "value": "/é \"old\"/ü"}]}"#;
        let after = r#"{"workspace": "/\ud83d\ude00\\", "objects": [{"type": "path", "value": "/\ud83d\ude00\\/\u00fc"}]}"#;
        assert_eq!(text(before, "/\u{1f600}\\").as_deref(), Some(after));
        let name = std::ffi::OsStr::from_bytes(b"/\xff");
        let rebased = rebased(b"{\"workspace\": \"/a\"}", Path::new(name)).unwrap();
        assert_eq!(rebased.unwrap(), br#"{"workspace": "/\udcff"}"#);
    }

    #[test]
    fn what_is_not_understood_is_an_error() {
        let deep = format!("{{\"workspace\": \"/a\", \"x\": {}", "[".repeat(100_000));
        for text in [
            "",
            "[]",
            "{",
            "{\"workspace\": \"/a\"",
            "{\"workspace\": \"/a\"} x",
            "{\"a\" 1}",
            &deep,
        ] {
            let error = rebased(text.as_bytes(), Path::new("/new")).unwrap_err();
            assert!(
                matches!(error, RebaseError::NotJson(_)),
                "{text:.40}: {error}"
            );
        }
        assert_eq!(text("{}", "/new"), None);
        for text in ["{\"workspace\": 1}", r#"{"workspace": "/\udcff"}"#] {
            let error = rebased(text.as_bytes(), Path::new("/new")).unwrap_err();
            assert_eq!(error, RebaseError::NoWorkspace, "{text}");
        }
    }
}
