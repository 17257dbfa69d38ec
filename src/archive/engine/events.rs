//! Defines the events that the other threads send to the engine's coordinator.

use std::sync::Arc;

use super::core::{Failure, Look, Outcome};
use super::scan::Found;
use crate::workspace::JobId;

/// An event for the coordinator.
#[derive(Debug)]
pub(super) enum Event {
    /// A job changed through the mount.
    Touched(JobId),
    /// A job was looked at.
    Looked(Arc<JobId>, Result<Look, Failure>),
    /// All jobs of one batch for a folder were stored, or failed.
    Stored {
        folder: u8,
        results: Vec<(Arc<JobId>, Outcome)>,
    },
    /// The primary was compared with a folder.
    Scanned { folder: u8, found: Found },
    /// Jobs to check again by routine; no change of them was seen.
    Routine(Vec<JobId>),
    /// Jobs that have been run again, or that a folder has without their marker. It is counted in `unheard`.
    Again(Vec<JobId>),
    /// The markers of all jobs have been compared with a folder's, for the full look number `wanted`. The jobs found
    /// were sent before.
    Compared { folder: u8, wanted: u64 },
    /// Retry all waiting jobs at once.
    Retry,
    /// Stop.
    Stop,
}
