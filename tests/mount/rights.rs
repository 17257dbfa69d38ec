//! Who may read and write through a mount.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::Command;

use rustix::fs::{AtFlags, CWD};

use crate::common::{Workspace, fails, run, snapshot};
use crate::{TASK, one_job_each};

#[test]
fn a_read_only_mount_changes_nothing() {
    let workspace = Workspace::new();
    one_job_each(&workspace);
    let before = snapshot(&workspace.primary());
    let elsewhere = workspace.mountpoint("elsewhere");
    let mounted = workspace.mount_with(&elsewhere, &["--read-only"]);
    fails(Command::new("touch").arg(elsewhere.join("file")));
    fails(Command::new("rm").arg(mounted.job(TASK, "in-primary").join("train.out")));
    let lock = File::options()
        .write(true)
        .create(true)
        .truncate(false)
        .open(mounted.job(TASK, "in-use").join("train.lock"));
    assert_eq!(lock.unwrap_err().raw_os_error(), Some(libc::EROFS));
    assert_eq!(
        fs::read_dir(mounted.path().join("jobs").join(TASK))
            .unwrap()
            .count(),
        4
    );
    assert_eq!(snapshot(&workspace.primary()), before);
}

#[test]
fn rights_are_those_of_the_disk() {
    if !crate::common::is_root() {
        return;
    }
    let workspace = Workspace::new();
    one_job_each(&workspace);
    for path in [workspace.top(), workspace.primary()] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let elsewhere = workspace.mountpoint("elsewhere");
    let mounted = workspace.mount_with(&elsewhere, &["-o", "allow_other"]);
    let somebody = |script: &str| {
        let mut command = Command::new("setpriv");
        command.args([
            "--reuid=65534",
            "--regid=65534",
            "--clear-groups",
            "sh",
            "-c",
        ]);
        command.arg(script).current_dir("/").env("M", &elsewhere);
        command
    };
    run(&mut somebody("cat $M/jobs/*/*/train.out && ls -l $M/jobs"));
    fails(&mut somebody(": > $M/file"));
    fails(&mut somebody("rm -r $M/jobs/*/in-primary"));
    fs::create_dir(elsewhere.join("open")).unwrap();
    fs::set_permissions(elsewhere.join("open"), fs::Permissions::from_mode(0o777)).unwrap();
    run(&mut somebody(
        "echo x > $M/open/file && mkdir $M/open/dir && ln -s x $M/open/link",
    ));
    for name in ["file", "dir", "link"] {
        let beneath = workspace.primary().join("open").join(name);
        let meta = fs::symlink_metadata(beneath).unwrap();
        assert_eq!((meta.uid(), meta.gid()), (65534, 65534), "{name}");
    }
    fs::set_permissions(
        mounted.job(TASK, "in-primary"),
        fs::Permissions::from_mode(0o700),
    )
    .unwrap();
    fails(&mut somebody("ls $M/jobs/*/in-primary"));
    let flags = AtFlags::EACCESS;
    rustix::fs::accessat(CWD, &elsewhere, rustix::fs::Access::WRITE_OK, flags).unwrap();
}

#[test]
fn with_allow_other_who_may_write_in_the_workspace_may_lock_archived_jobs() {
    if !crate::common::is_root() {
        return;
    }
    let workspace = Workspace::new();
    let archived = workspace.finished("use", TASK, "abc");
    fs::write(archived.join("train.lock"), "").unwrap();
    fs::write(archived.join(".lock"), "").unwrap();
    // A workspace of group 1234, which a member has among the supplementary groups.
    let primary = workspace.primary();
    std::os::unix::fs::chown(&primary, None, Some(1234)).unwrap();
    fs::set_permissions(&primary, fs::Permissions::from_mode(0o775)).unwrap();
    fs::set_permissions(workspace.top(), fs::Permissions::from_mode(0o755)).unwrap();
    let before = snapshot(&workspace.folder("use"));
    let elsewhere = workspace.mountpoint("elsewhere");
    let mounted = workspace.mount_with(&elsewhere, &["-o", "allow_other"]);
    let job = mounted.job(TASK, "abc");
    let somebody = |groups: &str, script: &str| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=4321", "--regid=4321", groups, "sh", "-ec", script]);
        command.current_dir("/").env("J", &job);
        command
    };
    let (stranger, member) = ("--clear-groups", "--groups=1234");
    for script in [
        ": >> $J/train.lock",
        ": > $J/new.pid",
        "mkdir $J/.scheduler",
        "chmod 600 $J/.lock",
        "touch $J/train.done",
    ] {
        fails(&mut somebody(stranger, script));
    }
    assert!(!primary.join(".xpmfs/internal").exists());
    run(&mut somebody(
        member,
        "flock -n $J/train.lock true; echo 1 > $J/new.pid; mkdir $J/.scheduler; cat $J/train.out",
    ));
    fails(&mut somebody(stranger, "rm -f $J/new.pid"));
    fails(&mut somebody(member, "touch $J/train.done"));
    run(&mut somebody(member, "rm $J/new.pid; ls $J"));
    assert_eq!(snapshot(&workspace.folder("use")), before);
}
