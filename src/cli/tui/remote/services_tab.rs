//! The tab of services, such as TensorBoard.

use crossterm::event::{KeyCode, KeyEvent, MouseEvent};

use super::model::RemoteModel;
use super::request::RemoteRequest;
use crate::cli::style::Tone;
use crate::cli::tui::list::{List, ListColumn};
use crate::cli::tui::tabs::{Canvas, below, line};

/// The tab.
#[derive(Debug, Default)]
pub(super) struct ServicesTab {
    list: List,
}

impl ServicesTab {
    /// Reacts to a key.
    pub(super) fn key(&mut self, key: KeyEvent, model: &RemoteModel) -> Option<RemoteRequest> {
        let services = model.services.as_ref()?;
        if self.list.key(key, services.len()) {
            return None;
        }
        let service = services.get(self.list.selected)?;
        match key.code {
            KeyCode::Char('u' | 'f') => Some(match &service.url {
                Some(url) => RemoteRequest::Copy(url.clone()),
                None => {
                    RemoteRequest::Say("the server knows no address of this service".to_owned())
                }
            }),
            _ => None,
        }
    }

    /// Reacts to the mouse.
    pub(super) fn mouse(&mut self, mouse: MouseEvent, model: &RemoteModel) {
        if let Some(services) = &model.services {
            self.list.mouse(mouse, services.len());
        }
    }

    /// Draws the tab.
    pub(super) fn draw(&mut self, (buffer, area): Canvas<'_>, model: &RemoteModel) {
        let Some(services) = &model.services else {
            return;
        };
        let theme = model.theme;
        let text = match services.len() {
            0 => "no services".to_owned(),
            1 => "1 service".to_owned(),
            count => format!("{count} services"),
        };
        line((&mut *buffer, area), 0, &text, theme.title());
        // Not the state that the server reports: only the process of the experiment knows whether a service runs.
        let columns = [
            ListColumn::rest("SERVICE"),
            ListColumn::text("EXPERIMENT", 20),
            ListColumn::text("RUN", 17),
            ListColumn::text("ADDRESS", 32),
        ];
        let row = |index: usize| {
            let cells = services.get(index).map(|service| {
                let name = match service.description.is_empty() {
                    true => &service.id,
                    false => &service.description,
                };
                let address = service.url.clone().unwrap_or_default();
                let cells = [name, &service.experiment, &service.run, &address];
                cells.map(|text| (text.clone(), Tone::Plain)).to_vec()
            });
            (cells.unwrap_or_default(), false)
        };
        let canvas = (buffer, below(area, 2), theme);
        self.list.draw(canvas, &columns, None, services.len(), row);
    }
}
