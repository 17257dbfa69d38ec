//! Colours and local times, for a person at a terminal.

use std::env;
use std::io::{IsTerminal, stdout};
use std::time::Duration;

use comfy_table::{Cell, Color};
use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::sys::printable::printable;

/// How a state is to be seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tone {
    Plain,
    Good,
    /// It passes by itself, or needs a look.
    Warning,
    Bad,
}

impl Tone {
    /// The escape sequence that begins it (ECMA-48: select graphic rendition).
    fn sequence(self) -> Option<&'static str> {
        match self {
            Tone::Plain => None,
            Tone::Good => Some("\x1b[32m"),
            Tone::Warning => Some("\x1b[33m"),
            Tone::Bad => Some("\x1b[31m"),
        }
    }
}

/// Whether standard output shows colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Colours(bool);

impl Colours {
    /// Only at a terminal, and not with `NO_COLOR` (no-color.org) or `TERM=dumb`.
    pub(super) fn of_stdout() -> Colours {
        let is_set = |name| env::var_os(name).is_some_and(|value| !value.is_empty());
        let dumb = env::var_os("TERM").is_some_and(|term| term == "dumb");
        Colours(stdout().is_terminal() && !is_set("NO_COLOR") && !dumb)
    }

    /// For texts that no terminal shows.
    pub(super) const NONE: Colours = Colours(false);

    /// For texts that no terminal shows.
    #[cfg(test)]
    pub(super) fn never() -> Colours {
        Colours::NONE
    }

    /// A text in the colour of its tone; control characters in it are escaped.
    pub(super) fn paint(self, text: &str, tone: Tone) -> String {
        let text = printable(text);
        match tone.sequence().filter(|_| self.0) {
            Some(sequence) => format!("{sequence}{text}\x1b[0m"),
            None => text.into_owned(),
        }
    }

    /// The same as a cell of a table.
    pub(super) fn cell(self, text: &str, tone: Tone) -> Cell {
        let cell = Cell::new(printable(text));
        match tone {
            _ if !self.0 => cell,
            Tone::Plain => cell,
            Tone::Good => cell.fg(Color::DarkGreen),
            Tone::Warning => cell.fg(Color::DarkYellow),
            Tone::Bad => cell.fg(Color::DarkRed),
        }
    }
}

/// A time for a person: `2026-11-28 15:04`, in the time zone of this machine or of `TZ`.
pub(super) fn local(time: Timestamp) -> String {
    let local = time.to_zoned(TimeZone::system());
    local.strftime("%Y-%m-%d %H:%M").to_string()
}

/// How long ago a time was: `12 s`, `5 min`, `3 h`, `2 d`. A time in the future, by the clock of another machine, is now.
pub(super) fn age(time: Timestamp, now: Timestamp) -> String {
    let seconds = now.as_second().saturating_sub(time.as_second()).max(0);
    match seconds {
        ..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}

/// A duration for a person, in its largest whole unit: `7d`, `36h`, `90s`.
pub(super) fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let units = [(86_400, "d"), (3600, "h"), (60, "m")];
    let whole = |(unit, _): &&(u64, &str)| seconds >= *unit && seconds.is_multiple_of(*unit);
    match units.iter().find(whole) {
        Some((unit, name)) => format!("{}{name}", seconds / unit),
        None if duration.subsec_millis() > 0 && seconds < 60 => format!("{:?}", duration),
        None => format!("{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_short() {
        let time = |seconds| Timestamp::from_second(seconds).unwrap();
        let ages = [-5, 0, 59, 60, 3599, 3600, 172_799, 172_800, 8_640_000];
        let ages = ages.map(|seconds| age(time(0), time(seconds)));
        let expected = [
            "0 s", "0 s", "59 s", "1 min", "59 min", "1 h", "47 h", "2 d", "100 d",
        ];
        assert_eq!(ages, expected);
    }

    #[test]
    fn only_colours_paint_and_names_are_escaped() {
        assert_eq!(Colours(false).paint("dead", Tone::Bad), "dead");
        assert_eq!(
            Colours(true).paint("dead", Tone::Bad),
            "\x1b[31mdead\x1b[0m"
        );
        assert_eq!(Colours(true).paint("a\x1b", Tone::Plain), "a\\u{1b}");
    }

    #[test]
    fn a_duration_is_shown_in_its_largest_whole_unit() {
        for (seconds, expected) in [
            (0, "0s"),
            (90, "90s"),
            (120, "2m"),
            (36 * 3600, "36h"),
            (7 * 86_400, "7d"),
        ] {
            assert_eq!(duration(Duration::from_secs(seconds)), expected);
        }
        assert_eq!(duration(Duration::from_millis(1500)), "1.5s");
    }
}
