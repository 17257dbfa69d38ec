//! What a copy takes of the machine: bandwidth, and the page cache.

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::fs::Advice;
use xpmfs::transfer::{Bandwidth, Options, Progress};

use super::Stage;
use super::tree::assert_same;
use crate::common;

#[test]
fn copies_share_a_bandwidth() {
    const RATE: u64 = 4 << 20;
    let stages = [Stage::new(), Stage::new()];
    let (progress, bandwidth) = (Progress::new(), Bandwidth::new(Some(RATE)));
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for stage in &stages {
            for index in 0..4 {
                stage.file(&format!("{index}"), vec![index; 1 << 20]);
            }
            let options = Options {
                progress: Some(&progress),
                bandwidth: Some(&bandwidth),
                ..Options::default()
            };
            scope.spawn(move || stage.run(&options).unwrap());
        }
    });
    assert_eq!((progress.files(), progress.bytes()), (8, 8 << 20));
    // Two seconds' worth; one copy that did not know of the other would take one.
    assert!(
        begun.elapsed() > Duration::from_millis(1_400),
        "{:?}",
        begun.elapsed()
    );
}

/// How many bytes of a file are in the cache. Asking by reading would read ahead.
fn cached(path: &Path) -> u64 {
    let mut fincore = Command::new("fincore");
    let output = fincore.args(["-b", "-n", "-o", "RES"]).arg(path).output();
    let printed = String::from_utf8(output.unwrap().stdout).unwrap();
    printed.trim().parse().unwrap()
}

#[test]
fn the_page_cache_is_left_as_it_was() {
    if common::program("fincore").is_none() {
        return;
    }
    let stage = Stage::new();
    let content: Vec<u8> = (0..6u32 << 20).flat_map(u32::to_le_bytes).collect();
    let (cold, warm) = (stage.file("cold", &content), stage.file("warm", &content));
    for path in [&cold, &warm] {
        let file = File::open(path).unwrap();
        file.sync_all().unwrap();
        rustix::fs::fadvise(&file, 0, None, Advice::DontNeed).unwrap();
    }
    if cached(&cold) != 0 {
        common::say("SKIPPED: this file system keeps everything in memory");
        return;
    }
    fs::read(&warm).unwrap();
    // The kernel itself may drop some of it while other tests need memory.
    let most = content.len() as u64 / 10 * 9;
    assert!(cached(&warm) >= most);
    stage.run(&Options::default()).unwrap();
    assert_eq!(cached(&cold), 0);
    assert!(cached(&warm) >= most);
    for name in ["cold", "warm"] {
        assert_eq!(cached(&stage.copy().join(name)), 0, "{name}");
    }
    assert_same(&stage.source(), &stage.copy());
}
