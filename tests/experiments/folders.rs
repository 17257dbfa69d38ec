//! Folders that are bare, full, or used by two processes at the same time.

use std::fs;
use std::process::{Command, Stdio};

use crate::common::{eventually, run};
use crate::scene::{
    LATER, RUN, TASK, archive, archives, finished, job, settle, tree, workspace, write,
};

#[test]
fn a_folder_that_names_a_jobs_directory_receives_jobs_alone() {
    let workspace = workspace();
    let bare = workspace.top().join("bare/jobs");
    fs::create_dir_all(&bare).unwrap();
    workspace.write_settings(&[], Some("{settle: 100ms, scan_interval: 100ms}"));
    workspace.attach("backup", &bare);
    job(&workspace, "0a", "1f");
    finished(&workspace, RUN, &["0a"]);
    let output = archives(&workspace);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert_eq!(said.matches("no runs or partials").count(), 1, "{said}");
    assert!(bare.join(TASK).join("0a").is_dir());
    let mounted = workspace.mount_archiving(&workspace.mountpoint("elsewhere"), &[]);
    eventually("status says so", || {
        let shown = run(workspace.xpmfs().arg("status").arg(mounted.path()));
        shown.contains("no runs or partials")
    });
    run(workspace
        .xpmfs()
        .args(["umount", "--drain"])
        .arg(mounted.path()));
    for name in ["experiments", "partials", ".__experimaestro__"] {
        assert!(!bare.join(name).exists(), "{name}");
    }
}

#[test]
fn a_full_folder_gets_nothing_torn_and_the_rest_later() {
    if !crate::common::is_root() {
        return;
    }
    let workspace = workspace();
    let folder = workspace.folder("backup");
    job(&workspace, "0a", "1f");
    finished(&workspace, RUN, &["0a"]);
    archive(&workspace);
    let disk = Disk::new(&workspace, 2);
    archive(&workspace);
    let big = workspace
        .primary()
        .join(format!("partials/{TASK}/ck/1f/big"));
    fs::write(&big, vec![7; 4 << 20]).unwrap();
    finished(&workspace, LATER, &["0a"]);
    let before = tree(&folder);
    let output = archives(&workspace);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success() && said.contains("no space"),
        "{said}"
    );
    assert_eq!(tree(&folder), before);
    disk.resize(16);
    archive(&workspace);
    assert_eq!(
        fs::read(folder.join(format!("partials/{TASK}/ck/1f/big")))
            .unwrap()
            .len(),
        4 << 20
    );
    assert!(folder.join("experiments/xp").join(LATER).is_dir());
}

/// A small disk in the place of the folder.
struct Disk(std::path::PathBuf);

impl Disk {
    fn new(workspace: &crate::common::Workspace, mebibytes: u32) -> Disk {
        let folder = workspace.folder("backup");
        let options = format!("size={mebibytes}m");
        run(Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "tmpfs"])
            .arg(&folder));
        fs::create_dir(folder.join("jobs")).unwrap();
        Disk(folder)
    }

    fn resize(&self, mebibytes: u32) {
        let options = format!("remount,size={mebibytes}m");
        run(Command::new("mount").args(["-o", &options]).arg(&self.0));
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).output();
    }
}

#[test]
fn two_processes_at_once_make_one_copy_of_each() {
    let workspace = workspace();
    let names: Vec<String> = (0..12).map(|number| format!("0{number:x}")).collect();
    let jobs: Vec<&str> = names.iter().map(String::as_str).collect();
    for (number, hash) in jobs.iter().enumerate() {
        job(&workspace, hash, &format!("{number}f"));
    }
    for number in 0..6 {
        let run = finished(&workspace, &format!("2026010{}_000000", number + 1), &jobs);
        write(&run.join("events/event-0.jsonl"), &"x".repeat(100_000));
    }
    settle(&workspace.primary());
    let start = || {
        let mut command = workspace.xpmfs();
        command
            .args(["archive", "-w", "test", "-v"])
            .stderr(Stdio::piped());
        command.spawn().unwrap()
    };
    let both = [start(), start()];
    let mut said = String::new();
    for child in both {
        let output = child.wait_with_output().unwrap();
        said += &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
    }
    assert_eq!(
        said.matches(": copied to backup").count(),
        12 + 12 + 6,
        "{said}"
    );
    let folder = workspace.folder("backup");
    let left = run(Command::new("find").arg(&folder).args(["-name", ".tmp.*"]));
    assert_eq!(left, "", "staging is left");
    let runs = fs::read_dir(folder.join("experiments/xp")).unwrap().count();
    assert_eq!(runs, 6 + 1);
}
