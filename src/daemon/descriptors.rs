//! Closes the descriptors that a process was started with: standard streams, and those that a shell has left open.

use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags};

/// The descriptors above standard error of a process that has opened nothing itself yet, as a shell's `exec 9>file` passes them on.
#[must_use]
pub fn inherited() -> Vec<i32> {
    let Ok(open) = std::fs::read_dir("/proc/self/fd") else {
        return Vec::new();
    };
    let names = open.flatten().map(|entry| entry.file_name());
    let numbers: Vec<i32> = names
        .filter_map(|name| name.to_str()?.parse().ok())
        .filter(|number| *number > 2)
        .collect();
    // Without the one that the directory was read by, which is closed by now.
    let is_open =
        |number: &i32| std::fs::symlink_metadata(format!("/proc/self/fd/{number}")).is_ok();
    numbers.into_iter().filter(is_open).collect()
}

/// Closes what [`inherited`] has found.
pub fn close(inherited: &[i32]) {
    for number in inherited {
        let _ = nix::unistd::close(*number);
    }
}

/// Replaces standard output and standard error by `/dev/null`, so that a pipe's reader sees their end.
///
/// # Errors
///
/// `/dev/null` cannot be opened.
pub fn close_output() -> io::Result<()> {
    let null = null()?;
    rustix::stdio::dup2_stdout(&null)?;
    rustix::stdio::dup2_stderr(&null)?;
    Ok(())
}

/// Replaces standard input by `/dev/null`.
///
/// # Errors
///
/// `/dev/null` cannot be opened.
pub fn close_input() -> io::Result<()> {
    Ok(rustix::stdio::dup2_stdin(null()?)?)
}

fn null() -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(
        "/dev/null",
        OFlags::RDWR | OFlags::CLOEXEC,
        Mode::empty(),
    )?)
}
