//! Mounts in processes with few descriptors, little memory, or small files.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;
use std::process::Command;

use xpmfs::daemon::limits;

use crate::common::{Workspace, fails, is_mounted, run};

/// A command under limits of prlimit(1).
fn limited(limits: &[&str], command: &Command) -> Command {
    let mut limited = Command::new("prlimit");
    limited.args(limits).arg("--").arg(command.get_program());
    limited.args(command.get_args());
    for (key, value) in command.get_envs() {
        limited.env(key, value.unwrap());
    }
    limited.current_dir(command.get_current_dir().unwrap());
    limited
}

fn mount(workspace: &Workspace) -> Command {
    let mut command = workspace.xpmfs();
    command.args(["mount", "-w", "test", "--log"]);
    command.arg(workspace.top().join("xpmfs.log"));
    command
}

#[test]
fn a_mount_is_refused_below_what_it_needs() {
    let workspace = Workspace::of_ordinary_user();
    for (limit, expected) in [
        (
            "--nofile=64",
            "at most 64 files may be open (`ulimit -Hn`), and this mount needs 280",
        ),
        ("--nofile=24", "this mount needs 280"),
        ("--nofile=279", "this mount needs 280"),
        (
            "--as=300000000",
            "the address space is limited to 286 MiB (`ulimit -v`)",
        ),
        (
            "--data=100000000",
            "the memory for data is limited to 95 MiB (`ulimit -d`)",
        ),
    ] {
        for place in [&["-f"][..], &[]] {
            let mut command = mount(&workspace);
            command.args(place);
            let failed = fails(&mut limited(&[limit], &command));
            let said = String::from_utf8_lossy(&failed.stderr);
            assert_eq!(failed.status.code(), Some(1), "{limit}: {said}");
            assert!(said.contains(expected), "{limit}: {said}");
            assert!(!is_mounted(&workspace.primary()), "{limit}");
        }
    }
}

/// As a user who runs nothing else: the limit counts all processes of a user, and does not bind root.
#[test]
fn with_few_processes_a_mount_works_or_is_refused_and_leaves_nothing_behind() {
    if !crate::common::is_root() {
        return;
    }
    let workspace = Workspace::new();
    workspace.with_folders(&["backup"]);
    workspace.finished("primary", "my.task", "job");
    // `games`: the helper that mounts wants a user with a name.
    let (user, group) = ("5", "60");
    let owner = format!("{user}:{group}");
    run(Command::new("chown")
        .args(["-Rh", &owner])
        .arg(workspace.top()));
    let program = workspace.top().join("xpmfs");
    run(Command::new("cp")
        .arg(env!("CARGO_BIN_EXE_xpmfs"))
        .arg(&program));
    run(Command::new("chmod")
        .args(["-R", "a+rX"])
        .arg(workspace.top()));
    let as_user = |program: &Path| {
        let mut command = Command::new("setpriv");
        command
            .args(["--reuid", user, "--regid", group, "--clear-groups", "--"])
            .arg(program)
            .current_dir(workspace.top())
            .env("HOME", workspace.top())
            .env("XDG_RUNTIME_DIR", workspace.top());
        command
    };
    let mut worked = false;
    for limit in [
        1, 2, 5, 8, 11, 14, 18, 22, 26, 28, 30, 32, 34, 38, 42, 44, 64,
    ] {
        let mut mount = as_user(&program);
        mount.arg("--settings").arg(workspace.settings());
        mount.args(["mount", "-w", "test", "--log", "xpmfs.log"]);
        let output = limited(&[&format!("--nproc={limit}")], &mount)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        let job = workspace.primary().join("jobs/my.task/job");
        let shown = as_user(Path::new("ls")).arg(&job).output().unwrap();
        assert!(shown.status.success(), "{limit}: {said} {shown:?}");
        let mounted = is_mounted(&workspace.primary());
        assert_eq!(mounted, output.status.success(), "{limit}: {said}");
        if mounted {
            worked = true;
            let mut umount = as_user(&program);
            run(umount.arg("umount").arg(workspace.primary()));
        } else {
            assert!(said.contains("threads can be started"), "{limit}: {said}");
        }
    }
    assert!(worked);
}

#[test]
fn a_mount_with_many_folders_starts_no_more_threads_than_it_says_it_needs() {
    const FOLDERS: usize = 12;
    let workspace = Workspace::of_ordinary_user();
    workspace.with_folders(&[]);
    for number in 0..FOLDERS {
        let folder = workspace.top().join(format!("backup-{number}"));
        workspace.as_user(|| fs::create_dir_all(folder.join("jobs")).unwrap());
        workspace.attach("backup", &folder);
    }
    let mounted = workspace.mounting(&mut mount(&workspace), &workspace.primary());
    let printed = run(workspace
        .xpmfs()
        .args(["--json", "status"])
        .arg(mounted.path()));
    let status: serde_json::Value = serde_json::from_str(&printed).unwrap();
    let process = &status["mounts"][0]["pid"];
    let tasks = fs::read_dir(format!("/proc/{process}/task")).unwrap();
    let (started, needed) = (tasks.count(), limits::threads(FOLDERS));
    assert!(started > FOLDERS, "{status}");
    assert!(
        started <= needed,
        "{started} threads; {needed} are reported"
    );
}

#[test]
fn a_mount_with_no_more_than_it_needs_works() {
    let workspace = Workspace::of_ordinary_user();
    for job in 0..20 {
        workspace.finished("primary", "my.task", &format!("job-{job}"));
    }
    let limits = ["--nofile=280", "--as=2147483648", "--data=536870912"];
    let mounted = workspace.mounting(
        &mut limited(&limits, &mount(&workspace)),
        &workspace.primary(),
    );
    let open: Vec<File> = workspace.as_user(|| {
        let paths = (0..20).map(|job| {
            mounted
                .job("my.task", &format!("job-{job}"))
                .join("model.bin")
        });
        paths.map(|path| File::open(path).unwrap()).collect()
    });
    for mut file in open {
        let mut contents = Vec::new();
        file.read_to_end(&mut contents).unwrap();
        assert_eq!(contents, [7; 10_000]);
    }
    let mut drain = workspace.xpmfs();
    drain.args(["umount", "--drain"]).arg(mounted.path());
    run(&mut drain);
    assert_eq!(
        fs::read_dir(workspace.folder("move").join("jobs/my.task"))
            .unwrap()
            .count(),
        20
    );
}

#[test]
fn a_limit_of_file_sizes_fails_a_write_and_not_the_mount() {
    let workspace = Workspace::of_ordinary_user();
    let limits = ["--fsize=1000000"];
    let mounted = workspace.mounting(
        &mut limited(&limits, &mount(&workspace)),
        &workspace.primary(),
    );
    let path = mounted.path().join("big");
    let written = workspace.as_user(|| fs::write(&path, vec![1; 2_000_000]));
    assert_eq!(written.unwrap_err().raw_os_error(), Some(libc::EFBIG));
    workspace.as_user(|| fs::write(mounted.path().join("small"), "small").unwrap());
    mounted.unmount();
}
