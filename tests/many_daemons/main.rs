//! Four daemons over one primary and one folder, as on four nodes, with programs that use the jobs and daemons that are killed.
//!
//! Each node has a mount namespace and a host name of its own, so that a daemon sees the others only by what lies on the disk. Ten
//! minutes long with `XPMFS_SOAK=1`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod again;
#[path = "../common/mod.rs"]
mod common;
mod end;
mod footprint;
mod jobs;
mod node;
mod programs;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::Workspace;
use footprint::Held;
use jobs::Jobs;
use node::Node;
use programs::Random;

/// How many nodes there are, and how many programs run on each.
const NODES: usize = 4;
const PROGRAMS: usize = 2;

/// How long programs run, and over how many jobs.
fn amount() -> (Duration, usize) {
    match common::soak() {
        true => (Duration::from_secs(600), 300),
        false => (Duration::from_secs(8), 40),
    }
}

/// Whether the programs are to end.
struct Over(AtomicBool);

/// Ends the programs when it is dropped, also by a failure.
struct Ended<'a>(&'a Over);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.0.0.store(true, Ordering::Release);
    }
}

/// Kills processes of the nodes at random until some time, or until a program fails. The first node keeps both processes, and the second
/// one its supervisor: these could grow.
fn kill_until(end: Instant, nodes: &[Node<'_>], jobs: &Jobs, random: &mut Random) {
    while Instant::now() < end && !jobs.has_failed() {
        std::thread::sleep(Duration::from_millis(300 + random.below(1200)));
        let number = 1 + random.below(NODES as u64 - 1) as usize;
        match random.below(3) {
            0 if number > 1 => nodes[number].kill_both(),
            _ => nodes[number].kill_worker(),
        }
    }
}

fn run_on_four_nodes(mode: &'static str) {
    if !common::is_root() {
        return;
    }
    let workspace = Workspace::builder()
        .folders(&[mode])
        .keys("{settle: 100ms, scan_interval: 500ms}")
        .build();
    let seed = Random::seed();
    common::say(&format!("XPMFS_TEST_SEED={seed}"));
    let nodes: Vec<Node<'_>> = (0..NODES)
        .map(|number| Node::start(&workspace, number))
        .collect();
    let (time, count) = amount();
    let jobs = Jobs::new(count, mode == "backup");
    let over = Over(AtomicBool::new(false));
    let (before, after) = std::thread::scope(|scope| {
        for program in 0..NODES * PROGRAMS {
            let random = Random::new(seed, program);
            let (nodes, jobs, over) = (&nodes, &jobs, &over.0);
            scope.spawn(move || programs::run(nodes, program % NODES, jobs, random, over));
        }
        let _ended = Ended(&over);
        let mut random = Random::new(seed, NODES * PROGRAMS);
        let begin = Instant::now();
        kill_until(begin + time / 5, &nodes, &jobs, &mut random);
        let before = Held::by(&nodes);
        kill_until(begin + time, &nodes, &jobs, &mut random);
        (before, Held::by(&nodes))
    });
    let kills = nodes
        .iter()
        .map(Node::kills)
        .fold((0, 0), |(a, b), (c, d)| (a + c, b + d));
    common::say(&format!(
        "{mode}: {} workers and {} daemons killed; {}",
        kills.0,
        kills.1,
        jobs.summary()
    ));
    jobs.expect_no_failure(&nodes);
    if common::soak() {
        after.expect_as(before);
    }
    end::views_agree(&nodes, &jobs);
    if common::soak() {
        Held::by(&nodes).expect_as(before);
    }
    let places = end::Places::of(&workspace, mode);
    end::unmount(nodes);
    places.expect_each_job_once(&jobs);
}

#[test]
fn four_nodes_back_up_to_one_folder() {
    run_on_four_nodes("backup");
}

#[test]
fn four_nodes_move_to_one_folder() {
    run_on_four_nodes("move");
}
