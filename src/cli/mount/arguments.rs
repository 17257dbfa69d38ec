//! The arguments of `xpmfs mount`.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{Args, ValueHint};

use crate::cli::Select;
use crate::daemon::options::{self, RequestedOptions};
use crate::daemon::sharing::holder::Given;
use crate::daemon::supervisor::{CHECK_FLAG, RESUME_FLAG};
use crate::settings::Folder;

/// The flag of a mount for one command.
pub(in crate::cli) const PRIVATE_FLAG: &str = "private";

/// What to mount, and how.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Where to mount: an empty directory [default: the workspace's own directory, in place]
    #[arg(value_hint = ValueHint::DirPath)]
    pub(super) mountpoint: Option<PathBuf>,
    /// Which workspace.
    #[command(flatten)]
    pub(super) select: Select,
    /// Attach one more folder: use:PATH, backup:PATH or move:PATH
    #[arg(long = "folder", value_name = "MODE:PATH", value_hint = ValueHint::Other, value_parser = OsStringValueParser::new().try_map(|text| options::folder(&text)))]
    pub(super) folders: Vec<Folder>,
    /// Refuse all writes through the mount
    #[arg(long)]
    pub(super) read_only: bool,
    /// Mount options, with commas between them: ro, noexec, noatime, allow_other, … and workspace=ID, settings=FILE, folder=MODE:PATH, log=FILE, no_archive
    #[arg(short, long, value_name = "OPTIONS", value_hint = ValueHint::Other)]
    pub(super) options: Vec<OsString>,
    /// Archive nothing
    #[arg(long)]
    pub(super) no_archive: bool,
    /// Stay in the foreground
    #[arg(short, long)]
    pub(super) foreground: bool,
    /// Append the log to this file [default: the journal, or ~/.local/state/xpmfs/]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(super) log: Option<PathBuf>,
    /// Join the mount if the workspace is mounted alike already, and keep it until `umount` or the end of the holder
    #[arg(long, conflicts_with = "foreground")]
    pub(super) shared: bool,
    /// The holder of a shared mount: pid:N, session:N or cgroup:DIRECTORY [default: the job of Slurm, or the calling program]
    #[arg(long, value_name = "HOLDER", requires = "shared", value_hint = ValueHint::Other)]
    pub(super) holder: Option<Given>,
    /// Mount for the processes of this mount namespace alone, and as long as there are others (for `run`)
    #[arg(long = PRIVATE_FLAG, hide = true)]
    pub(super) private: bool,
    /// Leave unknown mount options out, as mount(8) asks for with -s
    #[arg(long, hide = true)]
    pub(super) sloppy: bool,
    /// Serve for the process at the other end of standard input
    #[arg(long, hide = true)]
    pub(super) in_background: bool,
    /// Answer, on standard input, whether this program can go on with a mount
    #[arg(long = CHECK_FLAG, hide = true)]
    pub(super) check_reload: bool,
    /// Go on with a mount that another program has left, as this descriptor says
    #[arg(long = RESUME_FLAG, hide = true)]
    pub(super) resume: Option<i32>,
}

impl Arguments {
    /// Whether this process is to serve the mount.
    pub(in crate::cli) fn serves(&self) -> bool {
        self.foreground || self.in_background || self.check_reload || self.resume.is_some()
    }

    /// The options of every `-o`, and what to warn of.
    pub(super) fn read_options(&self) -> anyhow::Result<(RequestedOptions, Vec<String>)> {
        let mut options = RequestedOptions::default();
        let mut warnings = Vec::new();
        for text in &self.options {
            if self.sloppy {
                let left_out = options.add_sloppily(text)?;
                warnings.extend(
                    left_out
                        .iter()
                        .map(|o| format!("there is no mount option `{o}` here: it is left out")),
                );
            } else {
                options.add(text)?;
            }
        }
        options.no_archive |= self.no_archive;
        Ok((options, warnings))
    }
}
