//! `xpmfs jobs archive`.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, anyhow, bail};
use clap::{Args, ValueHint};
use indicatif::HumanBytes;
use serde_json::{Value, json};

use super::interrupt::Interrupt;
use super::meter::Meter;
use super::{bandwidth, env, expect_jobs, label, named, why};
use crate::archive::env::Env;
use crate::archive::job::crash_recovery;
use crate::archive::job::opt_out::OptOuts;
use crate::archive::job::ready::{Judge, Readiness, unknown};
use crate::archive::job::store::{Skipped, Stored};
use crate::archive::manual::{self, Outcome};
use crate::archive::relocate::retire::Retired;
use crate::archive::{places, state_dir};
use crate::cli::open::{More, Opened, open};
use crate::cli::{Global, Listing, Select, print};
use crate::daemon::archiving;
use crate::daemon::run::raise_descriptor_limit;
use crate::transfer::Progress;
use crate::workspace::jobs::JobId;

/// Which jobs.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The jobs: task_id/hash, or the beginning of a hash
    #[arg(value_name = "JOB", value_hint = ValueHint::Other, conflicts_with = "all")]
    jobs: Vec<OsString>,
    /// Every finished job of the workspace
    #[arg(long)]
    all: bool,
    /// Also jobs that are opted out, and also where a folder's copy holds more or is newer
    #[arg(long)]
    force: bool,
    /// Threads that copy [default: two per processor, from 4 to 16]
    #[arg(long, value_name = "N", hide = true)]
    threads: Option<usize>,
    /// Nothing asks: archiving loses nothing.
    #[arg(short, long, hide = true)]
    yes: bool,
    /// How the outcome is printed.
    #[command(flatten)]
    listing: Listing,
    /// More folders.
    #[command(flatten)]
    more: More,
    /// Which workspace.
    #[command(flatten)]
    select: Select,
}

impl Arguments {
    pub(super) fn listing(&self) -> &Listing {
        &self.listing
    }
}

/// Every finished job of a workspace.
pub(super) fn all(
    listing: &Listing,
    (select, more): (&Select, &More),
    global: &Global,
) -> anyhow::Result<ExitCode> {
    let arguments = Arguments {
        jobs: Vec::new(),
        all: true,
        force: false,
        threads: None,
        yes: false,
        listing: listing.clone(),
        more: more.clone(),
        select: select.clone(),
    };
    run(&arguments, global)
}

/// The keys of an entry of `--json` that have fixed values; docs/json.md lists them.
#[derive(Default)]
struct Listed {
    folder: Option<String>,
    result: &'static str,
    reason: Option<&'static str>,
    files: Option<u64>,
    bytes: Option<u64>,
}

impl Listed {
    fn of(outcome: &Outcome, label: impl Fn(u8) -> String) -> Listed {
        let plain = |result| Listed {
            result,
            ..Listed::default()
        };
        let not_archived = |reason| Listed {
            reason: Some(reason),
            ..plain("not_archived")
        };
        match outcome {
            Outcome::Folder(folder, stored) => {
                let folder = label(*folder);
                let moves = folder.starts_with("move:");
                let listed = match stored {
                    Ok(stored) => Listed::stored(*stored, moves),
                    Err(error) if error.is_cancelled() => plain("cancelled"),
                    Err(_) => plain("failed"),
                };
                Listed {
                    folder: Some(folder),
                    ..listed
                }
            }
            Outcome::Unknown(error) if error.is_cancelled() => plain("cancelled"),
            Outcome::Unknown(_) => plain("failed"),
            Outcome::PutBack { .. } => not_archived("put_back"),
            Outcome::NotReady(readiness) => match readiness {
                Readiness::Elsewhere => plain("present"),
                Readiness::Ready { .. } | Readiness::Settling(_) => not_archived("settling"),
                Readiness::Busy(_) => not_archived("busy"),
                Readiness::Unfinished => not_archived("unfinished"),
                Readiness::Failed => not_archived("job_failed"),
                Readiness::Lost => not_archived("lost"),
                Readiness::Absent => not_archived("absent"),
                Readiness::OptedOut(_) => not_archived("opted_out"),
                Readiness::Unknown(_) => not_archived("unknown"),
            },
        }
    }

    fn stored(stored: Stored, moves: bool) -> Listed {
        let (result, reason, copied) = match stored {
            Stored::Copied { files, bytes } if moves => ("moved", None, Some((files, bytes))),
            Stored::Copied { files, bytes } => ("copied", None, Some((files, bytes))),
            Stored::Replaced { files, bytes } => ("replaced", None, Some((files, bytes))),
            // The folder had the copy before, and the job is moved to it.
            Stored::Already if moves => ("moved", None, Some((0, 0))),
            Stored::Already => ("present", None, None),
            Stored::Skipped(Skipped::Gone) => ("skipped", Some("gone"), None),
            Stored::Skipped(Skipped::Unfinished) => ("skipped", Some("unfinished"), None),
            Stored::Skipped(Skipped::Older) => ("skipped", Some("copy_newer"), None),
            Stored::Skipped(Skipped::Kept) => ("skipped", Some("recovered"), None),
        };
        Listed {
            result,
            reason,
            files: copied.map(|(files, _)| files),
            bytes: copied.map(|(_, bytes)| bytes),
            ..Listed::default()
        }
    }

    fn json(&self, job: &JobId, why: Option<String>) -> Value {
        json!({
            "job": job.to_string(),
            "folder": self.folder,
            "result": self.result,
            "reason": self.reason,
            "files": self.files,
            "bytes": self.bytes,
            "why": why,
        })
    }
}

/// What became of all.
#[derive(Default)]
struct Tally {
    copied: u64,
    files: u64,
    bytes: u64,
    already: u64,
    /// Jobs that were left as they are: how many for which reason.
    left: BTreeMap<&'static str, u64>,
    failed: u64,
    cancelled: u64,
    lines: Vec<Value>,
}

pub(super) fn run(arguments: &Arguments, global: &Global) -> anyhow::Result<ExitCode> {
    if !arguments.all {
        expect_jobs(&arguments.jobs, "archive", Some("every finished job"))?;
    }
    // The more may be open, the more jobs go together.
    raise_descriptor_limit();
    let opened = open(&arguments.select, &arguments.more.folders, global)?;
    let progress = Arc::new(Progress::new());
    let (retired, limit) = (Retired::default(), bandwidth(&opened));
    let threads = arguments.threads.unwrap_or_else(manual::threads);
    let env = Env {
        force: arguments.force,
        ..env(&opened, &progress, limit.as_ref(), threads)
    };
    if places::archives(&opened.view).next().is_none() {
        bail!(
            "the workspace has no `backup` or `move` folder to archive to: add one in {}",
            opened.settings.display()
        );
    }
    let config = archiving::config(&opened.tuning, &opened.folders);
    let judge = Judge::new(OptOuts::new(config.exclude, config.folder_exclude));
    let (jobs, unlisted) = if arguments.all {
        manual::all_jobs(&env, &retired).with_context(|| {
            format!(
                "cannot list the jobs of {}",
                opened.workspace.path.display()
            )
        })?
    } else {
        let jobs = named(&opened, &arguments.jobs)?;
        crash_recovery::heal_of(&env, &jobs);
        for job in &jobs {
            // Whoever names it wants it moved.
            let primary = opened.view.primary();
            state_dir::set_kept(primary, job, false)
                .map_err(|error| anyhow!(state_dir::explain(primary, error)))?;
        }
        (jobs, Vec::new())
    };
    let interrupt = Interrupt::cancels(&progress);
    let meter = Meter::new(jobs.len(), &progress, global);
    let mut tally = Tally::default();
    for task in &unlisted {
        tally.failed += 1;
        meter.say(&task.to_string());
        tally.lines.push(json!({
            "job": null, "folder": null, "result": "unlisted", "reason": null,
            "files": null, "bytes": null, "why": task.to_string(),
        }));
    }
    let report = &mut |job: &JobId, outcome| {
        tally.add(&opened, job, outcome, arguments.all, &meter, global);
    };
    manual::archive(&env, &retired, &judge, &jobs, arguments.force, report);
    meter.end();
    let interrupted = interrupt.came();
    drop(interrupt);
    if global.json {
        print::json(&tally.lines)?;
    } else if !global.quiet {
        print::line(&tally.summary());
    }
    Ok(match tally.failed {
        0 if !interrupted => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    })
}

impl Tally {
    fn add(
        &mut self,
        opened: &Opened,
        job: &JobId,
        outcome: Outcome,
        all: bool,
        meter: &Meter,
        global: &Global,
    ) {
        let mut listed = Listed::of(&outcome, |folder| label(opened, folder));
        let (folder, result, why, wrong) = match outcome {
            Outcome::Folder(_, Err(error)) | Outcome::Unknown(error) if error.is_cancelled() => {
                self.cancelled += 1;
                self.lines.push(listed.json(job, None));
                return meter.job();
            }
            Outcome::Folder(folder, Ok(stored)) => {
                let place = label(opened, folder);
                let (result, why) = self.stored(stored, place.starts_with("move:"));
                if global.verbose > 0 || (why.is_some() && !global.quiet) {
                    let why = why
                        .as_ref()
                        .map_or_else(String::new, |why| format!(": {why}"));
                    meter.say(&format!("{job}: {result} {place}{why}"));
                }
                (Some(place), result, why, false)
            }
            Outcome::Folder(folder, Err(error)) => (
                Some(label(opened, folder)),
                "failed",
                Some(why(&error)),
                true,
            ),
            // That it was put back has been said.
            Outcome::PutBack { again: true } => return meter.jobs(1),
            Outcome::PutBack { again: false } => {
                let why = "it was written to each time it had just been moved, and was put back: try again later";
                (None, "not archived", Some(why.to_owned()), true)
            }
            Outcome::Unknown(error) => (None, "failed", Some(why(&error)), true),
            // Of all jobs, those are meant that may be archived.
            Outcome::NotReady(readiness) if all && is_usual(&readiness) => {
                if let Readiness::OptedOut(_) = readiness {
                    self.leave("opted out");
                    self.lines
                        .push(listed.json(job, Some(not_ready(&readiness))));
                }
                return meter.job();
            }
            Outcome::NotReady(readiness) => {
                // Moved already is what was asked for.
                let wrong = readiness != Readiness::Elsewhere;
                let why = not_ready(&readiness);
                if !wrong {
                    self.already += 1;
                    if !global.quiet {
                        meter.say(&format!("{job}: {why}"));
                    }
                }
                (None, "not archived", Some(why), wrong)
            }
        };
        if wrong {
            self.failed += 1;
            let place = folder
                .as_ref()
                .map_or_else(String::new, |folder| format!(" in {folder}"));
            meter.say(&format!(
                "{job}: {result}{place}: {}",
                why.as_deref().unwrap_or_default()
            ));
        }
        meter.job();
        listed.folder = folder;
        self.lines.push(listed.json(job, why));
    }

    fn stored(&mut self, stored: Stored, moves: bool) -> (&'static str, Option<String>) {
        match stored {
            Stored::Copied { files, bytes } => {
                self.count(files, bytes);
                (if moves { "moved to" } else { "copied to" }, None)
            }
            Stored::Replaced { files, bytes } => {
                self.count(files, bytes);
                ("replaced in", None)
            }
            Stored::Already => {
                self.already += 1;
                let result = match moves {
                    true => "moved to its copy in",
                    false => "is already in",
                };
                (result, None)
            }
            Stored::Skipped(left) => {
                if let Some(why) = kept_apart(left) {
                    self.leave(why);
                }
                (
                    "left as it is in",
                    (left != Skipped::Gone).then(|| left.to_string()),
                )
            }
        }
    }

    fn leave(&mut self, why: &'static str) {
        *self.left.entry(why).or_default() += 1;
    }

    fn count(&mut self, files: u64, bytes: u64) {
        self.copied += 1;
        self.files += files;
        self.bytes += bytes;
    }

    fn summary(&self) -> String {
        let mut text = match self.copied {
            0 => "nothing was to be copied".to_owned(),
            1 => format!(
                "1 copy of a job was made ({} files, {})",
                self.files,
                HumanBytes(self.bytes)
            ),
            copied => format!(
                "{copied} copies of jobs were made ({} files, {})",
                self.files,
                HumanBytes(self.bytes)
            ),
        };
        if self.already > 0 {
            let were = were(self.already);
            text.push_str(&format!("; {} {were} there already", self.already));
        }
        let left: u64 = self.left.values().sum();
        if left > 0 {
            let reasons = self
                .left
                .iter()
                .map(|(why, count)| format!("{count} {why}"));
            let reasons = reasons.collect::<Vec<_>>().join(", ");
            let as_they_are = if left == 1 { "as it is" } else { "as they are" };
            text.push_str(&format!(
                "; {left} {} left {as_they_are} ({reasons})",
                were(left)
            ));
        }
        if self.cancelled > 0 {
            text.push_str(&format!(
                "; {} not archived, of which nothing is left in a folder",
                self.cancelled
            ));
        }
        if self.failed > 0 {
            text.push_str(&format!("; {} failed", self.failed));
        }
        text
    }
}

fn were(count: u64) -> &'static str {
    match count {
        1 => "was",
        _ => "were",
    }
}

/// What is said of jobs that were left as they are; of one that has gone meanwhile, nothing.
fn kept_apart(left: Skipped) -> Option<&'static str> {
    match left {
        Skipped::Gone => None,
        Skipped::Unfinished => Some("not finished any more"),
        Skipped::Older => Some("older or less than its copy"),
        Skipped::Kept => Some("recovered by hand"),
    }
}

/// Whether most workspaces have such jobs.
fn is_usual(readiness: &Readiness) -> bool {
    matches!(
        readiness,
        Readiness::Unfinished
            | Readiness::Failed
            | Readiness::Elsewhere
            | Readiness::OptedOut(_)
            | Readiness::Absent
    )
}

fn not_ready(readiness: &Readiness) -> String {
    match readiness {
        Readiness::Ready { .. } => "it is ready".to_owned(),
        Readiness::Settling(_) => "it still changes: try again later".to_owned(),
        Readiness::Busy(why) => format!("{why}: try again later"),
        Readiness::Unfinished => "it has not finished: it has no `.done`".to_owned(),
        Readiness::Failed => "it has failed, and only jobs that succeeded are archived".to_owned(),
        Readiness::Elsewhere => "it has been moved to a folder already".to_owned(),
        Readiness::Lost => {
            "the workspace has a symlink in its place, and no `backup` or `move` folder has the job"
                .to_owned()
        }
        Readiness::Absent => "the workspace's own directory does not have it".to_owned(),
        Readiness::OptedOut(how) => {
            format!("it is opted out, as {how}: --force archives it nevertheless")
        }
        Readiness::Unknown(file) => unknown(file),
    }
}
