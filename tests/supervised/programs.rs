//! Real programs while the process that serves their mount is killed.

use std::process::Command;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::common::{run, say, skip, soak, tool};
use super::killer::kill_during;
use super::plan::Plan;
use super::{HOWS, mount, workspace};

const PAUSE: Duration = Duration::from_millis(150);
const TIME: Duration = Duration::from_secs(20);

#[test]
fn fsx_finds_what_it_has_written() {
    let Some(fsx) = tool("fsx") else {
        return skip("fsx is missing");
    };
    for how in HOWS {
        let workspace = workspace(how);
        let mounted = mount(&workspace, how);
        let file = mounted.path().join("file");
        let program = workspace.top().join("fsx");
        std::fs::copy(&fsx, &program).unwrap();
        kill_during(&workspace, mounted.path(), TIME, PAUSE, |_| {
            let mut command = workspace.command(&program);
            command
                .args(["-N", "4000", "-S", "7", "-P"])
                .arg(workspace.top());
            run(command.arg(&file));
        });
    }
}

#[test]
fn a_repository_is_cloned_whole() {
    for how in HOWS {
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
        let target = mounted.path().join("clone");
        kill_during(&workspace, mounted.path(), TIME, PAUSE, |_| {
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

/// experimaestro says nothing of an error, and no job is done twice.
#[test]
fn plans_run_without_an_error() {
    for how in HOWS {
        let workspace = workspace(how);
        let Some(plan) = Plan::of(&workspace) else {
            return;
        };
        let mounted = mount(&workspace, how);
        let (time, pause) = match soak() {
            true => (Duration::from_secs(300), Duration::from_secs(2)),
            false => (Duration::from_secs(2), Duration::from_millis(300)),
        };
        let mut plans = 0;
        let kills = kill_during(&workspace, mounted.path(), time, pause, |over| {
            while !over.load(Ordering::Acquire) {
                plans += 1;
                // Each has one training more than the one before, and the preparation is done once.
                let ran = plan.run(mounted.path(), &[&plans.to_string()]);
                assert_eq!(ran.executed.len(), if plans == 1 { 2 } else { 1 });
            }
        });
        say(&format!("{how:?}: {plans} plans, killed {kills} times"));
        assert!(plans > 0 && kills > 0);
    }
}
