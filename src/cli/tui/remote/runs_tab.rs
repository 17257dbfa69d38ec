//! The tab of experiments: their runs, and how the jobs of each ended.

use crossterm::event::{KeyCode, KeyEvent, MouseEvent};

use super::model::RemoteModel;
use super::request::RemoteRequest;
use crate::cli::style::{Tone, local};
use crate::cli::tui::list::{Cells, Hit, List, ListColumn};
use crate::cli::tui::tabs::{Canvas, below, line};
use crate::remote::monitor::model::RemoteRun;
use crate::workspace::layout::EXPERIMENTS;

/// The tab.
#[derive(Debug, Default)]
pub(super) struct RemoteRunsTab {
    list: List,
}

fn open(run: &RemoteRun) -> RemoteRequest {
    RemoteRequest::Run(run.experiment.clone(), run.run.clone())
}

impl RemoteRunsTab {
    /// Reacts to a key.
    pub(super) fn key(&mut self, key: KeyEvent, model: &RemoteModel) -> Option<RemoteRequest> {
        let runs = model.all_runs();
        if self.list.key(key, runs.len()) {
            return None;
        }
        let (run, _) = runs.get(self.list.selected)?;
        match key.code {
            KeyCode::Enter => Some(open(run)),
            KeyCode::Char('f') => {
                let path = model.workdir.join(EXPERIMENTS).join(&run.experiment);
                let path = path.join(&run.run);
                Some(RemoteRequest::Copy(path.to_string_lossy().into_owned()))
            }
            _ => None,
        }
    }

    /// Reacts to the mouse.
    pub(super) fn mouse(
        &mut self,
        mouse: MouseEvent,
        model: &RemoteModel,
    ) -> Option<RemoteRequest> {
        let runs = model.all_runs();
        match self.list.mouse(mouse, runs.len())? {
            Hit::Selected => runs.get(self.list.selected).map(|(run, _)| open(run)),
            _ => None,
        }
    }

    /// Draws the tab.
    pub(super) fn draw(&mut self, (buffer, area): Canvas<'_>, model: &RemoteModel) {
        let Some(newest) = &model.newest else {
            return;
        };
        let theme = model.theme;
        let runs = model.all_runs();
        let text = match (newest.len(), runs.len()) {
            (0, _) => "no experiments".to_owned(),
            (1, 1) => "1 experiment, 1 run".to_owned(),
            (1, runs) => format!("1 experiment, {runs} runs"),
            (experiments, runs) => format!("{experiments} experiments, {runs} runs"),
        };
        line((&mut *buffer, area), 0, &text, theme.title());
        let columns = [
            ListColumn::rest("EXPERIMENT"),
            ListColumn::text("RUN", 17),
            ListColumn::text("STATE", 11),
            ListColumn::number("JOBS", 6),
            ListColumn::number("DONE", 6),
            ListColumn::number("FAILED", 6),
        ];
        let row = |index: usize| {
            let run = runs.get(index);
            (
                run.map_or_else(Vec::new, |(run, newest)| cells(run, *newest)),
                false,
            )
        };
        let mut place = below(area, 2);
        place.height = place.height.saturating_sub(1);
        let canvas = (&mut *buffer, place, theme);
        self.list.draw(canvas, &columns, None, runs.len(), row);
        if let Some((run, _)) = runs.get(self.list.selected) {
            let mut text = format!("{}/{}", run.experiment, run.run);
            let started = run.started.map(local);
            for (what, value) in [("started", started), ("on", run.hostname.clone())] {
                if let Some(value) = value {
                    text.push_str(&format!(", {what} {value}"));
                }
            }
            let y = area.height.saturating_sub(1);
            line((buffer, area), y, &text, theme.title());
        }
    }
}

fn cells(run: &RemoteRun, newest: bool) -> Cells {
    let tone = match run.status.as_str() {
        "done" | "completed" => Tone::Good,
        "failed" | "error" => Tone::Bad,
        "running" => Tone::Warning,
        _ => Tone::Plain,
    };
    let sign = if newest { " *" } else { "" };
    let failed = if run.failed > 0 {
        Tone::Bad
    } else {
        Tone::Plain
    };
    vec![
        (run.experiment.clone(), Tone::Plain),
        (format!("{}{sign}", run.run), Tone::Plain),
        (run.status.clone(), tone),
        (run.jobs.to_string(), Tone::Plain),
        (run.done.to_string(), Tone::Plain),
        (run.failed.to_string(), failed),
    ]
}
