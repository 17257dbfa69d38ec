//! The bytes of one file: read once, hashed, and written.
//!
//! The hash needs every byte read, so that `copy_file_range` spares nothing but a copy from memory to memory, and hides what
//! was copied from the hash. A clone (`FICLONE`: btrfs, xfs, bcachefs) spares the writing: then the clone is
//! read and hashed, not the source, and the hash is of what stands in the copy.

use std::os::fd::{AsFd, BorrowedFd};

use blake3::{Hash, Hasher};
use rustix::fs::SeekFrom::{Data, Hole};
use rustix::io::Errno;

use super::cache::{self, Before, WINDOW};
use super::error::{Context, Failure};
use super::work::Work;

/// How much is read and written at once: little enough to stay in the processor's cache between
/// reading, hashing and writing.
pub(super) const BLOCK: usize = 256 << 10;

/// Zeros for the hash of holes.
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// What a thread reads into. It grows to what the largest file needs: to clear a large one for each small job would
/// take longer than the job.
#[derive(Default)]
pub(super) struct Buffer(Vec<u8>);

impl Buffer {
    fn upto(&mut self, length: u64) -> &mut [u8] {
        let length = usize::try_from(length).unwrap_or(BLOCK).min(BLOCK);
        if self.0.len() < length {
            self.0.resize(length.next_power_of_two(), 0);
        }
        self.0.get_mut(..length).unwrap_or_default()
    }
}

/// Where the bytes of a file come from and go to.
pub(super) struct Stream<'a> {
    pub(super) from: BorrowedFd<'a>,
    /// `None` if they are only hashed.
    pub(super) to: Option<BorrowedFd<'a>>,
    pub(super) size: u64,
    /// What of `from` was cached, if it is known.
    pub(super) before: Option<Before>,
}

/// What is at hand while a file is moved.
struct Moving<'a> {
    hasher: Hasher,
    before: Before,
    buffer: &'a mut Buffer,
}

impl Stream<'_> {
    /// Moves all bytes, and gives their hash. The file that is written must be empty.
    pub(super) fn run(mut self, work: &Work<'_>, buffer: &mut Buffer) -> Result<Hash, Failure> {
        let mut moving = Moving {
            hasher: Hasher::new(),
            before: self
                .before
                .take()
                .unwrap_or_else(|| Before::of(self.from, self.size)),
            buffer,
        };
        let mut offset = 0;
        let mut written = 0;
        while offset < self.size {
            let (data, end) = self.next_data(offset)?;
            self.hole(work, data - offset, &mut moving.hasher)?;
            self.data(work, data, end, &mut moving)?;
            if data < end {
                written = end;
            }
            offset = end;
        }
        if let Some(to) = self.to
            && written < self.size
        {
            rustix::fs::ftruncate(to, self.size).copy("set the size of")?;
        }
        Ok(moving.hasher.finalize())
    }

    /// The next part that has data, from an offset on; an empty one at the end if there is none.
    fn next_data(&self, offset: u64) -> Result<(u64, u64), Failure> {
        // Always asked: a file's blocks hold its attributes, too, so that their number tells nothing of holes.
        let data = match rustix::fs::seek(self.from, Data(offset)) {
            Ok(data) => data.clamp(offset, self.size),
            Err(Errno::NXIO) => self.size,
            // A file system that does not tell of holes.
            Err(Errno::INVAL | Errno::OPNOTSUPP) => return Ok((offset, self.size)),
            Err(errno) => return Err(errno).source("look for holes in"),
        };
        if data == self.size {
            return Ok((data, data));
        }
        match rustix::fs::seek(self.from, Hole(data)) {
            Ok(hole) if hole > data => Ok((data, hole.min(self.size))),
            Ok(_) | Err(Errno::NXIO) => Err(Failure::Changed("its size is different")),
            Err(errno) => Err(errno).source("look for holes in"),
        }
    }

    fn hole(&self, work: &Work<'_>, mut length: u64, hasher: &mut Hasher) -> Result<(), Failure> {
        while length > 0 {
            work.go_on()?;
            let step = length.min(ZEROS.len() as u64);
            let zeros = usize::try_from(step)
                .ok()
                .and_then(|step| ZEROS.get(..step));
            hasher.update(zeros.unwrap_or(&ZEROS));
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
            if stop < end && !moving.before.was_cached(stop) {
                cache::ask(self.from, stop, WINDOW.min(end - stop));
            }
            while offset < stop {
                offset += self.block(work, offset, stop, moving)?;
            }
            if !moving.before.was_cached(start) {
                cache::drop(self.from, start, stop - start);
            }
            if let Some(to) = self.to
                && self.size > WINDOW
            {
                cache::written(to, start, stop - start).copy("write")?;
            }
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
        moving.hasher.update(block);
        if let Some(to) = self.to {
            write_all(to, block, offset).copy("write")?;
        }
        work.count_bytes(length as u64);
        Ok(length as u64)
    }
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
