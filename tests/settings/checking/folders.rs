//! Folders and workspaces that cannot be used, or are not there.

use std::fs;
use std::path::PathBuf;

use xpmfs::settings::Severity::{Error, Warning};
use xpmfs::settings::{Folder, Mode, Workspace, validate_folders};

use super::{expect, findings, workspace};
use crate::oracle::Home;

#[test]
fn folders_that_cannot_be_attached_are_found() {
    expect(
        &workspace("folders:\n  - path: ~/ws/inside"),
        &[(5, 15, Error, "is inside the workspace", "out of")],
    );
    expect(
        &workspace("folders:\n  - path: ~/ws/"),
        &[(5, 15, Error, "is the workspace itself", "")],
    );
    expect(
        &workspace("folders:\n  - path: ~"),
        &[(
            5,
            15,
            Error,
            "`path` must be a path, and this is nothing",
            "",
        )],
    );
    expect(
        &workspace("folders:\n  - path: ~/"),
        &[(
            5,
            15,
            Error,
            "is inside the folder",
            "a directory of its own",
        )],
    );
    expect(
        &workspace("folders:\n  - path: ~/a/../ws/inside"),
        &[(5, 15, Error, "is inside the workspace", "")],
    );
    // One directory, by two paths.
    expect(
        &workspace("folders:\n  - path: ~/a\n  - path: ~/a-link"),
        &[(6, 15, Warning, "is listed twice", "remove one")],
    );
    expect(
        &workspace("folders:\n  - {path: ~/a, mode: backup}\n  - {path: ~/a, mode: move}"),
        &[(
            6,
            16,
            Error,
            "is listed as `backup` and as `move`",
            "keep one",
        )],
    );
    expect(
        &workspace("folders:\n  - {path: ~/a, mode: move}\n  - {path: ~/b, mode: move}"),
        &[(
            6,
            16,
            Error,
            "more than one `move` folder",
            "make the others `backup` or `use`",
        )],
    );
}

#[test]
fn folders_and_workspaces_that_are_not_there_are_warnings() {
    expect(
        &workspace("folders:\n  - {path: ~/gone, mode: backup}"),
        &[(5, 16, Warning, "gone does not exist", "mkdir -p")],
    );
    expect(
        &workspace("folders:\n  - path: ~/a-file"),
        &[(5, 15, Warning, "is not a directory", "")],
    );
    expect(
        &workspace("folders:\n  - path: a"),
        &[(
            5,
            15,
            Warning,
            "depends on the current directory",
            "in full",
        )],
    );
    expect(
        &workspace("folders:\n  - path: ~/old/jobs"),
        &[(
            5,
            15,
            Warning,
            "used as the jobs directory itself",
            "holds `jobs`",
        )],
    );
    expect(
        "workspaces: [{id: a, path: ~/gone}]",
        &[(1, 28, Warning, "gone does not exist", "mkdir -p")],
    );
    expect(
        "workspaces: [{id: a, path: ~/a-file}]",
        &[(1, 28, Error, "is not a directory", "")],
    );
    expect(
        "workspaces: [{id: a, path: ~/a-file/below}]",
        &[(1, 28, Error, "is not a directory", "")],
    );
    expect(
        &workspace("folders:\n  - path: ~/a-file/below"),
        &[(5, 15, Warning, "is not a directory", "")],
    );
    expect(
        "workspaces: [{id: a, path: ws}]",
        &[(1, 28, Warning, "depends on the current directory", "")],
    );
    // A remote workspace is not checked against the disk.
    expect(
        "workspaces: [{id: a, path: gone, ssh: {host: h}, folders: [{path: gone}]}]",
        &[],
    );
}

#[test]
fn alt_workspaces_are_deprecated_with_the_replacement() {
    let text = workspace("alt_workspaces: [other, ~/b]") + "  - {id: other, path: ~/a}\n";
    let found = findings(&text);
    assert_eq!(found.len(), 1, "{found:#?}");
    assert_eq!(
        (found[0].line, found[0].column, found[0].severity),
        (4, 5, Warning)
    );
    assert!(
        found[0]
            .advice
            .ends_with("folders:\n  - path: ~/a\n    mode: use\n  - path: ~/b\n    mode: use"),
        "{}",
        found[0].advice
    );
    // They are folders, with all that can be wrong with folders.
    expect(
        &workspace("alt_workspaces: [~/ws/inside]"),
        &[
            (
                4,
                5,
                Warning,
                "`alt_workspaces` is deprecated",
                "~/ws/inside",
            ),
            (4, 22, Error, "is inside the workspace", ""),
        ],
    );
}

#[test]
fn folders_are_validated_before_mounting() {
    let home = Home::new();
    for name in ["ws", "a", "b", "ws/inside"] {
        fs::create_dir_all(home.path().join(name)).unwrap();
    }
    let at = |name: &str| home.path().join(name);
    let workspace = Workspace::bare(at("ws").canonicalize().unwrap());
    let validate = |folders: &[(Mode, PathBuf)]| {
        let folders: Vec<Folder> = folders
            .iter()
            .map(|(mode, path)| Folder::new(*mode, path))
            .collect();
        validate_folders(&workspace, &folders).map_err(|error| error.to_string())
    };
    assert_eq!(
        validate(&[(Mode::Use, at("a")), (Mode::Move, at("b"))]),
        Ok(vec![])
    );
    let missing = validate(&[(Mode::Backup, at("gone"))]).unwrap();
    assert!(
        missing.len() == 1 && missing[0].contains("does not exist"),
        "{missing:?}"
    );
    for (folders, reason) in [
        (
            vec![(Mode::Use, at("ws/inside"))],
            "is inside the workspace",
        ),
        (vec![(Mode::Use, at(""))], "is inside the folder"),
        (vec![(Mode::Use, at("ws"))], "is the workspace itself"),
        (
            vec![(Mode::Move, at("a")), (Mode::Move, at("b"))],
            "more than one `move`",
        ),
        (
            vec![(Mode::Use, at("a")), (Mode::Backup, at("a"))],
            "as `use` and as `backup`",
        ),
    ] {
        let error = validate(&folders).expect_err(reason);
        assert!(error.contains(reason), "{error}");
    }
}

#[test]
fn a_folder_may_be_a_jobs_directory_itself() {
    let home = Home::new();
    for name in ["old/jobs/my.task", "both/jobs/jobs", "plain/jobs"] {
        fs::create_dir_all(home.path().join(name)).unwrap();
    }
    let jobs = |name: &str| {
        let jobs = Folder::new(Mode::Use, home.path().join(name)).jobs();
        jobs.strip_prefix(home.path()).unwrap().to_owned()
    };
    assert_eq!(jobs("old/jobs"), PathBuf::from("old/jobs"));
    assert_eq!(jobs("both/jobs"), PathBuf::from("both/jobs/jobs"));
    assert_eq!(jobs("plain"), PathBuf::from("plain/jobs"));
    assert_eq!(jobs("gone/jobs"), PathBuf::from("gone/jobs/jobs"));
}

#[test]
fn a_folder_is_read_from_the_command_line() {
    let folder: Folder = "backup:/a//b:c/".parse().unwrap();
    assert_eq!(
        (folder.mode, folder.path),
        (Mode::Backup, PathBuf::from("/a/b:c"))
    );
    let home: Folder = "use:~/x".parse().unwrap();
    assert!(
        home.path.is_absolute() && home.path.ends_with("x"),
        "{home:?}"
    );
    for wrong in [
        "",
        "/a",
        "copy:/a",
        "use:",
        ":/a",
        "Use:/a",
        "use:~no-such-user-here/x",
    ] {
        assert!(wrong.parse::<Folder>().is_err(), "{wrong}");
    }
}

#[test]
fn more_folders_than_can_be_mounted_are_an_error() {
    for (count, errors) in [(250, 0), (251, 1)] {
        let folders: String = (0..count)
            .map(|number| format!("\n  - path: ~/many/{number}"))
            .collect();
        let found = findings(&workspace(&format!("folders:{folders}"))).into_iter();
        let found: Vec<_> = found.filter(|it| it.severity == Error).collect();
        assert_eq!(found.len(), errors, "{found:?}");
        assert!(
            found
                .iter()
                .all(|it| it.line == 255 && it.message.contains("251 folders"))
        );
    }
}

#[test]
fn no_advice_creates_a_directory_at_an_incomplete_path() {
    let folders =
        "folders:\n  - {path: rel, mode: backup}\n  - {path: '${env:NOT_SET}/x', mode: move}";
    for text in [
        "workspaces: [{id: a, path: not/there}]".to_owned(),
        "workspaces: [{id: a, path: '${env:NOT_SET}/there'}]".to_owned(),
        workspace(folders),
    ] {
        let found = findings(&text);
        assert!(!found.is_empty());
        assert!(
            found.iter().all(|it| !it.advice.contains("mkdir")),
            "{found:?}"
        );
    }
    let folders = ["rel", "${env:NOT_SET}/x"].map(|path| Folder::new(Mode::Backup, path));
    let nlp = Workspace::bare(std::env::temp_dir().join("not-there"));
    let warnings = validate_folders(&nlp, &folders).unwrap();
    assert!(
        warnings.iter().all(|it| !it.contains("mkdir")),
        "{warnings:?}"
    );
    assert!(warnings[0].contains("in full"), "{warnings:?}");
    assert!(warnings[1].contains("export"), "{warnings:?}");
}
