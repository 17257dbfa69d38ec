//! A mount goes on with the settings as they are now.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use super::common::daemon::kill_worker;
use super::common::{Workspace, eventually, names, run};
use super::killer::{child, processes, reload};
use super::{HOWS, How, TASK, mount, workspace};

fn jobs(mountpoint: &Path) -> BTreeSet<OsString> {
    names(&mountpoint.join("jobs").join(TASK))
        .into_iter()
        .collect()
}

fn kill(workspace: &Workspace, mountpoint: &Path) {
    let (pid, supervisor) = processes(workspace, mountpoint);
    kill_worker(pid);
    child(supervisor, pid);
}

#[test]
fn folders_are_added_removed_and_exchanged_under_open_files() {
    for how in [How::InPlace, How::Elsewhere] {
        let workspace = workspace(how);
        let more = workspace.top().join("more");
        workspace.attach("use", &more);
        workspace.with_folders(&["use", "backup"]);
        super::common::write_job(&more.join("jobs").join(TASK).join("more-1"), TASK);
        let mounted = mount(&workspace, how);
        let all = jobs(mounted.path());
        assert_eq!(all.len(), 120);
        let open = |job: &str| File::open(mounted.job(TASK, job).join("model.bin")).unwrap();
        let mut files: Vec<(&str, File)> = ["primary-1", "use-1", "backup-1"]
            .map(|job| (job, open(job)))
            .into();
        // Without passthrough, too: reading further than what is cached.
        let check = |files: &mut Vec<(&str, File)>| {
            for (job, file) in files {
                let mut data = Vec::new();
                file.seek(SeekFrom::Start(0)).unwrap();
                file.read_to_end(&mut data).unwrap();
                assert_eq!(data, [7; 10_000], "{how:?} {job}");
                rustix::fs::fstat(&*file).unwrap();
            }
        };
        // One more, before the others.
        let settings = fs::read_to_string(workspace.settings()).unwrap();
        let first = format!(
            "    folders:\n      - {{path: {}, mode: use}}\n",
            more.display()
        );
        fs::write(
            workspace.settings(),
            settings.replace("    folders:\n", &first),
        )
        .unwrap();
        reload(&workspace, mounted.path());
        let mut with_more = all.clone();
        with_more.insert("more-1".into());
        assert_eq!(jobs(mounted.path()), with_more);
        assert_eq!(mounted.location(mounted.job(TASK, "backup-1")), "backup");
        check(&mut files);
        files.push(("more-1", open("more-1")));
        kill(&workspace, mounted.path());
        check(&mut files);
        // The other way round.
        workspace.with_folders(&["backup", "use"]);
        workspace.attach("use", &more);
        reload(&workspace, mounted.path());
        assert_eq!(jobs(mounted.path()), with_more);
        for (job, location) in [("use-2", "use"), ("backup-2", "backup"), ("more-1", "use")] {
            assert_eq!(mounted.location(mounted.job(TASK, job)), location);
        }
        check(&mut files);
        // One less, with a file of it open.
        workspace.with_folders(&["backup"]);
        reload(&workspace, mounted.path());
        let without = |prefix: &str| {
            let names = all
                .iter()
                .filter(|name| !name.to_str().unwrap().starts_with(prefix));
            names.cloned().collect::<BTreeSet<_>>()
        };
        assert_eq!(jobs(mounted.path()), without("use"));
        assert!(!mounted.job(TASK, "use-1").exists());
        check(&mut files);
        kill(&workspace, mounted.path());
        check(&mut files);
        assert_eq!(jobs(mounted.path()), without("use"));
        // And back.
        workspace.with_folders(&["use", "backup"]);
        reload(&workspace, mounted.path());
        assert_eq!(jobs(mounted.path()), all);
        check(&mut files);
        drop(files);
        mounted.unmount();
    }
}

#[test]
fn policies_are_those_of_the_settings() {
    let workspace = Workspace::builder()
        .folders(&["backup"])
        .keys("{recover_on: never, settle: 0.1}")
        .build();
    workspace.finished("backup", TASK, "job");
    let mounted = workspace.mount_archiving(&workspace.primary(), &[]);
    let file = mounted.job(TASK, "job").join("model.bin");
    let error = File::options().append(true).open(&file).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EROFS));
    workspace.write_settings(&["backup"], Some("{settle: 0.1}"));
    reload(&workspace, mounted.path());
    File::options().append(true).open(&file).unwrap();
    assert_eq!(mounted.location(mounted.job(TASK, "job")), "primary");
    // A folder that was attached is archived to.
    fs::create_dir_all(workspace.folder("move").join("jobs")).unwrap();
    workspace.finished("primary", TASK, "other");
    workspace.write_settings(&["backup", "move"], Some("{settle: 0.1}"));
    reload(&workspace, mounted.path());
    eventually("the job is moved", || {
        fs::symlink_metadata(
            workspace
                .folder("move")
                .join("jobs")
                .join(TASK)
                .join("other/task.done"),
        )
        .is_ok()
    });
    run(workspace
        .xpmfs()
        .args(["jobs", "verify", "-w", "test"])
        .arg(format!("{TASK}/other")));
    // What a run without archiving was asked for stays.
    mounted.unmount();
    let mounted = mount(&workspace, HOWS[0]);
    reload(&workspace, mounted.path());
    let status = run(workspace
        .xpmfs()
        .args(["--json", "status"])
        .arg(mounted.path()));
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    assert!(status["mounts"][0]["archive"].is_null(), "{status}");
}

#[test]
fn a_shared_mount_is_joined_with_the_settings_that_it_was_reloaded_with() {
    let workspace = workspace(HOWS[0]);
    let holder = format!("pid:{}", std::process::id());
    let share = || {
        let mut command = workspace.xpmfs();
        command.args([
            "mount",
            "-w",
            "test",
            "--no-archive",
            "--shared",
            "--holder",
            &holder,
            "--log",
        ]);
        command.arg(workspace.top().join("xpmfs.log"));
        command
    };
    let mounted = workspace.mounting(&mut share(), &workspace.primary());
    workspace.with_folders(&["backup"]);
    let error = super::common::fails(&mut share());
    assert!(String::from_utf8_lossy(&error.stderr).contains("list of folders"));
    reload(&workspace, mounted.path());
    run(&mut share());
    kill(&workspace, mounted.path());
    run(&mut share());
    let status = run(workspace
        .xpmfs()
        .args(["--json", "status"])
        .arg(mounted.path()));
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    assert_eq!(status["mounts"][0]["holders"][0]["holds"], 3);
}
