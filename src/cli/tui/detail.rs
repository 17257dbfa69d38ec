//! An open job: a summary, its files, its parameters and its logs.

use std::time::{Duration, Instant};

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers, MouseEvent, MouseEventKind};
use indicatif::HumanBytes;
use ratatui::layout::Rect;

use super::read::{Content, JobFile, LOG_MAX, Want};
use super::request::Part;
use super::tabs::{Canvas, below, line};
use super::theme::Theme;
use crate::cli::jobs::log::Window;
use crate::cli::style::Tone;
use crate::workspace::jobs::JobId;

/// How often a log that is followed is read.
const FOLLOW_INTERVAL: Duration = Duration::from_millis(500);

/// How much a page of a log overlaps with the one before.
const LOG_OVERLAP: u64 = LOG_MAX / 4;

/// An open job.
pub(super) struct Detail {
    pub(super) job: JobId,
    pub(super) part: Part,
    /// The parts that the job has here; the first is a summary, which the dashboard has.
    parts: &'static [Part],
    lines: Vec<(String, Tone)>,
    /// What is shown; `None` while it is being read.
    content: Option<Result<(), String>>,
    scroll: usize,
    height: usize,
    /// Of a log: standard output.
    std: bool,
    follow: bool,
    runs: bool,
    /// Whether the start of the log was asked for.
    to_start: bool,
    /// The part of the log that is in memory.
    window: (u64, u64, u64),
    asked: Option<Instant>,
    read: Option<Instant>,
}

impl Detail {
    /// Opens a job.
    pub(super) fn new(job: JobId, part: Part, parts: &'static [Part]) -> Detail {
        Detail {
            job,
            part,
            parts,
            lines: Vec::new(),
            content: None,
            scroll: 0,
            height: 1,
            std: false,
            follow: true,
            runs: false,
            to_start: false,
            window: (0, 0, 0),
            asked: None,
            read: None,
        }
    }

    fn show(&mut self, part: Part) {
        self.part = part;
        self.reset();
    }

    fn reset(&mut self) {
        self.lines.clear();
        self.content = None;
        self.scroll = 0;
        self.follow = true;
        self.window = (0, 0, 0);
        self.asked = None;
        self.read = None;
    }

    /// What to read now, if anything.
    pub(super) fn want(&self) -> Option<Want> {
        if self.asked.is_some() || self.is_summary() {
            return None;
        }
        let due = match (self.part, self.read) {
            (_, None) => true,
            (Part::Log, Some(read)) => self.follow && read.elapsed() > FOLLOW_INTERVAL,
            _ => false,
        };
        due.then(|| self.wanted(None))
    }

    fn is_summary(&self) -> bool {
        self.parts.first() == Some(&self.part)
    }

    fn wanted(&self, from: Option<u64>) -> Want {
        Want {
            job: self.job.clone(),
            part: self.part,
            std: self.std,
            from,
        }
    }

    /// Remembers that something was asked for.
    pub(super) fn set_asked(&mut self) {
        self.asked = Some(Instant::now());
    }

    /// Shows what was read, if it is still wanted.
    pub(super) fn set(&mut self, want: &Want, content: Result<Content, String>) {
        if want.job != self.job || want.part != self.part || want.std != self.std {
            return;
        }
        self.asked = None;
        self.read = Some(Instant::now());
        match content {
            Err(why) => {
                self.lines.clear();
                self.content = Some(Err(why));
            }
            Ok(Content::Files(files, more)) => {
                self.lines = listed(&files, more);
                self.content = Some(Ok(()));
            }
            Ok(Content::Text(lines)) => {
                self.lines = lines.into_iter().map(|it| (it, Tone::Plain)).collect();
                self.content = Some(Ok(()));
            }
            Ok(Content::Log(window, runs)) => {
                self.runs = runs;
                self.set_log(window, want.from.is_none());
                self.content = Some(Ok(()));
            }
        }
    }

    fn set_log(&mut self, window: Window, is_end: bool) {
        let end = window.start + window.bytes.len() as u64;
        let text = String::from_utf8_lossy(&window.bytes);
        let before = self.window;
        self.window = (window.start, end, window.length);
        self.lines = text
            .lines()
            // What a progress bar wrote last to a line is what shows in the end.
            .map(|line| line.trim_end_matches('\r').rsplit('\r').next())
            .map(|line| (line.unwrap_or_default().to_owned(), Tone::Plain))
            .collect();
        let to_start = std::mem::take(&mut self.to_start);
        if is_end {
            self.scroll = self.last();
        } else if to_start {
            self.scroll = 0;
        } else if window.start < before.0 {
            // The page before: the line that was first stays on the screen.
            let shown = usize::try_from(before.0 - window.start).unwrap_or(0);
            let start = window.bytes.get(..shown.min(window.bytes.len()));
            let lines = start
                .unwrap_or_default()
                .iter()
                .filter(|byte| **byte == b'\n');
            self.scroll = lines.count().min(self.last());
        } else {
            self.scroll = 0;
        }
    }

    fn last(&self) -> usize {
        self.lines.len().saturating_sub(self.height)
    }

    /// Reacts to a key. Returns a part of a log that is to be read, if that is not in memory.
    pub(super) fn key(&mut self, key: KeyEvent) -> Option<Want> {
        let page = self.height.max(2) - 1;
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            return None;
        }
        let at = self.scroll;
        match key.code {
            KeyCode::Tab | KeyCode::Right => self.show(self.next(1)),
            KeyCode::BackTab | KeyCode::Left => self.show(self.next(self.parts.len() - 1)),
            KeyCode::Char('l') => self.show(Part::Log),
            KeyCode::Char('s') if self.part == Part::Log => {
                self.std = !self.std;
                self.reset();
            }
            KeyCode::Char('f') if self.part == Part::Log => self.follow = !self.follow,
            KeyCode::Char('r') => self.read = None,
            KeyCode::Up | KeyCode::Char('k') => return self.scroll_to(at.checked_sub(1)),
            KeyCode::Down | KeyCode::Char('j') => return self.scroll_to(Some(at + 1)),
            KeyCode::PageUp => {
                return self.scroll_to(match at {
                    0 => None,
                    at => Some(at.saturating_sub(page)),
                });
            }
            KeyCode::PageDown | KeyCode::Char(' ') => return self.scroll_to(Some(at + page)),
            KeyCode::Home | KeyCode::Char('g') => {
                self.scroll = 0;
                self.follow = false;
                if self.part == Part::Log && self.window.0 > 0 {
                    self.to_start = true;
                    return Some(self.wanted(Some(0)));
                }
            }
            KeyCode::End | KeyCode::Char('G') => {
                self.scroll = self.last();
                if self.part == Part::Log && self.window.1 < self.window.2 {
                    return Some(self.wanted(None));
                }
            }
            _ => {}
        }
        None
    }

    /// Reacts to the mouse.
    pub(super) fn mouse(&mut self, mouse: MouseEvent) -> Option<Want> {
        match mouse.kind {
            MouseEventKind::ScrollUp => self.scroll_to(match self.scroll {
                0 => None,
                at => Some(at.saturating_sub(3)),
            }),
            MouseEventKind::ScrollDown => self.scroll_to(Some(self.scroll + 3)),
            _ => None,
        }
    }

    /// Scrolls to a line; `None` is the one before the first. Returns what is to be read then.
    fn scroll_to(&mut self, line: Option<usize>) -> Option<Want> {
        let is_log = self.part == Part::Log;
        match line {
            None if is_log && self.window.0 > 0 => {
                self.follow = false;
                let from = self.window.0.saturating_sub(LOG_MAX - LOG_OVERLAP);
                return Some(self.wanted(Some(from)));
            }
            None => {}
            Some(line) if line > self.last() && is_log && self.window.1 < self.window.2 => {
                let from = self.window.1.saturating_sub(LOG_OVERLAP);
                return Some(self.wanted(Some(from)));
            }
            Some(line) => {
                self.follow &= line >= self.scroll;
                self.scroll = line.min(self.last());
            }
        }
        None
    }

    fn next(&self, by: usize) -> Part {
        let all = self.parts;
        let at = all.iter().position(|part| *part == self.part).unwrap_or(0);
        all.get((at + by) % all.len()).copied().unwrap_or(self.part)
    }

    /// Draws the job. `summary` makes the lines of the first part.
    pub(super) fn draw(
        &mut self,
        (buffer, area): Canvas<'_>,
        theme: Theme,
        summary: impl FnOnce(&JobId) -> Vec<(String, Tone)>,
    ) {
        line(
            (&mut *buffer, area),
            0,
            &self.job.to_string(),
            theme.title(),
        );
        let mut x = area.x;
        for part in self.parts.iter().copied() {
            let style = match part == self.part {
                true => theme.selected(),
                false => theme.style(Tone::Plain),
            };
            let title = format!(" {} ", part.title());
            let width = u16::try_from(title.len()).unwrap_or(0);
            if x + width < area.x + area.width {
                buffer.set_string(x, area.y + 1, &title, style);
            }
            x += width + 1;
        }
        if self.is_summary() {
            self.lines = summary(&self.job);
            self.content = Some(Ok(()));
        }
        let rest = below(area, 3);
        self.height = usize::from(rest.height);
        self.scroll = self.scroll.min(self.last());
        let status = self.status();
        let y = area.y + 2;
        if area.height > 2 {
            line(
                (&mut *buffer, Rect::new(area.x, y, area.width, 1)),
                0,
                &status,
                theme.title(),
            );
        }
        match &self.content {
            None => line((buffer, rest), 0, "reading...", theme.style(Tone::Plain)),
            Some(Err(why)) => {
                line(
                    (buffer, rest),
                    0,
                    &format!("! {why}"),
                    theme.style(Tone::Bad),
                );
            }
            Some(Ok(())) => {
                let shown = self.lines.iter().skip(self.scroll).take(self.height);
                for (y, (text, tone)) in shown.enumerate() {
                    let y = u16::try_from(y).unwrap_or(u16::MAX);
                    line((&mut *buffer, rest), y, text, theme.style(*tone));
                }
            }
        }
    }

    fn status(&self) -> String {
        if self.part != Part::Log {
            return String::new();
        }
        let (start, end, length) = self.window;
        let stream = if self.std {
            "standard output"
        } else {
            "standard error"
        };
        let mut text = format!("{stream}, {}", HumanBytes(length));
        if start > 0 || end < length {
            text.push_str(&format!(
                ", from {} to {}",
                HumanBytes(start),
                HumanBytes(end)
            ));
        }
        text.push_str(match (self.follow, self.runs) {
            (true, true) => ", following (f stops)",
            (false, true) => ", not following (f follows)",
            (_, false) => ", the job has ended",
        });
        text
    }
}

fn listed(files: &[JobFile], more: bool) -> Vec<(String, Tone)> {
    let mut lines: Vec<(String, Tone)> = files
        .iter()
        .map(|file| {
            let target = file.target.as_ref();
            let target = target.map_or_else(String::new, |to| format!(" -> {}", to.display()));
            let size = HumanBytes(file.bytes).to_string();
            let text = format!("{size:>12}  {}{target}", file.path.display());
            (text, Tone::Plain)
        })
        .collect();
    if more {
        let text = "some files are not listed".to_owned();
        lines.push((text, Tone::Warning));
    }
    if lines.is_empty() {
        lines.push(("no files".to_owned(), Tone::Plain));
    }
    lines
}
