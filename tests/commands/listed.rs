//! The commands of the parser.

use clap::{Command, CommandFactory};
use xpmfs::cli::Cli;

/// Each command that does something, by its name (`jobs list`), without hidden ones.
pub(crate) fn commands() -> Vec<(String, Command)> {
    let mut program = Cli::command().disable_help_subcommand(true);
    program.build();
    let mut found = Vec::new();
    add(&mut found, "", &program);
    assert!(found.len() > 25, "{}", found.len());
    found
}

fn add(found: &mut Vec<(String, Command)>, name: &str, command: &Command) {
    let mut inner = command
        .get_subcommands()
        .filter(|it| !it.is_hide_set())
        .peekable();
    if inner.peek().is_none() {
        found.push((name.to_owned(), command.clone()));
    }
    for command in inner {
        let name = format!("{name} {}", command.get_name());
        add(found, name.trim_start(), command);
    }
}
