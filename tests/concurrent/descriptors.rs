//! More files open at once than the daemon has descriptors for.

use std::fs::{self, File};
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::common::Workspace;

/// The least that a mount with three folders starts with; half of them are for open files.
const DESCRIPTORS: u64 = 280;
const READERS: usize = 400;
const ROUNDS: usize = 3;

#[test]
fn opens_wait_for_others_to_be_closed_and_attributes_do_not() {
    let workspace = Workspace::new();
    let at = workspace.mountpoint("mnt");
    let mounted = workspace.mount_with_descriptors(&at, DESCRIPTORS);
    let files: Vec<PathBuf> = (0..10).map(|n| at.join(format!("file-{n}"))).collect();
    for file in &files {
        fs::write(file, "x").unwrap();
    }
    let done = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for reader in 0..READERS {
            let (done, file) = (&done, &files[reader % files.len()]);
            scope.spawn(move || {
                let read = || {
                    let mut opened = File::open(file)?;
                    std::thread::sleep(Duration::from_millis(20));
                    std::io::read_to_string(&mut opened)
                };
                let contents: Vec<io::Result<String>> = (0..ROUNDS).map(|_| read()).collect();
                done.fetch_add(1, Ordering::SeqCst);
                for contents in contents {
                    assert_eq!(contents.unwrap(), "x");
                }
            });
        }
        scope.spawn(|| {
            while done.load(Ordering::SeqCst) < READERS {
                fs::metadata(&files[0]).unwrap();
                let entries = fs::read_dir(&at).unwrap();
                entries.for_each(|entry| drop(entry.unwrap()));
            }
        });
    });
    mounted.unmount();
}
