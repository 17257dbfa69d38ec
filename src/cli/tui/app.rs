//! The dashboard of a workspace: tabs, an open job, dialogs, and the action under way.

use std::ffi::OsString;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::Sender;
use ratatui::Frame;
use ratatui::layout::Rect;

use super::bottom;
use super::detail::Detail;
use super::dialog::Dialog;
use super::event::Event;
use super::event_loop::Dashboard;
use super::help;
use super::job_summary::job_summary;
use super::messages::Messages;
use super::model::Model;
use super::order::Order;
use super::read::Want;
use super::tabs::tab_bar::TabBar;
use super::tabs::{below, line};
use super::theme::Theme;
use super::watchers::{Tab, WatchResult, Watchers};
use crate::archive::job_list::JobLocation;
use crate::cli::Global;
use crate::cli::jobs::session::{Session, Which};
use crate::cli::style::Tone;
use crate::transfer::Progress;

/// Up to so many jobs are measured without being asked.
const MEASURED_MAX: usize = 2000;

/// How often it is drawn while nothing happens, and while an action or a log goes on.
const REDRAW_INTERVAL: Duration = Duration::from_secs(1);
const BUSY_REDRAW_INTERVAL: Duration = Duration::from_millis(200);

/// What a dialog is for.
pub(super) enum DialogPurpose {
    Show,
    Plan(u64),
    Confirm(Order),
    /// To which workspace a run is copied.
    Choose(OsString, OsString, Vec<String>),
    Quit,
}

/// The dashboard.
pub(super) struct App {
    pub(super) model: Model,
    pub(super) which: Which,
    pub(super) global: Global,
    pub(super) events: Sender<Event<WatchResult>>,
    pub(super) watchers: Option<Watchers>,
    pub(super) tabs: TabBar,
    pub(super) detail: Option<Detail>,
    /// A part of a log that is to be read as soon as the reader has time.
    pub(super) wanted: Option<Want>,
    pub(super) dialog: Option<(Dialog, DialogPurpose)>,
    /// The progress of the question what an action would do.
    pub(super) planning: Option<Arc<Progress>>,
    pub(super) plans: u64,
    pub(super) messages: Messages,
    /// It ends when the action under way has ended.
    pub(super) quits: bool,
    pub(super) is_ended: bool,
    /// Why the workspace could not be opened.
    pub(super) failed: Option<anyhow::Error>,
    pub(super) area: Rect,
}

impl App {
    pub(super) fn new(which: Which, global: Global, events: Sender<Event<WatchResult>>) -> App {
        App {
            model: Model::new(Theme::of_terminal()),
            which,
            global,
            events,
            watchers: None,
            tabs: TabBar::new(),
            detail: None,
            wanted: None,
            dialog: None,
            planning: None,
            plans: 0,
            messages: Messages::default(),
            quits: false,
            is_ended: false,
            failed: None,
            area: Rect::default(),
        }
    }

    pub(super) fn say(&mut self, text: String, tone: Tone) {
        self.messages.say(text, tone);
    }

    pub(super) fn show(&mut self, tab: Tab) {
        self.tabs.shown = tab;
        self.detail = None;
        if let Some(watchers) = &self.watchers {
            watchers.show(tab);
        }
    }

    fn found(&mut self, found: WatchResult) {
        match found {
            WatchResult::Opened(Ok(session)) => self.opened(session),
            WatchResult::Opened(Err(error)) => {
                self.failed = Some(error);
                self.is_ended = true;
            }
            WatchResult::Jobs(jobs) => {
                self.model.set_jobs(jobs);
                self.measure_if_small();
            }
            WatchResult::Status(status) => self.model.reported.set(status),
            WatchResult::Experiments(found) => self.model.experiments = Some(found),
            WatchResult::Orphans(found) => self.model.orphans = Some(Arc::new(found)),
            WatchResult::Trash(found) => self.model.trash = Some(found),
            WatchResult::Looked(job, copies) => self.model.set_looked(job, copies),
            WatchResult::Read(want, content) => {
                if let Some(detail) = &mut self.detail {
                    detail.set(&want, content);
                }
            }
            WatchResult::Planned(number, order, plan) => self.planned(number, order, plan),
            WatchResult::Acting(progress) => {
                if self.quits {
                    progress.cancel();
                }
                if let Some(working) = &mut self.model.working {
                    working.progress = progress;
                }
            }
            WatchResult::Acted(outcome) => self.acted(outcome),
        }
    }

    fn opened(&mut self, session: Arc<Session>) {
        self.model.places = super::safety::Places::of(&session.opened.view);
        let select = &self.which.select;
        match Watchers::start(&session, select, &self.global, &self.events) {
            Ok(watchers) => {
                watchers.show(self.tabs.shown);
                self.watchers = Some(watchers);
                self.model.session = Some(session);
            }
            Err(error) => {
                self.failed = Some(anyhow::Error::from(error).context("cannot start a thread"));
                self.is_ended = true;
            }
        }
    }

    /// Measures jobs whose sizes are not known, if they are few or the list is sorted by size.
    fn measure_if_small(&mut self) {
        let (Some(jobs), Some(watchers)) = (&self.model.jobs, &self.watchers) else {
            return;
        };
        let wants = jobs.rows.len() <= MEASURED_MAX || self.tabs.jobs.wants_sizes();
        let mut rows = jobs.rows.iter();
        let lacks =
            rows.any(|row| row.bytes.is_none() && matches!(row.location, JobLocation::At(_)));
        if wants && lacks {
            // At once after the first list, then with each.
            watchers.measure(self.model.generation == 1);
        }
    }

    /// Asks the threads for what shows and is not known.
    fn ask(&mut self) {
        let Some(watchers) = &self.watchers else {
            return;
        };
        match &mut self.detail {
            Some(detail) => {
                if self.model.is_stale(&detail.job) {
                    watchers.look(vec![detail.job.clone()]);
                }
                if let Some(want) = self.wanted.take().or_else(|| detail.want()) {
                    match watchers.reader.ask(want.clone()) {
                        true => detail.set_asked(),
                        false => self.wanted = Some(want).filter(|want| want.from.is_some()),
                    }
                }
            }
            None if self.tabs.shown == Tab::Jobs => {
                watchers.look(self.tabs.jobs.visible(&self.model))
            }
            None => {}
        }
    }
}

impl Dashboard for App {
    type Found = WatchResult;

    fn handle(&mut self, event: Event<WatchResult>) {
        match event {
            Event::Key(key) => self.key(key),
            Event::Mouse(mouse) => self.mouse(mouse),
            Event::Paste(text) => self.tabs.jobs.paste(&text),
            Event::Message(text) => {
                let text = text.trim_start_matches("xpmfs: ").to_owned();
                self.say(text, Tone::Warning);
            }
            Event::Found(found) => self.found(found),
            Event::Resized | Event::InputEnded | Event::Signal(_) | Event::Continued => {}
        }
    }

    fn draw(&mut self, frame: &mut Frame<'_>) {
        self.area = frame.area();
        let area = self.area;
        if area.width < 20 || area.height < 6 {
            line(
                (frame.buffer_mut(), area),
                0,
                "too small",
                self.model.theme.title(),
            );
            return;
        }
        self.tabs.draw_titles(frame.buffer_mut(), area, &self.model);
        let buffer = frame.buffer_mut();
        let under_way = self.under_way().map(|text| (text, Tone::Warning));
        let news = under_way.into_iter().chain(self.messages.shown());
        let keys = match &self.detail {
            Some(_) => help::JOB_HINTS,
            None => help::hints(self.tabs.shown),
        };
        let canvas = (&mut *buffer, below(area, 1));
        let middle = bottom::draw(canvas, self.model.theme, news, keys);
        let (model, canvas) = (&self.model, (&mut *buffer, middle));
        match &mut self.detail {
            Some(detail) => detail.draw(canvas, model.theme, |job| job_summary(job, model)),
            None => self.tabs.draw(canvas, model),
        }
        if let Some((dialog, _)) = &mut self.dialog {
            dialog.draw(buffer, area, self.model.theme);
        }
        self.ask();
    }

    fn redraw_interval(&self) -> Duration {
        match self.model.working.is_some() || self.detail.is_some() || self.wanted.is_some() {
            true => BUSY_REDRAW_INTERVAL,
            false => REDRAW_INTERVAL,
        }
    }

    fn is_ended(&self) -> bool {
        self.is_ended
    }
}
