//! `xpmfs run`: a command that sees the workspace mounted in place, in a mount namespace of its own.
//!
//! 1. This process enters the namespace, in which it starts `xpmfs mount` and then the command. No other process sees the mount.
//! 2. It passes signals on to the command, and ends as the command ends.
//! 3. The mount ends with the last process of the namespace ([`private_mount`](crate::daemon::private_mount)), also if this process is
//!    killed. Before this process ends in order, it unmounts, unless the command has left programs behind.

use std::ffi::OsString;
use std::io::ErrorKind;
use std::path::{Path, PathBuf, absolute};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::{Args, ValueHint};
use nix::sys::signal::{SigSet, SigmaskHow, Signal as Number};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, Signal, kill_process};

use super::front::{FORWARDED, sent_to_group};
use super::mount::{PRIVATE_FLAG, own_command};
use super::process_end::End;
use super::{Global, Select, drain, print};
use crate::archive::engine::Idle;
use crate::daemon::attach::How;
use crate::daemon::drain::{Drained, left};
use crate::daemon::mounts::{self, MountInfo};
use crate::daemon::unmount::{UnmountError, unmount};
use crate::settings::{Settings, parse_duration};
use crate::sys::namespaces;
use crate::sys::shell_word::shell_word;

/// What to run, and how the workspace is mounted for it.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Which workspace.
    #[command(flatten)]
    select: Select,
    /// Attach one more folder: use:PATH, backup:PATH or move:PATH
    #[arg(long = "folder", value_name = "MODE:PATH", value_hint = ValueHint::Other)]
    folders: Vec<OsString>,
    /// Refuse all writes through the mount
    #[arg(long)]
    read_only: bool,
    /// Archive nothing
    #[arg(long, conflicts_with = "drain")]
    no_archive: bool,
    /// Append the log of the mount to this file [default: the journal, or ~/.local/state/xpmfs/]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    log: Option<PathBuf>,
    /// When the command has ended, wait until every finished job is archived, for TIME at most (30m, 2h)
    #[arg(long, value_name = "TIME", num_args = 0..=1, require_equals = true, default_missing_value = "", value_parser = limit)]
    drain: Option<Limit>,
    /// The command and its arguments
    #[arg(trailing_var_arg = true, required = true, value_name = "COMMAND", value_hint = ValueHint::CommandWithArguments)]
    command: Vec<OsString>,
}

/// For how long to wait; `None` for any time.
#[derive(Debug, Clone, Copy)]
struct Limit(Option<Duration>);

fn limit(text: &str) -> Result<Limit, String> {
    match text {
        "" => Ok(Limit(None)),
        text => parse_duration(text).map(|limit| Limit(Some(limit))),
    }
}

/// The exit statuses of a command that cannot be run, as of `env(1)` and `nohup(1)`.
const CANNOT_EXECUTE: u8 = 126;
const NOT_FOUND: u8 = 127;

/// Runs the command, and ends as it ends.
///
/// # Errors
///
/// The workspace cannot be mounted; or the command has succeeded, and what is finished could not be archived with `--drain`.
pub fn run(arguments: &Arguments, global: &Global) -> anyhow::Result<ExitCode> {
    let primary = primary(arguments, global)?;
    // The current directory may be in the workspace: it must lead into the mount.
    let here = std::env::current_dir().ok();
    if let Some(mount) = mounted(&primary)? {
        arguments.expect_no_mount_options(&mount)?;
        return Ok(execute(&arguments.command)?.repeat());
    }
    namespaces::enter().map_err(|error| anyhow::anyhow!(why_not(&error)))?;
    namespaces::let_programs_mount(true).context("cannot pass on the right to mount")?;
    let mounting = own_command(arguments.mount_arguments(&primary, global))
        .stdin(Stdio::null())
        .status()
        .context("cannot start `xpmfs mount`")?;
    // The command gets no more rights than it would have without.
    namespaces::let_programs_mount(false).context("cannot give up the right to mount")?;
    if !mounting.success() {
        // It has printed why.
        return Ok(End::from(mounting).repeat());
    }
    let Some(mount) = mounted(&primary)? else {
        bail!("{} was mounted and is not any more", primary.display());
    };
    if let Some(here) = here {
        // If it is gone, the command starts in the directory as it was.
        let _ = std::env::set_current_dir(here);
    }
    let end = execute(&arguments.command)?;
    if mounted(&primary)?.is_none() {
        // The command has unmounted it.
        return Ok(end.repeat());
    }
    let archived = arguments.finish(&mount, global);
    unmount_if_unused(&mount, global);
    match archived {
        Err(error) if end == End::Status(0) => Err(error),
        Err(error) => {
            tracing::warn!("{}", super::sentence(&error));
            Ok(end.repeat())
        }
        Ok(()) => Ok(end.repeat()),
    }
}

/// The workspace's own directory, absolute.
fn primary(arguments: &Arguments, global: &Global) -> anyhow::Result<PathBuf> {
    let settings = Settings::load(global.settings.as_deref())?;
    let workspace = settings.select(&arguments.select.selection())?;
    if workspace.is_remote() {
        bail!(
            "the workspace {} is on another machine and cannot be mounted: choose another one with --workspace",
            workspace.id
        );
    }
    let path = &workspace.path;
    let resolved = std::fs::canonicalize(path).or_else(|_| absolute(path));
    resolved.with_context(|| format!("cannot use {}", path.display()))
}

/// The mount of xpmfs at a path.
fn mounted(primary: &Path) -> anyhow::Result<Option<MountInfo>> {
    let top = mounts::top_at(primary).context("cannot read the table of mounts")?;
    Ok(top.filter(MountInfo::is_xpmfs))
}

impl Arguments {
    /// In a workspace that is mounted in place already, the command sees that mount.
    fn expect_no_mount_options(&self, mount: &MountInfo) -> anyhow::Result<()> {
        let place = mount.mountpoint.display();
        let options = [
            (!self.folders.is_empty(), "--folder"),
            (self.read_only, "--read-only"),
            (self.no_archive, "--no-archive"),
            (self.log.is_some(), "--log"),
            (self.drain.is_some(), "--drain"),
        ];
        match options.iter().find(|(given, _)| *given) {
            Some((_, option)) => bail!(
                "{place} is mounted already, and {option} would have no effect: leave it out, or unmount first with `xpmfs umount {}`",
                shell_word(&mount.mountpoint)
            ),
            None => Ok(()),
        }
    }

    /// The arguments of `xpmfs mount`.
    fn mount_arguments(&self, primary: &Path, global: &Global) -> Vec<OsString> {
        let mut all: Vec<OsString> = Vec::new();
        if let Some(settings) = &global.settings {
            all.extend(["--settings".into(), settings.into()]);
        }
        all.extend((0..global.verbose).map(|_| "--verbose".into()));
        if global.quiet {
            all.push("--quiet".into());
        }
        all.extend(["mount".into(), format!("--{PRIVATE_FLAG}").into()]);
        let Select {
            workspace,
            workdir,
            experiment,
        } = &self.select;
        // In one word each, since a value may begin with a dash.
        let mut add = |name: &str, value: &std::ffi::OsStr| {
            let mut word = OsString::from(format!("--{name}="));
            word.push(value);
            all.push(word);
        };
        if let Some(id) = workspace {
            add("workspace", id.as_ref());
        }
        if let Some(path) = workdir {
            add("workdir", path.as_ref());
        }
        if let Some(id) = experiment {
            add("experiment", id.as_ref());
        }
        for folder in &self.folders {
            add("folder", folder);
        }
        if let Some(log) = &self.log {
            add("log", log.as_ref());
        }
        if self.read_only {
            all.push("--read-only".into());
        }
        if self.no_archive {
            all.push("--no-archive".into());
        }
        all.extend(["--".into(), primary.into()]);
        all
    }

    /// Waits for what is being archived, or says what is left.
    fn finish(&self, mount: &MountInfo, global: &Global) -> anyhow::Result<()> {
        let Some(Limit(limit)) = self.drain else {
            let jobs = match left(mount) {
                Ok(Idle::Busy { left } | Idle::Stuck { failed: left }) => left,
                Ok(Idle::Yes) | Err(_) => 0,
            };
            if jobs > 0 && !global.quiet {
                print::line(&format!("{}: the next mount goes on", not_archived(jobs)));
            }
            return Ok(());
        };
        let end = limit.and_then(|limit| Instant::now().checked_add(limit));
        match drain::wait(mount, end, global).context("cannot wait for what is being archived")? {
            Drained::Yes => Ok(()),
            Drained::Late(jobs) => bail!(
                "{} after the time of --drain: the next mount goes on",
                not_archived(jobs)
            ),
            Drained::Stuck(report) => {
                bail!("{}: {}", drain::what_is_left(&report), drain::why(&report))
            }
        }
    }
}

fn not_archived(jobs: usize) -> String {
    match jobs {
        0 => "it is not known whether all finished jobs are archived".to_owned(),
        1 => "1 finished job is not archived yet".to_owned(),
        jobs => format!("{jobs} finished jobs are not archived yet"),
    }
}

/// Unmounts, unless programs still use the mount.
fn unmount_if_unused(mount: &MountInfo, global: &Global) {
    let place = mount.mountpoint.display();
    let waiting = |pid: i32| {
        tracing::warn!("waiting for the daemon of {place}, process {pid}, to end");
    };
    match unmount(mount, How::Clean, waiting) {
        Ok(_) => {}
        Err(UnmountError::Busy { busy_processes, .. }) if !global.quiet => {
            let names = busy_processes.iter().take(MOST_NAMED);
            let names: Vec<String> = names
                .map(|it| format!("{} ({})", it.name, it.pid))
                .collect();
            let names = match names.is_empty() {
                true => "programs that the command has started".to_owned(),
                false => names.join(", "),
            };
            print::line(&format!(
                "still running in the workspace: {names}; its mount ends when they have ended"
            ));
        }
        Err(UnmountError::Busy { .. }) => {}
        Err(error) => tracing::warn!("{error}"),
    }
}

/// How many processes a message names.
const MOST_NAMED: usize = 8;

/// Runs a command to its end.
fn execute(command: &[OsString]) -> anyhow::Result<End> {
    let Some((program, arguments)) = command.split_first() else {
        bail!("there is no command to run");
    };
    let mut set: SigSet = FORWARDED.into_iter().collect();
    set.add(Number::SIGCHLD);
    let signals = SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
    let before = set.thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
    // It receives signals as usual: `Command` clears the mask.
    let started = Command::new(program).args(arguments).spawn();
    // The command may unmount the workspace.
    let _ = std::env::set_current_dir("/");
    let end = match started {
        Ok(mut child) => wait(&mut child, &signals),
        Err(error) => {
            tracing::error!("cannot run {}: {error}", program.display());
            Ok(End::Status(match error.kind() {
                ErrorKind::NotFound => NOT_FOUND,
                _ => CANNOT_EXECUTE,
            }))
        }
    };
    before.thread_set_mask()?;
    end
}

fn wait(child: &mut Child, signals: &SignalFd) -> anyhow::Result<End> {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status.into());
        }
        let mut ready = [PollFd::new(signals, PollFlags::IN)];
        match poll(&mut ready, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        while let Some(received) = signals.read_signal()? {
            let number = i32::try_from(received.ssi_signo).unwrap_or_default();
            let passed_on =
                number != Number::SIGCHLD as i32 && !sent_to_group(number, received.ssi_code);
            if passed_on
                && let Some(signal) = Signal::from_named_raw(number)
                && let Some(pid) = pid
            {
                // It may have ended.
                let _ = kill_process(pid, signal);
            }
        }
    }
}

/// Why no mount namespace can be entered, and what to do.
fn why_not(error: &std::io::Error) -> String {
    let value = |name: &str| {
        let text = std::fs::read_to_string(Path::new("/proc/sys").join(name));
        text.ok().map(|text| text.trim().to_owned())
    };
    let is = |name: &str, wanted: &str| value(name).is_some_and(|value| value == wanted);
    let remedy = if is("user/max_user_namespaces", "0") {
        "user namespaces are switched off here: ask the administrator for `sysctl -w user.max_user_namespaces=10000`"
    } else if is("kernel/unprivileged_userns_clone", "0") {
        "user namespaces are for root alone here: ask the administrator for `sysctl -w kernel.unprivileged_userns_clone=1`"
    } else if is("kernel/apparmor_restrict_unprivileged_userns", "1") {
        "AppArmor restricts user namespaces here: ask the administrator for a profile of xpmfs with the rule `userns,`, or for `sysctl -w kernel.apparmor_restrict_unprivileged_userns=0`"
    } else {
        "in a container, start it with `--cap-add SYS_ADMIN`; elsewhere, ask the administrator to permit user namespaces (`man 7 user_namespaces`)"
    };
    format!(
        "this user may not mount for one command alone ({error}): {remedy}; or mount the workspace for all programs with `xpmfs mount`"
    )
}
