//! What `verify` finds is shown by `status`, and keeps `umount --drain` from succeeding, until the copy is made anew.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::common::{Workspace, fails, run};
use crate::job::{self, hash};
use crate::stage::{has_all, is_drained, status, told, until};

/// Changes a byte, and keeps size and time.
fn corrupt(file: &Path) {
    let time = fs::metadata(file).unwrap().modified().unwrap();
    let mut contents = fs::read(file).unwrap();
    contents[0] ^= 1;
    fs::write(file, contents).unwrap();
    let file = fs::File::options().write(true).open(file).unwrap();
    file.set_modified(time).unwrap();
}

#[test]
fn a_damaged_and_a_missing_copy_are_reported_until_they_are_made_anew() {
    let workspace = Workspace::new();
    workspace.with_folders(&["backup"]);
    workspace.tune("{settle: 100ms, scan_interval: 1h}");
    let folder = workspace.folder("backup");
    for number in 0..3 {
        job::make(&workspace.primary(), number);
    }
    let mountpoint = workspace.mountpoint("elsewhere");
    let mounted = workspace.mount_archiving(&mountpoint, &[]);
    until("all are archived", || {
        has_all(&folder, 0..3) && is_drained(&workspace, &mountpoint)
    });
    until("status says so", || {
        told(&workspace, &mountpoint).contains("all finished jobs are archived")
    });
    corrupt(&folder.join(job::path(0)).join("model.bin"));
    fs::remove_dir_all(folder.join(job::path(1))).unwrap();
    fails(
        workspace
            .xpmfs()
            .args(["jobs", "verify", "-w", "test", "--all"]),
    );

    let report = status(&workspace, &mountpoint);
    assert_eq!(report["archive"]["damages"], 2, "{report}");
    let text = told(&workspace, &mountpoint);
    for expected in [
        "2 copies are damaged or missing",
        "the copy is damaged: model.bin",
        "the copy is missing",
        &hash(0),
        &hash(1),
    ] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
    assert!(!text.contains("all finished jobs are archived"), "{text}");

    // The drain looks for what is missing and copies it; the damaged copy stays.
    let output = fails(
        workspace
            .xpmfs()
            .args(["umount", "--drain"])
            .arg(&mountpoint),
    );
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("1 copy is damaged or missing"), "{text}");
    assert!(has_all(&folder, 0..3));

    run(workspace
        .xpmfs()
        .args(["jobs", "archive", "--force", "-w", "test", &hash(0)]));
    let text = told(&workspace, &mountpoint);
    assert!(text.contains("all finished jobs are archived"), "{text}");
    job::look_at(&folder.join(job::path(0)), 0).unwrap();
    run(workspace
        .xpmfs()
        .args(["umount", "--drain"])
        .arg(&mountpoint));
    drop(mounted);
}

#[test]
fn what_verify_finds_whole_is_reported_no_more() {
    let workspace = Workspace::new();
    workspace.with_folders(&["backup"]);
    job::make(&workspace.primary(), 0);
    let archive = |arguments: &[&str]| {
        let mut command = workspace.xpmfs();
        command.args(["jobs"]).args(arguments).args(["-w", "test"]);
        command
    };
    until("it has settled", || {
        archive(&["archive", "--all"]).status().unwrap().success()
    });
    let model = workspace
        .folder("backup")
        .join(job::path(0))
        .join("model.bin");
    corrupt(&model);
    fails(&mut archive(&["verify", "--all"]));
    let records = workspace.primary().join(".xpmfs/archive/damaged");
    let record = || {
        let folders = job::entries(&records).unwrap();
        let folder = records.join(&folders[0]);
        folder.join(job::TASK).join(hash(0))
    };
    assert!(record().exists());
    corrupt(&model);
    run(&mut archive(&["verify", "--all"]));
    assert!(!record().exists());
}

#[test]
fn status_counts_no_copy_that_was_made_anew_or_found_whole_since() {
    let workspace = Workspace::new();
    workspace.with_folders(&["backup"]);
    let command = |arguments: &[&str]| {
        let mut command = workspace.xpmfs();
        command.args(arguments).args(["-w", "test"]);
        command
    };
    for number in 0..3 {
        job::make(&workspace.primary(), number);
    }
    until("they have settled", || {
        let archived = command(&["jobs", "archive", "--all"]).status();
        archived.unwrap().success()
    });
    let model = |number| {
        let folder = workspace.folder("backup");
        folder.join(job::path(number)).join("model.bin")
    };
    corrupt(&model(0));
    corrupt(&model(1));
    fails(&mut command(&["jobs", "verify", "--all"]));
    let assert_verified = |text: &str, wrong: usize, mended: usize| {
        let told = run(&mut command(&["status"]));
        assert!(
            told.contains(&format!("3 copies, {text}\n")),
            "{text}: {told}"
        );
        let report = run(&mut command(&["--json", "status"]));
        let report: serde_json::Value = serde_json::from_str(&report).unwrap();
        let verified = &report["workspaces"][0]["verified"][0];
        assert_eq!(verified["wrong"], wrong, "{verified}");
        assert_eq!(verified["mended"], mended, "{verified}");
    };
    assert_verified("2 not OK", 2, 0);
    run(&mut command(&["jobs", "archive", "--force", &hash(0)]));
    assert_verified("1 not OK (1 mended since)", 1, 1);
    corrupt(&model(1));
    run(&mut command(&["jobs", "verify", &hash(1)]));
    assert_verified("all OK (2 mended since)", 0, 2);
    run(&mut command(&["jobs", "verify", "--all"]));
    assert_verified("all OK", 0, 0);
}

/// Copies as experimaestro makes them: without a manifest, there is nothing to verify them with.
#[test]
fn status_calls_no_copy_verified_that_has_no_manifest() {
    let workspace = Workspace::new();
    workspace.with_folders(&["backup"]);
    let command = |arguments: &[&str]| {
        let mut command = workspace.xpmfs();
        command.args(arguments).args(["-w", "test"]);
        command
    };
    let assert_verified = |text: &str, copies: u64, no_manifest: u64| {
        run(&mut command(&["jobs", "verify", "--all"]));
        let told = run(&mut command(&["status"]));
        let line = told.lines().find(|line| line.contains("last verified"));
        assert!(
            line.is_some_and(|line| line.ends_with(&format!(": {text}"))),
            "{text}: {told}"
        );
        let report = run(&mut command(&["--json", "status"]));
        let report: serde_json::Value = serde_json::from_str(&report).unwrap();
        let verified = &report["workspaces"][0]["verified"][0];
        assert_eq!(verified["copies"], copies, "{verified}");
        assert_eq!(verified["no_manifest"], no_manifest, "{verified}");
    };
    assert_verified("it had no copies", 0, 0);
    for number in 0..2 {
        job::make(&workspace.folder("backup"), number);
    }
    assert_verified(
        "no copy could be verified: 2 without a manifest (`xpmfs jobs verify --all -v` shows how to write one)",
        0,
        2,
    );
    job::make(&workspace.primary(), 1);
    until("one has a manifest", || {
        let archived = command(&["jobs", "archive", &hash(1)]).status();
        archived.unwrap().success()
    });
    assert_verified(
        "1 copy, all OK; not verified: 1 without a manifest (`xpmfs jobs verify --all -v` shows how to write one)",
        1,
        1,
    );
}

#[test]
fn the_directory_of_a_job_has_the_name_that_it_has_in_manifests() {
    let workspace = Workspace::new();
    workspace.with_folders(&["backup"]);
    job::make(&workspace.primary(), 0);
    let command = |arguments: &[&str]| {
        let mut command = workspace.xpmfs();
        command.args(arguments).args(["-w", "test"]);
        command
    };
    until("it has settled", || {
        let archived = command(&["jobs", "archive", "--all"]).status();
        archived.unwrap().success()
    });
    let copy = workspace.folder("backup").join(job::path(0));
    let closed = fs::Permissions::from_mode(0o710);
    fs::set_permissions(copy, closed).unwrap();
    let text = run(&mut command(&["jobs", "verify", "-v", &hash(0)]));
    assert!(text.contains("  . has another mode"), "{text}");
    let report = run(&mut command(&["--json", "jobs", "verify", &hash(0)]));
    let report: serde_json::Value = serde_json::from_str(&report).unwrap();
    assert_eq!(report[0]["differences"][0]["path"], ".", "{report}");
}
