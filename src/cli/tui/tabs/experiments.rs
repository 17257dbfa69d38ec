//! The tab of experiments: their runs, and how the jobs of each ended.

use std::ffi::OsString;

use crossterm::event::{KeyCode, KeyEvent, MouseEvent};

use super::super::list::{Cells, Hit, List, ListColumn};
use super::super::model::Model;
use super::super::request::Request;
use super::{Canvas, below, line, loading, unread};
use crate::archive::experiments::copies::{ExperimentCopies, RunCopies, RunProgress};
use crate::cli::style::{Tone, local};

/// The tab.
#[derive(Debug, Default)]
pub(in crate::cli::tui) struct ExperimentsTab {
    list: List,
}

/// The runs, the newest of each experiment first.
fn runs(model: &Model) -> Vec<(&ExperimentCopies, &RunCopies)> {
    let found = model.experiments.iter().flat_map(|answer| &answer.found);
    let runs = found.flat_map(|experiment| {
        let runs = experiment.runs.iter().rev();
        runs.map(move |run| (experiment, run))
    });
    runs.collect()
}

impl ExperimentsTab {
    /// Reacts to a key.
    pub(in crate::cli::tui) fn key(&mut self, key: KeyEvent, model: &Model) -> Option<Request> {
        let runs = runs(model);
        if self.list.key(key, runs.len()) {
            return None;
        }
        let (experiment, run) = runs.get(self.list.selected)?;
        match key.code {
            KeyCode::Enter => Some(Request::Experiment(experiment.id.clone())),
            KeyCode::Char('y') => Some(Request::CopyRun(
                experiment.id.clone(),
                OsString::from(run.id.as_os_str()),
            )),
            KeyCode::Char('f') => {
                let session = model.session.as_ref()?;
                let path = session.opened.view.primary_path();
                let path = path.join("experiments").join(&experiment.id);
                let path = path.join(run.id.as_os_str());
                Some(Request::Copy(path.to_string_lossy().into_owned()))
            }
            _ => None,
        }
    }

    /// Reacts to the mouse.
    pub(in crate::cli::tui) fn mouse(
        &mut self,
        mouse: MouseEvent,
        model: &Model,
    ) -> Option<Request> {
        let runs = runs(model);
        match self.list.mouse(mouse, runs.len())? {
            Hit::Selected => {
                let (experiment, _) = runs.get(self.list.selected)?;
                Some(Request::Experiment(experiment.id.clone()))
            }
            _ => None,
        }
    }

    /// Draws the tab.
    pub(in crate::cli::tui) fn draw(&mut self, (buffer, area): Canvas<'_>, model: &Model) {
        let theme = model.theme;
        let Some(answer) = &model.experiments else {
            return loading((buffer, area), "the experiments", model.started);
        };
        let area = unread((buffer, area), theme, &answer.unread);
        let runs = runs(model);
        let (experiments, count) = (answer.found.len(), runs.len());
        let text = format!("{experiments} experiments, {count} runs");
        let text = match (experiments, count) {
            (0, _) => "no experiments".to_owned(),
            (1, 1) => "1 experiment, 1 run".to_owned(),
            (1, _) => text.replacen("1 experiments", "1 experiment", 1),
            _ => text,
        };
        line((buffer, area), 0, &text, theme.title());
        let columns = [
            ListColumn::rest("EXPERIMENT"),
            ListColumn::text("RUN", 17),
            ListColumn::text("STATE", 11),
            ListColumn::number("JOBS", 6),
            ListColumn::number("DONE", 6),
            ListColumn::number("FAILED", 6),
            ListColumn::text("WHERE", 16),
        ];
        let row = |index: usize| match runs.get(index) {
            Some((experiment, run)) => (cells(experiment, run, model), false),
            None => (Vec::new(), false),
        };
        let mut place = below(area, 2);
        place.height = place.height.saturating_sub(1);
        self.list.draw(
            (&mut *buffer, place, theme),
            &columns,
            None,
            runs.len(),
            row,
        );
        if let Some((experiment, run)) = runs.get(self.list.selected) {
            let status = run.status.as_ref();
            let started = status.and_then(|status| status.started).map(local);
            let host = status.and_then(|status| status.hostname.clone());
            let places = run.locations.iter().map(|it| model.label(*it));
            let places: Vec<String> = places.collect();
            let mut text = format!("{}/{}", experiment.id.display(), run.id);
            for (what, value) in [("started", started), ("on", host)] {
                if let Some(value) = value {
                    text.push_str(&format!(", {what} {value}"));
                }
            }
            text.push_str(&format!(", in {}", places.join(", ")));
            let y = area.height.saturating_sub(1);
            line((buffer, area), y, &text, theme.title());
        }
    }
}

fn cells(experiment: &ExperimentCopies, run: &RunCopies, model: &Model) -> Cells {
    let tone = match run.state {
        RunProgress::Done => Tone::Good,
        RunProgress::Failed => Tone::Bad,
        RunProgress::Running | RunProgress::Interrupted => Tone::Warning,
        RunProgress::Unknown => Tone::Plain,
    };
    let is_current = experiment.current.as_ref() == Some(&run.id);
    let current = if is_current { " *" } else { "" };
    let ended = run.ended;
    let failed = ended.map_or(0, |ended| ended.failed);
    let places = run.locations.iter().map(|it| model.places.name(*it));
    let places: Vec<&str> = places.collect();
    vec![
        (experiment.id.to_string_lossy().into_owned(), Tone::Plain),
        (format!("{}{current}", run.id), Tone::Plain),
        (run.state.to_string(), tone),
        (
            run.jobs.map_or_else(|| "?".to_owned(), |it| it.to_string()),
            Tone::Plain,
        ),
        (
            ended.map_or_else(String::new, |it| it.done.to_string()),
            Tone::Plain,
        ),
        (
            ended.map_or_else(String::new, |it| it.failed.to_string()),
            if failed > 0 { Tone::Bad } else { Tone::Plain },
        ),
        (places.join(" + "), Tone::Plain),
    ]
}
