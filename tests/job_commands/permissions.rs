//! Jobs and folders that the user has no right to: the command says whom to ask, or how to take it.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use crate::common::{ORDINARY, is_root, run};
use crate::stage::{Stage, assert_tree, said, whole, write_job};

/// `jobs archive --all` by an ordinary user, whose the workspace is from now on.
fn as_ordinary(stage: &Stage) -> impl Fn() -> Output {
    let binary = stage.top().join("xpmfs");
    run(Command::new("cp")
        .arg(env!("CARGO_BIN_EXE_xpmfs"))
        .arg(&binary));
    fs::set_permissions(stage.top(), Permissions::from_mode(0o755)).unwrap();
    give(&["-Rh"], &stage.primary());
    move || {
        let mut command = Command::new("setpriv");
        command
            .args([
                &format!("--reuid={ORDINARY}"),
                &format!("--regid={ORDINARY}"),
            ])
            .args(["--clear-groups", "--"])
            .arg(&binary)
            .arg("--settings")
            .arg(stage.settings())
            .args(["jobs", "archive", "-w", "test", "--all"])
            .current_dir(stage.top())
            .env("HOME", stage.top())
            .env("XDG_RUNTIME_DIR", stage.top());
        command.output().unwrap()
    }
}

fn give(how: &[&str], path: &Path) {
    let owner = format!("{ORDINARY}:{ORDINARY}");
    run(Command::new("chown").args(how).arg(owner).arg(path));
}

#[test]
fn whoever_lacks_a_right_is_told_whom_to_ask_or_how_to_take_it() {
    if !is_root() {
        return;
    }
    let stage = Stage::new(&["backup"]);
    let folder = stage.folder("backup");
    write_job(&stage.job());
    let archive = as_ordinary(&stage);
    let refused = |say: &str, path: &Path| {
        let output = archive();
        let said = said(&output);
        assert_eq!(output.status.code(), Some(1), "{said}");
        let say = say.replace("PATH", path.to_str().unwrap());
        assert!(said.contains(&say), "{say}, not {said}");
        assert_eq!(
            said.contains("ask its owner"),
            say.contains("ask"),
            "{said}"
        );
    };
    refused(
        "ask its owner `root` for permission to write in PATH",
        &folder,
    );
    give(&[], &folder);
    fs::set_permissions(&folder, Permissions::from_mode(0o500)).unwrap();
    refused("may not write in PATH: `chmod u+w PATH`", &folder);
    fs::set_permissions(&folder, Permissions::from_mode(0o700)).unwrap();
    let data = stage.job().join("data");
    fs::set_permissions(&data, Permissions::from_mode(0o000)).unwrap();
    refused("may not list and go into PATH: `chmod u+rx PATH`", &data);
    fs::set_permissions(&data, Permissions::from_mode(0o755)).unwrap();
    let file = stage.job().join("params.json");
    fs::set_permissions(&file, Permissions::from_mode(0o000)).unwrap();
    refused("may not read PATH: `chmod u+r PATH`", &file);
    run(Command::new("chown").arg("0:0").arg(&file));
    refused("ask its owner `root` for permission to read PATH", &file);
    fs::set_permissions(&file, Permissions::from_mode(0o644)).unwrap();
    let output = archive();
    assert!(output.status.success(), "{}", said(&output));
    stage.assert_clean();
}

#[test]
fn a_folder_without_rights_is_told_of() {
    if !is_root() {
        return;
    }
    let stage = Stage::new(&["backup", "move"]);
    write_job(&stage.job());
    let archive = as_ordinary(&stage);
    let job = whole(&stage.job()).unwrap();
    let output = archive();
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    for say in [
        "Permission denied",
        stage.folder("backup").to_str().unwrap(),
    ] {
        assert!(said(&output).contains(say), "{}", said(&output));
    }
    // What `backup` cannot have, `move` does not take away.
    assert!(!stage.job().is_symlink());
    assert_tree("the primary's job", &job, whole(&stage.job()).as_ref());
    for mode in stage.modes() {
        give(&[], &stage.folder(mode));
    }
    let output = archive();
    assert!(output.status.success(), "{}", said(&output));
    for mode in stage.modes() {
        assert_tree(mode, &job, whole(&stage.archived(mode)).as_ref());
    }
    stage.verify();
    stage.assert_clean();
}
