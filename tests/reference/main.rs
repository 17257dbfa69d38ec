//! Long random sequences of operations, made on a mount and on a plain directory of the same disk: every
//! result, every error and the trees at the end must be the same.
//!
//! - [`operation`]: what can be done, and how sequences of it are drawn
//! - [`world`], [`files`], [`names`]: doing it in one of the two places
//! - [`tree`]: all that can be seen of a tree
//! - [`stage`]: the two places, with jobs in all kinds of location; whatever lies in an archived job can be
//!   read only, which a read-only bind mount does for the plain directory
//! - [`compare`]: when two results are the same
//! - [`thread`]: what needs `unsafe`
//!
//! A failure prints the seed of its sequence, and the shortest sequence found that fails too. The seed
//! then goes to [`SEEDS`], so that what failed once is tried for ever. `XPMFS_REFERENCE_SEED=N` runs the
//! sequence of one seed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../common/mod.rs"]
mod common;
mod compare;
mod files;
mod names;
mod operation;
mod stage;
mod tree;
mod world;

use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

use common::thread;
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use operation::Operation::{self, *};
use operation::p;
use stage::Who;

/// Seeds that are always run: some to begin with, and those of past failures.
const SEEDS: [u64; 12] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12];

/// How many operations a sequence has.
const LENGTH: usize = 1000;

/// How long a shorter sequence is looked for.
const SHRINKING: Duration = Duration::from_secs(90);

/// How long random seeds are tried.
fn patience() -> Duration {
    match common::soak() {
        true => Duration::from_secs(20 * 60),
        false => Duration::from_secs(40),
    }
}

#[test]
fn root_cannot_tell_a_mount_from_a_disk() {
    run(Who::Root);
}

#[test]
fn an_ordinary_user_cannot_tell_a_mount_from_a_disk() {
    run(Who::Ordinary);
}

/// Runs the seeds that are always run, and then random ones for a while.
fn run(who: Who) {
    if !common::is_root() {
        return;
    }
    if let Ok(seed) = std::env::var("XPMFS_REFERENCE_SEED") {
        return check(seed.parse().unwrap(), who);
    }
    let deadline = Instant::now() + patience();
    for seed in SEEDS {
        check(seed, who);
    }
    let mut count = SEEDS.len();
    while Instant::now() < deadline {
        check(random_seed(), who);
        count += 1;
    }
    common::say(&format!("{who:?}: {count} sequences compared"));
}

/// The standard library's hashes are keyed at random.
fn random_seed() -> u64 {
    RandomState::new().hash_one(Instant::now()) >> 16
}

/// Runs the sequence of a seed; if it fails, looks for a shorter one.
fn check(seed: u64, who: Who) {
    let mut sequence = sequence(seed);
    let Err(mut failure) = compare::run(&sequence, who) else {
        return;
    };
    sequence.truncate(failure.at.saturating_add(1));
    let deadline = Instant::now() + SHRINKING;
    let mut chunk = sequence.len() / 2;
    while chunk > 0 && Instant::now() < deadline {
        // From the end, since what comes last before a failure has most to do with it.
        let mut end = sequence.len().saturating_sub(1);
        while end > 0 && Instant::now() < deadline {
            let start = end.saturating_sub(chunk);
            let mut shorter = sequence.clone();
            shorter.drain(start..end);
            if let Err(another) = compare::run(&shorter, who) {
                shorter.truncate(another.at.saturating_add(1));
                (sequence, failure) = (shorter, another);
            }
            end = start.min(sequence.len().saturating_sub(1));
        }
        chunk /= 2;
    }
    let lines = sequence.iter().map(|one| format!("{one:?},\n"));
    let lines: String = lines.collect();
    panic!("seed {seed}, {who:?}: {}\nafter {lines}", failure.what);
}

/// The sequence of a seed.
fn sequence(seed: u64) -> Vec<Operation> {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let sequences = proptest::collection::vec(operation::any(), LENGTH..=LENGTH);
    sequences.new_tree(&mut runner).unwrap().current()
}

/// Runs a sequence that was found to fail.
fn replay(sequence: &[Operation]) {
    if !common::is_root() {
        return;
    }
    for who in [Who::Root, Who::Ordinary] {
        compare::run(sequence, who).unwrap_or_else(|error| panic!("{who:?}: {}", error.what));
    }
}

#[test]
fn attributes_for_the_privileged_are_not_listed_for_others() {
    replay(&[
        SetAttribute(p("jobs/t.n/p/a"), "trusted.a", 9, 0),
        Attributes(p("jobs/t.n/p/a")),
        Become(1),
        Attributes(p("jobs/t.n/p/a")),
    ]);
}

#[test]
fn a_symlink_is_told_from_what_has_its_other_name_now() {
    replay(&[
        Symlink(p("jobs/t.n/p/e/nowhere"), p("b")),
        Link(p("b"), p("jobs/t.n/x"), false),
        Symlink(p("jobs/t.n/b/b/b"), p("b")),
        Unlink(p("b")),
        Mkdir(p("b"), 0o755),
        Readlink(p("jobs/t.n/x")),
        Mode(p("jobs/t.n/x"), 0o777),
    ]);
}

#[test]
fn looking_at_a_symlink_does_not_count_as_reading_it() {
    replay(&[
        Symlink(p("b"), p("a")),
        Link(p("jobs/t.n/p/c"), p("b"), true),
        Rename(p("a"), p("jobs/t.n/p/a"), 0),
        Times(
            p("jobs/t.n/p/a"),
            Some(Some((789194506, 250019925))),
            Some(Some((847150321, 556284108))),
            true,
        ),
    ]);
}

#[test]
fn a_pipe_that_is_open_has_attributes_when_its_name_is_gone() {
    replay(&[
        Mknod(p("e"), libc::S_IFIFO, 0o755),
        Rename(p("e"), p("c"), 0),
        Open(2, p("c"), 0, 0),
        Unlink(p("c")),
        StatOpen(2),
    ]);
}

#[test]
fn access_is_asked_of_a_file_that_has_lost_one_of_its_names() {
    replay(&[
        Stat(p("jobs/t.n/p/a"), true),
        Stat(p("jobs/t.n/p/e"), true),
        Unlink(p("jobs/t.n/p/e")),
        Access(p("jobs/t.n/p/c"), 1),
        Access(p("jobs/t.n/p/a"), 4),
    ]);
}

#[test]
fn a_pipe_under_its_other_name_does_not_stand_for_a_file() {
    replay(&[
        Open(3, p("d"), libc::O_CREAT | libc::O_RDWR, 0o755),
        Link(p("d"), p("c"), true),
        Rename(p("c"), p("a"), 0),
        Unlink(p("a")),
        Mknod(p("a"), libc::S_IFIFO, 0o755),
        Truncate(p("d"), 18497),
    ]);
}

#[test]
fn a_directory_that_is_open_is_synced_and_listed_when_it_was_removed() {
    replay(&[
        Mkdir(p("jobs/t.n/p/d"), 0o777),
        Open(2, p("jobs/t.n/p/d"), 0, 0),
        OpenDirectory(1, p("jobs/t.n/p/d")),
        Rmdir(p("jobs/t.n/p/d")),
        Sync(2, true),
        Sync(2, false),
        List(1),
        StatOpen(2),
    ]);
}

#[test]
fn what_is_written_to_a_mapped_file_stays_where_it_is_though_the_file_is_open_to_append() {
    replay(&[
        Open(1, p("jobs/t.n/p/a"), libc::O_RDWR | libc::O_APPEND, 0),
        Map(1, 0, true, true),
        MapWrite(0, 406, 97),
        Read(1, 3716),
        Write(1, 100, 5),
    ]);
}

#[test]
fn the_two_places_are_the_same_at_first() {
    replay(&[]);
}
