//! A home with a small workspace, in which the commands of the pages are run.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use crate::blocks;

pub(crate) const TRAIN: &str = "experiments/nlp/jobs/my.module.train";
pub(crate) const JOB: &str = "0defac9f07c4";
pub(crate) const OTHER: &str = "18fe96fb701a";

/// A fresh home directory with the settings of the recipes, and two finished jobs.
pub(crate) struct Home(pub(crate) TempDir);

impl Home {
    pub(crate) fn new() -> Home {
        let home = Home(TempDir::with_prefix("xpmfs-test-").unwrap());
        for directory in ["slow/backup/nlp/jobs", "slow/moved/nlp/jobs", "new"] {
            fs::create_dir_all(home.path(directory)).unwrap();
        }
        for hash in [JOB, OTHER] {
            let job = home.path(TRAIN).join(hash);
            fs::create_dir_all(job.join(".experimaestro")).unwrap();
            fs::write(job.join("train.out"), "loss 0.1\n").unwrap();
            fs::write(
                job.join(".experimaestro/status.json"),
                r#"{"state": "done"}"#,
            )
            .unwrap();
            fs::write(job.join("train.done"), "").unwrap();
        }
        fs::write(home.path("experiments/nlp/.__experimaestro__"), "").unwrap();
        let settings = home.settings();
        fs::create_dir_all(settings.parent().unwrap()).unwrap();
        fs::write(settings, home.placed(&blocks("recipes", "", "yaml")[0])).unwrap();
        // The jobs have settled.
        home.does("find experiments/nlp/jobs -exec touch -h -d '2 hours ago' {} +");
        home
    }

    pub(crate) fn path(&self, below: &str) -> PathBuf {
        self.0.path().join(below)
    }

    pub(crate) fn settings(&self) -> PathBuf {
        self.path(".config/experimaestro/settings.yaml")
    }

    /// An example, with the disks that it names below the home directory.
    pub(crate) fn placed(&self, example: &str) -> String {
        let home = self.0.path().to_str().unwrap();
        ["/slow/", "/new/"]
            .iter()
            .fold(example.to_owned(), |text, disk| {
                text.replace(disk, &format!("{home}{disk}"))
            })
    }

    pub(crate) fn tries(&self, script: &str) -> Output {
        let program = Path::new(env!("CARGO_BIN_EXE_xpmfs")).parent().unwrap();
        let path = format!("{}:{}", program.display(), std::env::var("PATH").unwrap());
        let mut command = Command::new("timeout");
        command
            .args(["60", "bash", "-euc", script])
            .current_dir(self.0.path())
            .env("HOME", self.0.path())
            .env("PATH", path)
            .stdin(Stdio::null());
        for variable in [
            "XDG_CONFIG_HOME",
            "XDG_DATA_HOME",
            "XDG_STATE_HOME",
            "XDG_RUNTIME_DIR",
        ] {
            command.env_remove(variable);
        }
        command.output().unwrap()
    }

    pub(crate) fn does(&self, script: &str) -> String {
        let output = self.tries(script);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{script}: {said}");
        String::from_utf8(output.stdout).unwrap() + &said
    }

    pub(crate) fn json(&self, command: &str) -> Value {
        let output = self.tries(&format!("{command} --json"));
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
            panic!(
                "{command}: {error}: {}",
                String::from_utf8_lossy(&output.stderr)
            )
        })
    }

    /// Where the mount serves a job from.
    pub(crate) fn location(&self, hash: &str) -> String {
        let job = self.path(TRAIN).join(hash);
        let mut label = vec![0; 4096];
        let length = rustix::fs::getxattr(job, "user.xpmfs.location", &mut label).unwrap();
        label.truncate(length);
        String::from_utf8(label).unwrap()
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let _ = self.tries("xpmfs umount -q --lazy ~/experiments/nlp");
    }
}
