//! When to ask what: at once after a change, now and then without one, and never more often than the server can answer.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::model::{Notice, RemoteQuestion};

/// The shortest pause between two answers to one question.
const PAUSE: Duration = Duration::from_secs(1);

/// What is shown is asked for after this time, if nothing is known to have changed: not all changes are notified. The server looks at the disk
/// then; otherwise it answers from what it has read before.
const POLL_INTERVAL: Duration = Duration::from_secs(15);

/// The same after an answer that followed a change: the server may have answered before it had read what changed.
const SETTLE_INTERVAL: Duration = Duration::from_secs(3);

/// The pause after an answer is so many times as long as the answer took.
const ANSWER_SHARE: u32 = 10;

/// When a question was asked and answered last.
#[derive(Debug, Default)]
struct Asked {
    /// When it may be asked again.
    next: Option<Instant>,
    answered: Option<Instant>,
    is_stale: bool,
    /// Whether it was asked because something had changed.
    settles: bool,
}

/// The questions whose answers are shown.
#[derive(Debug, Default)]
pub(super) struct Schedule {
    shown: Vec<RemoteQuestion>,
    asked: HashMap<RemoteQuestion, Asked>,
    /// Those that the server is to answer from the disk.
    refreshed: Vec<RemoteQuestion>,
}

impl Schedule {
    /// Shows the answers to these questions from now on.
    pub(super) fn show(&mut self, shown: Vec<RemoteQuestion>) {
        self.asked.retain(|question, _| shown.contains(question));
        self.shown = shown;
    }

    /// Asks everything again: the connection is a new one, or a person asks for it.
    pub(super) fn restart(&mut self, from_disk: bool) {
        self.asked.clear();
        self.refreshed = if from_disk {
            self.shown.clone()
        } else {
            Vec::new()
        };
    }

    /// Something has changed.
    pub(super) fn changed(&mut self, notice: &Notice) {
        for (question, asked) in &mut self.asked {
            asked.is_stale |= match notice {
                Notice::JobState(..) | Notice::Jobs => {
                    !matches!(question, RemoteQuestion::Services)
                }
                Notice::Experiments => {
                    matches!(
                        question,
                        RemoteQuestion::Experiments
                            | RemoteQuestion::Runs(_)
                            | RemoteQuestion::Jobs
                    )
                }
                Notice::Services => *question == RemoteQuestion::Services,
                Notice::Progress(..) | Notice::Warning(_) | Notice::Shutdown(_) | Notice::Other => {
                    false
                }
            };
        }
    }

    /// A question was answered after this time.
    pub(super) fn answered(&mut self, question: &RemoteQuestion, took: Duration, now: Instant) {
        if let Some(asked) = self.asked.get_mut(question) {
            asked.answered = Some(now);
            asked.next = Some(now + PAUSE.max(took * ANSWER_SHARE));
        }
    }

    /// The questions that are due, and whether the server is to look at the disk for them. They count as asked.
    pub(super) fn due(&mut self, now: Instant) -> Vec<(RemoteQuestion, bool)> {
        let mut due = Vec::new();
        for question in &self.shown {
            let asked = self.asked.entry(question.clone()).or_default();
            let before = self.refreshed.len();
            let (settles, from_disk) = match (asked.next, asked.answered) {
                (None, _) => {
                    self.refreshed.retain(|it| it != question);
                    (false, self.refreshed.len() < before)
                }
                (Some(next), Some(_)) if asked.is_stale && now >= next => (true, false),
                (Some(next), Some(answered)) => {
                    let interval = match asked.settles {
                        true => SETTLE_INTERVAL,
                        false => POLL_INTERVAL,
                    };
                    if now < next.max(answered + interval) {
                        continue;
                    }
                    (false, true)
                }
                // It was asked, and is not answered yet.
                (Some(_), None) => continue,
            };
            // What changes from now on may not be in the answer.
            *asked = Asked {
                next: Some(now),
                settles,
                ..Asked::default()
            };
            due.push((question.clone(), from_disk));
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_asked_after_a_change_and_not_twice_at_once() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut schedule = Schedule::default();
        schedule.show(vec![RemoteQuestion::Jobs, RemoteQuestion::Services]);
        let both = vec![
            (RemoteQuestion::Jobs, false),
            (RemoteQuestion::Services, false),
        ];
        assert_eq!(schedule.due(at(0)), both);
        // It is not answered yet, whatever happens.
        schedule.changed(&Notice::Jobs);
        assert_eq!(schedule.due(at(60_000)), []);
        schedule.answered(
            &RemoteQuestion::Jobs,
            Duration::from_millis(300),
            at(60_000),
        );
        schedule.answered(&RemoteQuestion::Services, Duration::ZERO, at(60_000));
        // The pause is longer after an answer that took long.
        assert_eq!(schedule.due(at(62_000)), []);
        assert_eq!(schedule.due(at(63_000)), [(RemoteQuestion::Jobs, false)]);
        schedule.answered(&RemoteQuestion::Jobs, Duration::ZERO, at(63_000));
        // The server may have answered before it had read the change.
        assert_eq!(schedule.due(at(65_999)), []);
        assert_eq!(schedule.due(at(66_000)), [(RemoteQuestion::Jobs, true)]);
        schedule.answered(&RemoteQuestion::Jobs, Duration::ZERO, at(66_000));
        assert_eq!(schedule.due(at(70_000)), []);
        assert_eq!(schedule.due(at(75_000)), [(RemoteQuestion::Services, true)]);
        schedule.restart(true);
        let from_disk = vec![
            (RemoteQuestion::Jobs, true),
            (RemoteQuestion::Services, true),
        ];
        assert_eq!(schedule.due(at(75_001)), from_disk);
        schedule.show(vec![RemoteQuestion::Orphans]);
        assert_eq!(schedule.due(at(75_002)), [(RemoteQuestion::Orphans, false)]);
    }
}
