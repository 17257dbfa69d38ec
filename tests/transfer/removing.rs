//! Trees are removed whole, and nothing beside them is, whoever else is at it.

use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::fs::{CWD, Mode, OFlags, RenameFlags};
use rustix::io::Errno;
use xpmfs::transfer::{self, Error, Progress, remove_tree};

use super::{Small, Stage, as_nobody, command, is_root};

fn remove(top: &Path, name: &str) -> transfer::Result<()> {
    remove_tree(File::open(top).unwrap(), OsStr::new(name), None)
}

fn errno(error: &Error) -> Errno {
    Errno::from_io_error(error.io().unwrap_or_else(|| panic!("{error}"))).unwrap()
}

fn exists(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok()
}

/// Ends whoever works against us, also when the test fails.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Makes directories in each other, with a file in each.
fn deep(top: &Path, levels: usize, name: &str) {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut dir: OwnedFd = File::open(top).unwrap().into();
    for _ in 0..levels {
        rustix::fs::mkdirat(&dir, name, Mode::RWXU).unwrap();
        dir = rustix::fs::openat(&dir, name, flags, Mode::empty()).unwrap();
        let create = OFlags::WRONLY | OFlags::CREATE | OFlags::CLOEXEC;
        rustix::fs::openat(&dir, "file", create, Mode::RUSR).unwrap();
    }
}

#[test]
fn neither_depth_nor_the_length_of_paths_matters() {
    let stage = Stage::new();
    deep(&stage.source(), 3_000, &"d".repeat(200));
    remove(stage.top(), "source").unwrap();
    assert!(!exists(&stage.source()));
    assert!(stage.copy().is_dir());
}

#[test]
fn few_descriptors_are_enough() {
    // A process of its own: the limit is for all threads.
    if let Some(top) = std::env::var_os("XPMFS_TEST_REMOVE") {
        return remove(Path::new(&top), "source").unwrap();
    }
    let stage = Stage::new();
    deep(&stage.source(), 200, "d");
    let name = "removing::few_descriptors_are_enough";
    let script = format!("ulimit -n 40; exec \"$0\" --exact {name} --test-threads 1");
    let status = std::process::Command::new("sh")
        .args(["-c", &script])
        .arg(std::env::current_exe().unwrap())
        .env("XPMFS_TEST_REMOVE", stage.top())
        .status()
        .unwrap();
    assert!(status.success());
    assert!(!exists(&stage.source()));
}

#[test]
fn files_and_symlinks_are_removed_and_what_is_not_there_is_no_error() {
    let stage = Stage::new();
    stage.file("kept/file", "mine");
    symlink("source/kept", stage.top().join("link")).unwrap();
    stage.file("file", "");
    remove(stage.top(), "link").unwrap();
    remove(&stage.source(), "file").unwrap();
    remove(&stage.source(), "file").unwrap();
    assert!(!exists(&stage.top().join("link")) && !exists(&stage.source().join("file")));
    assert!(exists(&stage.source().join("kept/file")));
}

#[test]
fn names_that_lead_elsewhere_are_refused() {
    let stage = Stage::new();
    stage.file("dir/file", "mine");
    for name in ["", ".", "..", "dir/file", "../copy", "/"] {
        let error = remove(&stage.source(), name).unwrap_err();
        assert_eq!(errno(&error), Errno::INVAL, "{name:?}");
    }
    assert!(exists(&stage.source().join("dir/file")) && exists(&stage.copy()));
}

#[test]
fn symlinks_in_the_tree_are_not_followed() {
    let stage = Stage::new();
    fs::write(stage.copy().join("file"), "mine").unwrap();
    fs::create_dir(stage.source().join("dir")).unwrap();
    symlink("../copy", stage.source().join("a")).unwrap();
    symlink(stage.copy(), stage.source().join("dir/b")).unwrap();
    symlink(stage.copy().join("file"), stage.source().join("dir/c")).unwrap();
    symlink("nowhere", stage.source().join("dir/d")).unwrap();
    remove(stage.top(), "source").unwrap();
    assert!(!exists(&stage.source()));
    assert!(exists(&stage.copy().join("file")));
}

#[test]
fn directories_without_rights_are_removed_by_their_owner() {
    let stage = Stage::new();
    for dir in ["none/sub", "list", "enter/sub/none", "write"] {
        stage.file(&format!("{dir}/file"), "mine");
    }
    let modes = [
        ("none/sub", 0),
        ("none", 0),
        ("list", 0o400),
        ("enter/sub/none", 0),
        ("enter/sub", 0o500),
        ("enter", 0o100),
        ("write", 0o200),
    ];
    for (dir, mode) in modes {
        fs::set_permissions(stage.source().join(dir), Permissions::from_mode(mode)).unwrap();
    }
    let removed = || remove(stage.top(), "source");
    if rustix::process::geteuid().is_root() {
        command("chown", &[&"-R", &"65534:65534", &stage.top()]);
        as_nobody(removed).unwrap();
    } else {
        removed().unwrap();
    }
    assert!(!exists(&stage.source()));
}

#[test]
fn what_cannot_be_removed_is_named_and_does_not_keep_the_rest() {
    if !is_root() {
        return;
    }
    let stage = Stage::new();
    for dir in ["a", "dir/theirs", "z"] {
        stage.file(&format!("{dir}/file"), "");
    }
    command("chown", &[&"-R", &"65534:65534", &stage.top()]);
    let theirs = stage.source().join("dir/theirs");
    command("chown", &[&"-R", &"0:0", &theirs]);
    let error = as_nobody(|| remove(stage.top(), "source").unwrap_err());
    assert_eq!(errno(&error), Errno::ACCESS);
    let file = Path::new("source/dir/theirs/file");
    assert_eq!(error.path().unwrap(), file, "{error}");
    assert!(exists(&stage.top().join(file)));
    let left = fs::read_dir(stage.source()).unwrap().count();
    assert_eq!(left, 1);
}

#[test]
fn what_is_mounted_in_the_tree_is_left_alone() {
    if !is_root() {
        return;
    }
    let stage = Stage::new();
    stage.file("dir/file", "");
    let small = Small::mount(stage.source().join("dir/small"), "size=1m");
    fs::write(small.0.join("file"), "theirs").unwrap();
    let error = remove(stage.top(), "source").unwrap_err();
    assert_eq!(errno(&error), Errno::XDEV, "{error}");
    assert!(exists(&small.0.join("file")));
    assert!(!exists(&stage.source().join("dir/file")));
    let bound = stage.source().join("bound");
    fs::create_dir(&bound).unwrap();
    fs::write(stage.copy().join("file"), "theirs").unwrap();
    command("mount", &[&"--bind", &stage.copy(), &bound]);
    let error = remove(stage.top(), "source").unwrap_err();
    command("umount", &[&bound]);
    assert_eq!(errno(&error), Errno::XDEV, "{error}");
    assert!(exists(&stage.copy().join("file")));
}

#[test]
fn a_removal_that_is_cancelled_ends() {
    let stage = Stage::new();
    stage.file("dir/file", "");
    let top = File::open(stage.top()).unwrap();
    let progress = Progress::new();
    progress.cancel();
    let error = remove_tree(&top, OsStr::new("source"), Some(&progress)).unwrap_err();
    assert!(matches!(error, Error::Cancelled), "{error}");
    assert!(exists(&stage.source().join("dir/file")));
    let progress = Progress::new();
    remove_tree(&top, OsStr::new("source"), Some(&progress)).unwrap();
    assert_eq!(progress.files(), 1);
}

#[test]
fn several_may_remove_the_same_tree() {
    for _ in 0..8 {
        let stage = Stage::new();
        for index in 0..200 {
            stage.file(&format!("{}/{}/{index}", index % 5, index % 7), "");
        }
        deep(&stage.source(), 60, "d");
        let at_once = std::sync::Barrier::new(4);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    at_once.wait();
                    remove(stage.top(), "source").unwrap();
                });
            }
        });
        assert!(!exists(&stage.source()));
    }
}

#[test]
fn somebody_who_goes_on_writing_ends_it_at_most() {
    let stage = Stage::new();
    stage.file("dir/sub/file", "");
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _ends = Ends(&ended);
        scope.spawn(|| {
            let mut count = 0;
            while !ended.load(Ordering::Relaxed) {
                count += 1;
                let _ = fs::create_dir_all(stage.source().join("dir/sub"));
                let _ = File::create(stage.source().join(format!("dir/sub/{count}")));
            }
        });
        for _ in 0..100 {
            if let Err(error) = remove(stage.top(), "source") {
                assert_eq!(errno(&error), Errno::NOTEMPTY, "{error}");
            }
        }
    });
    remove(stage.top(), "source").unwrap();
    assert!(!exists(&stage.source()));
}

#[test]
fn what_is_written_meanwhile_is_removed_too() {
    let (mut rounds, mut written) = (0, 0);
    let deadline = Instant::now() + Duration::from_secs(120);
    while rounds < 50 || written == 0 {
        assert!(
            Instant::now() < deadline,
            "nothing was written while it was removed"
        );
        rounds += 1;
        let stage = Stage::new();
        let file = stage.file("dir/sub/file", "");
        let (ready, ended) = (AtomicBool::new(false), AtomicBool::new(false));
        std::thread::scope(|scope| {
            let _ends = Ends(&ended);
            let writer = scope.spawn(|| {
                // Each of these is one more try at most.
                let mut count = 0;
                ready.store(true, Ordering::Relaxed);
                while count < 5 && !ended.load(Ordering::Relaxed) {
                    if !exists(&file) && File::create(&file).is_ok() {
                        count += 1;
                    }
                }
                count
            });
            while !ready.load(Ordering::Relaxed) {
                std::thread::yield_now();
            }
            remove(stage.top(), "source").unwrap();
            ended.store(true, Ordering::Relaxed);
            written += writer.join().unwrap();
        });
    }
}

#[test]
fn names_that_are_swapped_for_symlinks_lead_nowhere() {
    let stage = Stage::new();
    let outside = stage.copy();
    for name in ["file", "sub/file", "sub/deeper/file"] {
        fs::create_dir_all(outside.join(name).parent().unwrap()).unwrap();
        fs::write(outside.join(name), "theirs").unwrap();
    }
    let ended = AtomicBool::new(false);
    let at = |name: &str| stage.source().join(name);
    std::thread::scope(|scope| {
        let _ends = Ends(&ended);
        scope.spawn(|| {
            while !ended.load(Ordering::Relaxed) {
                let link = stage.top().join("link");
                let _ = symlink("copy", &link);
                let _ =
                    rustix::fs::renameat_with(CWD, &link, CWD, at("dir"), RenameFlags::EXCHANGE);
                // What was in the tree is thrown away, so that it is made anew.
                let _ = fs::remove_dir_all(&link).or_else(|_| fs::remove_file(&link));
            }
        });
        for _ in 0..150 {
            for dir in ["dir/sub/deeper", "dir/other", "other/sub"] {
                // Beside the one who swaps, this may fail, or be made outside.
                let _ = fs::create_dir_all(at(dir));
            }
            let result = remove(stage.top(), "source");
            assert!(result.is_ok(), "{result:?}");
            for name in ["file", "sub/file", "sub/deeper/file"] {
                assert!(exists(&outside.join(name)), "{name}");
            }
        }
    });
}

#[test]
fn directories_that_are_moved_away_lead_nowhere() {
    let stage = Stage::new();
    let outside = stage.copy();
    for index in 0..10 {
        fs::create_dir(outside.join(format!("sibling{index}"))).unwrap();
        fs::write(outside.join(format!("sibling{index}/file")), "theirs").unwrap();
    }
    let (inside, away) = (stage.source().join("a/b/c/d/e"), outside.join("e"));
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _ends = Ends(&ended);
        scope.spawn(|| {
            while !ended.load(Ordering::Relaxed) {
                let _ = fs::rename(&inside, &away);
                let _ = fs::rename(&away, &inside);
            }
        });
        for _ in 0..300 {
            let _ = fs::create_dir_all(inside.join("f/g/h/i/j/k/l/m/n/o/p"));
            for index in 0..10 {
                let sibling = stage.source().join(format!("a/b/c/d/sibling{index}"));
                let _ = fs::create_dir_all(&sibling);
            }
            if let Err(error) = remove(stage.top(), "source") {
                assert!(
                    matches!(errno(&error), Errno::STALE | Errno::NOTEMPTY | Errno::NOENT),
                    "{error}"
                );
            }
            for index in 0..10 {
                assert!(exists(&outside.join(format!("sibling{index}/file"))));
            }
        }
    });
}
