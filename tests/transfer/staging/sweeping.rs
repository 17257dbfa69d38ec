//! What dead owners have left goes; what has an owner, or is none of ours, stays.

use std::fs;
use std::os::unix::fs::symlink;

use xpmfs::transfer::staging::sweep;

use super::{Task, lock};

#[test]
fn what_nobody_holds_is_removed_and_all_else_stays() {
    let task = Task::new();
    task.dir("job", "mine");
    task.dir(".hidden", "mine");
    task.dir(".tmp.dead", "");
    fs::write(task.at(".tmp.dead.lock"), "").unwrap();
    task.dir(".tmp.without", "");
    symlink(task.outside(), task.at(".tmp.link")).unwrap();
    fs::write(task.at(".tmp.orphan.lock"), "").unwrap();
    fs::write(task.at(".tmp.notes"), "a person's").unwrap();
    task.dir(".tmp.theirs", "grows");
    let _held = lock(&task.at(".tmp.theirs.lock"));
    let ours = task.staged("ours", "grows");
    assert_eq!(sweep(task.fd()).unwrap(), 4);
    let left = [
        ".hidden",
        ".tmp.notes",
        ".tmp.ours",
        ".tmp.ours.lock",
        ".tmp.theirs",
        ".tmp.theirs.lock",
        "job",
    ];
    assert_eq!(task.names(), left);
    assert_eq!(task.which(".tmp.theirs"), "grows");
    assert!(ours.holds().unwrap());
    task.assert_outside_is_whole();
    assert_eq!(sweep(task.fd()).unwrap(), 0);
}

#[test]
fn one_that_cannot_be_removed_does_not_keep_the_others() {
    let task = Task::new();
    for name in [".tmp.a", ".tmp.b", ".tmp.c"] {
        task.dir(name, "");
    }
    fs::create_dir(task.at(".tmp.b.lock")).unwrap();
    assert_eq!(sweep(task.fd()).unwrap(), 3);
    assert_eq!(task.names(), [".tmp.b"]);
}

#[test]
fn several_may_sweep_while_others_stage() {
    let task = Task::new();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                for _ in 0..300 {
                    sweep(task.fd()).unwrap();
                }
            });
        }
        for thread in 0..2 {
            let task = &task;
            scope.spawn(move || {
                for index in 0..100 {
                    let hash = format!("{thread}-{index}");
                    // Somebody who sweeps may have the lock for a moment.
                    let mut staging = loop {
                        if let Some(staging) = task.try_take(&hash).unwrap() {
                            break staging;
                        }
                    };
                    staging.make().unwrap();
                    fs::write(task.at(&format!(".tmp.{hash}/which")), &hash).unwrap();
                    staging.publish().unwrap();
                    staging.finish(None).unwrap();
                }
            });
        }
    });
    let names = task.names();
    assert_eq!(names.len(), 200, "{names:?}");
    assert!(names.iter().all(|name| task.which(name) == *name));
}
