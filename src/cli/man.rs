//! `xpmfs man`.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, CommandFactory};
use clap_mangen::Man;

use super::Cli;

/// Where the pages go.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Write a page for each command into this directory, instead of the first one to standard output
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// Prints or writes them.
///
/// # Errors
///
/// The directory cannot be written to, or standard output is gone.
pub fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let mut command = Cli::command();
    command.build();
    match &arguments.dir {
        Some(dir) => {
            fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
            write(command, "xpmfs", dir)?;
        }
        None => {
            let mut page = Vec::new();
            Man::new(command).render(&mut page)?;
            io::stdout().write_all(&page)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Writes the page of a command, `xpmfs-mount.1` and so on, and those of the commands in it.
fn write(command: clap::Command, name: &str, dir: &Path) -> anyhow::Result<()> {
    let shown = command
        .get_subcommands()
        .filter(|inner| !inner.is_hide_set() && inner.get_name() != "help");
    for inner in shown {
        write(inner.clone(), &format!("{name}-{}", inner.get_name()), dir)?;
    }
    let path = dir.join(format!("{name}.1"));
    let mut page = Vec::new();
    Man::new(command.display_name(name.to_owned())).render(&mut page)?;
    fs::write(&path, page).with_context(|| format!("cannot write {}", path.display()))
}
