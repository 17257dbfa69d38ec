//! Copies to and from another machine: a real `sshd` on loopback.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::common::sshd::Sshd;
use crate::common::{run, soak};
use crate::scene::{RUN, Scene, number, tree};

/// Makes a workspace one of another machine.
pub(crate) fn is_remote(scene: &Scene, sshd: &Sshd, end: &str) {
    scene.write_settings(|id, workspace| {
        if id == end {
            workspace["ssh"] = sshd.ssh();
        }
    });
}

/// The run and its job are copied, in this direction, with odd names.
fn copies(end: &str, sshd: &Sshd) {
    let scene = Scene::odd();
    is_remote(&scene, sshd, end);
    let job = scene.job("from", "0a");
    let source = scene.run(RUN, &["0a"]);
    let dry = scene.copy(RUN, &["--json"]);
    let dry: Value = serde_json::from_slice(&dry.stdout).unwrap();
    assert_eq!(number(&dry, "jobs_copied"), 1, "{dry}");
    assert!((10_000..40_000).contains(&number(&dry, "bytes")), "{dry}");
    assert!(!scene.workspace("to").join("experiments").exists());

    let copied = scene.copied(RUN, true);
    assert_eq!(
        (number(&copied, "jobs_copied"), &copied["errors"]),
        (1, &json!([]))
    );
    scene.assert_copied(&job, "0a");
    let copy = scene.run_path("to", RUN);
    for name in ["jobs.jsonl", "status.json", "events/event-0.jsonl"] {
        assert_eq!(
            fs::read(copy.join(name)).unwrap(),
            fs::read(source.join(name)).unwrap()
        );
    }
    let link = copy.join("jobs").join(scene.task()).join("0a");
    assert_eq!(fs::read_link(link).unwrap(), scene.job_path("to", "0a"));
    assert_eq!(
        fs::read_link(copy.with_file_name("current")).unwrap(),
        Path::new(RUN)
    );
    assert!(scene.workspace("to").join(".__experimaestro__").exists());
    scene.assert_clean();

    let before = tree(&scene.workspace("to"));
    let again = scene.copied(RUN, true);
    assert_eq!(
        (
            number(&again, "jobs_copied"),
            number(&again, "jobs_skipped")
        ),
        (0, 1)
    );
    assert_eq!(tree(&scene.workspace("to")), before);
    scene.assert_clean();
}

#[test]
fn names_are_only_names_on_the_way_to_another_machine() {
    let Some(sshd) = Sshd::start() else { return };
    copies("to", &sshd);
}

#[test]
fn names_are_only_names_on_the_way_from_another_machine() {
    let Some(sshd) = Sshd::start() else { return };
    copies("from", &sshd);
}

#[test]
fn the_shell_of_the_other_machine_need_not_be_a_posix_shell() {
    if !soak() {
        return;
    }
    let fish = Sshd::with("ForceCommand exec fish -c \"$SSH_ORIGINAL_COMMAND\"");
    let Some(sshd) = fish else { return };
    copies("to", &sshd);
    copies("from", &sshd);
}

#[test]
fn a_full_disk_of_the_other_machine_fails_one_job_and_leaves_nothing_unfinished() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: needs root");
        return;
    }
    let Some(sshd) = Sshd::start() else { return };
    let scene = Scene::new();
    is_remote(&scene, &sshd, "to");
    let to = scene.workspace("to");
    let mount = |options: &str| {
        run(Command::new("mount")
            .args(["-t", "tmpfs", "-o", options, "none"])
            .arg(&to))
    };
    mount("size=1m");
    fs::create_dir(to.join("jobs")).unwrap();
    let checked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let large = scene.job("from", "0a");
        fs::write(large.join("model.bin"), vec![b'w'; 4 << 20]).unwrap();
        let small = scene.job("from", "1b");
        scene.run(RUN, &["0a", "1b"]);
        let copied = scene.copied(RUN, false);
        let errors = copied["errors"].as_array().unwrap();
        let said = errors[0].as_str().unwrap();
        assert!(
            errors.len() == 1 && said.contains("/0a: ") && said.contains("No space left"),
            "{said}"
        );
        scene.assert_copied(&small, "1b");
        assert!(!scene.job_path("to", "0a").exists());
        scene.assert_clean();
        mount("remount,size=50m");
        let copied = scene.copied(RUN, true);
        assert_eq!(
            (
                number(&copied, "jobs_copied"),
                number(&copied, "jobs_skipped")
            ),
            (1, 1)
        );
        scene.assert_copied(&large, "0a");
    }));
    run(Command::new("umount").arg(&to));
    assert!(checked.is_ok());
}

#[test]
fn what_cannot_be_reached_is_an_error_that_names_it() {
    let Some(sshd) = Sshd::start() else { return };
    let scene = Scene::new();
    scene.job("from", "0a");
    scene.run(RUN, &["0a"]);
    let fails = |change: &dyn Fn(&str, &mut Value)| {
        scene.write_settings(change);
        let output = scene.copy(RUN, &["-y"]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{said}");
        said
    };
    let said = fails(&|_, workspace| workspace["ssh"] = sshd.ssh());
    assert!(said.contains("both are remote"), "{said}");
    let said = fails(&|id, workspace| {
        if id == "to" {
            workspace["ssh"] = json!({"host": "-oProxyCommand=touch PWNED"});
        }
    });
    assert!(said.contains("must not begin with `-`"), "{said}");
    let said = fails(&|id, workspace| {
        if id == "to" {
            workspace["ssh"] = sshd.ssh();
            workspace["path"] = json!("/nowhere");
        }
    });
    assert!(
        said.contains("127.0.0.1") && said.contains("/nowhere"),
        "{said}"
    );
    let said = fails(&|id, workspace| {
        if id == "from" {
            workspace["ssh"] = sshd.ssh();
            workspace["path"] = json!(scene.workspace("to").to_str().unwrap());
        }
        if id == "to" {
            workspace["path"] = json!(scene.top().to_str().unwrap());
        }
    });
    assert!(
        said.contains(RUN) && said.contains("does not exist"),
        "{said}"
    );
    drop(sshd);
    scene.assert_clean();
    // A symlink in the place of the directory of unfinished copies, or of a task's, is not followed.
    let Some(sshd) = Sshd::start() else { return };
    is_remote(&scene, &sshd, "to");
    let away = scene.top().join("away");
    fs::create_dir(&away).unwrap();
    symlink(&away, scene.workspace("to").join(".xpm-staging")).unwrap();
    let output = scene.copy(RUN, &["-y"]);
    assert!(String::from_utf8_lossy(&output.stderr).contains(".xpm-staging is a symlink"));
    fs::remove_file(scene.workspace("to").join(".xpm-staging")).unwrap();
    symlink(&away, scene.workspace("to").join("jobs").join(scene.task())).unwrap();
    let copied = scene.copied(RUN, false);
    assert!(
        copied["errors"][0]
            .as_str()
            .unwrap()
            .contains("is a symlink"),
        "{copied}"
    );
    assert_eq!(fs::read_dir(&away).unwrap().count(), 0);
    scene.assert_clean();
}
