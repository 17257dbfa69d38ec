//! A plan through a mount, while another runs in the bare primary.

use std::path::Path;

use crate::common::Workspace;
use crate::plan::{Plan, Ran};

/// Runs two plans at once, one after whose jobs the other waits, and which has one job more. Neither
/// starts a job that the other is about to start: even on a plain disk such a job may run twice, since
/// experimaestro gives its lock back before it says that it is done.
fn run_two(plan: &Plan<'_>, one: &Path, other: &Path, done: usize) -> (Ran, Ran) {
    let (fewer, more) = ((done + 1).to_string(), (done + 2).to_string());
    let mut first = plan.start(one, &[&fewer, "--experiment", "first"]);
    first.wait_until("its jobs run", |first| first.executed().len() == 2);
    let mut second = plan.start(other, &[&more, "--experiment", "second"]);
    second.wait_until("it waits for the jobs of the first", |second| {
        second.executed().len() == 1 && second.says("waiting to complete") == 2
    });
    first.open_gate();
    second.open_gate();
    (first.finish(), second.finish())
}

#[test]
fn plans_through_a_mount_and_beside_it_share_their_jobs() {
    let workspace = Workspace::new();
    let Some(plan) = Plan::of(&workspace) else {
        return;
    };
    let (primary, mountpoint) = (workspace.primary(), workspace.mountpoint("mnt"));
    let _mounted = workspace.mount_at(&mountpoint);
    // All depend on this one.
    assert_eq!(plan.run(&primary, &["0"]).executed.len(), 1);

    let mut done = 1;
    for (one, other) in [(&mountpoint, &primary), (&primary, &mountpoint)] {
        let (first, second) = run_two(&plan, one, other, done);
        assert_eq!(first.jobs, second.jobs[..done + 2]);
        let mut executed = first.executed;
        executed.sort();
        let mut new = first.jobs[done..].to_vec();
        new.sort();
        assert_eq!(executed, new);
        assert_eq!(second.executed, second.jobs[done + 2..]);
        done = second.jobs.len();
    }

    for at in [&mountpoint, &primary] {
        let all = (done - 1).to_string();
        assert_eq!(plan.run(at, &[&all]).executed, []);
    }
}
