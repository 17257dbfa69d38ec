//! Hashes large files on a separate thread, while the next bytes are read and written.

use std::thread::{Builder, JoinHandle};

use blake3::{Hash, Hasher};
use crossbeam_channel::{Receiver, Sender, bounded};

/// How much is read and written at once: small enough to stay in the processor's cache between reading, hashing and
/// writing.
pub(super) const BLOCK: usize = 256 << 10;

/// The smallest file that is hashed on a separate thread: starting one takes as long as hashing some of these bytes.
const LARGE: u64 = 4 << 20;

/// The maximum number of blocks queued for hashing. It limits the memory and the delay by a slow hash.
const WAITING: usize = 4;

/// Zeros for holes.
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// The memory that a thread reads into. It grows to the size that the largest file needs: clearing a large buffer for
/// each small job would take longer than the job.
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

    /// The first `length` bytes.
    pub(super) fn filled(&self, length: usize) -> &[u8] {
        self.0.get(..length).unwrap_or_default()
    }

    /// Returns the memory of this buffer, and uses `other` instead.
    pub(super) fn replace(&mut self, other: Vec<u8>) -> Vec<u8> {
        std::mem::replace(&mut self.0, other)
    }
}

/// A hash in progress.
pub(super) enum Digest {
    /// On the thread that reads.
    Here(Box<Hasher>),
    /// On another thread.
    StagingContext(StagingContext),
}

pub(super) struct StagingContext {
    parts: Sender<Part>,
    used: Receiver<Vec<u8>>,
    thread: JoinHandle<Hash>,
}

enum Part {
    /// A buffer, and the number of its first bytes that are hashed.
    Bytes(Vec<u8>, usize),
    Zeros(u64),
}

impl Digest {
    /// For a file of this size. Uses a separate thread only if `threads` permits it, and if one can be started.
    pub(super) fn new(size: u64, threads: usize) -> Digest {
        let here = || Digest::Here(Box::default());
        if size < LARGE || threads < 2 {
            return here();
        }
        let (parts, to_hash) = bounded(WAITING);
        let (give_back, used) = bounded(WAITING);
        let hash = move || {
            let mut hasher = Hasher::new();
            for part in to_hash {
                match part {
                    Part::Zeros(length) => zeros(&mut hasher, length),
                    Part::Bytes(buffer, length) => {
                        hasher.update(buffer.get(..length).unwrap_or_default());
                        // Buffers beyond the queue's capacity are freed.
                        let _ = give_back.try_send(buffer);
                    }
                }
            }
            hasher.finalize()
        };
        match Builder::new().name("xpmfs-hash".to_owned()).spawn(hash) {
            Ok(thread) => Digest::StagingContext(StagingContext {
                parts,
                used,
                thread,
            }),
            Err(_) => here(),
        }
    }

    /// Adds the first `length` bytes of a buffer, whose content is undefined afterwards.
    pub(super) fn add(&mut self, buffer: &mut Buffer, length: usize) {
        match self {
            Digest::Here(hasher) => {
                hasher.update(buffer.filled(length));
            }
            Digest::StagingContext(beside) => {
                let next = beside.used.try_recv().unwrap_or_else(|_| vec![0; BLOCK]);
                let full = buffer.replace(next);
                // The other thread does not end before this one drops the sender.
                let _ = beside.parts.send(Part::Bytes(full, length));
            }
        }
    }

    /// Adds zeros.
    pub(super) fn add_zeros(&mut self, length: u64) {
        match self {
            Digest::Here(hasher) => zeros(hasher, length),
            Digest::StagingContext(beside) => {
                let _ = beside.parts.send(Part::Zeros(length));
            }
        }
    }

    /// The hash of all added bytes; `None` if the other thread panicked.
    pub(super) fn finish(self) -> Option<Hash> {
        match self {
            Digest::Here(hasher) => Some(hasher.finalize()),
            Digest::StagingContext(beside) => {
                drop(beside.parts);
                beside.thread.join().ok()
            }
        }
    }
}

fn zeros(hasher: &mut Hasher, mut length: u64) {
    while length > 0 {
        let step = length.min(ZEROS.len() as u64);
        let some = usize::try_from(step)
            .ok()
            .and_then(|step| ZEROS.get(..step));
        hasher.update(some.unwrap_or(&ZEROS));
        length -= step;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_the_same_on_either_thread() {
        let bytes: Vec<u8> = (0..3 * BLOCK + 1234).map(|n| (n * n % 251) as u8).collect();
        let mut whole = Hasher::new();
        whole.update(&bytes);
        whole.update(&vec![0; 200_000]);
        whole.update(&bytes);
        for threads in [1, 2] {
            let mut digest = Digest::new(LARGE, threads);
            assert_eq!(matches!(digest, Digest::StagingContext(_)), threads > 1);
            let mut buffer = Buffer::default();
            for round in 0..2 {
                for block in bytes.chunks(BLOCK) {
                    buffer.upto(BLOCK as u64)[..block.len()].copy_from_slice(block);
                    digest.add(&mut buffer, block.len());
                }
                if round == 0 {
                    digest.add_zeros(200_000);
                }
            }
            assert_eq!(digest.finish(), Some(whole.finalize()), "{threads}");
        }
    }
}
