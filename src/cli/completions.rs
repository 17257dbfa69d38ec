//! `xpmfs completions SHELL`: prints a script, with which the shell asks this program for candidates.
//! [`candidates`](super::candidates) reads them from the disk.

use std::env;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Command};
use clap_complete::Shell;
use clap_complete::env::Shells;

use super::candidates::words;
use super::print;
use crate::sys::deadline::within;

/// The environment variable with the shell's name, if a shell asks for candidates.
const VARIABLE: &str = "XPMFS_COMPLETE";

/// How long the answer may take. Without one by then, the shell has no candidates.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// What to print.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The shell
    shell: Shell,
}

/// Prints the script of a shell.
///
/// # Errors
///
/// Standard output is closed.
pub fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    print::text(&script(arguments.shell)?)?;
    Ok(ExitCode::SUCCESS)
}

/// Whether a shell asks for candidates.
#[must_use]
pub fn is_asked() -> bool {
    env::var_os(VARIABLE).is_some_and(|shell| !shell.is_empty())
}

/// Prints the candidates for the word that the shell completes; nothing if that takes too long.
#[must_use]
pub fn answer(command: Command) -> ExitCode {
    let answer = within(ANSWER_TIMEOUT, move || candidates(&command));
    let Some(candidates) = answer.flatten() else {
        return ExitCode::FAILURE;
    };
    match print::text(&String::from_utf8_lossy(&candidates)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn candidates(command: &Command) -> Option<Vec<u8>> {
    let shell = env::var(VARIABLE).ok()?;
    let shells = Shells::builtins();
    let shell = shells.completer(&shell)?;
    let mut out = Vec::new();
    let directory = env::current_dir().ok();
    let mut command = visible(command);
    let completed = shell.write_complete(&mut command, words(), directory.as_deref(), &mut out);
    completed.ok().map(|()| out)
}

fn script(shell: Shell) -> anyhow::Result<String> {
    let mut script = Vec::new();
    let name = shell.to_string();
    if let Some(completer) = Shells::builtins().completer(&name) {
        completer.write_registration(VARIABLE, "xpmfs", "xpmfs", "xpmfs", &mut script)?;
    }
    let mut script = String::from_utf8_lossy(&script).into_owned();
    if shell == Shell::Zsh {
        // zsh loads the script, as the function `_xpmfs`, when the first word is completed.
        script.push_str("[[ $funcstack[1] == _xpmfs ]] && _clap_dynamic_completer_xpmfs \"$@\"\n");
    }
    Ok(script)
}

/// A command without its hidden options and commands, which would be candidates too.
fn visible(command: &Command) -> Command {
    let bare = Command::new(command.get_name().to_owned())
        .about(command.get_about().cloned().unwrap_or_default())
        .version(env!("CARGO_PKG_VERSION"));
    let arguments = command.get_arguments().filter(|arg| !arg.is_hide_set());
    let inner = command
        .get_subcommands()
        .filter(|inner| !inner.is_hide_set());
    // `xpmfs help COMMAND` is `xpmfs COMMAND --help`.
    bare.disable_help_subcommand(true)
        .args(arguments.cloned())
        .subcommands(inner.map(visible))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Cli;
    use clap::{CommandFactory, ValueEnum};

    #[test]
    fn each_shell_asks_this_program() {
        for shell in Shell::value_variants() {
            let script = script(*shell).unwrap();
            assert!(script.contains(VARIABLE), "{shell}: {script}");
        }
    }

    #[test]
    fn hidden_commands_and_options_are_left_out() {
        fn names(command: &Command, found: &mut Vec<String>) {
            found.push(command.get_name().to_owned());
            let longs = command.get_arguments().filter_map(|arg| arg.get_long());
            found.extend(longs.map(ToOwned::to_owned));
            for inner in command.get_subcommands() {
                names(inner, found);
            }
        }
        let mut found = Vec::new();
        names(&visible(&Cli::command()), &mut found);
        let has = |name: &str| found.iter().any(|it| it == name);
        for shown in ["umount", "read-only", "completions"] {
            assert!(has(shown), "{shown}");
        }
        for hidden in ["__answers", "sloppy", "in-background"] {
            assert!(!has(hidden), "{hidden}");
        }
    }
}
