//! `xpmfs mount`.

use std::ffi::{OsStr, OsString};
use std::io::{ErrorKind, IsTerminal};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf, absolute};
use std::process::{Command, ExitCode};
use std::sync::Arc;

use anyhow::{Context, bail};
use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{Args, ValueHint};

use super::errors::Usage;
use super::shared_mount::{self, MountRequest};
use super::{Global, Select, mount_helper, mount_terms, print, sentence};
use crate::daemon::REPLY_TIMEOUT;
use crate::daemon::archiving;
use crate::daemon::attach::{
    Attachment, RemountError, expect_no_silent_mount, prepare, remount, resolve,
};
use crate::daemon::background::{Launch, Parent, launch};
use crate::daemon::limits;
use crate::daemon::log::{self, Destination};
use crate::daemon::options::{self, RequestedOptions};
use crate::daemon::plan::Plan;
use crate::daemon::run::Launcher;
use crate::daemon::sharing::caller::caller;
use crate::daemon::sharing::holder::Given;
use crate::daemon::supervisor::{
    self, CHECK_FLAG, ForkResult, Link, Program, RESUME_FLAG, Resumed, SupervisorStart, with_flag,
};
use crate::settings::{Folder, RecoverOn, Settings, Workspace, validate_folders};
use crate::sys::deadline::within;
use crate::view::FolderSpec;

/// The flag of a mount for one command.
pub(super) const PRIVATE_FLAG: &str = "private";

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
    /// Mount for the processes of this mount namespace alone, and as long as there are others (for `run`)
    #[arg(long = PRIVATE_FLAG, hide = true)]
    private: bool,
    /// Leave unknown mount options out, as mount(8) asks for with -s
    #[arg(long, hide = true)]
    sloppy: bool,
    /// Serve for the process at the other end of standard input
    #[arg(long, hide = true)]
    in_background: bool,
    /// Answer, on standard input, whether this program can go on with a mount
    #[arg(long = CHECK_FLAG, hide = true)]
    check_reload: bool,
    /// Go on with a mount that another program has left, as this descriptor says
    #[arg(long = RESUME_FLAG, hide = true)]
    resume: Option<i32>,
}

/// The plan of a mount, and what is checked before a directory is opened.
struct Planned {
    plan: Plan,
    workspace: Workspace,
    folders: Vec<Folder>,
    warnings: Vec<String>,
}

/// Mounts, and returns when the mount answers; in the foreground, when it has been unmounted.
///
/// # Errors
///
/// Why nothing is mounted, and what to do.
pub fn run(arguments: &Arguments, global: &Global) -> anyhow::Result<ExitCode> {
    if arguments.check_reload {
        return check_reload(arguments, global);
    }
    if let Some(state) = arguments.resume {
        return resume(state, global);
    }
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
    let planned = Planned::new(arguments, global)?;
    if arguments.foreground {
        log::init(&planned.plan.log, global.verbosity())?;
        return planned.supervise(Launcher::Foreground);
    } else {
        log::init(&Destination::Terminal, global.verbosity())?;
        let planned = planned.launch()?;
        report(&planned, global, false);
    }
    Ok(ExitCode::SUCCESS)
}

/// Joins a live mount, or makes it.
fn mount_shared(arguments: &Arguments, global: &Global) -> anyhow::Result<()> {
    let holder = match &arguments.holder {
        Some(given) => given.identify()?,
        None => caller()?,
    };
    let planned = Planned::new(arguments, global)?;
    log::init(&Destination::Terminal, global.verbosity())?;
    let mountpoint = planned.plan.attachment.mountpoint.clone();
    let primary = planned.plan.primary.clone();
    for path in [&primary, &mountpoint] {
        expect_no_silent_mount(path)?;
    }
    let mut terms = planned.plan.terms.clone();
    let resolved = within(REPLY_TIMEOUT, move || primary_term(&primary));
    terms.add(PRIMARY, resolved.unwrap_or_default());
    let wanted = MountRequest {
        mountpoint: &mountpoint,
        holder: &holder,
        terms: &terms,
        read_only: planned.plan.attachment.read_only,
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
        || Planned::new(arguments, global)?.launch().map(drop),
    )?;
    report(&planned, global, joined);
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
pub(super) fn own_command(arguments: Vec<OsString>) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.arg0("xpmfs").args(arguments);
    command
}

/// Answers a supervisor whether this program can go on with its mount, and how.
fn check_reload(arguments: &Arguments, global: &Global) -> anyhow::Result<ExitCode> {
    let program = Program::from_stdin()
        .context("--check-reload is for the process that serves a mount; use `xpmfs reload`")?;
    let plan = program.check_version().and_then(|()| {
        let mut planned = Planned::new(arguments, global)?;
        let (old, new) = (program.primary(), &planned.plan.primary);
        if old != new {
            bail!(
                "by the settings, the workspace is in {} now, and the mount shows {}: a live mount cannot change its workspace; unmount it and mount it again",
                new.display(),
                old.display()
            );
        }
        limits::check(planned.folders.len())?;
        validate_folders(&planned.workspace, &planned.folders)?;
        planned.add_primary_term();
        Ok(serde_json::to_value(&planned.plan)?)
    });
    program.answer(plan.map_err(|error| sentence(&error)))?;
    Ok(ExitCode::SUCCESS)
}

/// Goes on as the supervisor of a mount that another program has left.
fn resume(state: i32, global: &Global) -> anyhow::Result<ExitCode> {
    let mut state = supervisor::receive(state)
        .context("--resume is for the process that serves a mount; use `xpmfs reload`")?;
    let mut plan: Plan = state.plan()?;
    let log = state.take_log().map(|(path, file)| {
        plan.log = Destination::File(path);
        file
    });
    // Without a log, it is served all the same.
    let _ = log::resume(&plan.log, log, global.verbosity());
    let in_background = state.is_in_background();
    let served = match supervisor::resume(state) {
        Ok(ForkResult::Ended(code)) => Ok(code),
        Ok(ForkResult::Worker(link)) => work(link, |link, resumed| {
            plan.serve(Launcher::Resumed { in_background }, link, resumed)
        }),
        Err(error) => Err(error.into()),
    };
    Ok(served.unwrap_or_else(|error| {
        tracing::error!(target: "xpmfs::daemon", "{}", sentence(&error));
        ExitCode::FAILURE
    }))
}

/// Serves a mount as a worker.
fn work(
    link: Link,
    serve: impl FnOnce(&Arc<Link>, Option<Resumed>) -> anyhow::Result<()>,
) -> anyhow::Result<ExitCode> {
    let link = Arc::new(link);
    let resumed = link.take_resumed();
    let continues = resumed.is_some();
    let served = serve(&link, resumed);
    // If this worker could not go on with the mount, the supervisor starts another one.
    if served.is_ok() || !continues || link.is_serving() {
        link.over();
    }
    served.map(|()| ExitCode::SUCCESS)
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
    let served = Planned::new(arguments, global).and_then(|planned| {
        log::init(&planned.plan.log, global.verbosity())?;
        planned.supervise(Launcher::Background(parent))
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

impl Planned {
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
        let terms = mount_terms::terms(&folders, &attachment, archive.is_some(), &tuning);
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
    fn add_primary_term(&mut self) {
        let primary = primary_term(&self.plan.primary);
        self.plan.terms.add(PRIMARY, primary);
    }

    /// Checks the limits of this process and the mount point, and clears a dead mount away. Before anything else looks at the workspace's directory:
    /// in place, a dead mount is in the way of everything.
    fn prepare(&mut self) -> anyhow::Result<()> {
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
        attachment.mountpoint = prepare(&attachment.mountpoint, Some(primary))?;
        Ok(())
    }

    /// Starts the daemon, which is this program with the same arguments, and waits until the mount answers.
    fn launch(mut self) -> anyhow::Result<Self> {
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

    /// Divides this process into a supervisor and a worker, which serves the mount. Returns in both.
    fn supervise(mut self, caller: Launcher) -> anyhow::Result<ExitCode> {
        let origin = SupervisorStart {
            arguments: mount_helper::own_arguments(),
            in_background: !matches!(caller, Launcher::Foreground),
        };
        let side = supervisor::start(origin);
        match side.context("cannot start the process that serves the mount")? {
            ForkResult::Ended(code) => Ok(code),
            ForkResult::Worker(link) => work(link, |link, resumed| {
                // Afterwards, the paths lead into the mount.
                if resumed.is_none() {
                    self.prepare()?;
                    self.add_primary_term();
                    for warning in &self.warnings {
                        tracing::warn!("{warning}");
                    }
                }
                self.plan.serve(caller, link, resumed)
            }),
        }
    }
}

impl Arguments {
    /// Whether this process is to serve the mount.
    pub(super) fn serves(&self) -> bool {
        self.foreground || self.in_background || self.check_reload || self.resume.is_some()
    }

    /// The options of every `-o`, and what to warn of.
    fn read_options(&self) -> anyhow::Result<(RequestedOptions, Vec<String>)> {
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

/// Prints at a terminal what is mounted now; mount(8) prints nothing.
fn report(planned: &Planned, global: &Global, joined: bool) {
    let plan = &planned.plan;
    let quiet = global.quiet || plan.attachment.private || mount_helper::has_called();
    if quiet || !std::io::stderr().is_terminal() {
        return;
    }
    let mountpoint = plan.attachment.mountpoint.display();
    let place = if plan.attachment.mountpoint == plan.primary {
        format!("in place at {mountpoint}")
    } else {
        format!("at {mountpoint}")
    };
    let folders = match plan.folders.len() {
        0 => String::new(),
        1 => ", with 1 folder,".to_owned(),
        count => format!(", with {count} folders,"),
    };
    let name = match plan.workspace.as_str() {
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
