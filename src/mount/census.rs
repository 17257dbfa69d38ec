//! How much a mount remembers: what to look at when it is suspected of forgetting nothing.

use std::fmt;
use std::sync::OnceLock;

use serde::Serialize;

/// What a mount keeps because the kernel has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Files and directories that the kernel has been told of and has not forgotten.
    pub nodes: usize,
    /// Files that are open, each as often as it is.
    pub files: usize,
}

/// Answers how much a mount remembers, once there is one. Nothing is counted until somebody asks.
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
