//! `mount --shared` and `umount`, from shell scripts that stand for batch jobs.

mod holders;
mod joining;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::Value;

use crate::home::Home;

/// A bash script that reads lines and does them, so that its process lives as long as the test needs it.
struct Script {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Script {
    fn start(home: &Home) -> Script {
        Script::run_by(home.program(Path::new("bash")), home)
    }

    fn run_by(mut command: Command, home: &Home) -> Script {
        // Each has its own: another one may be reading its file.
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let file = home.path(format!("script-{number}.sh"));
        let text = "while IFS= read -r line; do eval \"$line\"; echo \"status $?\"; done\n";
        fs::write(&file, text).unwrap();
        let mut child = command
            .arg(&file)
            .env("X", &home.binary)
            .env("XPMFS_SETTINGS", home.path("settings.yaml"))
            .env_remove("SLURM_JOB_ID")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        Script {
            input: child.stdin.take().unwrap(),
            output: BufReader::new(child.stdout.take().unwrap()),
            child,
        }
    }

    fn begin(&mut self, line: &str) {
        writeln!(self.input, "{{ {line}; }} </dev/null 2>&1").unwrap();
    }

    /// What it printed, and the exit status.
    fn end(&mut self) -> (String, i32) {
        let mut printed = String::new();
        loop {
            let mut line = String::new();
            assert!(self.output.read_line(&mut line).unwrap() > 0, "{printed}");
            if let Some(status) = line.strip_prefix("status ") {
                return (printed, status.trim().parse().unwrap());
            }
            printed += &line;
        }
    }

    fn tries(&mut self, line: &str) -> (String, i32) {
        self.begin(line);
        self.end()
    }

    fn does(&mut self, line: &str) -> String {
        let (printed, status) = self.tries(line);
        assert_eq!(status, 0, "{line}: {printed}");
        printed
    }

    fn pid(&self) -> i32 {
        self.child.id().try_into().unwrap()
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const XPMFS: &str = "\"$X\" --settings \"$XPMFS_SETTINGS\"";

/// The command lines of scripts that share a mount at a path.
struct Lines {
    mount: String,
    umount: String,
}

fn lines(home: &Home, place: &Path) -> Lines {
    let (log, place) = (home.log(), place.display());
    Lines {
        mount: format!(
            "{XPMFS} mount --shared -w nlp --log '{}' '{place}'",
            log.display()
        ),
        umount: format!("{XPMFS} umount '{place}'"),
    }
}

/// The holders of the mount at a path, in the form of the command line.
fn holders(home: &Home, place: &Path) -> Vec<String> {
    let status = home.status(&[place.to_str().unwrap()]);
    let holders = status["mounts"][0]["holders"].as_array().unwrap();
    let name = |one: &Value| one["holder"].as_str().unwrap().to_owned();
    holders.iter().map(name).collect()
}
