//! Copies directories as xpmfs does, durably and with hashes, to measure it beside `cp -a` and `rsync -a`:
//! `copy [--jobs N] SOURCE DESTINATION`. With `--jobs`, each directory of SOURCE is a copy of its own, as a job is,
//! N of them at a time, and all are made durable together.
#![allow(clippy::print_stderr)]

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use xpmfs::transfer::{Copied, Durability, Options, Writeback, copy};

fn main() -> Result<()> {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    let mut jobs = 0;
    if arguments
        .first()
        .is_some_and(|argument| argument == "--jobs")
    {
        jobs = arguments.get(1).context("--jobs needs a number")?.parse()?;
        arguments.drain(..2);
    }
    let [source, destination] = arguments.as_slice() else {
        bail!("usage: copy [--jobs N] SOURCE DESTINATION");
    };
    let (source, destination) = (Path::new(source), Path::new(destination));
    fs::create_dir(destination)
        .with_context(|| format!("cannot create {}", destination.display()))?;
    let begun = Instant::now();
    let (files, bytes) = match jobs {
        0 => counts(&one(source, destination, &Options::default())?),
        jobs => together(source, destination, jobs)?,
    };
    File::open(destination)?.sync_all()?;
    let seconds = begun.elapsed().as_secs_f64();
    eprintln!("{files} files, {bytes} bytes, {seconds:.3} s");
    Ok(())
}

fn one(source: &Path, destination: &Path, options: &Options<'_>) -> Result<Copied> {
    let from = File::open(source).with_context(|| source.display().to_string())?;
    let to = File::open(destination).with_context(|| destination.display().to_string())?;
    let copied = copy(&from, &to, options).with_context(|| source.display().to_string())?;
    for loss in &copied.losses {
        eprintln!("{}: {loss}", source.display());
    }
    Ok(copied)
}

fn counts(copied: &Copied) -> (u64, u64) {
    (copied.manifest.files(), copied.manifest.bytes())
}

fn together(source: &Path, destination: &Path, jobs: usize) -> Result<(u64, u64)> {
    let writeback = Writeback::watch(File::open(destination)?)?;
    let names = fs::read_dir(source)?.map(|entry| Ok(PathBuf::from(entry?.file_name())));
    let names = names.collect::<Result<Vec<_>>>()?;
    let next = AtomicUsize::new(0);
    let options = Options {
        durability: Durability::Together(&writeback),
        ..Options::default()
    };
    let work = || -> Result<(u64, u64)> {
        let mut sum = (0, 0);
        while let Some(name) = names.get(next.fetch_add(1, Ordering::Relaxed)) {
            let to = destination.join(name);
            fs::create_dir(&to)?;
            let (files, bytes) = counts(&one(&source.join(name), &to, &options)?);
            sum = (sum.0 + files, sum.1 + bytes);
        }
        Ok(sum)
    };
    let sums: Vec<Result<(u64, u64)>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..jobs).map(|_| scope.spawn(work)).collect();
        threads
            .into_iter()
            .filter_map(|thread| thread.join().ok())
            .collect()
    });
    writeback.sync()?;
    sums.into_iter().try_fold((0, 0), |sum, one| {
        one.map(|one| (sum.0 + one.0, sum.1 + one.1))
    })
}
