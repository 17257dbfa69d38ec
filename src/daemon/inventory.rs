//! What is mounted, and how it does.

use std::io;
use std::path::Path;
use std::thread;

use serde_json::Value;

use super::control::{Client, Identity};
use super::health::{self, Health};
use super::mounts::{self, Mount};

/// One of our mounts.
#[derive(Debug, Clone)]
pub struct Mounted {
    /// As the kernel has it.
    pub mount: Mount,
    /// How it does.
    pub health: Health,
    /// What its daemon tells of it, if it answers.
    pub identity: Option<Identity>,
    /// What its file system tells of itself ([`super::Service::status`]), if it answers.
    pub service: Option<Value>,
}

impl Mounted {
    /// Whether it shows the workspace with this id or this directory.
    #[must_use]
    pub fn shows(&self, workspace: Option<&str>, primary: &Path) -> bool {
        let shown = primary.to_string_lossy();
        if let Some(identity) = &self.identity {
            return identity.primary.to_string_lossy() == shown
                || (workspace.is_some() && identity.workspace.as_deref() == workspace);
        }
        // A dead one has only its place and its name left.
        let source = self.mount.source.to_string_lossy();
        self.mount.mountpoint == primary || source == shown || Some(source.as_ref()) == workspace
    }
}

/// All our mounts of this mount namespace, in the kernel's order. All daemons are asked at once, so that it takes no longer
/// than the slowest, which is a few seconds at most.
///
/// # Errors
///
/// The table of mounts cannot be read.
pub fn take() -> io::Result<Vec<Mounted>> {
    let asked: Vec<_> = mounts::xpmfs()?
        .into_iter()
        .map(|mount| {
            let question = mount.clone();
            (mount, thread::spawn(move || ask(question)))
        })
        .collect();
    Ok(asked
        .into_iter()
        .map(|(mount, asked)| {
            asked.join().unwrap_or(Mounted {
                mount,
                health: Health::Silent { pid: None },
                identity: None,
                service: None,
            })
        })
        .collect())
}

/// Asks the daemon of one mount.
#[must_use]
pub fn ask(mount: Mount) -> Mounted {
    let health = health::of(&mount);
    let mut mounted = Mounted {
        mount,
        health,
        identity: None,
        service: None,
    };
    if !matches!(health, Health::Serving { .. }) {
        return mounted;
    }
    let connected = Client::connect(mounted.mount.device, mounted.mount.owner());
    if let Ok(mut status) = connected.and_then(|mut client| client.request("status")) {
        mounted.service = status.get_mut("service").map(Value::take);
        mounted.identity = serde_json::from_value(status).ok();
    }
    mounted
}
