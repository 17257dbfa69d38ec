//! What the dashboard has said: the last message shows for some seconds, and all of them in a dialog.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::cli::style::Tone;

/// How long a message shows.
const MESSAGE_SHOWN: Duration = Duration::from_secs(8);

/// How many messages are kept.
const MESSAGES_MAX: usize = 200;

/// The messages.
#[derive(Default)]
pub(super) struct Messages {
    last: Option<(Tone, Instant)>,
    texts: VecDeque<String>,
}

impl Messages {
    /// Shows a message.
    pub(super) fn say(&mut self, text: String, tone: Tone) {
        if self.texts.len() >= MESSAGES_MAX {
            self.texts.pop_front();
        }
        self.texts.push_back(text);
        self.last = Some((tone, Instant::now()));
    }

    /// The message that shows now, if any.
    pub(super) fn shown(&self) -> Option<(String, Tone)> {
        let (tone, at) = self.last?;
        let text = self.texts.back()?;
        (at.elapsed() < MESSAGE_SHOWN).then(|| (text.clone(), tone))
    }

    /// All messages, the last first.
    pub(super) fn all(&self) -> Vec<String> {
        match self.texts.is_empty() {
            true => vec!["no messages".to_owned()],
            false => self.texts.iter().rev().cloned().collect(),
        }
    }
}
