//! Finds a process that uses files below some directories, as far as this user may look into processes.
//!
//! The links in `/proc` are read as text and never followed: they may lead to a file system that hangs.

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

/// The first process that has a file or directory at or below one of these paths open, mapped, as its program or as its current or root
/// directory. This process, and processes that `skip` accepts by their names, are left out.
#[must_use]
pub fn user_of(paths: &[PathBuf], skip: impl Fn(&str) -> bool) -> Option<User> {
    let own = rustix::process::getpid().as_raw_pid();
    for entry in fs::read_dir("/proc").ok()?.flatten() {
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
        let Some(path) = used(&process, paths) else {
            continue;
        };
        let name = fs::read(process.join("comm")).unwrap_or_default();
        let name = String::from_utf8_lossy(&name).trim().to_owned();
        if !skip(&name) {
            return Some(User { pid, name, path });
        }
    }
    None
}

/// Whether a process with this id exists.
#[must_use]
pub fn is_alive(pid: i32) -> bool {
    let Some(pid) = rustix::process::Pid::from_raw(pid) else {
        return false;
    };
    rustix::process::test_kill_process(pid) != Err(rustix::io::Errno::SRCH)
}

/// The first file of a process at or below one of the paths.
fn used(process: &Path, paths: &[PathBuf]) -> Option<PathBuf> {
    let below = |path: &Path| paths.iter().any(|top| path.starts_with(top));
    for link in ["cwd", "root", "exe"] {
        if let Ok(path) = fs::read_link(process.join(link))
            && below(&path)
        {
            return Some(path);
        }
    }
    let open = fs::read_dir(process.join("fd")).into_iter().flatten();
    for entry in open.flatten() {
        if let Ok(path) = fs::read_link(entry.path())
            && below(&path)
        {
            return Some(path);
        }
    }
    // start-end perms offset dev inode path
    let maps = fs::read(process.join("maps")).unwrap_or_default();
    maps.split(|byte| *byte == b'\n').find_map(|line| {
        let path = line
            .splitn(6, |byte| *byte == b' ')
            .nth(5)?
            .trim_ascii_start();
        let path = Path::new(OsStr::from_bytes(path));
        (path.is_absolute() && below(path)).then(|| path.to_owned())
    })
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
        assert_eq!(user_of(paths, |_| false), None);
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
            let is_there = || user_of(paths, |_| false).is_some_and(|user| user.name == "sleep");
            let long = std::time::Duration::from_secs(10);
            let seen = match found {
                true => wait_until(long, is_there),
                false => is_there(),
            };
            let skipped = user_of(paths, |name| name == "sleep");
            let alive = is_alive(process.id().cast_signed());
            process.kill().unwrap();
            process.wait().unwrap();
            assert_eq!((seen, skipped, alive), (found, None, true));
            assert!(!is_alive(process.id().cast_signed()));
        }
    }
}
