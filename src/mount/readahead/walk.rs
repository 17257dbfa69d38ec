//! Tracks how far a process has walked through the jobs of a task.

use std::collections::VecDeque;
use std::ffi::OsStr;

use super::job::{Check, Job};
use super::names::Names;
use crate::sys::name::Name;

/// Limit of jobs that are read ahead of a walk.
pub(super) const WINDOW_MAX: usize = 64;
/// Half the number of jobs that are read ahead at first.
const WINDOW_MIN: usize = 4;
/// After so many jobs that were listed out of order, the walk is searched for anew.
const MISSES_MAX: usize = 64;

/// What the threads do.
#[derive(Debug)]
pub(super) enum Work {
    /// Finds out whether a job follows directly after another in the listing.
    Find {
        walk: (u64, Name),
        first: Name,
        second: Name,
    },
    /// Determines the next jobs, and queues them for reading.
    Extend { walk: (u64, Name), names: Names },
    /// Reads a job.
    Read(Job),
    /// Checks whether jobs are finished.
    Check(Check),
}

/// A walk through the jobs of a task.
#[derive(Debug)]
pub(super) struct Walk {
    /// The task's node.
    pub(super) task: u64,
    pub(super) phase: Phase,
}

#[derive(Debug)]
pub(super) enum Phase {
    /// The task has been listed.
    Begun,
    /// Then one of its jobs has been listed.
    One(Name),
    /// Then another job has been listed, which may be the next one.
    Two,
    /// The second job was the next one.
    Followed(Followed),
    /// Then other jobs have been listed in another order.
    Unordered,
}

#[derive(Debug)]
pub(super) struct Followed {
    /// The remaining names; `None` while they are being read, and after the last one.
    pub(super) names: Option<Names>,
    /// The jobs that are read ahead, in order.
    pub(super) coming: VecDeque<Name>,
    pub(super) window: usize,
    misses: usize,
}

impl Phase {
    /// Notes that the listing of the task begins.
    pub(super) fn task_listed(&mut self) {
        let over = match self {
            Phase::Begun | Phase::One(_) => false,
            Phase::Two | Phase::Unordered => true,
            Phase::Followed(followed) => followed.names.is_none() && followed.coming.is_empty(),
        };
        if over {
            *self = Phase::Begun;
        }
    }

    /// Notes that a job is listed; returns the resulting work.
    pub(super) fn job_listed(&mut self, job: &Name, (id, task): (u64, &Name)) -> Option<Work> {
        match self {
            Phase::Begun => {
                *self = Phase::One(job.clone());
                None
            }
            Phase::One(first) if first != job => {
                let first = first.clone();
                *self = Phase::Two;
                Some(Work::Find {
                    walk: (id, task.clone()),
                    first,
                    second: job.clone(),
                })
            }
            Phase::Followed(followed) if followed.misses < MISSES_MAX => {
                followed.advance(job);
                let names = match followed.coming.len() <= followed.window / 2 {
                    true => followed.names.take()?,
                    false => return None,
                };
                let walk = (id, task.clone());
                Some(Work::Extend { walk, names })
            }
            Phase::Followed(_) => {
                *self = Phase::One(job.clone());
                None
            }
            Phase::One(_) | Phase::Two | Phase::Unordered => None,
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
            // Several processes may walk through this task at the same time.
            None => self.misses += 1,
        }
    }
}
