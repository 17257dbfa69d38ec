//! Prints the status for a person: tables, colours at a terminal, local times.

use std::fmt::Write as _;
use std::path::Path;

use indicatif::HumanBytes;

use super::gather::{ArchiverStatus, BELOW_DEAD_MOUNT, MountStatus, Status};
use super::{archive, experiments};
use crate::archive::engine::Report;
use crate::archive::job::trash::list::TrashCount;
use crate::cli::style::{Colours, Tone, local};
use crate::cli::table;
use crate::daemon::inventory::LocationReport;
use crate::mount::RunningRecovery;
use crate::sys::printable::printable;
use crate::sys::shell_word::shell_word;
use crate::view::location::{NO_JOBS, SLOW};

impl Status {
    pub(super) fn text(&self, colours: Colours) -> String {
        let mut text = String::new();
        if self.mounts.is_empty() {
            text.push_str("Nothing is mounted.\n");
        } else {
            let titles = ["WORKSPACE", "MOUNTPOINT", "STATE", "PID", "SINCE", ""];
            let mut table = table::plain(&titles);
            for mount in &self.mounts {
                let name = mount.workspace.as_deref().or(mount.primary.as_deref());
                let plain = |text: &str| colours.cell(text, Tone::Plain);
                table.add_row([
                    plain(name.unwrap_or_default()),
                    plain(&in_place(mount)),
                    colours.cell(&mount.state, tone_of_mount(mount)),
                    plain(&mount.pid.map(|pid| pid.to_string()).unwrap_or_default()),
                    plain(&mount.since.map(local).unwrap_or_default()),
                    plain(if mount.read_only { "read-only" } else { "" }),
                ]);
            }
            text.push_str(&table::text(&table));
        }
        for mount in &self.mounts {
            if let Some(advice) = &mount.advice {
                let advice = format!("{}: {advice}", mount.mountpoint);
                let _ = writeln!(text, "\n{}", printable(&advice));
            }
            locations(&mut text, &mount.mountpoint, &mount.locations, colours);
            holders(&mut text, mount);
            recoveries(&mut text, &mount.recoveries);
            if let Some(report) = &mount.archive {
                archive::describe(&mut text, report, "it was mounted", colours);
                experiments::describe(&mut text, report, "it was mounted");
            }
        }
        for archiver in &self.archivers {
            locations(&mut text, &title(archiver), &archiver.locations, colours);
            if let Some(report) = &archiver.archive {
                archive::describe(&mut text, report, "it began", colours);
                experiments::describe(&mut text, report, "it began");
            }
        }
        for workspace in &self.workspaces {
            let name = match workspace.workspace.is_empty() {
                // Selected by its path.
                true => workspace.locations.first().map_or("", |place| &place.path),
                false => &workspace.workspace,
            };
            let title = format!("{name} (not mounted)");
            locations(&mut text, &title, &workspace.locations, colours);
            let report = Report {
                damaged: workspace.damaged.clone(),
                damages: workspace.damages,
                verified: workspace.verified.clone(),
                ..Report::default()
            };
            archive::describe_recorded(&mut text, &report, colours);
        }
        text
    }
}

/// The most holders that are listed.
const HOLDERS_MAX: usize = 20;

/// Adds the programs that hold a shared mount.
fn holders(text: &mut String, mount: &MountStatus) {
    let holders = &mount.holders;
    let place = printable(&mount.mountpoint);
    if holders.is_empty() {
        if mount.shared {
            let _ = writeln!(
                text,
                "\n{place} is shared, and no program holds it: `xpmfs umount {}` unmounts it",
                printable(&shell_word(Path::new(&mount.mountpoint)))
            );
        }
        return;
    }
    let _ = writeln!(text, "\n{place} is held by");
    for one in holders.iter().take(HOLDERS_MAX) {
        let times = match one.holds {
            1 => String::new(),
            holds => format!(", {holds} times"),
        };
        let since = one.since.map(local).unwrap_or_default();
        let line = format!("{} since {since}{times}", one.description);
        let _ = writeln!(text, "  {}", printable(&line));
    }
    if let Some(more @ 1..) = holders.len().checked_sub(HOLDERS_MAX) {
        let _ = writeln!(text, "  and {more} more, listed by --json");
    }
}

/// The most recoveries that are listed.
const RECOVERIES_MAX: usize = 20;

/// Adds the recoveries: first those that programs wait for, then those that are running.
fn recoveries(text: &mut String, recoveries: &[RunningRecovery]) {
    if recoveries.is_empty() {
        return;
    }
    let mut recoveries: Vec<&RunningRecovery> = recoveries.iter().collect();
    recoveries.sort_by_key(|one| (one.waiting == 0, one.seconds.is_none()));
    let title = match recoveries.iter().all(|one| !one.for_readers) {
        true => "recovering, since programs change these jobs:",
        false => "recovering, since programs change or read these jobs:",
    };
    let _ = writeln!(text, "\n{title}");
    for recovery in recoveries.iter().take(RECOVERIES_MAX) {
        let waiting = match recovery.waiting {
            0 if recovery.for_readers => "in the background".to_owned(),
            1 => "1 call waiting".to_owned(),
            count => format!("{count} calls waiting"),
        };
        let progress = match (recovery.seconds, recovery.total_bytes) {
            (None, _) => "queued".to_owned(),
            (Some(_), None) => HumanBytes(recovery.bytes).to_string(),
            (Some(_), Some(total)) => {
                let (done, total) = (HumanBytes(recovery.bytes), HumanBytes(total));
                format!("{done} of {total}")
            }
        };
        let line = format!("{}: {progress}, {waiting}", recovery.job);
        // Users choose the names of jobs.
        let _ = writeln!(text, "  {}", printable(&line));
    }
    if let Some(more @ 1..) = recoveries.len().checked_sub(RECOVERIES_MAX) {
        let _ = writeln!(text, "  and {more} more, listed by --json");
    }
}

/// How the state of a mount is painted.
pub(in crate::cli) fn tone_of_mount(mount: &MountStatus) -> Tone {
    match &*mount.state {
        "ok" => Tone::Good,
        _ if mount.is_down() => Tone::Bad,
        _ => Tone::Warning,
    }
}

/// How the state of a location is painted.
pub(in crate::cli) fn tone_of_place(place: &LocationReport) -> Tone {
    match place.state.as_str() {
        "ok" => Tone::Good,
        _ if place.is_usable() => Tone::Warning,
        _ => Tone::Bad,
    }
}

fn title(archiver: &ArchiverStatus) -> String {
    let name = archiver.workspace.as_ref().unwrap_or(&archiver.primary);
    let pid = archiver
        .pid
        .map_or_else(String::new, |pid| format!(" by process {pid}"));
    let since = archiver.since.map(local).unwrap_or_default();
    format!("{name} (not mounted here, archived{pid} since {since})")
}

fn in_place(mount: &MountStatus) -> String {
    if mount.primary.as_ref() == Some(&mount.mountpoint) {
        format!("{} (in place)", mount.mountpoint)
    } else {
        mount.mountpoint.clone()
    }
}

fn locations(text: &mut String, title: &str, places: &[LocationReport], colours: Colours) {
    if places.is_empty() {
        return;
    }
    let mut table = table::plain(&["MODE", "PATH", "STATE", "FREE", "SIZE"]);
    for place in places {
        let plain = |text: &str| colours.cell(text, Tone::Plain);
        table.add_row([
            plain(&place.mode),
            plain(&place.path),
            colours.cell(&place.state, tone_of_place(place)),
            plain(&place.free.map(size).unwrap_or_default()),
            plain(&place.total.map(size).unwrap_or_default()),
        ]);
    }
    let _ = write!(text, "\n{}\n{}", printable(title), table::text(&table));
    for place in places {
        if let Some(hidden) = &place.hidden {
            let line = format!(
                "{}: {} not shown, as this user may not read them: {} ({})",
                place.path,
                match hidden.count {
                    1 => "1 entry".to_owned(),
                    count => format!("{count} entries"),
                },
                hidden.example.display(),
                hidden.reason,
            );
            let _ = writeln!(text, "{}", printable(&line));
        }
        if let Some(count) = place.purged {
            let jobs = match count {
                1 => "1 job is purged and served by a folder".to_owned(),
                count => format!("{count} jobs are purged and served by a folder"),
            };
            let remedy = "`xpmfs jobs recover --all` makes purged jobs whole";
            let _ = writeln!(text, "{}: {jobs}: {remedy}", printable(&place.path));
        }
        if let Some(TrashCount { jobs, pending }) = place.trash {
            let of = |count: usize, what: &str| match count {
                0 => None,
                1 => Some(format!("1 {what}")),
                count => Some(format!("{count} {what}").replacen("job", "jobs", 1)),
            };
            let pending = of(pending, "job still to be deleted there");
            let parts = [of(jobs, "deleted job in the trash"), pending];
            let parts: Vec<String> = parts.into_iter().flatten().collect();
            let more = "listed by `xpmfs trash list`";
            let line = format!("{}: {}, {more}", place.path, parts.join(", "));
            let _ = writeln!(text, "{}", printable(&line));
        }
        if let Some(why) = &place.why {
            let _ = writeln!(text, "{}: {why}", printable(&place.path));
        }
        if let Some(advice) = advice(place) {
            let _ = writeln!(text, "{}: {advice}", printable(&place.path));
        }
    }
}

/// What to do about a directory in this state.
fn advice(place: &LocationReport) -> Option<&'static str> {
    Some(match place.state.as_str() {
        "ok" => return None,
        SLOW => "it takes long to answer",
        // `why` says what to do.
        "another disk" | BELOW_DEAD_MOUNT => return None,
        // A new workspace has none.
        NO_JOBS if place.mode == "primary" => return None,
        NO_JOBS => "no jobs yet; if you expected some, check that its disk is mounted",
        "missing" if place.mode == "primary" => "create it, or correct the path",
        "missing" => "check that its disk is mounted, or correct the path",
        "not a directory" => "correct the path",
        "not permitted" => "check its permissions, and those of the directories above",
        _ => "check that its disk and its file server are reachable",
    })
}

/// Bytes for a person, in powers of 1024.
fn size(bytes: u64) -> String {
    let mut amount = bytes as f64;
    for unit in ["B", "KiB", "MiB", "GiB", "TiB"] {
        if amount < 1024.0 {
            return format!(
                "{amount:.*} {unit}",
                usize::from(amount < 10.0 && unit != "B")
            );
        }
        amount /= 1024.0;
    }
    format!("{amount:.1} PiB")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_for_a_person() {
        assert_eq!(size(0), "0 B");
        assert_eq!(size(1536), "1.5 KiB");
        assert_eq!(size(500 << 30), "500 GiB");
        assert_eq!(size(3 << 50), "3.0 PiB");
    }
}
