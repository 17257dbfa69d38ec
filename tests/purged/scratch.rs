//! Jobs in a primary, their copies, and purges.

use std::fs::{self, File, FileTimes};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

pub(crate) const TASK: &str = "my.module.train";

/// A generator of numbers, the same for each seed.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % limit as u64).unwrap()
    }

    pub(crate) fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }
}

/// The files of a finished job.
pub(crate) const FILES: [&str; 9] = [
    "params.json",
    "train.done",
    "train.out",
    "train.err",
    "data/model.bin",
    "data/deep/er/weights.bin",
    ".experimaestro/status.json",
    ".experimaestro/task-outputs.jsonl",
    ".experimaestro/events/event-0.jsonl",
];

pub(crate) fn age(path: &Path, days: u64) {
    let time =
        SystemTime::now() - Duration::from_secs(days * 86_400) + Duration::from_nanos(12_345_678);
    let times = FileTimes::new().set_modified(time).set_accessed(time);
    File::open(path).unwrap().set_times(times).unwrap();
}

/// Writes a finished job whose files are some days old.
pub(crate) fn write_job(job: &Path, random: &mut Random) {
    for name in FILES {
        let path = job.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let content = match name {
            "params.json" => "{}".to_owned(),
            "train.done" => String::new(),
            ".experimaestro/status.json" => r#"{"state": "done"}"#.to_owned(),
            _ => format!("{name} {}", random.below(1_000_000)),
        };
        fs::write(&path, content).unwrap();
        age(&path, 10 + random.below(100) as u64);
    }
    symlink("model.bin", job.join("data/latest")).unwrap();
    fs::create_dir(job.join("empty")).unwrap();
    for directory in [
        "data/deep/er",
        "data/deep",
        "data",
        ".experimaestro/events",
        ".experimaestro",
        "empty",
        "",
    ] {
        age(&job.join(directory), 10);
    }
}

/// Copies a directory with all times.
pub(crate) fn duplicate(from: &Path, to: &Path) {
    fs::create_dir_all(to.parent().unwrap()).unwrap();
    let done = Command::new("cp").arg("-a").arg(from).arg(to).status();
    assert!(done.unwrap().success());
}

/// All files and symlinks below a directory, relative to it.
pub(crate) fn files(top: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut next = vec![top.to_owned()];
    while let Some(directory) = next.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            // A recovery or another purge removes entries at the same time.
            let Ok(stat) = path.symlink_metadata() else {
                continue;
            };
            match stat.is_dir() {
                true => next.push(path),
                false => found.push(path.strip_prefix(top).unwrap().to_owned()),
            }
        }
    }
    found.sort();
    found
}

/// Files that are young when a job is purged.
const YOUNG: [&str; 3] = ["train.lock", "train.failed", "data/mine"];

/// Removes old files of a job, at least one, and leaves its directories; returns their names.
pub(crate) fn purge(job: &Path, random: &mut Random) -> Vec<PathBuf> {
    let mut all = files(job);
    all.retain(|name| !YOUNG.iter().any(|young| name == Path::new(young)));
    let percent = [10, 50, 95, 100][random.below(4)];
    let mut removed: Vec<PathBuf> = all
        .iter()
        .filter(|_| random.chance(percent))
        .cloned()
        .collect();
    if removed.is_empty() {
        removed.push(all[random.below(all.len())].clone());
    }
    for name in &removed {
        fs::remove_file(job.join(name)).unwrap();
    }
    removed
}
