//! What the processes of the nodes hold: no more at the end than soon after the start.

use crate::common::{self, daemon::Footprint};
use crate::end;
use crate::node::Node;

/// By how much a process may hold more than before, in percent.
const GROWTH: u64 = 25;

/// The most that a process of any node holds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Held {
    worker: Footprint,
    supervisor: Footprint,
}

impl Held {
    /// After all jobs were read on each node, which fills the caches.
    pub(crate) fn by(nodes: &[Node<'_>]) -> Held {
        let each = nodes.iter().map(|node| {
            // A walk may meet a job that is being moved.
            let _ = end::view(&node.top());
            let (worker, supervisor) = node.processes();
            let [worker, supervisor] = [worker, supervisor].map(Footprint::of);
            Held { worker, supervisor }
        });
        let most = |one: Held, other: Held| Held {
            worker: one.worker.max(other.worker),
            supervisor: one.supervisor.max(other.supervisor),
        };
        each.reduce(most).unwrap()
    }

    /// Expects that no process holds much more than before.
    pub(crate) fn expect_as(self, before: Held) {
        common::say(&format!("before {before:?}\nafter  {self:?}"));
        for (name, before, after) in [
            ("worker", before.worker, self.worker),
            ("supervisor", before.supervisor, self.supervisor),
        ] {
            for (what, before, after) in [
                ("KiB of memory", before.kibibytes, after.kibibytes),
                ("descriptors", before.descriptors, after.descriptors),
                ("threads", before.threads, after.threads),
            ] {
                assert!(
                    after * 100 <= before * (100 + GROWTH),
                    "a {name} has {after} {what}, and had {before} before"
                );
            }
        }
    }
}
