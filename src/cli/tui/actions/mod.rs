//! What actions do: first what a plan says, then the same functions of the archive that the commands call.
//!
//! - `copies`: archive, recover, verify, pin, opt out; `removals`: release, delete, orphans, and back from the trash; `run`: copies a run;
//!   `outcome`: what these return

mod copies;
mod outcome;
mod removals;
mod run;

pub(super) use self::outcome::{ActionOutcome, ActionPlan};
use super::order::{Order, Verb};
use crate::cli::Global;
use crate::cli::jobs::session::Session;

/// Finds out what an action would do. Changes nothing.
///
/// # Errors
///
/// It cannot be done.
pub(super) fn plan(
    session: &Session,
    order: &Order,
    global: &Global,
) -> anyhow::Result<ActionPlan> {
    match order {
        Order::Jobs(Verb::Archive, jobs) => copies::plan_archive(session, jobs),
        Order::Jobs(Verb::Recover, jobs) => Ok(copies::plan_recover(session, jobs)),
        Order::Jobs(Verb::Verify, jobs) => Ok(copies::plan_verify(session, jobs)),
        Order::Jobs(Verb::Pin(pinned), jobs) => Ok(copies::plan_pin(jobs.len(), *pinned)),
        Order::Jobs(Verb::OptOut(out), jobs) => Ok(copies::plan_opt(jobs.len(), *out)),
        Order::Jobs(Verb::Release, jobs) | Order::ReleaseAll(jobs) => {
            Ok(removals::plan_release(session, jobs))
        }
        Order::Jobs(Verb::Delete, jobs) => removals::plan_delete(session, jobs, global),
        Order::Clean {
            jobs,
            ignore_folders,
        } => removals::plan_clean(session, jobs.as_deref(), *ignore_folders, global),
        Order::Undelete(jobs) => Ok(removals::plan_undelete(session, jobs)),
        Order::CopyRun { .. } => run::plan(order, session, global),
    }
}

/// Does an action. Its progress is that of the session, which can also be cancelled.
///
/// # Errors
///
/// Nothing could be done.
pub(super) fn act(
    session: &Session,
    order: &Order,
    global: &Global,
) -> anyhow::Result<ActionOutcome> {
    let mut outcome = match order {
        Order::Jobs(Verb::Archive, jobs) => copies::archive(session, jobs)?,
        Order::Jobs(Verb::Recover, jobs) => copies::recover(session, jobs),
        Order::Jobs(Verb::Verify, jobs) => copies::verify(session, jobs),
        Order::Jobs(Verb::Pin(pinned), jobs) => copies::pin(session, jobs, *pinned),
        Order::Jobs(Verb::OptOut(out), jobs) => copies::opt(session, jobs, *out),
        Order::Jobs(Verb::Release, jobs) | Order::ReleaseAll(jobs) => {
            removals::release(session, jobs)
        }
        Order::Jobs(Verb::Delete, jobs) => removals::delete(session, jobs),
        Order::Clean {
            jobs,
            ignore_folders,
        } => removals::clean(session, jobs.as_deref(), *ignore_folders)?,
        Order::Undelete(jobs) => removals::undelete(session, jobs),
        Order::CopyRun { .. } => run::act(order, session, global)?,
    };
    if session.progress.is_cancelled() {
        outcome.failed = true;
        outcome
            .summary
            .push_str("; interrupted: every job is either done or as it was");
    }
    Ok(outcome)
}
