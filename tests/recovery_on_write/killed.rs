//! The daemon is killed, or the disk fails, at each system call by which a recovery on write changes the disk.
//!
//! A job is archived or recovered at every moment, never a part of it; the lock file that another process holds stays the
//! job's lock file.

use crate::common::{self, Folders};
use crate::faults::{NEVER_FULL, Point, SCENES, Stage};

/// Those of the points that are tried in an ordinary run: some, and one at which some of the internal files are linked.
fn sample(points: Vec<Point>, scene: usize) -> Vec<Point> {
    if common::soak() {
        return points;
    }
    let placed = points
        .iter()
        .position(|(call, _)| call.starts_with("rename"));
    // An internal file has replaced the archived one, and its directory does not have its time again.
    let before = &points[..placed.unwrap()];
    let replaced = before.iter().rposition(|(call, _)| call == "unlinkat");
    let mut chosen: Vec<Point> = replaced
        .map(|at| points[at + 2].clone())
        .into_iter()
        .collect();
    // The scenes start at different points.
    let step = points.len() / 2;
    chosen.extend(points.into_iter().skip(scene).step_by(step).take(2));
    chosen
}

fn with_faults(what: &str, fault: impl Fn(&Stage, &Point, &Folders<'_>) -> bool) {
    if !common::is_root() {
        return;
    }
    if common::program("strace").is_none() {
        return;
    }
    let (mut tried, mut hit) = (0, 0);
    for (number, scene) in (0..).zip(SCENES) {
        let stage = Stage::new(scene);
        let folders = Folders::of(&stage.workspace);
        let mut points = stage.points();
        if what == "failed" {
            points.retain(|(call, _)| !NEVER_FULL.contains(&&**call));
        }
        let all = points.len();
        assert!(all > 20, "{points:?}");
        let points = sample(points, number * all / (2 * SCENES.len()));
        let mut hit_here = 0;
        for point in &points {
            let at = format!("{scene:?} {what} at {point:?}");
            let tried = std::panic::AssertUnwindSafe(|| fault(&stage, point, &folders));
            match std::panic::catch_unwind(tried) {
                Ok(was_hit) => hit_here += usize::from(was_hit),
                Err(panic) => {
                    common::say(&at);
                    std::panic::resume_unwind(panic);
                }
            }
        }
        if common::soak() {
            let tried = points.len();
            common::say(&format!("{scene:?}: {what} at {hit_here} of {tried} calls"));
        }
        tried += points.len();
        hit += hit_here;
    }
    let enough = if what == "killed" { tried * 9 / 10 } else { 1 };
    assert!(hit >= enough, "{what} at {hit} of {tried}");
}

#[test]
fn killed_at_a_system_call_it_leaves_the_job_archived_or_recovered() {
    with_faults("killed", Stage::kill_at);
}

#[test]
fn a_disk_that_is_full_at_a_system_call_leaves_the_job_archived_or_recovered() {
    with_faults("failed", Stage::fail_at);
}
