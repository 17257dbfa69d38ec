//! Points in time as experimaestro writes them.

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};

/// Reads a point in time; `None` if it is null or not one.
///
/// As experimaestro's `deserialize_to_datetime`: seconds since 1970, or ISO 8601. Without an offset,
/// which is how it writes them, that is local time, and local here is assumed to be local there.
pub(super) fn lenient<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Timestamp>, D::Error> {
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

    fn read(json: &str) -> Option<Timestamp> {
        lenient(&mut serde_json::Deserializer::from_str(json)).unwrap()
    }

    #[test]
    fn every_form_is_read() {
        let expected: Timestamp = "2026-11-22T02:59:08.5Z".parse().unwrap();
        assert_eq!(read("1795316348.5"), Some(expected));
        assert_eq!(read("\"2026-11-22T03:59:08.500000+01:00\""), Some(expected));
        let local = expected.to_zoned(TimeZone::system()).datetime();
        assert_eq!(read(&format!("\"{local}\"")), Some(expected));
    }

    #[test]
    fn what_is_no_time_is_none() {
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
            assert_eq!(read(json), None, "{json}");
        }
    }
}
