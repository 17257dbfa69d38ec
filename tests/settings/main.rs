//! Compares the settings with experimaestro's, and tests the findings of `settings check`.
//!
//! - `oracle`: the Python process that answers for experimaestro
//! - `loading`, `accidents`, `selection`, `triggers`: ours and experimaestro's, compared
//! - `corpus/`: settings files, those experimaestro reads (`good-*`) and those it refuses (`bad-*`)
//! - `checking`: each mistake and its message
//! - `commands`: the command line; `showing`: the settings in effect; `migrating`: what `settings migrate` writes

// A test that cannot go on fails; clippy knows that of test functions alone, and not of what they call.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod accidents;
mod checking;
mod commands;
mod loading;
mod migrating;
mod oracle;
mod selection;
mod showing;
mod triggers;
