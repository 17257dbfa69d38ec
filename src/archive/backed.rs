//! Whether every `backup` folder holds what is about to be moved.
//!
//! A job may change between its backup and its move, which wait for folders that are full, away, or for somebody who writes:
//! what was backed up is then no longer what is given up.

use super::compare::{Comparison, compare};
use super::error::{Cause, Error, Result};
use super::{Env, manifests, places, select};
use crate::settings::Mode;
use crate::transfer::Manifest;
use crate::view::Location;
use crate::view::location::Role;
use crate::workspace::jobs::JobId;
use crate::workspace::markers;

/// Makes sure that all `backup` folders that want a job have the state of it that `read` tells of.
///
/// # Errors
///
/// One has not, and the job is to be archived there first ([`Scope::Again`](super::Scope::Again)); or nothing but
/// its content tells that it has not.
pub(super) fn expect(env: &Env<'_>, job: &JobId, read: &Manifest) -> Result<()> {
    let folders = env.view.folders().iter();
    let backups = folders.filter(|folder| {
        let left_out = env
            .out
            .is_some_and(|out| out.is_excluded_from(folder.index(), job));
        folder.role() == Role::Folder(Mode::Backup) && !left_out
    });
    for folder in backups {
        expect_in(folder, job, read)?;
    }
    Ok(())
}

fn expect_in(folder: &Location, job: &JobId, read: &Manifest) -> Result<()> {
    let at = places::path(folder, job);
    let behind = |what: &str| {
        let why = format!(
            "it is backed up before it is moved: {what} {}",
            at.display()
        );
        Err(Error::new(job, Cause::Behind(why)))
    };
    let Ok(Some(copy)) = places::job(folder, job) else {
        return behind("there is no");
    };
    if !markers::is_done(&copy, job.name()).unwrap_or(false) {
        return behind("there is no complete");
    }
    let Ok(Some(theirs)) = manifests::read(folder, job) else {
        return behind("there is no manifest of");
    };
    let differences = theirs.differences(read);
    let Some(first) = differences.iter().find(|it| select::is_of_content(it)) else {
        return Ok(());
    };
    match compare(read, &theirs, &markers::done(job.name())) {
        // Looking at it again would change nothing.
        Comparison::Same => {
            let why = format!(
                "its backup has another content, with the same size and time of change (`xpmfs jobs archive --force` makes a new one): {}",
                at.join(&first.path).display()
            );
            Err(Error::new(job, Cause::Unsafe(why)))
        }
        _ => behind("it has changed since"),
    }
}
