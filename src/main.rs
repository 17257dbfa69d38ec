//! Parse, log, run one command, turn an error into an exit status.

use std::process::ExitCode;

use clap::Parser;

use xpmfs::cli::{self, Cli};

fn main() -> ExitCode {
    let cli = Cli::parse();
    match cli::run(&cli) {
        Ok(status) => status,
        Err(error) => {
            eprintln!("xpmfs: {error:#}");
            ExitCode::FAILURE
        }
    }
}
