//! An append-only log in memory that outlives the process that writes it, as long as another one has its descriptor.
//!
//! The log is written through a mapping, without system calls. A record begins with a word that has its length and the bit [`WHOLE`], and
//! is padded to whole words. That word is written last, and the one behind the record is 0 before that: of a record that
//! a process was writing when it was killed nothing is read, and the next record is written over it.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::MemfdFlags;
use rustix::io::{Errno, Result};

use super::segment::{SEGMENT, Segment};

/// The length of a word in bytes.
const WORD: usize = size_of::<u64>();

/// Set in the first word of a record that is whole. Memory that has not been written is 0.
const WHOLE: u64 = 1 << 63;

/// The maximum length of a record in bytes.
const LENGTH_MAX: usize = 1 << 20;

/// A log that is being written.
#[derive(Debug)]
pub struct MemoryLog {
    fd: OwnedFd,
    /// Where the next record goes, in words.
    end: usize,
    /// The segments from that of `end` on that are mapped, the first with this number.
    segments: VecDeque<Segment>,
    first: usize,
}

impl MemoryLog {
    /// Makes an empty log.
    ///
    /// # Errors
    ///
    /// Out of descriptors or memory.
    pub fn new() -> Result<MemoryLog> {
        let fd = rustix::fs::memfd_create("xpmfs", MemfdFlags::CLOEXEC)?;
        Ok(MemoryLog::at(fd, 0))
    }

    /// Continues a log behind its last whole record, and calls `each` with every record from the beginning on.
    ///
    /// # Errors
    ///
    /// The descriptor cannot be read.
    pub fn resume(fd: OwnedFd, mut each: impl FnMut(&[u8])) -> Result<MemoryLog> {
        let end = read(fd.as_fd(), 0, &mut each)?;
        let end = usize::try_from(end).map_err(|_| Errno::FBIG)?;
        Ok(MemoryLog::at(fd, end / WORD))
    }

    fn at(fd: OwnedFd, end: usize) -> MemoryLog {
        MemoryLog {
            fd,
            end,
            segments: VecDeque::new(),
            first: end / SEGMENT,
        }
    }

    /// Adds a record.
    ///
    /// # Errors
    ///
    /// `EMSGSIZE` for a record that is too long; `ENOSPC` or `ENOMEM` without memory. The log is as before then.
    pub fn append(&mut self, record: &[u8]) -> Result<()> {
        if record.len() > LENGTH_MAX {
            return Err(Errno::MSGSIZE);
        }
        let next = self.end + 1 + record.len().div_ceil(WORD);
        while self.first + self.segments.len() <= next / SEGMENT {
            let segment = Segment::map(&self.fd, self.first + self.segments.len())?;
            self.segments.push_back(segment);
        }
        for (at, part) in (self.end + 1..).zip(record.chunks(WORD)) {
            let mut bytes = [0; WORD];
            if let Some(bytes) = bytes.get_mut(..part.len()) {
                bytes.copy_from_slice(part);
            }
            self.word(at)?
                .store(u64::from_ne_bytes(bytes), Ordering::Relaxed);
        }
        self.word(next)?.store(0, Ordering::Relaxed);
        let head = WHOLE | record.len() as u64;
        self.word(self.end)?.store(head, Ordering::Release);
        self.end = next;
        while self.first < next / SEGMENT {
            self.segments.pop_front();
            self.first += 1;
        }
        Ok(())
    }

    fn word(&self, at: usize) -> Result<&AtomicU64> {
        let segment = (at / SEGMENT).checked_sub(self.first);
        let segment = segment.and_then(|number| self.segments.get(number));
        segment
            .and_then(|segment| segment.word(at % SEGMENT))
            .ok_or(Errno::FAULT)
    }

    /// How many bytes it has.
    #[must_use]
    pub fn length(&self) -> u64 {
        (self.end * WORD) as u64
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
        loop {
            match first_record(buffer.get(used..).unwrap_or_default()) {
                First::Record(record, length) => {
                    each(record);
                    used += length;
                }
                First::Cut => break,
                First::End => return Ok(at + used as u64),
            }
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
        if count == 0 {
            return Ok(at);
        }
    }
}

/// What some bytes begin with.
enum First<'a> {
    /// A record, and how many bytes it takes with its first word and its padding.
    Record(&'a [u8], usize),
    /// A record that goes on behind these bytes.
    Cut,
    /// No record that is whole.
    End,
}

fn first_record(bytes: &[u8]) -> First<'_> {
    let Some((head, rest)) = bytes.split_first_chunk::<WORD>() else {
        return First::Cut;
    };
    let head = u64::from_ne_bytes(*head);
    let length = usize::try_from(head & !WHOLE).unwrap_or(usize::MAX);
    if head & WHOLE == 0 || length > LENGTH_MAX {
        return First::End;
    }
    let padded = length.next_multiple_of(WORD);
    match (rest.get(..length), rest.len() >= padded) {
        (Some(record), true) => First::Record(record, WORD + padded),
        _ => First::Cut,
    }
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
        // Over the ends of segments.
        for length in (0..300).map(|number| number * 97) {
            expected.push(vec![0xff; length]);
            log.append(&vec![0xff; length]).unwrap();
        }
        assert_eq!(records(&log), expected);
        let end = log.length();
        assert!(end > 3 * (SEGMENT * WORD) as u64 && log.segments.len() <= 2);
        let whole = expected.len();
        // A process that is killed has written some of the words behind the first.
        for torn in 1..=5 {
            let words = vec![0xff; torn * WORD];
            rustix::io::pwrite(&log.fd, &words, end + WORD as u64).unwrap();
            let mut read = 0;
            let fd = rustix::io::fcntl_dupfd_cloexec(&log.fd, 0).unwrap();
            let mut resumed = MemoryLog::resume(fd, |_| read += 1).unwrap();
            assert_eq!((read, resumed.length()), (whole, end), "{torn}");
            for record in [b"after".as_slice(), b"", b"next"] {
                resumed.append(record).unwrap();
            }
            let read = records(&resumed);
            assert_eq!(read[whole..], [&b"after"[..], b"", b"next"], "{torn}");
            rustix::io::pwrite(&log.fd, &[0; WORD], end).unwrap();
        }
        assert_eq!(log.append(&vec![0; LENGTH_MAX + 1]), Err(Errno::MSGSIZE));
        assert_eq!(log.length(), end);
    }
}
