//! A daemon that goes to the background.

use std::fs::{self, File};
use std::process::Stdio;

use xpmfs::daemon::mounts;
use xpmfs::sys::deadline::wait_until;

use crate::stage::{LIMIT, Stage, Who, as_everybody, is_root, sentence};

#[test]
fn in_the_background_the_mount_answers_when_the_command_returns() {
    as_everybody(|stage| {
        let mountpoint = stage.directory("mnt");
        let launched = launch(stage, &mountpoint, "");
        assert!(
            launched.status.success(),
            "{:?}: {}",
            stage.who,
            sentence(&launched)
        );
        let read = stage.play("read", &mountpoint);
        assert!(read.status.success(), "{}", sentence(&read));
        let umount = stage.play("umount", &mountpoint);
        assert!(sentence(&umount).contains("Ended"), "{}", sentence(&umount));
    });
}

#[test]
fn in_the_background_the_daemon_leaves_the_terminal_and_the_session() {
    let stage = Stage::new(if is_root() { Who::Root } else { Who::User });
    let mountpoint = stage.directory("mnt");
    let launched = launch(&stage, &mountpoint, "");
    let said = sentence(&launched);
    let pid = said.trim().strip_prefix("pid ").expect(&said);
    assert_eq!(
        fs::read_link(format!("/proc/{pid}/cwd"))
            .unwrap()
            .as_os_str(),
        "/"
    );
    for descriptor in 0..3 {
        let link = fs::read_link(format!("/proc/{pid}/fd/{descriptor}")).unwrap();
        assert_eq!(link.as_os_str(), "/dev/null");
    }
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let session = stat.rsplit_once(") ").unwrap().1.split(' ').nth(3).unwrap();
    assert_eq!(session, pid);
    stage.play("umount", &mountpoint);
}

#[test]
fn in_the_background_failure_is_told_once_in_the_daemons_words() {
    as_everybody(|stage| {
        let mountpoint = stage.directory("mnt");
        let failed = launch(stage, &mountpoint, "fail");
        assert_eq!(failed.status.code(), Some(1));
        let said = sentence(&failed);
        assert_eq!(said.matches("on strike").count(), 1, "{said}");
        assert!(mounts::top_at(&mountpoint).unwrap().is_none());
        let missing = launch(stage, &stage.path("missing"), "");
        assert!(
            sentence(&missing).contains("mkdir -p"),
            "{}",
            sentence(&missing)
        );
    });
}

#[test]
fn in_the_background_a_daemon_that_dies_without_a_word_is_told_of() {
    as_everybody(|stage| {
        let mountpoint = stage.directory("mnt");
        let died = launch(stage, &mountpoint, "die");
        let said = sentence(&died);
        assert_eq!(died.status.code(), Some(1), "{said}");
        assert!(
            said.contains("killed by signal 6") && said.contains("the log"),
            "{said}"
        );
        // The dead mount that it has left is cleared.
        let launched = launch(stage, &mountpoint, "");
        assert!(launched.status.success(), "{}", sentence(&launched));
        stage.play("umount", &mountpoint);
    });
}

#[test]
fn in_the_background_a_command_that_is_ended_early_leaves_no_mount() {
    let stage = Stage::new(if is_root() { Who::Root } else { Who::User });
    let mountpoint = stage.directory("mnt");
    // It hangs in the first request, so that the command waits.
    let mut launching = launch_command(&stage, &mountpoint, "hang").spawn().unwrap();
    assert!(wait_until(LIMIT, || mounts::top_at(&mountpoint)
        .unwrap()
        .is_some()));
    launching.kill().unwrap();
    launching.wait().unwrap();
    assert!(wait_until(LIMIT, || mounts::top_at(&mountpoint)
        .unwrap()
        .is_none()));
}

fn launch_command(
    stage: &Stage,
    mountpoint: &std::path::Path,
    fault: &str,
) -> std::process::Command {
    let log = stage.directory(format!(
        "log-of-{fault}-{}",
        mountpoint.file_name().unwrap().display()
    ));
    let mut command = stage.command("launch", mountpoint);
    command
        .env("XPMFS_TEST_LOG", log.join("log"))
        .env("XPMFS_TEST_FAULT", fault)
        .stdout(Stdio::null())
        .stderr(File::create(log.join("stderr")).unwrap());
    command
}

fn launch(stage: &Stage, mountpoint: &std::path::Path, fault: &str) -> std::process::Output {
    launch_command(stage, mountpoint, fault)
        .stderr(Stdio::piped())
        .output()
        .unwrap()
}
