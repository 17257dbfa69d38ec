//! Plans a mount from arguments and settings, checks what it needs, and starts the daemon that makes it.

use std::ffi::OsString;
use std::io::ErrorKind;
use std::os::unix::process::CommandExt;
use std::path::{Path, absolute};
use std::process::Command;

use anyhow::{Context, bail};

use super::arguments::Arguments;
use crate::cli::{Global, mount_helper};
use crate::daemon::archiving;
use crate::daemon::attach::{Attachment, check_mountpoint, expect_no_silent_mount, resolve};
use crate::daemon::background::{Launch, launch};
use crate::daemon::limits;
use crate::daemon::log::{self, Destination};
use crate::daemon::plan::Plan;
use crate::daemon::sharing::terms::Terms;
use crate::daemon::supervisor::with_flag;
use crate::settings::{Folder, RecoverOn, Settings, Tuning, Workspace, validate_folders};
use crate::view::FolderSpec;

/// The plan of a mount, and what is checked before a directory is opened.
pub(super) struct Planned {
    pub(super) plan: Plan,
    pub(super) workspace: Workspace,
    pub(super) folders: Vec<Folder>,
    pub(super) warnings: Vec<String>,
}

impl Planned {
    /// Sends the log of this process, which serves the mount, to where the plan says.
    pub(super) fn begin_log(&self, global: &Global) -> std::io::Result<()> {
        let Plan {
            log, attachment, ..
        } = &self.plan;
        log::init(log, &attachment.mountpoint, global.verbosity())
    }

    pub(super) fn new(arguments: &Arguments, global: &Global) -> anyhow::Result<Self> {
        // First: without threads, all folders would seem not to answer.
        limits::check_start()?;
        let (options, warnings) = arguments.read_options()?;
        let file = global.settings.as_deref().or(options.settings.as_deref());
        let settings = Settings::load(file)?;
        let mut selection = arguments.select.selection();
        selection.workspace = selection.workspace.or(options.workspace);
        let workspace = settings.select(&selection)?;
        if workspace.is_remote() {
            bail!(
                "the workspace {} is on another machine and cannot be mounted: choose another one with --workspace",
                workspace.id
            );
        }
        let mut folders = settings.folders_of(&workspace);
        folders.extend(options.folders);
        folders.extend(arguments.folders.iter().cloned());
        for folder in &mut folders {
            folder.path = absolute(&folder.path)
                .with_context(|| format!("cannot use the folder {}", folder.path.display()))?;
        }
        let mountpoint = match &arguments.mountpoint {
            Some(mountpoint) => absolute(mountpoint)
                .with_context(|| format!("cannot use {}", mountpoint.display()))?,
            None => workspace.path.clone(),
        };
        let source = options.source.unwrap_or_else(|| name_of(&workspace));
        let attachment = Attachment {
            read_only: options.read_only || arguments.read_only,
            allow_other: options.allow_other,
            // Others are let in with the rights that they have on the disk; root has them all anyway.
            default_permissions: options.default_permissions
                || options.allow_other
                || rustix::process::geteuid().is_root(),
            dev: options.dev,
            suid: options.suid,
            exec: !options.noexec,
            atime: !options.noatime,
            private: arguments.private,
            ..Attachment::new(mountpoint, source)
        };
        let log = arguments.log.as_ref().or(options.log.as_ref());
        let log = match log {
            Some(file) => {
                let file =
                    absolute(file).with_context(|| format!("cannot use {}", file.display()))?;
                check_log(&file)?;
                Destination::File(file)
            }
            None if arguments.foreground => Destination::Stderr,
            None => Destination::of_background(&name_of(&workspace).to_string_lossy()),
        };
        let tuning = settings.tuning_of(&workspace);
        let config = || archiving::config(&tuning, &folders);
        let archives = !options.no_archive && !attachment.read_only;
        let archive = (archives && archiving::is_wanted(&folders)).then(config);
        let recovers = tuning.recover_on() != RecoverOn::Never && !attachment.read_only;
        let recover = (recovers && !folders.is_empty()).then(config);
        let terms = terms(&folders, &attachment, archive.is_some(), &tuning);
        let specs = folders.iter().map(|Folder { mode, path, .. }| FolderSpec {
            mode: *mode,
            path: path.clone(),
        });
        let plan = Plan {
            workspace: workspace.id.clone(),
            primary: workspace.path.clone(),
            folders: specs.collect(),
            attachment,
            log,
            archive,
            recover,
            recovers_on_open: tuning.recover_on() == RecoverOn::Open,
            folder_timeout: tuning.folder_timeout(),
            trash: tuning.trash(),
            terms,
            shared: arguments.shared,
        };
        Ok(Self {
            plan,
            workspace,
            folders,
            warnings,
        })
    }

    /// Adds the term that needs a look at the disk.
    pub(super) fn add_primary_term(&mut self) {
        let primary = primary_term(&self.plan.primary);
        self.plan.terms.add(PRIMARY_TERM, primary);
    }

    /// Checks the limits of this process and the mount point, and clears a dead mount away. Before anything else looks at the workspace's directory:
    /// in place, a dead mount is in the way of everything.
    pub(super) fn prepare(&mut self) -> anyhow::Result<()> {
        limits::check(self.folders.len())?;
        // Not before the supervisor has forked: a folder that does not answer keeps a thread.
        let problems = validate_folders(&self.workspace, &self.folders)?;
        self.warnings.extend(problems);
        for path in [&self.workspace.path, &self.plan.attachment.mountpoint] {
            expect_no_silent_mount(path)?;
        }
        check_workspace(&self.workspace)?;
        let primary = &self.workspace.path;
        let attachment = &mut self.plan.attachment;
        attachment.mountpoint = check_mountpoint(&attachment.mountpoint, Some(primary))?;
        Ok(())
    }

    /// Starts the daemon, which is this program with the same arguments, and waits until the mount answers.
    pub(super) fn launch(mut self) -> anyhow::Result<Self> {
        self.prepare()?;
        let arguments = mount_helper::own_arguments();
        let mountpoint = &self.plan.attachment.mountpoint;
        let launched = Launch {
            daemon: own_command(with_flag(arguments, "--in-background")),
            probe: own_command(vec!["__answers".into(), "--".into(), mountpoint.into()]),
        };
        launch(launched, mountpoint, &self.plan.log.to_string())?;
        Ok(self)
    }
}

/// The name of the term for the primary.
pub(super) const PRIMARY_TERM: &str = "the workspace's directory";

/// The primary without symlinks.
pub(super) fn primary_term(primary: &Path) -> String {
    let resolved = resolve(primary).unwrap_or_else(|_| primary.to_owned());
    resolved.display().to_string()
}

/// This program with other arguments.
pub(in crate::cli) fn own_command(arguments: Vec<OsString>) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.arg0("xpmfs").args(arguments);
    command
}

/// The name of a workspace: its id, or its path.
fn name_of(workspace: &Workspace) -> OsString {
    if workspace.id.is_empty() {
        workspace.path.clone().into()
    } else {
        workspace.id.clone().into()
    }
}

/// Checks that the workspace is a directory. The state of a dead mount in its place is unknown, and no error here.
fn check_workspace(workspace: &Workspace) -> anyhow::Result<()> {
    let path = workspace.path.display();
    let written = Path::new(&workspace.raw_path);
    let home = if written.starts_with("~") {
        " (`~` is the home of the user who mounts)"
    } else {
        ""
    };
    match std::fs::metadata(&workspace.path) {
        Ok(metadata) if !metadata.is_dir() => {
            bail!("the workspace {path} is not a directory: correct the path")
        }
        Err(error) if error.kind() == ErrorKind::NotADirectory => {
            bail!("the workspace {path} lies below a file, not below a directory: correct the path")
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {
            bail!(
                "the workspace's directory {path} does not exist: create it, or correct the path{home}"
            )
        }
        _ => Ok(()),
    }
}

/// Checks that the log file's directory exists: a mistyped one must not be made.
fn check_log(file: &Path) -> anyhow::Result<()> {
    match file.parent() {
        Some(directory) if !directory.is_dir() => bail!(
            "the log file {} cannot be written, as there is no directory {}: create it with `mkdir -p`, or give another --log",
            file.display(),
            directory.display()
        ),
        _ => Ok(()),
    }
}

/// What two mounts of a workspace must have in common to be the same to a program, without what needs a look at the disk.
fn terms(folders: &[Folder], attachment: &Attachment, archives: bool, tuning: &Tuning) -> Terms {
    let mut terms = Terms::default();
    let mut list = Vec::new();
    for folder in folders {
        let mut text = format!("{}:{}", folder.mode, folder.path.display());
        if !folder.exclude.written().is_empty() {
            text += &format!(" without {:?}", folder.exclude);
        }
        list.push(text);
    }
    terms.add("the list of folders", format!("[{}]", list.join(", ")));
    for (name, value) in [
        ("read-only", attachment.read_only),
        ("allow_other", attachment.allow_other),
        ("default_permissions", attachment.default_permissions),
        ("dev", attachment.dev),
        ("suid", attachment.suid),
        ("exec", attachment.exec),
        ("atime", attachment.atime),
        ("archiving", archives),
    ] {
        terms.add(name, value);
    }
    terms.add("settle", format!("{:?}", tuning.settle()));
    terms.add("scan_interval", format!("{:?}", tuning.scan_interval()));
    terms.add("exclude", format!("{:?}", tuning.exclude));
    terms.add("release", format!("{:?}", tuning.release));
    terms.add("bandwidth", format!("{:?}", tuning.bandwidth));
    terms.add("recover_on", format!("{:?}", tuning.recover_on()));
    terms.add("folder_timeout", format!("{:?}", tuning.folder_timeout()));
    terms.add("trash", format!("{:?}", tuning.trash()));
    terms
}
