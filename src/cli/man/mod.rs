//! `xpmfs man`: manual pages, from the parser and the sections beside this file.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, ValueHint};
use clap_mangen::Man;

use super::{Global, print};

/// Where the pages go.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Write a page for each command into this directory, which is made if need be, instead of the first one to standard output
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    dir: Option<PathBuf>,
}

/// Prints or writes them.
///
/// # Errors
///
/// The directory cannot be written to, or standard output is gone.
pub fn run(
    arguments: &Arguments,
    global: &Global,
    program: clap::Command,
) -> anyhow::Result<ExitCode> {
    let pages = pages(program)?;
    let Some(dir) = &arguments.dir else {
        // The first one is that of the whole program.
        let page = pages.first().map_or("", |(_, page)| page);
        print::text(page)?;
        return Ok(ExitCode::SUCCESS);
    };
    let made = !dir.exists();
    let shown = dir.display();
    fs::create_dir_all(dir).with_context(|| format!("cannot make the directory {shown}"))?;
    for (name, page) in &pages {
        write(dir, name, page)?;
    }
    if !global.quiet {
        let made = if made { ", which was made" } else { "" };
        eprintln!("xpmfs: wrote {} manual pages to {shown}{made}", pages.len());
    }
    Ok(ExitCode::SUCCESS)
}

fn write(dir: &Path, name: &str, page: &str) -> anyhow::Result<()> {
    let path = dir.join(format!("{name}.1"));
    fs::write(&path, page).with_context(|| format!("cannot write {}", path.display()))
}

/// The name of each page, and the page.
fn pages(program: clap::Command) -> io::Result<Vec<(String, String)>> {
    // `xpmfs help` prints the same.
    let mut program = program.disable_help_subcommand(true);
    program.build();
    let mut pages = Vec::new();
    add(&mut pages, program, "xpmfs".to_owned())?;
    Ok(pages)
}

/// Adds the page of a command, `xpmfs-mount` and so on, and those of the commands in it.
fn add(
    pages: &mut Vec<(String, String)>,
    mut command: clap::Command,
    name: String,
) -> io::Result<()> {
    let usage = command.render_usage().to_string();
    let usage = usage.trim_start_matches("Usage:").trim().to_owned();
    let inner: Vec<clap::Command> = command
        .get_subcommands()
        .filter(|inner| !inner.is_hide_set())
        .cloned()
        .collect();
    let command = command.display_name(name.clone()).override_usage(usage);
    let mut page = Vec::new();
    Man::new(command).render(&mut page)?;
    let page = finished(&String::from_utf8_lossy(&page), &name);
    pages.push((name.clone(), page));
    for command in inner {
        let name = format!("{name}-{}", command.get_name());
        add(pages, command, name)?;
    }
    Ok(())
}

/// A page with a title that names the whole program, without the section of the version, and with sections of ours.
fn finished(page: &str, name: &str) -> String {
    let title = format!(
        ".TH {} 1 \"\" \"xpmfs {}\" \"User Commands\"",
        name.to_uppercase(),
        env!("CARGO_PKG_VERSION")
    );
    let lines = page.lines().take_while(|line| *line != ".SH VERSION");
    let mut text: String = lines
        .map(|line| match line.starts_with(".TH ") {
            true => format!("{title}\n"),
            false => format!("{}\n", line.trim_end()),
        })
        .collect();
    text.push_str(sections(name));
    text
}

/// The sections that the parser does not have.
fn sections(name: &str) -> &'static str {
    match name {
        "xpmfs" => include_str!("xpmfs.roff"),
        "xpmfs-mount" => include_str!("xpmfs-mount.roff"),
        "xpmfs-umount" => include_str!("xpmfs-umount.roff"),
        "xpmfs-reload" => include_str!("xpmfs-reload.roff"),
        "xpmfs-status" => include_str!("xpmfs-status.roff"),
        "xpmfs-completions" => include_str!("xpmfs-completions.roff"),
        _ => include_str!("other.roff"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Cli;
    use crate::daemon::options::known;
    use clap::CommandFactory;

    fn all() -> Vec<(String, String)> {
        pages(Cli::command()).unwrap()
    }

    fn page(name: &str) -> String {
        let found = all().into_iter().find(|page| page.0 == name);
        found.unwrap().1
    }

    #[test]
    fn every_page_ends_with_its_exit_status_and_where_to_read_on() {
        for (name, page) in all() {
            for section in ["NAME", "SYNOPSIS", "DESCRIPTION", "EXIT STATUS", "SEE ALSO"] {
                let heading = format!("\n.SH \"{section}\"\n").replace("\"NAME", "NAME");
                let plain = format!("\n.SH {section}\n");
                assert!(
                    page.contains(&heading) || page.contains(&plain),
                    "{name}: {section}"
                );
            }
        }
    }

    #[test]
    fn every_page_that_is_named_is_written() {
        let pages = all();
        for (name, page) in &pages {
            for word in page.split([' ', ',', '\n']) {
                let word = word.replace("\\-", "-");
                let named = word.strip_suffix("(1)").filter(|w| w.starts_with("xpmfs"));
                if let Some(named) = named {
                    assert!(pages.iter().any(|page| page.0 == named), "{name}: {named}");
                }
            }
        }
    }

    #[test]
    fn the_mount_s_page_has_every_mount_option() {
        let page = page("xpmfs-mount").replace("\\-", "-");
        for option in known::OURS {
            let option = option.split('=').next().unwrap();
            assert!(page.contains(&format!("\\fB{option}")), "{option}");
        }
    }

    #[test]
    fn the_page_of_the_program_lists_the_environment_and_files() {
        let page = page("xpmfs");
        for word in ["XPMFS_LOG", "settings.yaml", ".SH EXAMPLES", ".SH FILES"] {
            assert!(page.contains(word), "{word}");
        }
    }
}
