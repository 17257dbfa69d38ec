//! The bytes of one file: read once, hashed, and written.
//!
//! The hash needs every byte read, so that `copy_file_range` spares nothing but a copy from memory to memory, and hides what
//! was copied from the hash. A clone (`FICLONE`: btrfs, xfs, bcachefs) spares the writing: then the clone is
//! read and hashed, not the source, and the hash is of what stands in the copy.

use std::os::fd::{AsFd, BorrowedFd};

use blake3::Hash;
use rustix::io::Errno;

use super::cache::{self, Before, WINDOW};
use super::digest::Digest;
use super::error::{Context, Failure};
use super::holes::Holes;
use super::windows::{Window, Windows};
use super::work::Work;

/// How much is read and written at once: little enough to stay in the processor's cache between
/// reading, hashing and writing.
pub(super) const BLOCK: usize = 256 << 10;

/// How much of a hole is hashed at once.
const HOLE: u64 = 1 << 20;

/// The smallest hole that is made of zeros that were read: what most disks keep as one block.
const ZEROS: usize = 4 << 10;

/// What a thread reads into. It grows to what the largest file needs: to clear a large one for each small job would
/// take longer than the job.
#[derive(Default)]
pub(super) struct Buffer(Vec<u8>);

impl Buffer {
    pub(super) fn upto(&mut self, length: u64) -> &mut [u8] {
        let length = usize::try_from(length).unwrap_or(BLOCK).min(BLOCK);
        if self.0.len() < length {
            self.0.resize(length.next_power_of_two(), 0);
        }
        self.0.get_mut(..length).unwrap_or_default()
    }

    /// What it was filled with, so many bytes.
    pub(super) fn filled(&self, length: usize) -> &[u8] {
        self.0.get(..length).unwrap_or_default()
    }

    /// Gives what it holds away for other memory.
    pub(super) fn replace(&mut self, other: Vec<u8>) -> Vec<u8> {
        std::mem::replace(&mut self.0, other)
    }
}

/// Where the bytes of a file come from and go to.
pub(super) struct Stream<'a> {
    pub(super) from: BorrowedFd<'a>,
    /// `None` if they are only hashed.
    pub(super) to: Option<BorrowedFd<'a>>,
    pub(super) size: u64,
    pub(super) holes: Holes,
    /// What of `from` was cached, if it is known.
    pub(super) before: Option<Before>,
}

/// What is at hand while a file is moved.
struct Moving<'a> {
    digest: Digest,
    windows: Windows<'a>,
    before: Before,
    buffer: &'a mut Buffer,
    /// Bytes that were read.
    read: u64,
    /// Where the last bytes end that were written.
    written: u64,
}

impl Stream<'_> {
    /// Moves all bytes, and gives their hash. The file that is written must be empty.
    pub(super) fn run(mut self, work: &Work<'_>, buffer: &mut Buffer) -> Result<Hash, Failure> {
        if self.size > BLOCK as u64 {
            cache::in_sequence(self.from);
        }
        let mut moving = Moving {
            digest: Digest::new(self.size, work.options.threads),
            windows: Windows::new(self.from, self.to, self.size, work.options.threads),
            before: self
                .before
                .take()
                .unwrap_or_else(|| Before::of(self.from, self.size)),
            buffer,
            read: 0,
            written: 0,
        };
        let mut offset = 0;
        while let Some((data, end)) = self.holes.next(self.from, offset, self.size)? {
            self.hole(work, data - offset, &mut moving.digest)?;
            self.data(work, data, end, &mut moving)?;
            offset = end;
        }
        self.hole(work, self.size - offset, &mut moving.digest)?;
        if matches!(self.holes, Holes::Known(data) if moving.read < data) {
            return Err(Failure::Changed("it has other holes"));
        }
        if let Some(to) = self.to
            && moving.written < self.size
        {
            rustix::fs::ftruncate(to, self.size).copy("set the size of")?;
        }
        moving.windows.finish().copy("write")?;
        moving.before.restore(self.from);
        // That thread calls nothing that fails.
        moving.digest.finish().ok_or(Errno::IO).source("hash")
    }

    fn hole(&self, work: &Work<'_>, mut length: u64, digest: &mut Digest) -> Result<(), Failure> {
        while length > 0 {
            work.go_on()?;
            let step = length.min(HOLE);
            digest.add_zeros(step);
            work.count_bytes(step);
            length -= step;
        }
        Ok(())
    }

    fn data(
        &self,
        work: &Work<'_>,
        mut offset: u64,
        end: u64,
        moving: &mut Moving<'_>,
    ) -> Result<(), Failure> {
        while offset < end {
            // Windows begin at multiples of their size, whatever the holes.
            let start = offset;
            let stop = (start - start % WINDOW + WINDOW).min(end);
            while offset < stop {
                offset += self.block(work, offset, stop, moving)?;
            }
            let window = Window {
                start,
                length: stop - start,
                was_cached: moving.before.was_cached(start),
            };
            moving.windows.done(window).copy("write")?;
        }
        Ok(())
    }

    /// Moves one block, and gives its length.
    fn block(
        &self,
        work: &Work<'_>,
        offset: u64,
        stop: u64,
        moving: &mut Moving<'_>,
    ) -> Result<u64, Failure> {
        work.go_on()?;
        let block = moving.buffer.upto(stop - offset);
        work.wait_for_bandwidth(block.len() as u64)?;
        let length = retry(|| rustix::io::pread(self.from, &mut *block, offset)).source("read")?;
        let Some(block) = block.get(..length).filter(|block| !block.is_empty()) else {
            return Err(Failure::Changed("it became shorter"));
        };
        if let Some(to) = self.to
            && let Some(end) = self.write(to, block, offset)?
        {
            moving.written = end;
        }
        moving.read += length as u64;
        moving.digest.add(moving.buffer, length);
        work.count_bytes(length as u64);
        Ok(length as u64)
    }

    /// Writes a block, and gives where the last bytes of it end that were written. Where holes are not known, zeros become some.
    fn write(&self, to: BorrowedFd<'_>, block: &[u8], offset: u64) -> Result<Option<u64>, Failure> {
        let zeros = |from: usize| {
            let rest = block.get(from..).unwrap_or_default();
            let chunks = rest.chunks(ZEROS).take_while(|chunk| is_zero(chunk));
            chunks.map(<[u8]>::len).sum::<usize>()
        };
        let data = |from: usize| {
            let rest = block.get(from..).unwrap_or_default();
            let chunks = rest.chunks(ZEROS).take_while(|chunk| !is_zero(chunk));
            chunks.map(<[u8]>::len).sum::<usize>()
        };
        if self.holes != Holes::Unknown {
            write_all(to, block, offset).copy("write")?;
            return Ok(Some(offset + block.len() as u64));
        }
        let (mut at, mut end) = (zeros(0), None);
        while at < block.len() {
            let length = data(at);
            let bytes = block.get(at..at + length).unwrap_or_default();
            write_all(to, bytes, offset + at as u64).copy("write")?;
            at += length;
            end = Some(offset + at as u64);
            at += zeros(at);
        }
        Ok(end)
    }
}

/// Whether there is nothing but zeros.
fn is_zero(bytes: &[u8]) -> bool {
    // Compared as memory, which is fast.
    Some(bytes) == [0; ZEROS].get(..bytes.len())
}

fn write_all(to: impl AsFd, mut bytes: &[u8], mut offset: u64) -> rustix::io::Result<()> {
    while !bytes.is_empty() {
        let length = retry(|| rustix::io::pwrite(&to, bytes, offset))?;
        if length == 0 {
            return Err(Errno::IO);
        }
        bytes = bytes.get(length..).unwrap_or_default();
        offset += length as u64;
    }
    Ok(())
}

/// Calls again what a signal interrupted.
fn retry<T>(mut call: impl FnMut() -> rustix::io::Result<T>) -> rustix::io::Result<T> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            result => return result,
        }
    }
}
