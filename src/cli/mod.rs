//! The commands that a person types: one file or directory a command. Prints, and decides nothing about jobs.
//!
//! - [`mount`], [`umount`], [`mod@run`], [`reload`], [`mount_helper`] (`mount.fuse.xpmfs`), [`status`], [`archive`], [`jobs`], [`trash`],
//!   [`orphans`], [`experiments`], [`tui`], [`ssh_monitor`], [`workspaces`], [`settings`], [`completions`], [`man`]: the commands
//! - `arguments`: the options of several commands; [`open`]: opens the workspace that they select; `candidates`: what
//!   completion offers; `neighbours`: other workspaces that use the same directories; `shared_mount`: `mount --shared`
//! - [`front`]: the process that the shell waits for; `errors`: errors and exit statuses; [`usage`]: errors of the command line; `advice`:
//!   what to do about errors
//! - `print`, `style`, `table`, `columns`: output; `first_jobs`: bounds lists of jobs; `drain`: the wait for archiving; `process_end`: ends as another process has ended;
//!   `process_status`: reads `/proc`; `terminal_guard`: restores the terminal after a dashboard
//!
//! A new command is a variant of [`Command`] with an `Example:` and an arm of `run`, here; a row of the README's table; a section of
//! `docs/json.md`; a step in `tests/commands/walk.rs`; and a line of the change log. `tests/commands` checks all but the last. Its manual
//! page comes from the parser.
//!
//! Listings go to standard output, as tables or, with `--json`, as JSON; everything else goes to
//! standard error. Exit status: 0 done, 1 failed, 2 wrong usage.

mod advice;
pub mod archive;
mod arguments;
mod candidates;
mod columns;
pub mod completions;
mod drain;
mod errors;
pub mod experiments;
mod first_jobs;
pub mod front;
pub mod jobs;
pub mod man;
pub mod mount;
pub mod mount_helper;
mod neighbours;
pub mod open;
pub mod orphans;
mod print;
mod process_end;
mod process_status;
pub mod reload;
pub mod run;
pub mod settings;
mod shared_mount;
pub mod ssh_monitor;
pub mod status;
mod style;
mod table;
mod terminal_guard;
pub mod trash;
pub mod tui;
pub mod umount;
pub mod usage;
pub mod workspaces;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use crate::daemon::{health, log};

pub use self::arguments::{Global, Listing, Select};
use self::errors::Usage;
pub use self::errors::{WRONG_USAGE, is_broken_pipe, sentence, status_of};

/// Shows an experimaestro workspace as one directory, whatever disk each job lies on.
#[derive(Debug, Parser)]
#[command(name = "xpmfs", version, about, propagate_version = true)]
pub struct Cli {
    /// Options of every command.
    #[command(flatten)]
    pub global: Global,
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Mounts a workspace, by default in place: over its own directory
    ///
    /// Returns when the mount is ready. Every job is then seen under one path, whichever folder it lies in.
    ///
    /// Example: `xpmfs mount -w nlp`, or for a first try `xpmfs mount --workdir ~/experiments/nlp --folder use:/home/colleague/nlp`
    Mount(Box<mount::Arguments>),
    /// Unmounts a workspace
    ///
    /// Example: `xpmfs umount -w nlp --drain`
    Umount(umount::Arguments),
    /// Runs a command that sees the workspace mounted in place, for that command alone
    ///
    /// The mount is in a mount namespace of its own: no other program sees it, and it ends with the command, also if that is killed. For
    /// batch jobs, and where `xpmfs mount` is not permitted. The exit status is that of the command.
    ///
    /// Example: `xpmfs run -w nlp --drain=30m -- python -m train`
    Run(run::Arguments),
    /// Makes a mount go on with this program and the settings as they are now
    ///
    /// For an upgrade of xpmfs, or after the settings were changed. Programs that use the mount notice nothing: paths, open files,
    /// locks and current directories stay. If this program or the settings are wrong, the mount goes on as before.
    ///
    /// Example: `xpmfs reload --all` after a new version was installed.
    Reload(reload::Arguments),
    /// Shows mounts, the state of folders, and what is being archived
    ///
    /// Example: `xpmfs status --watch`
    Status(status::Arguments),
    /// Archives a workspace that is not mounted: once, or for as long as it runs
    ///
    /// A mount archives by itself; this is for machines without one. Both may run at the same time, on any number of machines.
    ///
    /// Example: `xpmfs archive -w nlp --watch`
    Archive(archive::Arguments),
    /// Lists, finds, archives, recovers, verifies and deletes jobs
    #[command(subcommand)]
    Jobs(Box<jobs::Command>),
    /// Lists deleted jobs, and removes them for good
    #[command(subcommand)]
    Trash(Box<trash::Command>),
    /// Lists orphans: jobs of the workspace that no run of an experiment refers to
    ///
    /// Jobs that only a folder has are not orphans, also beneath a mount. Neither are those that a `backup` or `move` folder has, too: they
    /// can be recovered.
    ///
    /// Example: `xpmfs orphans --size ~/experiments/nlp`
    Orphans(orphans::Arguments),
    /// Lists experiments and their runs, brings them back from folders, and copies them to other workspaces
    #[command(subcommand)]
    Experiments(Box<experiments::Command>),
    /// Shows a workspace as a dashboard in the terminal: jobs, copies, folders, archiving, orphans, trash
    ///
    /// Shows which jobs have no second copy, where each copy is, and what can be freed; follows changes by itself. Archives, recovers,
    /// releases, verifies and deletes jobs, after a confirmation that says how many bytes that is about. `?` shows the keys.
    ///
    /// Example: `xpmfs tui -w nlp`
    Tui(tui::Arguments),
    /// Shows a workspace on another machine as a dashboard in the terminal: experiments, jobs, logs, services
    ///
    /// Needs `ssh`, and experimaestro 2.7 on the other machine, which `uv` there installs if it has none. Follows changes by itself, kills and
    /// deletes jobs after a confirmation, and connects again when the connection is lost. Where `xpmfs` is installed there,
    /// `--remote-xpmfs` shows the folders and the archive, too. `?` shows the keys.
    ///
    /// Example: `xpmfs ssh-monitor -w cluster`, or without settings `xpmfs ssh-monitor user@cluster /scratch/experiments`
    SshMonitor(ssh_monitor::Arguments),
    /// Shows the workspaces of the settings file
    #[command(subcommand)]
    Workspaces(workspaces::Command),
    /// Finds mistakes in the settings file, prints the settings in effect, or rewrites deprecated keys
    #[command(subcommand)]
    Settings(settings::Command),
    /// Prints a shell's completions, also of workspaces, jobs and mount points
    ///
    /// Example: `xpmfs completions bash > ~/.local/share/bash-completion/completions/xpmfs`
    Completions(completions::Arguments),
    /// Prints the manual page, or writes all of them
    ///
    /// Example: `xpmfs man --dir ~/.local/share/man/man1`
    Man(man::Arguments),
    /// Asks a mount whether it answers (for `mount`, which must not wait for it itself)
    // The name resembles no other, so that it is not proposed for a mistyped one.
    #[command(hide = true, name = "__answers")]
    Probe {
        /// The mount point
        path: PathBuf,
    },
}

impl Command {
    /// Whether a thread of the command may wait for a file system without end, so that the command needs a [`front`].
    #[must_use]
    pub fn asks_file_systems(&self) -> bool {
        match self {
            Self::Completions(_) | Self::Man(_) | Self::Probe { .. } => false,
            Self::Mount(arguments) => !arguments.serves(),
            // A service: its process id is known to others, and it ends by a signal.
            Self::Archive(_) => false,
            // It enters a namespace, which a process with several threads cannot.
            Self::Run(_) => false,
            Self::Umount(_)
            | Self::Reload(_)
            | Self::Status(_)
            | Self::Jobs(_)
            | Self::Trash(_)
            | Self::Orphans(_)
            | Self::Tui(_)
            | Self::SshMonitor(_)
            | Self::Experiments(_)
            | Self::Workspaces(_)
            | Self::Settings(_) => true,
        }
    }

    /// Whether it takes the terminal over.
    #[must_use]
    pub fn is_dashboard(&self) -> bool {
        matches!(self, Self::Tui(_) | Self::SshMonitor(_))
    }

    /// The options of its listing, if it prints one.
    fn listing(&self) -> Option<&Listing> {
        match self {
            Self::Status(arguments) => Some(&arguments.listing),
            Self::Reload(arguments) => Some(&arguments.listing),
            Self::Settings(command) => Some(command.listing()),
            Self::Jobs(command) => command.listing(),
            Self::Trash(command) => Some(command.listing()),
            Self::Orphans(arguments) => Some(&arguments.listing),
            Self::Experiments(command) => Some(command.listing()),
            Self::Archive(arguments) => Some(&arguments.listing),
            Self::Workspaces(workspaces::Command::List { listing }) => Some(listing),
            _ => None,
        }
    }
}

/// Runs one command.
///
/// # Errors
///
/// The operation that failed, its path, and the reason.
pub fn run(cli: &Cli) -> anyhow::Result<ExitCode> {
    let listing = cli.command.listing();
    if cli.global.json && listing.is_none() {
        let message = "--json is for listings: status, archive, jobs list, jobs archive, jobs delete, jobs recover, jobs release, jobs undelete, jobs verify, jobs where, trash, orphans, experiments, reload, settings, workspaces list";
        return Err(Usage(message.to_owned()).into());
    }
    let global = &Global {
        json: cli.global.json || listing.is_some_and(|listing| listing.json),
        ..cli.global.clone()
    };
    if !matches!(cli.command, Command::Mount(_)) {
        log::to_terminal(global.verbosity());
    }
    match &cli.command {
        Command::Mount(arguments) => mount::run(arguments, global),
        Command::Umount(arguments) => umount::run(arguments, global),
        Command::Run(arguments) => run::run(arguments, global),
        Command::Reload(arguments) => reload::run(arguments, global),
        Command::Status(arguments) => status::run(arguments, global),
        Command::Completions(arguments) => completions::run(arguments),
        Command::Man(arguments) => man::run(arguments, global, Cli::command()),
        Command::Probe { path } => Ok(if health::answers(path) {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        }),
        Command::Archive(arguments) => archive::run(arguments, global),
        Command::Jobs(command) => jobs::run(command, global),
        Command::Trash(command) => trash::run(command, global),
        Command::Orphans(arguments) => orphans::run(arguments, global),
        Command::Tui(arguments) => tui::run(arguments, global),
        Command::SshMonitor(arguments) => ssh_monitor::run(arguments, global),
        Command::Experiments(command) => experiments::run(command, global),
        Command::Settings(command) => settings::run(command, global),
        Command::Workspaces(command) => workspaces::run(command, global),
    }
}
