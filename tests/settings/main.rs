//! The settings against experimaestro's own, and what `settings check` finds.
//!
//! - `oracle`: the Python process that answers for experimaestro
//! - `loading`, `accidents`, `selection`, `triggers`: ours and experimaestro's, compared
//! - `corpus/`: settings files, those experimaestro reads (`good-*`) and those it refuses (`bad-*`)
//! - `checking`: each mistake, and what is said about it
//! - `commands`: the command line

// A test that cannot go on fails; clippy knows that of test functions alone, and not of what they call.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod accidents;
mod checking;
mod commands;
mod loading;
mod oracle;
mod selection;
mod triggers;
