//! pjdfstest, whole, on mounts and on the disk beneath: nothing fails on a mount that does not fail on
//! the disk, and nothing is left out that the disk is asked.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::Workspace;
use common::say;

/// What cannot even be asked of a FUSE mount: glibc takes this limit from the kind of the file system, and
/// does not know it for FUSE.
const NOT_ASKED: [&str; 1] = ["link::link_count_max"];

/// In the names of the tests that make the file system read-only.
const READ_ONLY: &str = "erofs";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Passed,
    Failed,
    Skipped,
}

/// What became of each test.
type Outcomes = BTreeMap<String, Outcome>;

struct Suite {
    program: PathBuf,
    workspace: Workspace,
}

impl Suite {
    /// A suite with a workspace that everybody can enter; `None` where it cannot run.
    fn new() -> Option<Suite> {
        if !common::is_root() {
            return None;
        }
        let program = common::tool("pjdfstest")?;
        let workspace = Workspace::new();
        for path in [workspace.top(), workspace.primary()] {
            fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        Some(Suite { program, workspace })
    }

    /// Runs all tests in a directory that have to do with `what`; all if that is empty. Those of
    /// read-only file systems remount the one that they are in: `remount` says whether they may.
    fn run(&self, directory: &Path, what: &str, remount: bool) -> Outcomes {
        let top = self.workspace.top();
        let configuration = top.join("pjdfstest.toml");
        let settings = [
            "[features]",
            "posix_fallocate = {}",
            "rename_ctime = {}",
            "stat_st_birthtime = {}",
            "utime_now = {}",
            "utimensat = {}",
            "secondary_fs = \"/dev/shm\"",
            "[settings]",
            // Longer than the kernel's clock stands still for time stamps.
            "naptime = 0.02",
            &format!("allow_remount = {remount}"),
            "[dummy_auth]",
            // Users that every Debian has.
            "entries = [[\"nobody\", \"nogroup\"], [\"daemon\", \"daemon\"]]",
        ];
        fs::write(&configuration, settings.join("\n")).unwrap();
        let output = Command::new(&self.program)
            .arg("-c")
            .arg(&configuration)
            .arg("-p")
            .arg(directory)
            .arg(what)
            .env("PATH", self.remounting())
            .env("NO_COLOR", "1")
            .env("RUST_BACKTRACE", "0")
            .output()
            .unwrap();
        let printed = String::from_utf8_lossy(&output.stdout);
        let outcomes = outcomes(&printed);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(!outcomes.is_empty(), "{printed}\n{errors}");
        if outcomes.values().any(|one| *one == Outcome::Failed) {
            eprintln!("{printed}");
        }
        outcomes
    }

    /// A `PATH` on which `mount` changes a mount itself, and asks no helper, which might not be
    /// installed.
    fn remounting(&self) -> String {
        let bin = self.workspace.top().join("remount");
        fs::create_dir_all(&bin).unwrap();
        let mount = bin.join("mount");
        fs::write(&mount, "#!/bin/sh\nexec /bin/mount -i \"$@\"\n").unwrap();
        fs::set_permissions(&mount, fs::Permissions::from_mode(0o755)).unwrap();
        let path = std::env::var("PATH").unwrap_or_default();
        format!("{}:{path}", bin.display())
    }
}

/// Reads what the suite has printed: a name and what became of it in each line that tells of a test.
fn outcomes(printed: &str) -> Outcomes {
    printed
        .lines()
        .filter(|line| !line.starts_with(char::is_whitespace))
        .filter_map(|line| {
            let (name, outcome) = line.rsplit_once(' ')?;
            let outcome = match outcome {
                "ok" => Outcome::Passed,
                "FAILED" => Outcome::Failed,
                "skipped" => Outcome::Skipped,
                _ => return None,
            };
            Some((name.trim().to_owned(), outcome))
        })
        .collect()
}

/// A line that counts what became of the tests.
fn counted(outcomes: &Outcomes) -> String {
    let count = |wanted| outcomes.values().filter(|one| **one == wanted).count();
    format!(
        "{} passed, {} failed, {} skipped",
        count(Outcome::Passed),
        count(Outcome::Failed),
        count(Outcome::Skipped)
    )
}

/// Tests that start a program and do not wait until it runs: on a busy machine they look too early, and
/// are given more tries, alone.
const IN_A_HURRY: [&str; 1] = ["open::etxtbsy"];

/// Runs the suite in a directory of a mount and on the disk, and compares.
fn compare(what: &str, suite: &Suite, directory: &Path) {
    let beside = suite.workspace.mountpoint("disk");
    fs::set_permissions(&beside, fs::Permissions::from_mode(0o755)).unwrap();
    let disk = suite.run(&beside, "", false);
    let mut mount = suite.run(directory, "", false);
    // On their own, right after mounting as it were: a file system cannot be made read-only while its
    // kernel still remembers files that are gone. The disk must not be made read-only at all.
    mount.extend(suite.run(directory, READ_ONLY, true));
    for name in IN_A_HURRY {
        for _ in 0..20 {
            if mount.get(name) != Some(&Outcome::Failed) {
                break;
            }
            mount.extend(suite.run(directory, name, false));
        }
    }
    assert!(disk.len() > 300, "only {} tests", disk.len());
    say(&format!("pjdfstest on the disk: {}", counted(&disk)));
    say(&format!("pjdfstest {what}: {}", counted(&mount)));
    let mut worse = Vec::new();
    for (name, on_disk) in &disk {
        let on_mount = mount.get(name).copied();
        let fine = match on_mount {
            Some(Outcome::Passed) => true,
            Some(Outcome::Skipped) => {
                *on_disk == Outcome::Skipped || NOT_ASKED.contains(&name.as_str())
            }
            Some(Outcome::Failed) => *on_disk == Outcome::Failed,
            None => false,
        };
        if !fine {
            worse.push(format!(
                "{name}: {on_disk:?} on the disk, {on_mount:?} {what}"
            ));
        }
    }
    assert!(worse.is_empty(), "{}", worse.join("\n"));
}

const AS_A_DISK: [&str; 2] = ["-o", "allow_other,suid,dev"];

#[test]
fn a_mount_elsewhere_passes_what_the_disk_passes() {
    let Some(suite) = Suite::new() else { return };
    let elsewhere = suite.workspace.mountpoint("elsewhere");
    let mounted = suite.workspace.mount_with(&elsewhere, &AS_A_DISK);
    compare("at the top of a mount", &suite, mounted.path());
}

#[test]
fn a_job_in_a_mount_in_place_passes_what_the_disk_passes() {
    let Some(suite) = Suite::new() else { return };
    // Short names: the path of a socket has room for 107 bytes.
    let job = suite.workspace.finished("primary", "m.t", "0");
    suite.workspace.finished("backup", "m.t", "1");
    let in_place = suite.workspace.primary();
    let _mounted = suite.workspace.mount_with(&in_place, &AS_A_DISK);
    compare("in a job", &suite, &job);
}
