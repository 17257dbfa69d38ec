//! A Python process with experimaestro, asked line by line.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::rc::Rc;

use serde_json::{Value, json};
use tempfile::TempDir;
use xpmfs::settings::Environment;

/// A Python with experimaestro; `None` without one, if none is required.
pub(crate) fn python() -> Option<PathBuf> {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = env::var_os("XPMFS_TEST_PYTHON")
        .map_or_else(|| manifest.join("target/venv/bin/python"), PathBuf::from);
    if !python.exists() {
        let required = env::var_os("CI").is_some()
            || env::var_os("XPMFS_TEST_REQUIRE").is_some_and(|value| value == "1");
        assert!(
            !required,
            "no Python with experimaestro at {}: set XPMFS_TEST_PYTHON",
            python.display()
        );
        // Not eprintln!, which the test harness keeps to itself when a test passes.
        let _ = writeln!(
            std::io::stderr(),
            "SKIPPED: no Python with experimaestro at {}",
            python.display()
        );
        return None;
    }
    Some(python)
}

/// The process.
pub(crate) struct Oracle {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Oracle {
    /// Starts it; `None` without a Python with experimaestro, if none is required.
    pub(crate) fn start() -> Option<Oracle> {
        let python = python()?;
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut child = Command::new(python)
            .arg(manifest.join("tests/settings/oracle.py"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().unwrap());
        Some(Oracle {
            child,
            input,
            output,
        })
    }

    /// One question, one answer.
    pub(crate) fn ask(&mut self, question: &Value) -> Value {
        let input = self.input.as_mut().unwrap();
        writeln!(input, "{question}").unwrap();
        input.flush().unwrap();
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        serde_json::from_str(&line)
            .unwrap_or_else(|error| panic!("{error}: {question} -> {line:?}"))
    }
}

impl Drop for Oracle {
    fn drop(&mut self) {
        drop(self.input.take());
        let _ = self.child.wait();
    }
}

/// A home directory with links and directories for settings to lead to, and variables.
pub(crate) struct Home {
    dir: Rc<TempDir>,
    vars: BTreeMap<String, String>,
}

impl Home {
    pub(crate) fn new() -> Home {
        let dir = Rc::new(tempfile::tempdir().unwrap());
        let root = dir.path();
        for name in ["real/deep", "work", ".config/experimaestro", "with space/é"] {
            fs::create_dir_all(root.join(name)).unwrap();
        }
        fs::write(root.join("a-file"), "").unwrap();
        for (target, link) in [
            ("real", "link"),
            ("../real/deep/../..", "work/up"),
            ("missing/target", "dangling"),
            ("loop-b", "loop-a"),
            ("loop-a", "loop-b"),
            ("link/deep", "chain"),
        ] {
            symlink(target, root.join(link)).unwrap();
        }
        symlink(root.join("real"), root.join("absolute")).unwrap();
        let mut vars = BTreeMap::new();
        for (name, value) in [
            ("XPM_PATH", "/data/from-variable"),
            ("XPM_PORT", "4321"),
            ("XPM_EMPTY", ""),
            ("XPM_NESTED", "${env:XPM_PORT}"),
            ("XPM ODD", "odd"),
        ] {
            vars.insert(name.to_owned(), value.to_owned());
        }
        vars.insert("HOME".to_owned(), root.to_str().unwrap().to_owned());
        Home { dir, vars }
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The same directory, without other variables than `HOME`.
    pub(crate) fn without_variables(&self) -> Home {
        Home {
            dir: Rc::clone(&self.dir),
            vars: BTreeMap::from([("HOME".to_owned(), self.vars["HOME"].clone())]),
        }
    }

    /// The default settings file of this home.
    pub(crate) fn file(&self) -> PathBuf {
        self.path().join(".config/experimaestro/settings.yaml")
    }

    /// As our own functions take it.
    pub(crate) fn environment(&self) -> Environment {
        Environment::new(self.vars.clone(), self.path())
    }

    /// A question to the oracle, with these surroundings.
    pub(crate) fn question(&self, what: Value) -> Value {
        let mut question = json!({"env": self.vars, "cwd": self.path()});
        question
            .as_object_mut()
            .unwrap()
            .extend(what.as_object().unwrap().clone());
        question
    }
}
