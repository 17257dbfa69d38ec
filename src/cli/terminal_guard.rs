//! Restores a terminal that a dashboard has taken over: the dashboard does, and so does the process that waits for it if the dashboard was
//! killed or stopped and could not.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;

use crossterm::event::{DisableBracketedPaste, DisableMouseCapture, PopKeyboardEnhancementFlags};
use crossterm::terminal::{Clear, ClearType, LeaveAlternateScreen};
use crossterm::{cursor, execute};
use rustix::process::getpgrp;
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcgetpgrp, tcsetattr};

/// A terminal as it was before a dashboard took it over.
#[derive(Debug)]
pub(super) struct TerminalGuard {
    before: Termios,
}

impl TerminalGuard {
    /// Notes how the terminal is; `None` if standard input is none.
    pub(super) fn new() -> Option<TerminalGuard> {
        let before = tcgetattr(rustix::stdio::stdin()).ok()?;
        Some(TerminalGuard { before })
    }

    /// The terminal, if this process may use it now and a dashboard has taken it over: it returns single keys then.
    fn taken(&self) -> Option<File> {
        // Not the standard streams, which are closed by now. Non-blocking: the terminal may accept no output.
        let terminal = File::options()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NOCTTY | libc::O_NONBLOCK)
            .open("/dev/tty")
            .ok()?;
        // A shell that has it in the foreground has its own modes.
        let is_ours = tcgetpgrp(&terminal) == Ok(getpgrp());
        let has_lines = |modes: &Termios| modes.local_modes.contains(LocalModes::ICANON);
        let now = tcgetattr(&terminal).ok()?;
        (is_ours && has_lines(&self.before) && !has_lines(&now)).then_some(terminal)
    }

    /// Whether a dashboard has the terminal.
    pub(super) fn is_taken(&self) -> bool {
        self.taken().is_some()
    }

    /// Restores the terminal if a dashboard has left it as it had it.
    pub(super) fn restore(&self) {
        if let Some(mut terminal) = self.taken() {
            // Both are tried, and an error cannot be reported.
            let _ = write_reset(&mut terminal);
            let _ = tcsetattr(&terminal, OptionalActions::Now, &self.before);
        }
    }
}

/// Writes what makes a terminal leave the modes and the screen of a dashboard.
pub(super) fn write_reset(out: &mut impl Write) -> io::Result<()> {
    execute!(
        out,
        PopKeyboardEnhancementFlags,
        DisableBracketedPaste,
        DisableMouseCapture,
        // For terminals without another screen, such as those of GNU screen: what comes next is below what was shown.
        cursor::MoveTo(0, u16::MAX - 1),
        Clear(ClearType::CurrentLine),
        LeaveAlternateScreen,
        cursor::Show,
    )
}
