//! Reads the bytes of one file once, hashes and writes them.
//!
//! The hash needs every byte, so `copy_file_range` would save only a copy from memory to memory, and would hide the
//! copied bytes from the hash. A clone (`FICLONE`: btrfs, xfs, bcachefs) saves the writing: then the clone is read and
//! hashed, not the source, and the hash is that of the copy's content.

use std::os::fd::{AsFd, BorrowedFd};

use blake3::Hash;
use rustix::io::Errno;

use super::digest::{BLOCK, Buffer, Digest};
use super::holes::Holes;
use super::page_cache::{self, Before, WINDOW};
use super::page_cache::{Window, Windows};
use super::work::Work;
use crate::transfer::error::{Context, Failure};

/// How much of a hole is hashed at once.
const HOLE: u64 = 1 << 20;

/// The smallest hole that is made of zeros that were read: the block size of most disks.
const ZEROS: usize = 4 << 10;

/// The source and the target of a file's bytes.
pub(super) struct Stream<'a> {
    pub(super) from: BorrowedFd<'a>,
    /// `None` if they are only hashed.
    pub(super) to: Option<BorrowedFd<'a>>,
    pub(super) size: u64,
    pub(super) holes: Holes,
    /// Which windows of `from` were cached, if known.
    pub(super) before: Option<Before>,
}

/// The state of a file's copy.
struct Moving<'a> {
    digest: Digest,
    windows: Windows<'a>,
    before: Before,
    buffer: &'a mut Buffer,
    /// The number of bytes that were read.
    read: u64,
    /// The end of the last bytes that were written.
    written: u64,
}

impl Stream<'_> {
    /// Moves all bytes, and returns their hash. The target must be empty.
    pub(super) fn run(mut self, work: &Work<'_>, buffer: &mut Buffer) -> Result<Hash, Failure> {
        if self.size > BLOCK as u64 {
            page_cache::in_sequence(self.from);
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
        // That thread makes no call that fails.
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
            // Windows begin at multiples of their size, regardless of holes.
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

    /// Moves one block, and returns its length.
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

    /// Writes a block, and returns the end of its last written bytes. Where holes are unknown, blocks of zeros become
    /// holes.
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

/// Whether all bytes are zero.
fn is_zero(bytes: &[u8]) -> bool {
    // A comparison of memory, which is fast.
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

/// Repeats a call that a signal interrupted.
fn retry<T>(mut call: impl FnMut() -> rustix::io::Result<T>) -> rustix::io::Result<T> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            result => return result,
        }
    }
}
