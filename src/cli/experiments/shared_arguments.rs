//! The options of all commands on experiments, and the workspace that they select.

use clap::Args;

use crate::cli::jobs::session::{Session, Which};
use crate::cli::open::More;
use crate::cli::{Global, Listing, Select};
use crate::remote::Site;
use crate::settings::Settings;

/// The options of every command.
#[derive(Debug, Args)]
pub struct SharedArguments {
    /// How the outcome is printed.
    #[command(flatten)]
    pub(super) listing: Listing,
    /// More folders.
    #[command(flatten)]
    more: More,
    /// Which workspace.
    #[command(flatten)]
    select: Select,
}

impl SharedArguments {
    /// The workspace, if it is on another machine.
    pub(super) fn remote(&self, global: &Global) -> anyhow::Result<Option<Site>> {
        let settings = Settings::load(global.settings.as_deref())?;
        let workspace = settings.select(&self.select.selection())?;
        if !workspace.is_remote() {
            return Ok(None);
        }
        let folders = settings.folders_of(&workspace);
        Ok(Some(Site::new(&workspace, folders)?))
    }

    /// Opens the workspace.
    pub(super) fn open(&self, global: &Global) -> anyhow::Result<Session> {
        let which = Which {
            jobs: Vec::new(),
            more: self.more.clone(),
            select: self.select.clone(),
        };
        Session::open(&which, &[], global)
    }
}
