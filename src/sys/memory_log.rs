//! An append-only log in memory that outlives the process that writes it, as long as another one has its descriptor.
//!
//! Each record is framed by its length and an end mark, and is written by one call. A process can be killed within that
//! call: a frame without its mark is not read, and the next record is written over it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::MemfdFlags;
use rustix::io::{Errno, Result};

/// The bytes before a record: its length.
const HEAD: usize = 4;

/// The byte after a record. Memory that has not been written is 0.
const MARK: u8 = 0xa5;

/// The maximum length of a record in bytes.
const LENGTH_MAX: usize = 1 << 20;

/// A log that is being written.
#[derive(Debug)]
pub struct MemoryLog {
    fd: OwnedFd,
    /// Where the next record goes.
    end: u64,
    frame: Vec<u8>,
}

impl MemoryLog {
    /// Makes an empty log.
    ///
    /// # Errors
    ///
    /// Out of descriptors or memory.
    pub fn new() -> Result<MemoryLog> {
        let fd = rustix::fs::memfd_create("xpmfs", MemfdFlags::CLOEXEC)?;
        Ok(MemoryLog {
            fd,
            end: 0,
            frame: Vec::new(),
        })
    }

    /// Continues a log behind its last whole record, and calls `each` with every record from the beginning on.
    ///
    /// # Errors
    ///
    /// The descriptor cannot be read.
    pub fn resume(fd: OwnedFd, mut each: impl FnMut(&[u8])) -> Result<MemoryLog> {
        let end = read(fd.as_fd(), 0, &mut each)?;
        // What a killed process has written in part must not follow the next records.
        rustix::fs::ftruncate(&fd, end)?;
        Ok(MemoryLog {
            fd,
            end,
            frame: Vec::new(),
        })
    }

    /// Adds a record.
    ///
    /// # Errors
    ///
    /// `EMSGSIZE` for a record that is too long; `ENOSPC` or `ENOMEM` without memory. The log is as before then.
    pub fn append(&mut self, record: &[u8]) -> Result<()> {
        let length = u32::try_from(record.len()).map_err(|_| Errno::MSGSIZE)?;
        if record.len() > LENGTH_MAX {
            return Err(Errno::MSGSIZE);
        }
        self.frame.clear();
        self.frame.extend_from_slice(&length.to_le_bytes());
        self.frame.extend_from_slice(record);
        self.frame.push(MARK);
        let mut written = 0;
        while let Some(rest) = self.frame.get(written..).filter(|rest| !rest.is_empty()) {
            match rustix::io::pwrite(&self.fd, rest, self.end + written as u64) {
                Ok(count) => written += count,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error),
            }
        }
        self.end += written as u64;
        Ok(())
    }

    /// How many bytes it has.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.end
    }

    /// Its descriptor, for the process that keeps it.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Calls `each` with the records from byte `from` on, which is where a record begins. Returns where the last ends.
    ///
    /// # Errors
    ///
    /// The descriptor cannot be read.
    pub fn read_from(&self, from: u64, each: impl FnMut(&[u8])) -> Result<u64> {
        MemoryLog::read_at(&self.fd, from, each)
    }

    /// As [`MemoryLog::read_from`], of a log that another descriptor writes.
    ///
    /// # Errors
    ///
    /// The descriptor cannot be read.
    pub fn read_at(log: impl AsFd, from: u64, each: impl FnMut(&[u8])) -> Result<u64> {
        read(log.as_fd(), from, each)
    }
}

/// How much is read at once.
const CHUNK: usize = 256 * 1024;

fn read(fd: BorrowedFd<'_>, from: u64, mut each: impl FnMut(&[u8])) -> Result<u64> {
    let mut buffer: Vec<u8> = Vec::new();
    // `buffer` holds the bytes from `at` on.
    let mut at = from;
    loop {
        let mut used = 0;
        while let Some((record, length)) = buffer.get(used..).and_then(first_record) {
            each(record);
            used += length;
        }
        buffer.drain(..used);
        at += used as u64;
        let known = buffer.len();
        buffer.resize(known + CHUNK, 0);
        let rest = buffer.get_mut(known..).unwrap_or_default();
        let count = loop {
            match rustix::io::pread(fd, &mut *rest, at + known as u64) {
                Err(Errno::INTR) => {}
                result => break result?,
            }
        };
        buffer.truncate(known + count);
        if count == 0 || known > HEAD + LENGTH_MAX + 1 {
            return Ok(at);
        }
    }
}

/// The record at the beginning of some bytes, and the length of its frame; `None` if it is not whole.
fn first_record(bytes: &[u8]) -> Option<(&[u8], usize)> {
    let head: [u8; HEAD] = bytes.get(..HEAD)?.try_into().ok()?;
    let length = usize::try_from(u32::from_le_bytes(head)).ok()?;
    let record = bytes.get(HEAD..HEAD.checked_add(length)?)?;
    (*bytes.get(HEAD + length)? == MARK).then_some((record, HEAD + length + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records(log: &MemoryLog) -> Vec<Vec<u8>> {
        let mut records = Vec::new();
        log.read_from(0, |record| records.push(record.to_vec()))
            .unwrap();
        records
    }

    #[test]
    fn every_whole_record_is_read_and_a_torn_one_is_written_over() {
        let mut log = MemoryLog::new().unwrap();
        let large = vec![7; CHUNK + 100];
        let mut expected: Vec<Vec<u8>> = vec![b"one".to_vec(), Vec::new(), large];
        for record in &expected {
            log.append(record).unwrap();
        }
        for number in 0..50_000_u32 {
            expected.push(number.to_le_bytes().to_vec());
            log.append(&number.to_le_bytes()).unwrap();
        }
        assert_eq!(records(&log), expected);
        let end = log.length();
        // A process that is killed in the call has written some of the frame's first bytes.
        let mut frame = 3_u32.to_le_bytes().to_vec();
        frame.extend_from_slice(b"two");
        for torn in 1..=frame.len() {
            rustix::io::pwrite(&log.fd, &frame[..torn], end).unwrap();
            let mut read = 0;
            let fd = rustix::io::fcntl_dupfd_cloexec(&log.fd, 0).unwrap();
            let mut resumed = MemoryLog::resume(fd, |_| read += 1).unwrap();
            assert_eq!((read, resumed.length()), (expected.len(), end), "{torn}");
            resumed.append(b"after").unwrap();
            assert_eq!(records(&resumed).last().unwrap(), b"after");
            rustix::fs::ftruncate(&log.fd, end).unwrap();
        }
        assert_eq!(log.append(&vec![0; LENGTH_MAX + 1]), Err(Errno::MSGSIZE));
        assert_eq!(log.length(), end);
    }
}
