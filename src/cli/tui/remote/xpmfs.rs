//! The folders and the archive, which `xpmfs` on the other machine reports: a thread asks it, again and again while there is a connection.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use crossterm::event::{KeyCode, KeyEvent, MouseEvent};

use super::request::RemoteRequest;
use super::tab::RemoteTab;
use crate::cli::sentence;
use crate::cli::status::gather::Status;
use crate::cli::status::json;
use crate::cli::tui::event::{pause_after, worker};
use crate::cli::tui::reported::Reported;
use crate::cli::tui::tabs::Canvas;
use crate::cli::tui::tabs::archive::ArchiveTab;
use crate::cli::tui::tabs::folder_list::FolderList;
use crate::cli::tui::theme::Theme;
use crate::remote::monitor::RemoteXpmfs;

/// How often it is asked, at most.
const ASK_INTERVAL: Duration = Duration::from_secs(5);

/// How much of what is not a version is shown.
const SHOWN_MAX: usize = 60;

/// `xpmfs` on the other machine, and what it reported.
pub(super) struct XpmfsThere {
    pub(super) reported: Reported,
    folders: FolderList,
    archive: ArchiveTab,
    questions: Sender<()>,
    /// Since when an answer is waited for.
    asked: Option<Instant>,
    /// When it is asked again.
    due: Instant,
    ends: Arc<AtomicBool>,
}

impl XpmfsThere {
    /// Starts the thread; `done` gets the answers, and returns false at the end.
    ///
    /// # Errors
    ///
    /// No thread can be started.
    pub(super) fn start(
        xpmfs: RemoteXpmfs,
        done: impl Fn(Result<Status, String>) -> bool + Send + 'static,
    ) -> std::io::Result<XpmfsThere> {
        let now = Instant::now();
        let ends = xpmfs.ends();
        Ok(XpmfsThere {
            reported: Reported::new(now),
            folders: FolderList::default(),
            archive: ArchiveTab::default(),
            questions: worker("xpmfs-status", 1, move |()| done(status(&xpmfs)))?,
            asked: None,
            due: now,
            ends,
        })
    }

    /// Asks, if it is time. To be called while there is a connection: without one, `ssh` would try to make one each time.
    pub(super) fn ask(&mut self) {
        let now = Instant::now();
        if self.asked.is_none() && now >= self.due && self.questions.try_send(()).is_ok() {
            self.asked = Some(now);
        }
    }

    /// Asks as soon as that is possible.
    pub(super) fn hurry(&mut self) {
        self.due = Instant::now();
    }

    /// Draws one of its tabs.
    pub(super) fn draw(&mut self, canvas: Canvas<'_>, tab: RemoteTab, theme: Theme) {
        match tab {
            RemoteTab::Folders => {
                self.folders.draw(canvas, theme, &self.reported, None);
            }
            _ => self.archive.draw(canvas, theme, &self.reported),
        }
    }

    /// Reacts to a key in one of its tabs.
    pub(super) fn key(&mut self, key: KeyEvent, tab: RemoteTab) -> Option<RemoteRequest> {
        if tab == RemoteTab::Archive {
            self.archive.key(key);
            return None;
        }
        let moved = self.folders.key(key, &self.reported);
        let copies = !moved && key.code == KeyCode::Char('f');
        let path = copies.then(|| self.folders.selected_path(&self.reported));
        path.flatten().map(RemoteRequest::Copy)
    }

    /// Reacts to the mouse in one of its tabs.
    pub(super) fn mouse(&mut self, mouse: MouseEvent, tab: RemoteTab) {
        match tab {
            RemoteTab::Folders => self.folders.mouse(mouse, &self.reported),
            _ => self.archive.mouse(mouse),
        }
    }

    /// Keeps an answer. Returns why there is none, if that is new.
    pub(super) fn answered(&mut self, answer: Result<Status, String>) -> Option<String> {
        let took = self.asked.take().map(|asked| asked.elapsed());
        self.due = Instant::now() + pause_after(ASK_INTERVAL, took.unwrap_or_default());
        let why = answer.as_ref().err().cloned();
        let why = why.filter(|why| self.reported.error() != Some(why));
        self.reported.set(answer);
        why
    }
}

impl Drop for XpmfsThere {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
    }
}

fn status(xpmfs: &RemoteXpmfs) -> Result<Status, String> {
    let printed = xpmfs.status().map_err(|error| sentence(&error.into()))?;
    json::parse(&printed).map_err(|error| {
        let program = xpmfs.program();
        match xpmfs.version() {
            Ok(version) if version.starts_with("xpmfs ") => format!(
                "{program} is {version}, whose status xpmfs {} cannot read: {error}",
                env!("CARGO_PKG_VERSION")
            ),
            Ok(printed) => {
                let start: String = printed.chars().take(SHOWN_MAX).collect();
                format!("{program} is not xpmfs: with --version it prints {start:?}")
            }
            Err(why) => format!("{program} is not xpmfs: {}", sentence(&why.into())),
        }
    })
}
