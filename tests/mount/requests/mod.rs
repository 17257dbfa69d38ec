//! For how many requests of the kernel programs wait in everyday operations, and how many system calls the daemon makes
//! for each.

mod operations;
mod trace;

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use crate::common::{Workspace, eventually, is_root, program, say};
use operations::{ARCHIVED, OPERATIONS, Operation, archived, old};
use trace::{Requests, Trace};

/// How often each operation is done in a row.
const ROUNDS: usize = 4;

/// How many requests may be added in all rounds, and how many system calls: attributes and names are cached for a second.
const SLACK: usize = 2;
const CALLS_SLACK: usize = 3;

/// How often all is tried: each operation must do with its requests and system calls once.
const ATTEMPTS: usize = 20;

/// The kernel does not cache the contents of files that were changed more recently than this.
const UNCHANGED_FOR: Duration = Duration::from_secs(3);

#[test]
fn everyday_operations_of_root_wait_for_few_requests() {
    count_requests(Workspace::new, |operation| operation.of_root);
}

/// Without passthrough, and the daemon checks rights in place of the kernel.
#[test]
fn everyday_operations_of_an_ordinary_user_wait_for_few_requests() {
    count_requests(Workspace::of_ordinary_user, |operation| operation.of_user);
}

fn count_requests(workspace: fn() -> Workspace, expected: fn(&Operation) -> &'static str) {
    if !is_root() {
        say("SKIPPED: only root traces the daemon");
        return;
    }
    if program("strace").is_none() {
        return;
    }
    let workspace = workspace();
    let mountpoint = workspace.mountpoint("elsewhere");
    write_old_files(&workspace);
    let mounted = workspace.mount_at(&mountpoint);
    let mut trace = Trace::of(&workspace, &mountpoint);
    let wrong = workspace.as_user(|| compare_all(&mountpoint, &mut trace, expected));
    drop((trace, mounted));
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Does all operations until each has done once with what is expected. Returns what is wrong with the others.
fn compare_all(
    mountpoint: &Path,
    trace: &mut Trace,
    expected: fn(&Operation) -> &'static str,
) -> Vec<String> {
    let mut wrong: Vec<Option<String>> = vec![Some(String::new()); OPERATIONS.len()];
    // On a busy machine an attempt may take longer than attributes are cached.
    for attempt in 0..ATTEMPTS {
        let directory = mountpoint.join("jobs/task").join(attempt.to_string());
        for (operation, wrong) in OPERATIONS.iter().zip(&mut wrong) {
            for directory in [&directory, archived(&directory.join("0")).parent().unwrap()] {
                fs::metadata(directory).unwrap();
            }
            let paths = (0..ROUNDS).map(|round| directory.join(round.to_string()));
            paths.clone().for_each(|path| (operation.know)(&path));
            trace.requests(mountpoint);
            paths.for_each(|path| (operation.run)(&path));
            let found = trace.requests(mountpoint);
            let expected = Requests::expected(expected(operation), ROUNDS);
            let (requests, calls) = found.surplus(&expected);
            let is_right = requests <= SLACK && calls <= CALLS_SLACK;
            if is_right {
                *wrong = None;
            } else if let Some(wrong) = wrong {
                *wrong = format!("{}: {found}; expected {expected}", operation.name);
            }
        }
        if wrong.iter().all(Option::is_none) {
            break;
        }
    }
    wrong.into_iter().flatten().collect()
}

/// Writes files that are only read, for each attempt and round, and waits until the kernel may cache their contents.
fn write_old_files(workspace: &Workspace) {
    for attempt in 0..ATTEMPTS {
        let directories = [
            workspace.primary().join("jobs/task"),
            workspace.folder("backup").join("jobs").join(ARCHIVED),
        ];
        for directory in directories.map(|task| task.join(attempt.to_string())) {
            fs::create_dir_all(&directory).unwrap();
            for round in 0..ROUNDS {
                let file = directory.join(round.to_string());
                let file = match directory.starts_with(workspace.primary()) {
                    true => old(&file),
                    false => file,
                };
                fs::write(file, "some").unwrap();
            }
        }
    }
    workspace.give_away();
    let written = SystemTime::now();
    eventually("the files are not new any more", || {
        written.elapsed().is_ok_and(|age| age > UNCHANGED_FOR)
    });
}
