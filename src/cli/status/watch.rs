//! `xpmfs status --watch`: on the screen until it is interrupted.

use std::io::IsTerminal;
use std::time::Duration;

use super::{Arguments, Status, gather, json};
use crate::cli::{Global, print};

/// How often it is looked at.
const INTERVAL: Duration = Duration::from_secs(1);

/// Shows the status again and again; as JSON, one line each time.
///
/// # Errors
///
/// What is asked for is not there any more, or nobody reads.
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
            let text = status.text();
            // The cursor goes home, and what is left of the last time goes; in a file, they follow each other.
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
