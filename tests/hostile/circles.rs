//! Symlinks that lead out, and back into mounts.

use super::*;

/// Symlinks in place of jobs that lead back into the mount by a symlink outside.
fn circles(workspace: &Workspace, mountpoints: &[PathBuf], count: usize) -> Vec<OsString> {
    let task = workspace.primary().join("jobs").join(TASK);
    let outside = workspace.top().join("circles");
    fs::create_dir_all(&task).unwrap();
    fs::create_dir_all(&outside).unwrap();
    let mut made = Vec::new();
    for number in 0..count {
        let name = OsString::from(format!("circle-{number}"));
        let back = &mountpoints[number % mountpoints.len()];
        symlink(outside.join(&name), task.join(&name)).unwrap();
        symlink(job(back, name.to_str().unwrap()), outside.join(&name)).unwrap();
        made.push(name);
    }
    for (name, target) in [
        ("to-the-top", mountpoints[0].clone()),
        ("to-jobs", mountpoints[0].join("jobs")),
        ("to-itself", job(&mountpoints[0], "to-itself")),
        ("to-a-job-in-it", job(&mountpoints[0], "real")),
        ("around", "../../jobs/my.module.train/around".into()),
        ("to-a-descriptor", "/proc/self/fd/3".into()),
        ("to-a-directory-of-the-asker", "/proc/self/cwd".into()),
    ] {
        symlink(target, task.join(name)).unwrap();
        made.push(name.into());
    }
    made
}

#[test]
fn symlinks_that_lead_back_into_mounts_hang_nobody() {
    for ordinary in [false, true] {
        let workspace = match ordinary {
            true => Workspace::of_ordinary_user(),
            false => Workspace::new(),
        };
        workspace.finished("primary", TASK, "real");
        let mountpoints = [workspace.primary(), workspace.mountpoint("elsewhere")];
        let made = circles(&workspace, &mountpoints, 40);
        workspace.give_away();
        let mounts: Vec<_> = [&mountpoints[1], &mountpoints[0]]
            .map(|mountpoint| workspace.mount_at(mountpoint))
            .into_iter()
            .collect();
        for mounted in &mounts {
            let task = mounted.path().join("jobs").join(TASK);
            // All at once: more than the daemon has threads.
            std::thread::scope(|scope| {
                for name in &made {
                    let path = task.join(name);
                    let workspace = &workspace;
                    scope.spawn(move || {
                        let (_, shown) = promptly(workspace, "stat -c %F \"$1\"", &path);
                        assert_eq!(shown, "symbolic link\n", "{}", path.display());
                        promptly(workspace, "cat \"$1/file\"", &path);
                    });
                }
            });
            let (_, looped) = promptly(&workspace, "stat -L \"$1\"", &task.join("circle-0"));
            assert!(looped.contains("Too many levels"), "{looped}");
            let (well, listed) = promptly(&workspace, "ls -l \"$1\"", &task);
            assert!(well, "{listed}");
            assert_eq!(listed.lines().count(), made.len() + 2, "{listed}");
            let (_, real) = promptly(
                &workspace,
                "cat \"$1/train.out\"",
                &task.join("to-a-job-in-it"),
            );
            assert_eq!(real, "step 1\nstep 2\n");
        }
        drop(mounts);
    }
}

#[test]
fn a_folder_does_not_lead_out_when_it_is_replaced() {
    let workspace = Workspace::new();
    workspace.finished("backup", TASK, "real");
    let outside = outside(&workspace.top(), "stolen");
    let folder = workspace.folder("backup");
    let mounted = workspace.mount_at(&workspace.mountpoint("elsewhere"));
    let jobs = || names(&mounted.path().join("jobs").join(TASK));
    assert_eq!(jobs(), ["real"]);
    // Removed and brought back while mounted.
    let away = folder.with_file_name("away");
    fs::rename(&folder, &away).unwrap();
    eventually("the folder is gone", || {
        !mounted.path().join("jobs").join(TASK).exists()
    });
    fs::rename(&away, &folder).unwrap();
    eventually("the folder is back", || {
        mounted.path().join("jobs").join(TASK).exists()
    });
    assert_eq!(jobs(), ["real"]);
    if !crate::common::is_root() {
        return;
    }
    // Its owner, who is not to be trusted, puts another in its place that leads out.
    fs::rename(&folder, &away).unwrap();
    fs::create_dir(&folder).unwrap();
    symlink(outside.join("jobs"), folder.join("jobs")).unwrap();
    let owner = format!("{0}:{0}", common::ORDINARY);
    run(Command::new("chown").arg("-Rh").arg(owner).arg(&folder));
    let refused = || {
        workspace
            .log()
            .contains("leads to no directory, or to one of another user")
    };
    eventually("the new folder has been looked at", refused);
    let stolen = job(mounted.path(), "stolen");
    assert!(!stolen.exists(), "{} leads out", stolen.display());
}

#[test]
fn no_name_leads_out() {
    let workspace = Workspace::new();
    let outside = outside(&workspace.top(), "outside");
    let before = snapshot(&outside);
    let own = workspace.finished("primary", TASK, "own");
    let up = "../".repeat(30);
    let target = PathBuf::from(&up).join(outside.strip_prefix("/").unwrap());
    symlink(&outside, own.join("absolute")).unwrap();
    symlink(&target, own.join("relative")).unwrap();
    // By way of the workspace's own path, which is shown as the mount's.
    symlink(workspace.primary().join("../outside"), own.join("above")).unwrap();
    symlink("/proc/self/root", own.join("root")).unwrap();
    symlink("/proc/self/cwd", own.join("cwd")).unwrap();
    let elsewhere = workspace.mountpoint("elsewhere");
    let mounted = workspace.mount_at(&elsewhere);
    let mount = open(mounted.path(), OFlags::PATH | OFlags::DIRECTORY).unwrap();
    let at = |path: &str| Path::new("jobs").join(TASK).join("own").join(path);
    for name in ["absolute", "relative", "above", "root", "cwd"] {
        // It is the one who asks who follows, not the daemon.
        let meta = fs::symlink_metadata(mounted.path().join(at(name))).unwrap();
        assert!(meta.is_symlink(), "{name}");
        let opened = beneath(&mount, &at(name).join("file"), OFlags::RDONLY);
        assert!(
            matches!(opened, Err(Errno::LOOP | Errno::XDEV)),
            "{name}: {opened:?}"
        );
    }
    for path in [
        "../../../../file",
        "..",
        "jobs/../..",
        "jobs/my.module.train/../../../outside",
    ] {
        let opened = beneath(&mount, Path::new(path), OFlags::RDONLY);
        assert_eq!(opened.map(|_| ()), Err(Errno::XDEV), "{path}");
    }
    let above = fs::read_link(mounted.path().join(at("above"))).unwrap();
    assert_eq!(above, workspace.primary().join("../outside"));
    assert_eq!(snapshot(&outside), before);
}
