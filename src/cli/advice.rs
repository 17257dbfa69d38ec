//! Advises what to do about an error of a job; for a missing permission, names it and the user who can grant it.
//!
//! This walks paths, which a daemon must not do: in place, they may lead into its own mount.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::unistd::{Uid, User};
use rustix::fs::{AtFlags, CWD};

use crate::archive::archived_jobs::Unseen;
use crate::archive::error::{Access, Cause, JobError};
use crate::sys::shell_word::shell_word;

/// What can be done about an error, as a clause, if anything.
pub(super) fn advice(error: &JobError) -> Option<String> {
    advice_about(&error.cause)
}

/// As [`advice`], about what went wrong with a run or a partial.
pub(super) fn advice_about(cause: &Cause) -> Option<String> {
    match cause.denied() {
        Some((path, access)) => Some(advice_on(&path, access)),
        None => cause.advice().map(ToOwned::to_owned),
    }
}

/// A sentence about what could not be read, with what can be done about it if a permission is missing.
pub(super) fn with_advice(unseen: &Unseen) -> String {
    match &unseen.denied {
        Some(path) => format!("{unseen}: {}", advice_on(path, Access::Read)),
        None => unseen.to_string(),
    }
}

/// What can be done about an access that was denied.
fn advice_on(path: &Path, access: Access) -> String {
    match missing(path, access) {
        Some(missing) => missing.advice(rustix::process::geteuid().as_raw()),
        None => {
            "the permissions allow it: check whether an attribute (`lsattr`) or its file server \
                 forbids it"
                .to_owned()
        }
    }
}

/// Permissions that the caller lacks on a path.
#[derive(Debug)]
struct Missing {
    path: PathBuf,
    /// As in `chmod u+…`.
    rights: String,
    directory: bool,
    owner: u32,
}

impl Missing {
    fn advice(&self, user: u32) -> String {
        let Missing { path, rights, .. } = self;
        let verbs = rights.chars().map(|right| match (right, self.directory) {
            ('r', false) => "read",
            ('r', true) => "list",
            ('w', false) => "write",
            ('w', true) => "write in",
            (_, false) => "run",
            (_, true) => "go into",
        });
        let (to, at) = (verbs.collect::<Vec<_>>().join(" and "), path.display());
        if self.owner == user {
            let quoted = shell_word(path);
            return format!("you own it, but may not {to} {at}: `chmod u+{rights} {quoted}`");
        }
        let name = User::from_uid(Uid::from_raw(self.owner)).ok().flatten();
        let name = name.map_or_else(|| self.owner.to_string(), |user| user.name);
        format!("ask its owner `{name}` for permission to {to} {at}")
    }
}

/// The first entry on the path that lacks a permission.
fn missing(path: &Path, access: Access) -> Option<Missing> {
    let mut ancestors: Vec<&Path> = path.ancestors().skip(1).collect();
    ancestors.reverse();
    let mut last = None;
    for directory in ancestors {
        if directory.metadata().is_err() {
            break;
        }
        if let Some(missing) = lacks(directory, "x") {
            return Some(missing);
        }
        last = Some(directory);
    }
    let there = path.symlink_metadata().ok();
    let is_directory = there.as_ref().is_some_and(std::fs::Metadata::is_dir);
    let itself = |rights| there.as_ref().and_then(|_| lacks(path, rights));
    match (access, is_directory) {
        (Access::Read, true) => itself("rx"),
        (Access::Read, false) => itself("r"),
        // An entry is created in a directory, or removed from it.
        (Access::Write, true) => last
            .and_then(|last| lacks(last, "w"))
            .or_else(|| itself("wx")),
        (Access::Write, false) => last.and_then(|last| lacks(last, "w")),
    }
}

/// Returns which of these permissions are missing on a path, if any.
fn lacks(path: &Path, rights: &str) -> Option<Missing> {
    let may = |right| {
        let access = match right {
            'r' => rustix::fs::Access::READ_OK,
            'w' => rustix::fs::Access::WRITE_OK,
            _ => rustix::fs::Access::EXEC_OK,
        };
        // Other errors, such as of a read-only disk, do not mean that a permission is missing.
        !matches!(
            rustix::fs::accessat(CWD, path, access, AtFlags::EACCESS),
            Err(rustix::io::Errno::ACCESS)
        )
    };
    let rights: String = rights.chars().filter(|right| !may(*right)).collect();
    let metadata = path.metadata().ok()?;
    (!rights.is_empty()).then(|| Missing {
        path: path.to_owned(),
        rights,
        directory: metadata.is_dir(),
        owner: metadata.uid(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_owner_gets_a_command_and_others_get_the_name_of_the_owner() {
        let missing = Missing {
            path: "/a b/c".into(),
            rights: "wx".to_owned(),
            directory: true,
            owner: 0,
        };
        assert_eq!(
            missing.advice(0),
            "you own it, but may not write in and go into /a b/c: `chmod u+wx '/a b/c'`"
        );
        assert_eq!(
            missing.advice(1),
            "ask its owner `root` for permission to write in and go into /a b/c"
        );
    }
}
