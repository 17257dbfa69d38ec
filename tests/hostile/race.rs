//! Somebody races with symlinks and renames.

use super::*;

/// How long a race is run.
const RACE: Duration = Duration::from_secs(5);

/// The levels at which something can be swapped, below a location.
fn levels(hash: &str) -> Vec<PathBuf> {
    let job = job(Path::new(""), hash);
    vec![
        PathBuf::from("jobs"),
        Path::new("jobs").join(TASK),
        job.clone(),
        job.join("data"),
        job.join("data/file"),
        job.join("file"),
    ]
}

/// Swaps what stands at each level of a location for symlinks to the same outside, again and again.
fn swap(location: &Path, outside: &Path, hash: &str, swapped: &AtomicUsize, done: &AtomicBool) {
    let exchange = RenameFlags::EXCHANGE;
    let levels = levels(hash);
    for round in 0.. {
        for level in &levels {
            let place = location.join(level);
            let link = place.with_file_name(".evil");
            let _ = fs::remove_file(&link);
            let target = match round % 3 {
                // `..` as often as it takes, and more.
                0 => Path::new(&"../".repeat(40)).join(outside.strip_prefix("/").unwrap()),
                _ => outside.to_owned(),
            };
            symlink(target.join(level), &link).unwrap();
            for _ in 0..20 {
                let there = rustix::fs::renameat_with(CWD, &link, CWD, &place, exchange);
                std::thread::yield_now();
                let back = rustix::fs::renameat_with(CWD, &link, CWD, &place, exchange);
                let both = usize::from(there.is_ok() && back.is_ok());
                swapped.fetch_add(both, Ordering::Relaxed);
            }
            let _ = fs::remove_file(&link);
            if done.load(Ordering::Relaxed) {
                return;
            }
        }
    }
}

/// What was seen through the mount while somebody swapped.
#[derive(Debug, Default)]
struct Seen {
    read: AtomicUsize,
    listed: AtomicUsize,
    changed: AtomicUsize,
}

impl Seen {
    fn all_above(&self, least: usize) -> bool {
        let counts = [&self.read, &self.listed, &self.changed];
        counts
            .iter()
            .all(|count| count.load(Ordering::Relaxed) > least)
    }
}

/// Reads and lists everything that a symlink could have been put in place of.
fn read(mount: &OwnedFd, hash: &str, seen: &Seen, done: &AtomicBool) {
    let directories = OFlags::RDONLY | OFlags::DIRECTORY;
    while !done.load(Ordering::Relaxed) {
        for level in levels(hash) {
            for name in ["", "file", "train.done", "secret-name", "data/file"] {
                let path = level.join(name);
                let Ok(fd) = beneath(mount, &path, OFlags::RDONLY | OFlags::NONBLOCK) else {
                    continue;
                };
                if let Ok(contents) = contents(fd) {
                    assert!(!contents.contains(SECRET), "{} was read", path.display());
                    seen.read.fetch_add(1, Ordering::Relaxed);
                }
            }
            let Ok(dir) = beneath(mount, &level, directories) else {
                continue;
            };
            let Ok(entries) = rustix::fs::Dir::read_from(&dir) else {
                continue;
            };
            for entry in entries.flatten() {
                let name = entry.file_name().to_bytes();
                assert!(name != b"secret-name", "{} was listed", level.display());
                seen.listed.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

/// Changes everything that a symlink could have been put in place of.
fn change(mount: &OwnedFd, hash: &str, seen: &Seen, done: &AtomicBool) {
    let path_only = OFlags::PATH | OFlags::DIRECTORY;
    while !done.load(Ordering::Relaxed) {
        for level in levels(hash) {
            let write = OFlags::WRONLY | OFlags::NONBLOCK;
            for flags in [write, write | OFlags::TRUNC, write | OFlags::APPEND] {
                if let Ok(fd) = beneath(mount, &level.join("file"), flags) {
                    let _ = rustix::io::write(&fd, b"changed");
                    let _ = rustix::fs::ftruncate(&fd, 3);
                    let _ = rustix::fs::fchmod(&fd, RWX);
                    seen.changed.fetch_add(1, Ordering::Relaxed);
                }
            }
            let Ok(dir) = beneath(mount, &level, path_only) else {
                continue;
            };
            let made = beneath(&dir, Path::new("made"), write | OFlags::CREATE);
            seen.changed
                .fetch_add(usize::from(made.is_ok()), Ordering::Relaxed);
            let _ = rustix::fs::mkdirat(&dir, "made-dir", RWX);
            let _ = rustix::fs::symlinkat("x", &dir, "made-link");
            let _ = rustix::fs::renameat(&dir, "made", &dir, "train.lock");
            let owner = Some(rustix::fs::Uid::from_raw(common::ORDINARY));
            let _ = rustix::fs::chownat(&dir, "file", owner, None, AtFlags::SYMLINK_NOFOLLOW);
            for name in ["secret-name", "made", "made-link", "train.lock"] {
                let _ = rustix::fs::unlinkat(&dir, name, AtFlags::empty());
            }
            let _ = rustix::fs::unlinkat(&dir, "made-dir", AtFlags::REMOVEDIR);
            let set = beneath(&dir, Path::new("file"), OFlags::RDONLY | OFlags::NONBLOCK);
            if let Ok(fd) = set {
                let _ = rustix::fs::fchmod(&fd, RWX);
                let _ = rustix::fs::fsetxattr(&fd, "user.x", b"x", XattrFlags::empty());
            }
        }
    }
}

/// The contents of a tree without what renames change about it.
fn files(top: &Path) -> Vec<(PathBuf, u32, u32, Vec<u8>)> {
    let mut found = Vec::new();
    let mut pending = vec![top.to_owned()];
    while let Some(path) = pending.pop() {
        let meta = fs::symlink_metadata(&path).unwrap();
        let name = path.strip_prefix(top).unwrap().to_owned();
        let data = match meta.is_file() {
            true => fs::read(&path).unwrap(),
            false => Vec::new(),
        };
        found.push((name, meta.mode(), meta.uid(), data));
        if meta.is_dir() {
            pending.extend(fs::read_dir(&path).unwrap().map(|e| e.unwrap().path()));
        }
    }
    found.sort();
    found
}

/// Somebody who owns the primary and a folder swaps their parts for symlinks while others work in
/// the mount: nothing outside may be seen or changed, nor a file of the folder.
fn race(workspace: &Workspace, mounted: &Mounted<'_>) {
    let outside = outside(&workspace.top(), "outside-job");
    run(Command::new("chmod").args(["-R", "a+rwX"]).arg(&outside));
    let (own, archived) = ("own", "archived");
    for hash in [own, archived] {
        let made = job(&outside, hash);
        fs::create_dir_all(made.join("data")).unwrap();
        for file in [
            "file",
            "train.done",
            "secret-name",
            "data/file",
            "data/secret-name",
        ] {
            fs::write(made.join(file), SECRET).unwrap();
        }
    }
    let before = snapshot(&outside);
    let folder = workspace.folder("backup");
    let archive = files(&job(&folder, archived));
    let done = AtomicBool::new(false);
    let seen = Seen::default();
    let swapped = AtomicUsize::new(0);
    let hands = |hash: &str| {
        let work = || {
            let mount = open(mounted.path(), OFlags::PATH | OFlags::DIRECTORY).unwrap();
            std::thread::scope(|scope| {
                scope.spawn(|| read(&mount, hash, &seen, &done));
                scope.spawn(|| change(&mount, hash, &seen, &done));
            });
        };
        workspace.as_user(work);
    };
    std::thread::scope(|scope| {
        for (location, hash) in [(workspace.primary(), own), (folder.clone(), archived)] {
            let (outside, done, swapped) = (&outside, &done, &swapped);
            scope.spawn(move || {
                let work = || swap(&location, outside, hash, swapped, done);
                match rustix::process::geteuid().is_root() {
                    true => as_nobody(work),
                    false => work(),
                }
            });
            let hands = &hands;
            scope.spawn(move || hands(hash));
        }
        scope.spawn(|| {
            let started = Instant::now();
            let tried = || seen.all_above(100) && swapped.load(Ordering::Relaxed) > 1000;
            // On a busy machine it takes longer until it has been tried often enough.
            while started.elapsed() < RACE || (!tried() && started.elapsed() < 20 * RACE) {
                std::thread::sleep(Duration::from_millis(50));
            }
            done.store(true, Ordering::Relaxed);
        });
    });
    assert_eq!(snapshot(&outside), before, "something outside has changed");
    assert_eq!(files(&job(&folder, archived)), archive);
    let count = |count: &AtomicUsize| count.load(Ordering::Relaxed);
    // Or nothing was tried.
    assert!(count(&swapped) > 1000, "{} swaps", count(&swapped));
    assert!(seen.all_above(100), "{seen:?}");
}

/// Jobs for a [`race`], in a workspace whose locations belong to somebody else than the daemon.
fn racecourse(workspace: &Workspace) {
    for (location, hash) in [("primary", "own"), ("backup", "archived")] {
        let job = workspace.finished(location, TASK, hash);
        fs::create_dir(job.join("data")).unwrap();
        for file in ["file", "data/file"] {
            fs::write(job.join(file), "harmless").unwrap();
        }
    }
    if rustix::process::geteuid().is_root() {
        fs::set_permissions(workspace.top(), fs::Permissions::from_mode(0o755)).unwrap();
        for location in [workspace.primary(), workspace.folder("backup")] {
            let owner = format!("{0}:{0}", common::ORDINARY);
            run(Command::new("chown").arg("-Rh").arg(owner).arg(location));
        }
    }
}

#[test]
fn racing_with_symlinks_leads_roots_daemon_nowhere() {
    let workspace = Workspace::new();
    racecourse(&workspace);
    let elsewhere = workspace.mountpoint("elsewhere");
    let arguments: &[&str] = match rustix::process::geteuid().is_root() {
        true => &["-o", "allow_other"],
        false => &[],
    };
    let mounted = workspace.mount_with(&elsewhere, arguments);
    race(&workspace, &mounted);
}

#[test]
fn racing_with_symlinks_leads_a_users_daemon_nowhere() {
    let workspace = Workspace::of_ordinary_user();
    racecourse(&workspace);
    let elsewhere = workspace.mountpoint("elsewhere");
    let mounted = workspace.mount_at(&elsewhere);
    race(&workspace, &mounted);
}

#[test]
fn a_task_that_is_renamed_behind_the_mount_is_not_made_anew() {
    let workspace = Workspace::new();
    workspace.finished("primary", TASK, "real");
    let mounted = workspace.mount_at(&workspace.mountpoint("elsewhere"));
    let jobs = workspace.primary().join("jobs");
    let task = open(mounted.path().join("jobs").join(TASK), OFlags::DIRECTORY).unwrap();
    fs::rename(jobs.join(TASK), jobs.join("my.renamed")).unwrap();
    let _ = rustix::fs::mkdirat(&task, "new", RWX);
    assert_eq!(names(&jobs), ["my.renamed"]);
    let _ = rustix::fs::unlinkat(&task, "new", AtFlags::REMOVEDIR);
    assert_eq!(names(&jobs.join("my.renamed")), ["real"]);
}

/// With `allow_other`, the kernel checks rights by what it was told of a name; somebody who can
/// rename a file in a directory must not get at its contents by putting it there in between.
#[test]
fn rights_are_not_won_by_a_race() {
    if !crate::common::is_root() {
        return;
    }
    let workspace = Workspace::new();
    fs::set_permissions(workspace.top(), fs::Permissions::from_mode(0o755)).unwrap();
    let shared = workspace.primary().join("shared");
    fs::create_dir(&shared).unwrap();
    fs::set_permissions(&shared, fs::Permissions::from_mode(0o777)).unwrap();
    let (secret, name) = (shared.join("secret"), shared.join("name"));
    fs::write(&secret, SECRET).unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    let elsewhere = workspace.mountpoint("elsewhere");
    let mounted = workspace.mount_with(&elsewhere, &["-o", "allow_other"]);
    let seen = mounted.path().join("shared/name");
    let done = AtomicBool::new(false);
    let opened = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                // It replaces what the others have made, and goes away again.
                let there = Instant::now();
                fs::rename(&secret, &name).unwrap();
                std::thread::yield_now();
                fs::rename(&name, &secret).unwrap();
                // Away for longer than it was there, also on a busy machine: a caller that sees it under the
                // name is refused for as long as the kernel believes that it is there.
                std::thread::sleep(4 * there.elapsed() + Duration::from_micros(200));
            }
        });
        for flags in [
            OFlags::RDWR | OFlags::CREATE,
            OFlags::RDWR,
            OFlags::RDWR | OFlags::CREATE | OFlags::TRUNC,
            OFlags::WRONLY | OFlags::TRUNC,
        ] {
            let (seen, done, opened) = (&seen, &done, &opened);
            scope.spawn(move || {
                as_nobody(|| {
                    while !done.load(Ordering::Relaxed) {
                        let Ok(fd) = open(seen, flags) else { continue };
                        opened.fetch_add(1, Ordering::Relaxed);
                        if let Ok(read) = contents(fd) {
                            assert!(!read.contains(SECRET), "read with {flags:?}");
                        }
                    }
                });
            });
        }
        std::thread::sleep(RACE);
        // On a busy machine it takes longer until it has been tried often enough.
        let deadline = Instant::now() + 20 * RACE;
        while opened.load(Ordering::Relaxed) <= 100 && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(50));
        }
        done.store(true, Ordering::Relaxed);
    });
    assert_eq!(fs::read_to_string(&secret).unwrap(), SECRET);
    assert!(opened.load(Ordering::Relaxed) > 100, "{opened:?} opened");
}
