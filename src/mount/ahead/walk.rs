//! How far somebody has walked through the jobs of a task.

use std::collections::VecDeque;
use std::ffi::OsStr;

use super::Work;
use super::names::Names;
use crate::sys::name::Name;

/// How many jobs a walk is read ahead of at most.
pub(super) const WINDOW_MAX: usize = 64;
/// Half of how many it is read ahead of at first.
const WINDOW_MIN: usize = 4;
/// After so many jobs that were listed out of order, a walk is looked for anew.
const MISSES_MAX: usize = 64;

/// A walk through the jobs of a task.
#[derive(Debug)]
pub(super) struct Walk {
    /// The task's node.
    pub(super) task: u64,
    pub(super) state: State,
}

#[derive(Debug)]
pub(super) enum State {
    /// The task has been listed.
    Begun,
    /// And then a job of it.
    One(Name),
    /// And then another one, which may be the next one.
    Two,
    /// And that was the next one.
    Followed(Followed),
    /// And then others in another order.
    Unordered,
}

#[derive(Debug)]
pub(super) struct Followed {
    /// Where the names go on; `None` while they are being read, and after the last one.
    pub(super) names: Option<Names>,
    /// What is read ahead, in order.
    pub(super) coming: VecDeque<Name>,
    pub(super) window: usize,
    misses: usize,
}

impl State {
    /// The task begins to be listed.
    pub(super) fn begin(&mut self) {
        let over = match self {
            State::Begun | State::One(_) => false,
            State::Two | State::Unordered => true,
            State::Followed(followed) => followed.names.is_none() && followed.coming.is_empty(),
        };
        if over {
            *self = State::Begun;
        }
    }

    /// Goes on to a job that is listed; returns what is to be done then.
    pub(super) fn go_on(&mut self, job: &Name, (id, task): (u64, &Name)) -> Option<Work> {
        match self {
            State::Begun => {
                *self = State::One(job.clone());
                None
            }
            State::One(first) if first != job => {
                let first = first.clone();
                *self = State::Two;
                Some(Work::Find {
                    walk: (id, task.clone()),
                    first,
                    second: job.clone(),
                })
            }
            State::Followed(followed) if followed.misses < MISSES_MAX => {
                followed.advance(job);
                let names = match followed.coming.len() <= followed.window / 2 {
                    true => followed.names.take()?,
                    false => return None,
                };
                let walk = (id, task.clone());
                Some(Work::GoOn { walk, names })
            }
            State::Followed(_) => {
                *self = State::One(job.clone());
                None
            }
            State::One(_) | State::Two | State::Unordered => None,
        }
    }
}

impl Followed {
    pub(super) fn new(names: Names) -> Followed {
        Followed {
            names: Some(names),
            coming: VecDeque::new(),
            window: WINDOW_MIN,
            misses: 0,
        }
    }

    /// Notes that a job is listed.
    fn advance(&mut self, job: &OsStr) {
        match self.coming.iter().position(|name| **name == *job) {
            Some(at) => {
                self.coming.drain(..=at);
                self.misses = 0;
            }
            // Several may walk here at the same time.
            None => self.misses += 1,
        }
    }
}
