//! The paths in a `params.json`.

use std::fmt;
use std::path::PathBuf;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use crate::workspace::python_json;

/// The paths in a `params.json`.
#[derive(Debug, Default)]
pub(super) struct Paths {
    pub(super) workspace: Option<PathBuf>,
    /// Absolute paths, and those relative to the workspace.
    pub(super) found: Vec<PathBuf>,
}

pub(super) fn parse(text: &[u8]) -> serde_json::Result<Paths> {
    python_json::object(text).or_else(|error| match without_surrogates(text) {
        Some(text) => python_json::object(&text),
        None => Err(error),
    })
}

/// The text with U+FFFD for each escaped surrogate, by which Python writes bytes that are not UTF-8 and which no JSON string may have;
/// `None` if it has none.
fn without_surrogates(text: &[u8]) -> Option<Vec<u8>> {
    let mut text = text.to_vec();
    let mut found = false;
    let mut at = skip_to_backslash(&text);
    while let Some([b'\\', next, rest @ ..]) = text.get_mut(at..) {
        if *next == b'u'
            && let Some(digits @ [b'd' | b'D', b'8'..=b'9' | b'a'..=b'f' | b'A'..=b'F', ..]) =
                rest.get_mut(..4)
        {
            digits.copy_from_slice(b"fffd");
            found = true;
        }
        at += 2;
        at += skip_to_backslash(text.get(at..)?);
    }
    found.then_some(text)
}

fn skip_to_backslash(text: &[u8]) -> usize {
    let found = text.iter().position(|byte| *byte == b'\\');
    found.unwrap_or(text.len())
}

impl<'de> Deserialize<'de> for Paths {
    fn deserialize<D: Deserializer<'de>>(from: D) -> std::result::Result<Paths, D::Error> {
        let mut paths = Paths::default();
        let top = Search {
            paths: &mut paths,
            top: true,
        };
        top.deserialize(from)?;
        Ok(paths)
    }
}

/// Searches a JSON value for paths; returns its text if it is a string.
struct Search<'a> {
    paths: &'a mut Paths,
    /// Whether the value is the whole file.
    top: bool,
}

impl Search<'_> {
    fn inner(&mut self) -> Search<'_> {
        Search {
            paths: self.paths,
            top: false,
        }
    }
}

impl<'de> DeserializeSeed<'de> for Search<'_> {
    type Value = Option<String>;

    fn deserialize<D: Deserializer<'de>>(
        self,
        from: D,
    ) -> std::result::Result<Self::Value, D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Search<'_> {
    type Value = Option<String>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("JSON")
    }

    fn visit_str<E>(self, text: &str) -> std::result::Result<Self::Value, E> {
        Ok(Some(text.to_owned()))
    }

    fn visit_bool<E>(self, _: bool) -> std::result::Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_i64<E>(self, _: i64) -> std::result::Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_u64<E>(self, _: u64) -> std::result::Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_f64<E>(self, _: f64) -> std::result::Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_unit<E>(self) -> std::result::Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_seq<A: SeqAccess<'de>>(
        mut self,
        mut values: A,
    ) -> std::result::Result<Self::Value, A::Error> {
        while values.next_element_seed(self.inner())?.is_some() {}
        Ok(None)
    }

    fn visit_map<A: MapAccess<'de>>(
        mut self,
        mut map: A,
    ) -> std::result::Result<Self::Value, A::Error> {
        let (mut kind, mut value, mut base) = (None, None, None);
        while let Some(key) = map.next_key::<String>()? {
            let text = map.next_value_seed(self.inner())?;
            match key.as_str() {
                "type" => kind = text,
                "value" => value = text,
                "base" => base = text,
                "workspace" if self.top => self.paths.workspace = text.map(PathBuf::from),
                _ => {}
            }
        }
        let is_path = matches!(kind.as_deref(), Some("path" | "path.serialized"));
        if let (true, Some(value)) = (is_path, value) {
            let path = PathBuf::from(value);
            if base.as_deref() == Some("workspace") || (base.is_none() && path.is_absolute()) {
                self.paths.found.push(path);
            }
        }
        Ok(None)
    }
}
