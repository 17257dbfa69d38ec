//! Archived jobs, and what must hold of them after they were changed through a mount.

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common::{Folders, Mounted, Workspace, names, run};

pub(crate) const TASK: &str = "my.module.train";

/// A directory as it is beneath a mount that is made on it later.
pub(crate) struct Beneath(File);

impl Beneath {
    pub(crate) fn of(path: &Path) -> Beneath {
        Beneath(File::open(path).unwrap())
    }

    pub(crate) fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.0.as_raw_fd()))
    }
}

/// A small disk that is mounted on a directory until this is dropped. Only for root.
pub(crate) struct Tmpfs(PathBuf);

impl Tmpfs {
    pub(crate) fn on(path: &Path, options: &str) -> Tmpfs {
        let mut command = Command::new("mount");
        command.args(["-t", "tmpfs", "-o", options, "xpmfs-test"]);
        run(command.arg(path));
        Tmpfs(path.to_owned())
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        // A test that has failed may still use it.
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

/// A finished job in a folder, with something of everything in it.
pub(crate) fn archived(workspace: &Workspace, folder: &str, hash: &str) -> PathBuf {
    let job = workspace.finished(folder, TASK, hash);
    fs::create_dir_all(job.join("data/deep")).unwrap();
    fs::write(job.join("data/deep/file"), "deep").unwrap();
    fs::write(job.join("uv.lock"), "version = 1\n").unwrap();
    std::os::unix::fs::symlink("model.bin", job.join("latest")).unwrap();
    fs::hard_link(job.join("model.bin"), job.join("linked")).unwrap();
    let long_ago = rustix::fs::Timespec {
        tv_sec: 1_700_000_000,
        tv_nsec: 123_456_789,
    };
    let times = rustix::fs::Timestamps {
        last_access: long_ago,
        last_modification: long_ago,
    };
    for file in names(&job) {
        rustix::fs::utimensat(
            rustix::fs::CWD,
            job.join(file),
            &times,
            rustix::fs::AtFlags::SYMLINK_NOFOLLOW,
        )
        .unwrap();
    }
    workspace.give_away();
    job
}

/// Paths in a job and what they hold, without the entries of the names in `but`.
pub(crate) fn contents(job: &Path, but: &[&str]) -> Vec<String> {
    let mut lines = Vec::new();
    let mut pending = vec![job.to_owned()];
    while let Some(directory) = pending.pop() {
        for name in names(&directory) {
            let path = directory.join(&name);
            if but.iter().any(|but| name == *but) {
                continue;
            }
            let stat = fs::symlink_metadata(&path).unwrap();
            let shown = path.strip_prefix(job).unwrap().display().to_string();
            lines.push(if stat.is_dir() {
                pending.push(path);
                shown
            } else if stat.is_symlink() {
                format!("{shown} -> {}", fs::read_link(&path).unwrap().display())
            } else if stat.is_file() {
                let bytes = fs::read(&path).unwrap();
                let text = String::from_utf8_lossy(&bytes[..bytes.len().min(60)]).into_owned();
                format!("{shown} {} {} {text:?}", bytes.len(), blake3::hash(&bytes))
            } else {
                format!("{shown}, {:?}", stat.file_type())
            });
        }
    }
    lines.sort();
    lines
}

/// Asserts that nothing is left of recoveries but the jobs.
pub(crate) fn assert_clean(primary: &Path) {
    let jobs = primary.join("jobs");
    for task in names(&jobs) {
        for name in names(&jobs.join(task)) {
            let name = name.to_string_lossy().into_owned();
            assert!(!name.starts_with(".tmp."), "{name} is left");
        }
    }
    let internal = primary.join(".xpmfs/internal");
    if internal.exists() {
        for task in names(&internal) {
            let left = names(&internal.join(task));
            assert!(left.is_empty(), "internal files are left: {left:?}");
        }
    }
}

/// Runs a test in a workspace of root's and in one of an ordinary user's, in place and elsewhere, so with and without
/// passthrough.
pub(crate) fn everywhere(
    prepare: impl Fn(&Workspace),
    test: impl Fn(&Workspace, &Mounted<'_>, &Beneath) + Sync,
) {
    let mut workspaces = vec![Workspace::of_ordinary_user()];
    if rustix::process::geteuid().is_root() {
        workspaces.push(Workspace::new());
    }
    for workspace in workspaces {
        for place in ["in place", "elsewhere"] {
            let primary = workspace.primary();
            for location in ["primary", "use", "backup", "move"] {
                let _ = fs::remove_dir_all(workspace.top().join(location).join("jobs"));
                let _ = fs::create_dir(workspace.top().join(location).join("jobs"));
            }
            prepare(&workspace);
            workspace.give_away();
            let folders = Folders::of(&workspace);
            let beneath = Beneath::of(&primary);
            let mounted = match place {
                "in place" => workspace.mount_in_place(),
                _ => {
                    let at = workspace.mountpoint("elsewhere");
                    workspace.mount_at(&at)
                }
            };
            workspace.as_user(|| test(&workspace, &mounted, &beneath));
            folders.assert_unchanged();
            assert_clean(&beneath.path());
            mounted.unmount();
        }
    }
}
