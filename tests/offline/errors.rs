//! A folder fails with errors of its disk or server, or one file in it does.

use std::fs;
use std::process::{Child, Command};

use crate::common::{is_mounted, run};
use crate::stage::{Stage, TASK, until};

/// Lists everything, and looks at what the other locations have.
const USE: &str = "ls jobs >/dev/null; ls jobs/my.module.train; cat jobs/my.module.train/primary/model.bin \
    jobs/my.module.train/other/model.bin >/dev/null; mkdir jobs/my.module.train/new-$2";

#[test]
fn a_folder_that_fails_is_left_out_and_comes_back() {
    let stage = Stage::new(false);
    let mountpoint = stage.workspace.mountpoint("elsewhere");
    let mounted = stage.workspace.mount_with(&mountpoint, &[]);
    let read = || {
        let read = format!("cat jobs/{TASK}/held/model.bin");
        stage.start(&mountpoint, &read, "").end()
    };
    for error in [
        libc::EIO,
        libc::ESTALE,
        libc::ENODEV,
        libc::ETIMEDOUT,
        libc::EHOSTDOWN,
    ] {
        assert_eq!(read(), (true, "held".into()));
        stage.folder.fail(Some(error));
        let listed = stage.start(&mountpoint, USE, &error.to_string()).succeed();
        assert!(
            listed.contains("primary\n") && listed.contains("other\n"),
            "{listed}"
        );
        until("the folder is offline", || {
            stage.state(&mountpoint) == "offline"
        });
        stage.folder.fail(None);
        until("the folder is back", || read().0);
        until("the folder is ok", || stage.state(&mountpoint) == "ok");
    }
    mounted.unmount();
}

#[test]
fn a_folder_whose_daemon_died_is_offline_until_it_is_mounted_again() {
    let stage = Stage::new(false);
    let (disk, at) = (
        stage.workspace.top().join("disk"),
        stage.workspace.top().join("dies"),
    );
    fs::create_dir(&at).unwrap();
    let serve = || {
        let mut command = Command::new("bindfs");
        let server = command.arg("-f").arg(&disk).arg(&at).spawn().unwrap();
        until("it is served", || is_mounted(&at));
        server
    };
    let end = |mut server: Child| {
        server.kill().unwrap();
        server.wait().unwrap();
    };
    let server = serve();
    stage.workspace.with_folders(&[]);
    stage.workspace.attach("use", &at);
    stage
        .workspace
        .attach("backup", &stage.workspace.folder("backup"));
    let mountpoint = stage.workspace.mountpoint("elsewhere");
    let mounted = stage.workspace.mount_with(&mountpoint, &[]);
    end(server);
    stage.start(&mountpoint, USE, "1").succeed();
    until("the folder is offline", || {
        stage.state(&mountpoint) == "offline"
    });
    let why = stage.status(&mountpoint)["locations"][1]["why"].clone();
    assert_eq!(why, "Transport endpoint is not connected");
    let (_, text) = stage.xpmfs(&["status", mountpoint.to_str().unwrap()]);
    assert!(
        text.contains("Transport endpoint is not connected"),
        "{text}"
    );
    run(Command::new("umount").arg("-l").arg(&at));
    let server = serve();
    until("the folder is ok", || stage.state(&mountpoint) == "ok");
    let read = format!("cat jobs/{TASK}/held/model.bin");
    assert_eq!(stage.start(&mountpoint, &read, "").succeed(), "held");
    mounted.unmount();
    run(Command::new("umount").arg("-l").arg(&at));
    end(server);
}

/// An error of one job is that job's.
#[test]
fn a_folder_is_not_offline_because_of_one_job() {
    let stage = Stage::new(false);
    let mountpoint = stage.workspace.mountpoint("elsewhere");
    let mounted = stage.workspace.mount_with(&mountpoint, &[]);
    stage
        .folder
        .fail_at(libc::EIO, |path| path.ends_with("my.module.train/held"));
    stage.start(&mountpoint, USE, "1").succeed();
    let other = "cat jobs/my.module.test/held/model.bin";
    assert_eq!(stage.start(&mountpoint, other, "").succeed(), "held");
    for script in ["stat", "mkdir"] {
        let script = format!("{script} jobs/my.module.train/held");
        let (success, printed) = stage.start(&mountpoint, &script, "").end();
        assert!(
            !success && printed.contains("Input/output error"),
            "{printed}"
        );
    }
    let (_, listed) = stage
        .start(&mountpoint, "ls jobs/my.module.train", "")
        .end();
    assert!(listed.contains("held\n"), "{listed}");
    assert_eq!(stage.state(&mountpoint), "ok");
    mounted.unmount();
}
