//! Keeps the end of what a program writes to standard error: the reason why it failed.

use std::io::Read;
use std::process::{Child, ExitStatus};
use std::thread::JoinHandle;

/// How much of what a program writes to standard error is kept: its end.
const SAID_MAX: usize = 4096;

/// What a program writes to standard error.
pub(super) struct Said(Option<JoinHandle<Vec<u8>>>);

impl Said {
    pub(super) fn read(child: &mut Child) -> Said {
        let Some(mut errors) = child.stderr.take() else {
            return Said(None);
        };
        let read = move || {
            let (mut said, mut buffer) = (Vec::new(), [0; 4096]);
            while let Ok(length @ 1..) = errors.read(&mut buffer) {
                said.extend_from_slice(buffer.get(..length).unwrap_or_default());
                let excess = said.len().saturating_sub(SAID_MAX);
                said.drain(..excess);
            }
            said
        };
        Said(std::thread::Builder::new().spawn(read).ok())
    }

    /// In one line; how the program ended if it wrote nothing.
    pub(super) fn text(self, status: Option<ExitStatus>, otherwise: &str) -> String {
        let said = self.0.and_then(|thread| thread.join().ok());
        let said = said.unwrap_or_default();
        let said = String::from_utf8_lossy(&said);
        let lines = said.lines().map(str::trim).filter(|line| !line.is_empty());
        let lines: Vec<&str> = lines.collect();
        match (lines.is_empty(), status) {
            (false, _) => lines.join("; "),
            (true, Some(status)) => format!("{otherwise} ({status})"),
            (true, None) => otherwise.to_owned(),
        }
    }
}
