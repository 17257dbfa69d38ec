//! The terminal while a dashboard has it, and its restoration however the program ends.
//!
//! 1. [`Screen::enter`] switches to the alternate screen; dropping the [`Screen`] restores everything, and so does [`restore`], which a panic of
//!    any thread calls first. Each of them may be called again.
//!    [`Screen::suspend`] restores it for the shell, and takes it again when the program goes on.
//! 2. A signal becomes an event. A program that is stuck (its terminal accepts no output) is ended by the thread that received the signal.
//!    One that is killed, or stopped by another process, leaves the terminal to `cli::front`, which restores it.
//! 3. What the program writes to standard error meanwhile, such as warnings, would overwrite the screen: it is read from a pipe, and becomes an
//!    event for each line.

use std::fs::File;
use std::io::{self, BufRead, BufReader, IsTerminal, Stdout, Write};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Once};
use std::thread::Builder;
use std::time::Duration;

use anyhow::{Context, bail};
use crossbeam_channel::Sender;
use crossterm::event::{
    EnableBracketedPaste, KeyboardEnhancementFlags, PushKeyboardEnhancementFlags,
};
use crossterm::style::Print;
use crossterm::terminal::EnterAlternateScreen;
use crossterm::{cursor, execute, terminal};
use ratatui::backend::CrosstermBackend;
use ratatui::{Frame, Terminal};
use rustix::process::{Signal, getpgrp, kill_current_process_group};
use rustix::termios::tcgetpgrp;
use signal_hook::consts::{SIGCONT, SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::event::Event;
use crate::cli::front::{self, Handled};
use crate::cli::terminal_guard::write_reset;

/// How long a program that received a signal may take to end, before the signal ends it.
const END_TIMEOUT: Duration = Duration::from_secs(1);

/// The longest line of standard error that is kept.
const LINE_MAX: u64 = 4096;

/// Makes the terminal report the buttons of the mouse; not each of its movements, as crossterm would.
const MOUSE: &str = "\x1b[?1002h\x1b[?1006h";

/// Whether the terminal is to be restored.
static ENTERED: AtomicBool = AtomicBool::new(false);

/// Standard error as it was before.
static STDERR: Mutex<Option<OwnedFd>> = Mutex::new(None);

static HOOK: Once = Once::new();

/// Held while something is drawn, so that nothing is drawn on a terminal that another thread has restored.
static DRAWING: parking_lot::Mutex<()> = parking_lot::Mutex::new(());

/// How long a drawing is waited for before the terminal is restored anyway: it may be the one that panicked, or the terminal accepts no output.
const DRAWING_TIMEOUT: Duration = Duration::from_millis(200);

/// Receives the lines of standard error, until it returns false.
type Messages = Arc<dyn Fn(String) -> bool + Send + Sync>;

/// The terminal.
pub(super) struct Screen {
    terminal: Terminal<CrosstermBackend<Stdout>>,
    messages: Messages,
    _handled: Handled,
}

impl Screen {
    /// Takes the terminal over. `events` receives signals, and what is written to standard error.
    ///
    /// # Errors
    ///
    /// Standard input or output is not a terminal, or one that cannot move its cursor.
    pub(super) fn enter<U: Send + 'static>(events: &Sender<Event<U>>) -> anyhow::Result<Screen> {
        let handled = Handled::new();
        signals(events.clone()).context("cannot handle signals")?;
        HOOK.call_once(|| {
            let before = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |panic| {
                restore();
                before(panic);
                // In a thread, too: what remains would draw on a terminal that is not ours any more.
                std::process::exit(101);
            }));
        });
        let events = events.clone();
        let mut screen = Screen {
            terminal: Terminal::new(CrosstermBackend::new(io::stdout()))
                .context("cannot use this terminal")?,
            messages: Arc::new(move |line| events.send(Event::Message(line)).is_ok()),
            _handled: handled,
        };
        screen.take()?;
        Ok(screen)
    }

    /// Takes the terminal, after which it is to be restored.
    fn take(&mut self) -> anyhow::Result<()> {
        ENTERED.store(true, Ordering::SeqCst);
        // GNU screen keeps a lone escape to itself until the next key while a program has the mouse.
        let mouse = if is_gnu_screen() { "" } else { MOUSE };
        let entered = terminal::enable_raw_mode().and_then(|()| {
            execute!(
                io::stdout(),
                EnterAlternateScreen,
                Print(mouse),
                EnableBracketedPaste,
                // With them, Ctrl+Shift+D differs from Ctrl+D; other terminals ignore the request.
                PushKeyboardEnhancementFlags(KeyboardEnhancementFlags::DISAMBIGUATE_ESCAPE_CODES),
                cursor::Hide,
            )
        });
        entered.context("cannot use this terminal")?;
        capture_errors(self.messages.clone()).context("cannot redirect standard error")?;
        self.redraw();
        Ok(())
    }

    /// Restores the terminal and stops the program, as Ctrl-Z does where a program has not taken the terminal over. Takes it again when the
    /// program goes on; at once where no shell could continue it (`setpgid(2)`: orphaned process groups).
    ///
    /// # Errors
    ///
    /// The terminal is gone.
    pub(super) fn suspend(&mut self) -> anyhow::Result<()> {
        restore();
        stop()?;
        self.take()
    }

    /// Takes the terminal after the program was stopped by others, which have left it as it was, or by [`Screen::suspend`].
    ///
    /// # Errors
    ///
    /// The terminal is gone.
    pub(super) fn take_again(&mut self) -> anyhow::Result<()> {
        if self.is_of_another() {
            return self.stop_in_background();
        }
        restore();
        self.take()
    }

    /// Whether a shell has given the terminal to another process group: the process that it waits for was stopped alone.
    pub(super) fn is_of_another(&self) -> bool {
        let foreground = tcgetpgrp(rustix::stdio::stdout());
        foreground.is_ok_and(|foreground| foreground != getpgrp())
    }

    /// Leaves the screen to the shell that has the terminal, and stops the program. Returns when it goes on.
    ///
    /// # Errors
    ///
    /// The program cannot be stopped, or the terminal is gone.
    pub(super) fn stop_in_background(&mut self) -> anyhow::Result<()> {
        // The modes of its lines are the shell's already. If this fails, the terminal is gone, which the next drawing reports.
        let _ = write_reset(&mut io::stdout());
        stop()?;
        match self.is_of_another() {
            // SIGCONT was sent by another process than the shell: it is an event, too.
            true => Ok(()),
            false => self.take_again(),
        }
    }

    /// Draws, and writes what has changed to the terminal.
    ///
    /// # Errors
    ///
    /// The terminal is gone.
    pub(super) fn draw(&mut self, draw: impl FnOnce(&mut Frame<'_>)) -> anyhow::Result<()> {
        let _drawing = DRAWING.lock();
        if !ENTERED.load(Ordering::SeqCst) {
            // A panic in another thread, which is about to end the program.
            return Ok(());
        }
        let drawn = self.terminal.draw(draw).map(drop);
        drawn.context("cannot write to the terminal")
    }

    /// Draws everything again with the next call, for a terminal whose content was overwritten.
    pub(super) fn redraw(&mut self) {
        // Not `clear`, which asks the terminal where its cursor is. If it fails, so does the drawing that follows.
        if let Ok(size) = self.terminal.size() {
            let _ = self.terminal.resize(size.into());
        }
    }
}

/// Stops the program, and the process that the shell waits for. Returns when it goes on.
fn stop() -> anyhow::Result<()> {
    let stopped = kill_current_process_group(Signal::TSTP);
    stopped.context("cannot stop the program")
}

impl Drop for Screen {
    fn drop(&mut self) {
        restore();
    }
}

/// Whether the terminal is a window of GNU screen, by the environment: over `ssh`, only its type is known, which older versions of tmux share.
pub(super) fn is_gnu_screen() -> bool {
    let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let is_named = std::env::var("TERM").is_ok_and(|term| term.starts_with("screen"));
    !is_set("TMUX") && (is_named || is_set("STY"))
}

/// Returns an error unless a dashboard can be shown; `instead` names commands that need no terminal.
///
/// # Errors
///
/// Standard input or output is not a terminal, or one that cannot move its cursor.
pub(in crate::cli) fn expect_terminal(instead: &str) -> anyhow::Result<()> {
    if !io::stdin().is_terminal() || !io::stdout().is_terminal() {
        bail!("standard input and output must be a terminal; {instead}");
    }
    if std::env::var_os("TERM").is_some_and(|term| term == "dumb") {
        bail!("the terminal cannot show it (TERM=dumb); {instead}");
    }
    Ok(())
}

/// Restores the terminal and standard error, if they were taken over.
pub(super) fn restore() {
    if !ENTERED.swap(false, Ordering::SeqCst) {
        return;
    }
    let _drawing = DRAWING.try_lock_for(DRAWING_TIMEOUT);
    // All of it is tried, and an error cannot be reported.
    let _ = write_reset(&mut io::stdout());
    let _ = io::stdout().flush();
    let _ = terminal::disable_raw_mode();
    let stderr = STDERR.lock().map(|mut stderr| stderr.take());
    if let Ok(Some(stderr)) = stderr {
        let _ = rustix::stdio::dup2_stderr(&stderr);
    }
}

/// Makes signals events.
fn signals<U: Send + 'static>(events: Sender<Event<U>>) -> io::Result<()> {
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP, SIGCONT])?;
    let thread = Builder::new().name("xpmfs-signals".to_owned());
    thread.spawn(move || {
        for signal in signals.forever() {
            if signal == SIGCONT {
                let _ = events.send_timeout(Event::Continued, END_TIMEOUT);
                continue;
            }
            // The channel may be full, if the program is stuck.
            let _ = events.send_timeout(Event::Signal(signal), END_TIMEOUT);
            std::thread::sleep(END_TIMEOUT);
            restore();
            front::end_by(signal);
        }
    })?;
    Ok(())
}

/// Makes the lines of standard error events.
fn capture_errors(messages: Messages) -> io::Result<()> {
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    let before = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stderr(), 3)?;
    if let Ok(mut stderr) = STDERR.lock() {
        *stderr = Some(before);
    }
    rustix::stdio::dup2_stderr(&write)?;
    drop(write);
    let thread = Builder::new().name("xpmfs-stderr".to_owned());
    thread.spawn(move || {
        let mut lines = BufReader::new(File::from(read));
        loop {
            let mut line = Vec::new();
            let read = io::Read::take(&mut lines, LINE_MAX).read_until(b'\n', &mut line);
            if !matches!(read, Ok(1..)) {
                return;
            }
            let line = String::from_utf8_lossy(&line).trim_end().to_owned();
            if !messages(line) {
                return;
            }
        }
    })?;
    Ok(())
}
