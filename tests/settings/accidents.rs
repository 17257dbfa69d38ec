//! The loader against experimaestro's on files with accidents in them: cut, doubled, something put in.

use std::fs;

use crate::loading::{compare, corpus};
use crate::oracle::{Home, Oracle};

/// Pieces that mutations insert: all indicators of YAML, and values.
#[rustfmt::skip]
const PIECES: &[&str] = &[
    " ", "  ", "\n", "\n  ", "\n    ", "\n- ", "\n  - ", ": ", ":", "- ", "-", ", ", ",", "[",
    "]", "{", "}", "'", "\"", "#", " # ", "&a ", "*a", "<<: ", "? ", "|\n", ">\n", "!", "!!str ",
    "~", "yes", "1", "1.5", "%", "@", "`", "\\", "\t", "=", "---\n", "...\n", "é",
    "${env:XPM_PORT}", "${", "}", "null", "a", "a: b", "\n\n", "path: x", "id: y\n", ".", "/",
    "2024-01-01", "0x1", "\"\"", "''",
    "\u{85}", "\u{2028}", "\u{2029}  ", "}#c", "[-, a]", "\"a\"#b", "- ]", "\t}", "\n]", "\n}", "%TAG ! tag:yaml.org,2002:\n", "!<tag:yaml.org,2002:int> ", "|2-\n", ">+\n", "\n\n ",
];

/// A file of the corpus with a few pieces cut out, put in or doubled.
fn mutated(text: &str, random: &mut impl FnMut(usize) -> usize) -> String {
    let mut chars: Vec<char> = text.chars().collect();
    for _ in 0..=random(3) {
        let at = random(chars.len() + 1);
        let end = (at + 1 + random(6)).min(chars.len());
        match random(4) {
            0 => drop(chars.drain(at.min(end)..end)),
            1 => {
                let doubled: Vec<char> = chars.get(at..end).unwrap_or_default().to_vec();
                let to = random(chars.len() + 1);
                chars.splice(to..to, doubled);
            }
            _ => drop(chars.splice(at..at, PIECES[random(PIECES.len())].chars())),
        }
    }
    chars.into_iter().collect()
}

#[test]
fn files_with_accidents_in_them_are_read_as_experimaestro_does() {
    let Some(mut oracle) = Oracle::start() else {
        return;
    };
    let home = Home::new();
    let file = home.path().join("accident.yaml");
    let texts: Vec<String> = corpus()
        .iter()
        .map(|file| fs::read_to_string(file).unwrap())
        .collect();
    let mut state = std::env::var("XPMFS_TEST_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or(1u64);
    let mut random = move |below: usize| {
        // Knuth's generator: the same accidents at every run.
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    let (mut wrong, mut accepted, mut refused) = (Vec::new(), 0, 0);
    for _ in 0..3000 {
        let text = mutated(&texts[random(texts.len())], &mut random);
        fs::write(&file, &text).unwrap();
        match compare(&file, &home, &mut oracle) {
            Ok(true) => accepted += 1,
            Ok(false) => refused += 1,
            Err(difference) => wrong.push(format!("<<<\n{text}\n>>>\n{difference}")),
        }
    }
    assert!(
        wrong.is_empty(),
        "{} differ, {accepted} {refused}:\n{}",
        wrong.len(),
        wrong.join("\n\n")
    );
}
