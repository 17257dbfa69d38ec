//! Writing: many small files, a large one, and a log that grows.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::Step;

const MIB: usize = 1 << 20;

/// Creates, renames and removes `count` files, in a directory of this member's own. Counts files.
pub(crate) fn files(directory: &Path, count: u64, member: u32) -> anyhow::Result<Vec<Step>> {
    let own = directory.join(format!("files-{member}"));
    fs::create_dir(&own).with_context(|| format!("making {}", own.display()))?;
    let before: Vec<PathBuf> = (0..count).map(|n| own.join(format!("new-{n}"))).collect();
    let after: Vec<PathBuf> = (0..count)
        .map(|n| own.join(format!("renamed-{n}")))
        .collect();
    let (created, renamed, removed) = (before.clone(), (before, after.clone()), after);
    Ok(vec![
        Step::writing("create", move || {
            for path in &created {
                File::create_new(path)
                    .and_then(|mut file| file.write_all(&[b'x'; 1024]))
                    .with_context(|| format!("creating {}", path.display()))?;
            }
            Ok(count)
        }),
        Step::writing("rename", move || {
            for (from, to) in renamed.0.iter().zip(&renamed.1) {
                fs::rename(from, to).with_context(|| format!("renaming {}", from.display()))?;
            }
            Ok(count)
        }),
        Step::writing("remove", move || {
            for path in &removed {
                fs::remove_file(path).with_context(|| format!("removing {}", path.display()))?;
            }
            Ok(count)
        }),
    ])
}

/// Writes a file of `size` bytes and makes it durable. Counts bytes.
pub(crate) fn large(directory: &Path, size: u64, member: u32) -> Vec<Step> {
    let path = directory.join(format!("large-{member}"));
    // Not zeros, which some disks make nothing of.
    let block: Vec<u8> = (0..MIB).map(|n| (n * 31 % 251) as u8).collect();
    vec![Step::writing("write", move || {
        write_durably(&path, size, &block)
            .with_context(|| format!("writing {}", path.display()))?;
        Ok(size)
    })]
}

fn write_durably(path: &Path, size: u64, block: &[u8]) -> std::io::Result<()> {
    let mut file = File::create_new(path)?;
    let mut left = size;
    while left > 0 {
        let length = left.min(block.len() as u64);
        file.write_all(block.get(..length as usize).unwrap_or(block))?;
        left -= length;
    }
    file.sync_all()
}

/// Appends `count` lines of 100 bytes, a system call each. Counts lines.
pub(crate) fn append(directory: &Path, count: u64, member: u32) -> anyhow::Result<Vec<Step>> {
    let path = directory.join(format!("log-{member}"));
    let shown = format!("appending to {}", path.display());
    let mut log = OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .with_context(|| shown.clone())?;
    let mut line = [b'.'; 100];
    line[99] = b'\n';
    Ok(vec![Step::writing("append", move || {
        for _ in 0..count {
            log.write_all(&line).with_context(|| shown.clone())?;
        }
        Ok(count)
    })])
}
