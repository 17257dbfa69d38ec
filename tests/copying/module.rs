//! The Python module `xpmfs`, beside experimaestro's own, and its installation by pip.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::common::sshd::Sshd;
use crate::common::{python, run, soak};
use crate::scene::{RUN, Scene};

/// What `tests/python/module.py` reports, with the built command and the module of the sources.
fn report(scene: &Scene, python: &Path) -> Value {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("python");
    let built = Path::new(env!("CARGO_BIN_EXE_xpmfs")).parent().unwrap();
    let path = std::env::var("PATH").unwrap_or_default();
    let config = scene.top().join(".config/experimaestro");
    std::fs::create_dir_all(&config).unwrap();
    std::fs::copy(
        scene.top().join("settings.yaml"),
        config.join("settings.yaml"),
    )
    .unwrap();
    let mut command = python::script(python, &scene.top(), "module.py");
    command
        .env("PYTHONPATH", sources)
        .env("PATH", format!("{}:{path}", built.display()))
        .env("XDG_RUNTIME_DIR", scene.top());
    python::report(command, &["from", "to", "xp", RUN])
}

/// `same` is part of the error of a copy from `from` to itself.
fn checks(scene: &Scene, python: &Path, same: &str) {
    let jobs = ["0a", "1b"].map(|hash| scene.job("from", hash));
    scene.run("20260202_000000", &["0a"]);
    scene.run(RUN, &["0a", "1b", "2c"]);
    let report = report(scene, python);
    assert_eq!(report["listed"][0], report["listed"][1]);
    assert_eq!(report["listed"][0], report["listed"][2]);
    assert_eq!(report["listed"][0]["runs"].as_array().unwrap().len(), 2);
    assert_eq!(report["listed"][0]["current"], RUN);
    assert_eq!(report["formatted"][0], report["formatted"][1]);
    assert_eq!(report["fields"][0], report["fields"][1]);
    for (name, copied, skipped) in [
        ("dry", 2, 0),
        ("copied", 2, 0),
        ("mixed", 0, 2),
        ("ids", 0, 2),
    ] {
        let result = &report[name];
        assert_eq!(
            (&result["jobs_copied"], &result["jobs_skipped"]),
            (&json!(copied), &json!(skipped)),
            "{name}"
        );
        let errors = result["errors"].as_array().unwrap();
        assert!(
            errors.len() == 1 && errors[0].as_str().unwrap().contains("/2c: "),
            "{result}"
        );
    }
    for (job, hash) in jobs.iter().zip(["0a", "1b"]) {
        scene.assert_copied(job, hash);
    }
    let said = |index: usize| report["errors"][index].as_str().unwrap().to_owned();
    assert!(
        said(0).contains("xp/20200101_000000 does not exist"),
        "{}",
        said(0)
    );
    assert!(
        said(1).contains("unknown workspace `unknown`"),
        "{}",
        said(1)
    );
    assert!(
        said(2).contains("unknown workspace `unknown`"),
        "{}",
        said(2)
    );
    assert!(said(3).contains(same), "{}", said(3));
}

#[test]
fn the_quick_start_runs_with_this_module() {
    if let Some(python) = python::interpreter() {
        checks(&Scene::new(), &python, "to itself");
    }
}

#[test]
fn the_module_copies_from_another_machine() {
    if !soak() {
        return;
    }
    let (Some(python), Some(sshd)) = (python::interpreter(), Sshd::start()) else {
        return;
    };
    let scene = Scene::new();
    scene.write_settings(|id, workspace| {
        if id == "from" {
            workspace["ssh"] = sshd.ssh();
        }
    });
    checks(&scene, &python, "both are remote");
}

/// Installs the package of this checkout in a bare virtual environment; needs the network, for maturin.
#[test]
fn pip_installs_the_command_and_the_module() {
    if !soak() {
        return;
    }
    let scene = Scene::new();
    scene.job("from", "0a");
    scene.run(RUN, &["0a"]);
    let environment = scene.top().join("venv");
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("pip");
    run(Command::new("python3")
        .args(["-m", "venv"])
        .arg(&environment));
    let program = |name: &str| -> PathBuf { environment.join("bin").join(name) };
    run(Command::new(program("pip"))
        .args(["install", "--quiet", "--disable-pip-version-check"])
        .arg(env!("CARGO_MANIFEST_DIR"))
        // maturin moves the program that it builds: other tests run the one in the usual place.
        .env("CARGO_TARGET_DIR", directory));
    let version = run(Command::new(program("xpmfs")).arg("--version"));
    assert_eq!(version.trim(), concat!("xpmfs ", env!("CARGO_PKG_VERSION")));
    let module = run(Command::new(program("python")).args(["-m", "xpmfs", "--version"]));
    assert_eq!(module, version);
    let script = "import importlib.resources as files, xpmfs\n\
                  assert files.files(xpmfs).joinpath('py.typed').is_file()\n\
                  print(xpmfs.find_command())";
    let found = run(Command::new(program("python"))
        .args(["-c", script])
        .current_dir(scene.top()));
    assert_eq!(Path::new(found.trim()), program("xpmfs"));
    let script = format!(
        "from types import SimpleNamespace as Settings\nimport xpmfs\n\
         source = Settings(id='from', path={:?}, ssh=None)\ntarget = Settings(id='to', path={:?}, ssh=None)\n\
         print(xpmfs.copy_experiment(source, target, 'xp', {RUN:?}))",
        scene.workspace("from"),
        scene.workspace("to"),
    );
    let copied = run(Command::new(program("python"))
        .args(["-c", &script])
        .env("HOME", scene.top()));
    assert_eq!(
        copied.trim(),
        "CopyResult(jobs_copied=1, jobs_skipped=0, errors=[])"
    );
}
