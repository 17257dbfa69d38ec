//! Parse, log, run one command, turn an error into an exit status.

use std::process::ExitCode;

use clap::Parser;

use xpmfs::cli::{self, Cli, mount_helper};

fn main() -> ExitCode {
    let cli = match mount_helper::arguments(std::env::args_os()) {
        Ok(Some(arguments)) => Cli::parse_from(arguments),
        // mount(8) asks for a rehearsal (`-f`), and there is nothing to rehearse.
        Ok(None) => return ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(cli::WRONG_USAGE);
        }
    };
    match cli::run(&cli) {
        Ok(status) => status,
        Err(error) => {
            eprintln!("xpmfs: {}", cli::sentence(&error));
            cli::status_of(&error)
        }
    }
}
