//! Waiting until a mount's daemon has archived all that is finished.

use std::time::Duration;

use super::control::{Client, ClientError};
use super::mounts::MountInfo;
use crate::archive::engine::{Idle, Report};

/// How often it is asked.
const LOOK: Duration = Duration::from_millis(200);

/// What came of it.
#[derive(Debug)]
pub enum Drained {
    /// All is archived.
    Yes,
    /// All that is left cannot be archived now; how archiving does.
    Stuck(Box<Report>),
}

/// Has a mount's daemon archive at once all that is finished, and waits. Calls `report` from time to time with the number of jobs left.
///
/// # Errors
///
/// The daemon does not answer.
pub fn drain(mount: &MountInfo, mut report: impl FnMut(usize)) -> Result<Drained, ClientError> {
    let connected = Client::connect(mount.device, mount.owner());
    let mut client = connected.map_err(|error| error.of(mount))?;
    client.request("drain")?;
    loop {
        let idle = client.request("idle")?;
        match serde_json::from_value(idle).map_err(|_| ClientError::Nonsense)? {
            Idle::Yes => return Ok(Drained::Yes),
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
