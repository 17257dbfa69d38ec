//! `xpmfs completions SHELL`.

use std::process::ExitCode;

use clap::{Args, Command, CommandFactory, ValueEnum};
use clap_complete::Shell;

use super::{Cli, print};

/// What to print.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The shell
    shell: Shell,
}

/// Prints them.
///
/// # Errors
///
/// Standard output is gone.
pub fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    print::text(&script(arguments.shell))?;
    Ok(ExitCode::SUCCESS)
}

fn script(shell: Shell) -> String {
    let mut script = Vec::new();
    let mut command = visible(&Cli::command());
    clap_complete::generate(shell, &mut command, "xpmfs", &mut script);
    let mut script = String::from_utf8_lossy(&script).into_owned();
    if shell == Shell::Zsh {
        // A colon ends the name of a value; the generator lets it stand.
        script = script.replace(":MODE:PATH:", ":MODE\\:PATH:");
    }
    if shell == Shell::Fish {
        // The generator for fish knows no values of arguments that are not options.
        let shells: Vec<String> = Shell::value_variants()
            .iter()
            .map(Shell::to_string)
            .collect();
        script.push_str(&format!(
            "complete -c xpmfs -n \"__fish_xpmfs_using_subcommand completions\" -f -a \"{}\"\n",
            shells.join(" ")
        ));
    }
    script
}

/// A command without what is hidden in it: the generators would offer that too.
fn visible(command: &Command) -> Command {
    let bare = Command::new(command.get_name().to_owned())
        .about(command.get_about().cloned().unwrap_or_default())
        .version(env!("CARGO_PKG_VERSION"));
    let arguments = command.get_arguments().filter(|arg| !arg.is_hide_set());
    let inner = command
        .get_subcommands()
        .filter(|inner| !inner.is_hide_set());
    // `xpmfs help COMMAND` is `xpmfs COMMAND --help`; in fish, what is generated for it offers files.
    bare.disable_help_subcommand(true)
        .args(arguments.cloned())
        .subcommands(inner.map(visible))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_is_hidden_is_offered() {
        for shell in Shell::value_variants() {
            let script = script(*shell);
            for shown in ["umount", "read-only", "completions"] {
                assert!(script.contains(shown), "{shell}: {shown}");
            }
            for hidden in ["__answers", "sloppy", "in-background"] {
                assert!(!script.contains(hidden), "{shell}: {hidden}");
            }
        }
    }
}
