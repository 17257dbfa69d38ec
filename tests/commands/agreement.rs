//! `--help`, manual pages, completions and the README have the same commands and options, and the examples are valid.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::path::Path;

use clap::{Command, CommandFactory, Parser};
use xpmfs::cli::Cli;

use crate::common;
use crate::listed::commands;

fn page(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
}

/// The options of a command that `--help` lists.
fn options(command: &Command) -> BTreeSet<String> {
    let shown = command.get_arguments().filter(|it| !it.is_hide_set());
    let long = shown.filter_map(|it| it.get_long().map(|name| format!("--{name}")));
    long.collect()
}

fn help(name: &str) -> String {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_xpmfs"));
    common::run(
        command
            .args(name.split(' '))
            .arg("--help")
            .env("COLUMNS", "400"),
    )
}

/// The words of a simple command of a shell; redirections and what follows a pipe are left out.
fn words(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut quote = None;
    for c in line.chars() {
        match (c, quote) {
            ('|' | '>' | '#', None) => break,
            (' ', None) => words.push(String::new()),
            ('\'' | '"', None) => quote = Some(c),
            (c, Some(open)) if c == open => quote = None,
            (c, _) => words.last_mut().unwrap().push(c),
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

#[test]
fn each_help_has_an_example_that_the_parser_takes() {
    let mut wrong = Vec::new();
    for (name, _) in commands() {
        let help = help(&name);
        let examples = help
            .lines()
            .filter_map(|line| line.trim().strip_prefix("Example: "));
        let quoted = examples.flat_map(|line| line.split('`').skip(1).step_by(2));
        let calls = quoted.filter_map(|text| text.find("xpmfs ").map(|at| &text[at..]));
        let mut found = false;
        for call in calls {
            let call = call.trim_end_matches([')', '"']);
            let words = words(call);
            if let Err(error) = Cli::try_parse_from(&words) {
                wrong.push(format!("{name}: {call}: {error}"));
            }
            let own: Vec<&str> = name.split(' ').collect();
            found |= words
                .iter()
                .skip(1)
                .zip(&own)
                .filter(|(a, b)| a == b)
                .count()
                == own.len();
        }
        if !found {
            wrong.push(format!("{name}: no `Example: \\`xpmfs {name} …\\``"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn manual_pages_have_the_options_of_the_help() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_xpmfs"));
    common::run(command.args(["man", "--dir"]).arg(dir.path()));
    for (name, command) in commands() {
        let file = format!("xpmfs-{}.1", name.replace(' ', "-"));
        let text = fs::read_to_string(dir.path().join(&file))
            .unwrap()
            .replace("\\-", "-");
        let about = command.get_about().unwrap().to_string();
        let plain = |text: &str| {
            text.replace("\\*(Aq", "'")
                .replace(['`', '\\'], "")
                .replace('\n', " ")
        };
        assert!(plain(&text).contains(&plain(&about)), "{file}: {about}");
        let help = help(&name);
        for option in options(&command) {
            assert!(
                text.contains(&format!("\\fB{option}\\fR")),
                "{file}: {option}"
            );
            assert!(help.contains(&option), "{name} --help: {option}");
        }
    }
}

#[test]
fn completions_offer_the_options_of_the_help() {
    for (name, command) in commands() {
        let line = format!("xpmfs {name} --");
        let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        let last = words.len() - 1;
        let offered = clap_complete::engine::complete(&mut Cli::command(), words, last, None);
        let offered = offered.unwrap().into_iter().filter(|it| !it.is_hide_set());
        let offered = offered.map(|it| it.get_value().to_string_lossy().into_owned());
        let offered: BTreeSet<String> = offered.filter(|it| it.starts_with("--")).collect();
        assert_eq!(offered, options(&command), "{name}");
        assert!(common_options(&offered), "{name}: {offered:?}");
    }
}

fn common_options(offered: &BTreeSet<String>) -> bool {
    ["--help", "--settings", "--verbose", "--quiet"]
        .iter()
        .all(|option| offered.contains(*option))
}

/// The commands in the first column of the table, where a name without `xpmfs` belongs to the group of the one before.
#[test]
fn the_readme_lists_each_command_once() {
    let page = page("README.md");
    let table = page.split("| command | does |").nth(1).unwrap();
    let rows = table
        .lines()
        .skip(2)
        .take_while(|line| line.starts_with('|'));
    let mut listed = Vec::new();
    let all = commands();
    let groups: BTreeSet<&str> = all
        .iter()
        .filter_map(|(name, _)| Some(name.split_once(' ')?.0))
        .collect();
    for row in rows {
        let cell = row.split(" | ").next().unwrap();
        let mut group = String::new();
        for text in cell.split('`').skip(1).step_by(2) {
            let is_name = |word: &&str| {
                word.chars().all(|c| c.is_ascii_lowercase() || c == '-') && !word.starts_with('-')
            };
            let mut names = text
                .split(' ')
                .filter(|word| *word != "xpmfs")
                .take_while(is_name);
            let first = names.next().unwrap();
            if text.starts_with("xpmfs ") {
                group = if groups.contains(first) {
                    first.to_owned()
                } else {
                    String::new()
                };
                listed.push(match names.next() {
                    Some(second) => format!("{first} {second}"),
                    None => first.to_owned(),
                });
            } else {
                listed.push(format!("{group} {first}").trim_start().to_owned());
            }
        }
    }
    listed.sort();
    let mut all: Vec<String> = all.into_iter().map(|(name, _)| name).collect();
    all.sort();
    assert_eq!(listed, all);
}

/// Commands with `--json` are those that the page about it lists.
#[test]
fn the_page_about_json_lists_each_command_with_json() {
    let page = page("docs/json.md");
    let table = page.split("| command | prints |").nth(1).unwrap();
    let rows: String = table
        .lines()
        .skip(2)
        .take_while(|line| line.starts_with('|'))
        .collect();
    let missing = commands().into_iter().filter(|(name, command)| {
        let (group, last) = name.rsplit_once(' ').unwrap_or(("", name));
        let is_listed = rows.contains(&format!("`xpmfs {name}`"))
            || rows.contains(&format!("`{name}`"))
            || (rows.contains(&format!("`xpmfs {group} ")) && rows.contains(&format!("`{last}`")));
        is_listed != options(command).contains("--json")
    });
    let missing: Vec<String> = missing.map(|(name, _)| name).collect();
    assert_eq!(missing, [""; 0]);
}
