//! Releases and deletes jobs, removes orphans, and brings jobs back from the trash.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::bail;
use indicatif::HumanBytes;
use parking_lot::Mutex;

use super::super::order::counted;
use super::copies::with_others;
use super::outcome::{ActionOutcome, ActionPlan, Lines};
use crate::archive::deletions::{DeletionEvent as Deletion, delete_jobs, undelete_jobs};
use crate::archive::job::release::Reason;
use crate::archive::job::trash::batch::Batch;
use crate::archive::job::trash::list::list_trash;
use crate::archive::orphans::clean::{self as cleaning, CleanEvent as Cleaning};
use crate::archive::orphans::{self, Orphans, Search};
use crate::archive::releases::{ReleaseEvent as Release, release_jobs};
use crate::archive::relocate::retire::Retired;
use crate::archive::relocate::unfinished;
use crate::cli::Global;
use crate::cli::jobs::delete::{freed, outcome_in};
use crate::cli::jobs::session::{Session, why};
use crate::cli::jobs::undelete::lines as undeleted;
use crate::cli::neighbours::neighbours;
use crate::cli::orphans::{outcome, why_not};
use crate::cli::style::duration;
use crate::workspace::jobs::JobId;

/// What was released, and what was kept.
#[derive(Default)]
struct Releases {
    count: usize,
    bytes: u64,
    kept: usize,
    failed: usize,
    lines: Lines,
    /// How many are kept for each reason.
    reasons: BTreeMap<&'static str, usize>,
    /// Whether some lack a copy with a manifest.
    lacks_copy: bool,
}

fn run_release(session: &Session, jobs: &[JobId], act: bool) -> Releases {
    let env = session.env();
    if act {
        unfinished::clear_of(&env, &Retired::default(), jobs);
    }
    let mut releases = Releases::default();
    release_jobs(&env, jobs, act, &mut |job, event| match event {
        Release::Would(released) | Release::Released(released) => {
            releases.count += 1;
            releases.bytes = releases.bytes.saturating_add(released.usage.freed);
        }
        Release::Refused(refusal) => {
            releases.kept += 1;
            releases.lacks_copy |= refusal.reason == Reason::NoCopy;
            *releases
                .reasons
                .entry(refusal.reason.describe())
                .or_default() += 1;
            releases.lines.add(format!("{job}: kept: {}", refusal.why));
        }
        Release::Failed(error) if error.is_cancelled() => {}
        Release::Failed(error) => {
            releases.failed += 1;
            releases.lines.add(format!("{job}: {}", why(&error)));
        }
        Release::Skipped => {}
    });
    releases
}

pub(super) fn plan_release(session: &Session, jobs: &[JobId]) -> ActionPlan {
    let found = run_release(session, jobs, false);
    let mut lines = match found.count {
        0 => vec!["Nothing to release.".to_owned()],
        count => vec![
            format!(
                "Release {}: {} are freed in the primary.",
                counted(count),
                HumanBytes(found.bytes)
            ),
            "Every byte of the archived copies is read and compared first;".to_owned(),
            "a job whose copy is not right stays.".to_owned(),
        ],
    };
    for (reason, count) in &found.reasons {
        lines.push(format!("{} kept: {reason}", counted(*count)));
    }
    if found.lacks_copy {
        let text = "Key a in the list of jobs makes the missing copy, or compares the one that is there and writes its manifest. \
            Then the job can be released.";
        lines.push(text.to_owned());
    }
    if jobs.len() <= 3 || found.failed > 0 {
        lines.extend(found.lines.into_lines());
    }
    ActionPlan {
        has_work: found.count > 0,
        lines,
        reasons: Vec::new(),
    }
}

pub(super) fn release(session: &Session, jobs: &[JobId]) -> ActionOutcome {
    let done = run_release(session, jobs, true);
    let text = match done.count {
        0 => "nothing released".to_owned(),
        count => format!(
            "{} released ({} freed)",
            counted(count),
            HumanBytes(done.bytes)
        ),
    };
    ActionOutcome {
        summary: with_others(text, &[(done.kept, "kept"), (done.failed, "failed")]),
        lines: done.lines.into_lines(),
        failed: done.failed > 0,
    }
}

pub(super) fn plan_delete(
    session: &Session,
    jobs: &[JobId],
    global: &Global,
) -> anyhow::Result<ActionPlan> {
    let env = session.env();
    let (found, kept) = (Mutex::new(Vec::new()), Mutex::new(Lines::default()));
    delete_jobs(&env, jobs, None, &|job, event| match event {
        Deletion::Would(plan) => found.lock().push(plan),
        Deletion::Refused(refusal) => kept.lock().add(format!("{job}: kept: {}", refusal.why)),
        Deletion::Failed(error) => kept.lock().add(format!("{job}: {}", why(&error))),
        Deletion::Deleted(..) => {}
    });
    let (found, kept) = (found.into_inner(), kept.into_inner().into_lines());
    let bytes: u64 = found.iter().map(freed).sum();
    let mut locations = BTreeMap::<u8, usize>::new();
    for copy in found.iter().flat_map(|plan| &plan.copies) {
        *locations.entry(copy.location).or_default() += 1;
    }
    let mut lines = match found.len() {
        0 => vec!["Nothing to delete.".to_owned()],
        count => vec![format!(
            "Delete {} EVERYWHERE ({}):",
            counted(count),
            HumanBytes(bytes)
        )],
    };
    for (location, count) in &locations {
        lines.push(format!(
            "  {} in {}",
            counted(*count),
            session.label(*location)
        ));
    }
    if !found.is_empty() {
        lines.push(format!(
            "They go to the trash, and can be brought back for {}.",
            duration(session.opened.tuning.trash())
        ));
    }
    let mut away: BTreeSet<String> = BTreeSet::new();
    for plan in &found {
        for (folder, why) in &plan.away {
            let folder = session.label(*folder);
            away.insert(format!(
                "{folder} cannot be used now ({why}): copies there are deleted when it is back"
            ));
        }
        for folder in &plan.stays {
            let folder = session.label(*folder);
            away.insert(format!(
                "{folder} keeps its copies: nothing is deleted there"
            ));
        }
    }
    lines.extend(away);
    for (location, others) in neighbours(&session.opened, global)? {
        for other in others.iter().filter(|_| locations.contains_key(&location)) {
            lines.push(format!(
                "The workspace {} uses {} too{}: what is deleted is gone from it as well.",
                other.workspace,
                session.label(location),
                other.how()
            ));
        }
    }
    lines.extend(kept);
    Ok(ActionPlan {
        has_work: !found.is_empty(),
        lines,
        reasons: Vec::new(),
    })
}

pub(super) fn delete(session: &Session, jobs: &[JobId]) -> ActionOutcome {
    let env = session.env();
    unfinished::clear_of(&env, &Retired::default(), jobs);
    let counts = Mutex::new((0, 0, 0, 0_u64, Lines::default()));
    delete_jobs(&env, jobs, Some(&Batch::now()), &|job, event| {
        let (deleted, kept, failed, bytes, lines) = &mut *counts.lock();
        match event {
            Deletion::Deleted(plan, done) => {
                *deleted += 1;
                *bytes = bytes.saturating_add(freed(&plan));
                for copy in &plan.copies {
                    if let ("failed", Some(why)) = outcome_in(copy, Some(&done)) {
                        *failed += 1;
                        let place = session.label(copy.location);
                        lines.add(format!("{job} in {place}: not moved to the trash: {why}"));
                    }
                }
            }
            Deletion::Refused(refusal) => {
                *kept += 1;
                lines.add(format!("{job}: kept: {}", refusal.why));
            }
            Deletion::Failed(error) if error.is_cancelled() => {}
            Deletion::Failed(error) => {
                *failed += 1;
                lines.add(format!("{job}: {}", why(&error)));
            }
            Deletion::Would(_) => {}
        }
    });
    let (deleted, kept, failed, bytes, lines) = counts.into_inner();
    let text = match deleted {
        0 => "nothing deleted".to_owned(),
        count => format!(
            "{} deleted ({} in the trash)",
            counted(count),
            HumanBytes(bytes)
        ),
    };
    ActionOutcome {
        summary: with_others(text, &[(kept, "kept"), (failed, "failed")]),
        lines: lines.into_lines(),
        failed: kept + failed > 0,
    }
}

/// The orphans that an action is about.
fn wanted(session: &Session, jobs: Option<&[JobId]>, ignore_folders: bool) -> Orphans {
    let search = Search {
        ignore_folders,
        sizes: true,
    };
    // Again: a run may refer to them since they were shown.
    let mut found = orphans::find(&session.opened.view, search);
    if let Some(jobs) = jobs {
        found.jobs.retain(|orphan| jobs.contains(&orphan.id));
    }
    found
}

/// What was removed, and what was kept.
#[derive(Default)]
struct Cleaned {
    removed: usize,
    bytes: u64,
    kept: usize,
    failed: usize,
    lines: Lines,
}

fn run_clean(session: &Session, found: &Orphans, batch: Option<&Batch>) -> Cleaned {
    let env = session.env();
    let ids: Vec<JobId> = found.jobs.iter().map(|job| job.id.clone()).collect();
    if batch.is_some() {
        unfinished::clear_of(&env, &Retired::default(), &ids);
    }
    let cleaned = Mutex::new(Cleaned::default());
    cleaning::clean(&env, &found.jobs, batch, &|orphan, event| {
        let mut cleaned = cleaned.lock();
        match &event {
            Cleaning::Would(removal) | Cleaning::Removed(removal) => {
                cleaned.removed += 1;
                cleaned.bytes = cleaned.bytes.saturating_add(removal.freed);
            }
            Cleaning::Archived | Cleaning::Away(..) | Cleaning::Refused(_) => cleaned.kept += 1,
            Cleaning::Failed(_) => cleaned.failed += 1,
        }
        if let (_, Some(why)) = outcome(session, &event) {
            cleaned.lines.add(format!("{}: kept: {why}", orphan.id));
        }
    });
    cleaned.into_inner()
}

pub(super) fn plan_clean(
    session: &Session,
    jobs: Option<&[JobId]>,
    ignore_folders: bool,
    global: &Global,
) -> anyhow::Result<ActionPlan> {
    let found = wanted(session, jobs, ignore_folders);
    let would = run_clean(session, &found, None);
    let mut lines = match would.removed {
        0 => vec!["Nothing to remove.".to_owned()],
        count => vec![
            format!(
                "Remove {} ({}) from the primary.",
                orphan_count(count),
                HumanBytes(would.bytes)
            ),
            format!(
                "They go to the trash, and can be brought back for {}.",
                duration(session.opened.tuning.trash())
            ),
        ],
    };
    lines.extend(would.lines.into_lines());
    Ok(ActionPlan {
        has_work: would.removed > 0,
        lines,
        reasons: why_not(session, &found, global)?,
    })
}

fn orphan_count(count: usize) -> String {
    match count {
        1 => "1 orphan".to_owned(),
        count => format!("{count} orphans"),
    }
}

pub(super) fn clean(
    session: &Session,
    jobs: Option<&[JobId]>,
    ignore_folders: bool,
) -> anyhow::Result<ActionOutcome> {
    let found = wanted(session, jobs, ignore_folders);
    if found.jobs.is_empty() {
        bail!("nothing removed: no such orphan is there any more");
    }
    let done = run_clean(session, &found, Some(&Batch::now()));
    let text = match done.removed {
        0 => "nothing removed".to_owned(),
        count => format!(
            "{} removed ({} in the trash)",
            orphan_count(count),
            HumanBytes(done.bytes)
        ),
    };
    Ok(ActionOutcome {
        summary: with_others(text, &[(done.kept, "kept"), (done.failed, "failed")]),
        lines: done.lines.into_lines(),
        failed: done.kept + done.failed > 0,
    })
}

pub(super) fn plan_undelete(session: &Session, jobs: &[(JobId, Batch)]) -> ActionPlan {
    let env = session.env();
    let listed = list_trash(&env).jobs;
    let wanted = listed.iter().filter(|it| {
        let mut jobs = jobs.iter();
        jobs.any(|(job, batch)| *job == it.job && batch.name() == it.batch.name())
    });
    let (mut count, mut bytes, mut lines) = (0, 0_u64, Vec::new());
    for deleted in wanted {
        count += 1;
        for copy in &deleted.copies {
            let size = copy.usage(&env, deleted).map_or(0, |(size, _)| size.bytes);
            bytes = bytes.saturating_add(size);
            lines.push(format!(
                "  {} to {}",
                HumanBytes(size),
                session.label(copy.location)
            ));
        }
    }
    let first = match count {
        0 => "Nothing to bring back: it is not in the trash any more.".to_owned(),
        count => format!("Bring {} ({}) back:", counted(count), HumanBytes(bytes)),
    };
    lines.insert(0, first);
    ActionPlan {
        lines,
        has_work: count > 0,
        reasons: Vec::new(),
    }
}

pub(super) fn undelete(session: &Session, jobs: &[(JobId, Batch)]) -> ActionOutcome {
    let env = session.env();
    let counts = Mutex::new((0, 0, Lines::default()));
    undelete_jobs(&env, jobs, &|job, outcome| {
        let (back, failed, lines) = &mut *counts.lock();
        match matches!(outcome, Ok(Ok(_))) {
            true => *back += 1,
            false => *failed += 1,
        }
        for line in undeleted(session, job, &outcome) {
            lines.add(line);
        }
    });
    let (back, failed, lines) = counts.into_inner();
    ActionOutcome {
        summary: with_others(
            format!("{} brought back", counted(back)),
            &[(failed, "not brought back")],
        ),
        lines: lines.into_lines(),
        failed: failed > 0,
    }
}
