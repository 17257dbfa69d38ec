//! Mounts in processes with few descriptors, little memory, or small files.

use std::fs::{self, File};
use std::io::Read;
use std::process::Command;

use crate::fixture::{Workspace, fails, is_mounted, run};

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
        ("--nofile=64", "at most 64 files may be open"),
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
