//! Keys and the mouse: what each does in the dashboard.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers, MouseButton, MouseEvent, MouseEventKind};

use super::act::RemoteAct;
use super::app::{RemoteApp, RemoteDialogPurpose};
use super::jobs_tab::RemoteJobsTab;
use super::keys;
use super::request::RemoteRequest;
use super::tab::RemoteTab;
use crate::cli::style::Tone;
use crate::cli::tui::clipboard;
use crate::cli::tui::detail::Detail;
use crate::cli::tui::dialog::{Dialog, DialogAnswer};
use crate::cli::tui::request::Part;
use crate::remote::monitor::model::RemoteQuestion;
use crate::workspace::jobs::JobId;

impl RemoteApp {
    fn request(&mut self, request: RemoteRequest) {
        match request {
            RemoteRequest::Open(job, part) => {
                self.detail = Some(Detail::new(job, part, &Part::THERE));
            }
            RemoteRequest::Act(act, job) => self.confirm(act, job),
            RemoteRequest::Run(experiment, run) => {
                self.model.show_run(Some((experiment, run)));
                self.jobs.reset();
                self.show(RemoteTab::Jobs);
            }
            RemoteRequest::Copy(text) => {
                let text = clipboard::copy(&text);
                self.say(text, Tone::Plain);
            }
            RemoteRequest::Say(text) => self.say(text, Tone::Plain),
        }
    }

    fn confirm(&mut self, act: RemoteAct, job: JobId) {
        if self.acting.is_some() {
            let text = "one action at a time: wait until the other one has ended";
            return self.say(text.to_owned(), Tone::Warning);
        }
        self.dialog = Some(match act {
            RemoteAct::Kill => {
                let dialog = act.confirmation(&job, &self.model);
                (dialog, RemoteDialogPurpose::Confirm(act, job))
            }
            RemoteAct::Delete => {
                let lines = vec!["asking whether it can be deleted...".to_owned()];
                if !self.monitor.ask(RemoteQuestion::CanDelete(job.clone())) {
                    return self.say("too many questions wait".to_owned(), Tone::Bad);
                }
                let dialog = Dialog::wait(act.under_way(&job), lines);
                (dialog, RemoteDialogPurpose::Check(job))
            }
        });
    }

    fn answer(&mut self, answer: DialogAnswer) {
        let Some((_, RemoteDialogPurpose::Confirm(act, job))) = self.dialog.take() else {
            return;
        };
        if answer != DialogAnswer::Yes {
            return;
        }
        match self.monitor.ask(act.question(job.clone())) {
            true => self.acting = Some((act, job)),
            false => self.say("too many questions wait".to_owned(), Tone::Bad),
        }
    }

    pub(super) fn key(&mut self, key: KeyEvent) {
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        if control && key.code == KeyCode::Char('c') {
            self.is_ended = true;
            return;
        }
        if let Some((dialog, _)) = &mut self.dialog {
            if let Some(answer) = dialog.key(key) {
                self.answer(answer);
            }
            return;
        }
        let editing = self.detail.is_none() && self.jobs_tab().is_some_and(|tab| tab.is_editing());
        if !editing && !control && self.own_key(key) {
            return;
        }
        if let Some(detail) = &mut self.detail {
            let job = detail.job.clone();
            match key.code {
                KeyCode::Char('k') if control => self.confirm(RemoteAct::Kill, job),
                KeyCode::Char('d') if control => self.confirm(RemoteAct::Delete, job),
                KeyCode::Char('f') if detail.part != Part::Log => {
                    let path = self.model.path(&job).to_string_lossy().into_owned();
                    self.request(RemoteRequest::Copy(path));
                }
                _ => self.wanted = detail.key(key).or(self.wanted.take()),
            }
            return;
        }
        let model = &self.model;
        let request = match self.shown {
            RemoteTab::Jobs => self.jobs.key(key, model),
            RemoteTab::Orphans => self.orphans.key(key, model),
            RemoteTab::Strays => self.strays.key(key, model),
            RemoteTab::Experiments => self.runs.key(key, model),
            RemoteTab::Services => self.services.key(key, model),
            tab @ (RemoteTab::Folders | RemoteTab::Archive) => {
                let xpmfs = self.xpmfs.as_mut();
                xpmfs.and_then(|xpmfs| xpmfs.key(key, tab))
            }
        };
        if let Some(request) = request {
            self.request(request);
        }
    }

    /// Reacts to the keys of all tabs. Returns whether it was one of them.
    fn own_key(&mut self, key: KeyEvent) -> bool {
        match key.code {
            KeyCode::Char('q') => self.is_ended = true,
            KeyCode::Char('?') => {
                let title = format!("keys: {}", self.shown.title());
                let dialog = Dialog::text(title, keys::lines(self.shown, self.tabs().len()));
                self.dialog = Some((dialog, RemoteDialogPurpose::Show));
            }
            KeyCode::Char('m') => {
                let dialog = Dialog::text("messages, the last first", self.messages.all());
                self.dialog = Some((dialog, RemoteDialogPurpose::Show));
            }
            KeyCode::Char('r') => {
                self.monitor.refresh();
                if let Some(xpmfs) = &mut self.xpmfs {
                    xpmfs.hurry();
                }
                return self.detail.is_none();
            }
            KeyCode::Char(digit @ '1'..='9') => {
                let index = digit as usize - '1' as usize;
                match self.tabs().get(index) {
                    Some(tab) => self.show(*tab),
                    None => return false,
                }
            }
            KeyCode::Tab | KeyCode::Right if self.detail.is_none() => self.step(1),
            KeyCode::BackTab | KeyCode::Left if self.detail.is_none() => {
                self.step(self.tabs().len() - 1);
            }
            KeyCode::Esc => self.back(),
            _ => return false,
        }
        true
    }

    fn back(&mut self) {
        if self.detail.take().is_some() || self.jobs_tab().is_some_and(RemoteJobsTab::back) {
            return;
        }
        match self.shown {
            RemoteTab::Jobs => self.model.show_run(None),
            _ => self.show(RemoteTab::Jobs),
        }
    }

    fn step(&mut self, by: usize) {
        let tabs = self.tabs();
        if let Some(tab) = tabs.get((self.shown as usize + by) % tabs.len()) {
            self.show(*tab);
        }
    }

    pub(super) fn mouse(&mut self, mouse: MouseEvent) {
        if self.dialog.is_some() {
            return;
        }
        if mouse.row == self.area.y && mouse.kind == MouseEventKind::Down(MouseButton::Left) {
            let mut titles = self.titles.iter().zip(self.tabs());
            let hit = titles.find(|(place, _)| place.contains(&mouse.column));
            if let Some((_, tab)) = hit {
                self.show(tab);
            }
            return;
        }
        if let Some(detail) = &mut self.detail {
            self.wanted = detail.mouse(mouse).or(self.wanted.take());
            return;
        }
        let model = &self.model;
        let request = match self.shown {
            RemoteTab::Jobs => self.jobs.mouse(mouse, model),
            RemoteTab::Orphans => self.orphans.mouse(mouse, model),
            RemoteTab::Strays => self.strays.mouse(mouse, model),
            RemoteTab::Experiments => self.runs.mouse(mouse, model),
            RemoteTab::Services => {
                self.services.mouse(mouse, model);
                None
            }
            tab @ (RemoteTab::Folders | RemoteTab::Archive) => {
                if let Some(xpmfs) = &mut self.xpmfs {
                    xpmfs.mouse(mouse, tab);
                }
                None
            }
        };
        if let Some(request) = request {
            self.request(request);
        }
    }
}
