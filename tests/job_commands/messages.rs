//! What the commands print beside the usual: strange names, what is in the way, what was skipped.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::time::Instant;

use rustix::fs::XattrFlags;

use crate::stage::{Stage, TASK, assert_tree, job_id, said, whole, write_job};

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
    assert!(
        stage
            .jobs(&["archive", "--force", &job_id()])
            .status
            .success()
    );
    assert_eq!(held(), b"");
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
            &format!("jobs/{}", job_id()),
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
                let output = stage.jobs(&["archive", &job_id()]);
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
        let output = stage.jobs(&["recover", &job_id()]);
        assert_eq!(output.status.code(), Some(1), "{}", said(&output));
        let told = format!("{} is a file, where a directory", path.display());
        assert!(said(&output).contains(&told), "{}", said(&output));
        fs::remove_file(&path).unwrap();
    }
    let output = stage.jobs(&["recover", &job_id()]);
    assert!(output.status.success(), "{}", said(&output));
}

type Change = fn(&Path);

const INSIDE: &str = "damaged inside";

/// Manifests that cannot be used: what is in the place of one, made from the one that was there.
const BROKEN: [(&str, Change); 6] = [
    ("empty", |path| fs::write(path, "").unwrap()),
    ("garbage", |path| fs::write(path, [0xa5; 500]).unwrap()),
    (INSIDE, |path| {
        let text = fs::read_to_string(path).unwrap();
        fs::write(path, text.replace("\"mode\"", "\"made\"")).unwrap();
    }),
    ("of a newer version", |path| {
        let text = fs::read_to_string(path).unwrap();
        fs::write(path, text.replace("\"version\": 1", "\"version\": 99")).unwrap();
    }),
    ("a directory", |path| {
        fs::remove_file(path).unwrap();
        fs::create_dir(path).unwrap();
    }),
    ("a symlink", |path| {
        fs::remove_file(path).unwrap();
        symlink("/nowhere/at/all", path).unwrap();
    }),
];

#[test]
fn a_manifest_that_cannot_be_read_is_rewritten_or_reported() {
    let modes: [&[&'static str]; 3] = [&["backup"], &["move"], &["backup", "move"]];
    for modes in modes {
        for (what, make) in BROKEN {
            for jobs in [&["--all"][..], &[&*job_id()]] {
                // Of all moved jobs, only the ends of the manifests are read: `verify` reads the rest.
                if what == INSIDE && jobs == ["--all"] && modes.contains(&"move") {
                    continue;
                }
                let stage = Stage::new(modes);
                write_job(&stage.job());
                stage.archive();
                let manifest = format!(".xpmfs/manifests/{}.json", job_id());
                let manifest = stage.folder(modes[0]).join(manifest);
                make(&manifest);
                let output = stage.jobs(&[&["archive"], jobs].concat());
                let text = said(&output);
                let about = format!("{modes:?} {what} {jobs:?}: {text}");
                let is_reported = text.contains(manifest.to_str().unwrap());
                if !is_reported {
                    assert!(output.status.success(), "{about}");
                    let verified = stage.jobs(&["verify", "--all"]);
                    assert!(verified.status.success(), "{about}{}", said(&verified));
                    let copies = format!("{} cop", modes.len());
                    assert!(said(&verified).contains(&copies), "{about}");
                } else if jobs != ["--all"] {
                    assert_eq!(output.status.code(), Some(1), "{about}");
                    assert!(!text.contains("up to date"), "{about}");
                }
            }
        }
    }
}

/// A sweep that finds the lock file of a copy that another thread begins does not prevent that copy.
#[test]
fn no_copy_waits_for_another_of_the_same_command() {
    let stage = Stage::new(&["backup"]);
    for number in 0..100 {
        let task = stage.job().with_file_name("");
        let task = task.with_file_name(format!("my.module.task{number}"));
        for hash in ["0a", "0b", "0c"] {
            fs::create_dir_all(task.join(hash)).unwrap();
            fs::write(task.join(hash).join(format!("task{number}.done")), "").unwrap();
        }
    }
    let output = stage.jobs(&["archive", "--all"]);
    assert!(output.status.success(), "{}", said(&output));
    assert!(
        !said(&output).contains("another process"),
        "{}",
        said(&output)
    );
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
    assert!(stage.jobs(&["recover", &job_id()]).status.success());
    assert_eq!(
        summary(),
        "xpmfs: nothing to copy: 1 up to date, 1 recovered, so not moved back"
    );
    assert!(stage.jobs(&["opt-out", &job_id()]).status.success());
    assert_eq!(summary(), "xpmfs: nothing to copy: 1 opted out");
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
    assert!(
        stage
            .jobs(&["archive", "--force", &job_id()])
            .status
            .success()
    );
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
    assert_eq!(quiet(&["archive", &job_id()], 0), "", "it has been moved");
    assert_eq!(quiet(&["verify", "--all"], 0), "");
    assert_eq!(quiet(&["recover", &job_id()], 0), "");
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
    let named = job_id();
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
