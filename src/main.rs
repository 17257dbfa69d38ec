//! Parse, log, run one command, turn an error into an exit status.

use std::io::Write;
use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use xpmfs::cli::mount_helper::{self, Invocation};
use xpmfs::cli::{self, Cli, completions, front, usage};
use xpmfs::sys::allocator::{self, Allocator};

#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

fn main() -> ExitCode {
    allocator::tune();
    if completions::is_asked() {
        // A directory that does not reply must not keep the shell waiting for the end of this process.
        return front::run(|| completions::answer(Cli::command()));
    }
    let cli = match mount_helper::arguments(std::env::args_os()) {
        Ok(Invocation::Run(arguments)) => {
            Cli::try_parse_from(arguments).unwrap_or_else(|error| usage::explained(error).exit())
        }
        // mount(8) asks for a dry run.
        Ok(Invocation::Rehearse) => return ExitCode::SUCCESS,
        Ok(Invocation::Print(text)) => {
            // The reader may be gone.
            let _ = std::io::stdout().write_all(text.as_bytes());
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(cli::WRONG_USAGE);
        }
    };
    match cli.command.asks_file_systems() {
        true if cli.command.is_dashboard() => front::run_dashboard(|| run(&cli)),
        true => front::run(|| run(&cli)),
        false => run(&cli),
    }
}

fn run(cli: &Cli) -> ExitCode {
    match cli::run(cli) {
        Ok(status) => status,
        // As with `head`: the reader has closed the pipe.
        Err(error) if cli::is_broken_pipe(&error) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("xpmfs: {}", cli::sentence(&error));
            cli::status_of(&error)
        }
    }
}
