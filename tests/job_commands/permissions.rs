//! Jobs and folders that the user has no right to: the command says whom to ask, or how to take it.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use crate::common::{ORDINARY, is_root, run};
use crate::stage::{Stage, TASK, assert_tree, said, whole, write_job};

/// `jobs archive --all` by an ordinary user, whose the workspace is from now on.
fn as_ordinary(stage: &Stage) -> impl Fn() -> Output {
    let jobs = ordinary(stage);
    give(&["-Rh"], &stage.primary());
    move || jobs(&["archive", "--all"])
}

/// `jobs …` by an ordinary user.
fn ordinary(stage: &Stage) -> impl Fn(&[&str]) -> Output {
    let (top, settings) = (stage.top(), stage.settings());
    let binary = top.join("xpmfs");
    run(Command::new("cp")
        .arg(env!("CARGO_BIN_EXE_xpmfs"))
        .arg(&binary));
    fs::set_permissions(stage.top(), Permissions::from_mode(0o755)).unwrap();
    move |arguments| {
        let mut command = Command::new("setpriv");
        command
            .args([
                &format!("--reuid={ORDINARY}"),
                &format!("--regid={ORDINARY}"),
            ])
            .args(["--clear-groups", "--"])
            .arg(&binary)
            .arg("--settings")
            .arg(&settings)
            .arg("jobs")
            .args(arguments)
            .args(["-w", "test"])
            .current_dir(&top)
            .env("HOME", &top)
            .env("XDG_RUNTIME_DIR", &top);
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

#[test]
fn a_folder_that_may_not_be_verified_is_reported_with_whom_to_ask() {
    if !is_root() {
        return;
    }
    let stage = Stage::new(&["backup"]);
    let hashes = crate::others::small_jobs(&stage, 1);
    stage.archive();
    fs::set_permissions(stage.primary(), Permissions::from_mode(0o755)).unwrap();
    let jobs = ordinary(&stage);
    let folder = stage.folder("backup");
    let whole = jobs(&["verify", &hashes[0]]);
    assert!(whole.status.success(), "{}", said(&whole));
    assert!(!said(&whole).contains("status"), "{}", said(&whole));
    let closed = [
        (folder.clone(), "go into"),
        (folder.join(".xpmfs"), "go into"),
        (folder.join("jobs").join(TASK), "list and go into"),
    ];
    for (directory, what) in closed {
        fs::set_permissions(&directory, Permissions::from_mode(0o700)).unwrap();
        let output = jobs(&["verify", "--all"]);
        assert_eq!(output.status.code(), Some(1), "{}", said(&output));
        let text = said(&output);
        let line = text.lines().find(|line| line.contains("Permission denied"));
        let line = line.unwrap_or_else(|| panic!("{text}"));
        assert!(line.contains(directory.to_str().unwrap()), "{line}");
        let ask = "ask its owner `root` for permission to ";
        assert!(line.contains(ask) && line.contains(what), "{line}");
        assert!(line.ends_with(directory.to_str().unwrap()), "{line}");
        let report = jobs(&["verify", "--all", "--json"]);
        let report: serde_json::Value = serde_json::from_slice(&report.stdout).unwrap();
        assert_eq!(report[0]["result"], "unlisted", "{report}");
        assert!(report[0]["whole"].is_null(), "{report}");
        fs::set_permissions(&directory, Permissions::from_mode(0o755)).unwrap();
    }
    // What must be listed to find jobs may not be: all that is to be recovered is unknown.
    fs::set_permissions(folder.join("jobs"), Permissions::from_mode(0o700)).unwrap();
    let output = jobs(&["recover", "--all"]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(
        said(&output).contains("ask its owner `root`"),
        "{}",
        said(&output)
    );
}

#[test]
fn a_folder_that_may_not_be_opened_is_reported_once_with_whom_to_ask() {
    if !is_root() {
        return;
    }
    let stage = Stage::new(&["backup"]);
    crate::others::small_jobs(&stage, 3);
    let jobs = ordinary(&stage);
    give(&["-Rh"], &stage.primary());
    let folder = stage.folder("backup");
    fs::set_permissions(&folder, Permissions::from_mode(0o700)).unwrap();
    let shown = folder.to_str().unwrap();
    let output = jobs(&["archive", "--all"]);
    let text = said(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    let ask = format!("ask its owner `root` for permission to list and go into {shown}\n");
    assert_eq!(text.matches(&ask).count(), 1, "{text}");
    assert_eq!(text.matches("Permission denied").count(), 1, "{text}");
    let more = format!("2 more jobs failed in backup:{shown} for the same reason");
    assert!(text.contains(&more), "{text}");
    let text = said(&jobs(&["archive", "--all", "-v"]));
    assert_eq!(text.matches(&ask).count(), 3, "{text}");
    let report = jobs(&["archive", "--all", "--json"]);
    let report: serde_json::Value = serde_json::from_slice(&report.stdout).unwrap();
    assert_eq!(report.as_array().unwrap().len(), 3, "{report}");
    // Every command that reads folders has the advice.
    let text = said(&jobs(&["list"]));
    assert!(text.contains("check its permissions"), "{text}");
}
