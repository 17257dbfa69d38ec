//! The nodes that the kernel has received last, in memory that outlives this process.
//!
//! Files that are not open are not recorded: the kernel looks them up again. But it may have looked a file up just before
//! the process was killed, and then request something of it from the next one. It tries that once more after `ESTALE`, and a
//! process that is killed again meanwhile would make the program fail.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::io::Result;

use super::record::{NodeRecord, Record};
use crate::mount::tables::node::Node;
use crate::sys::shared_words::SharedWords;

/// How many nodes are kept: more than the threads of a machine have looked up a moment ago.
const SLOTS: usize = 2048;

/// The words of a slot: a number that counts the writes, from 1 on; a checksum of the other words; a record, after its length in
/// bytes.
const SEQUENCE: usize = 0;
const CHECKSUM: usize = 1;
const LENGTH: usize = 2;
const RECORD: usize = 3;
/// A power of two, so that no slot lies in two segments of the memory.
const SLOT: usize = 64;
const RECORD_BYTES: usize = (SLOT - RECORD) * size_of::<u64>();

/// The slots, once they are shared with another process; before that, it keeps nothing.
#[derive(Debug, Default)]
pub(in crate::mount) struct Recent {
    words: OnceLock<SharedWords>,
    written: AtomicU64,
}

/// A checksum: a slot that was written in part, or by two threads at once, differs from it.
fn checksum(sequence: u64, words: impl Iterator<Item = u64>) -> u64 {
    use std::hash::Hasher;
    let mut hasher = rustc_hash::FxHasher::default();
    hasher.write_u64(sequence);
    words.for_each(|word| hasher.write_u64(word));
    hasher.finish()
}

fn as_words(bytes: &[u8]) -> impl Iterator<Item = u64> {
    bytes.chunks(size_of::<u64>()).map(|chunk| {
        let mut word = [0; size_of::<u64>()];
        let (used, _) = word.split_at_mut(chunk.len());
        used.copy_from_slice(chunk);
        u64::from_le_bytes(word)
    })
}

impl Recent {
    /// Begins to keep nodes in shared memory.
    pub(super) fn start(&self, words: SharedWords) {
        let _ = self.words.set(words);
    }

    /// Continues in the memory of another process. Returns what that one has kept, the latest last.
    pub(super) fn inherit(&self, words: SharedWords) -> Result<Vec<(u64, Node)>> {
        let slots = (words.length()? / SLOT).min(SLOTS);
        let mut found: Vec<_> = (0..slots).filter_map(|slot| read(&words, slot)).collect();
        found.sort_by_key(|(sequence, ..)| *sequence);
        let last = found.last().map_or(0, |(sequence, ..)| *sequence);
        self.written.store(last, Ordering::Relaxed);
        let _ = self.words.set(words);
        Ok(found.into_iter().map(|(_, id, node)| (id, node)).collect())
    }

    /// Keeps a node, in place of the one that was kept first.
    pub(in crate::mount) fn note(&self, id: u64, node: &Node) {
        let Some(words) = self.words.get() else {
            return;
        };
        let mut space = [0; RECORD_BYTES];
        let record = Record::Node {
            id,
            node: NodeRecord::from(node),
        };
        // No name is longer than 255 bytes.
        let Ok(bytes) = postcard::to_slice(&record, &mut space) else {
            return;
        };
        let sequence = self.written.fetch_add(1, Ordering::Relaxed) + 1;
        let slot = (sequence % SLOTS as u64) as usize;
        let set = |at: usize, value| {
            if let Some(word) = words.word(slot * SLOT + at) {
                word.store(value, Ordering::Release);
            }
        };
        set(SEQUENCE, 0);
        set(LENGTH, bytes.len() as u64);
        for (at, word) in as_words(bytes).enumerate() {
            set(RECORD + at, word);
        }
        set(CHECKSUM, checksum(sequence, as_words(bytes)));
        set(SEQUENCE, sequence);
    }
}

/// Reads a slot; `None` if it was not written, or not completely.
fn read(words: &SharedWords, slot: usize) -> Option<(u64, u64, Node)> {
    let get = |at: usize| {
        let word = words.word(slot * SLOT + at);
        word.map(|word| word.load(Ordering::Acquire))
    };
    let sequence = get(SEQUENCE).filter(|sequence| *sequence != 0)?;
    let length = usize::try_from(get(LENGTH)?).ok()?;
    if length > RECORD_BYTES {
        return None;
    }
    let mut bytes = Vec::with_capacity(RECORD_BYTES);
    for at in 0..length.div_ceil(size_of::<u64>()) {
        bytes.extend_from_slice(&get(RECORD + at)?.to_le_bytes());
    }
    bytes.truncate(length);
    if get(CHECKSUM)? != checksum(sequence, as_words(&bytes)) {
        return None;
    }
    match postcard::from_bytes(&bytes).ok()? {
        Record::Node { id, node } => Some((sequence, id, node.into())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use super::*;
    use crate::mount::tables::node::NodeRole;
    use crate::sys::file_id::FileId;
    use crate::sys::name::Name;

    fn node(id: u64, name: &str) -> Node {
        Node {
            identity: FileId::new(1, id, 3),
            parent: 7,
            name: Name::from(OsStr::new(name)),
            location: 2,
            role: NodeRole::Inside,
            directory: false,
        }
    }

    fn begin() -> Recent {
        let recent = Recent::default();
        recent.start(SharedWords::new().unwrap());
        recent
    }

    fn successor(recent: &Recent) -> (Recent, Vec<(u64, Node)>) {
        let words = recent.words.get().unwrap();
        let fd = rustix::io::fcntl_dupfd_cloexec(words.fd(), 0).unwrap();
        let next = Recent::default();
        let found = next.inherit(SharedWords::open(fd)).unwrap();
        (next, found)
    }

    #[test]
    fn latest_nodes_are_kept_in_order() {
        let recent = begin();
        let longest = "n".repeat(255);
        let total = 3 * SLOTS as u64 + 5;
        for id in 1..=total {
            recent.note(id, &node(id, &longest));
        }
        let (next, found) = successor(&recent);
        let ids: Vec<u64> = found.iter().map(|(id, _)| *id).collect();
        let expected: Vec<u64> = (total - SLOTS as u64 + 1..=total).collect();
        assert_eq!(ids, expected);
        let (id, last) = found.last().unwrap();
        assert_eq!(last.identity, FileId::new(1, *id, 3));
        assert_eq!((last.parent, last.location), (7, 2));
        assert_eq!(&*last.name, OsStr::new(&longest));
        next.note(1, &node(1, "again"));
        let (_, found) = successor(&next);
        assert_eq!(found.last().unwrap().0, 1);
        assert_eq!(found.len(), SLOTS);
    }

    #[test]
    fn incomplete_slot_is_ignored() {
        let recent = begin();
        recent.note(1, &node(1, "one"));
        recent.note(2, &node(2, "two"));
        let words = recent.words.get().unwrap();
        let word = words.word(SLOT + RECORD).unwrap();
        word.fetch_xor(1 << 9, Ordering::Relaxed);
        let ids: Vec<u64> = successor(&recent).1.iter().map(|(id, _)| *id).collect();
        assert_eq!(ids, [2]);
    }
}
