//! Writes and reads the manifest as JSON: versioned, one entry per line, readable by people.
//!
//! ```json
//! {"version": 1, "hash": "blake3", "files": 2, "bytes": 3, "entries": [
//! {"path":".","kind":"directory","mode":"0755","mtime":"2026-11-22T02:06:05.123456789Z"},
//! {"path":"a","kind":"file","mode":"0644","mtime":"2026-11-22T02:06:05Z","size":3,"blake3":"6437…"},
//! {"path":"b","kind":"symlink","mode":"0777","mtime":"2026-11-22T02:06:05Z","target":"a"}
//! ]}
//! ```
//!
//! - `path` is relative to the tree's top, which is `.`; a directory comes before its entries. A path that is not UTF-8
//!   is `path_hex` instead, its bytes in hexadecimal; so is a `target`.
//! - `kind` is `directory`, `file`, `symlink` or `fifo`; `mode` is octal.
//! - `mtime` is RFC 3339; a time that RFC 3339 cannot express is `@seconds.nanoseconds`.
//! - A further name of a file has `hard_link_to` (or `hard_link_to_hex`), the path of the first.
//! - A reader must ignore unknown keys; a change that an old reader would misunderstand gets a new version.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::io::{self, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{Entry, Hash, Kind, Manifest, Time};

/// The version that is written, and the newest version that is read.
pub const FORMAT: u32 = 1;

/// The only supported hash.
pub(super) const HASH: &str = "blake3";

/// Why a manifest could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The manifest is not JSON, or is incomplete; or reading failed.
    #[error("{0}")]
    Json(#[from] serde_json::Error),
    /// A newer program wrote the manifest.
    #[error("it has version {0}, and this program knows versions up to {FORMAT}: update xpmfs")]
    Version(u32),
    /// The hashes are of another kind.
    #[error("it has hashes of the kind `{0}`, and this program knows `{HASH}` alone")]
    Hash(String),
    /// The manifest is longer than any manifest that this program writes.
    #[error("it is longer than {0} bytes")]
    Size(u64),
    /// An entry is invalid, or contradicts another entry.
    #[error("entry {index} (`{path}`) {what}")]
    Entry {
        /// The entry's position, counted from 0.
        index: usize,
        /// The entry's path, as far as it can be shown.
        path: String,
        /// The fault.
        what: &'static str,
    },
}

#[derive(Default, Serialize, Deserialize)]
pub(super) struct Line {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) path: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    path_hex: Option<String>,
    kind: String,
    mode: String,
    mtime: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    blake3: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hard_link_to: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hard_link_to_hex: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target_hex: Option<String>,
}

impl Manifest {
    /// Writes the manifest, one entry per line. `to` should be buffered.
    ///
    /// # Errors
    ///
    /// An error of writing.
    pub fn write(&self, mut to: impl Write) -> io::Result<()> {
        write!(
            to,
            "{{\"version\": {FORMAT}, \"hash\": \"{HASH}\", \"files\": {}, \"bytes\": {}, \"entries\": [",
            self.files(),
            self.bytes()
        )?;
        for index in 0..self.entries.len() {
            to.write_all(if index == 0 { b"\n" } else { b",\n" })?;
            if let Some(line) = self.line(index) {
                serde_json::to_writer(&mut to, &line)?;
            }
        }
        to.write_all(b"\n]}\n")
    }

    fn line(&self, index: usize) -> Option<Line> {
        let entry = self.entries.get(index)?;
        let (path, path_hex) = match index {
            0 => (Some(".".to_owned()), None),
            _ => text_or_hex(self.path(index).as_os_str()),
        };
        let mut line = Line {
            path,
            path_hex,
            mode: format!("{:04o}", entry.mode),
            mtime: show_time(entry.mtime),
            ..Line::default()
        };
        line.kind = match &entry.kind {
            Kind::Directory => "directory",
            Kind::Fifo => "fifo",
            Kind::Symlink { target } => {
                (line.target, line.target_hex) = text_or_hex(target);
                "symlink"
            }
            Kind::File { size, hash, link } => {
                line.size = Some(*size);
                line.blake3 = Some(hash.to_hex().to_string());
                if let Some(first) = link {
                    (line.hard_link_to, line.hard_link_to_hex) =
                        text_or_hex(self.path(*first).as_os_str());
                }
                "file"
            }
        }
        .to_owned();
        Some(line)
    }
}

/// The entries read so far: the positions of paths, and whether each is a directory.
#[derive(Default)]
pub(super) struct Known(HashMap<OsString, (usize, bool)>);

impl Known {
    /// The entry on a line, after those on the lines before.
    pub(super) fn entry(&mut self, index: usize, line: &Line) -> Result<Entry, &'static str> {
        let path = bytes(line.path.as_deref(), line.path_hex.as_deref()).ok_or("has no path")?;
        let kind = self.kind(line)?;
        let is_directory = matches!(kind, Kind::Directory);
        let (parent, name) = if index == 0 {
            if path != "." || !is_directory {
                return Err("must be the directory `.`");
            }
            (0, OsString::new())
        } else {
            self.place(&path)?
        };
        if self.0.insert(path, (index, is_directory)).is_some() {
            return Err("is listed twice");
        }
        Ok(Entry {
            parent,
            name: name.into_boxed_os_str(),
            mode: u32::from_str_radix(&line.mode, 8)
                .ok()
                .filter(|mode| *mode <= 0o7777)
                .ok_or("has no valid mode")?,
            mtime: read_time(&line.mtime).ok_or("has no valid mtime")?,
            kind,
        })
    }

    fn place(&self, path: &OsStr) -> Result<(usize, OsString), &'static str> {
        let (parent, name) = match path.as_bytes().iter().rposition(|byte| *byte == b'/') {
            Some(slash) => {
                let (parent, name) = path.as_bytes().split_at(slash);
                if parent == b"." {
                    return Err("has a path that does not begin with a name");
                }
                (parent, name.get(1..).unwrap_or_default())
            }
            None => (&b"."[..], path.as_bytes()),
        };
        if matches!(name, b"" | b"." | b"..") || name.contains(&0) {
            return Err("has a path that leads out of the tree");
        }
        match self.0.get(OsStr::from_bytes(parent)) {
            Some((parent, true)) => Ok((*parent, OsStr::from_bytes(name).to_owned())),
            _ => Err("stands before its directory"),
        }
    }

    fn kind(&self, line: &Line) -> Result<Kind, &'static str> {
        match line.kind.as_str() {
            "directory" => Ok(Kind::Directory),
            "fifo" => Ok(Kind::Fifo),
            "symlink" => bytes(line.target.as_deref(), line.target_hex.as_deref())
                .map(|target| Kind::Symlink {
                    target: target.into_boxed_os_str(),
                })
                .ok_or("has no target"),
            "file" => Ok(Kind::File {
                size: line.size.ok_or("has no size")?,
                hash: line
                    .blake3
                    .as_deref()
                    .and_then(|hash| Hash::from_hex(hash).ok())
                    .ok_or("has no valid hash")?,
                link: match (&line.hard_link_to, &line.hard_link_to_hex) {
                    (None, None) => None,
                    (text, hex) => {
                        let first = bytes(text.as_deref(), hex.as_deref());
                        match first.and_then(|first| self.0.get(&first)) {
                            Some((first, false)) => Some(*first),
                            _ => return Err("is a link to a file that does not stand before it"),
                        }
                    }
                },
            }),
            _ => Err("is of an unknown kind"),
        }
    }
}

/// A value as text, or in hexadecimal if it is not UTF-8.
pub(crate) fn text_or_hex(value: &OsStr) -> (Option<String>, Option<String>) {
    match value.to_str() {
        Some(text) => (Some(text.to_owned()), None),
        None => {
            let hex = value
                .as_bytes()
                .iter()
                .fold(String::new(), |mut hex, byte| {
                    // Writing to a string cannot fail.
                    let _ = write!(hex, "{byte:02x}");
                    hex
                });
            (None, Some(hex))
        }
    }
}

/// The value of a text or hexadecimal key; `None` if neither or both are present.
pub(crate) fn bytes(text: Option<&str>, hex: Option<&str>) -> Option<OsString> {
    match (text, hex) {
        (Some(text), None) => Some(Path::new(text).as_os_str().to_owned()),
        (None, Some(hex)) if hex.len() % 2 == 0 => {
            let pairs = hex.as_bytes().chunks_exact(2).map(|pair| {
                let pair = std::str::from_utf8(pair).ok()?;
                u8::from_str_radix(pair, 16).ok()
            });
            pairs.collect::<Option<Vec<u8>>>().map(OsString::from_vec)
        }
        _ => None,
    }
}

fn show_time(time: Time) -> String {
    let Time {
        seconds,
        nanoseconds,
    } = time;
    // jiff uses negative nanoseconds before 1970; `new` accepts seconds and nanoseconds of different signs.
    let nanos = i32::try_from(nanoseconds).unwrap_or(0);
    match jiff::Timestamp::new(seconds, nanos) {
        Ok(timestamp) if seconds >= 0 => timestamp.to_string(),
        _ => format!("@{seconds}.{nanoseconds:09}"),
    }
}

fn read_time(text: &str) -> Option<Time> {
    if let Some(number) = text.strip_prefix('@') {
        let (seconds, nanoseconds) = number.split_once('.')?;
        let time = Time {
            seconds: seconds.parse().ok()?,
            nanoseconds: nanoseconds.parse().ok()?,
        };
        return (time.nanoseconds < 1_000_000_000).then_some(time);
    }
    let timestamp: jiff::Timestamp = text.parse().ok()?;
    Some(Time {
        seconds: timestamp
            .as_nanosecond()
            .div_euclid(1_000_000_000)
            .try_into()
            .ok()?,
        nanoseconds: timestamp
            .as_nanosecond()
            .rem_euclid(1_000_000_000)
            .try_into()
            .ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOP: &str = r#"{"path":".","kind":"directory","mode":"0755","mtime":"@-3.000000007"}"#;

    fn read(entries: &str) -> Result<Manifest, ReadError> {
        Manifest::read(document(entries).as_bytes())
    }

    #[test]
    fn what_is_written_is_read_again() {
        let hash = blake3::hash(b"");
        let file = |path: &str, more: &str| {
            format!(
                r#",{{{path},"kind":"file","mode":"4755","mtime":"1970-01-01T00:00:01.5Z","size":0,"blake3":"{hash}"{more}}}"#
            )
        };
        let entries = [
            file(r#""path":"a""#, ""),
            r#",{"path":"d","kind":"directory","mode":"0000","mtime":"@99999999999999.000000001","unknown":1}"#.to_owned(),
            file(r#""path_hex":"642fff""#, r#","hard_link_to":"a""#),
            r#",{"path":"d/s","kind":"symlink","mode":"0777","mtime":"2026-11-22T02:06:05.123456789Z","target_hex":"fe"}"#.to_owned(),
        ];
        let manifest = read(&entries.concat()).unwrap();
        assert_eq!(manifest.entries().len(), 5);
        let mut written = Vec::new();
        manifest.write(&mut written).unwrap();
        assert_eq!(Manifest::read(&*written).unwrap(), manifest);
        assert_eq!(String::from_utf8(written).unwrap().lines().count(), 7);
    }

    fn document(entries: &str) -> String {
        format!(r#"{{"version":1,"hash":"blake3","entries":[{TOP}{entries}]}}"#)
    }

    #[test]
    fn hashes_of_another_kind_are_refused() {
        for other in ["md5", "", "BLAKE3"] {
            let text = document("").replace("blake3", other);
            let error = Manifest::read(text.as_bytes()).unwrap_err();
            assert!(
                matches!(error, ReadError::Hash(ref hash) if hash == other),
                "{error}"
            );
        }
        // Keys may come in any order.
        let reversed = format!(r#"{{"entries":[{TOP}],"hash":"md5","version":1}}"#);
        assert!(matches!(
            Manifest::read(reversed.as_bytes()),
            Err(ReadError::Hash(_))
        ));
        let unnamed = format!(r#"{{"version":1,"entries":[{TOP}]}}"#);
        assert!(Manifest::read(unnamed.as_bytes()).is_err());
    }

    #[test]
    fn a_manifest_that_is_too_long_is_refused_and_not_read_to_its_end() {
        let text = document("");
        let length = text.len() as u64;
        assert!(Manifest::read_at_most(text.as_bytes(), length).is_ok());
        let cut = Manifest::read_at_most(text.as_bytes(), length - 1);
        assert!(matches!(cut, Err(ReadError::Size(_))), "{cut:?}");
        let endless = io::repeat(b' ');
        let read = Manifest::read_at_most(endless, 1 << 20);
        assert!(matches!(read, Err(ReadError::Size(_))), "{read:?}");
    }

    #[test]
    fn what_leads_out_of_the_tree_or_contradicts_itself_is_refused() {
        let fifo =
            |path: &str| format!(r#",{{"path":"{path}","kind":"fifo","mode":"0","mtime":"@0.0"}}"#);
        for path in ["", "..", "/etc", "./a", "gone/a", "a/", "a\\u0000"] {
            assert!(read(&fifo(path)).is_err(), "{path:?}");
        }
        assert!(read(&fifo("a")).is_ok());
        assert!(read(&(fifo("a") + &fifo("a"))).is_err());
        assert!(read(&(fifo("a") + &fifo("a/b"))).is_err());
        assert!(read(r#",{"path":"a","kind":"fifo","mode":"10000","mtime":"@0.0"}"#).is_err());
        assert!(read(r#",{"path":"a","kind":"file","mode":"0","mtime":"@0.0","size":1}"#).is_err());
        assert!(matches!(
            Manifest::read(&br#"{"version":2,"hash":"sha3","entries":[{"kind":[]}]}"#[..]),
            Err(ReadError::Version(2))
        ));
        assert!(Manifest::read(&br#"{"version":1,"hash":"blake3","entries":[]}"#[..]).is_err());
    }
}
