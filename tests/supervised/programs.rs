//! Real programs while the process that serves their mount is killed or reloaded.

use std::path::Path;
use std::process::Command;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::common::{run, say, skip, soak, tool};
use super::killer::{By, replace_during};
use super::plan::Plan;
use super::{HOWS, How, Workspace, mount, workspace};

/// For how long the process is replaced at most, or at least in a soak, and how often. A program that is over before is not run again.
fn time_and_pause() -> (Duration, Duration) {
    match soak() {
        true => (Duration::from_secs(300), Duration::from_secs(2)),
        false => (Duration::from_secs(20), Duration::from_millis(150)),
    }
}

/// The kinds of mounts to try. A reload takes longer than a kill, and differs only in how the process ends.
fn hows(by: By) -> Vec<How> {
    match by {
        By::Reload if !soak() => vec![How::InPlace],
        _ => HOWS.to_vec(),
    }
}

/// Runs a program while the process is replaced: once, or in a soak again and again. `run` receives how often it has run before.
fn run_during(workspace: &Workspace, mountpoint: &Path, by: By, mut run: impl FnMut(usize) + Send) {
    let (time, pause) = time_and_pause();
    let mut times = 0;
    let count = replace_during(workspace, mountpoint, by, time, pause, |over| {
        while times == 0 || soak() && !over.load(Ordering::Acquire) {
            run(times);
            times += 1;
        }
    });
    say(&format!("{times} runs, {count} times {by:?}"));
    assert!(count > 0);
}

fn fsx(by: By) {
    let Some(fsx) = tool("fsx") else {
        return skip("fsx is missing");
    };
    for how in hows(by) {
        let workspace = workspace(how);
        let mounted = mount(&workspace, how);
        let file = mounted.path().join("file");
        let program = workspace.top().join("fsx");
        std::fs::copy(&fsx, &program).unwrap();
        run_during(&workspace, mounted.path(), by, |times| {
            let mut command = workspace.command(&program);
            command.args(["-N", "4000", "-S", &(7 + times).to_string(), "-P"]);
            run(command.arg(workspace.top()).arg(&file));
        });
    }
}

fn clone(by: By) {
    for how in hows(by) {
        let workspace = workspace(how);
        let source = workspace.top().join("source");
        let git = |arguments: &[&str]| {
            let mut command = Command::new("git");
            command.args(["-c", "user.name=n", "-c", "user.email=e", "-C"]);
            run(command.arg(&source).args(arguments));
        };
        std::fs::create_dir(&source).unwrap();
        git(&["init", "-q"]);
        for number in 0..200 {
            let text = format!("{number}\n").repeat(1 + number * 7);
            std::fs::write(source.join(format!("file-{number}")), text).unwrap();
        }
        git(&["add", "."]);
        git(&["commit", "-q", "-m", "all"]);
        workspace.give(&source);
        let mounted = mount(&workspace, how);
        run_during(&workspace, mounted.path(), by, |times| {
            let target = mounted.path().join(format!("clone-{times}"));
            let mut command = workspace.command("git");
            command.args(["-c", "safe.directory=*", "clone", "-q", "--no-hardlinks"]);
            run(command.arg(&source).arg(&target));
            let mut command = workspace.command("git");
            command.args(["-c", "safe.directory=*", "-C"]).arg(&target);
            run(command.args(["fsck", "--strict"]));
            let mut command = workspace.command("git");
            command.args(["-c", "safe.directory=*", "-C"]).arg(&target);
            let status = run(command.args(["status", "--porcelain"]));
            assert_eq!(status, "");
        });
    }
}

fn plans(by: By) {
    for how in hows(by) {
        let workspace = workspace(how);
        let Some(plan) = Plan::of(&workspace) else {
            return;
        };
        let mounted = mount(&workspace, how);
        run_during(&workspace, mounted.path(), by, |times| {
            // Each has one training more than the one before, and the preparation is done once.
            let ran = plan.run(mounted.path(), &[&(times + 1).to_string()]);
            assert_eq!(ran.executed.len(), if times == 0 { 2 } else { 1 });
        });
    }
}

#[test]
fn fsx_finds_what_it_has_written() {
    fsx(By::Kill);
}

#[test]
fn a_repository_is_cloned_whole() {
    clone(By::Kill);
}

/// experimaestro says nothing of an error, and no job is done twice.
#[test]
fn plans_run_without_an_error() {
    plans(By::Kill);
}

#[test]
fn fsx_finds_what_it_has_written_while_the_mount_is_reloaded() {
    fsx(By::Reload);
}

#[test]
fn a_repository_is_cloned_whole_while_the_mount_is_reloaded() {
    clone(By::Reload);
}

#[test]
fn plans_run_without_an_error_while_the_mount_is_reloaded() {
    plans(By::Reload);
}
