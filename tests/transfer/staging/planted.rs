//! What somebody has put under the names leads nowhere, and nobody waits for it.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use xpmfs::transfer::staging::StagingError;

use super::Task;

#[test]
fn a_symlink_or_a_file_in_the_place_of_the_staging_leads_nowhere() {
    let task = Task::new();
    let plant: [fn(&Task); 4] = [
        |task| symlink(task.outside(), task.at(".tmp.hash")).unwrap(),
        |task| symlink(task.outside().join("file"), task.at(".tmp.hash")).unwrap(),
        |task| fs::write(task.at(".tmp.hash"), "").unwrap(),
        |task| {
            task.dir(".tmp.hash", "old");
            symlink(task.outside(), task.at(".tmp.hash/link")).unwrap();
        },
    ];
    for plant in plant {
        plant(&task);
        let staging = task.staged("hash", "new");
        assert_eq!(super::names(&task.at(".tmp.hash")), ["which"]);
        task.assert_outside_is_whole();
        drop(staging);
        // And by letting go.
        plant(&task);
        drop(task.take("hash"));
        assert_eq!(task.names(), [""; 0]);
        task.assert_outside_is_whole();
    }
}

/// Puts something at a path.
type Plant = fn(&Path);

#[test]
fn what_is_no_lock_file_is_named_and_not_waited_for() {
    let task = Task::new();
    let plant: [(&str, Plant); 4] = [
        ("a symlink", |path| {
            symlink("../outside/file", path).unwrap()
        }),
        ("a symlink", |path| symlink("../outside/new", path).unwrap()),
        ("a directory", |path| fs::create_dir(path).unwrap()),
        ("a fifo", |path| crate::command("mkfifo", &[&path])),
    ];
    for (what, plant) in plant {
        let path = task.at(".tmp.hash.lock");
        plant(&path);
        let error = task.try_take("hash").unwrap_err();
        assert!(matches!(error, StagingError::NotALock { .. }), "{error}");
        assert!(error.to_string().contains(what), "{error}");
        assert!(fs::symlink_metadata(&path).is_ok());
        let _ = fs::remove_file(&path).or_else(|_| fs::remove_dir(&path));
        task.assert_outside_is_whole();
    }
}
