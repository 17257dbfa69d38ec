//! `xpmfs status --watch`: updates the screen until it is interrupted.

use std::io::IsTerminal;
use std::time::Duration;

use super::gather::{Arguments, Status, gather};
use super::json;
use crate::cli::style::Colours;
use crate::cli::{Global, print};

/// The time between updates.
const INTERVAL: Duration = Duration::from_secs(1);

/// Shows the status again and again; as JSON, one line each time.
///
/// # Errors
///
/// The mount or workspace that was named does not exist any more, or the output is no longer read.
pub(super) fn watch(arguments: &Arguments, global: &Global) -> anyhow::Result<()> {
    let screen = std::io::stdout().is_terminal();
    loop {
        let status: Status = gather(arguments, global)?;
        if global.json {
            print::text(&format!(
                "{}\n",
                serde_json::to_string(&json::json(&status)?)?
            ))?;
        } else {
            let text = status.text(Colours::of_stdout());
            // On a screen, each update overwrites the last one and clears the rest; in a file, they follow each other.
            let lines = text.lines().map(|line| match screen {
                true => format!("{line}\x1b[K\n"),
                false => format!("{line}\n"),
            });
            let lines: String = lines.collect();
            print::text(&match screen {
                true => format!("\x1b[H{lines}\x1b[J"),
                false => format!("{lines}\n"),
            })?;
        }
        std::thread::sleep(INTERVAL);
    }
}
