//! What a new user met: what the commands do and say beside the usual.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::fs::XattrFlags;

use super::common::eventually;
use super::stage::{HASH, Stage, TASK, assert_tree, killed_after_a_move, said, whole, write_job};

fn job() -> String {
    format!("{TASK}/{HASH}")
}

/// Another program has it open, which no mount knows of.
#[test]
fn a_job_is_not_moved_while_a_file_of_it_is_open_for_writing() {
    let stage = Stage::on_disk(&["move"]);
    write_job(&stage.job());
    // To look at it takes a while, so that what is written to the log falls between two looks.
    for number in 0..2000 {
        fs::write(stage.job().join(format!("{number}")), "part").unwrap();
    }
    let mut file = OpenOptions::new()
        .append(true)
        .create(true)
        .open(stage.job().join("log"))
        .unwrap();
    let mut child = stage.by_one_thread("archive", &[]).spawn().unwrap();
    eventually("it is copied", || stage.archived("move").exists());
    let end = Instant::now() + Duration::from_secs(1);
    while Instant::now() < end {
        assert!(!stage.job().is_symlink(), "moved while it is open");
    }
    file.write_all(b"late").unwrap();
    drop(file);
    assert!(child.wait().unwrap().success());
    assert!(stage.job().is_symlink(), "not moved when it is closed");
    assert_eq!(fs::read(stage.job().join("log")).unwrap(), b"late");
    stage.verify();
    stage.assert_clean();
}

/// By somebody who was in its directory before: who asked for it to be moved waits until it has.
#[test]
fn what_is_written_into_the_old_directory_of_a_moved_job_is_moved_as_well() {
    let stage = Stage::on_disk(&["move"]);
    write_job(&stage.job());
    let params = stage.job().join("params.json");
    let child = stage
        .by_one_thread("archive", &[])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    eventually("it is moved", || stage.job().is_symlink());
    let aside = stage.job().with_file_name(format!(".tmp.{HASH}"));
    let mut file = OpenOptions::new()
        .append(true)
        .open(aside.join("params.json"))
        .unwrap();
    file.write_all(b"late").unwrap();
    drop(file);
    let done = child.wait_with_output().unwrap();
    assert!(done.status.success(), "{}", said(&done));
    assert!(said(&done).contains("put back"), "{}", said(&done));
    assert!(stage.job().is_symlink(), "{}", said(&done));
    assert!(fs::read(params).unwrap().ends_with(b"late"));
    stage.verify();
    stage.assert_clean();
}

/// Whoever moved it was killed meanwhile; and who writes, began when it was on its way already.
#[test]
fn what_is_open_for_writing_when_a_move_is_broken_off_is_put_back() {
    let stage = killed_after_a_move(|| Stage::on_disk(&["move"]));
    let aside = stage.job().with_file_name(format!(".tmp.{HASH}"));
    let mut file = OpenOptions::new()
        .append(true)
        .open(aside.join("params.json"))
        .unwrap();
    let mut again = stage.by_one_thread("archive", &[]).spawn().unwrap();
    eventually("it is put back", || !stage.job().is_symlink());
    file.write_all(b"late").unwrap();
    drop(file);
    // It may have met the write between two looks, and refuses then.
    again.wait().unwrap();
    stage.archive();
    assert!(
        fs::read(stage.job().join("params.json"))
            .unwrap()
            .ends_with(b"late")
    );
    assert!(stage.job().is_symlink());
    stage.verify();
    stage.assert_clean();
}

#[test]
fn a_copy_with_a_manifest_is_recovered_before_one_without() {
    let stage = Stage::new(&["backup", "move"]);
    write_job(&stage.job());
    stage.archive();
    let manifests = stage.folder("backup").join(".xpmfs/manifests");
    fs::remove_dir_all(manifests).unwrap();
    let done = stage.jobs(&["recover", "--json", &job()]);
    assert!(done.status.success(), "{}", said(&done));
    let report: serde_json::Value = serde_json::from_slice(&done.stdout).unwrap();
    assert!(
        report[0]["folder"].as_str().unwrap().starts_with("move:"),
        "{report}"
    );
}

#[test]
fn a_file_that_is_empty_now_does_not_replace_what_it_held() {
    let stage = Stage::new(&["backup"]);
    write_job(&stage.job());
    fs::write(stage.job().join("weights"), "precious").unwrap();
    stage.archive();
    fs::write(stage.job().join("weights"), "").unwrap();
    let refused = stage.jobs(&["archive", "--all"]);
    let held = || fs::read(stage.archived("backup").join("weights")).unwrap();
    assert_eq!(held(), b"precious", "{}", said(&refused));
    assert!(stage.jobs(&["archive", "--force", &job()]).status.success());
    assert_eq!(held(), b"");
}

#[test]
fn a_damaged_copy_is_replaced_by_force() {
    let stage = Stage::new(&["backup"]);
    write_job(&stage.job());
    stage.archive();
    let file = stage.archived("backup").join("params.json");
    let (mut bytes, time) = (
        fs::read(&file).unwrap(),
        fs::metadata(&file).unwrap().modified().unwrap(),
    );
    bytes[0] ^= 1;
    fs::write(&file, bytes).unwrap();
    OpenOptions::new()
        .append(true)
        .open(&file)
        .unwrap()
        .set_modified(time)
        .unwrap();
    let verified = stage.jobs(&["verify", "--all"]);
    assert_eq!(verified.status.code(), Some(1), "{}", said(&verified));
    let forced = stage.jobs(&["archive", "--force", &job()]);
    assert!(forced.status.success(), "{}", said(&forced));
    stage.verify();
}

#[test]
fn to_verify_a_folder_that_is_not_there_fails() {
    let stage = Stage::new(&["backup"]);
    write_job(&stage.job());
    stage.archive();
    stage.verify();
    // As an empty mount point is.
    fs::rename(stage.folder("backup"), stage.top().join("elsewhere")).unwrap();
    fs::create_dir(stage.folder("backup")).unwrap();
    let verified = stage.jobs(&["verify", "--all"]);
    assert_eq!(verified.status.code(), Some(1));
    assert!(said(&verified).contains("mounted"), "{}", said(&verified));
}

/// Whoever may make a job may call it what they like.
#[test]
fn a_name_with_control_characters_is_written_out_but_in_json() {
    const NAME: &str = "ab\nxpmfs: forged\x1b[2J\u{9b}1m";
    const SHOWN: &str = "ab\\nxpmfs: forged\\u{1b}[2J\\u{9b}1m";
    let stage = Stage::new(&["backup"]);
    let job = format!("{TASK}/{NAME}");
    let (primary, copy) = (stage.job(), stage.archived("backup"));
    write_job(&primary.with_file_name(NAME));
    let calls: [&[&str]; 6] = [
        &["archive", "-v", &job],
        &["verify", "-v", &job],
        &["opt-out", &job],
        &["archive", &job],
        &["opt-in", &job],
        &["recover", &job],
    ];
    let all = |arguments: &[&str]| {
        let output = stage.jobs(arguments);
        let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.push_str(&said(&output));
        assert!(text.contains(SHOWN), "{arguments:?}: {text}");
        let acts = |c: char| c.is_control() && c != '\n';
        assert!(!text.contains(acts), "{arguments:?}: {text:?}");
        assert!(!text.contains("\nxpmfs: forged"), "{arguments:?}: {text}");
    };
    calls.iter().for_each(|arguments| all(arguments));
    let report = stage.jobs(&["verify", "--json", &job]);
    let report: serde_json::Value = serde_json::from_slice(&report.stdout).unwrap();
    assert_eq!(report[0]["job"], job);
    // A warning in the log, and an error.
    fs::remove_file(copy.with_file_name(NAME).join("train.done")).unwrap();
    fs::remove_dir_all(stage.folder("backup").join(".xpmfs")).unwrap();
    fs::remove_dir_all(primary.with_file_name(NAME)).unwrap();
    all(&["recover", &job]);
    fs::remove_dir_all(primary.with_file_name(NAME)).unwrap();
    all(&["opt-out", &job]);
}

/// Somebody has put something where a directory belongs: what and where it is is said at once, and the next try does it.
#[test]
fn what_is_in_the_way_in_a_folder_is_named() {
    for modes in [&["backup"], &["move"]] {
        for below in [
            "jobs",
            &format!("jobs/{TASK}"),
            &format!("jobs/{}", job()),
            ".xpmfs",
            ".xpmfs/manifests",
            &format!(".xpmfs/manifests/{TASK}"),
        ] {
            let stage = Stage::new(modes);
            write_job(&stage.job());
            let path = stage.folder(modes[0]).join(below);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            let refused = |what: &str| {
                let begun = Instant::now();
                let output = stage.jobs(&["archive", &job()]);
                // Half a minute it would be.
                assert!(begun.elapsed().as_secs() < 25, "it was waited for");
                assert_eq!(output.status.code(), Some(1), "{}", said(&output));
                let told = format!("{} is {what}, where a directory should be", path.display());
                assert!(said(&output).contains(&told), "{}", said(&output));
            };
            fs::write(&path, "mine").unwrap();
            refused("a file");
            assert_eq!(fs::read(&path).unwrap(), b"mine");
            fs::remove_file(&path).unwrap();
            symlink("/nowhere/at all", &path).unwrap();
            refused("a symlink to /nowhere/at all");
            fs::remove_file(&path).unwrap();
            stage.archive();
            stage.verify();
            stage.assert_clean();
        }
    }
}

#[test]
fn what_is_in_the_way_in_the_workspace_is_named() {
    let stage = Stage::new(&["backup"]);
    write_job(&stage.job());
    stage.archive();
    fs::remove_dir_all(stage.job()).unwrap();
    let task = stage.job().parent().unwrap().to_owned();
    for path in [stage.job(), task] {
        if path.is_dir() {
            fs::remove_dir_all(&path).unwrap();
        }
        fs::write(&path, "mine").unwrap();
        let output = stage.jobs(&["recover", &job()]);
        assert_eq!(output.status.code(), Some(1), "{}", said(&output));
        let told = format!("{} is a file, where a directory", path.display());
        assert!(said(&output).contains(&told), "{}", said(&output));
        fs::remove_file(&path).unwrap();
    }
    let output = stage.jobs(&["recover", &job()]);
    assert!(output.status.success(), "{}", said(&output));
}

#[test]
fn without_jobs_it_is_said_what_can_be_given() {
    let stage = Stage::new(&["backup"]);
    for command in ["archive", "verify", "recover", "opt-out", "opt-in"] {
        let output = stage.jobs(&[command]);
        let said = said(&output);
        assert_eq!(output.status.code(), Some(2), "{command}: {said}");
        assert!(said.starts_with("xpmfs: name the jobs to "), "{said}");
        assert!(
            said.contains("task_id/hash, the start of a hash, a path, a task, or a glob"),
            "{said}"
        );
        assert_eq!(said.lines().count(), 1, "{said}");
        let all = !command.starts_with("opt-");
        assert_eq!(said.contains("--all"), all, "{said}");
    }
}

#[test]
fn what_was_left_as_it_is_is_counted_apart_from_what_was_there() {
    let stage = Stage::new(&["backup", "move"]);
    write_job(&stage.job());
    stage.archive();
    let summary = || {
        let output = stage.jobs(&["archive", "--all"]);
        assert!(output.status.success(), "{}", said(&output));
        said(&output).lines().last().unwrap().to_owned()
    };
    assert!(stage.jobs(&["recover", &job()]).status.success());
    assert_eq!(
        summary(),
        "xpmfs: nothing to copy: 1 up to date, 1 recovered, so not moved back"
    );
    assert!(stage.jobs(&["opt-out", &job()]).status.success());
    assert_eq!(summary(), "xpmfs: nothing to copy: 1 opted out");
}

#[test]
fn verify_says_which_of_the_two_has_what_the_other_lacks() {
    let stage = Stage::new(&["backup"]);
    write_job(&stage.job());
    stage.archive();
    fs::write(stage.job().join("new"), "").unwrap();
    fs::write(stage.job().join("train.out"), "other").unwrap();
    fs::remove_file(stage.job().join("latest")).unwrap();
    let output = stage.jobs(&["verify", "--all"]);
    assert_eq!(output.stdout, b"", "the copy is right");
    let summary = "1 copy OK, 0 damaged, 1 differs from the workspace's job: -v shows how";
    assert!(said(&output).contains(summary), "{}", said(&output));
    let output = stage.jobs(&["verify", "--all", "-v"]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
    for line in [
        "  the workspace has new, which the copy lacks\n",
        "  the copy has latest, which the workspace lacks\n",
        "  in the workspace, train.out has 5 bytes in place of 14\n",
    ] {
        assert!(text.contains(line), "{text}");
    }
}

#[test]
fn a_copy_without_manifest_and_marker_is_incomplete() {
    let stage = Stage::new(&["backup"]);
    write_job(&stage.job());
    stage.archive();
    fs::remove_dir_all(stage.folder("backup").join(".xpmfs")).unwrap();
    let verified = stage.jobs(&["verify", "--all", "-v"]);
    let text = String::from_utf8_lossy(&verified.stdout);
    assert!(text.contains(": no manifest ("), "{text}");
    assert!(verified.status.success(), "{}", said(&verified));
    fs::remove_file(stage.archived("backup").join("train.done")).unwrap();
    let verified = stage.jobs(&["verify", "--all"]);
    let text = String::from_utf8_lossy(&verified.stdout);
    assert_eq!(verified.status.code(), Some(1), "{text}");
    let told = "INCOMPLETE: it has neither a manifest nor its `.done`";
    assert!(text.contains(told), "{text}");
    let said = said(&verified);
    assert!(
        said.contains("0 copies OK, 0 damaged, 1 incomplete ("),
        "{said}"
    );
    let verified = stage.jobs(&["verify", "--all", "--json"]);
    let report: serde_json::Value = serde_json::from_slice(&verified.stdout).unwrap();
    assert_eq!(report[0]["whole"], false);
    assert_eq!(report[0]["finished"], false);
}

#[test]
fn modes_and_attributes_alone_do_not_make_a_job_be_archived_again() {
    let stage = Stage::new(&["backup"]);
    write_job(&stage.job());
    stage.archive();
    let before = whole(&stage.archived("backup")).unwrap();
    let file = stage.job().join("train.out");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    rustix::fs::setxattr(&file, "user.note", b"new", XattrFlags::empty()).unwrap();
    stage.archive();
    assert_tree("it", &before, whole(&stage.archived("backup")).as_ref());
    assert!(stage.jobs(&["archive", "--force", &job()]).status.success());
    let now = whole(&stage.job()).unwrap();
    assert_tree("it", &now, whole(&stage.archived("backup")).as_ref());
}

#[test]
fn a_quiet_command_says_only_what_went_wrong() {
    let stage = Stage::new(&["backup", "move"]);
    write_job(&stage.job());
    let quiet = |arguments: &[&str], code: i32| {
        let output = stage.jobs(&[arguments, &["-q"]].concat());
        let text = String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(code), "{}", said(&output));
        format!("{text}{}", said(&output))
    };
    assert_eq!(quiet(&["archive", "--all"], 0), "");
    assert_eq!(quiet(&["archive", &job()], 0), "", "it has been moved");
    assert_eq!(quiet(&["verify", "--all"], 0), "");
    assert_eq!(quiet(&["recover", &job()], 0), "");
    assert_eq!(quiet(&["archive", "--all"], 0), "", "it was recovered");
    fs::write(stage.archived("backup").join("train.out"), "damaged").unwrap();
    let text = quiet(&["verify", "--all"], 1);
    assert!(text.contains(": DAMAGED ("), "{text}");
    assert!(text.contains("\n  train.out "), "{text}");
    assert!(!text.contains(": ok ("), "{text}");
}

#[test]
fn a_symlink_whose_job_no_folder_has_is_not_said_to_be_archived() {
    let stage = Stage::new(&["backup", "move"]);
    write_job(&stage.job());
    stage.archive();
    assert!(stage.job().is_symlink());
    let named = job();
    for arguments in [&["archive", "--all"][..], &["archive", &named]] {
        assert!(stage.jobs(arguments).status.success());
    }
    // One copy is enough; without any, there is nothing left of it.
    fs::remove_dir_all(stage.archived("move")).unwrap();
    assert!(stage.jobs(&["archive", "--all"]).status.success());
    fs::remove_dir_all(stage.archived("backup")).unwrap();
    for arguments in [&["archive", "--all"][..], &["archive", &named]] {
        let output = stage.jobs(arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        let said = said(&output);
        assert!(
            said.contains("no `backup` or `move` folder has the job"),
            "{said}"
        );
    }
}
