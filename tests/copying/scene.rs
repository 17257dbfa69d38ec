//! Two workspaces with names that a shell would act on, and runs with jobs.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};
use tempfile::TempDir;

/// Part of every name that may have it: what a shell, ssh, rsync or `printf` would act on.
pub(crate) const ODD: &str =
    "-a 'b' \"c\" $(touch PWNED) `touch PWNED` ;touch PWNED; \\ %s * ? [x] {y} é\n#~&|<>!:@host:z";

pub(crate) const RUN: &str = "20260101_000000";

/// Two workspaces, `from` and `to`, each with a folder that may be made.
pub(crate) struct Scene {
    top: TempDir,
    odd: bool,
}

impl Scene {
    pub(crate) fn new() -> Scene {
        Scene::with_names(false)
    }

    /// With odd names for everything.
    pub(crate) fn odd() -> Scene {
        Scene::with_names(true)
    }

    fn with_names(odd: bool) -> Scene {
        let top = tempfile::Builder::new().prefix("xpmfs-test-").tempdir();
        let scene = Scene {
            top: top.unwrap(),
            odd,
        };
        for end in ["from", "to"] {
            fs::create_dir_all(scene.workspace(end).join("jobs")).unwrap();
        }
        fs::create_dir(scene.temporary()).unwrap();
        scene.write_settings(|_, _| {});
        scene
    }

    /// A name, made odd if the scene is.
    pub(crate) fn name(&self, name: &str) -> String {
        match self.odd {
            true => format!("{ODD} {name}"),
            false => name.to_owned(),
        }
    }

    /// The id of a task whose jobs are called `train`, or oddly.
    pub(crate) fn task(&self) -> String {
        self.name("my.module.train")
    }

    pub(crate) fn experiment(&self) -> String {
        match self.odd {
            true => format!("{ODD} xp"),
            false => "xp".to_owned(),
        }
    }

    pub(crate) fn top(&self) -> PathBuf {
        self.top.path().canonicalize().unwrap()
    }

    /// The directory of a workspace or folder.
    pub(crate) fn workspace(&self, end: &str) -> PathBuf {
        self.top().join(self.name(end))
    }

    /// Writes the settings, after `change` was called with each workspace's id and keys.
    pub(crate) fn write_settings(&self, change: impl Fn(&str, &mut Value)) {
        let workspaces = ["from", "to"].map(|id| {
            let mut workspace = json!({"id": id, "path": self.workspace(id).to_str().unwrap()});
            change(id, &mut workspace);
            workspace
        });
        // JSON is YAML.
        let settings = json!({ "workspaces": workspaces }).to_string();
        fs::write(self.top().join("settings.yaml"), settings).unwrap();
    }

    /// A finished job in a workspace or folder.
    pub(crate) fn job(&self, end: &str, hash: &str) -> PathBuf {
        let path = self.job_path(end, hash);
        let task = self.task();
        let name = task.rsplit('.').next().unwrap();
        fs::create_dir_all(path.join(".experimaestro/partials")).unwrap();
        fs::create_dir_all(path.join(self.name("data"))).unwrap();
        let workspace = self.workspace("from");
        let old = workspace.join("jobs").join("data.txt");
        let params = json!({
            "workspace": workspace.to_str().unwrap(),
            "version": 2,
            "objects": [{"fields": {
                "old": {"type": "path", "value": old.to_str().unwrap()},
                "new": {"type": "path", "value": "data.txt", "base": "job"},
            }}],
        });
        fs::write(path.join("params.json"), params.to_string()).unwrap();
        fs::write(path.join("model.bin"), [b'w'; 10_000]).unwrap();
        fs::write(path.join(self.name("data")).join(self.name("file")), hash).unwrap();
        symlink(self.name("data"), path.join(self.name("link"))).unwrap();
        fs::hard_link(path.join("model.bin"), path.join("same.bin")).unwrap();
        fs::write(path.join("run.sh"), "#!/bin/sh\n").unwrap();
        fs::set_permissions(path.join("run.sh"), fs::Permissions::from_mode(0o750)).unwrap();
        let partial = workspace.join("partials/t/ck/1f");
        symlink(partial, path.join(".experimaestro/partials/ck")).unwrap();
        fs::write(
            path.join(".experimaestro/status.json"),
            "{\"state\": \"done\"}",
        )
        .unwrap();
        fs::write(path.join(format!("{name}.lock")), "").unwrap();
        fs::write(path.join(format!("{name}.pid")), "1").unwrap();
        fs::write(path.join(format!("{name}.done")), "").unwrap();
        path
    }

    pub(crate) fn job_path(&self, end: &str, hash: &str) -> PathBuf {
        let jobs = self.workspace(end).join("jobs");
        jobs.join(self.task()).join(hash)
    }

    /// A run of these jobs that has ended, in `from`.
    pub(crate) fn run(&self, run: &str, jobs: &[&str]) -> PathBuf {
        let path = self.run_path("from", run);
        let links = path.join("jobs").join(self.task());
        fs::create_dir_all(&links).unwrap();
        let mut lines = String::new();
        for hash in jobs {
            symlink(self.job_path("from", hash), links.join(hash)).unwrap();
            let line = json!({"job_id": hash, "task_id": self.task(), "tags": {"lr": 0.1}, "timestamp": 1767225600.0});
            lines += &format!("{line}\n");
        }
        fs::write(path.join("jobs.jsonl"), lines).unwrap();
        fs::write(path.join("status.json"), r#"{"status": "done"}"#).unwrap();
        fs::create_dir(path.join("events")).unwrap();
        fs::write(path.join("events/event-0.jsonl"), "{}\n").unwrap();
        let current = path.with_file_name("current");
        let _ = fs::remove_file(&current);
        symlink(run, current).unwrap();
        path
    }

    pub(crate) fn run_path(&self, end: &str, run: &str) -> PathBuf {
        let experiments = self.workspace(end).join("experiments");
        experiments.join(self.experiment()).join(run)
    }

    /// The directory of temporary files of the commands.
    pub(crate) fn temporary(&self) -> PathBuf {
        self.top().join("tmp")
    }

    /// The command, with the settings of this scene.
    pub(crate) fn xpmfs(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_xpmfs"));
        command
            .arg("--settings")
            .arg(self.top().join("settings.yaml"))
            .current_dir(self.top())
            .env("HOME", self.top())
            .env("TMPDIR", self.temporary())
            .env("XDG_RUNTIME_DIR", self.top());
        command
    }

    /// `xpmfs experiments copy` of a run, with more arguments.
    pub(crate) fn command(&self, run: &str, arguments: &[&str]) -> Command {
        let mut command = self.xpmfs();
        command
            .args([
                "experiments",
                "copy",
                "--from-workspace=from",
                "--to-workspace=to",
            ])
            .args(arguments)
            .args(["--", &self.experiment(), run]);
        command
    }

    pub(crate) fn copy(&self, run: &str, arguments: &[&str]) -> Output {
        self.command(run, arguments).output().unwrap()
    }

    /// Copies, and returns what the command prints as JSON; its status must be this.
    #[track_caller]
    pub(crate) fn copied(&self, run: &str, succeeds: bool) -> Value {
        let output = self.copy(run, &["-y", "--json"]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.success(), succeeds, "{said}\n{output:?}");
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {said}"))
    }

    /// Checks that `to` has a job of `from` as it should: all but locks, with the paths of `to`.
    #[track_caller]
    pub(crate) fn assert_copied(&self, source: &Path, hash: &str) {
        let copy = self.job_path("to", hash);
        let (theirs, ours) = (tree(source), tree(&copy));
        let task = self.task();
        let name = task.rsplit('.').next().unwrap();
        let (from, to) = (self.workspace("from"), self.workspace("to"));
        let expected = theirs.into_iter().filter(|(path, _)| {
            ![format!("{name}.lock"), format!("{name}.pid")]
                .iter()
                .any(|left| path.as_os_str() == OsStr::new(left))
        });
        let expected: Vec<_> = expected
            .map(|(path, entry)| match path.to_str() {
                Some("params.json" | ".experimaestro/partials/ck") => {
                    let is_json = path.to_str() == Some("params.json");
                    (path, entry.replaced(&from, &to, is_json))
                }
                _ => (path, entry),
            })
            .collect();
        assert_eq!(ours, expected);
        let same = |name: &str| {
            let stat = rustix::fs::stat(copy.join(name)).unwrap();
            (stat.st_ino, stat.st_nlink)
        };
        assert_eq!(same("model.bin"), same("same.bin"));
    }

    /// Checks that nothing that a name contains was run, and that no unfinished copy is left.
    #[track_caller]
    pub(crate) fn assert_clean(&self) {
        for (path, _) in tree(&self.top()) {
            assert!(!path.ends_with("PWNED"), "{}", path.display());
        }
        for end in ["from", "to"] {
            let left = self.workspace(end).join(".xpm-staging");
            assert!(!left.exists(), "{:?}", tree(&left));
        }
        assert!(!Path::new("PWNED").exists());
        assert!(tree(&self.temporary()).is_empty());
    }
}

/// What an entry is: its kind, mode, time of change and content.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Entry {
    kind: char,
    mode: u32,
    seconds: i64,
    content: OsString,
}

impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let content = self.content.to_string_lossy();
        let start: String = content.chars().take(300).collect();
        write!(
            f,
            "{} {:o} {} {start:?}",
            self.kind, self.mode, self.seconds
        )
    }
}

impl Entry {
    /// Without its time.
    pub(crate) fn at_any_time(self) -> Entry {
        Entry { seconds: 0, ..self }
    }

    pub(crate) fn is_link(&self) -> bool {
        self.kind == 'l'
    }

    /// With one path in its content replaced by another.
    fn replaced(mut self, from: &Path, to: &Path, is_json: bool) -> Entry {
        let text = self.content.into_string().unwrap();
        let quoted = |path: &Path| match is_json {
            true => {
                let text = serde_json::to_string(path.to_str().unwrap()).unwrap();
                text.trim_matches('"').to_owned()
            }
            false => path.to_str().unwrap().to_owned(),
        };
        // As Python writes it, in ASCII.
        let to = match is_json {
            true => quoted(to).replace('é', "\\u00e9").replace("\\n", "\\u000a"),
            false => quoted(to),
        };
        self.content = text.replace(&quoted(from), &to).into();
        self
    }
}

/// The entries below a directory. The times of symlinks are not compared.
pub(crate) fn tree(top: &Path) -> Vec<(PathBuf, Entry)> {
    let mut found = Vec::new();
    let mut left = vec![top.to_owned()];
    while let Some(directory) = left.pop() {
        let Ok(listed) = fs::read_dir(&directory) else {
            continue;
        };
        for entry in listed {
            let path = entry.unwrap().path();
            let stat = rustix::fs::lstat(&path).unwrap();
            let (kind, content) = if path.is_symlink() {
                ('l', fs::read_link(&path).unwrap().into_os_string())
            } else if path.is_dir() {
                left.push(path.clone());
                ('d', OsString::new())
            } else {
                ('f', OsString::from_vec(fs::read(&path).unwrap()))
            };
            let entry = Entry {
                kind,
                mode: stat.st_mode,
                seconds: if kind == 'l' { 0 } else { stat.st_mtime },
                content,
            };
            let relative = path.strip_prefix(top).unwrap();
            found.push((
                PathBuf::from(OsStr::from_bytes(relative.as_os_str().as_bytes())),
                entry,
            ));
        }
    }
    found.sort();
    found
}

/// The value of a key that is a number.
pub(crate) fn number(json: &Value, key: &str) -> u64 {
    json[key]
        .as_u64()
        .unwrap_or_else(|| panic!("{key} in {json}"))
}
