//! Whoever archives or recovers is killed at each system call that changes something, in turn.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;

use super::common::{program, say};
use super::scene::{Prepared, Scene, sample, try_each};
use super::stage::{HASH, Stage, killed_after_a_move, said};

/// Kills at the calls of a scene.
fn kill_at_each(scene: Scene) {
    if program("strace").is_none() {
        return;
    }
    let prepared = Prepared::new(scene);
    let all = prepared.points();
    // What puts things in their places is tried always.
    let always: &[&str] = match scene.what {
        // It makes few calls.
        "release" => &[""],
        "delete" | "undelete" => &["rename"],
        _ => &["rename", "symlink", "fsync", "syncfs", "flock"],
    };
    let points = sample(&all, always);
    let killed = try_each(scene, &points, |point| {
        let (stage, output) = prepared.with_fault(point, "signal=KILL");
        let killed = output.status.signal() == Some(9);
        assert!(killed || output.status.success(), "{}", said(&output));
        prepared.again(&stage);
        killed
    });
    say(&format!(
        "{scene:?}: killed at {killed} of {} calls",
        all.len()
    ));
    assert!(
        killed * 10 >= points.len() * 9,
        "{killed} of {}",
        points.len()
    );
}

macro_rules! scenes {
    ($($name:ident: $what:literal $modes:expr, $more:literal, $exchange:literal;)*) => {
        $(
            #[test]
            fn $name() {
                let (what, modes, more, exchange) = ($what, &$modes, $more, $exchange);
                kill_at_each(Scene { what, modes, more, exchange });
            }
        )*
    };
}

scenes! {
    killed_while_releasing: "release" ["backup"], false, true;
    killed_while_releasing_without_exchange: "release" ["backup"], false, false;
    killed_while_releasing_what_a_move_folder_has: "release" ["move"], false, true;
    killed_while_deleting: "delete" ["backup"], false, true;
    killed_while_deleting_what_was_moved: "delete" ["backup", "move"], true, false;
    killed_while_undeleting: "undelete" ["backup"], false, true;
    killed_while_copying_to_backup: "archive" ["backup"], false, true;
    killed_while_copying_to_backup_without_exchange: "archive" ["backup"], false, false;
    killed_while_replacing_in_backup: "archive" ["backup"], true, true;
    killed_while_replacing_in_backup_without_exchange: "archive" ["backup"], true, false;
    killed_while_moving: "archive" ["move"], false, true;
    killed_while_moving_without_exchange: "archive" ["move"], false, false;
    killed_while_moving_what_is_there_in_an_older_state: "archive" ["move"], true, true;
    killed_while_moving_what_is_there_in_an_older_state_without_exchange: "archive" ["move"], true, false;
    killed_while_copying_and_moving: "archive" ["backup", "move"], false, true;
    killed_while_copying_and_moving_without_exchange: "archive" ["backup", "move"], false, false;
    killed_while_replacing_and_moving: "archive" ["backup", "move"], true, true;
    killed_while_replacing_and_moving_without_exchange: "archive" ["backup", "move"], true, false;
    killed_while_recovering: "recover" ["backup"], false, true;
    killed_while_recovering_without_exchange: "recover" ["backup"], false, false;
    killed_while_recovering_what_was_moved: "recover" ["move"], true, true;
    killed_while_recovering_what_was_moved_without_exchange: "recover" ["move"], true, false;
}

#[test]
fn a_kill_comes_before_the_call() {
    if program("strace").is_none() {
        return;
    }
    let top = tempfile::tempdir().unwrap();
    let mut mkdir = Command::new("strace");
    mkdir.args([
        "-f",
        "-qq",
        "-o",
        "/dev/null",
        "--inject=mkdir,mkdirat:signal=KILL:when=2",
    ]);
    mkdir.arg("mkdir").args(["a", "b"]).current_dir(top.path());
    let output = mkdir.output().unwrap();
    assert_eq!(output.status.signal(), Some(9), "{}", said(&output));
    assert!(top.path().join("a").exists() && !top.path().join("b").exists());
}

#[test]
fn what_was_written_while_it_moved_is_put_back_by_the_next_start() {
    for note in [true, false] {
        let stage = killed_after_a_move(|| Stage::new(&["move"]));
        let task = stage.job().parent().unwrap().to_owned();
        let aside = task.join(format!(".tmp.{HASH}"));
        fs::write(aside.join("straggler"), "late").unwrap();
        if !note {
            // As experimaestro does when it looks whether somebody is at it.
            fs::write(task.join(format!(".tmp.{HASH}.lock")), "").unwrap();
        }
        stage.archive();
        assert_eq!(fs::read(stage.job().join("straggler")).unwrap(), b"late");
        assert_eq!(
            fs::read(stage.archived("move").join("straggler")).unwrap(),
            b"late"
        );
        assert!(stage.job().is_symlink());
        stage.verify();
        stage.assert_clean();
    }
}
