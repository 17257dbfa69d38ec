//! What `status` prints for a person, and its exit status for programs.

use std::fs;
use std::path::Path;
use std::process::Output;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use xpmfs::sys::deadline::wait_until;

use crate::home::{Home, LIMIT, at_everybodys_home, is_mounted, said};

/// Adds a finished job to the workspace.
fn finish(home: &Home, hash: char) -> String {
    let hash = hash.to_string().repeat(64);
    let job = home.path("ws/jobs/t").join(&hash);
    fs::create_dir_all(&job).unwrap();
    fs::write(job.join("t.done"), "").unwrap();
    fs::write(job.join("model"), "weights").unwrap();
    hash
}

fn check(home: &Home, more: &[&str]) -> Output {
    let arguments = [&["status", "--check", "-w", "nlp"], more].concat();
    home.xpmfs(&arguments).output().unwrap()
}

/// Waits until nothing is wrong: a dead mount of another test may have the name of this workspace.
fn expect_ok(home: &Home) {
    let is_ok = || check(home, &[]).status.success();
    assert!(wait_until(LIMIT, is_ok), "{}", said(&check(home, &[])));
}

/// Without the time to settle, so that a test does not wait for it.
fn at_once(home: &Home) {
    let settings = home.path("settings.yaml");
    let text = fs::read_to_string(&settings).unwrap();
    fs::write(&settings, format!("xpmfs: {{settle: 0s}}\n{text}")).unwrap();
}

#[test]
fn status_knows_when_all_copies_were_verified_last() {
    let home = Home::new(false);
    at_once(&home);
    let hash = finish(&home, 'c');
    fs::remove_dir_all(home.path("kept/jobs/t").join("b".repeat(64))).unwrap();
    home.does(&["jobs", "archive", "-w", "nlp", &hash]);
    assert!(!home.does(&["status", "-w", "nlp"]).contains("verified"));
    // One job is not all.
    home.does(&["jobs", "verify", "-w", "nlp", &hash]);
    assert!(!home.does(&["status", "-w", "nlp"]).contains("verified"));
    home.does(&["jobs", "verify", "-w", "nlp", "--all"]);
    let text = home.does(&["status", "-w", "nlp"]);
    assert!(text.contains(": 1 copy, all OK"), "{text}");
    let verified = |status: serde_json::Value, kind: &str| {
        let report = match kind {
            "mounts" => status["mounts"][0]["archive"].clone(),
            _ => status["workspaces"][0].clone(),
        };
        report["verified"][0].clone()
    };
    let recorded = verified(home.status(&["-w", "nlp"]), "workspaces");
    assert_eq!(recorded["copies"], 1, "{recorded}");
    assert_eq!(recorded["wrong"], 0, "{recorded}");
    let folder = format!("backup:{}", home.path("kept").display());
    assert_eq!(recorded["folder"], folder, "{recorded}");
    let at: jiff::Timestamp = recorded["at"].as_str().unwrap().parse().unwrap();
    // For a person, the time is local; for programs, it is in UTC.
    let mut command = home.xpmfs(&["status", "-w", "nlp"]);
    command.env("TZ", "Asia/Kathmandu");
    let local = at.in_tz("Asia/Kathmandu").unwrap();
    let local = local.strftime("last verified %Y-%m-%d %H:%M: ").to_string();
    let text = String::from_utf8(command.output().unwrap().stdout).unwrap();
    assert!(text.contains(&local), "{local}: {text}");
    // A mount's daemon reports it too.
    home.mount(&[]);
    assert_eq!(verified(home.status(&["-w", "nlp"]), "mounts"), recorded);
    home.does(&["umount"]);
}

#[test]
fn check_fails_for_a_dead_mount() {
    let home = Home::new(false);
    let ws = home.path("ws");
    expect_ok(&home);
    home.mount(&[]);
    expect_ok(&home);
    home.kill_daemon(&ws);
    // Without --check, the status of a dead mount is a status.
    home.does(&["status", ws.to_str().unwrap()]);
    let arguments = ["status", "--check", ws.to_str().unwrap()];
    let output = home.xpmfs(&arguments).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let expected = format!("xpmfs: {}: the mount is dead\n", ws.display());
    assert_eq!(said(&output), expected);
    // Once, also where the workspace is named.
    let output = check(&home, &[]);
    assert_eq!(said(&output), expected);
    let text = String::from_utf8(output.stdout).unwrap();
    let remedy = format!("`xpmfs umount '{}'` clears the dead mount", ws.display());
    assert!(
        text.contains("below a dead mount") && text.contains(&remedy),
        "{text}"
    );
    assert!(!text.contains("file server"), "{text}");
    home.does(&["umount", ws.to_str().unwrap()]);
    assert!(!is_mounted(&ws));
}

#[test]
fn check_fails_for_a_folder_that_is_missing_and_not_for_a_workspace_that_is() {
    let home = Home::new(false);
    expect_ok(&home);
    let output = home.xpmfs(&["status", "--check", "-w", "gone"]).output();
    assert!(output.unwrap().status.success());
    fs::rename(home.path("kept"), home.path("away")).unwrap();
    let expected = format!(
        ": the folder {} cannot be used: missing",
        home.path("kept").display()
    );
    let fails = || {
        let output = check(&home, &[]);
        output.status.code() == Some(1) && said(&output).contains(&expected)
    };
    assert!(fails());
    home.mount(&[]);
    assert!(wait_until(LIMIT, fails));
    fs::rename(home.path("away"), home.path("kept")).unwrap();
    assert!(wait_until(LIMIT, || check(&home, &[]).status.success()));
    home.does(&["umount"]);
}

#[test]
fn check_fails_for_a_symlink_in_the_place_of_a_tasks_directory() {
    let home = Home::new(false);
    at_once(&home);
    finish(&home, 'c');
    let task = home.path("ws/jobs/t");
    fs::rename(&task, home.path("elsewhere")).unwrap();
    std::os::unix::fs::symlink(home.path("elsewhere"), &task).unwrap();
    home.mount(&[]);
    let fails = || {
        let output = check(&home, &[]);
        output.status.code() == Some(1) && said(&output).contains(task.to_str().unwrap())
    };
    assert!(wait_until(LIMIT, fails), "{}", said(&check(&home, &[])));
    home.does(&["umount"]);
}

/// A workspace that is never mounted, and archived by commands.
#[test]
fn check_fails_for_a_fresh_directory_in_the_place_of_a_folder() {
    let home = Home::new(false);
    at_once(&home);
    let hash = finish(&home, 'c');
    home.does(&["jobs", "archive", "-w", "nlp", &hash]);
    expect_ok(&home);
    fs::rename(home.path("kept"), home.path("away")).unwrap();
    fs::create_dir_all(home.path("kept/jobs")).unwrap();
    let output = check(&home, &[]);
    assert_eq!(output.status.code(), Some(1));
    // With the one that was there before.
    assert!(
        said(&output).contains("2 copies are damaged or missing"),
        "{}",
        said(&output)
    );
}

#[test]
fn check_fails_for_a_mount_that_does_not_answer() {
    let home = Home::new(false);
    let ws = home.path("ws");
    home.mount(&[]);
    let pid = Pid::from_raw(home.daemon(&ws)).unwrap();
    kill_process(pid, Signal::STOP).unwrap();
    let output = check(&home, &[]);
    kill_process(pid, Signal::CONT).unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(
        said(&output).contains("the mount is not answering"),
        "{}",
        said(&output)
    );
    assert!(wait_until(LIMIT, || check(&home, &[]).status.success()));
    home.does(&["umount"]);
}

#[test]
fn check_fails_for_a_job_that_could_not_be_archived_and_for_a_damaged_copy() {
    let home = Home::new(false);
    at_once(&home);
    let hash = finish(&home, 'c');
    // A file is in the place of the copy.
    fs::write(home.path("kept/jobs/t").join(&hash), "").unwrap();
    home.mount(&[]);
    let failed = |output: &Output| said(output).contains("1 job could not be archived");
    assert!(wait_until(LIMIT, || failed(&check(&home, &[]))));
    let output = check(&home, &["--json"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(failed(&output), "{}", said(&output));
    let printed: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    // Other tests mount a workspace of this name, too.
    let mounts = printed["mounts"].as_array().unwrap();
    let ws = home.path("ws");
    let mut own = mounts
        .iter()
        .filter(|it| it["mountpoint"] == ws.to_str().unwrap());
    assert_eq!(own.next().unwrap()["archive"]["failures"], 1, "{printed}");
    home.does(&["umount"]);
    fs::remove_file(home.path("kept/jobs/t").join(&hash)).unwrap();
    home.does(&["jobs", "archive", "-w", "nlp", &hash]);
    expect_ok(&home);
    fs::write(
        home.path("kept/jobs/t").join(&hash).join("model"),
        "damaged",
    )
    .unwrap();
    let verify = home.xpmfs(&["jobs", "verify", "-w", "nlp", &hash]).output();
    assert_eq!(verify.unwrap().status.code(), Some(1));
    let output = check(&home, &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        said(&output).contains("1 copy is damaged or missing"),
        "{}",
        said(&output)
    );
}

#[test]
fn colours_are_for_a_terminal_that_wants_them() {
    let home = Home::new(false);
    home.mount(&[]);
    let at_a_terminal = |environment: &[(&str, &str)]| {
        let command = format!(
            "'{}' --settings '{}' status -w nlp",
            home.binary.display(),
            home.path("settings.yaml").display()
        );
        let mut script = home.program(Path::new("script"));
        script.args(["-qec", &command, "/dev/null"]);
        script.env("TERM", "xterm").env_remove("NO_COLOR");
        let output = script.envs(environment.iter().copied()).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let coloured = at_a_terminal(&[]);
    assert!(
        coloured.contains("\x1b[") && coloured.contains("nlp"),
        "{coloured}"
    );
    for plain in [
        at_a_terminal(&[("NO_COLOR", "1")]),
        at_a_terminal(&[("TERM", "dumb")]),
        home.does(&["status", "-w", "nlp"]),
    ] {
        assert!(
            !plain.contains('\x1b') && plain.contains("nlp"),
            "{plain:?}"
        );
    }
    home.does(&["umount"]);
}

#[test]
fn status_shows_mounts_with_their_folders_and_workspaces_that_are_not_mounted() {
    at_everybodys_home(|home| {
        fs::remove_dir_all(home.path("kept")).unwrap();
        home.mount(&["--read-only"]);
        let status = home.status(&[]);
        let ws = home.path("ws");
        let mine = |mount: &&Value| mount["mountpoint"].as_str() == ws.to_str();
        let mounts = status["mounts"].as_array().unwrap();
        let mount = mounts.iter().find(mine).expect("the mount");
        assert_eq!(mount["workspace"], "nlp");
        assert_eq!(mount["state"], "ok");
        assert_eq!(mount["read_only"], true);
        assert_eq!(mount["log"].as_str(), home.log().to_str());
        let locations = mount["locations"].as_array().unwrap();
        let states: Vec<_> = locations
            .iter()
            .map(|l| (l["mode"].as_str().unwrap(), l["state"].as_str().unwrap()))
            .collect();
        assert_eq!(states, [("primary", "ok"), ("backup", "missing")]);
        assert!(locations[0]["total"].as_u64() > Some(0));
        assert_eq!(status["workspaces"][0]["workspace"], "gone");
        assert_eq!(status["workspaces"][0]["locations"][0]["state"], "missing");
        let table = home.does(&["status"]);
        assert!(
            table.contains("(in place)") && table.contains("read-only"),
            "{table}"
        );
        assert!(table.contains("gone (not mounted)"), "{table}");
        let selected = home.status(&["-w", "gone"]);
        assert_eq!(selected["mounts"].as_array().map(Vec::len), Some(0));
    });
}

#[test]
fn a_dead_mount_hides_nothing_that_status_shows_of_a_workspace_without_a_mount() {
    at_everybodys_home(|home| {
        let settings = home.path("settings.yaml");
        let named = fs::read_to_string(&settings).unwrap();
        fs::write(&settings, named.replace("id: nlp", "id: killed elsewhere")).unwrap();
        let mnt = home.path("mnt");
        home.mount(&[mnt.to_str().unwrap()]);
        home.kill_daemon(&mnt);
        let status = home.status(&["-w", "killed elsewhere"]);
        assert_eq!(status["mounts"][0]["state"], "dead", "{status}");
        let shown = &status["workspaces"][0];
        assert_eq!(shown["workspace"], "killed elsewhere", "{status}");
        assert_eq!(shown["locations"][0]["state"], "ok", "{status}");
        let table = home.does(&["status", "-w", "killed elsewhere"]);
        assert!(table.contains("killed elsewhere (not mounted)"), "{table}");
    });
}
