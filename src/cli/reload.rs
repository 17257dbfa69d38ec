//! `xpmfs reload`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use clap::Args;
use clap_complete::engine::ArgValueCompleter;
use serde::Serialize;
use serde_json::json;

use super::arguments::Listing;
use super::umount::{self, MountUse};
use super::{Global, Select, candidates, print, sentence};
use crate::daemon::control::{self, Client, ClientError, Identity};
use crate::daemon::mounts::{self, MountInfo};
use crate::sys::shell_word::shell_word;

/// How long a mount may take to go on with another program.
const RELOAD_TIMEOUT: Duration = Duration::from_secs(60);

/// Which mounts go on.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The mount point [default: the workspace's own directory, or the only place where it is mounted]
    #[arg(add = ArgValueCompleter::new(candidates::mountpoints), conflicts_with_all = ["workspace", "workdir", "experiment"])]
    mountpoint: Option<PathBuf>,
    /// All mounts of this user
    #[arg(long, conflicts_with_all = ["mountpoint", "workspace", "workdir", "experiment"])]
    all: bool,
    /// Which workspace.
    #[command(flatten)]
    select: Select,
    /// How the result is printed.
    #[command(flatten)]
    pub(super) listing: Listing,
}

/// What has become of a mount.
#[derive(Debug, Serialize)]
struct Reloaded {
    mountpoint: String,
    workspace: Option<String>,
    result: &'static str,
    pid: Option<i64>,
    supervisor: Option<i64>,
    version: Option<String>,
    previous_version: Option<String>,
    why: Option<String>,
}

/// Makes mounts go on with this program and the settings as they are now.
///
/// # Errors
///
/// The mount is unknown, or goes on as before, and why.
pub fn run(arguments: &Arguments, global: &Global) -> anyhow::Result<ExitCode> {
    let found = match arguments.all {
        true => mounts::xpmfs()
            .context("cannot read the table of mounts")?
            .into_iter()
            .filter(|mount| mount.other_owner().is_none())
            .collect(),
        false => vec![umount::find_mount(
            arguments.mountpoint.as_deref(),
            &arguments.select,
            global,
            MountUse::Reload,
        )?],
    };
    let program = this_program()?;
    let results: Vec<Reloaded> = found.iter().map(|mount| reload(mount, &program)).collect();
    if global.json {
        print::json(&results)?;
    }
    let mut failed = results.iter().filter_map(|one| one.why.as_deref());
    if !arguments.all
        && let Some(why) = failed.next()
    {
        bail!("{why}");
    }
    for one in &results {
        match &one.why {
            Some(why) => print::line(why),
            None if global.quiet || global.json => {}
            None => print::line(&format!(
                "{} goes on with xpmfs {} (process {})",
                one.mountpoint,
                one.version.as_deref().unwrap_or_default(),
                one.pid.unwrap_or_default()
            )),
        }
    }
    if arguments.all && results.is_empty() && !global.quiet && !global.json {
        print::line("nothing is mounted");
    }
    Ok(match results.iter().all(|one| one.why.is_none()) {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

/// The path of the program that runs this command, which mounts are to go on with.
fn this_program() -> anyhow::Result<PathBuf> {
    let path = std::env::current_exe().context("cannot find out where this program lies")?;
    // The kernel adds this to the path of a file that was removed or replaced.
    if path.to_string_lossy().ends_with(" (deleted)") {
        bail!("this program was replaced while it ran: run the command again");
    }
    if path.to_str().is_none() {
        bail!(
            "the path of this program, {}, is not UTF-8: install it elsewhere",
            path.display()
        );
    }
    Ok(path)
}

fn reload(mount: &MountInfo, program: &Path) -> Reloaded {
    let mut one = Reloaded {
        mountpoint: mount.mountpoint.to_string_lossy().into_owned(),
        workspace: None,
        result: "reloaded",
        pid: None,
        supervisor: None,
        version: None,
        previous_version: None,
        why: None,
    };
    if let Err(error) = try_reload(mount, program, &mut one) {
        one.result = "failed";
        one.why = Some(sentence(&error));
    }
    one
}

fn try_reload(mount: &MountInfo, program: &Path, one: &mut Reloaded) -> anyhow::Result<()> {
    let mountpoint = mount.mountpoint.display();
    let mut client = Client::connect(mount.device, mount.owner()).map_err(|e| e.of(mount))?;
    let pid = client.pid();
    let identity = client.request("identity").map_err(|error| match (error, pid) {
        (ClientError::Silent, Some(pid)) => anyhow!(
            "the process that serves {mountpoint} does not answer: `kill -9 {pid}` makes another one take over, which can be reloaded"
        ),
        (error, _) => error.into(),
    })?;
    let identity: Identity = serde_json::from_value(identity).map_err(|_| ClientError::Nonsense)?;
    one.workspace = identity.workspace;
    one.previous_version = Some(identity.version.clone());
    let word = shell_word(&mount.mountpoint);
    let again = format!("unmount it (`xpmfs umount {word}`) and mount it again");
    if identity.supervisor.is_none() {
        bail!("{mountpoint} has no supervisor, which could go on with another program: {again}");
    }
    let request = json!({"version": control::VERSION, "request": "reload", "program": program});
    let reply = client
        .exchange(&request, RELOAD_TIMEOUT)
        .map_err(|error| match error {
            ClientError::Refused(why) if why.starts_with("unknown request") => anyhow!(
                "{mountpoint} is served by xpmfs {}, which cannot be reloaded: {again}",
                identity.version
            ),
            ClientError::Refused(why) => anyhow!("{mountpoint} goes on as before: {why}"),
            ClientError::Silent => anyhow!(
                "{mountpoint} has not gone on within {} s: see its log ({})",
                RELOAD_TIMEOUT.as_secs(),
                identity.log
            ),
            ClientError::NoDaemon => anyhow!(
                "the supervisor of {mountpoint} has ended while it was reloaded: `xpmfs status` shows whether the mount is served; see its log ({})",
                identity.log
            ),
            error => error.into(),
        })?
        .0;
    one.pid = reply.get("pid").and_then(serde_json::Value::as_i64);
    one.supervisor = reply.get("supervisor").and_then(serde_json::Value::as_i64);
    let version = reply.get("version").and_then(serde_json::Value::as_str);
    one.version = version.map(str::to_owned);
    Ok(())
}
