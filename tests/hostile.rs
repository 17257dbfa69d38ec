//! What somebody can do who means harm, or has strange things on the disk: nothing outside of the
//! workspace's locations is reached through a mount, and nothing hangs.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod fixture;

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use fixture::{FOLDERS, Mounted, Workspace, as_nobody, eventually, names, not_utf8, run, snapshot};
use rustix::fs::{
    AtFlags, CWD, FileType, FlockOperation, Mode, OFlags, RenameFlags, ResolveFlags, XattrFlags,
};
use rustix::io::{Errno, Result};

const TASK: &str = "my.module.train";

const RWX: Mode = Mode::from_raw_mode(0o777);

/// What must never be read through a mount.
const SECRET: &str = "SECRET";

/// How long a race is run.
const RACE: Duration = Duration::from_secs(5);

/// How long anything at all may take that only asks.
const PATIENCE: Duration = Duration::from_secs(10);

fn open(path: impl AsRef<Path>, flags: OFlags) -> Result<OwnedFd> {
    rustix::fs::open(path.as_ref(), flags | OFlags::CLOEXEC, RWX)
}

/// The directory of a job.
fn job(location: &Path, hash: &str) -> PathBuf {
    location.join("jobs").join(TASK).join(hash)
}

/// A tree outside of every location, laid out as one, with secrets wherever a symlink may lead.
fn outside(top: &Path, hash: &str) -> PathBuf {
    let outside = top.join("outside");
    let data = job(&outside, hash).join("data");
    fs::create_dir_all(&data).unwrap();
    for dir in data.ancestors().take_while(|dir| dir.starts_with(&outside)) {
        fs::write(dir.join("file"), SECRET).unwrap();
        fs::write(dir.join("train.done"), SECRET).unwrap();
        fs::write(dir.join("secret-name"), SECRET).unwrap();
    }
    outside
}

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
fn swap(location: &Path, outside: &Path, hash: &str, done: &AtomicBool) -> usize {
    let exchange = RenameFlags::EXCHANGE;
    let mut swapped = 0;
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
                swapped += usize::from(there.is_ok() && back.is_ok());
            }
            let _ = fs::remove_file(&link);
            if done.load(Ordering::Relaxed) {
                return swapped;
            }
        }
    }
    swapped
}

/// Opens below the mount without following a symlink that the mount shows.
fn beneath(mount: impl AsFd, path: &Path, flags: OFlags) -> Result<OwnedFd> {
    let resolve = ResolveFlags::NO_SYMLINKS | ResolveFlags::BENEATH;
    let mode = match flags.contains(OFlags::CREATE) {
        true => RWX,
        false => Mode::empty(),
    };
    rustix::fs::openat2(mount, path, flags | OFlags::CLOEXEC, mode, resolve)
}

fn contents(fd: OwnedFd) -> std::io::Result<String> {
    let mut contents = String::new();
    File::from(fd).take(1000).read_to_string(&mut contents)?;
    Ok(contents)
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
            let owner = Some(rustix::fs::Uid::from_raw(fixture::ORDINARY));
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
                let work = || swap(&location, outside, hash, done);
                let count = match rustix::process::geteuid().is_root() {
                    true => as_nobody(work),
                    false => work(),
                };
                swapped.fetch_add(count, Ordering::Relaxed);
            });
            let hands = &hands;
            scope.spawn(move || hands(hash));
        }
        scope.spawn(|| {
            let started = Instant::now();
            while started.elapsed() < RACE || (!seen.all_above(100) && started.elapsed() < 6 * RACE)
            {
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
            let owner = format!("{0}:{0}", fixture::ORDINARY);
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

/// Asks something that must be answered at once. A call that waits for a mount cannot be
/// interrupted, so it is made in a process that is left behind.
fn promptly(workspace: &Workspace, script: &str, path: &Path) -> (bool, String) {
    let mut command = workspace.command("sh");
    command
        .args(["-c", script, "sh"])
        .arg(path)
        .env("LC_ALL", "C");
    let output = workspace.top().join(format!(
        "output-{}",
        OUTPUTS.fetch_add(1, Ordering::Relaxed)
    ));
    let file = File::create(&output).unwrap();
    command.stdout(file.try_clone().unwrap()).stderr(file);
    let mut child = command.spawn().unwrap();
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return (status.success(), fs::read_to_string(output).unwrap());
        }
        if Instant::now() > deadline {
            let _ = child.kill();
            panic!("{script} {} does not end", path.display());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

static OUTPUTS: AtomicUsize = AtomicUsize::new(0);

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
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: only root can own what somebody else links to");
        return;
    }
    // Its owner, who is not to be trusted, puts another in its place that leads out.
    fs::rename(&folder, &away).unwrap();
    fs::create_dir(&folder).unwrap();
    symlink(outside.join("jobs"), folder.join("jobs")).unwrap();
    let owner = format!("{0}:{0}", fixture::ORDINARY);
    run(Command::new("chown").arg("-Rh").arg(owner).arg(&folder));
    let refused = || workspace.log().contains("belongs to somebody else");
    eventually("the new folder has been looked at", refused);
    let stolen = job(mounted.path(), "stolen");
    assert!(!stolen.exists(), "{} leads out", stolen.display());
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
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: only root can become somebody else");
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
                fs::rename(&secret, &name).unwrap();
                std::thread::yield_now();
                fs::rename(&name, &secret).unwrap();
                std::thread::yield_now();
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
        done.store(true, Ordering::Relaxed);
    });
    assert_eq!(fs::read_to_string(&secret).unwrap(), SECRET);
    assert!(opened.load(Ordering::Relaxed) > 100, "{opened:?} opened");
}

/// A directory that is removed however deep it is.
struct Deep(PathBuf);

impl Drop for Deep {
    fn drop(&mut self) {
        let _ = Command::new("rm").arg("-rf").arg(&self.0).output();
    }
}

const DEPTH: usize = 3000;

/// The directory at the bottom of a deep tree below `top`, which is made if `make`.
fn descend(top: &Path, make: bool) -> OwnedFd {
    let mut here = open(top, OFlags::PATH | OFlags::DIRECTORY).unwrap();
    for level in 0..DEPTH {
        if make {
            rustix::fs::mkdirat(&here, "deeper", RWX).unwrap();
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        here = rustix::fs::openat(&here, "deeper", flags, Mode::empty())
            .unwrap_or_else(|error| panic!("level {level}: {error}"));
    }
    here
}

fn at(dir: &OwnedFd, name: &str, flags: OFlags) -> OwnedFd {
    rustix::fs::openat(dir, name, flags | OFlags::CLOEXEC, RWX).unwrap()
}

#[test]
fn a_deep_tree_is_made_seen_and_removed() {
    let workspace = Workspace::new();
    let _remove = Deep(workspace.top());
    let archived = workspace.finished("backup", TASK, "archived");
    let bottom = descend(&archived, true);
    rustix::io::write(
        at(&bottom, "file", OFlags::WRONLY | OFlags::CREATE),
        b"deep",
    )
    .unwrap();
    let elsewhere = workspace.mountpoint("elsewhere");
    let mounted = workspace.mount_at(&elsewhere);
    let new = mounted.job(TASK, "new");
    fs::create_dir_all(&new).unwrap();
    let bottom = descend(&new, true);
    rustix::io::write(
        at(&bottom, "file", OFlags::WRONLY | OFlags::CREATE),
        b"deep",
    )
    .unwrap();
    drop(bottom);
    mounted.unmount();
    let mounted = workspace.mount_at(&elsewhere);
    for hash in ["new", "archived"] {
        let bottom = descend(&mounted.job(TASK, hash), false);
        // What the mount keeps open of it has long been closed again.
        let file = at(&bottom, "file", OFlags::RDONLY);
        assert_eq!(contents(file).unwrap(), "deep", "{hash}");
        let removed = rustix::fs::unlinkat(&bottom, "file", AtFlags::empty());
        let expected = match hash {
            "new" => Ok(()),
            _ => Err(Errno::ROFS),
        };
        assert_eq!(removed, expected, "{hash}");
    }
    run(Command::new("rm").arg("-rf").arg(mounted.job(TASK, "new")));
    assert_eq!(names(&mounted.path().join("jobs").join(TASK)), ["archived"]);
}

/// The names that are listed, each as often as it is.
fn listed(dir: &mut rustix::fs::Dir) -> Vec<Vec<u8>> {
    let mut listed = Vec::new();
    while let Some(entry) = dir.read() {
        let name = entry.unwrap().file_name().to_bytes().to_vec();
        if name != b"." && name != b".." {
            listed.push(name);
        }
    }
    listed
}

/// Asserts that each of `count` stable entries was listed once.
fn assert_once(listed: &[Vec<u8>], count: usize) {
    let stable: Vec<_> = listed
        .iter()
        .filter(|name| name.starts_with(b"stable"))
        .collect();
    let different: HashSet<_> = stable.iter().collect();
    assert_eq!((stable.len(), different.len()), (count, count));
}

fn directory(path: &Path) -> rustix::fs::Dir {
    rustix::fs::Dir::new(open(path, OFlags::RDONLY | OFlags::DIRECTORY).unwrap()).unwrap()
}

#[test]
fn each_of_a_hundred_thousand_files_is_listed_once_while_others_come_and_go() {
    const FILES: usize = 100_000;
    let workspace = Workspace::new();
    let job = workspace.finished("primary", TASK, "large");
    for number in 0..FILES {
        File::create(job.join(format!("stable-{number}"))).unwrap();
    }
    let mounted = workspace.mount_at(&workspace.mountpoint("elsewhere"));
    let seen = mounted.job(TASK, "large");
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for through in [&job, &seen] {
            let done = &done;
            scope.spawn(move || {
                for number in (0..500).cycle() {
                    if done.load(Ordering::Relaxed) {
                        return;
                    }
                    let path = through.join(format!("fleeting-{number}"));
                    let _ = File::create(&path);
                    let _ = fs::remove_file(through.join(format!("fleeting-{}", number / 2)));
                }
            });
        }
        let result = std::panic::catch_unwind(|| {
            for _ in 0..2 {
                assert_once(&listed(&mut directory(&seen)), FILES);
            }
        });
        done.store(true, Ordering::Relaxed);
        result.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
}

#[test]
fn a_union_is_listed_from_wherever_one_has_been() {
    const EACH: usize = 1500;
    let workspace = Workspace::new();
    for number in 0..EACH {
        for (location, offset) in [
            (workspace.primary(), 0),
            (workspace.folder("backup"), EACH / 2),
        ] {
            let name = format!("stable-{}", number + offset);
            fs::create_dir_all(job(&location, &name)).unwrap();
            let task = location
                .join("jobs")
                .join(format!("stable.{}", number + offset));
            fs::create_dir_all(task).unwrap();
        }
    }
    let count = EACH + EACH / 2;
    let mounted = workspace.mount_at(&workspace.mountpoint("elsewhere"));
    let jobs = mounted.path().join("jobs");
    for path in [jobs.join(TASK), jobs] {
        let mut dir = directory(&path);
        assert_once(&listed(&mut dir), count);
        dir.rewind();
        let mut positions = Vec::new();
        let mut order = Vec::new();
        while let Some(entry) = dir.read() {
            let entry = entry.unwrap();
            positions.push(entry.offset());
            order.push(entry.file_name().to_owned());
        }
        let different: HashSet<_> = positions.iter().collect();
        assert_eq!(
            different.len(),
            positions.len(),
            "two entries have one position"
        );
        // Back and forth, on the boundary between the locations too.
        for index in [
            0,
            1,
            EACH - 1,
            EACH,
            EACH + 1,
            EACH + 2,
            EACH + 3,
            7,
            count,
            count - 1,
        ] {
            dir.seek(positions[index]).unwrap();
            let rest: Vec<_> = std::iter::from_fn(|| dir.read())
                .map(|entry| entry.unwrap().file_name().to_owned())
                .collect();
            assert_eq!(rest, order[index + 1..], "after entry {index}");
        }
        dir.rewind();
        assert_once(&listed(&mut dir), count);
    }
}

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
fn two_mounts_of_one_workspace_are_one() {
    let workspace = Workspace::new();
    workspace.finished("primary", TASK, "own");
    workspace.finished("backup", TASK, "archived");
    let one = workspace.mount_in_place();
    let two = workspace.mount_at(&workspace.mountpoint("elsewhere"));
    let exclusive = FlockOperation::NonBlockingLockExclusive;
    for hash in ["own", "archived"] {
        let lock = |mounted: &Mounted<'_>| {
            let path = mounted.job(TASK, hash).join("train.lock");
            open(path, OFlags::RDWR | OFlags::CREATE).unwrap()
        };
        let (first, second) = (lock(&one), lock(&two));
        rustix::fs::flock(&first, exclusive).unwrap();
        assert_eq!(
            rustix::fs::flock(&second, exclusive),
            Err(Errno::WOULDBLOCK)
        );
        rustix::fs::flock(&first, FlockOperation::Unlock).unwrap();
        rustix::fs::flock(&second, exclusive).unwrap();
        assert_eq!(rustix::fs::flock(&first, exclusive), Err(Errno::WOULDBLOCK));
    }
    for (from, to, name) in [(&one, &two, "a"), (&two, &one, "b")] {
        let seen = to.job(TASK, name);
        assert!(!seen.exists());
        fs::create_dir(from.job(TASK, name)).unwrap();
        fs::write(from.job(TASK, name).join("file"), "x").unwrap();
        let asked = Instant::now();
        eventually("a file of the other mount", || seen.join("file").exists());
        assert!(
            asked.elapsed() < Duration::from_secs(3),
            "{:?}",
            asked.elapsed()
        );
        fs::write(from.job(TASK, name).join("file"), "longer").unwrap();
        eventually("what the other mount wrote", || {
            fs::read(seen.join("file")).is_ok_and(|read| read == b"longer")
        });
        fs::remove_dir_all(from.job(TASK, name)).unwrap();
        eventually("what the other mount removed is gone", || !seen.exists());
    }
}

/// The command as a path that the user who does things may run.
fn binary(workspace: &Workspace) -> PathBuf {
    let copy = workspace.top().join("bin/xpmfs");
    let _ = workspace.xpmfs();
    match copy.exists() {
        true => copy,
        false => env!("CARGO_BIN_EXE_xpmfs").into(),
    }
}

#[test]
fn a_mount_in_a_namespace_is_seen_there_alone() {
    let roots = (Workspace::new(), "-m");
    for (workspace, namespaces) in [roots, (Workspace::of_ordinary_user(), "-Urm")] {
        workspace.finished("backup", TASK, "archived");
        let mut able = workspace.command("unshare");
        if !able
            .args([namespaces, "true"])
            .output()
            .unwrap()
            .status
            .success()
        {
            eprintln!("SKIPPED: unshare {namespaces} is not permitted here");
            continue;
        }
        let script = "set -e
            trap '\"$X\" --settings \"$S\" umount --lazy \"$W\"' EXIT
            \"$X\" --settings \"$S\" mount -w test --log \"$S.log\"
            cat \"$W\"/jobs/*/archived/train.out
            mkdir \"$W\"/jobs/new
            if rm -rf \"$W\"/jobs/*/archived; then exit 1; fi
            echo removed nothing";
        let mut command = workspace.command("timeout");
        command
            .args(["30", "unshare", namespaces, "sh", "-c", script])
            .env("X", binary(&workspace))
            .env("S", workspace.settings())
            .env("W", workspace.primary());
        let said = run(&mut command);
        assert!(said.contains("step 2\nremoved nothing\n"), "{said}");
        assert!(!fixture::is_mounted(&workspace.primary()));
        assert_eq!(names(&workspace.primary().join("jobs")), ["new"]);
        assert!(job(&workspace.folder("backup"), "archived/model.bin").exists());
    }
}

#[test]
fn strange_names_of_the_workspace_and_in_it_are_names() {
    let workspace = Workspace::called("a b,c\\d\n\te=\u{e9}'\"$x%:*#~ ");
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

/// The process that serves a mount of a workspace.
fn daemon(workspace: &Workspace) -> rustix::process::Pid {
    let settings = workspace.settings();
    let ours = |pid: i32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let arguments: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
        arguments.contains(&b"mount".as_slice())
            && arguments.contains(&settings.as_os_str().as_bytes())
    };
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let found = processes
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .find(|pid| ours(*pid));
    rustix::process::Pid::from_raw(found.expect("a daemon")).unwrap()
}

#[test]
fn a_mount_whose_daemon_was_killed_is_mounted_anew() {
    let workspace = Workspace::new();
    let own = workspace.finished("primary", TASK, "own");
    workspace.finished("backup", TASK, "archived");
    let before = snapshot(&workspace.folder("backup"));
    let killed = workspace.mount_in_place();
    let mut open = File::create(killed.job(TASK, "own").join("written")).unwrap();
    open.write_all(b"written").unwrap();
    File::create(killed.job(TASK, "archived").join("train.lock")).unwrap();
    rustix::process::kill_process(daemon(&workspace), rustix::process::Signal::KILL).unwrap();
    eventually("the mount is dead", || {
        fs::metadata(killed.path()).is_err_and(|e| e.raw_os_error() == Some(libc::ENOTCONN))
    });
    drop(open);
    let mounted = workspace.mount_in_place();
    assert_eq!(
        fs::read(mounted.job(TASK, "own").join("written")).unwrap(),
        b"written"
    );
    assert!(mounted.job(TASK, "archived").join("train.lock").exists());
    mounted.unmount();
    drop(killed);
    assert_eq!(fs::read(own.join("written")).unwrap(), b"written");
    assert_eq!(snapshot(&workspace.folder("backup")), before);
}

#[test]
fn a_primary_that_is_removed_gives_errors_and_no_more() {
    let workspace = Workspace::new();
    workspace.finished("primary", TASK, "own");
    workspace.finished("backup", TASK, "archived");
    let before = snapshot(&workspace.folder("backup"));
    let mounted = workspace.mount_at(&workspace.mountpoint("elsewhere"));
    assert_eq!(
        names(&mounted.path().join("jobs").join(TASK)),
        ["archived", "own"]
    );
    fs::remove_dir_all(workspace.primary()).unwrap();
    eventually("the primary's job is gone", || {
        !mounted.job(TASK, "own").exists()
    });
    for (script, expected) in [
        ("ls -la \"$1\"", None),
        (
            "cat \"$1\"/jobs/*/archived/train.out",
            Some("step 1\nstep 2\n"),
        ),
        ("mkdir \"$1/new\"", Some("No such file or directory")),
        (
            "mkdir -p \"$1/jobs/my.module.train/new\"",
            Some("No such file or directory"),
        ),
        (
            "touch \"$1/jobs/my.module.train/archived/train.lock\"",
            Some("No such file or directory"),
        ),
        ("df \"$1\"", None),
        ("rm -rf \"$1/jobs\"", Some("Read-only file system")),
    ] {
        let (_, said) = promptly(&workspace, script, mounted.path());
        assert!(
            expected.is_none_or(|expected| said.contains(expected)),
            "{script}: {said}"
        );
    }
    mounted.unmount();
    assert!(!workspace.log().contains("panic"), "{}", workspace.log());
    assert_eq!(snapshot(&workspace.folder("backup")), before);
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
