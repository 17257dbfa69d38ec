//! An ordinary user does all of it through `fusermount3`.
//!
//! Root, who may run the tests, is kept out of such a mount: whatever is done there, is done by
//! commands of the user.

// clippy.toml allows these in test functions only, not in what they call.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::plan;
use common::{
    FOLDERS, Folders, ORDINARY, Workspace, assert_unchanged, eventually, is_mounted, run, snapshot,
};
use plan::{Plan, assert_ran_at};
use serde_json::Value;

const TASK: &str = "my.module.train";

/// A shell script, run by the user at a place in a mount, with arguments.
fn shell(workspace: &Workspace, at: &Path, script: &str, arguments: &[&str]) -> Command {
    let mut command = workspace.command("sh");
    let enter = format!("set -eu\ncd \"$1\"\nshift\n{script}");
    command.args(["-c", &enter, "sh"]).arg(at).args(arguments);
    // Where it starts may be a directory that the user must not enter.
    command
}

/// What a script of the user prints, which must succeed.
fn printed(workspace: &Workspace, at: &Path, script: &str, arguments: &[&str]) -> String {
    run(&mut shell(workspace, at, script, arguments))
}

fn location(workspace: &Workspace, at: &Path, path: impl AsRef<Path>) -> String {
    let path = path.as_ref().to_str().unwrap();
    let script = r#"getfattr --only-values -n user.xpmfs.location -- "$1""#;
    let location = printed(workspace, at, script, &[path]);
    location.split(':').next().unwrap().to_owned()
}

/// Another's directory, which the user may only read: root's, or of the user without right to write.
struct ReadOnly(PathBuf);

impl ReadOnly {
    fn new(path: PathBuf, workspace: &Workspace) -> ReadOnly {
        let rights = match workspace.is_of_another_user() {
            true => "u+w,go+rX,go-w",
            false => "a+rX,a-w",
        };
        run(Command::new("chmod").args(["-R", rights]).arg(&path));
        ReadOnly(path)
    }
}

impl Drop for ReadOnly {
    fn drop(&mut self) {
        let _ = Command::new("chmod")
            .args(["-R", "u+w"])
            .arg(&self.0)
            .status();
    }
}

/// A colleague's workspace, which is still called so where it is a folder of ours.
fn colleague() -> Workspace {
    let colleague = Workspace::builder().primary("theirs").build();
    // The way there: the test's own directory is nobody else's business otherwise.
    fs::set_permissions(colleague.top(), fs::Permissions::from_mode(0o755)).unwrap();
    colleague
}

/// In place and at another path.
fn places(workspace: &Workspace) -> [PathBuf; 2] {
    [workspace.primary(), workspace.mountpoint("mnt")]
}

#[test]
fn jobs_are_listed_and_read_wherever_they_lie() {
    let workspace = Workspace::of_ordinary_user();
    let locations = ["backup", "move", "primary", "use"];
    let jobs = locations.map(|location| workspace.finished(location, TASK, location));
    let model = fs::read(jobs[0].join("model.bin")).unwrap();
    for at in places(&workspace) {
        let mounted = workspace.mount_at(&at);
        let listed = printed(&workspace, &at, "ls -F jobs/*", &[]);
        let expected: String = locations.map(|name| format!("{name}/\n")).concat();
        assert_eq!(listed, expected);
        for hash in locations {
            let job = format!("jobs/{TASK}/{hash}");
            assert_eq!(location(&workspace, &at, &job), hash);
            let sum = printed(&workspace, &at, "cat \"$1\"/model.bin", &[&job]);
            assert_eq!(sum.as_bytes(), model);
        }
        mounted.unmount();
    }
}

#[test]
fn the_primary_is_written_and_folders_never_change() {
    let workspace = Workspace::of_ordinary_user().never_recovers();
    for location in ["primary", "use", "backup", "move"] {
        workspace.finished(location, TASK, location);
    }
    let folders = Folders::of(&workspace);
    for at in places(&workspace) {
        let mounted = workspace.mount_at(&at);
        let make = r#"
            mkdir -p jobs/new.task/hash; cd jobs/new.task/hash
            echo one >file; echo two >>file; ln file other; ln -s file link; mv file moved
            chmod 0640 moved; touch -d 2001-02-03T04:05:06Z moved; setfattr -n user.mine -v yes moved
            stat -c '%h %u %a %Y' moved; cat link 2>/dev/null || cat other; rm link other moved
            cd ..; rmdir hash
            echo more >>../my.module.train/primary/train.out
        "#;
        let expected = format!("2 {} 640 981173106\none\ntwo\n", user(&workspace));
        assert_eq!(printed(&workspace, &at, make, &[]), expected);
        for folder in FOLDERS {
            let attempts = r#"
                cd "jobs/my.module.train/$1"
                for attempt in 'echo x >>train.out' 'echo x >new' ': >model.bin' 'rm train.done' \
                    'chmod 0600 train.out' 'touch train.out' 'mkdir new' 'ln train.out new' \
                    'mv train.out new' 'rm -rf .experimaestro' 'setfattr -n user.x -v x train.out'
                do
                    if said=$(sh -c "$attempt" 2>&1); then echo "done: $attempt"; fi
                    case $said in *'Read-only file system'*) ;; *) echo "$attempt: $said" ;; esac
                done
            "#;
            assert_eq!(printed(&workspace, &at, attempts, &[folder]), "");
        }
        mounted.unmount();
    }
    folders.assert_unchanged();
    let log = workspace
        .primary()
        .join(format!("jobs/{TASK}/primary/train.out"));
    assert!(fs::read_to_string(log).unwrap().ends_with("more\nmore\n"));
}

fn user(workspace: &Workspace) -> u32 {
    match workspace.is_of_another_user() {
        true => ORDINARY,
        false => rustix::process::geteuid().as_raw(),
    }
}

#[test]
fn archived_jobs_are_locked_also_those_that_may_only_be_read() {
    let colleague = colleague();
    let workspace = Workspace::of_ordinary_user();
    workspace.attach("use", &colleague.primary());
    let jobs = [("use", "a"), ("backup", "b"), ("move", "c")];
    for (folder, hash) in jobs {
        let job = workspace.finished(folder, TASK, hash);
        fs::write(job.join("train.lock"), "").unwrap();
        workspace.give(&job);
    }
    let theirs = colleague.finished("primary", TASK, "d");
    fs::write(theirs.join("train.lock"), "").unwrap();
    let theirs = ReadOnly::new(colleague.primary(), &workspace);
    let (ours, before) = (Folders::of(&workspace), snapshot(&theirs.0));
    for at in places(&workspace) {
        let mounted = workspace.mount_at(&at);
        for hash in ["a", "b", "c", "d"] {
            let script = r#"
                cd "$1"
                exec 9<>train.lock
                flock -n 9
                ! flock -n train.lock true
                ( flock -w 30 train.lock echo later; ) &
                flock -u 9
                wait
            "#;
            let job = format!("jobs/{TASK}/{hash}");
            assert_eq!(
                printed(&workspace, &at, script, &[&job]),
                "later\n",
                "{hash}"
            );
            let internal = workspace.primary().join(".xpmfs/internal");
            if at != workspace.primary() {
                assert!(internal.join(TASK).join(hash).join("train.lock").exists());
            }
        }
        mounted.unmount();
    }
    ours.assert_unchanged();
    assert_unchanged(&theirs.0, &before);
}

#[test]
fn what_may_not_be_read_of_a_folder_is_told_of_and_hides_nothing_else() {
    const LOCKED: &str = "my.module.locked";
    let workspace = Workspace::of_ordinary_user();
    let mode = |path: &Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    let hidden = workspace.finished("use", TASK, "hidden");
    workspace.finished("use", TASK, "shown");
    workspace.finished("primary", TASK, "own");
    workspace.finished("use", LOCKED, "theirs");
    workspace.finished("primary", LOCKED, "own");
    let task = workspace.folder("use").join("jobs").join(LOCKED);
    mode(&hidden, 0);
    mode(&task, 0);
    let at = workspace.mountpoint("mnt");
    let mounted = workspace.mount_at(&at);
    let listed = printed(&workspace, &at, "ls jobs/my.module.train jobs/*locked", &[]);
    assert_eq!(
        listed,
        "jobs/my.module.locked:\nown\n\njobs/my.module.train:\nown\nshown\n"
    );
    let status = || run(workspace.xpmfs().args(["status", "-w", "test"]));
    let said = status();
    assert!(
        said.contains("2 entries not shown") && said.contains("Permission denied"),
        "{said}"
    );
    assert!(workspace.log().contains("cannot be read and does not show"));
    mode(&hidden, 0o755);
    mode(&task, 0o755);
    let script = "ls jobs/my.module.train/hidden/model.bin jobs/my.module.locked/theirs/model.bin";
    // The folder is asked again within a second.
    eventually("they show", || {
        shell(&workspace, &at, script, &[])
            .output()
            .unwrap()
            .status
            .success()
    });
    printed(&workspace, &at, "ls -R jobs", &[]);
    let said = status();
    assert!(!said.contains("cannot be looked at"), "{said}");
    mounted.unmount();
}

#[test]
fn a_folder_that_may_not_be_opened_is_not_said_to_be_gone() {
    let workspace = Workspace::of_ordinary_user();
    let folder = workspace.folder("backup");
    let mode = |mode| fs::set_permissions(&folder, fs::Permissions::from_mode(mode)).unwrap();
    let at = workspace.mountpoint("mnt");
    mode(0);
    let mounted = workspace.mount_archiving(&at, &[]);
    let refuses = || {
        let printed = run(workspace.xpmfs().args(["--json", "status"]).arg(&at));
        let mut status: Value = serde_json::from_str(&printed).unwrap();
        let folders = status["mounts"][0]["archive"]["folders"].take();
        let mut folders = folders.as_array().unwrap().iter();
        let folder = folders.find(|folder| folder["mode"] == "backup");
        folder.unwrap()["refuses"]["why"].clone()
    };
    eventually("it is told why", || {
        refuses() == "it may not be opened: permission denied"
    });
    mode(0o755);
    eventually("it is opened", || refuses().is_null());
    mounted.unmount();
}

#[test]
fn status_and_umount_know_the_mount() {
    let workspace = Workspace::of_ordinary_user();
    for at in places(&workspace) {
        let mounted = workspace.mount_at(&at);
        let printed = run(workspace.xpmfs().args(["--json", "status", "-w", "test"]));
        let status: Value = serde_json::from_str(&printed).unwrap();
        // Of a dead mount the name is all that is known, and another workspace may have had the same one.
        let mounts = status["mounts"].as_array().unwrap().iter();
        let alive: Vec<&Value> = mounts.filter(|mount| mount["state"] != "dead").collect();
        let [mount] = alive.as_slice() else {
            panic!("not one mount: {printed}");
        };
        assert_eq!(mount["mountpoint"], at.to_str().unwrap());
        assert_eq!(mount["state"], "ok");
        assert_eq!(mount["locations"].as_array().unwrap().len(), 4);
        assert!(run(workspace.xpmfs().arg("status")).contains(at.to_str().unwrap()));

        let opened = r#"exec 9<.; xpmfs=$1; shift; ! "$xpmfs" "$@""#;
        let umount = workspace.xpmfs();
        let xpmfs = match workspace.is_of_another_user() {
            true => workspace.top().join("bin/xpmfs"),
            false => PathBuf::from(umount.get_program()),
        };
        let busy = [xpmfs.to_str().unwrap(), "umount", at.to_str().unwrap()];
        run(&mut shell(&workspace, &at, opened, &busy));
        assert!(is_mounted(&at), "unmounted while it was in use");
        mounted.unmount();
    }
}

#[test]
fn a_plan_of_a_colleague_does_not_run_again_and_a_new_one_does() {
    let colleague = colleague();
    let Some(theirs) = Plan::of(&colleague) else {
        return;
    };
    let first = theirs.run(&colleague.primary(), &["2"]);
    let workspace = Workspace::of_ordinary_user();
    workspace.attach("use", &colleague.primary());
    let folder = ReadOnly::new(colleague.primary(), &workspace);
    let before = snapshot(&folder.0);
    let Some(ours) = Plan::of(&workspace) else {
        return;
    };

    let counts = ["3", "4"];
    for (at, count) in places(&workspace).into_iter().zip(counts) {
        let mounted = workspace.mount_at(&at);
        let device = printed(&workspace, &at, "stat -c %d .", &[]);
        let again = ours.run(&at, &["2"]);
        assert_eq!(again.jobs, first.jobs);
        assert_eq!(again.executed, []);
        for job in &first.jobs {
            assert_eq!(location(&workspace, &at, job.path()), "use");
        }
        let more = ours.run(&at, &[count]);
        let new = more.jobs.last().unwrap();
        assert_eq!(more.executed, std::slice::from_ref(new));
        assert_eq!(location(&workspace, &at, new.path()), "primary");
        mounted.unmount();
        let output = workspace.primary().join(new.file("out"));
        assert_ran_at(&at, device.trim().parse().unwrap(), new, &output);
    }
    assert_unchanged(&folder.0, &before);
}

#[test]
fn status_says_why_a_mount_is_closed_after_a_change_of_the_group() {
    let workspace = Workspace::of_ordinary_user();
    let mount = workspace.mount_in_place();
    let program = workspace.xpmfs().get_args().find_map(|argument| {
        let argument = argument.to_string_lossy();
        argument.ends_with("/xpmfs").then(|| argument.into_owned())
    });
    let Some(program) = program else {
        println!("not tested: only root can become a user in another group");
        mount.unmount();
        return;
    };
    let in_group = |group: &str, program: &str, arguments: &[&str]| {
        let user = common::ORDINARY.to_string();
        std::process::Command::new("setpriv")
            .args(["--reuid", &user, "--regid", group, "--clear-groups", "--"])
            .arg(program)
            .args(arguments)
            .env("HOME", workspace.top())
            .env("XDG_RUNTIME_DIR", workspace.top())
            .current_dir(workspace.top())
            .output()
            .unwrap()
    };
    let path = mount.path().to_str().unwrap();
    // `games`, as after `newgrp games`.
    assert!(!in_group("60", "ls", &[path]).status.success());
    let output = in_group("60", &program, &["status", path]);
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("closed to this group"), "{output:?}");
    assert!(
        said.contains("this shell is in the group `games`"),
        "{said}"
    );
    let group = common::ORDINARY.to_string();
    let output = in_group(&group, &program, &["status", path]);
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(!said.contains("closed"), "{said}");
    mount.unmount();
}
