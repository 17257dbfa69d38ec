//! Reading: large files in sequence and at random, small ones one after the other, and packing.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};

use crate::Step;

const MIB: usize = 1 << 20;
const PAGE: u64 = 4096;

/// Reads a file whole. Counts bytes.
pub(crate) fn sequential(path: PathBuf) -> Vec<Step> {
    let mut buffer = vec![0; MIB];
    vec![Step::reading("read", move || {
        let mut file = File::open(&path).with_context(|| format!("opening {}", path.display()))?;
        drain(&mut file, &mut buffer).with_context(|| format!("reading {}", path.display()))
    })]
}

/// Reads `count` pages, the same ones every time. Counts reads.
///
/// To be warm, the whole file is read in sequence before: a disk is slow at what is done here.
pub(crate) fn random(
    path: &Path,
    count: u64,
    member: u32,
    warm: bool,
) -> anyhow::Result<Vec<Step>> {
    let shown = path.display().to_string();
    let size = fs::metadata(path)
        .with_context(|| format!("looking at {shown}"))?
        .len();
    let pages = size / PAGE;
    if pages == 0 {
        bail!("{shown} is too small to be read at random: use one of {PAGE} bytes or more");
    }
    let path = path.to_owned();
    if warm {
        for mut step in sequential(path.clone()) {
            (step.run)()?;
        }
    }
    Ok(vec![Step::reading("random", move || {
        let file = File::open(&path).with_context(|| format!("opening {shown}"))?;
        let mut page = [0; PAGE as usize];
        let mut places = Random::new(member);
        for _ in 0..count {
            file.read_exact_at(&mut page, places.next() % pages * PAGE)
                .with_context(|| format!("reading {shown}"))?;
        }
        Ok(count)
    })])
}

/// Packs with tar, into a pipe: GNU tar does not read files for `/dev/null`. Counts bytes of the archive.
pub(crate) fn tar(arguments: Vec<OsString>) -> Vec<Step> {
    let mut buffer = vec![0; MIB];
    vec![Step::reading("tar", move || {
        let mut packing = Command::new("tar")
            .arg("-cf-")
            .args(&arguments)
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot run tar")?;
        let mut archive = packing.stdout.take().context("no standard output")?;
        let bytes = drain(&mut archive, &mut buffer).context("reading what tar writes")?;
        let status = packing.wait()?;
        if !status.success() {
            bail!("tar failed: {status}");
        }
        Ok(bytes)
    })]
}

/// Opens, reads and closes each file, `passes` times. Their names are listed before. Counts files.
pub(crate) fn open_read_close(directory: &Path, passes: u32) -> anyhow::Result<Vec<Step>> {
    let shown = || format!("listing {}", directory.display());
    let mut files = fs::read_dir(directory)
        .with_context(shown)?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<Vec<_>, _>>()
        .with_context(shown)?;
    files.sort();
    let mut buffer = vec![0; 64 * 1024];
    Ok(vec![Step::reading("open-read-close", move || {
        let mut count = 0;
        for _ in 0..passes {
            for path in &files {
                let shown = || format!("reading {}", path.display());
                let mut file = File::open(path).with_context(shown)?;
                drain(&mut file, &mut buffer).with_context(shown)?;
                count += 1;
            }
        }
        Ok(count)
    })])
}

/// Reads to the end; gives the number of bytes.
fn drain(from: &mut impl Read, buffer: &mut [u8]) -> std::io::Result<u64> {
    let mut bytes = 0;
    loop {
        match from.read(buffer)? {
            0 => return Ok(bytes),
            read => bytes += read as u64,
        }
    }
}

/// Marsaglia's xorshift64*: fast, and the same numbers in every run.
struct Random(u64);

impl Random {
    fn new(seed: u32) -> Self {
        Self(0x9e37_79b9_7f4a_7c15 ^ (u64::from(seed) << 32))
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11
    }
}
