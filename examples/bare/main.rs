//! Copies the files of jobs with the least that a durable copy takes, to measure what the disk and the kernel bound.
//!
//! ```text
//! bare SOURCE DESTINATION
//! ```
//!
//! SOURCE is a `jobs` directory; each job of it, `<task_id>/<hash>`, is copied by one of 16 threads: each file is opened, read and
//! written once. One `syncfs` at the end makes all of it durable. Nothing is hashed, locked, staged, renamed or checked, and
//! no times or attributes are kept: this is no way to archive anything.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result, bail};

/// How many jobs are copied at a time.
const THREADS: usize = 16;
/// Bytes that are read and written at a time.
const BLOCK: usize = 1 << 20;

fn main() -> Result<()> {
    let arguments: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [source, destination] = arguments.as_slice() else {
        bail!("usage: bare SOURCE DESTINATION");
    };
    let jobs = jobs(source, destination)?;
    let next = AtomicUsize::new(0);
    let work = || -> Result<()> {
        let mut block = vec![0; BLOCK];
        while let Some((from, to)) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
            copy(from, to, &mut block)?;
        }
        Ok(())
    };
    std::thread::scope(|scope| -> Result<()> {
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(work)).collect();
        for thread in threads {
            match thread.join() {
                Ok(done) => done?,
                Err(_) => bail!("a thread panicked"),
            }
        }
        Ok(())
    })?;
    let root = File::open(destination).with_context(|| destination.display().to_string())?;
    rustix::fs::syncfs(&root).with_context(|| format!("syncfs of {}", destination.display()))
}

/// Makes the directories of the tasks, and returns where each job lies and where its copy belongs.
fn jobs(source: &Path, destination: &Path) -> Result<Vec<(PathBuf, PathBuf)>> {
    let mut jobs = Vec::new();
    for task in names(source)? {
        let (from, to) = (source.join(&task), destination.join(&task));
        fs::create_dir_all(&to).with_context(|| to.display().to_string())?;
        for job in names(&from)? {
            jobs.push((from.join(&job), to.join(&job)));
        }
    }
    Ok(jobs)
}

fn names(directory: &Path) -> Result<Vec<std::ffi::OsString>> {
    fs::read_dir(directory)
        .and_then(|entries| entries.map(|entry| Ok(entry?.file_name())).collect())
        .with_context(|| directory.display().to_string())
}

fn copy(from: &Path, to: &Path, block: &mut [u8]) -> Result<()> {
    fs::create_dir(to).with_context(|| to.display().to_string())?;
    for name in names(from)? {
        let (from, to) = (from.join(&name), to.join(&name));
        let kind = fs::symlink_metadata(&from)
            .with_context(|| from.display().to_string())?
            .file_type();
        if kind.is_dir() {
            copy(&from, &to, block)?;
        } else if kind.is_file() {
            file(&from, &to, block).with_context(|| from.display().to_string())?;
        }
    }
    Ok(())
}

fn file(from: &Path, to: &Path, block: &mut [u8]) -> io::Result<()> {
    let (mut from, mut to) = (File::open(from)?, File::create_new(to)?);
    loop {
        let count = from.read(block)?;
        if count == 0 {
            return Ok(());
        }
        to.write_all(block.get(..count).unwrap_or_default())?;
    }
}
