//! Waits until a mount's daemon has archived all finished jobs.

use std::time::{Duration, Instant};

use super::control::{Client, ClientError};
use super::mounts::MountInfo;
use crate::archive::engine::{Idle, Report};

/// The interval between requests.
const LOOK: Duration = Duration::from_millis(200);

/// The result of waiting.
#[derive(Debug)]
pub enum Drained {
    /// All is archived.
    Yes,
    /// None of the remaining jobs can be archived now; the report says why.
    Stuck(Box<Report>),
    /// The time is over, and so many jobs are left.
    Late(usize),
}

/// What a mount's daemon has to archive still.
///
/// # Errors
///
/// The daemon does not answer.
pub fn left(mount: &MountInfo) -> Result<Idle, ClientError> {
    let connected = Client::connect(mount.device, mount.owner());
    let mut client = connected.map_err(|error| error.of(mount))?;
    let idle = client.request("idle")?;
    serde_json::from_value(idle).map_err(|_| ClientError::Nonsense)
}

/// Asks a mount's daemon to archive all finished jobs now, and waits until `end` at most. Calls `report` from time to time with the number
/// of jobs left.
///
/// # Errors
///
/// The daemon does not answer.
pub fn drain(
    mount: &MountInfo,
    end: Option<Instant>,
    mut report: impl FnMut(usize),
) -> Result<Drained, ClientError> {
    let connected = Client::connect(mount.device, mount.owner());
    let mut client = connected.map_err(|error| error.of(mount))?;
    client.request("drain")?;
    loop {
        let idle = client.request("idle")?;
        match serde_json::from_value(idle).map_err(|_| ClientError::Nonsense)? {
            Idle::Yes => return Ok(Drained::Yes),
            Idle::Busy { left } if end.is_some_and(|end| Instant::now() >= end) => {
                return Ok(Drained::Late(left));
            }
            Idle::Busy { left } => report(left),
            Idle::Stuck { .. } => {
                let mut status = client.request("status")?;
                let report = serde_json::from_value(status["service"]["archive"].take());
                return Ok(Drained::Stuck(report.unwrap_or_default()));
            }
        }
        std::thread::sleep(LOOK);
    }
}
