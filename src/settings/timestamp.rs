//! Dates and times in YAML 1.1: no key of the settings takes one, but an impossible one makes PyYAML refuse the file.

/// Whether a plain scalar is resolved to a timestamp.
pub(super) fn looks_like(text: &str) -> bool {
    let b = text.as_bytes();
    let short = b.len() == 10
        && b.iter().enumerate().all(|(i, c)| {
            if i == 4 || i == 7 {
                *c == b'-'
            } else {
                c.is_ascii_digit()
            }
        });
    short || Timestamp::parse(text).is_some_and(|stamp| stamp.has_time)
}

/// Whether Python's `datetime` takes it; if not, `safe_load` raises.
pub(super) fn exists(text: &str) -> bool {
    Timestamp::parse(text).is_some_and(|stamp| stamp.exists())
}

/// The parts of a timestamp, by PyYAML's `timestamp_regexp`.
struct Timestamp {
    year: u32,
    month: u32,
    day: u32,
    has_time: bool,
    hour: u32,
    minute: u32,
    second: u32,
    zone_minutes: u32,
}

impl Timestamp {
    fn parse(text: &str) -> Option<Timestamp> {
        let mut rest = text;
        let year = number(&mut rest, 4, 4)?;
        rest = rest.strip_prefix('-')?;
        let month = number(&mut rest, 1, 2)?;
        rest = rest.strip_prefix('-')?;
        let day = number(&mut rest, 1, 2)?;
        let mut stamp = Timestamp {
            year,
            month,
            day,
            has_time: false,
            hour: 0,
            minute: 0,
            second: 0,
            zone_minutes: 0,
        };
        if rest.is_empty() {
            return Some(stamp);
        }
        let blank: &[char] = &[' ', '\t'];
        rest = rest.strip_prefix(['T', 't']).or_else(|| {
            rest.starts_with(blank)
                .then(|| rest.trim_start_matches(blank))
        })?;
        stamp.has_time = true;
        stamp.hour = number(&mut rest, 1, 2)?;
        rest = rest.strip_prefix(':')?;
        stamp.minute = number(&mut rest, 2, 2)?;
        rest = rest.strip_prefix(':')?;
        stamp.second = number(&mut rest, 2, 2)?;
        if let Some(fraction) = rest.strip_prefix('.') {
            rest = fraction.trim_start_matches(|c: char| c.is_ascii_digit());
        }
        let zone = rest.trim_start_matches(blank);
        if rest.is_empty() || zone == "Z" {
            return Some(stamp);
        }
        let mut zone = zone.strip_prefix(['-', '+'])?;
        stamp.zone_minutes = number(&mut zone, 1, 2)? * 60;
        if let Some(mut minutes) = zone.strip_prefix(':') {
            stamp.zone_minutes += number(&mut minutes, 2, 2)?;
            zone = minutes;
        }
        zone.is_empty().then_some(stamp)
    }

    fn exists(&self) -> bool {
        let leap = self.year.is_multiple_of(4)
            && (!self.year.is_multiple_of(100) || self.year.is_multiple_of(400));
        let days = match self.month {
            2 if leap => 29,
            2 => 28,
            4 | 6 | 9 | 11 => 30,
            1..=12 => 31,
            _ => return false,
        };
        self.year >= 1
            && (1..=days).contains(&self.day)
            && self.hour < 24
            && self.minute < 60
            && self.second < 60
            && self.zone_minutes < 24 * 60
    }
}

/// Takes between `least` and `most` digits from the front.
fn number(rest: &mut &str, least: usize, most: usize) -> Option<u32> {
    let len = rest
        .bytes()
        .take(most)
        .take_while(u8::is_ascii_digit)
        .count();
    let (taken, left) = rest.split_at_checked(len)?;
    *rest = left;
    if len < least {
        None
    } else {
        taken.parse().ok()
    }
}
