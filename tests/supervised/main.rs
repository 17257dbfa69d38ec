//! The process that serves a mount is killed or reloaded, again and again: programs that use the mount see no error that the disk would not
//! give.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../common/mod.rs"]
mod common;
mod kept;
mod killer;
mod life;
mod programs;
mod refused;
mod reload;
mod renames;
mod settings;
mod unanswered;
mod work;

use common::{Workspace, plan};

/// The task of all jobs here.
const TASK: &str = "test.task";

/// How a workspace is mounted and by whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    InPlace,
    Elsewhere,
    /// By a user without rights, so without passthrough.
    Ordinary,
}

const HOWS: [How; 3] = [How::InPlace, How::Elsewhere, How::Ordinary];

/// A workspace with jobs in the primary and in two folders.
fn workspace(how: How) -> Workspace {
    let workspace = match how {
        How::Ordinary => Workspace::of_ordinary_user(),
        _ => Workspace::new(),
    };
    workspace.with_folders(&["use", "backup"]);
    for location in ["primary", "use", "backup"] {
        for number in 0..40 {
            workspace.finished(location, TASK, &format!("{location}-{number}"));
        }
    }
    if how == How::Ordinary {
        workspace.give_away();
    }
    workspace
}

fn mount<'a>(workspace: &'a Workspace, how: How) -> common::Mounted<'a> {
    match how {
        How::Elsewhere => workspace.mount_at(&workspace.mountpoint("elsewhere")),
        _ => workspace.mount_in_place(),
    }
}
