//! `xpmfs tui`: a dashboard of a workspace in the terminal. It shows where results are, which have no second copy, and what can be freed.
//!
//! The screen waits for no disk: one thread draws and handles keys, and others look at the disks, for as long as those take. All send events
//! through one channel. Rows of jobs in memory are as small as they can be, and only the rows that show are made and looked at closely. The
//! lists are those of the commands (`archive::job_list`, `orphans`, `status::gather` …), and actions call the same functions of the archive,
//! each with a session of its own.
//!
//! - `screen`: the terminal and its restoration; `event`, `event_loop`: the channel and its threads; `list`, `dialog`, `text_edit`, `theme`:
//!   parts of the screen
//! - `app`: the dashboard; `input`: its keys; `confirmation`: its actions; `tabs`: its tabs; `detail`: an open job; `job_summary`: where it is
//!   served and copied; `request`: what a tab asks for; `messages`: what it has said; `help`: keys; `bottom`: the last lines; `clipboard`:
//!   OSC 52
//! - `model`: what is known; `reported`: what mounts and archivers reported; `jobs`, `row`: the jobs in memory; `safety`: which have a second
//!   copy; `watchers`: the threads that look at the workspace
//! - `read`: files, parameters and logs of an open job; `params`: makes parameters readable
//! - `remote`: the dashboard of a workspace on another machine
//! - `order`: an action; `actions`: what it would do, and doing it

mod actions;
mod app;
mod bottom;
mod clipboard;
mod confirmation;
mod detail;
mod dialog;
mod event;
mod event_loop;
mod help;
mod input;
mod job_summary;
mod jobs;
mod list;
mod messages;
mod model;
mod order;
mod params;
mod read;
pub(in crate::cli) mod remote;
mod reported;
mod request;
mod row;
mod safety;
mod screen;
mod tabs;
mod text_edit;
mod theme;
mod watchers;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::Args;

use self::app::App;
use self::event::Event;
use self::screen::{Screen, expect_terminal};
use self::watchers::WatchResult;
use super::front;
use super::jobs::session::{Session, Which};
use super::open::More;
use super::{Global, Select};

/// How long the workspace may take to be opened before the dashboard comes up without it: an error shows better on a terminal as it was.
const OPEN_TIMEOUT: Duration = Duration::from_millis(300);

/// Which workspace.
#[derive(Debug, Args)]
pub struct Arguments {
    /// More folders.
    #[command(flatten)]
    more: More,
    /// Which workspace.
    #[command(flatten)]
    select: Select,
}

/// Shows the dashboard until it is quit.
///
/// # Errors
///
/// There is no terminal, or the workspace cannot be opened.
pub fn run(arguments: &Arguments, global: &Global) -> anyhow::Result<ExitCode> {
    expect_terminal("`xpmfs status` and `xpmfs jobs list` print the same")?;
    let which = Which {
        jobs: Vec::new(),
        more: arguments.more.clone(),
        select: arguments.select.clone(),
    };
    let (events, received) = event::channel();
    let (opening, opened) = crossbeam_channel::bounded(1);
    let (asked, with) = (which.clone(), global.clone());
    let thread = std::thread::Builder::new().name("xpmfs-open".to_owned());
    let spawned = thread.spawn(move || {
        let session = Session::open(&asked, &[], &with).map(Arc::new);
        let _ = opening.send(session);
    });
    spawned.context("cannot start a thread")?;
    let mut early = opened.recv_timeout(OPEN_TIMEOUT).ok();
    if let Some(Err(error)) = early {
        return Err(error);
    }
    let mut screen = Screen::enter(&events)?;
    event::read_input(events.clone()).context("cannot read the terminal")?;
    #[cfg(debug_assertions)]
    panic_for_a_test();
    let mut app = App::new(which, global.clone(), events.clone());
    if let Some(session) = early.take() {
        events.send(Event::Found(WatchResult::Opened(session)))?;
    } else {
        let events = events.clone();
        let thread = std::thread::Builder::new().name("xpmfs-opened".to_owned());
        let spawned = thread.spawn(move || {
            if let Ok(session) = opened.recv() {
                let _ = events.send(Event::Found(WatchResult::Opened(session)));
            }
        });
        spawned.context("cannot start a thread")?;
    }
    drop(events);
    let signal = event_loop::run(&mut app, &mut screen, &received);
    drop(screen);
    if let Some(signal) = signal? {
        front::end_by(signal);
    }
    match app.failed {
        Some(error) => Err(error),
        None => Ok(ExitCode::SUCCESS),
    }
}

/// Lets a thread panic, for a test that looks at what is left of the terminal.
#[cfg(debug_assertions)]
#[allow(clippy::panic)]
fn panic_for_a_test() {
    if std::env::var_os("XPMFS_TEST_PANIC").is_some() {
        std::thread::spawn(|| std::panic::panic_any("for a test"));
    }
}
