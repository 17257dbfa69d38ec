//! Archives, recovers and verifies jobs, pins them, and opts them out.

use anyhow::{anyhow, bail};
use indicatif::HumanBytes;
use jiff::Timestamp;
use parking_lot::Mutex;

use super::super::order::counted;
use super::outcome::{ActionOutcome, ActionPlan, Lines};
use crate::archive::job::crash_recovery;
use crate::archive::job::opt_out::OptOuts;
use crate::archive::job::ready::{Judge, Readiness};
use crate::archive::job::recover::Recovered;
use crate::archive::job::store::Stored;
use crate::archive::job::{usage, verify as verifying};
use crate::archive::manual::{self, Outcome as Archived};
use crate::archive::relocate::retire::Retired;
use crate::archive::{amount, pins, places, state_dir};
use crate::cli::jobs::archive::not_ready;
use crate::cli::jobs::opt as opting;
use crate::cli::jobs::session::{Session, why};
use crate::cli::jobs::verify::record;
use crate::cli::sentence;
use crate::daemon::archiving;
use crate::transfer::Size;
use crate::workspace::jobs::JobId;

fn opt_outs(session: &Session) -> OptOuts {
    let opened = &session.opened;
    let config = archiving::config(&opened.tuning, &opened.folders);
    OptOuts::new(config.exclude, config.folder_exclude)
}

pub(super) fn plan_archive(session: &Session, jobs: &[JobId]) -> anyhow::Result<ActionPlan> {
    let view = &session.opened.view;
    let folders: Vec<String> = places::archives(view)
        .map(|folder| session.label(folder.index()))
        .collect();
    if folders.is_empty() {
        bail!(
            "the workspace has no `backup` or `move` folder to archive to: add one in {}",
            session.opened.settings.display()
        );
    }
    let sizes = jobs.iter().map_while(|job| {
        let directory = places::job(view.primary(), job).ok().flatten();
        let usage = directory.and_then(|directory| usage::of(job, &directory).ok());
        (!session.progress.is_cancelled()).then(|| usage.map_or(0, |usage| usage.size.bytes))
    });
    let bytes: u64 = sizes.sum();
    Ok(ActionPlan {
        lines: vec![
            format!(
                "Archive {} ({} in the primary) in",
                counted(jobs.len()),
                HumanBytes(bytes)
            ),
            format!("  {}", folders.join(", then ")),
            "A copy that is up to date is compared, and not made again.".to_owned(),
        ],
        has_work: true,
        ..ActionPlan::default()
    })
}

pub(super) fn archive(session: &Session, jobs: &[JobId]) -> anyhow::Result<ActionOutcome> {
    let env = session.env();
    let primary = session.opened.view.primary();
    let judge = Judge::new(opt_outs(session));
    crash_recovery::heal_of(&env, jobs);
    for job in jobs {
        // A recovered job stays in the primary until it is named here.
        state_dir::set_kept(primary, job, false)
            .map_err(|error| anyhow!(state_dir::explain(primary, error)))?;
    }
    let (mut copied, mut up_to_date, mut skipped, mut failed) = (0, 0, 0, 0);
    let mut bytes = 0;
    let mut lines = Lines::default();
    let report = &mut |job: &JobId, outcome: Archived| match outcome {
        Archived::Folder(_, Ok(Stored::Copied { bytes: copy, .. }))
        | Archived::Folder(_, Ok(Stored::Replaced { bytes: copy, .. })) => {
            copied += 1;
            bytes += copy;
        }
        Archived::Folder(_, Ok(Stored::Already)) | Archived::NotReady(Readiness::Elsewhere) => {
            up_to_date += 1;
        }
        Archived::Folder(folder, Ok(Stored::Skipped(reason))) => {
            skipped += 1;
            lines.add(format!("{job}: {}: {reason}", session.label(folder)));
        }
        Archived::NotReady(readiness) => {
            skipped += 1;
            lines.add(format!("{job}: {}", not_ready(&readiness)));
        }
        Archived::PutBack { again: true } => {}
        Archived::PutBack { again: false } => {
            failed += 1;
            lines.add(format!(
                "{job}: a process wrote to it after each move, so it was put back"
            ));
        }
        Archived::Folder(_, Err(error)) | Archived::Unknown(error) => {
            if !error.is_cancelled() {
                failed += 1;
                lines.add(format!("{job}: {}", why(&error)));
            }
        }
    };
    manual::archive(&env, &Retired::default(), &judge, jobs, false, report);
    let made = match copied {
        0 if failed > 0 => "nothing copied".to_owned(),
        0 => "nothing to copy".to_owned(),
        1 => format!("1 copy made ({})", HumanBytes(bytes)),
        copied => format!("{copied} copies made ({})", HumanBytes(bytes)),
    };
    Ok(ActionOutcome {
        summary: with_others(
            made,
            &[
                (up_to_date, "up to date"),
                (skipped, "not archived"),
                (failed, "failed"),
            ],
        ),
        lines: lines.into_lines(),
        failed: failed + skipped > 0,
    })
}

/// `3 copies made: 1 up to date, 2 failed`
pub(super) fn with_others(text: String, others: &[(usize, &str)]) -> String {
    let others = others.iter().filter(|(count, _)| *count > 0);
    let others: Vec<String> = others
        .map(|(count, what)| format!("{count} {what}"))
        .collect();
    match others.is_empty() {
        true => text,
        false => format!("{text}: {}", others.join(", ")),
    }
}

pub(super) fn plan_recover(session: &Session, jobs: &[JobId]) -> ActionPlan {
    let env = session.env();
    let size: Size = jobs
        .iter()
        .map(|job| amount::to_recover(&env, job, None))
        .sum();
    ActionPlan {
        lines: vec![
            format!(
                "Bring {} ({}) back from the folders into",
                counted(jobs.len()),
                HumanBytes(size.bytes)
            ),
            format!("  {}", env.view.primary_path().display()),
            "The copies in the folders stay.".to_owned(),
        ],
        has_work: true,
        ..ActionPlan::default()
    }
}

pub(super) fn recover(session: &Session, jobs: &[JobId]) -> ActionOutcome {
    let env = session.env();
    let size: Size = jobs
        .iter()
        .map(|job| amount::to_recover(&env, job, None))
        .sum();
    session.progress.expect(size);
    let recovered = manual::recover_all(&env, jobs, None, &|_, _| {});
    let (mut copied, mut bytes, mut present, mut failed) = (0, 0, 0, 0);
    let mut lines = Lines::default();
    for (job, recovered) in jobs.iter().zip(recovered) {
        match recovered {
            Ok(Recovered::Copied { bytes: copy, .. }) => {
                copied += 1;
                bytes += copy;
            }
            Ok(Recovered::Present) => present += 1,
            Err(error) if error.is_cancelled() => {}
            Err(error) => {
                failed += 1;
                lines.add(format!("{job}: {}", why(&error)));
            }
        }
    }
    let text = match copied {
        0 if failed > 0 => "nothing recovered".to_owned(),
        0 => "nothing to recover".to_owned(),
        copied => format!("{} recovered ({})", counted(copied), HumanBytes(bytes)),
    };
    ActionOutcome {
        summary: with_others(
            text,
            &[(present, "already in the primary"), (failed, "failed")],
        ),
        lines: lines.into_lines(),
        failed: failed > 0,
    }
}

pub(super) fn plan_verify(session: &Session, jobs: &[JobId]) -> ActionPlan {
    let size = to_verify(session, jobs);
    ActionPlan {
        lines: vec![
            format!(
                "Read the archived copies of {} ({}) again,",
                counted(jobs.len()),
                HumanBytes(size.bytes)
            ),
            "and compare every byte with their manifests. Nothing is changed.".to_owned(),
        ],
        has_work: true,
        ..ActionPlan::default()
    }
}

fn to_verify(session: &Session, jobs: &[JobId]) -> Size {
    let env = session.env();
    let folders = session.archives();
    let env = &env;
    let of = |job| {
        let folders = folders.iter();
        folders.map(move |folder| amount::to_verify(env, *folder, job))
    };
    jobs.iter().flat_map(of).sum()
}

pub(super) fn verify(session: &Session, jobs: &[JobId]) -> ActionOutcome {
    let env = session.env();
    session.progress.expect(to_verify(session, jobs));
    let (mut ok, mut wrong, mut absent) = (0, 0, 0);
    let mut lines = Lines::default();
    for job in jobs {
        let mut found = false;
        for folder in session.archives() {
            let since = Some(Timestamp::now());
            let verified = verifying::verify(&env, folder, job);
            if let Err(why) = record(session, folder, job, &verified, since) {
                lines.add(format!("{job}: `xpmfs status` will not show this: {why}"));
            }
            let place = session.label(folder);
            match verified {
                Ok(None) => continue,
                Ok(Some(verified)) => match verified.finding() {
                    None if verified.is_denied() => {
                        wrong += 1;
                        lines.add(format!("{job} in {place}: cannot be read by this user"));
                    }
                    None => ok += 1,
                    Some(finding) => {
                        wrong += 1;
                        lines.add(format!("{job} in {place}: {finding}"));
                    }
                },
                Err(error) if error.is_cancelled() => {}
                Err(error) => {
                    wrong += 1;
                    lines.add(format!("{job} in {place}: {}", why(&error)));
                }
            }
            found = true;
        }
        if session.progress.is_cancelled() {
            break;
        }
        if !found {
            absent += 1;
            lines.add(format!("{job}: no `backup` or `move` folder has it"));
        }
    }
    let read = HumanBytes(session.progress.bytes());
    let copies = if ok == 1 { "copy" } else { "copies" };
    ActionOutcome {
        summary: with_others(
            format!("{ok} {copies} OK ({read} read)"),
            &[(wrong, "NOT OK"), (absent, "without an archived copy")],
        ),
        lines: lines.into_lines(),
        failed: wrong + absent > 0,
    }
}

pub(super) fn plan_pin(count: usize, pinned: bool) -> ActionPlan {
    let text = match pinned {
        true => format!("Pin {}: never released from the primary.", counted(count)),
        false => format!("Unpin {}: may be released again.", counted(count)),
    };
    ActionPlan {
        lines: vec![text, "No bytes are copied or removed.".to_owned()],
        has_work: true,
        ..ActionPlan::default()
    }
}

pub(super) fn pin(session: &Session, jobs: &[JobId], pinned: bool) -> ActionOutcome {
    let primary = session.opened.view.primary();
    let mut lines = Lines::default();
    let (mut done, mut failed) = (0, 0);
    for job in jobs {
        match pins::set_pinned(primary, job, pinned) {
            Ok(_) => done += 1,
            Err(error) => {
                failed += 1;
                lines.add(format!("{job}: {}", pins::explain(primary, job, error)));
            }
        }
    }
    let what = if pinned { "pinned" } else { "no longer pinned" };
    ActionOutcome {
        summary: with_others(format!("{} {what}", counted(done)), &[(failed, "failed")]),
        lines: lines.into_lines(),
        failed: failed > 0,
    }
}

pub(super) fn plan_opt(count: usize, out: bool) -> ActionPlan {
    let text = match out {
        true => format!(
            "Exclude {} from archiving. Existing copies are kept.",
            counted(count)
        ),
        false => format!("Include {} in archiving again.", counted(count)),
    };
    ActionPlan {
        lines: vec![text, "No bytes are copied or removed now.".to_owned()],
        has_work: true,
        ..ActionPlan::default()
    }
}

pub(super) fn opt(session: &Session, jobs: &[JobId], out: bool) -> ActionOutcome {
    let outs = opt_outs(session);
    let lines = Mutex::new(Lines::default());
    let (mut done, mut failed) = (0, 0);
    for job in jobs {
        let line = match opting::set(session, &outs, job, out) {
            Ok(Some(done_now)) => {
                done += 1;
                format!("{job} {done_now}")
            }
            Ok(None) => {
                failed += 1;
                format!("{job}: not in the primary")
            }
            Err(error) => {
                failed += 1;
                format!("{job}: {}", sentence(&error))
            }
        };
        if jobs.len() > 1 || failed > 0 {
            lines.lock().add(line);
        }
    }
    let what = match out {
        true => "will no longer be archived",
        false => "will be archived again",
    };
    ActionOutcome {
        summary: with_others(format!("{} {what}", counted(done)), &[(failed, "failed")]),
        lines: lines.into_inner().into_lines(),
        failed: failed > 0,
    }
}
