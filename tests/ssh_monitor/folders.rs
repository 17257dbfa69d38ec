//! The folders and the archive, which `xpmfs` there reports; and programs that are not `xpmfs`.

use std::fs;

use crate::common::{Workspace, eventually, write_job};
use crate::stage::{Stage, quit, wait_for_connection};

/// A name that would do something if a shell read it.
const ODD: &str = "b in 'q' \"q\" $(touch PWNED) `touch PWNED`;touch PWNED";

/// A program in the place of experimaestro: it starts at once, and answers nothing.
const SILENT_SERVER: &str = r#"sh -c "echo '{\"jsonrpc\": \"2.0\", \"id\": 0, \"result\": {\"protocol_version\": \"2.0\"}}'; cat >/dev/null""#;

#[test]
fn folders_and_archive_are_shown_and_follow_changes() {
    let workspace = Workspace::builder().folders(&["backup"]).build();
    workspace.tune("{settle: 100ms, scan_interval: 200ms, folder_timeout: 1s}");
    let Some(stage) = Stage::of(workspace) else {
        return;
    };
    let workspace = &stage.workspace;
    let top = workspace.top();
    stage.program(
        &format!("{ODD}/xpmfs"),
        &format!(
            "exec env XDG_RUNTIME_DIR='{0}' '{1}' --settings '{0}/settings.yaml' \"$@\"",
            top.display(),
            env!("CARGO_BIN_EXE_xpmfs")
        ),
    );
    let mounted = workspace.mount_archiving(&workspace.primary(), &[]);
    let terminal = stage.start(&["--remote-xpmfs", &format!("~/{ODD}/xpmfs")]);
    terminal.press("6");
    terminal.wait_for("mounted at");
    terminal.wait_for("backup  ok");
    terminal.press("7");
    terminal.wait_for("all finished jobs are archived");
    write_job(&mounted.job("my.module.train", "a1"), "my.module.train");
    terminal.wait_for("archived   1 job since the start");

    fs::rename(top.join("backup"), top.join("away")).unwrap();
    terminal.wait_for("6 Folders!");
    terminal.press("6");
    terminal.wait_for("backup  missing");
    fs::rename(top.join("away"), top.join("backup")).unwrap();
    terminal.wait_for("backup  ok");
    terminal.press("\x1b[Bf");
    terminal.wait_for(&format!("clipboard: {}", top.join("backup").display()));

    // The last report stays, and is followed by new ones when the connection is there again.
    stage.cut(&terminal);
    assert!(terminal.screen().contains("backup  ok"));
    wait_for_connection(&terminal);
    mounted.unmount();
    terminal.wait_for("not mounted: nothing is archived by itself");
    quit(terminal);
    for place in [top.clone(), stage.home(), workspace.primary()] {
        assert!(!place.join("PWNED").exists(), "{}", place.display());
    }
}

#[test]
fn a_path_that_does_not_exist_is_named_and_the_rest_works() {
    let Some(stage) = Stage::new() else {
        return;
    };
    let orphan = stage.workspace.primary().join("jobs/my.module.test/0rphan");
    write_job(&orphan, "my.module.test");
    let terminal = stage.start(&["--remote-xpmfs", "/missing/xpmfs"]);
    terminal.press("6");
    terminal.wait_until("the folders' tab to say why it is empty", |screen| {
        let mut lines = screen.lines();
        lines.any(|line| line.starts_with("! ") && line.contains("/missing/xpmfs: not found"))
    });
    terminal.press("4");
    terminal.wait_for("test/0rphan");
    terminal.press("m");
    terminal.wait_for("messages");
    terminal.wait_for("/missing/xpmfs: not found");
    quit_dialog(&terminal);
    quit(terminal);
}

#[test]
fn a_program_that_is_not_xpmfs_says_so() {
    let Some(stage) = Stage::new() else {
        return;
    };
    for (name, script, expected) in [
        (
            "greets",
            "echo hello",
            "is not xpmfs: with --version it prints \"hello\"",
        ),
        ("endless", "exec yes", "printed more than 4 MiB"),
        (
            "refuses",
            "echo 'no such option' >&2; exit 2",
            "no such option",
        ),
        ("silent", "exit 0", "is not xpmfs"),
        (
            "newer",
            "case $1 in --version) echo xpmfs 9.0.0;; *) echo '{\"mounts\": 3}';; esac",
            "newer is xpmfs 9.0.0, whose status xpmfs",
        ),
    ] {
        let program = stage.program(name, script);
        let program = program.to_str().unwrap();
        let terminal = stage.start(&["--remote-xpm", SILENT_SERVER, "--remote-xpmfs", program]);
        terminal.press("7");
        terminal.wait_for(expected);
        quit(terminal);
    }
}

#[test]
fn a_program_that_does_not_end_is_ended() {
    let Some(stage) = Stage::new() else {
        return;
    };
    let started = stage.workspace.top().join("started");
    let script = format!("echo $$ >>'{}'\nexec sleep 1000", started.display());
    let program = stage.program("sleeps", &script);
    let program = program.to_str().unwrap();
    let arguments = ["--remote-xpm", SILENT_SERVER, "--remote-xpmfs", program];
    let end = |expected: &str| {
        let pid = fs::read_to_string(&started).unwrap();
        let process = format!("/proc/{}", pid.trim());
        eventually(expected, || !fs::exists(&process).unwrap());
        fs::remove_file(&started).unwrap();
    };
    let terminal = stage.start(&[&arguments[..], &["--request-timeout", "2"]].concat());
    terminal.press("6");
    terminal.wait_for("sleeps has not answered within 2 s");
    end("the program there to end after its time");
    quit(terminal);

    let terminal = stage.start(&arguments);
    eventually("the program there to start", || started.exists());
    quit(terminal);
    end("the program there to end with the dashboard");
}

fn quit_dialog(terminal: &crate::common::Terminal) {
    terminal.press("\x1b");
    terminal.wait_until("the dialog to close", |screen| {
        !screen.contains("messages, the last")
    });
}
