//! Strange names, and strange things under them.

use super::*;

#[test]
fn pipes_sockets_and_devices_in_the_place_of_files_hang_nobody() {
    let workspace = Workspace::new();
    let root = rustix::process::geteuid().is_root();
    for location in ["primary", "use", "backup", "move"] {
        let job = workspace.finished(location, TASK, &format!("in-{location}"));
        let task = job.parent().unwrap().to_owned();
        let jobs = task.parent().unwrap().to_owned();
        let unfinished = task.join(format!("marked-by-a-pipe-{location}"));
        fs::create_dir(&unfinished).unwrap();
        let kinds = [FileType::Fifo, FileType::Socket, FileType::CharacterDevice];
        for (number, kind) in kinds.into_iter().enumerate().take(if root { 3 } else { 2 }) {
            // The null device.
            let device = rustix::fs::makedev(1, 3);
            for place in [&job, &task, &jobs] {
                let path = place.join(format!("special-{number}"));
                rustix::fs::mknodat(CWD, &path, kind, RWX, device).unwrap();
            }
            let lock = job.join(format!("{number}.pid"));
            rustix::fs::mknodat(CWD, &lock, kind, RWX, device).unwrap();
        }
        let marker = unfinished.join("train.done");
        rustix::fs::mknodat(CWD, &marker, FileType::Fifo, RWX, 0).unwrap();
    }
    let before = FOLDERS.map(|folder| snapshot(&workspace.folder(folder)));
    let mounted = workspace.mount_in_place();
    let top = mounted.path();
    for script in [
        "ls -laR \"$1\"",
        "find \"$1\" -exec stat {} + ",
        "find \"$1\" -type f -exec cat {} +",
        "find \"$1\" -exec getfattr -n user.xpmfs.location {} +",
        "find \"$1\" -path '*in-*' -exec chmod 777 {} +",
        "find \"$1\" -path '*in-*' -exec touch -c {} +",
        "find \"$1\" -path '*in-*' -exec dd if=/dev/null of={} oflag=nonblock conv=notrunc \\;",
        "find \"$1\" -exec dd if={} of=/dev/null count=1 iflag=nonblock \\;",
    ] {
        promptly(&workspace, script, top);
    }
    let shown = names(&top.join("jobs").join(TASK));
    assert!(!shown.contains(&"marked-by-a-pipe-use".into()), "{shown:?}");
    mounted.unmount();
    for (folder, before) in FOLDERS.iter().zip(before) {
        let changed = snapshot(&workspace.folder(folder)) != before;
        assert!(!changed, "{folder} has changed");
    }
}

#[test]
fn strange_names_of_the_workspace_and_in_it_are_names() {
    let workspace = Workspace::builder()
        .primary("a b,c\\d\n\te=\u{e9}'\"$x%:*#~ ")
        .build();
    let long = OsString::from_vec(vec![b'n'; 255]);
    let strange: Vec<OsString> = [not_utf8(), &long, OsStr::new("a\nb"), OsStr::new("\\ \"'")]
        .iter()
        .map(|name| OsString::from(*name))
        .collect();
    for location in ["primary", "use", "backup", "move"] {
        let job = workspace.finished(location, TASK, &format!("in-{location}"));
        for name in &strange {
            fs::create_dir(job.join(name)).unwrap();
            fs::write(job.join(name).join(name), location).unwrap();
        }
    }
    let elsewhere = workspace.mountpoint("else where,\\\n\u{e9} ");
    for mountpoint in [workspace.primary(), elsewhere] {
        let mounted = workspace.mount_at(&mountpoint);
        for location in ["primary", "use", "backup", "move"] {
            let job = mounted.job(TASK, &format!("in-{location}"));
            let listed = names(&job);
            for name in &strange {
                assert!(listed.contains(name), "{name:?} in {listed:?}");
                let read = fs::read_to_string(job.join(name).join(name)).unwrap();
                assert_eq!(read, location);
                assert_eq!(mounted.location(job.join(name)), location);
            }
        }
        let mut new = OsString::from("new ");
        new.push(not_utf8());
        let path = mounted.job(TASK, "").join(&new);
        fs::create_dir(&path).unwrap();
        fs::rename(&path, path.with_file_name(&strange[2])).unwrap();
        fs::remove_dir(path.with_file_name(&strange[2])).unwrap();
        let too_long = OsString::from_vec(vec![b'n'; 256]);
        let made = rustix::fs::mkdir(path.with_file_name(too_long), RWX);
        assert_eq!(made, Err(Errno::NAMETOOLONG));
        mounted.unmount();
    }
}
