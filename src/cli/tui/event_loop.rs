//! Draws a dashboard, waits for events, and hands them to it.

use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError};
use crossterm::event::{KeyCode, KeyModifiers};

use super::event::Event;
use super::screen::Screen;

/// How many events are handled between two drawings.
const EVENTS_PER_DRAWING: usize = 1000;

/// A dashboard.
pub(super) trait Dashboard {
    /// What its threads find.
    type Found: Send + 'static;

    /// Reacts to an event.
    fn handle(&mut self, event: Event<Self::Found>);

    /// Draws everything.
    fn draw(&mut self, frame: &mut ratatui::Frame<'_>);

    /// How long to wait for an event before it is drawn anyway, as its clocks and bars go on.
    fn redraw_interval(&self) -> Duration;

    /// Whether it ends.
    fn is_ended(&self) -> bool;
}

/// Shows a dashboard until it ends. Returns the signal that ended it, if one did.
///
/// # Errors
///
/// The terminal is gone.
pub(super) fn run<D: Dashboard>(
    dashboard: &mut D,
    screen: &mut Screen,
    events: &Receiver<Event<D::Found>>,
) -> anyhow::Result<Option<i32>> {
    loop {
        match screen.is_of_another() {
            true => screen.stop_in_background()?,
            false => screen.draw(|frame| dashboard.draw(frame))?,
        }
        let mut next = match events.recv_timeout(dashboard.redraw_interval()) {
            Ok(event) => Some(event),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => return Ok(None),
        };
        for _ in 0..EVENTS_PER_DRAWING {
            match next {
                Some(Event::Signal(signal)) => return Ok(Some(signal)),
                Some(Event::InputEnded) => return Ok(Some(signal_hook::consts::SIGHUP)),
                // As in other programs: a terminal whose content was overwritten is drawn anew.
                Some(Event::Key(key))
                    if key.code == KeyCode::Char('l')
                        && key.modifiers.contains(KeyModifiers::CONTROL) =>
                {
                    screen.redraw();
                }
                Some(Event::Key(key))
                    if key.code == KeyCode::Char('z')
                        && key.modifiers.contains(KeyModifiers::CONTROL) =>
                {
                    screen.suspend()?;
                }
                Some(Event::Continued) => screen.take_again()?,
                // Also if the size is the same again: what the terminal showed between may be lost.
                Some(Event::Resized) => screen.redraw(),
                Some(event) => dashboard.handle(event),
                None => break,
            }
            next = events.try_recv().ok();
        }
        if dashboard.is_ended() {
            return Ok(None);
        }
    }
}
