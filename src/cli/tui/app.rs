//! The dashboard of a workspace: tabs, an open job, dialogs, and the action under way.

use std::ffi::OsString;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use crossterm::event::{KeyCode, KeyEvent, KeyModifiers, MouseButton, MouseEvent, MouseEventKind};
use indicatif::HumanBytes;
use ratatui::Frame;
use ratatui::layout::Rect;

use super::actions;
use super::clipboard;
use super::detail::{Detail, copies};
use super::dialog::{Dialog, DialogAnswer};
use super::event::Event;
use super::event_loop::Dashboard;
use super::help;
use super::messages::Messages;
use super::model::{Model, Working};
use super::order::Order;
use super::read::Want;
use super::request::{Part, Request};
use super::tabs::archive::time_left;
use super::tabs::tab_bar::TabBar;
use super::tabs::{below, line};
use super::theme::Theme;
use super::watchers::{Tab, WatchResult, Watchers};
use crate::archive::job_list::Place;
use crate::cli::Global;
use crate::cli::jobs::session::{Session, Which};
use crate::cli::sentence;
use crate::cli::style::Tone;
use crate::settings::Settings;
use crate::transfer::Progress;

/// Up to so many jobs are measured without being asked.
const MEASURED_MAX: usize = 2000;

/// How often it is drawn while nothing happens, and while an action or a log goes on.
const REDRAW_INTERVAL: Duration = Duration::from_secs(1);
const BUSY_REDRAW_INTERVAL: Duration = Duration::from_millis(200);

/// What a dialog is for.
enum Purpose {
    Show,
    Plan(u64),
    Confirm(Order),
    /// To which workspace a run is copied.
    Choose(OsString, OsString, Vec<String>),
    Quit,
}

/// The dashboard.
pub(super) struct App {
    model: Model,
    which: Which,
    global: Global,
    events: Sender<Event<WatchResult>>,
    watchers: Option<Watchers>,
    tabs: TabBar,
    detail: Option<Detail>,
    /// A part of a log that is to be read as soon as the reader has time.
    wanted: Option<Want>,
    dialog: Option<(Dialog, Purpose)>,
    /// The progress of the question what an action would do.
    planning: Option<Arc<Progress>>,
    plans: u64,
    messages: Messages,
    /// It ends when the action under way has ended.
    quits: bool,
    is_ended: bool,
    /// Why the workspace could not be opened.
    pub(super) failed: Option<anyhow::Error>,
    area: Rect,
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

    fn say(&mut self, text: String, tone: Tone) {
        self.messages.say(text, tone);
    }

    fn show(&mut self, tab: Tab) {
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
            WatchResult::Status(status) => self.model.status = Some(status),
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
        let lacks = rows.any(|row| row.bytes.is_none() && matches!(row.place, Place::At(_)));
        if wants && lacks {
            // At once after the first list, then with each.
            watchers.measure(self.model.generation == 1);
        }
    }

    fn plan(&mut self, order: Order) {
        if self.model.working.is_some() {
            let text = "one action at a time: wait until the other one has ended";
            return self.say(text.to_owned(), Tone::Warning);
        }
        self.plans += 1;
        let number = self.plans;
        let title = order.under_way();
        let lines = vec!["finding out what this would do, and how many bytes...".to_owned()];
        let progress = self.start(order, move |session, order, global| {
            let plan = actions::plan(session, order, global);
            WatchResult::Planned(
                number,
                order.clone(),
                plan.map_err(|error| sentence(&error)),
            )
        });
        self.planning = progress;
        self.dialog = Some((Dialog::wait(title, lines), Purpose::Plan(number)));
    }

    /// Does something with an order in a thread, with a session of its own, as a command would.
    fn start(
        &mut self,
        order: Order,
        work: impl FnOnce(&Session, &Order, &Global) -> WatchResult + Send + 'static,
    ) -> Option<Arc<Progress>> {
        let (which, global, events) =
            (self.which.clone(), self.global.clone(), self.events.clone());
        let cancel = Arc::new(Progress::new());
        let given = cancel.clone();
        let spawned = std::thread::Builder::new()
            .name("xpmfs-action".to_owned())
            .spawn(move || {
                let found = match Session::open(&which, &[], &global) {
                    Ok(mut session) => {
                        session.progress = given.clone();
                        let _ = events.send(Event::Found(WatchResult::Acting(given)));
                        work(&session, &order, &global)
                    }
                    Err(error) => WatchResult::Acted(Err(sentence(&error))),
                };
                let _ = events.send(Event::Found(found));
            });
        match spawned {
            Ok(_) => Some(cancel),
            Err(error) => {
                self.say(format!("cannot start a thread: {error}"), Tone::Bad);
                None
            }
        }
    }

    fn planned(&mut self, number: u64, order: Order, plan: Result<actions::ActionPlan, String>) {
        let is_wanted =
            matches!(&self.dialog, Some((_, Purpose::Plan(wanted))) if *wanted == number);
        if !is_wanted {
            return;
        }
        self.planning = None;
        let title = order.under_way();
        let plan = plan.map(|mut plan| {
            plan.lines.extend(self.about(&order));
            plan
        });
        self.dialog = Some(match plan {
            Ok(plan) if plan.has_work => (
                Dialog::confirm(title, plan.lines, &plan.reasons),
                Purpose::Confirm(order),
            ),
            Ok(plan) => (Dialog::text(title, plan.lines), Purpose::Show),
            Err(why) => (Dialog::text(title, vec![why]), Purpose::Show),
        });
    }

    /// Which job an action is for; of several, how many do not show now.
    fn about(&self, order: &Order) -> Option<String> {
        let Order::Jobs(_, ids) = order else {
            return None;
        };
        match (ids.as_slice(), &self.model.jobs) {
            ([job], _) => Some(format!("The job: {job}")),
            (several, Some(jobs)) => match self.tabs.jobs.hidden(jobs, several.iter()) {
                0 => None,
                hidden => Some(format!(
                    "{hidden} of these jobs are marked and do not show now."
                )),
            },
            _ => None,
        }
    }

    fn act(&mut self, order: Order) {
        let what = order.under_way();
        let progress = self.start(order, |session, order, global| {
            let outcome = actions::act(session, order, global);
            WatchResult::Acted(outcome.map_err(|error| sentence(&error)))
        });
        if let Some(progress) = progress {
            self.model.working = Some(Working {
                what,
                progress,
                since: Instant::now(),
                stops: false,
            });
        }
    }

    fn acted(&mut self, outcome: Result<actions::ActionOutcome, String>) {
        match &self.dialog {
            // The question what an action would do could not be asked.
            Some((_, Purpose::Plan(_))) => self.dialog = None,
            // What was to be stopped before the end has ended by itself.
            Some((_, Purpose::Quit)) => self.is_ended = true,
            _ => {}
        }
        let working = self.model.working.take();
        let what = working.map_or_else(String::new, |working| working.what);
        match outcome {
            Ok(outcome) => {
                let tone = if outcome.failed {
                    Tone::Bad
                } else {
                    Tone::Good
                };
                self.say(outcome.summary.clone(), tone);
                if !outcome.lines.is_empty() {
                    let lines = [vec![outcome.summary, String::new()], outcome.lines].concat();
                    self.dialog = Some((Dialog::text(what, lines), Purpose::Show));
                }
            }
            Err(why) => self.say(why, Tone::Bad),
        }
        self.model.forget_looked();
        if let Some(watchers) = &self.watchers {
            watchers.refresh();
        }
        self.is_ended |= self.quits;
    }

    fn request(&mut self, request: Request) {
        match request {
            Request::Open(job, part) => self.detail = Some(Detail::new(job, part, &Part::HERE)),
            Request::Plan(order) => self.plan(order),
            Request::Experiment(id) => {
                self.tabs.jobs.show_experiment(id);
                self.show(Tab::Jobs);
            }
            Request::CopyRun(experiment, run) => self.choose_workspace(experiment, run),
            Request::Copy(text) => {
                clipboard::copy(&text);
                self.say(format!("copied: {text}"), Tone::Plain);
            }
            Request::Say(text) => self.say(text, Tone::Plain),
            Request::Refresh => {
                self.model.forget_looked();
                if let Some(watchers) = &self.watchers {
                    watchers.refresh();
                }
            }
            Request::Measure => {
                if let Some(watchers) = &self.watchers {
                    watchers.measure(true);
                    self.say("measuring all jobs...".to_owned(), Tone::Plain);
                }
            }
        }
    }

    fn choose_workspace(&mut self, experiment: OsString, run: OsString) {
        let settings = match Settings::load(self.global.settings.as_deref()) {
            Ok(settings) => settings,
            Err(error) => return self.say(sentence(&error.into()), Tone::Bad),
        };
        let own = self.model.session.as_ref();
        let own = own.map_or_else(String::new, |it| it.opened.workspace.id.clone());
        let others = settings.workspaces.iter();
        let others = others.filter(|workspace| workspace.id != own);
        let (ids, names): (Vec<String>, Vec<String>) = others
            .map(|workspace| {
                let remote = if workspace.is_remote() {
                    ", remote"
                } else {
                    ""
                };
                let name = format!("{} ({}{remote})", workspace.id, workspace.raw_path);
                (workspace.id.clone(), name)
            })
            .unzip();
        if ids.is_empty() || own.is_empty() {
            let text = "the settings have no other workspace to copy to";
            return self.say(text.to_owned(), Tone::Warning);
        }
        let title = format!("copy {}/{}", experiment.display(), run.display());
        let lines = vec!["Copy the run and its jobs to:".to_owned()];
        let dialog = Dialog::choose(title, lines, names);
        self.dialog = Some((dialog, Purpose::Choose(experiment, run, ids)));
    }

    fn key(&mut self, key: KeyEvent) {
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        if control && key.code == KeyCode::Char('c') {
            return self.interrupt();
        }
        if let Some((dialog, _)) = &mut self.dialog {
            if let Some(answer) = dialog.key(key) {
                self.answer(answer);
            }
            return;
        }
        let editing = self.detail.is_none() && self.tabs.is_editing();
        if !editing && self.own_key(key, control) {
            return;
        }
        if let Some(detail) = &mut self.detail {
            if key.code == KeyCode::Char('f') && detail.part != Part::Log {
                let text = self.model.looked(&detail.job).and_then(|looked| {
                    let mut copies = looked.copies.iter();
                    let served = copies.find(|it| Some(it.location) == looked.served)?;
                    Some(served.path.to_string_lossy().into_owned())
                });
                if let Some(text) = text {
                    self.request(Request::Copy(text));
                }
                return;
            }
            if let Some(want) = detail.key(key) {
                self.wanted = Some(want);
            }
            return;
        }
        let request = self.tabs.key(key, &self.model);
        if let Some(request) = request {
            self.request(request);
        }
    }

    /// Reacts to the keys of all tabs. Returns whether it was one of them.
    fn own_key(&mut self, key: KeyEvent, control: bool) -> bool {
        match key.code {
            _ if control => return false,
            KeyCode::Char('q') => self.quit(),
            KeyCode::Char('?') => {
                let (of, lines) = match &self.detail {
                    Some(_) => ("a job", help::of_a_job()),
                    None => (self.tabs.shown.title(), help::lines(self.tabs.shown)),
                };
                let dialog = Dialog::text(format!("keys: {of}"), lines);
                self.dialog = Some((dialog, Purpose::Show));
            }
            KeyCode::Char('m') => {
                let lines = self.messages.all();
                let dialog = Dialog::text("messages, the last first", lines);
                self.dialog = Some((dialog, Purpose::Show));
            }
            KeyCode::Char('r') if self.detail.is_none() => self.request(Request::Refresh),
            KeyCode::Char(digit @ '1'..='6') => {
                let index = digit as usize - '1' as usize;
                if let Some(tab) = Tab::ALL.get(index) {
                    self.show(*tab);
                }
            }
            KeyCode::Tab | KeyCode::Right if self.detail.is_none() => self.step(1),
            KeyCode::BackTab | KeyCode::Left if self.detail.is_none() => {
                self.step(Tab::ALL.len() - 1);
            }
            KeyCode::Esc => match (self.detail.take(), self.tabs.shown) {
                (Some(_), _) => {}
                (None, Tab::Jobs) if self.tabs.jobs.back() => {}
                (None, Tab::Jobs) => {}
                (None, _) => self.show(Tab::Jobs),
            },
            _ => return false,
        }
        true
    }

    fn step(&mut self, by: usize) {
        let at = self.tabs.shown as usize + by;
        if let Some(tab) = Tab::ALL.get(at % Tab::ALL.len()) {
            self.show(*tab);
        }
    }

    fn quit(&mut self) {
        match &self.model.working {
            None => self.is_ended = true,
            Some(working) => {
                let lines = vec![format!("{} is under way.", working.what)];
                let lines = [lines, vec!["Stop it, and quit?".to_owned()]].concat();
                self.dialog = Some((Dialog::confirm("quit", lines, &[]), Purpose::Quit));
            }
        }
    }

    /// Ends, in order if an action is under way, at once if it was asked for before.
    fn interrupt(&mut self) {
        match &mut self.model.working {
            Some(working) if !working.stops => {
                working.stops = true;
                working.progress.cancel();
                self.quits = true;
                let text = "stopping, then quitting; a second Ctrl+C quits at once";
                self.say(text.to_owned(), Tone::Warning);
            }
            _ => self.is_ended = true,
        }
    }

    fn answer(&mut self, answer: DialogAnswer) {
        let Some((_, purpose)) = self.dialog.take() else {
            return;
        };
        if let Some(planning) = self.planning.take() {
            planning.cancel();
        }
        match (purpose, answer) {
            (Purpose::Confirm(order), DialogAnswer::Yes) => self.act(order),
            (Purpose::Quit, DialogAnswer::Yes) => self.interrupt(),
            (Purpose::Choose(experiment, run, ids), DialogAnswer::Chosen(index)) => {
                if let Some(to) = ids.get(index).cloned() {
                    self.plan(Order::CopyRun {
                        experiment,
                        run,
                        to,
                    });
                }
            }
            _ => {}
        }
    }

    fn mouse(&mut self, mouse: MouseEvent) {
        if self.dialog.is_some() {
            return;
        }
        if mouse.row == self.area.y && mouse.kind == MouseEventKind::Down(MouseButton::Left) {
            if let Some(tab) = self.tabs.title_at(mouse.column) {
                self.show(tab);
            }
            return;
        }
        if let Some(detail) = &mut self.detail {
            if let Some(want) = detail.mouse(mouse) {
                self.wanted = Some(want);
            }
            return;
        }
        let request = self.tabs.mouse(mouse, &self.model);
        if let Some(request) = request {
            self.request(request);
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

    /// The last line: the action under way, a message, or keys.
    fn bottom(&self) -> (String, Tone) {
        if let Some(working) = &self.model.working {
            let done = working.progress.bytes();
            let seconds = working.since.elapsed().as_secs_f64();
            let rate = done as f64 / seconds.max(0.1);
            let mut text = format!("{}: {}", working.what, HumanBytes(done));
            if let Some(all) = working.progress.expected().filter(|it| it.bytes >= done) {
                let left = (all.bytes - done) as f64 / rate.max(1.0);
                text.push_str(&format!(" of {}", HumanBytes(all.bytes)));
                if done > 0 && done < all.bytes {
                    text.push_str(&format!(", {} left", time_left(left)));
                }
            }
            if working.stops {
                text.push_str(", stopping");
            }
            return (text, Tone::Warning);
        }
        match self.messages.shown() {
            Some((text, tone)) => (text.to_owned(), tone),
            None if self.detail.is_some() => {
                let text = "Tab next part  f follow, copy path  s stdout/stderr  g G first, last  Esc back";
                (text.to_owned(), Tone::Plain)
            }
            None => (help::hints(self.tabs.shown).to_owned(), Tone::Plain),
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
        let mut middle = below(area, 1);
        middle.height -= 1;
        let buffer = frame.buffer_mut();
        let (model, canvas) = (&self.model, (buffer, middle));
        match &mut self.detail {
            Some(detail) => detail.draw(canvas, model.theme, |job| copies(job, model)),
            None => self.tabs.draw(canvas, model),
        }
        let (text, tone) = self.bottom();
        let style = self.model.theme.style(tone);
        let buffer = frame.buffer_mut();
        line((&mut *buffer, area), area.height - 1, &text, style);
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
