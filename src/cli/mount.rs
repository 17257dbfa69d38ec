//! `xpmfs mount`.

use std::ffi::{OsStr, OsString};
use std::io::{ErrorKind, IsTerminal};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf, absolute};
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{Args, ValueHint};

use super::errors::Usage;
use super::shared_mount::{self, Wanted};
use super::{Global, Select, mount_helper, mount_terms, print, sentence};
use crate::archive::engine::Config;
use crate::archive::{fresh_records, state_dir};
use crate::daemon::REPLY_TIMEOUT;
use crate::daemon::archiving;
use crate::daemon::attach::{
    Attachment, RemountError, expect_no_silent_mount, prepare, remount, resolve,
};
use crate::daemon::background::{Launch, Parent, launch};
use crate::daemon::limits;
use crate::daemon::log::{self, Destination};
use crate::daemon::options::{self, MountOptions};
use crate::daemon::run::{About, Launcher, Supervised, raise_descriptor_limit, run as serve};
use crate::daemon::service::{self, WorkspaceService};
use crate::daemon::sharing::caller::caller;
use crate::daemon::sharing::holder::Given;
use crate::daemon::sharing::register::Register;
use crate::daemon::sharing::terms::Terms;
use crate::daemon::supervisor::{self, Link, Side};
use crate::mount::{self, Mount};
use crate::settings::{Folder, Mode, RecoverOn, Settings, Workspace, validate_folders};
use crate::sys::deadline::within;
use crate::view::location::{NO_JOBS, Role};
use crate::view::{FolderSpec, View, ViewSpec};
use crate::workspace::layout::{EXPERIMENTS, JOBS, MARKER, Recognition, recognise};

/// How often folders are checked for having appeared or disappeared.
const WATCH: Duration = Duration::from_secs(1);

/// What to mount, and how.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Where to mount: an empty directory [default: the workspace's own directory, in place]
    #[arg(value_hint = ValueHint::DirPath)]
    mountpoint: Option<PathBuf>,
    /// Which workspace.
    #[command(flatten)]
    select: Select,
    /// Attach one more folder: use:PATH, backup:PATH or move:PATH
    #[arg(long = "folder", value_name = "MODE:PATH", value_hint = ValueHint::Other, value_parser = OsStringValueParser::new().try_map(|text| options::folder(&text)))]
    folders: Vec<Folder>,
    /// Refuse all writes through the mount
    #[arg(long)]
    read_only: bool,
    /// Mount options, with commas between them: ro, noexec, noatime, allow_other, … and workspace=ID, settings=FILE, folder=MODE:PATH, log=FILE, no_archive
    #[arg(short, long, value_name = "OPTIONS", value_hint = ValueHint::Other)]
    options: Vec<OsString>,
    /// Archive nothing
    #[arg(long)]
    no_archive: bool,
    /// Stay in the foreground
    #[arg(short, long)]
    foreground: bool,
    /// Append the log to this file [default: the journal, or ~/.local/state/xpmfs/]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    log: Option<PathBuf>,
    /// Join the mount if the workspace is mounted alike already, and keep it until `umount` or the end of the holder
    #[arg(long, conflicts_with = "foreground")]
    shared: bool,
    /// The holder of a shared mount: pid:N, session:N or cgroup:DIRECTORY [default: the job of Slurm, or the calling program]
    #[arg(long, value_name = "HOLDER", requires = "shared", value_hint = ValueHint::Other)]
    holder: Option<Given>,
    /// Leave unknown mount options out, as mount(8) asks for with -s
    #[arg(long, hide = true)]
    sloppy: bool,
    /// Serve for the process at the other end of standard input
    #[arg(long, hide = true)]
    in_background: bool,
}

/// Everything that is decided before a directory is opened or mounted.
struct Plan {
    workspace: Workspace,
    folders: Vec<Folder>,
    attachment: Attachment,
    log: Destination,
    /// The configuration of archiving, if the workspace is archived.
    archive: Option<Config>,
    /// The configuration of recovering, if archived jobs that programs change are recovered.
    recover: Option<Config>,
    /// Whether archived jobs that programs read are recovered, too.
    recovers_on_open: bool,
    folder_timeout: Duration,
    /// How the mount is made, to be compared with what others ask for.
    terms: Terms,
    shared: bool,
    warnings: Vec<String>,
}

/// Mounts, and returns when the mount answers; in the foreground, when it has been unmounted.
///
/// # Errors
///
/// Why nothing is mounted, and what to do.
pub fn run(arguments: &Arguments, global: &Global) -> anyhow::Result<ExitCode> {
    if arguments.in_background {
        return in_background(arguments, global);
    }
    if (arguments.options.iter()).any(|options| options::asks_to_remount(options)) {
        if arguments.shared {
            return Err(Usage(
                "`remount` changes a live mount, and --shared joins one: leave one of them out"
                    .to_owned(),
            )
            .into());
        }
        change_live_mount(arguments)?;
        return Ok(ExitCode::SUCCESS);
    }
    if arguments.shared {
        mount_shared(arguments, global)?;
        return Ok(ExitCode::SUCCESS);
    }
    let plan = Plan::new(arguments, global)?;
    if arguments.foreground {
        log::init(&plan.log, global.verbosity())?;
        return plan.supervise(Launcher::Foreground);
    } else {
        log::init(&Destination::Terminal, global.verbosity())?;
        let plan = plan.launch()?;
        report(&plan, global, false);
    }
    Ok(ExitCode::SUCCESS)
}

/// Joins a live mount, or makes it.
fn mount_shared(arguments: &Arguments, global: &Global) -> anyhow::Result<()> {
    let holder = match &arguments.holder {
        Some(given) => given.identify()?,
        None => caller()?,
    };
    let plan = Plan::new(arguments, global)?;
    log::init(&Destination::Terminal, global.verbosity())?;
    let mountpoint = plan.attachment.mountpoint.clone();
    let primary = plan.workspace.path.clone();
    for path in [&primary, &mountpoint] {
        expect_no_silent_mount(path)?;
    }
    let mut terms = plan.terms.clone();
    let resolved = within(REPLY_TIMEOUT, move || primary_term(&primary));
    terms.add(PRIMARY, resolved.unwrap_or_default());
    let wanted = Wanted {
        mountpoint: &mountpoint,
        holder: &holder,
        terms: &terms,
        read_only: plan.attachment.read_only,
    };
    let joined = shared_mount::mount(
        &wanted,
        || {
            own_command(vec![
                "__answers".into(),
                "--".into(),
                mountpoint.clone().into(),
            ])
        },
        || Plan::new(arguments, global)?.launch().map(drop),
    )?;
    report(&plan, global, joined);
    Ok(())
}

/// The name of the term for the primary.
const PRIMARY: &str = "the workspace's directory";

/// The primary without symlinks.
fn primary_term(primary: &Path) -> String {
    let resolved = resolve(primary).unwrap_or_else(|_| primary.to_owned());
    resolved.display().to_string()
}

/// This program with other arguments.
fn own_command(arguments: Vec<OsString>) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.arg0("xpmfs").args(arguments);
    command
}

/// Changes the flags of a live mount (`-o remount,ro`), and nothing that its daemon was started with.
fn change_live_mount(arguments: &Arguments) -> anyhow::Result<()> {
    let Some(mountpoint) = &arguments.mountpoint else {
        bail!("`remount` needs the mount point: xpmfs mount -o remount,OPTIONS MOUNTPOINT");
    };
    let mut given: Vec<&OsStr> = arguments.options.iter().map(OsString::as_os_str).collect();
    if arguments.read_only {
        given.push(OsStr::new("ro"));
    }
    remount(mountpoint, &given, arguments.sloppy).map_err(|error| match error {
        // Wrong usage, which has an exit status of its own.
        RemountError::Options(error) => error.into(),
        error => error.into(),
    })
}

/// The daemon's part. An error is sent to the waiting parent process, which prints it.
fn in_background(arguments: &Arguments, global: &Global) -> anyhow::Result<ExitCode> {
    let parent = Parent::from_stdin()
        .context("--in-background is for `xpmfs mount` itself; leave it out")?;
    let other = parent.try_clone()?;
    let served = Plan::new(arguments, global).and_then(|plan| {
        log::init(&plan.log, global.verbosity())?;
        plan.supervise(Launcher::Background(parent))
    });
    Ok(match served {
        Ok(code) => code,
        Err(error) => {
            // Here it goes to the log; the parent prints it.
            log::close_stderr();
            let sentence = sentence(&error);
            tracing::error!(target: "xpmfs::daemon", "{sentence}");
            other.failed(&sentence);
            ExitCode::FAILURE
        }
    })
}

impl Plan {
    fn new(arguments: &Arguments, global: &Global) -> anyhow::Result<Self> {
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
        let recovers_on_open = tuning.recover_on() == RecoverOn::Open;
        let folder_timeout = tuning.folder_timeout();
        let terms = mount_terms::terms(&folders, &attachment, archive.is_some(), &tuning);
        Ok(Self {
            folder_timeout,
            terms,
            shared: arguments.shared,
            workspace,
            archive,
            recover,
            recovers_on_open,
            folders,
            attachment,
            log,
            warnings,
        })
    }

    /// Checks the limits of this process and the mount point, and clears a dead mount away. Before anything else looks at the workspace's directory:
    /// in place, a dead mount is in the way of everything.
    fn prepare(&mut self) -> anyhow::Result<()> {
        limits::check(self.folders.len())?;
        // Not before the supervisor has forked: a folder that does not answer keeps a thread.
        let problems = validate_folders(&self.workspace, &self.folders)?;
        self.warnings.extend(problems);
        for path in [&self.workspace.path, &self.attachment.mountpoint] {
            expect_no_silent_mount(path)?;
        }
        check_workspace(&self.workspace)?;
        let primary = &self.workspace.path;
        self.attachment.mountpoint = prepare(&self.attachment.mountpoint, Some(primary))?;
        Ok(())
    }

    /// Starts the daemon, which is this program with the same arguments, and waits until the mount answers.
    fn launch(mut self) -> anyhow::Result<Self> {
        self.prepare()?;
        let arguments = mount_helper::own_arguments();
        let mountpoint = &self.attachment.mountpoint;
        let launched = Launch {
            daemon: own_command(mount_helper::with_flag(arguments, "--in-background")),
            probe: own_command(vec!["__answers".into(), "--".into(), mountpoint.into()]),
        };
        launch(launched, mountpoint, &self.log.to_string())?;
        Ok(self)
    }

    /// Divides this process into a supervisor and a worker, which serves the mount. Returns in both.
    fn supervise(self, caller: Launcher) -> anyhow::Result<ExitCode> {
        match supervisor::start().context("cannot start the process that serves the mount")? {
            Side::Ended(code) => Ok(code),
            Side::Worker(link) => {
                let link = Arc::new(link);
                let served = self.serve(caller, &link);
                link.over();
                served.map(|()| ExitCode::SUCCESS)
            }
        }
    }

    /// Opens everything, and only then mounts: in place, the primary's path leads into the mount afterwards.
    fn serve(mut self, mut caller: Launcher, link: &Arc<Link>) -> anyhow::Result<()> {
        let resumed = link.take_resumed();
        let register = match &resumed {
            None => {
                self.prepare()?;
                for warning in &self.warnings {
                    tracing::warn!("{warning}");
                }
                let mut terms = self.terms;
                terms.add(PRIMARY, primary_term(&self.workspace.path));
                Register::new(self.shared, terms, Some(link.clone()))
            }
            // The paths lead into the mount, which is not served at this moment.
            Some(resumed) => {
                self.attachment.mountpoint = resumed.place.mountpoint.clone();
                caller = Launcher::None;
                Register::resumed(resumed.holders.as_ref(), Some(link.clone()))
            }
        };
        // The mount divides the descriptors between its caches and open files when it is made.
        raise_descriptor_limit();
        let primary = self.workspace.path.clone();
        let beneath = match &resumed {
            Some(resumed) => Some(resumed.primary.try_clone()?),
            None => service::beneath(&primary).with_context(|| {
                format!("{} is mounted in place, and that mount's daemon does not hand out the directory beneath", primary.display())
            })?,
        };
        let spec = ViewSpec {
            workspace: self.workspace.id.clone(),
            primary: primary.clone(),
            folders: self
                .folders
                .into_iter()
                .map(|Folder { mode, path, .. }| FolderSpec { mode, path })
                .collect(),
            mountpoint: Some(self.attachment.mountpoint.clone()),
        };
        let only_mount = match &resumed {
            Some(resumed) => resumed.place.alone,
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
        let options = mount::Options {
            allow_other: self.attachment.allow_other,
            default_permissions: self.attachment.default_permissions,
            noatime: !self.attachment.atime,
            alone: only_mount,
        };
        let cannot_open = || format!("cannot open {}", primary.display());
        let mount = Mount::new(view.clone(), options).with_context(cannot_open)?;
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
        let service =
            WorkspaceService::new(view, mount, archiver, recover).with_context(cannot_open)?;
        let about = About {
            workspace: Some(self.workspace.id).filter(|id| !id.is_empty()),
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
        serve(
            Arc::new(service),
            &self.attachment,
            &about,
            caller,
            Some(supervised),
        )?;
        Ok(())
    }
}

impl Arguments {
    /// Whether this process is to serve the mount.
    pub(super) fn serves(&self) -> bool {
        self.foreground || self.in_background
    }

    /// The options of every `-o`, and what to warn of.
    fn read_options(&self) -> anyhow::Result<(MountOptions, Vec<String>)> {
        let mut options = MountOptions::default();
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

/// Prints at a terminal what is mounted now; mount(8) prints nothing.
fn report(plan: &Plan, global: &Global, joined: bool) {
    if global.quiet || mount_helper::has_called() || !std::io::stderr().is_terminal() {
        return;
    }
    let mountpoint = plan.attachment.mountpoint.display();
    let place = if plan.attachment.mountpoint == plan.workspace.path {
        format!("in place at {mountpoint}")
    } else {
        format!("at {mountpoint}")
    };
    let folders = match plan.folders.len() {
        0 => String::new(),
        1 => ", with 1 folder,".to_owned(),
        count => format!(", with {count} folders,"),
    };
    let name = match plan.workspace.id.as_str() {
        "" => "the workspace",
        id => id,
    };
    let umount = format!("`xpmfs umount {mountpoint}`");
    let end = match (joined, plan.shared) {
        (true, _) => {
            format!("it was mounted before and is shared: {umount} ends this program's hold")
        }
        (false, true) => format!("{umount} unmounts it unless another program holds it"),
        (false, false) => format!("{umount} unmounts it"),
    };
    print::line(&format!("{name}{folders} is mounted {place}; {end}"));
}
