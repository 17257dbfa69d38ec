//! Archives all runs and partials once, for a command that waits.

use std::time::{Duration, Instant};

use super::Item;
use super::pass::{FolderPasses, ItemOutcome, PassObserver, has_place};
use crate::archive::env::Env;
use crate::archive::error::Cause;
use crate::archive::job::store::Stored;
use crate::archive::places;
use crate::settings::Mode;
use crate::view::Location;

/// How long to wait for items that settle, or that another process copies.
const WAIT_MAX: Duration = Duration::from_secs(30);

/// How often they are looked at.
const POLL: Duration = Duration::from_millis(500);

/// The result for one item in one folder, or for a folder.
#[derive(Debug)]
pub enum Archived {
    /// The result for an item.
    Item(Item, ItemOutcome),
    /// The folder has no place for runs and partials: its path names a `jobs` directory.
    NoPlace,
    /// The folder accepts none, or the rest was cancelled.
    Folder(Cause),
    /// Something cannot be read, so some may be missing.
    Unread(String),
}

/// Archives what has ended in each `backup` folder, and reports each result with the folder's number.
pub fn archive(env: &Env<'_>, report: &mut dyn FnMut(u8, Archived)) {
    for folder in places::folders_of_mode(env.view, Mode::Backup) {
        in_folder(env, folder, &mut |archived| {
            report(folder.index(), archived)
        });
    }
}

fn in_folder(env: &Env<'_>, folder: &Location, report: &mut dyn FnMut(Archived)) {
    if folder.root().is_ok() && !has_place(folder) {
        return report(Archived::NoPlace);
    }
    let deadline = Instant::now() + WAIT_MAX.max(env.settle * 2);
    let mut passes = FolderPasses::thorough(folder.index());
    loop {
        let mut pass = Pass {
            waits: false,
            others: Vec::new(),
            report,
        };
        let passed = passes.pass(env, &mut pass);
        let goes_on = pass.waits && passed.is_ok() && Instant::now() < deadline;
        if !goes_on {
            let others = std::mem::take(&mut pass.others);
            others.into_iter().for_each(&mut *report);
            if let Err(cause) = passed {
                report(Archived::Folder(cause));
            }
            return;
        }
        std::thread::sleep(POLL);
    }
}

/// One of several passes.
struct Pass<'a> {
    waits: bool,
    /// What the next pass, if there is one, finds again.
    others: Vec<Archived>,
    report: &'a mut dyn FnMut(Archived),
}

impl PassObserver for Pass<'_> {
    fn begin(&mut self, _: &Item) {}

    fn end(&mut self, item: &Item, outcome: ItemOutcome) {
        self.waits |= matches!(outcome, ItemOutcome::Waiting(_));
        let is_new = matches!(
            outcome,
            ItemOutcome::Stored(Stored::Copied { .. } | Stored::Replaced { .. })
        );
        let archived = Archived::Item(item.clone(), outcome);
        match is_new {
            true => (self.report)(archived),
            false => self.others.push(archived),
        }
    }

    fn trouble(&mut self, why: String) {
        self.others.push(Archived::Unread(why));
    }
}
