//! The tabs together: their titles in the first line, and the tab that shows.

use std::ops::Range;

use crossterm::event::{KeyEvent, MouseEvent};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use unicode_width::UnicodeWidthStr;

use super::Canvas;
use super::archive::ArchiveTab;
use super::experiments::ExperimentsTab;
use super::folders::FoldersTab;
use super::jobs::JobsTab;
use super::orphans::OrphansTab;
use super::trash::TrashTab;
use crate::cli::style::Tone;
use crate::cli::tui::model::Model;
use crate::cli::tui::request::Request;
use crate::cli::tui::theme::{Theme, cut, safe};
use crate::cli::tui::watchers::Tab;

/// All tabs, one of which shows.
pub(in crate::cli::tui) struct TabBar {
    pub(in crate::cli::tui) shown: Tab,
    pub(in crate::cli::tui) jobs: JobsTab,
    folders: FoldersTab,
    archive: ArchiveTab,
    experiments: ExperimentsTab,
    orphans: OrphansTab,
    trash: TrashTab,
    /// The columns of the titles as they were drawn last.
    titles: Vec<(Range<u16>, Tab)>,
}

impl TabBar {
    pub(in crate::cli::tui) fn new() -> TabBar {
        TabBar {
            shown: Tab::Jobs,
            jobs: JobsTab::default(),
            folders: FoldersTab::default(),
            archive: ArchiveTab::default(),
            experiments: ExperimentsTab::default(),
            orphans: OrphansTab::default(),
            trash: TrashTab::default(),
            titles: Vec::new(),
        }
    }

    /// Whether the keys are text of a filter.
    pub(in crate::cli::tui) fn is_editing(&self) -> bool {
        self.shown == Tab::Jobs && self.jobs.is_editing()
    }

    /// Reacts to a key in the tab that shows.
    pub(in crate::cli::tui) fn key(&mut self, key: KeyEvent, model: &Model) -> Option<Request> {
        match self.shown {
            Tab::Jobs => self.jobs.key(key, model),
            Tab::Folders => self.folders.key(key, model),
            Tab::Archive => {
                self.archive.key(key);
                None
            }
            Tab::Experiments => self.experiments.key(key, model),
            Tab::Orphans => self.orphans.key(key, model),
            Tab::Trash => self.trash.key(key, model),
        }
    }

    /// Reacts to the mouse in the tab that shows.
    pub(in crate::cli::tui) fn mouse(
        &mut self,
        mouse: MouseEvent,
        model: &Model,
    ) -> Option<Request> {
        match self.shown {
            Tab::Jobs => return self.jobs.mouse(mouse, model),
            Tab::Experiments => return self.experiments.mouse(mouse, model),
            Tab::Folders => self.folders.mouse(mouse, model),
            Tab::Archive => self.archive.mouse(mouse),
            Tab::Orphans => self.orphans.mouse(mouse, model),
            Tab::Trash => self.trash.mouse(mouse, model),
        }
        None
    }

    /// The tab whose title is in a column.
    pub(in crate::cli::tui) fn title_at(&self, column: u16) -> Option<Tab> {
        let mut titles = self.titles.iter();
        let hit = titles.find(|(place, _)| place.contains(&column));
        hit.map(|(_, tab)| *tab)
    }

    /// Draws the tab that shows.
    pub(in crate::cli::tui) fn draw(&mut self, canvas: Canvas<'_>, model: &Model) {
        match self.shown {
            Tab::Jobs => self.jobs.draw(canvas, model),
            Tab::Folders => self.folders.draw(canvas, model),
            Tab::Archive => self.archive.draw(canvas, model.theme, &model.reported),
            Tab::Experiments => self.experiments.draw(canvas, model),
            Tab::Orphans => self.orphans.draw(canvas, model),
            Tab::Trash => self.trash.draw(canvas, model),
        }
    }

    /// Draws the titles and the workspace's name in the first line of an area.
    pub(in crate::cli::tui) fn draw_titles(
        &mut self,
        buffer: &mut Buffer,
        area: Rect,
        model: &Model,
    ) {
        let titles = Tab::ALL.map(|tab| (tab.title(), has_alarm(tab, model)));
        let name = model.session.as_ref();
        let name = name.map_or_else(String::new, |session| {
            let workspace = &session.opened.workspace;
            match workspace.id.is_empty() {
                true => workspace.path.to_string_lossy().into_owned(),
                false => workspace.id.clone(),
            }
        });
        let shown = self.shown as usize;
        let places = draw_titles((buffer, area), model.theme, &titles, shown, &name);
        self.titles = places.into_iter().zip(Tab::ALL).collect();
    }
}

/// Draws titles, which may have an alarm, and a name in the first line of an area. Returns the columns of those that have room.
pub(in crate::cli::tui) fn draw_titles(
    (buffer, area): Canvas<'_>,
    theme: Theme,
    titles: &[(&str, bool)],
    shown: usize,
    name: &str,
) -> Vec<Range<u16>> {
    let widths = titles
        .iter()
        .map(|(title, alarm)| " 1  ".len() + title.width() + usize::from(*alarm));
    // In a narrow terminal, they are closer together.
    let end = match widths.sum::<usize>() > usize::from(area.width) {
        true => "",
        false => " ",
    };
    let mut x = area.x;
    let mut places = Vec::new();
    for (index, (title, alarm)) in titles.iter().enumerate() {
        let sign = if *alarm { "!" } else { "" };
        let text = format!(" {} {title}{sign}{end}", index + 1);
        let width = u16::try_from(text.width()).unwrap_or(0);
        if x + width > area.x + area.width {
            break;
        }
        let style = match (index == shown, alarm) {
            (true, _) => theme.selected(),
            (false, false) => theme.style(Tone::Plain),
            (false, true) => theme.style(Tone::Bad),
        };
        buffer.set_string(x, area.y, &text, style);
        places.push(x..x + width);
        x += width;
    }
    let room = usize::from((area.x + area.width).saturating_sub(x + 2));
    let name = safe(name);
    let name = cut(&name, room);
    let width = u16::try_from(name.width()).unwrap_or(0);
    if width > 0 {
        let x = area.x + area.width - width;
        buffer.set_string(x, area.y, &name, theme.title());
    }
    places
}

/// Whether something in a tab needs a look.
fn has_alarm(tab: Tab, model: &Model) -> bool {
    match tab {
        Tab::Folders => model.reported.has_folder_alarm(),
        Tab::Archive => model.reported.has_archive_alarm(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn titles_are_closer_together_where_there_is_little_room() {
        let titles = [("Jobs", false), ("Folders", true)];
        let drawn = |width| {
            let area = Rect::new(0, 0, width, 1);
            let mut buffer = Buffer::empty(area);
            let theme = Theme::of_terminal();
            let places = draw_titles((&mut buffer, area), theme, &titles, 0, "");
            let cells = buffer.content().iter().map(|cell| cell.symbol());
            (cells.collect::<String>(), places)
        };
        assert_eq!(drawn(20).0, " 1 Jobs  2 Folders! ");
        assert_eq!(
            drawn(19),
            (" 1 Jobs 2 Folders! ".to_owned(), vec![0..7, 7..18])
        );
        let (text, places) = drawn(17);
        assert_eq!((text.trim_end(), places.len()), (" 1 Jobs", 1));
    }
}
