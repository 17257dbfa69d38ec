//! One system call after another fails, and a folder fails or is gone: nothing is lost, and the next run does it.

use std::fs;
use std::path::Path;

use crate::common::{program, say, soak};
use crate::full_disks::archive_fails;
use crate::scene::{Prepared, Scene, sample, try_each};
use crate::stage::{HASH, Stage, assert_tree, said, whole, write_job};

/// Calls of which an error may be of no importance, and why.
const HARMLESS: [&str; 4] = [
    // Removing what is not needed any more is tried again by the next.
    "unlink",
    "rmdir",  // A lock that cannot be shared with others of the group is still one.
    "fchmod", // What a disk cannot keep is told as a loss.
    "fsetxattr",
];

/// Lets calls of a scene fail.
fn fail_at_each(scene: Scene, error: &str) {
    if program("strace").is_none() {
        return;
    }
    let prepared = Prepared::new(scene);
    let all = prepared.points();
    let points = sample(&all, &["rename", "symlink", "fsync", "syncfs"]);
    let failed = try_each(scene, &points, |point| {
        let (stage, output) = prepared.with_fault(point, &format!("error={error}"));
        let failed = !output.status.success();
        if failed {
            assert_eq!(output.status.code(), Some(1), "{}", said(&output));
            assert!(
                said(&output).contains(stage.top().to_str().unwrap()),
                "{}",
                said(&output)
            );
        } else if !HARMLESS.iter().any(|name| point.0.starts_with(name)) {
            say(&format!("{scene:?}: {error} of {point:?} was borne"));
        }
        prepared.again(&stage);
        failed
    });
    say(&format!(
        "{scene:?}: {error} stopped it at {failed} of {} calls",
        points.len()
    ));
    assert!(failed * 2 > points.len(), "{failed} of {}", points.len());
}

#[test]
fn an_error_while_copying_and_moving_loses_nothing() {
    let modes = &["backup", "move"];
    let scenes = [
        ("EIO", false, true),
        ("ENOSPC", true, false),
        ("EIO", true, true),
    ];
    let scenes = if soak() { &scenes[..] } else { &scenes[..2] };
    for &(error, more, exchange) in scenes {
        fail_at_each(
            Scene {
                what: "archive",
                modes,
                more,
                exchange,
            },
            error,
        );
    }
}

#[test]
fn an_error_while_recovering_loses_nothing() {
    let modes = &["move"];
    for (error, exchange) in [("EIO", true), ("ENOSPC", false)] {
        fail_at_each(
            Scene {
                what: "recover",
                modes,
                more: true,
                exchange,
            },
            error,
        );
    }
}

#[test]
fn a_folder_that_is_gone_is_told_of_and_archived_to_when_it_is_back() {
    for modes in [&["backup"][..], &["move"], &["backup", "move"]] {
        let stage = Stage::new(modes);
        write_job(&stage.job());
        let job = whole(&stage.job()).unwrap();
        let (folder, away) = (stage.folder(modes[0]), stage.top().join("away"));
        fs::rename(&folder, &away).unwrap();
        archive_fails(&stage, &[folder.to_str().unwrap()]);
        assert!(!folder.exists());
        // What `backup` cannot have, `move` does not take away.
        assert!(!stage.job().is_symlink());
        fs::rename(&away, &folder).unwrap();
        stage.archive();
        for mode in modes {
            assert_tree(mode, &job, whole(&stage.archived(mode)).as_ref());
        }
        stage.verify();
        stage.assert_clean();
    }
}

#[test]
fn a_folder_that_fails_does_not_keep_a_job_from_the_next_backup() {
    let stage = Stage::new(&["backup", "move"]);
    write_job(&stage.job());
    let job = whole(&stage.job()).unwrap();
    fs::remove_dir(stage.folder("backup")).unwrap();
    let other = stage.top().join("other");
    fs::create_dir(&other).unwrap();
    let more = format!("backup:{}", other.display());
    let archive = || {
        let output = stage.jobs(&["archive", "--all", "--folder", &more]);
        assert_eq!(output.status.code(), Some(1), "{}", said(&output));
        said(&output)
    };
    let told = archive();
    let failed = |folder: &Path| format!("failed in backup:{}", folder.display());
    assert!(told.contains(&failed(&stage.folder("backup"))), "{told}");
    assert!(told.contains("1 copy made"), "{told}");
    assert!(told.contains(": 1 failed"), "{told}");
    let copy = other.join("jobs").join(super::stage::TASK).join(HASH);
    assert_tree("the copy", &job, whole(&copy).as_ref());
    assert!(!stage.job().is_symlink(), "moved without a backup");
    // Each folder is named that a job with too long a name cannot be copied to.
    fs::create_dir(stage.folder("backup")).unwrap();
    fs::rename(stage.job(), stage.job().with_file_name("a".repeat(255))).unwrap();
    let told = archive();
    for folder in [stage.folder("backup"), other] {
        assert!(told.contains(&failed(&folder)), "{told}");
    }
    assert!(told.contains(": 2 failed"), "{told}");
}
