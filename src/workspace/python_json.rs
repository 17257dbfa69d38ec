//! Reads JSON as Python's `json` module and experimaestro write it: bare words, paths, times.
//!
//! It differs from JSON in two ways that occur in workspaces: the bare words `NaN`, `Infinity` and `-Infinity`
//! (`Train.C().tag("limit", float("inf"))`), and lone surrogates in paths, by which Python represents bytes that are not UTF-8
//! (PEP 383, `surrogateescape`).

use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use serde::de::{self, DeserializeOwned, Deserializer, IgnoredAny, Visitor};

/// Parses one JSON object; `NaN`, `Infinity` and `-Infinity` become the strings of that name.
pub fn object<T: DeserializeOwned>(text: &[u8]) -> serde_json::Result<T> {
    // serde would also read an array as a struct, field by field.
    if text.trim_ascii_start().first().is_some_and(|b| *b != b'{') {
        return Err(de::Error::custom("it is not a JSON object"));
    }
    parse(text)
}

fn parse<T: DeserializeOwned>(text: &[u8]) -> serde_json::Result<T> {
    serde_json::from_slice(text).or_else(|error| match quote_bare_words(text) {
        Some(quoted) => serde_json::from_slice(&quoted).map_err(|_| error),
        None => Err(error),
    })
}

/// Puts quotes around the bare words; `None` if there are none.
fn quote_bare_words(text: &[u8]) -> Option<Vec<u8>> {
    const WORDS: [&[u8]; 3] = [b"NaN", b"Infinity", b"-Infinity"];
    let mut quoted = Vec::with_capacity(text.len() + 16);
    let mut found = false;
    let mut in_string = false;
    let mut rest = text;
    while let Some((&byte, tail)) = rest.split_first() {
        if in_string {
            // A quote after a backslash does not end the string.
            let taken = if byte == b'\\' { rest.len().min(2) } else { 1 };
            let (token, after) = rest.split_at(taken);
            quoted.extend_from_slice(token);
            in_string = byte != b'"';
            rest = after;
        } else if let Some(word) = WORDS.iter().find(|word| rest.starts_with(word)) {
            quoted.push(b'"');
            quoted.extend_from_slice(word);
            quoted.push(b'"');
            found = true;
            rest = rest.split_at(word.len()).1;
        } else {
            in_string = byte == b'"';
            quoted.push(byte);
            rest = tail;
        }
    }
    found.then_some(quoted)
}

/// Reads a path, with the bytes that Python has escaped as lone surrogates.
pub(super) fn path<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PathBuf, D::Error> {
    struct PathVisitor;

    impl Visitor<'_> for PathVisitor {
        type Value = PathBuf;

        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("a path")
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<PathBuf, E> {
            Ok(PathBuf::from(text))
        }

        fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<PathBuf, E> {
            Ok(OsString::from_vec(unescape_surrogates(bytes)).into())
        }
    }

    // As bytes, serde_json returns lone surrogates in WTF-8; as a string it refuses them.
    deserializer.deserialize_bytes(PathVisitor)
}

/// Replaces `U+DC80` to `U+DCFF`, three bytes each in WTF-8 (`ED B2 80` to `ED B3 BF`), by the bytes `80` to `FF`.
fn unescape_surrogates(wtf8: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(wtf8.len());
    let mut rest = wtf8;
    while let Some((&byte, tail)) = rest.split_first() {
        match rest {
            [0xED, 0xB2, low, after @ ..] => {
                bytes.push(*low);
                rest = after;
            }
            [0xED, 0xB3, low, after @ ..] => {
                bytes.push(low.wrapping_add(0x40));
                rest = after;
            }
            _ => {
                bytes.push(byte);
                rest = tail;
            }
        }
    }
    bytes
}

/// Reads a point in time; `None` for other values.
///
/// As experimaestro's `deserialize_to_datetime`: seconds since 1970, or ISO 8601. experimaestro writes local times without an
/// offset, so the time zone of this machine is assumed.
pub fn time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Timestamp>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written {
        Seconds(f64),
        Text(String),
        Other(IgnoredAny),
    }

    Ok(match Written::deserialize(deserializer)? {
        Written::Seconds(seconds) => from_seconds(seconds),
        Written::Text(text) => from_text(&text),
        Written::Other(_) => None,
    })
}

fn from_seconds(seconds: f64) -> Option<Timestamp> {
    let duration = SignedDuration::try_from_secs_f64(seconds).ok()?;
    Timestamp::from_duration(duration).ok()
}

fn from_text(text: &str) -> Option<Timestamp> {
    if let Ok(timestamp) = text.parse::<Timestamp>() {
        return Some(timestamp);
    }
    let local: DateTime = text.parse().ok()?;
    Some(local.to_zoned(TimeZone::system()).ok()?.timestamp())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};
    use std::os::unix::ffi::OsStrExt;

    #[test]
    fn bare_words_are_read_and_strings_are_unchanged() {
        let text = br#"{"a": NaN, "b": [-Infinity, Infinity], "NaN": "x\"NaN", "d": "\\"}"#;
        let value: Value = parse(text).unwrap();
        assert_eq!(
            value,
            json!({"a": "NaN", "b": ["-Infinity", "Infinity"], "NaN": "x\"NaN", "d": "\\"})
        );
    }

    #[test]
    fn other_mistakes_are_refused() {
        for text in [
            &b"{"[..],
            b"{\"a\": NaN",
            b"\"\\",
            b"\xff\xfe\x00",
            b"NaNNaN",
        ] {
            assert!(parse::<Value>(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn paths_have_the_bytes_that_python_escaped() {
        #[derive(serde::Deserialize)]
        struct Holder {
            #[serde(deserialize_with = "path")]
            path: PathBuf,
        }
        // python: json.dumps(os.fsdecode(b"/w/\xe9t\xc3\xa9 \x80\xff"))
        let text = br#"{"path": "/w/\udce9t\u00e9 \udc80\udcff"}"#;
        let holder: Holder = parse(text).unwrap();
        assert_eq!(
            holder.path.as_os_str().as_bytes(),
            b"/w/\xe9t\xc3\xa9 \x80\xff"
        );
        assert!(parse::<Holder>(br#"{"path": 3}"#).is_err());
    }

    #[test]
    fn only_an_object_is_accepted() {
        assert!(object::<Value>(b" \n{}").is_ok());
        for text in [&b"[]"[..], b"3", b"\"{\"", b"", b" "] {
            assert!(object::<Value>(text).is_err(), "{text:?}");
        }
    }

    fn read_time(json: &str) -> Option<Timestamp> {
        time(&mut serde_json::Deserializer::from_str(json)).unwrap()
    }

    #[test]
    fn every_form_of_a_time_is_read_time() {
        let expected: Timestamp = "2026-11-22T02:59:08.5Z".parse().unwrap();
        assert_eq!(read_time("1795316348.5"), Some(expected));
        assert_eq!(
            read_time("\"2026-11-22T03:59:08.500000+01:00\""),
            Some(expected)
        );
        let local = expected.to_zoned(TimeZone::system()).datetime();
        assert_eq!(read_time(&format!("\"{local}\"")), Some(expected));
    }

    #[test]
    fn other_values_are_not_a_time() {
        for json in [
            "null",
            "\"yesterday\"",
            "\"\"",
            "true",
            "[1]",
            "{}",
            "1e300",
            "-1e300",
        ] {
            assert_eq!(read_time(json), None, "{json}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_parsed_or_refused(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            let _ = parse::<Value>(&bytes);
            let _ = unescape_surrogates(&bytes);
        }
    }
}
