//! `xpmfs jobs list`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::bail;
use clap::{Args, ValueEnum};
use clap_complete::engine::ArgValueCompleter;
use indicatif::HumanBytes;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::session::{Session, Which};
use crate::archive::job_list::{self, JobList, JobLocation, ListedJob, Query, SortKey, UNKNOWN};
use crate::archive::places;
use crate::cli::columns::{Column, Columns, terminal_width};
use crate::cli::errors::Usage;
use crate::cli::style::{Colours, Tone, age};
use crate::cli::{Global, Listing, candidates, print};
use crate::view::{Location, PRIMARY};
use crate::workspace::filter::{Filter, tag_text};
use crate::workspace::job_files::JobState;

/// How much of a hash is shown where a table would not fit the terminal.
const HASH_SHOWN: usize = 12;

/// Which jobs.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Only jobs that pass this filter, as in '@state = "DONE" and model in ["bm25", "splade"]'
    ///
    /// A comparison is `NAME = "TEXT"`, `NAME ~ "PATTERN"` (a regular expression of Python, from the start on), `NAME in ["TEXT", ...]`
    /// or `NAME not in [...]`. NAME is a tag, @state (unscheduled, waiting, ready, scheduled, running, done, error; case does not matter) or
    /// @name (the task's id). `and` and `or` combine them from left to right; parentheses group them.
    #[arg(long, value_name = "FILTER", display_order = 1)]
    filter: Option<String>,
    /// Only jobs that this location serves: primary, use, backup, move, or the path of a folder
    #[arg(long, value_name = "LOCATION", add = ArgValueCompleter::new(candidates::locations), display_order = 2)]
    location: Option<OsString>,
    /// Show the tags
    #[arg(long, display_order = 3)]
    tags: bool,
    /// Show the sizes: looks at every file
    #[arg(long, display_order = 4)]
    size: bool,
    /// Show paths in place of names
    #[arg(long, display_order = 5)]
    fullpath: bool,
    /// The order
    #[arg(
        long,
        value_name = "ORDER",
        default_value = "submitted",
        hide_default_value = true,
        display_order = 6
    )]
    sort: Order,
    /// The opposite order
    #[arg(short, long, display_order = 7)]
    reverse: bool,
    /// Only the first N; 0 sets no limit
    #[arg(short = 'c', long, value_name = "N", display_order = 8)]
    count: Option<usize>,
    /// How they are printed.
    #[command(flatten)]
    pub(super) listing: Listing,
    /// The jobs.
    #[command(flatten)]
    which: Which,
}

/// The orders.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Order {
    #[value(help = "Last submitted first [default]")]
    Submitted,
    /// Last ended or changed first
    Age,
    /// By name
    Name,
    /// By state
    State,
    /// Largest first
    Size,
    /// By location
    Location,
}

impl Order {
    fn key(self) -> SortKey {
        match self {
            Order::Submitted => SortKey::Submitted,
            Order::Age => SortKey::Changed,
            Order::Name => SortKey::Name,
            Order::State => SortKey::State,
            Order::Size => SortKey::Size,
            Order::Location => SortKey::Location,
        }
    }
}

pub(super) fn run(arguments: &Arguments, global: &Global) -> anyhow::Result<ExitCode> {
    let filter = arguments.filter.as_deref().map(Filter::parse).transpose();
    let filter = filter.map_err(|error| Usage(error.to_string()))?;
    let session = Session::open(&arguments.which, &[], global)?;
    let locations = arguments.location.as_ref();
    let locations = locations.map(|text| named(&session, text)).transpose()?;
    let jobs = match arguments.which.jobs.is_empty() {
        true => None,
        false => {
            let named = session.named(&arguments.which)?;
            Some(named.jobs.iter().cloned().collect())
        }
    };
    let sizes = arguments.size || arguments.sort == Order::Size;
    let query = Query {
        experiment: arguments
            .which
            .select
            .experiment
            .clone()
            .map(OsString::from),
        jobs,
        sizes,
        outdated: false,
    };
    let mut list = job_list::list(&session.opened.view, &query)?;
    list.unread.iter().for_each(|why| print::line(why));
    let is_whole = arguments.which.jobs.is_empty() && query.experiment.is_none();
    if list.jobs.is_empty() && list.unread.is_empty() && is_whole && !global.quiet {
        print::line(&no_jobs(&session));
    }
    if let Some(filter) = &filter {
        for state in filter.unknown_states() {
            print::line(&format!(
                "note: no job has the state {state:?}: states are unscheduled, waiting, ready, scheduled, running, done, error"
            ));
        }
        let has = |tag: &str| list.jobs.iter().any(|job| job.tags.get(tag).is_some());
        for tag in filter.tags().into_iter().filter(|tag| !has(tag)) {
            print::line(&format!("note: none of these jobs has a tag {tag:?}"));
        }
        list.filter(filter)?;
    }
    if let Some(locations) = &locations {
        list.keep_at(locations);
    }
    list.sort(arguments.sort.key());
    if arguments.reverse {
        list.jobs.reverse();
    }
    // As in experimaestro, 0 sets no limit.
    if let Some(count) = arguments.count.filter(|count| *count > 0) {
        list.jobs.truncate(count);
    }
    match global.json {
        true => {
            let jobs = list.jobs.iter().map(|job| as_json(&session, job));
            print::json(&jobs.collect::<Vec<_>>())?;
        }
        false => print::text(&table(arguments, sizes, &session, &list))?,
    }
    Ok(match list.unread.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

/// Why nothing is listed.
fn no_jobs(session: &Session) -> String {
    let view = &session.opened.view;
    let primary = view.primary_path().display();
    match view.folders().is_empty() {
        true => format!(
            "note: {primary} has no jobs, and no folders in the settings: check the path, or add --folder MODE:PATH"
        ),
        false => format!("note: neither {primary} nor its folders have jobs"),
    }
}

/// The locations that a text names.
fn named<'a>(session: &'a Session, text: &OsString) -> anyhow::Result<Vec<&'a Location>> {
    let all = session.opened.view.locations().iter();
    let all: Vec<&Location> = all.map(|location| &**location).collect();
    let path = PathBuf::from(text);
    let is_named = |location: &&&Location| {
        let label = location.label();
        location.role().to_string().as_str() == text
            || label == text.as_encoded_bytes()
            || location.path() == path
    };
    let found: Vec<&Location> = all.iter().filter(is_named).copied().collect();
    if found.is_empty() {
        let labels = all.iter().map(|it| session.label(it.index()));
        bail!(
            "{} is not a location of this workspace, whose locations are {}",
            text.display(),
            labels.collect::<Vec<_>>().join(", ")
        );
    }
    Ok(found)
}

fn table(arguments: &Arguments, sizes: bool, session: &Session, list: &JobList) -> String {
    let width = terminal_width();
    let whole = columns(arguments, sizes, session, list, None);
    let fits = width.is_none_or(|width| whole.width() <= width);
    let shown = match fits || arguments.fullpath {
        true => whole,
        false => columns(arguments, sizes, session, list, Some(HASH_SHOWN)),
    };
    shown.text(Colours::of_stdout(), width)
}

fn columns(
    arguments: &Arguments,
    sizes: bool,
    session: &Session,
    list: &JobList,
    hash_length: Option<usize>,
) -> Columns {
    let mut titles = vec![
        Column::text("STATE"),
        Column::text(if arguments.fullpath { "PATH" } else { "JOB" }),
    ];
    if arguments.tags {
        titles.push(Column::cut("TAGS", 12));
    }
    if sizes {
        titles.push(Column::number("SIZE"));
    }
    titles.push(Column::number("AGE"));
    titles.push(Column::cut("LOCATION", 8));
    let mut columns = Columns::new(titles);
    let now = Timestamp::now();
    for job in &list.jobs {
        let mut cells = vec![state(job)];
        let name = match (arguments.fullpath, hash_length) {
            (true, _) => path(session, job).display().to_string(),
            (false, None) => job.id.to_string(),
            (false, Some(length)) => {
                let hash = job.id.hash().to_string_lossy();
                let hash: String = hash.chars().take(length).collect();
                format!("{}/{hash}", job.id.task_id().display())
            }
        };
        cells.push((name, Tone::Plain));
        if arguments.tags {
            let tags = job.tags.iter();
            let tags = tags.map(|(name, value)| format!("{name}={}", tag_text(value)));
            cells.push((tags.collect::<Vec<_>>().join(" "), Tone::Plain));
        }
        if sizes {
            let bytes = job
                .usage
                .map(|usage| HumanBytes(usage.size.bytes).to_string());
            let unknown = || match job.location {
                JobLocation::Missing => String::new(),
                _ => "?".to_owned(),
            };
            cells.push((bytes.unwrap_or_else(unknown), Tone::Plain));
        }
        let age = job.changed.map_or_else(String::new, |time| age(time, now));
        cells.push((age, Tone::Plain));
        cells.push((location_label(session, job), Tone::Plain));
        columns.row(cells);
    }
    columns
}

fn state(job: &ListedJob) -> (String, Tone) {
    let tone = match &job.state {
        JobState::Done => Tone::Good,
        JobState::Error => Tone::Bad,
        JobState::Running | JobState::Scheduled => Tone::Warning,
        JobState::Other(other) if other == UNKNOWN => Tone::Bad,
        _ => Tone::Plain,
    };
    (job.state.to_string(), tone)
}

/// Whether a location cannot be used now.
fn is_away(session: &Session, location: u8) -> bool {
    let location = session.opened.view.location(location);
    location.is_some_and(Location::is_away)
}

/// The location of a job, for a person.
fn location_label(session: &Session, job: &ListedJob) -> String {
    match job.location {
        JobLocation::At(location) if is_away(session, location) => {
            format!("{} (offline)", session.label(location))
        }
        JobLocation::At(location) => session.label(location),
        JobLocation::Missing => "missing".to_owned(),
        JobLocation::Unknown => "?".to_owned(),
    }
}

/// Where a job can be found: in the workspace if that is mounted in place, or else where it lies.
fn path(session: &Session, job: &ListedJob) -> PathBuf {
    let view = &session.opened.view;
    let location = match job.location {
        JobLocation::At(location) if !session.opened.is_mounted_in_place => location,
        _ => PRIMARY,
    };
    let location = view.location(location).unwrap_or(view.primary());
    places::path(location, &job.id)
}

/// The entry of a job: docs/json.md lists the keys.
fn as_json(session: &Session, job: &ListedJob) -> Value {
    let time = |time: Option<Timestamp>| time.map(|time| time.to_string());
    let run = job.run.as_ref();
    let location = match job.location {
        JobLocation::At(location) => Some(session.label(location)),
        JobLocation::Missing | JobLocation::Unknown => None,
    };
    let is_ended = matches!(job.state, JobState::Done | JobState::Error);
    json!({
        "job": job.id.to_string(),
        "task": job.id.task_id().to_string_lossy(),
        "state": job.state.to_string(),
        "reason": job.failure_reason,
        "tags": job.tags,
        "experiment": run.map(|(experiment, _)| experiment.to_string_lossy()),
        "run": run.map(|(_, run)| run),
        "submitted": time(job.submitted),
        "ended": time(job.changed.filter(|_| is_ended)),
        "changed": time(job.changed),
        "location": location,
        "offline": matches!(job.location, JobLocation::At(location) if is_away(session, location)),
        "missing": job.location == JobLocation::Missing,
        "path": path(session, job).to_string_lossy(),
        "files": job.usage.map(|usage| usage.size.files),
        "bytes": job.usage.map(|usage| usage.size.bytes),
    })
}
