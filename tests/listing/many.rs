//! A hundred thousand jobs. Long: runs with `XPMFS_SOAK=1` only.

use std::fs;
use std::time::Instant;

use serde_json::json;

use crate::common::{Workspace, run};
use crate::generated::{line, write_run};

#[test]
fn a_hundred_thousand_jobs_are_listed_in_a_moment() {
    if std::env::var_os("XPMFS_SOAK").is_none() {
        return;
    }
    let workspace = Workspace::new();
    let mut lines = String::new();
    for task in 0..10 {
        let task = format!("my.task{task}");
        for number in 0..10_000 {
            let hash = format!("{number:064x}");
            let job = workspace.primary().join("jobs").join(&task).join(&hash);
            fs::create_dir_all(&job).unwrap();
            fs::write(job.join(format!("{}.done", &task[3..])), "").unwrap();
            lines += &line(
                &task,
                &hash,
                &json!({"model": "bm25", "lr": 0.1}),
                f64::from(number),
            );
        }
    }
    write_run(
        &workspace.primary(),
        "e",
        "20260118_170744",
        &lines,
        &json!({}),
    );
    let mut command = workspace.xpmfs();
    command.args([
        "jobs",
        "list",
        "-w",
        "test",
        "--tags",
        "--filter",
        "model = 'bm25'",
    ]);
    let started = Instant::now();
    let printed = run(&mut command);
    assert_eq!(printed.lines().count(), 100_001);
    // Ten times what it takes, since tests run beside others and without optimisation.
    assert!(started.elapsed().as_secs() < 20, "{:?}", started.elapsed());
}
