//! Every kind of request for what a folder that hangs has or may have, from many processes at once: none of them waits
//! for ever, and what the primary has is served meanwhile.

use std::fs;
use std::path::Path;
use std::process::Stdio;

use super::hanging::{PROMPT, Served};
use crate::common::{Workspace, snapshot};
use crate::job::{self, TASK, hash};
use crate::stage::{Process, until};

/// Requests for a job of the folder (`$J`), for one that nobody has (`$N`), and for names in the task that both have (`$T`).
const REQUESTS: [&str; 24] = [
    "stat $J/model.bin",
    "stat $J/train.out",
    "stat $J/data",
    "stat $J/absent",
    "cat $J/train.out",
    "head -c 10 $J/model.bin",
    "ls -l $J",
    "ls -l $J/data",
    "readlink $J/latest",
    "getfattr -d -m - $J/params.json",
    "chmod 600 $J/params.json",
    "touch $J/params.json",
    "touch $J/new",
    "mkdir $J/data/new",
    "rm -f $J/params.json",
    "rm -rf $J/data",
    "mv $J/train.out $J/moved",
    "ln $J/train.err $J/linked",
    "ln -s target $J/link",
    "rmdir $J/data/empty",
    "rmdir $N",
    "mv $N $T/moved",
    "unlink $T/absent",
    "ls -l $T",
];

/// Starts a shell command of one of the processes; the result does not matter.
fn start(workspace: &Workspace, mountpoint: &Path, request: &str) -> Process {
    let task = mountpoint.join("jobs").join(TASK);
    let mut command = workspace.command("sh");
    command.args(["-c", &format!("exec {request}")]);
    command.env("T", &task);
    command.env("P", task.join(hash(0)));
    command.env("J", task.join(hash(10)));
    command.env("N", task.join(hash(20)));
    command.stdin(Stdio::null()).stdout(Stdio::null());
    Process::start(command.stderr(Stdio::null()))
}

/// Runs a shell command in the mount, which must succeed soon.
fn succeeds(workspace: &Workspace, mountpoint: &Path, request: &str) {
    let ended = start(workspace, mountpoint, request).end(PROMPT);
    assert!(ended.success(), "{request}: {ended}");
}

#[test]
fn no_request_waits_for_ever_for_a_folder_that_hangs() {
    // Whatever happens, the folder goes on before their end is waited for.
    let mut waiting = Vec::new();
    let workspace = Workspace::new();
    let served = Served::new(&workspace);
    workspace.with_folders(&[]);
    workspace.attach("use", &served.folder());
    let mountpoint = workspace.mountpoint("elsewhere");
    for number in 0..2 {
        job::make(&workspace.primary(), number);
    }
    job::make(&served.folder(), 10);
    let task = workspace.primary().join("jobs").join(TASK);
    for name in ["one", "two", "three"] {
        fs::write(task.join(name), "").unwrap();
    }
    let mounted = workspace.mount_with(&mountpoint, &[]);
    // The kernel knows what it is asked for, so that it asks for it itself and not only for the way there.
    let job = mountpoint.join(job::path(10));
    job::look_at(&job, 10).unwrap();
    job::look_at(&mountpoint.join(job::path(0)), 0).unwrap();
    let archived = snapshot(&workspace.top().join("disk"));

    served.stop();
    for _ in 0..2 {
        for request in REQUESTS {
            waiting.push(start(&workspace, &mountpoint, request));
        }
    }
    for request in [
        "cat $P/model.bin",
        "ls $T/..",
        "mkdir $T/../new.task",
        "touch $T/../../new",
    ] {
        succeeds(&workspace, &mountpoint, request);
    }
    for (request, waiting) in REQUESTS.iter().cycle().zip(&mut waiting) {
        let ended = waiting.end(PROMPT);
        // Nobody has them, or may change them.
        let refused = !["stat", "cat", "head", "ls", "readlink", "getfattr", "rm -"]
            .iter()
            .any(|allowed| request.starts_with(allowed));
        assert!(!refused || !ended.success(), "{request}: {ended}");
    }

    // What is in the task's directory of the primary is changed while the folder hangs.
    for request in [
        "unlink $T/one",
        "mv $T/two $T/four",
        "ln $T/three $T/five",
        "ln -s three $T/six",
        "chmod 600 $T/three",
        "mkdir $N",
        "touch $N/new",
        "rm -r $N",
        "rmdir $T/../new.task",
    ] {
        succeeds(&workspace, &mountpoint, request);
    }
    served.go_on();
    until("the folder is asked again", || {
        job::look_at(&job, 10).is_ok()
    });
    assert_eq!(snapshot(&workspace.top().join("disk")), archived);
    assert!(
        !task.join(hash(10)).exists(),
        "a job of the folder was made again"
    );
    mounted.unmount();
}
