//! What a dashboard reacts to, and the threads that report it.

use std::thread::Builder;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use crossterm::event::{Event as Input, KeyEvent, KeyEventKind, MouseEvent};

/// How many events wait at most: the threads that report them wait then.
const EVENTS_MAX: usize = 256;

/// Something that happened. `U`: what the threads of a dashboard have found.
pub(super) enum Event<U> {
    /// A key was pressed.
    Key(KeyEvent),
    /// The mouse was used.
    Mouse(MouseEvent),
    /// A text was pasted.
    Paste(String),
    /// The size of the terminal changed.
    Resized,
    /// The terminal is gone.
    InputEnded,
    /// A signal that ends the program.
    Signal(i32),
    /// The program was stopped, and goes on: a shell has changed the terminal.
    Continued,
    /// A line was written to standard error.
    Message(String),
    /// A thread has found something.
    Found(U),
}

/// A channel of events, which holds a limited number.
pub(super) fn channel<U>() -> (Sender<Event<U>>, Receiver<Event<U>>) {
    bounded(EVENTS_MAX)
}

/// Starts the thread that reads the terminal.
///
/// # Errors
///
/// No thread can be started.
pub(super) fn read_input<U: Send + 'static>(events: Sender<Event<U>>) -> std::io::Result<()> {
    let thread = Builder::new().name("xpmfs-input".to_owned());
    thread.spawn(move || {
        loop {
            let event = match crossterm::event::read() {
                Ok(Input::Key(key)) if key.kind != KeyEventKind::Release => Event::Key(key),
                Ok(Input::Mouse(mouse)) => Event::Mouse(mouse),
                Ok(Input::Paste(text)) => Event::Paste(text),
                Ok(Input::Resize(..)) => Event::Resized,
                Ok(_) => continue,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(_) => Event::InputEnded,
            };
            let is_end = matches!(event, Event::InputEnded);
            if events.send(event).is_err() || is_end {
                return;
            }
        }
    })?;
    Ok(())
}

/// A thread that looks at something again and again, and at once when it is woken.
#[derive(Debug, Clone)]
pub(super) struct Watch {
    wake: Sender<()>,
}

impl Watch {
    /// Starts a thread. The function looks, and returns false at the end of the program. The pause is `pause`, or longer if a look takes long.
    ///
    /// # Errors
    ///
    /// No thread can be started.
    pub(super) fn start(
        name: &str,
        pause: Duration,
        mut look: impl FnMut() -> bool + Send + 'static,
    ) -> std::io::Result<Watch> {
        let (wake, woken) = bounded(1);
        let thread = Builder::new().name(name.to_owned());
        thread.spawn(move || {
            loop {
                let begun = Instant::now();
                if !look() {
                    return;
                }
                let pause = pause_after(pause, begun.elapsed());
                if let Err(RecvTimeoutError::Disconnected) = woken.recv_timeout(pause) {
                    return;
                }
            }
        })?;
        Ok(Watch { wake })
    }

    /// Looks at once; after the look under way, if one is.
    pub(super) fn wake(&self) {
        // If it is full, a look is due anyway.
        let _ = self.wake.try_send(());
    }
}

/// The pause after a look is so many times as long as the look.
const LOOK_SHARE: u32 = 10;

/// The pause after a look that took so long, at least `pause`. A look that takes a second is not repeated at once: it is work for a disk that
/// others use.
pub(super) fn pause_after(pause: Duration, took: Duration) -> Duration {
    pause.max(took.saturating_mul(LOOK_SHARE))
}

/// Starts a thread that does what it is sent, one after the other, until the function returns false. At most `room` wait for it.
///
/// # Errors
///
/// No thread can be started.
pub(super) fn worker<T: Send + 'static>(
    name: &str,
    room: usize,
    mut work: impl FnMut(T) -> bool + Send + 'static,
) -> std::io::Result<Sender<T>> {
    let (send, sent): (Sender<T>, Receiver<T>) = bounded(room);
    let thread = Builder::new().name(name.to_owned());
    thread.spawn(move || while sent.recv().is_ok_and(&mut work) {})?;
    Ok(send)
}
