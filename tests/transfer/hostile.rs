//! Somebody swaps names in the source all the time: nothing from outside gets into a copy, and none goes
//! elsewhere.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{CWD, RenameFlags};
use xpmfs::transfer::Options;

use super::Stage;

const SECRET: &str = "SECRET";

fn holds_secret(top: &Path) -> bool {
    let mut waiting = vec![top.to_owned()];
    while let Some(path) = waiting.pop() {
        let kind = fs::symlink_metadata(&path).unwrap().file_type();
        if kind.is_dir() {
            waiting.extend(
                fs::read_dir(&path)
                    .unwrap()
                    .map(|entry| entry.unwrap().path()),
            );
        } else if kind.is_file() && fs::read(&path).unwrap() == SECRET.as_bytes() {
            return true;
        }
    }
    false
}

/// Ends whoever swaps names, also when the test fails.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn names_that_are_swapped_for_symlinks_lead_nowhere() {
    let stage = Stage::new();
    for dir in ["outside", "outside/sub", "outside/sub/deeper"] {
        fs::create_dir_all(stage.top().join(dir)).unwrap();
        fs::write(stage.top().join(dir).join("file"), SECRET).unwrap();
    }
    for index in 0..20 {
        stage.file(&format!("dir/sub/deeper/{index}"), "mine");
    }
    stage.file("dir/file", "mine");
    stage.file("dir/sub/file", "mine");
    let at = |name: &str| stage.source().join(name);
    symlink("../../outside", at("swap-dir")).unwrap();
    symlink(stage.top().join("outside"), at("swap-dir")).unwrap_err();
    symlink(stage.top().join("outside/sub"), at("swap-sub")).unwrap();
    symlink(stage.top().join("outside/file"), at("swap-file")).unwrap();
    let pairs = [
        ("dir", "swap-dir"),
        ("dir/sub", "swap-sub"),
        ("dir/file", "swap-file"),
    ];
    let ended = AtomicBool::new(false);
    let outcomes = std::thread::scope(|scope| {
        let _ends = Ends(&ended);
        scope.spawn(|| {
            while !ended.load(Ordering::Relaxed) {
                for (a, b) in pairs {
                    // Through the one or the other, the names may be gone for a moment.
                    let exchange = RenameFlags::EXCHANGE;
                    let _ = rustix::fs::renameat_with(CWD, at(a), CWD, at(b), exchange);
                    let _ = rustix::fs::renameat_with(CWD, at(a), CWD, at(b), exchange);
                }
            }
        });
        (0..300)
            .map(|_| {
                stage.again();
                let result = stage.run(&Options::default());
                assert!(!holds_secret(&stage.copy()), "{result:?}");
                result.map(drop)
            })
            .collect::<Vec<_>>()
    });
    let changed = outcomes.iter().flat_map(|outcome| outcome.as_ref().err());
    let mut count = 0;
    for error in changed {
        assert!(error.is_changed(), "{error}");
        count += 1;
    }
    assert!(count > 0, "nothing was swapped while it was copied");
    for name in [
        "outside/file",
        "outside/sub/file",
        "outside/sub/deeper/file",
    ] {
        assert_eq!(fs::read_to_string(stage.top().join(name)).unwrap(), SECRET);
    }
}

#[test]
fn directories_that_are_moved_away_lead_nowhere() {
    let stage = Stage::new();
    let deep = "a/b/c/d/e/f/g/h/i/j/k/l/m/n/o/p";
    stage.file(&format!("{deep}/file"), "mine");
    fs::create_dir(stage.top().join("outside")).unwrap();
    fs::write(stage.top().join("outside/file"), SECRET).unwrap();
    // What the directory that it is moved to holds has the names of what it was moved from.
    for index in 0..10 {
        stage.file(&format!("a/b/c/d/sibling{index}/file"), "mine");
        let sibling = stage.top().join(format!("outside/sibling{index}"));
        fs::create_dir(&sibling).unwrap();
        fs::write(sibling.join("file"), SECRET).unwrap();
    }
    let (inside, outside) = (
        stage.source().join("a/b/c/d/e"),
        stage.top().join("outside/e"),
    );
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _ends = Ends(&ended);
        scope.spawn(|| {
            while !ended.load(Ordering::Relaxed) {
                fs::rename(&inside, &outside).unwrap();
                fs::rename(&outside, &inside).unwrap();
            }
        });
        for _ in 0..300 {
            stage.again();
            let result = stage.run(&Options::default());
            assert!(!holds_secret(&stage.copy()), "{result:?}");
            if let Err(error) = result {
                assert!(error.is_changed(), "{error}");
            }
        }
    });
}
