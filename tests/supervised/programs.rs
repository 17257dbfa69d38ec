//! Real programs while the process that serves their mount is killed.

use std::process::Command;
use std::time::Duration;

use super::common::{run, skip, tool};
use super::killer::kill_during;
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
