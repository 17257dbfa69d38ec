//! The holder that a command stands for if none is given: the job of Slurm, or the program that called the command.
//!
//! The program must live as long as the work that needs the mount. The direct parent of a command in a script is often a process that
//! ends at once: a subshell, or `timeout`. These are passed over.

use std::fs;
use std::path::{Component, Path, PathBuf};

use super::holder::{Given, Holder, HolderError};
use crate::daemon::mounts::{self, MountInfo};
use crate::sys::process_stat::ProcessStat;

/// Programs that run one command, wait for it, and end.
const WRAPPERS: [&str; 12] = [
    "timeout", "time", "sudo", "su", "doas", "runuser", "strace", "flock", "script", "unbuffer",
    "setsid", "stdbuf",
];

/// The most processes that are passed over.
const DEPTH_MAX: usize = 64;

/// The holder that this process stands for.
///
/// # Errors
///
/// The calling process is not visible.
pub fn caller() -> Result<Holder, HolderError> {
    if let Some(cgroup) = slurm_job() {
        return cgroup.identify();
    }
    let own = rustix::process::getpid().as_raw_pid();
    Given::Process(program_above(own)?).identify()
}

/// The process that called a process: not a copy of that process or of itself (a subshell), and not a wrapper.
fn program_above(pid: i32) -> Result<i32, HolderError> {
    // A command may be two processes.
    let mut program = parent_of_copies(pid)?;
    for _ in 0..DEPTH_MAX {
        let original = original_of(program);
        match is_wrapper(original) {
            true => program = parent_of_copies(original)?,
            false => return Ok(original),
        }
    }
    Ok(program)
}

fn parent_of_copies(pid: i32) -> Result<i32, HolderError> {
    parent(original_of(pid)).ok_or(HolderError::NoCaller)
}

/// The process that a process is a copy of by forks alone, as a subshell is one of its shell.
fn original_of(pid: i32) -> i32 {
    let mut original = pid;
    for _ in 0..DEPTH_MAX {
        match parent(original) {
            Some(above) if is_copy(original, above) => original = above,
            _ => break,
        }
    }
    original
}

/// Whether two processes run the same program with the same arguments.
fn is_copy(pid: i32, other: i32) -> bool {
    let program = |pid| {
        let program = fs::read_link(format!("/proc/{pid}/exe")).ok()?;
        Some((program, fs::read(format!("/proc/{pid}/cmdline")).ok()?))
    };
    program(pid).is_some_and(|own| Some(own) == program(other))
}

fn parent(pid: i32) -> Option<i32> {
    let stat = ProcessStat::of(pid).ok()??;
    (stat.parent > 0).then_some(stat.parent)
}

fn is_wrapper(pid: i32) -> bool {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    WRAPPERS.contains(&name.trim_end())
}

/// The cgroup of the Slurm job that this process belongs to.
fn slurm_job() -> Option<Given> {
    let job = format!("job_{}", std::env::var("SLURM_JOB_ID").ok()?);
    let cgroups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let directory = directory_of(&cgroups, &job, &mounts::all().ok()?)?;
    Some(Given::Cgroup(directory))
}

/// The directory of a cgroup called `name` in the lines of `/proc/PID/cgroup`; the last one has no controllers in its middle field for
/// version 2, which is preferred.
fn directory_of(cgroups: &str, name: &str, mounts: &[MountInfo]) -> Option<PathBuf> {
    let mut found: Vec<(&str, PathBuf)> = cgroups
        .lines()
        .filter_map(|line| {
            let mut fields = line.splitn(3, ':').skip(1);
            let (controllers, path) = (fields.next()?, Path::new(fields.next()?));
            let mut above = path.ancestors();
            let cgroup = above.find(|path| path.file_name().is_some_and(|last| last == name))?;
            Some((controllers, cgroup.to_owned()))
        })
        .collect();
    found.sort_by_key(|(controllers, _)| !controllers.is_empty());
    found.into_iter().find_map(|(controllers, cgroup)| {
        let mount = mounts.iter().find(|mount| match controllers {
            "" => mount.fs_type == "cgroup2",
            _ => {
                let first = controllers.split(',').next().unwrap_or_default();
                mount.fs_type == "cgroup" && mount.super_options.split(',').any(|own| own == first)
            }
        })?;
        let below = cgroup.strip_prefix(&mount.root).ok()?;
        let plain = below
            .components()
            .all(|part| matches!(part, Component::Normal(_)));
        plain.then(|| mount.mountpoint.join(below))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::mounts::Device;

    fn mount(fs_type: &str, root: &str, mountpoint: &str, options: &str) -> MountInfo {
        MountInfo {
            id: 1,
            parent: 0,
            device: Device { major: 0, minor: 1 },
            root: root.into(),
            mountpoint: mountpoint.into(),
            options: "rw".into(),
            fs_type: fs_type.into(),
            source: "cgroup".into(),
            super_options: options.into(),
        }
    }

    #[test]
    fn the_cgroup_of_a_slurm_job_is_found_in_both_versions() {
        let mounts = [
            mount("cgroup", "/", "/sys/fs/cgroup/freezer", "rw,freezer"),
            mount("cgroup2", "/", "/sys/fs/cgroup/unified", "rw"),
        ];
        let second = "0::/system.slice/slurmstepd.scope/job_12/step_batch/user/task_0\n";
        let found = directory_of(second, "job_12", &mounts).unwrap();
        let expected = "/sys/fs/cgroup/unified/system.slice/slurmstepd.scope/job_12";
        assert_eq!(found, Path::new(expected));
        let first = "6:freezer:/slurm/uid_7/job_12/step_batch\n0::/\n";
        let found = directory_of(first, "job_12", &mounts).unwrap();
        let expected = "/sys/fs/cgroup/freezer/slurm/uid_7/job_12";
        assert_eq!(found, Path::new(expected));
        assert_eq!(directory_of(first, "job_1", &mounts), None);
    }
}
