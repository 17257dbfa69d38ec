//! What outlives a worker, and is kept by its supervisor.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;

use super::link::Resumed;
use super::message::MountPlace;
use crate::mount::{Agreed, Connection, Inheritance, KeptFile};

/// The descriptors that a worker leaves to the next.
#[derive(Debug, Default)]
pub(super) struct Estate {
    pub(super) connection: Option<(OwnedFd, Agreed)>,
    pub(super) place: Option<(MountPlace, OwnedFd)>,
    pub(super) log: Option<OwnedFd>,
    pub(super) counts: Option<OwnedFd>,
    pub(super) intents: Option<OwnedFd>,
    pub(super) recent: Option<OwnedFd>,
    /// The programs that hold the mount.
    pub(super) holders: Option<OwnedFd>,
    pub(super) files: BTreeMap<KeptFile, OwnedFd>,
}

impl Estate {
    /// Whether another worker can serve on with it.
    pub(super) fn is_complete(&self) -> bool {
        let memory = [&self.log, &self.counts, &self.intents, &self.recent];
        self.connection.is_some() && self.place.is_some() && memory.into_iter().all(Option::is_some)
    }

    /// What a worker takes over; `None` if it must begin.
    pub(super) fn inherit(self) -> Option<Resumed> {
        let (device, agreed) = self.connection?;
        let (place, primary) = self.place?;
        Some(Resumed {
            connection: Connection::continued(device, agreed),
            inheritance: Inheritance {
                log: self.log?,
                counts: self.counts?,
                intents: self.intents?,
                recent: self.recent?,
                files: self.files.into_iter().collect(),
            },
            primary,
            holders: self.holders,
            place,
        })
    }
}
