//! A file is in the place of a directory: each command that reads it names it, and what to do.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::common::Workspace;
use crate::scene::{RUN, finished, job, workspace};

fn printed(command: &mut Command) -> String {
    let output = command.output().unwrap();
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Moves what is at a path away, and puts a file there.
fn obstruct(path: &Path) {
    if path.exists() {
        fs::rename(path, path.with_file_name("away")).unwrap();
    }
    fs::write(path, "mine").unwrap();
}

fn with_a_run() -> Workspace {
    let workspace = workspace();
    job(&workspace, "0a", "1f");
    finished(&workspace, RUN, &["0a"]);
    let other = workspace.mountpoint("other");
    let settings = fs::read_to_string(workspace.settings()).unwrap();
    let other = format!("  - {{id: other, path: {}}}\n", other.display());
    fs::write(workspace.settings(), settings + &other).unwrap();
    workspace
}

#[test]
fn a_file_in_place_of_experiments_is_named() {
    let commands: [&[&str]; 7] = [
        &["experiments", "list"],
        &["experiments", "runs"],
        &["experiments", "recover", "--all"],
        &["experiments", "copy", "xp", "--to-workspace", "other"],
        &["orphans"],
        &["jobs", "list"],
        &["archive"],
    ];
    for name in ["experiments", "xp"] {
        let workspace = with_a_run();
        let path = workspace.primary().join(name);
        obstruct(&path);
        for arguments in commands {
            let of = match arguments.contains(&"copy") {
                true => ["--from-workspace", "test"],
                false => ["-w", "test"],
            };
            let text = printed(workspace.xpmfs().args(arguments).args(of));
            let about = format!("{name} {arguments:?}: {text}");
            assert!(text.contains(path.to_str().unwrap()), "{about}");
            assert!(text.contains("move it away"), "{about}");
            assert!(!text.contains("os error"), "{about}");
        }
    }
}

#[test]
fn a_file_in_place_of_jobs_is_named_by_every_command() {
    let workspace = with_a_run();
    let path = workspace.primary().join("jobs");
    obstruct(&path);
    let commands: [&[&str]; 6] = [
        &["jobs", "list"],
        &["jobs", "recover", "--all"],
        &["orphans"],
        &["experiments", "list"],
        &["archive"],
        &["mount"],
    ];
    for arguments in commands {
        let text = printed(workspace.xpmfs().args(arguments).args(["-w", "test"]));
        let told = format!("{} is a file", path.display());
        assert!(
            text.contains(&told) && text.contains("move it out of the way"),
            "{arguments:?}: {text}"
        );
    }
}

#[test]
fn a_file_in_a_folder_in_place_of_what_a_run_needs_is_named() {
    for name in [
        "experiments",
        "experiments/xp",
        "partials",
        ".xpmfs/experiments",
    ] {
        let workspace = with_a_run();
        let path = workspace.folder("backup").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        obstruct(&path);
        let output = workspace.xpmfs().args(["archive", "-w", "test"]).output();
        let output = output.unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{name}: {text}");
        let told = format!("{} is a file, where a directory should be", path.display());
        assert!(text.contains(&told), "{name}: {text}");
    }
}
