//! Parse, log, run one command, turn an error into an exit status.

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;

use xpmfs::cli::mount_helper::{self, Asked};
use xpmfs::cli::{self, Cli, front};

fn main() -> ExitCode {
    let cli = match mount_helper::arguments(std::env::args_os()) {
        Ok(Asked::Run(arguments)) => Cli::parse_from(arguments),
        // There is nothing to rehearse.
        Ok(Asked::Rehearse) => return ExitCode::SUCCESS,
        Ok(Asked::Print(text)) => {
            // Nobody may be there to read it.
            let _ = std::io::stdout().write_all(text.as_bytes());
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(cli::WRONG_USAGE);
        }
    };
    match cli.command.asks_file_systems() {
        true => front::run(|| run(&cli)),
        false => run(&cli),
    }
}

fn run(cli: &Cli) -> ExitCode {
    match cli::run(cli) {
        Ok(status) => status,
        // As with `head`: whoever reads has had enough.
        Err(error) if cli::is_broken_pipe(&error) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("xpmfs: {}", cli::sentence(&error));
            cli::status_of(&error)
        }
    }
}
