//! Arguments that are missing are asked for at a terminal.

use std::process::{Command, Stdio};

use crate::scene::{RUN, Scene};

#[test]
fn missing_arguments_are_named_without_a_terminal_and_asked_for_at_one() {
    let scene = Scene::new();
    scene.job("from", "0a");
    scene.run(RUN, &["0a"]);
    let tries = |arguments: &[&str]| {
        let mut command = scene.xpmfs();
        command
            .args(["experiments", "copy"])
            .args(arguments)
            .stdin(Stdio::null());
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), said)
    };
    let (status, said) = tries(&[]);
    assert!(
        status == Some(2) && said.contains("--from-workspace"),
        "{said}"
    );
    let ends = ["--from-workspace=from", "--to-workspace=to"];
    let (status, said) = tries(&[ends[0]]);
    assert!(
        status == Some(2) && said.contains("--to-workspace"),
        "{said}"
    );
    let (status, said) = tries(&ends);
    assert!(
        status == Some(2) && said.contains("experiments list"),
        "{said}"
    );
    // The only run.
    let (status, said) = tries(&[&ends[..], &["xp"]].concat());
    assert!(
        status == Some(0) && said.contains("would copy xp/20260101_000000"),
        "{said}"
    );
    let (status, said) = tries(&[&ends[..], &["xp", "current"]].concat());
    assert!(
        status == Some(0) && said.contains("would copy xp/20260101_000000"),
        "{said}"
    );
    let (status, said) = tries(&["--from-workspace=from", "--to-workspace=from", "xp", RUN]);
    assert!(status == Some(1) && said.contains("to itself"), "{said}");
    let (status, said) = tries(&[&ends[..], &["xp", "20200101_000000"]].concat());
    assert!(
        status == Some(1) && said.contains("xp/20200101_000000 does not exist"),
        "{said}"
    );
    scene.job("from", "1b");
    scene.run("20260202_000000", &["0a", "1b"]);
    let (status, said) = tries(&[&ends[..], &["xp"]].concat());
    assert!(
        status == Some(2) && said.contains("experiments runs"),
        "{said}"
    );

    // At a terminal: the first workspace, the other one, the experiment; of the runs, the one before the current one.
    let xpmfs = env!("CARGO_BIN_EXE_xpmfs");
    let settings = scene.top().join("settings.yaml");
    let inner = format!(
        "{xpmfs} --settings {} experiments copy -y",
        settings.display()
    );
    let mut terminal = Command::new("script");
    terminal
        .args(["-qec", &inner, "/dev/null"])
        .env("XDG_RUNTIME_DIR", scene.top())
        .env("TERM", "xterm")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut terminal = terminal.spawn().unwrap();
    let mut keys = terminal.stdin.take().unwrap();
    let mut output = terminal.stdout.take().unwrap();
    let mut shown = String::new();
    for (title, answer) in [
        ("Copy from", "\r"),
        ("Copy to", "\r"),
        ("Experiment", "\r"),
        ("Run", "\x1b[A\r"),
    ] {
        use std::io::{Read, Write};
        while !shown.contains(title) {
            let mut buffer = [0; 4096];
            let length = output.read(&mut buffer).unwrap();
            assert!(length > 0, "{title} in {shown}");
            shown += &String::from_utf8_lossy(&buffer[..length]);
        }
        keys.write_all(answer.as_bytes()).unwrap();
    }
    std::io::Read::read_to_string(&mut output, &mut shown).unwrap();
    assert!(terminal.wait().unwrap().success(), "{shown}");
    assert!(
        shown.contains("copied xp/20260101_000000 and 1 job"),
        "{shown}"
    );
    assert!(scene.run_path("to", RUN).exists());
}
