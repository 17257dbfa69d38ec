//! Reads the JSON document of a manifest entry by entry, so that only its entries are in memory.

use std::fmt;
use std::io::Read;

use serde::de::{
    DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor,
};

use super::json::{FORMAT, HASH, Known, Line, ReadError};
use super::{Entry, Manifest};

/// The longest manifest that is read, in bytes: enough for some five million files. It limits the memory for one
/// manifest.
const SIZE_MAX: u64 = 1 << 30;

impl Manifest {
    /// Reads a manifest that [`Manifest::write`] has written.
    ///
    /// # Errors
    ///
    /// Any manifest that is incomplete or invalid: every directory must come before its entries, every path must be
    /// below the top, every hash must have 64 hexadecimal digits, and the size must not exceed a gibibyte.
    pub fn read(from: impl Read) -> Result<Manifest, ReadError> {
        Self::read_at_most(from, SIZE_MAX)
    }

    pub(super) fn read_at_most(from: impl Read, limit: u64) -> Result<Manifest, ReadError> {
        let mut limited = from.take(limit);
        let read = read(&mut limited);
        if read.is_err() && limited.limit() == 0 {
            return Err(ReadError::Size(limit));
        }
        let entries = read?;
        if entries.is_empty() {
            return Err(ReadError::Entry {
                index: 0,
                path: ".".to_owned(),
                what: "is missing",
            });
        }
        Ok(Manifest::arrange(entries).0)
    }
}

/// The entries of a document of a known version, with hashes of the known kind.
fn read(from: &mut impl Read) -> Result<Vec<Entry>, ReadError> {
    let mut document = Document::default();
    let mut json = serde_json::Deserializer::from_reader(from);
    let read = (&mut document)
        .deserialize(&mut json)
        .and_then(|()| json.end());
    match document.refused {
        Some(refused) => Err(refused),
        None => Ok(read.map(|()| document.entries)?),
    }
}

/// The part of a document that has been read.
#[derive(Default)]
struct Document {
    known: Known,
    entries: Vec<Entry>,
    /// Why reading was stopped, where serde's error cannot express the reason.
    refused: Option<ReadError>,
}

impl Document {
    /// Stops reading.
    fn refuse<E: serde::de::Error>(&mut self, why: ReadError) -> E {
        self.refused = Some(why);
        E::custom("refused")
    }
}

impl<'de> DeserializeSeed<'de> for &mut Document {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for &mut Document {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a manifest")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let (mut version, mut hash) = (None, None);
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "version" => {
                    let found: u32 = map.next_value()?;
                    if found > FORMAT {
                        return Err(self.refuse(ReadError::Version(found)));
                    }
                    version = Some(found);
                }
                "hash" => {
                    let found: String = map.next_value()?;
                    if found != HASH {
                        return Err(self.refuse(ReadError::Hash(found)));
                    }
                    hash = Some(found);
                }
                "entries" => map.next_value_seed(Entries(self))?,
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        version.ok_or_else(|| A::Error::missing_field("version"))?;
        hash.ok_or_else(|| A::Error::missing_field("hash"))?;
        Ok(())
    }
}

/// The list of entries in a document.
struct Entries<'a>(&'a mut Document);

impl<'de> DeserializeSeed<'de> for Entries<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Entries<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of entries")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let Entries(document) = self;
        while let Some(line) = list.next_element::<Line>()? {
            let index = document.entries.len();
            match document.known.entry(index, &line) {
                Ok(entry) => document.entries.push(entry),
                Err(what) => {
                    let path = line.path.unwrap_or_default();
                    return Err(document.refuse(ReadError::Entry { index, path, what }));
                }
            }
        }
        Ok(())
    }
}
