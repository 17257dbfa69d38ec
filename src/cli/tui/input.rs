//! Keys, the mouse and what tabs ask for: what each does in the dashboard.

use std::ffi::OsString;

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers, MouseButton, MouseEvent, MouseEventKind};

use super::app::{App, DialogPurpose};
use super::clipboard;
use super::detail::Detail;
use super::dialog::Dialog;
use super::help;
use super::request::{Part, Request};
use super::watchers::Tab;
use crate::cli::sentence;
use crate::cli::style::Tone;
use crate::settings::Settings;

impl App {
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
                let text = clipboard::copy(&text);
                self.say(text, Tone::Plain);
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
        self.dialog = Some((dialog, DialogPurpose::Choose(experiment, run, ids)));
    }

    pub(super) fn key(&mut self, key: KeyEvent) {
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
                self.dialog = Some((dialog, DialogPurpose::Show));
            }
            KeyCode::Char('m') => {
                let lines = self.messages.all();
                let dialog = Dialog::text("messages, the last first", lines);
                self.dialog = Some((dialog, DialogPurpose::Show));
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
                (None, Tab::Jobs) => {
                    self.tabs.jobs.back();
                }
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

    pub(super) fn mouse(&mut self, mouse: MouseEvent) {
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
}
