//! The plan of a mount: what is served, where and how. One program may pass it to another, which goes on with the mount.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use serde::{Deserialize, Serialize};

use super::archiving;
use super::attach::Attachment;
use super::limits::raise_descriptor_limit;
use super::log::{self, Destination};
use super::run::{About, Launcher, Supervised, run};
use super::service::{self, WorkspaceService};
use super::sharing::register::Register;
use super::sharing::terms::Terms;
use super::supervisor::{Link, Resumed};
use crate::archive::engine::Config;
use crate::archive::{fresh_records, state_dir, trash_upkeep};
use crate::mount::{self, Mount};
use crate::settings::{DEFAULT_TRASH, Mode};
use crate::view::location::{NO_JOBS, Role};
use crate::view::{FolderSpec, View, ViewSpec};
use crate::workspace::layout::{EXPERIMENTS, JOBS, MARKER, Recognition, recognise};

/// How often folders are checked for having appeared or disappeared.
const WATCH: Duration = Duration::from_secs(1);

/// Everything that is decided before a directory is opened or mounted.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Plan {
    /// The workspace's id; empty for a directory that is not in the settings.
    pub workspace: String,
    /// The workspace's own directory, absolute.
    #[serde(with = "crate::sys::path_bytes")]
    pub primary: PathBuf,
    /// The folders, in the order in which they are asked for a job.
    pub folders: Vec<FolderSpec>,
    /// Where it is mounted, and with which options.
    pub attachment: Attachment,
    /// Where the log goes.
    pub log: Destination,
    /// The configuration of archiving, if the workspace is archived.
    pub archive: Option<Config>,
    /// The configuration of recovering, if archived jobs that programs change are recovered.
    pub recover: Option<Config>,
    /// Whether archived jobs that programs read are recovered, too.
    pub recovers_on_open: bool,
    /// How long a folder may take to answer.
    pub folder_timeout: Duration,
    /// How long a deleted job can be brought back.
    #[serde(default = "default_trash")]
    pub trash: Duration,
    /// How the mount is made, to be compared with what others ask for.
    pub terms: Terms,
    /// Whether programs that hold the mount keep it.
    pub shared: bool,
}

/// For the plan of a program that does not know the trash.
fn default_trash() -> Duration {
    DEFAULT_TRASH
}

impl Plan {
    /// Opens everything, and only then mounts: in place, the primary's path leads into the mount afterwards. Or serves on
    /// what another process has served. Returns when the mount has ended.
    ///
    /// # Errors
    ///
    /// What cannot be opened, or why nothing is mounted, or why serving broke off.
    pub fn serve(
        mut self,
        caller: Launcher,
        link: &Arc<Link>,
        resumed: Option<Resumed>,
    ) -> anyhow::Result<()> {
        let (caller, register) = match &resumed {
            None => {
                let register = Register::new(self.shared, self.terms, Some(link.clone()));
                (caller, register)
            }
            Some(resumed) => {
                self.attachment.mountpoint = resumed.place.mountpoint.clone();
                // After a reload, also of workers that are started later.
                let renewed = matches!(caller, Launcher::Resumed { .. }).then_some(self.terms);
                let holders = resumed.holders.as_ref();
                let register = Register::resumed(holders, renewed, Some(link.clone()));
                (caller.resumed(), register)
            }
        };
        // The mount divides the descriptors between its caches and open files when it is made.
        raise_descriptor_limit();
        let primary = self.primary;
        let beneath = match &resumed {
            Some(resumed) => Some(resumed.primary.try_clone()?),
            None => service::beneath(&primary).with_context(|| {
                format!("{} is mounted in place, and that mount's daemon does not hand out the directory beneath", primary.display())
            })?,
        };
        let spec = ViewSpec {
            workspace: self.workspace.clone(),
            primary: primary.clone(),
            folders: self.folders,
            mountpoint: Some(self.attachment.mountpoint.clone()),
        };
        let only_mount = match &resumed {
            Some(resumed) => resumed.place.alone,
            // Other mounts of this machine may be in other namespaces as well.
            None if self.attachment.private => false,
            None => self.attachment.mountpoint == primary && service::is_alone(&primary),
        };
        let view = Arc::new(View::open_beneath(
            spec,
            beneath,
            service::beneath_folders(),
            self.folder_timeout,
        )?);
        let fd_of_primary = view.primary().root()?.fd().try_clone_to_owned()?;
        note_empty(&view, &primary);
        view.watch(WATCH);
        if !self.attachment.read_only {
            view.record_jobs();
            fresh_records::start(&view);
        }
        let options = mount::MountOptions {
            allow_other: self.attachment.allow_other,
            default_permissions: self.attachment.default_permissions,
            noatime: !self.attachment.atime,
            alone: only_mount,
        };
        let cannot_open = || format!("cannot open {}", primary.display());
        let mount = Mount::new(view.clone(), options).with_context(cannot_open)?;
        let mut trash = Arc::default();
        if !self.attachment.read_only {
            let hooks = archiving::hooks(&view, mount.handle())?;
            trash = trash_upkeep::start(&view, self.trash, &hooks);
        }
        let archiver = match self.archive {
            Some(config) => Some(archiving::beside(&view, config, mount.handle())?),
            None => None,
        };
        let recover = match self.recover {
            Some(config) => {
                let on_open = self.recovers_on_open;
                Some(archiving::recovery(
                    &view,
                    &config,
                    on_open,
                    mount.handle(),
                )?)
            }
            None => None,
        };
        let service = WorkspaceService::new(view, mount, archiver, recover, trash)
            .with_context(cannot_open)?;
        let about = About {
            workspace: Some(self.workspace).filter(|id| !id.is_empty()),
            primary,
            log: self.log.to_string(),
        };
        let supervised = Supervised {
            link: link.clone(),
            resumed,
            alone: only_mount,
            primary: fd_of_primary,
            register: Arc::new(register),
        };
        run(
            Arc::new(service),
            &self.attachment,
            &about,
            caller,
            Some(supervised),
        )?;
        Ok(())
    }
}

/// Notes directories that are empty: on a first mount that is as it should be, later a disk may be missing.
fn note_empty(view: &View, primary: &Path) {
    for folder in view.folders() {
        if folder.status().state != NO_JOBS {
            continue;
        }
        let (mode, path) = (folder.role(), folder.path().display());
        let known = state_dir::is_known(view.primary(), folder).unwrap_or(false);
        match mode {
            _ if known => tracing::warn!(
                "{path} has no jobs, but jobs were archived there before: check that its disk is mounted"
            ),
            Role::Folder(mode) if mode == Mode::Use => tracing::info!(
                target: log::NOTE,
                "{mode} folder {path} has no jobs; if you expected some, check the path and that its disk is mounted"
            ),
            Role::Folder(mode) => tracing::info!(
                target: log::NOTE,
                "{mode} folder {path} is empty; fine on first use, otherwise check that its disk is mounted"
            ),
            Role::Primary => {}
        }
    }
    let Ok(root) = view.primary().root() else {
        return;
    };
    if let Ok(Recognition::Neither) = recognise(root.fd()) {
        tracing::info!(
            target: log::NOTE,
            "{} has no {MARKER}, `{JOBS}` or `{EXPERIMENTS}`: mounting it as a new workspace. If you expected jobs here, check the path",
            primary.display()
        );
    }
}
