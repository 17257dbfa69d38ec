//! The examples of the page about settings.

use std::fs;

use crate::blocks;
use crate::home::Home;

/// The lines of a text, with single spaces.
fn squeezed(text: &str) -> Vec<String> {
    let lines = text.lines();
    let lines = lines.map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
    lines.collect()
}

#[test]
fn the_settings_in_effect_are_those_of_the_page() {
    let home = Home::new();
    let example = &blocks("settings", "An example", "yaml")[0];
    fs::write(home.settings(), example).unwrap();
    let shown = home.does("xpmfs settings show");
    let shown = squeezed(&shown.replace(home.0.path().to_str().unwrap(), "/home/me"));
    let page = &blocks("settings", "The settings in effect", "console")[0];
    let mut lines = shown.iter();
    for line in squeezed(page).iter().skip(1).filter(|line| *line != "…") {
        assert!(lines.any(|shown| shown == line), "{line}\n{shown:#?}");
    }
}

#[test]
fn alternatives_are_rewritten_as_on_the_page() {
    let home = Home::new();
    let diff = &blocks("settings", "A workspace", "diff")[0];
    let old = "  - {id: old, path: ~/experiments/old}\n";
    let lines = |sign: char| {
        let lines = diff.lines().filter(|line| line.starts_with([' ', sign]));
        let lines = lines.filter_map(|line| line.get(1..));
        let lines: String = lines.map(|line| format!("{line}\n")).collect();
        format!("workspaces:\n{lines}{old}")
    };
    fs::write(home.settings(), lines('-')).unwrap();
    let printed = home.does("xpmfs settings migrate");
    assert!(printed.contains(diff), "{printed}\n{diff}");
    assert!(printed.contains("add --yes"), "{printed}");
    home.does("xpmfs settings migrate --yes");
    assert_eq!(fs::read_to_string(home.settings()).unwrap(), lines('+'));
}
