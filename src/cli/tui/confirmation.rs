//! Actions of the dashboard: what one would do is found out and asked, then it is done, one at a time.

use std::sync::Arc;
use std::time::Instant;

use indicatif::HumanBytes;

use super::actions;
use super::app::{App, DialogPurpose};
use super::dialog::{Dialog, DialogAnswer};
use super::event::Event;
use super::model::Working;
use super::order::Order;
use super::tabs::archive::time_left;
use super::watchers::WatchResult;
use crate::cli::Global;
use crate::cli::jobs::session::Session;
use crate::cli::sentence;
use crate::cli::style::Tone;
use crate::transfer::Progress;

impl App {
    pub(super) fn plan(&mut self, order: Order) {
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
        self.dialog = Some((Dialog::wait(title, lines), DialogPurpose::Plan(number)));
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

    pub(super) fn planned(
        &mut self,
        number: u64,
        order: Order,
        plan: Result<actions::ActionPlan, String>,
    ) {
        let is_wanted =
            matches!(&self.dialog, Some((_, DialogPurpose::Plan(wanted))) if *wanted == number);
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
                DialogPurpose::Confirm(order),
            ),
            Ok(plan) => (Dialog::text(title, plan.lines), DialogPurpose::Show),
            Err(why) => (Dialog::text(title, vec![why]), DialogPurpose::Show),
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

    pub(super) fn acted(&mut self, outcome: Result<actions::ActionOutcome, String>) {
        match &self.dialog {
            // The question what an action would do could not be asked.
            Some((_, DialogPurpose::Plan(_))) => self.dialog = None,
            // What was to be stopped before the end has ended by itself.
            Some((_, DialogPurpose::Quit)) => self.is_ended = true,
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
                    self.dialog = Some((Dialog::text(what, lines), DialogPurpose::Show));
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

    pub(super) fn quit(&mut self) {
        match &self.model.working {
            None => self.is_ended = true,
            Some(working) => {
                let lines = vec![format!("{} is under way.", working.what)];
                let lines = [lines, vec!["Stop it, and quit?".to_owned()]].concat();
                self.dialog = Some((Dialog::confirm("quit", lines, &[]), DialogPurpose::Quit));
            }
        }
    }

    /// Ends, in order if an action is under way, at once if it was asked for before.
    pub(super) fn interrupt(&mut self) {
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

    pub(super) fn answer(&mut self, answer: DialogAnswer) {
        let Some((_, purpose)) = self.dialog.take() else {
            return;
        };
        if let Some(planning) = self.planning.take() {
            planning.cancel();
        }
        match (purpose, answer) {
            (DialogPurpose::Confirm(order), DialogAnswer::Yes) => self.act(order),
            (DialogPurpose::Quit, DialogAnswer::Yes) => self.interrupt(),
            (DialogPurpose::Choose(experiment, run, ids), DialogAnswer::Chosen(index)) => {
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

    /// The action under way, in words.
    pub(super) fn under_way(&self) -> Option<String> {
        let working = self.model.working.as_ref()?;
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
        Some(text)
    }
}
