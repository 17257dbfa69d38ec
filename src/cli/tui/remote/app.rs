//! The dashboard of a workspace on another machine: tabs, an open job, dialogs, and the state of the connection.

use std::ops::Range;
use std::time::{Duration, Instant};

use ratatui::Frame;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use super::act::RemoteAct;
use super::job_part;
use super::jobs_tab::RemoteJobsTab;
use super::keys;
use super::logs::LogReader;
use super::model::{LinkState, RemoteFound, RemoteModel};
use super::runs_tab::RemoteRunsTab;
use super::services_tab::ServicesTab;
use super::tab::RemoteTab;
use super::xpmfs::XpmfsThere;
use crate::cli::jobs::log::Window;
use crate::cli::status::gather::Status;
use crate::cli::style::Tone;
use crate::cli::tui::bottom;
use crate::cli::tui::detail::Detail;
use crate::cli::tui::dialog::Dialog;
use crate::cli::tui::event::Event;
use crate::cli::tui::event_loop::Dashboard;
use crate::cli::tui::messages::Messages;
use crate::cli::tui::read::{Content, Want};
use crate::cli::tui::reported::Reported;
use crate::cli::tui::tabs::tab_bar::draw_titles;
use crate::cli::tui::tabs::{below, line, loading};
use crate::remote::monitor::log::LogPart;
use crate::remote::monitor::model::{Answer, Notice, RemoteQuestion};
use crate::remote::monitor::{Monitor, MonitorEvent};
use crate::workspace::jobs::JobId;

/// How often it is drawn while nothing happens, and while a job is open.
const REDRAW_INTERVAL: Duration = Duration::from_secs(1);
const BUSY_REDRAW_INTERVAL: Duration = Duration::from_millis(200);

/// What a dialog is for.
pub(super) enum RemoteDialogPurpose {
    Show,
    /// The server is asked whether the job can be deleted.
    Check(JobId),
    Confirm(RemoteAct, JobId),
}

/// The dashboard.
pub(super) struct RemoteApp {
    pub(super) model: RemoteModel,
    pub(super) monitor: Monitor,
    pub(super) reader: LogReader,
    /// `xpmfs` on the other machine, if its path there was given.
    pub(super) xpmfs: Option<XpmfsThere>,
    pub(super) shown: RemoteTab,
    pub(super) jobs: RemoteJobsTab,
    pub(super) orphans: RemoteJobsTab,
    pub(super) strays: RemoteJobsTab,
    pub(super) runs: RemoteRunsTab,
    pub(super) services: ServicesTab,
    /// The columns of the titles as they were drawn last.
    pub(super) titles: Vec<Range<u16>>,
    pub(super) detail: Option<Detail>,
    /// A part of a log that is to be read as soon as the reader has time.
    pub(super) wanted: Option<Want>,
    pub(super) dialog: Option<(Dialog, RemoteDialogPurpose)>,
    pub(super) acting: Option<(RemoteAct, JobId)>,
    pub(super) messages: Messages,
    /// The questions that the monitor has.
    pub(super) asked: Vec<RemoteQuestion>,
    pub(super) is_ended: bool,
    pub(super) area: Rect,
}

impl RemoteApp {
    pub(super) fn new(
        monitor: Monitor,
        reader: LogReader,
        xpmfs: Option<XpmfsThere>,
        model: RemoteModel,
    ) -> RemoteApp {
        RemoteApp {
            model,
            monitor,
            reader,
            xpmfs,
            shown: RemoteTab::Jobs,
            jobs: RemoteJobsTab::new(RemoteTab::Jobs),
            orphans: RemoteJobsTab::new(RemoteTab::Orphans),
            strays: RemoteJobsTab::new(RemoteTab::Strays),
            runs: RemoteRunsTab::default(),
            services: ServicesTab::default(),
            titles: Vec::new(),
            detail: None,
            wanted: None,
            dialog: None,
            acting: None,
            messages: Messages::default(),
            asked: Vec::new(),
            is_ended: false,
            area: Rect::default(),
        }
    }

    /// The tab that shows, if it is one of jobs.
    pub(super) fn jobs_tab(&mut self) -> Option<&mut RemoteJobsTab> {
        match self.shown {
            RemoteTab::Jobs => Some(&mut self.jobs),
            RemoteTab::Orphans => Some(&mut self.orphans),
            RemoteTab::Strays => Some(&mut self.strays),
            RemoteTab::Experiments
            | RemoteTab::Services
            | RemoteTab::Folders
            | RemoteTab::Archive => None,
        }
    }

    /// The tabs, in their order.
    pub(super) fn tabs(&self) -> Vec<RemoteTab> {
        let of_xpmfs = RemoteTab::OF_XPMFS.into_iter();
        let of_xpmfs = of_xpmfs.filter(|_| self.xpmfs.is_some());
        RemoteTab::OF_SERVER.into_iter().chain(of_xpmfs).collect()
    }

    /// Whether something in a tab needs a look.
    fn has_alarm(&self, tab: RemoteTab) -> bool {
        let reported = self.xpmfs.as_ref().map(|xpmfs| &xpmfs.reported);
        match tab {
            RemoteTab::Strays => {
                let strays = self.model.jobs(RemoteTab::Strays);
                strays.is_some_and(|list| !list.jobs.is_empty())
            }
            RemoteTab::Folders => reported.is_some_and(Reported::has_folder_alarm),
            RemoteTab::Archive => reported.is_some_and(Reported::has_archive_alarm),
            _ => false,
        }
    }

    pub(super) fn show(&mut self, tab: RemoteTab) {
        self.shown = tab;
        self.detail = None;
    }

    pub(super) fn say(&mut self, text: String, tone: Tone) {
        self.messages.say(text, tone);
    }

    fn found(&mut self, event: MonitorEvent) {
        match event {
            MonitorEvent::Connecting => self.model.link = LinkState::Connecting,
            MonitorEvent::Connected => {
                if !matches!(self.model.link, LinkState::Connected) {
                    self.say("connected again".to_owned(), Tone::Good);
                }
                self.model.link = LinkState::Connected;
                self.model.late = None;
                self.model.forget_errors();
                if let Some(xpmfs) = &mut self.xpmfs {
                    xpmfs.hurry();
                }
            }
            MonitorEvent::Lost(why, until) => {
                self.say(format!("connection lost: {why}"), Tone::Bad);
                self.model.link = LinkState::Lost(why, until);
                self.model.late = None;
                if let Some(xpmfs) = &mut self.xpmfs {
                    xpmfs.reported.forget_error();
                }
            }
            MonitorEvent::Late(since) => self.model.late = since,
            MonitorEvent::Said(text) => {
                self.say(format!("[{}] {text}", self.model.host), Tone::Plain);
            }
            MonitorEvent::Answer(question, answer) => self.answered(question, answer),
            MonitorEvent::Notice(Notice::Warning(text)) => {
                self.say(format!("[{}] {text}", self.model.host), Tone::Warning);
            }
            MonitorEvent::Notice(notice) => self.model.apply(&notice),
        }
    }

    fn answered(&mut self, question: RemoteQuestion, answer: Result<Answer, String>) {
        match question {
            RemoteQuestion::CanDelete(job) => {
                let is_wanted = matches!(&self.dialog, Some((_, RemoteDialogPurpose::Check(wanted))) if *wanted == job);
                if !is_wanted {
                    return;
                }
                self.dialog = Some(match acted(answer) {
                    Ok((true, _)) => {
                        let dialog = RemoteAct::Delete.confirmation(&job, &self.model);
                        (dialog, RemoteDialogPurpose::Confirm(RemoteAct::Delete, job))
                    }
                    Ok((false, why)) | Err(why) => {
                        let title = RemoteAct::Delete.under_way(&job);
                        (Dialog::text(title, vec![why]), RemoteDialogPurpose::Show)
                    }
                });
            }
            RemoteQuestion::Kill(job) => self.acted(RemoteAct::Kill, job, &acted(answer)),
            RemoteQuestion::Delete(job) => self.acted(RemoteAct::Delete, job, &acted(answer)),
            question => self.model.set(question, answer),
        }
    }

    fn acted(&mut self, act: RemoteAct, job: JobId, result: &Result<(bool, String), String>) {
        let tone = match result {
            Ok((true, _)) => Tone::Good,
            _ => Tone::Bad,
        };
        self.say(act.outcome(&job, result), tone);
        if act == RemoteAct::Kill && tone == Tone::Good {
            self.model.set_killed(job.clone());
        }
        self.acting.take_if(|acting| *acting == (act, job));
    }

    fn read(&mut self, want: &Want, part: Result<Option<LogPart>, String>) {
        let runs = self.model.may_write(&want.job);
        let content = match part {
            Ok(Some(part)) => Ok(Content::Log(
                Window {
                    start: part.start,
                    bytes: part.bytes,
                    length: part.length,
                },
                runs,
            )),
            Ok(None) if runs => Ok(Content::Log(Window::default(), true)),
            Ok(None) => Err("the job has no such log there".to_owned()),
            Err(why) => Err(why),
        };
        if let Some(detail) = &mut self.detail {
            detail.set(want, content);
        }
    }

    fn reported(&mut self, status: Result<Status, String>) {
        let Some(xpmfs) = &mut self.xpmfs else {
            return;
        };
        let is_connected = matches!(self.model.link, LinkState::Connected);
        if let Some(why) = xpmfs.answered(status) {
            // Without a connection, that is the reason, and it shows.
            match is_connected {
                true => self.say(format!("[{}] {why}", self.model.host), Tone::Bad),
                false => xpmfs.reported.forget_error(),
            }
        }
    }

    /// Asks for what shows.
    fn ask(&mut self) {
        if let (Some(xpmfs), LinkState::Connected) = (&mut self.xpmfs, &self.model.link) {
            xpmfs.ask();
        }
        let mut questions = self.model.questions(self.shown);
        if let Some(detail) = &self.detail
            && self.model.may_write(&detail.job)
        {
            questions.push(RemoteQuestion::Process(detail.job.clone()));
        }
        if questions != self.asked && self.monitor.show(questions.clone()) {
            self.asked = questions;
        }
        // Without a connection, `ssh` would try to make one for each part of a log.
        if let (Some(detail), LinkState::Connected) = (&mut self.detail, &self.model.link)
            && let Some(want) = self.wanted.take().or_else(|| detail.want())
        {
            match self.reader.ask(want.clone()) {
                true => detail.set_asked(),
                false => self.wanted = Some(want).filter(|want| want.from.is_some()),
            }
        }
    }

    /// What is wrong, if anything.
    fn banner(&self) -> Option<String> {
        let host = &self.model.host;
        match (&self.model.link, self.model.late) {
            (LinkState::Connecting, _) => Some(format!("connecting to {host}...")),
            (LinkState::Lost(why, until), _) => {
                let left = until.saturating_duration_since(Instant::now()).as_secs() + 1;
                Some(format!(
                    "! NOT CONNECTED: {why}; connecting in {left} s (r: now)"
                ))
            }
            (LinkState::Connected, Some(since)) => {
                let seconds = since.elapsed().as_secs();
                Some(format!("! {host} has not answered for {seconds} s"))
            }
            (LinkState::Connected, None) => {
                let error = self.model.error(&self.asked)?;
                Some(format!("! {error}"))
            }
        }
    }

    fn draw_tab(&mut self, buffer: &mut Buffer, area: Rect) {
        let model = &self.model;
        let (is_there, what) = match self.shown {
            RemoteTab::Experiments => (model.newest.is_some(), "the experiments"),
            RemoteTab::Services => (model.services.is_some(), "the services"),
            tab @ RemoteTab::Jobs => (model.jobs(tab).is_some(), "the jobs"),
            tab @ RemoteTab::Orphans => (model.jobs(tab).is_some(), "the orphans"),
            tab @ RemoteTab::Strays => (model.jobs(tab).is_some(), "the stray jobs"),
            RemoteTab::Folders | RemoteTab::Archive => {
                let canvas = (buffer, area);
                if let Some(xpmfs) = &mut self.xpmfs {
                    xpmfs.draw(canvas, self.shown, model.theme);
                }
                return;
            }
        };
        if !is_there {
            return loading((buffer, area), what, model.started);
        }
        let canvas = (buffer, area);
        match self.shown {
            RemoteTab::Jobs => self.jobs.draw(canvas, model),
            RemoteTab::Orphans => self.orphans.draw(canvas, model),
            RemoteTab::Strays => self.strays.draw(canvas, model),
            RemoteTab::Experiments => self.runs.draw(canvas, model),
            RemoteTab::Services => self.services.draw(canvas, model),
            RemoteTab::Folders | RemoteTab::Archive => {}
        }
    }
}

/// Whether an action succeeded, and what the server says about it.
fn acted(answer: Result<Answer, String>) -> Result<(bool, String), String> {
    match answer? {
        Answer::Acted(done, said) => Ok((done, said)),
        _ => Err("the answer is not as expected".to_owned()),
    }
}

impl Dashboard for RemoteApp {
    type Found = RemoteFound;

    fn handle(&mut self, event: Event<RemoteFound>) {
        match event {
            Event::Key(key) => self.key(key),
            Event::Mouse(mouse) => self.mouse(mouse),
            Event::Paste(text) => {
                if let Some(tab) = self.jobs_tab() {
                    tab.paste(&text);
                }
            }
            Event::Message(text) => {
                let text = text.trim_start_matches("xpmfs: ").to_owned();
                self.say(text, Tone::Warning);
            }
            Event::Found(RemoteFound::Monitor(event)) => self.found(event),
            Event::Found(RemoteFound::Log(want, part)) => self.read(&want, part),
            Event::Found(RemoteFound::Status(status)) => self.reported(status),
            Event::Resized | Event::InputEnded | Event::Signal(_) | Event::Continued => {}
        }
    }

    fn draw(&mut self, frame: &mut Frame<'_>) {
        self.area = frame.area();
        let (area, theme) = (self.area, self.model.theme);
        let buffer = frame.buffer_mut();
        if area.width < 20 || area.height < 6 {
            line((buffer, area), 0, "too small", theme.title());
            return;
        }
        let tabs = self.tabs().into_iter();
        let titles: Vec<(&str, bool)> =
            tabs.map(|tab| (tab.title(), self.has_alarm(tab))).collect();
        let name = format!("{}:{}", self.model.host, self.model.workdir.display());
        let shown = self.shown as usize;
        self.titles = draw_titles((&mut *buffer, area), theme, &titles, shown, &name);
        let under_way = self.acting.as_ref();
        let under_way =
            under_way.map(|(act, job)| (format!("{}...", act.under_way(job)), Tone::Warning));
        let news = under_way.into_iter().chain(self.messages.shown());
        let keys = match &self.detail {
            Some(_) => keys::REMOTE_JOB_HINTS,
            None => keys::hints(self.shown),
        };
        let mut middle = bottom::draw((&mut *buffer, below(area, 1)), theme, news, keys);
        if let Some(banner) = self.banner() {
            line((&mut *buffer, middle), 0, &banner, theme.style(Tone::Bad));
            middle = below(middle, 1);
        }
        match &mut self.detail {
            Some(detail) => {
                let model = &self.model;
                let canvas = (&mut *buffer, middle);
                detail.draw(canvas, theme, |job| job_part::lines(job, model));
            }
            None => self.draw_tab(buffer, middle),
        }
        if let Some((dialog, _)) = &mut self.dialog {
            dialog.draw(buffer, area, theme);
        }
        self.ask();
    }

    fn redraw_interval(&self) -> Duration {
        match self.detail.is_some() || self.acting.is_some() {
            true => BUSY_REDRAW_INTERVAL,
            false => REDRAW_INTERVAL,
        }
    }

    fn is_ended(&self) -> bool {
        self.is_ended
    }
}
