//! Triggers against Python's `fnmatch.fnmatch`.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use serde_json::json;
use xpmfs::settings::Trigger;

use crate::oracle::Oracle;

/// Few characters, so that patterns and names meet; those with a meaning most of all.
const PATTERN: &[char] = &[
    '*', '?', '[', ']', '!', '-', '^', '\\', 'a', 'b', 'c', 'd', '/', '\n', '{', '}', ',', '&',
    '|', '~', '.', 'é', '[', ']', '-', 'a', 'b', '*', '$', '(', '#', ' ',
];
const NAME: &[char] = &[
    'a', 'b', 'c', 'd', '-', '!', '^', '\\', ']', '[', '/', '\n', '.', 'é', '&', 'a', 'b', ',',
    '}', '{', ' ', '$',
];

fn text(of: &'static [char], longest: usize) -> impl Strategy<Value = String> {
    vec(prop::sample::select(of), 0..longest).prop_map(|chars| chars.into_iter().collect())
}

/// A set in brackets alone, where the rules are oddest.
fn set() -> impl Strategy<Value = String> {
    vec(
        prop::sample::select(
            &[
                'a', 'b', 'c', 'd', '-', '-', '!', '^', ']', '[', '\\', '&', '|', '~', 'é',
            ][..],
        ),
        0..9,
    )
    .prop_map(|chars| format!("[{}]", chars.into_iter().collect::<String>()))
}

#[test]
fn triggers_match_as_fnmatch_does() {
    let Some(mut oracle) = Oracle::start() else {
        return;
    };
    let mut runner = TestRunner::new_with_rng(
        Config::default(),
        TestRng::deterministic_rng(RngAlgorithm::ChaCha),
    );
    let sets = (set(), prop::sample::select(NAME).prop_map(String::from));
    let fixed = (text(&['a', 'b', '*', '?'], 8), text(&['a', 'b'], 10));
    let any = (text(PATTERN, 10), text(NAME, 8));
    let pair = prop_oneof![sets, fixed, any];
    let mut pairs: Vec<(String, String)> = Vec::new();
    for _ in 0..10_000 {
        pairs.push(pair.new_tree(&mut runner).unwrap().current());
    }
    // All sets of up to four of these, against each character.
    let odd = ['a', 'c', '-', '!', ']', '^'];
    for size in 0..=4u32 {
        for number in 0..odd.len().pow(size) {
            let set: String = (0..size)
                .map(|place| odd[number / odd.len().pow(place) % odd.len()])
                .collect();
            for name in ["a", "b", "c", "-", "!", "]", "^"] {
                pairs.push((format!("[{set}]"), name.to_owned()));
            }
        }
    }
    let theirs = oracle.ask(&json!({ "fnmatch": pairs }));
    let theirs: Vec<bool> = serde_json::from_value(theirs).unwrap();
    let yes = theirs.iter().filter(|matched| **matched).count();
    assert!(
        yes > 1000 && yes < pairs.len() - 1000,
        "{yes} of {} match: the pairs say little",
        pairs.len()
    );
    // Making a trigger takes longest, and neighbours have the same pattern.
    let mut last: Option<(&str, Trigger)> = None;
    let mut wrong = Vec::new();
    for ((pattern, name), theirs) in pairs.iter().zip(&theirs) {
        let trigger = match last.take() {
            Some((before, trigger)) if before == pattern => trigger,
            _ => Trigger::new(pattern),
        };
        if trigger.matches(name) != *theirs {
            wrong.push((pattern, name, theirs));
        }
        last = Some((pattern, trigger));
    }
    wrong.truncate(10);
    assert!(wrong.is_empty(), "{wrong:?}");
}
