//! Durations, sizes and percentages with units: `2s`, `5m`, `30d`, `100G`, `10%`.

use std::time::Duration;

use jiff::{Span, SpanRelativeTo};

use super::xpmfs::KeepFree;

/// The longest duration: a thousand years. Sums of longer ones and a time may overflow.
const DURATION_MAX: Duration = Duration::from_secs(1000 * 365 * 24 * 60 * 60);

/// What [`duration`] reads, for messages.
pub(super) const DURATIONS: &str = "seconds, or numbers with a unit (`ms`, `s`, `m`, `h`; whole `d` and `w`; the largest first), as in `90`, `5m`, `1h30m`, `30d`";

/// What [`size`] reads, for messages.
pub(super) const SIZES: &str = "bytes, or a number with a unit (`K`, `M`, `G`, `T`, `P`: powers of 1024; `kB`, `MB`, `GB`, `TB`, `PB`: powers of 1000), as in `500M`, `1.5T`";

/// What [`keep_free`] reads, for messages.
pub(super) const KEEP_FREES: &str = "bytes, a number with a unit (`K`, `M`, `G`, `T`, `P`: powers of 1024; `kB`, `MB`, `GB`, `TB`, `PB`: powers of 1000) or a percentage of the disk, as in `200G`, `1.5T`, `10%`";

/// Reads a duration given in seconds.
pub(super) fn seconds(seconds: f64) -> Option<Duration> {
    let duration = Duration::try_from_secs_f64(seconds).ok();
    duration.filter(|duration| *duration <= DURATION_MAX)
}

/// Reads a duration: a number of seconds, or numbers with a unit (`ms`, `s`, `m` or `min`, `h`, `d`, `w`), the largest
/// first: `90`, `1.5`, `2s`, `1h30m`, `30d`.
///
/// # Errors
///
/// A phrase that says what to write.
pub fn duration(text: &str) -> Result<Duration, String> {
    let text = text.trim();
    let duration = match text.parse::<f64>().ok() {
        Some(number) => seconds(number),
        None => text.parse::<Span>().ok().and_then(|span| {
            // A day is 24 hours; months and years have no fixed length.
            let duration = span.to_duration(SpanRelativeTo::days_are_24_hours()).ok()?;
            let duration: Duration = duration.try_into().ok()?;
            (duration <= DURATION_MAX).then_some(duration)
        }),
    };
    duration.ok_or_else(|| format!("`{text}` is not a duration: write {DURATIONS}"))
}

/// Reads a size in bytes: a number, with a unit or without. `K`, `M`, `G`, `T`, `P` (also `KiB`…) are powers of
/// 1024; `kB`, `MB`, `GB`, `TB`, `PB` are powers of 1000. `None` if the text is not one.
pub(super) fn size(text: &str) -> Option<u64> {
    let (number, unit) = leading_number(text.trim())?;
    let unit = unit.trim();
    let mut letters = unit.chars();
    let power = match letters.next().map(|c| c.to_ascii_uppercase()) {
        None | Some('B') if unit.len() <= 1 => 0,
        Some('K') => 1,
        Some('M') => 2,
        Some('G') => 3,
        Some('T') => 4,
        Some('P') => 5,
        _ => return None,
    };
    let base: f64 = match letters.as_str() {
        "" | "i" | "iB" => 1024.0,
        "B" => 1000.0,
        _ => return None,
    };
    let bytes = number * base.powi(power);
    // No file system has more than 2^63 bytes.
    (bytes.is_finite() && bytes < 9.3e18).then(|| bytes.round() as u64)
}

/// Reads a percentage between 0 and 100, `10%`; `None` if the text is not one.
pub(super) fn percent(text: &str) -> Option<f64> {
    let (number, rest) = leading_number(text.trim())?;
    (rest.trim() == "%" && (0.0..=100.0).contains(&number)).then_some(number)
}

/// Reads space to keep free: a size, or a percentage of the file system.
///
/// # Errors
///
/// A phrase that says what to write.
pub fn keep_free(text: &str) -> Result<KeepFree, String> {
    match text.contains('%') {
        true => percent(text).map(KeepFree::Percent).ok_or_else(|| {
            format!("`{text}` is not a percentage: write a number from 0 to 100 and `%`")
        }),
        false => size(text)
            .map(KeepFree::Bytes)
            .ok_or_else(|| format!("`{text}` is not a size: write {KEEP_FREES}")),
    }
}

/// A duration as [`duration`] reads it, in its largest whole unit: `7d`, `90s`, `250ms`.
pub(super) fn written_duration(duration: Duration) -> String {
    let (seconds, nanoseconds) = (duration.as_secs(), duration.subsec_nanos());
    if nanoseconds != 0 {
        return match nanoseconds.is_multiple_of(1_000_000) && seconds < 1000 {
            true => format!("{}ms", duration.as_millis()),
            false => duration.as_secs_f64().to_string(),
        };
    }
    let units = [(86_400, 'd'), (3600, 'h'), (60, 'm')];
    let whole = units
        .iter()
        .find(|(unit, _)| seconds >= *unit && seconds.is_multiple_of(*unit));
    match whole {
        Some((unit, name)) => format!("{}{name}", seconds / unit),
        None => format!("{seconds}s"),
    }
}

/// A size as [`size`] reads it, in its largest whole unit: `100G`, or bytes.
pub(super) fn written_size(bytes: u64) -> String {
    let units = ["P", "T", "G", "M", "K"].into_iter().zip((1..=5).rev());
    let whole = units
        .map(|(name, power)| (name, 1024_u64.pow(power)))
        .find(|(_, unit)| bytes >= *unit && bytes.is_multiple_of(*unit));
    match whole {
        Some((name, unit)) => format!("{}{name}", bytes / unit),
        None => bytes.to_string(),
    }
}

/// An unsigned decimal number at the start of the text, and the text after it.
fn leading_number(text: &str) -> Option<(f64, &str)> {
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, rest) = text.split_at(end);
    Some((number.parse().ok()?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        for milliseconds in [
            0,
            250,
            1500,
            2000,
            90_000,
            120_000,
            7_200_000,
            604_800_000,
            1_234_567,
        ] {
            let value = Duration::from_millis(milliseconds);
            assert_eq!(duration(&written_duration(value)), Ok(value));
        }
        assert_eq!(written_duration(Duration::from_secs(604_800)), "7d");
        for bytes in [0, 1, 1023, 1024, 1 << 30, 3 << 40, 1_000_000] {
            assert_eq!(size(&written_size(bytes)), Some(bytes));
        }
        assert_eq!(written_size(100 << 30), "100G");
    }

    #[test]
    fn durations_are_read_with_every_unit() {
        for (text, seconds) in [
            ("0", 0.0),
            ("2", 2.0),
            ("1.5", 1.5),
            ("2s", 2.0),
            ("250ms", 0.25),
            ("5m", 300.0),
            ("5 min", 300.0),
            ("1h30m", 5400.0),
            ("1h 30m", 5400.0),
            ("30d", 2_592_000.0),
            ("1w", 604_800.0),
        ] {
            assert_eq!(
                duration(text),
                Ok(Duration::from_secs_f64(seconds)),
                "{text}"
            );
        }
    }

    #[test]
    fn other_texts_are_not_durations() {
        for text in [
            "", "s", "-1", "-1s", "2 years", "2s3", "1e400", "inf", "nan", "1..2s", "２s", "1e19",
            "400000d",
        ] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_are_read_with_every_unit() {
        for (text, bytes) in [
            ("0", 0),
            ("100", 100),
            ("100B", 100),
            ("1K", 1024),
            ("1k", 1024),
            ("1.5M", 1_572_864),
            ("2 GiB", 2 << 30),
            ("100G", 100 << 30),
            ("1GB", 1_000_000_000),
            ("2T", 2 << 40),
            ("1Pi", 1 << 50),
        ] {
            assert_eq!(size(text), Some(bytes), "{text}");
        }
        for text in ["", "G", "-1G", "1X", "1Gx", "10%", "1BB", "99999P", "1GiBs"] {
            assert_eq!(size(text), None, "{text}");
        }
    }

    #[test]
    fn a_percentage_is_between_0_and_100() {
        assert_eq!(percent("10%"), Some(10.0));
        assert_eq!(percent("2.5 %"), Some(2.5));
        for text in ["10", "101%", "-1%", "%", "10%%"] {
            assert_eq!(percent(text), None, "{text}");
        }
    }
}
