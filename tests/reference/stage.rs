//! The two places: a mount of a workspace with jobs in every kind of location, and a plain directory with
//! the same in it, on the same disk.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::XattrFlags;

use crate::common::{Mounted, ORDINARY, Workspace, run, snapshot};
use crate::tree;

const TASK: &str = "t.n";

/// Where the archived jobs are.
const ARCHIVED: [(&str, &str); 3] = [("use", "u"), ("backup", "b"), ("move", "m")];

/// Who mounts, and does things to begin with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Who {
    /// Root, for all, with everything that a disk allows.
    Root,
    /// An ordinary user, for nobody else.
    Ordinary,
}

/// A workspace, and beside it the plain directory.
pub(crate) struct Stage {
    workspace: Workspace,
    who: Who,
    before: Vec<Vec<String>>,
}

/// Mounts taken away when this is dropped.
struct Plain<'a>(&'a Stage);

impl Stage {
    pub(crate) fn new(who: Who) -> Stage {
        let workspace = match who {
            Who::Root => Workspace::new().never_recovers(),
            Who::Ordinary => Workspace::of_ordinary_user().never_recovers(),
        };
        for path in [workspace.top(), workspace.primary()] {
            fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        let stage = Stage {
            workspace,
            who,
            before: Vec::new(),
        };
        stage.furnish();
        let before = ARCHIVED.map(|(folder, _)| snapshot(&stage.workspace.folder(folder)));
        Stage {
            before: before.into(),
            ..stage
        }
    }

    /// Makes the jobs, and the plain directory like the primary with them.
    fn furnish(&self) {
        let workspace = &self.workspace;
        for (location, hash) in ARCHIVED.into_iter().chain([("primary", "p")]) {
            let job = workspace.finished(location, TASK, hash);
            decorate(&job);
            // A mount for all shows these as writable, since internal files can be made there.
            let status = job.join(".experimaestro/status.json");
            for (path, mode) in [(&job, 0o777), (&status, 0o666)] {
                fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
            }
        }
        for directory in ["m/mount", "p/plain"] {
            fs::create_dir_all(workspace.top().join(directory)).unwrap();
        }
        let jobs = self.plain().join("jobs").join(TASK);
        let copy = |from: &Path, to: &Path| {
            run(Command::new("cp").arg("-a").arg("-T").arg(from).arg(to));
        };
        copy(&workspace.primary(), &self.plain());
        fs::remove_file(jobs.join("m")).unwrap();
        for (folder, hash) in ARCHIVED {
            let archived = workspace.folder(folder).join("jobs").join(TASK).join(hash);
            copy(&archived, &jobs.join(hash));
        }
        if self.who == Who::Ordinary {
            let owner = format!("{ORDINARY}:{ORDINARY}");
            run(Command::new("chown")
                .arg("-Rh")
                .arg(owner)
                .arg(workspace.top()));
        }
    }

    fn plain(&self) -> PathBuf {
        self.workspace.top().join("p/plain")
    }

    /// Mounts, and calls with the mount and the plain directory.
    pub(crate) fn with<T>(&self, call: impl FnOnce(&Path, &Path) -> T) -> T {
        let plain = Plain(self);
        plain.protect();
        let arguments: &[&str] = match self.who {
            Who::Root => &["-o", "allow_other,suid,dev"],
            Who::Ordinary => &[],
        };
        let mountpoint = self.workspace.top().join("m/mount");
        let mounted: Mounted<'_> = self.workspace.mount_with(&mountpoint, arguments);
        call(mounted.path(), &self.plain())
    }

    /// Says what of the primary differs from the plain directory, and what of a folder has changed.
    pub(crate) fn differences_beneath(&self) -> Option<String> {
        let apart = |path: &Path| {
            path.starts_with(".xpmfs")
                || ARCHIVED
                    .iter()
                    .any(|(_, hash)| path.starts_with(format!("jobs/{TASK}/{hash}")))
        };
        let primary = tree::walk(&self.workspace.primary(), &apart);
        let plain = tree::walk(&self.plain(), &apart);
        if let Some(difference) = difference(&primary, &plain) {
            return Some(format!("in the primary {difference}"));
        }
        ARCHIVED
            .iter()
            .zip(&self.before)
            .find_map(|((folder, _), before)| {
                let after = snapshot(&self.workspace.folder(folder));
                let difference = difference(&after, before)?;
                Some(format!(
                    "in the folder `{folder}`, now and before: {difference}"
                ))
            })
    }

    /// What the daemon has logged.
    pub(crate) fn log(&self) -> String {
        self.workspace.log()
    }
}

/// The first line that two trees do not have in common.
pub(crate) fn difference(first: &[String], second: &[String]) -> Option<String> {
    if first == second {
        return None;
    }
    let only = |these: &[String], those: &[String]| {
        let found = these.iter().find(|line| !those.contains(line));
        found.cloned().unwrap_or_default()
    };
    Some(format!(
        "{}\nbut in the plain directory {}",
        only(first, second),
        only(second, first)
    ))
}

/// Puts something of every kind into a job.
fn decorate(job: &Path) {
    fs::write(job.join("a"), [5; 5000]).unwrap();
    fs::hard_link(job.join("a"), job.join("e")).unwrap();
    fs::create_dir_all(job.join("b/c")).unwrap();
    fs::write(job.join("b/d"), "in a directory").unwrap();
    symlink("a", job.join("c")).unwrap();
    rustix::fs::setxattr(job.join("a"), "user.a", b"value", XattrFlags::empty()).unwrap();
    fs::set_permissions(job.join("b"), fs::Permissions::from_mode(0o775)).unwrap();
}

impl Plain<'_> {
    /// Makes what stands for archived jobs read-only.
    fn protect(&self) {
        for (_, hash) in ARCHIVED {
            let job = self.job(hash);
            run(Command::new("mount").arg("--bind").arg(&job).arg(&job));
            run(Command::new("mount")
                .args(["-o", "remount,bind,ro"])
                .arg(&job));
        }
    }

    fn job(&self, hash: &str) -> PathBuf {
        self.0.plain().join("jobs").join(TASK).join(hash)
    }
}

impl Drop for Plain<'_> {
    fn drop(&mut self) {
        for (_, hash) in ARCHIVED {
            let _ = Command::new("umount")
                .arg("-l")
                .arg(self.job(hash))
                .output();
        }
    }
}
