//! Counts the nodes and open files of a mount, to find leaks.

use std::fmt;
use std::sync::OnceLock;

use serde::Serialize;

/// The numbers of objects that a mount keeps because the kernel refers to them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Files and directories that the kernel has looked up and not forgotten.
    pub nodes: usize,
    /// Open files, counted once per open.
    pub files: usize,
}

/// Returns the counts of a mount, once there is one. Nothing is counted before a caller asks.
#[derive(Default)]
pub struct Census {
    count: OnceLock<Box<dyn Fn() -> Counts + Send + Sync>>,
}

impl Census {
    /// The counts of the mount; `None` before it is served.
    pub fn take(&self) -> Option<Counts> {
        self.count.get().map(|count| count())
    }

    pub(super) fn answer_by(&self, count: impl Fn() -> Counts + Send + Sync + 'static) {
        // The first mount that is served with these options is the only one.
        let _ = self.count.set(Box::new(count));
    }
}

impl fmt::Debug for Census {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Census").field(&self.take()).finish()
    }
}
