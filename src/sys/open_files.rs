//! Finds the processes that use files below some directories, as far as this user may look into processes.
//!
//! The links in `/proc` are read as text and never followed: they may lead to a file system that hangs. Reading what a process has
//! mapped may still hang, as long as the process itself does, so a caller needs a deadline.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// A process that uses a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Its process id.
    pub pid: i32,
    /// Its name.
    pub name: String,
    /// The file, by a path in the process's own mount namespace.
    pub path: PathBuf,
}

/// Calls `found` for each file or directory at or below one of these paths that a process has open, mapped, as its program or as its
/// current or root directory; several times for one that is used in several ways. This process, and processes that `skip` accepts by their
/// names, are left out. Takes time proportional to the number of processes and of their files.
pub fn each_user(paths: &[PathBuf], skip: impl Fn(&str) -> bool, mut found: impl FnMut(User)) {
    let own = rustix::process::getpid().as_raw_pid();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
        else {
            continue;
        };
        if pid == own {
            continue;
        }
        let process = entry.path();
        let mut called: Option<String> = None;
        each_used(&process, paths, |path| {
            let name = called.get_or_insert_with(|| {
                let name = fs::read(process.join("comm")).unwrap_or_default();
                String::from_utf8_lossy(&name).trim().to_owned()
            });
            if !skip(name) {
                let name = name.clone();
                found(User { pid, name, path });
            }
        });
    }
}

/// Whether a process with this id exists.
#[must_use]
pub fn is_alive(pid: i32) -> bool {
    let Some(pid) = rustix::process::Pid::from_raw(pid) else {
        return false;
    };
    rustix::process::test_kill_process(pid) != Err(rustix::io::Errno::SRCH)
}

/// The files of a process at or below one of the paths.
fn each_used(process: &Path, paths: &[PathBuf], mut found: impl FnMut(PathBuf)) {
    let below = |path: &Path| paths.iter().any(|top| path.starts_with(top));
    let mut look_at = |link: &Path| {
        if let Ok(path) = fs::read_link(link)
            && below(&path)
        {
            found(path);
        }
    };
    for link in ["cwd", "root", "exe"] {
        look_at(&process.join(link));
    }
    let open = fs::read_dir(process.join("fd")).into_iter().flatten();
    for entry in open.flatten() {
        look_at(&entry.path());
    }
    // start-end perms offset dev inode path
    let maps = fs::read(process.join("maps")).unwrap_or_default();
    for line in maps.split(|byte| *byte == b'\n') {
        let Some(path) = line.splitn(6, |byte| *byte == b' ').nth(5) else {
            continue;
        };
        let path = Path::new(OsStr::from_bytes(path.trim_ascii_start()));
        if path.is_absolute() && below(path) {
            found(path.to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;
    use crate::sys::deadline::wait_until;

    #[test]
    fn a_process_with_an_open_file_or_a_current_directory_is_found() {
        let top = tempfile::tempdir().unwrap();
        let top = top.path().canonicalize().unwrap();
        let (used, other) = (top.join("used"), top.join("used2"));
        for directory in [&used, &other] {
            fs::create_dir(directory).unwrap();
            fs::write(directory.join("file"), "").unwrap();
        }
        let paths = std::slice::from_ref(&used);
        let users = |skip: &dyn Fn(&str) -> bool| {
            let mut users = Vec::new();
            each_user(paths, skip, |user| users.push(user));
            users
        };
        assert_eq!(users(&|_| false), []);
        for (directory, input, found) in [
            (&used, Stdio::null(), true),
            (
                &top,
                fs::File::open(used.join("file")).unwrap().into(),
                true,
            ),
            (&other, Stdio::null(), false),
        ] {
            let mut command = Command::new("sleep");
            command.arg("60").current_dir(directory).stdin(input);
            let mut process = command.spawn().unwrap();
            let is_there = || users(&|_| false).iter().any(|user| user.name == "sleep");
            let long = std::time::Duration::from_secs(10);
            let seen = match found {
                true => wait_until(long, is_there),
                false => is_there(),
            };
            let skipped = users(&|name| name == "sleep");
            let alive = is_alive(process.id().cast_signed());
            process.kill().unwrap();
            process.wait().unwrap();
            assert_eq!((seen, skipped, alive), (found, Vec::new(), true));
            assert!(!is_alive(process.id().cast_signed()));
        }
    }
}
