//! The memory that a mount uses for all that the kernel knows.

use std::fs;
use std::path::Path;

use crate::TASK;
use crate::common::daemon::Footprint;
use crate::common::tracer::serving;
use crate::common::{self, Workspace, eventually};

/// The files of each job.
const FILES: usize = 100;

/// Reads the attributes of everything below a directory; returns how many entries there are.
fn walk(directory: &Path) -> usize {
    let mut count = 0;
    for entry in fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        let kind = entry.metadata().unwrap().file_type();
        count += 1;
        if kind.is_dir() {
            count += walk(&entry.path());
        }
    }
    count
}

#[test]
fn what_the_kernel_knows_takes_little_memory() {
    // Tables that grow must leave no holes in the heap, which shows with a million entries only.
    let (jobs, bytes_each) = match common::soak() {
        true => (10_000, 160),
        false => (300, 400),
    };
    let workspace = Workspace::builder().build();
    for job in 0..jobs {
        let job = workspace.finished("primary", TASK, &common::job::hash(job));
        for file in 0..FILES {
            fs::write(job.join(format!("a-file-of-the-job-{file}")), "").unwrap();
        }
    }
    let mountpoint = workspace.mountpoint("elsewhere");
    let mounted = workspace.mount_at(&mountpoint);
    let process = serving(&workspace, &mountpoint);
    let kibibytes = || Footprint::of(process).kibibytes;
    // With a first job, the threads that answer have their buffers.
    walk(&mounted.job(TASK, &common::job::hash(0)));
    let before = kibibytes();
    let entries = walk(&mounted.path().join("jobs"));
    assert!(entries > jobs * FILES);
    let most = (entries * bytes_each / 1024) as u64;
    common::say(&format!(
        "{entries} entries: {before} KiB before, {} after",
        kibibytes()
    ));
    eventually("little memory is in use", || kibibytes() <= before + most);
}
