//! What the mounts and archivers of a workspace reported last, here or on another machine.

use std::time::Instant;

use ratatui::layout::Rect;

use super::tabs::{Canvas, below, line, loading};
use super::theme::Theme;
use crate::archive::engine::Report;
use crate::cli::status::archive::has_failed;
use crate::cli::status::gather::{MountStatus, Status};
use crate::cli::status::text::tone_of_mount;
use crate::cli::style::Tone;
use crate::daemon::inventory::LocationReport;

/// The last report, and why there is no newer one.
pub(super) struct Reported {
    /// Since when it is waited for.
    since: Instant,
    status: Option<Status>,
    error: Option<String>,
}

impl Reported {
    pub(super) fn new(since: Instant) -> Reported {
        Reported {
            since,
            status: None,
            error: None,
        }
    }

    /// Keeps a report. Without one, the last one stays.
    pub(super) fn set(&mut self, result: Result<Status, String>) {
        match result {
            Ok(status) => (self.status, self.error) = (Some(status), None),
            Err(why) => self.error = Some(why),
        }
    }

    /// Forgets why there is no newer report.
    pub(super) fn forget_error(&mut self) {
        self.error = None;
    }

    /// Why there is no newer report.
    pub(super) fn error(&self) -> Option<&str> {
        self.error.as_deref()
    }

    /// The last report.
    pub(super) fn status(&self) -> Option<&Status> {
        self.status.as_ref()
    }

    /// The mount of the workspace, if there is one.
    pub(super) fn mount(&self) -> Option<&MountStatus> {
        // A mount that serves says more than a dead one.
        let mounts = self.status.as_ref()?.mounts.iter();
        mounts.max_by_key(|mount| (mount.state == "ok", mount.archive.is_some()))
    }

    /// The report of the mount or process that archives the workspace.
    pub(super) fn report(&self) -> Option<&Report> {
        let of_mount = self.mount().and_then(|mount| mount.archive.as_ref());
        let mut archivers = self.status.iter().flat_map(|status| &status.archivers);
        of_mount.or_else(|| archivers.find_map(|archiver| archiver.archive.as_ref()))
    }

    /// The locations, as they were reported last.
    pub(super) fn locations(&self) -> &[LocationReport] {
        let Some(status) = &self.status else {
            return &[];
        };
        let mounts = self.mount().into_iter().map(|mount| &mount.locations);
        let archivers = status.archivers.iter().map(|it| &it.locations);
        let workspaces = status.workspaces.iter().map(|it| &it.locations);
        let mut all = mounts.chain(archivers).chain(workspaces);
        all.find(|it| !it.is_empty()).map_or(&[], Vec::as_slice)
    }

    /// Whether a folder or the mount needs a look.
    pub(super) fn has_folder_alarm(&self) -> bool {
        let mut locations = self.locations().iter();
        locations.any(|it| it.state != "ok") || self.mount().is_some_and(MountStatus::is_down)
    }

    /// Whether archiving needs a look.
    pub(super) fn has_archive_alarm(&self) -> bool {
        self.report().is_some_and(has_failed)
    }

    /// Draws what is wrong with the report, if anything, and how the workspace is mounted. Returns the rest of the area; `None` if there is no
    /// report. `what` is loaded.
    pub(super) fn draw_head(
        &self,
        (buffer, mut area): Canvas<'_>,
        theme: Theme,
        what: &str,
    ) -> Option<Rect> {
        if let Some(why) = &self.error {
            let text = format!("! {why}");
            line((&mut *buffer, area), 0, &text, theme.style(Tone::Bad));
            area = below(area, 1);
        }
        if self.status.is_none() {
            if self.error.is_none() {
                loading((buffer, area), what, self.since);
            }
            return None;
        }
        let (text, tone) = self.mounted();
        line((buffer, area), 0, &text, theme.style(tone));
        Some(below(area, 1))
    }

    /// Whether the workspace is mounted, in words.
    fn mounted(&self) -> (String, Tone) {
        if let Some(mount) = self.mount() {
            let mut text = format!("mounted at {}: {}", mount.mountpoint, mount.state);
            if let Some(pid) = mount.pid {
                text.push_str(&format!(", process {pid}"));
            }
            if let Some(advice) = &mount.advice {
                text.push_str(&format!("; {advice}"));
            }
            return (text, tone_of_mount(mount));
        }
        match self.report() {
            Some(_) => (
                "not mounted; `xpmfs archive` archives it".to_owned(),
                Tone::Good,
            ),
            None => (
                "not mounted: nothing is archived by itself; `xpmfs mount` changes that".to_owned(),
                Tone::Warning,
            ),
        }
    }
}
