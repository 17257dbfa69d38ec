//! The dashboard of a workspace on another machine, which experimaestro's `monitor-server` there reports on.
//!
//! As in the dashboard of a workspace here, the screen waits for nothing: [`Monitor`] has the connection in a thread of its own, `logs` reads
//! logs in another, and both send events.
//!
//! - `app`: the dashboard; `input`: its keys; `tab`: its tabs; `request`: what these ask the dashboard for;
//!   `jobs_tab`, `runs_tab`, `services_tab`: what they show; `job_part`: an open job
//! - `model`: the last answers; `xpmfs`: those of `xpmfs` there; `act`: killing and deleting jobs; `logs`: the thread that reads logs; `keys`: the keys, for help

mod act;
mod app;
mod input;
mod job_part;
mod jobs_tab;
mod keys;
mod logs;
mod model;
mod request;
mod runs_tab;
mod services_tab;
mod tab;
mod xpmfs;

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::Context;

use self::app::RemoteApp;
use self::logs::LogReader;
use self::model::{RemoteFound, RemoteModel};
use self::xpmfs::XpmfsThere;
use super::event::{self, Event};
use super::event_loop;
use super::screen::Screen;
use crate::cli::front;
use crate::remote::monitor::{Connected, Monitor};

pub(in crate::cli) use super::screen::expect_terminal;

const NO_THREAD: &str = "cannot start a thread";

/// Shows the dashboard of a workspace until it is quit. `xpmfs`: the program there, for the tabs that it reports on.
///
/// # Errors
///
/// The terminal cannot be used, or no thread can be started.
pub(in crate::cli) fn show(
    connected: Connected,
    host: &str,
    xpmfs: Option<OsString>,
) -> anyhow::Result<ExitCode> {
    let (events, received) = event::channel();
    let mut screen = Screen::enter(&events)?;
    event::read_input(events.clone()).context("cannot read the terminal")?;
    let (logs, workdir) = (connected.logs(), connected.workdir());
    let xpmfs = xpmfs.map(|program| connected.xpmfs(program));
    let send = move |found| events.send(Event::Found(found)).is_ok();
    let report = send.clone();
    let monitor = Monitor::start(connected, move |event| report(RemoteFound::Monitor(event)));
    let monitor = monitor.context(NO_THREAD)?;
    let report = send.clone();
    let reader = LogReader::start(logs, move |want, part| report(RemoteFound::Log(want, part)));
    let reader = reader.context(NO_THREAD)?;
    let report = move |status| send(RemoteFound::Status(status));
    let xpmfs = xpmfs.map(|xpmfs| XpmfsThere::start(xpmfs, report));
    let xpmfs = xpmfs.transpose().context(NO_THREAD)?;
    let mut app = RemoteApp::new(monitor, reader, xpmfs, RemoteModel::new(host, workdir));
    let signal = event_loop::run(&mut app, &mut screen, &received);
    drop(screen);
    // The threads end when nothing receives what they report.
    drop(received);
    drop(app);
    if let Some(signal) = signal? {
        front::end_by(signal);
    }
    Ok(ExitCode::SUCCESS)
}
