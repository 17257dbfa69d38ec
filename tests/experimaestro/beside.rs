//! A plan through a mount, while another runs in the bare primary.

use crate::fixture::{Workspace, eventually};
use crate::plan::Plan;

#[test]
fn plans_through_a_mount_and_beside_it_share_their_jobs() {
    let workspace = Workspace::new();
    let Some(plan) = Plan::of(&workspace) else {
        return;
    };
    let mountpoint = workspace.mountpoint("mnt");
    let _mounted = workspace.mount_at(&mountpoint);

    let primary = workspace.primary();
    // The second time, with two more jobs, and the other way round.
    for (count, new, one, other) in [
        ("2", 3, &mountpoint, &primary),
        ("4", 2, &primary, &mountpoint),
    ] {
        let mut first = plan.start(one, &[count, "--experiment", "first"]);
        let running = first.wait_for_a_job();
        let second = plan.start(other, &[count, "--experiment", "second"]);
        // It has found that the other runs the job, if that was told from here to there.
        eventually("the second plan waits for the job of the first", || {
            second.says("waiting to complete")
        });
        first.open_gate();
        second.open_gate();
        let (first, second) = (first.finish(), second.finish());
        assert_eq!(first.jobs, second.jobs);
        assert!(first.executed.contains(&running));

        let mut executed = [first.executed, second.executed].concat();
        executed.sort();
        let mut expected = first.jobs[first.jobs.len() - new..].to_vec();
        expected.sort();
        assert_eq!(executed, expected, "each once");
    }
}
