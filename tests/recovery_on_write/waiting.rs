//! While a job is recovered, other calls go on, and a signal ends the wait of a program.

use std::fs::{self, File};
use std::io::Write;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::common::{self, Folders, Mounted, Workspace, eventually, run};
use crate::stage::{Beneath, TASK, archived, assert_clean};

/// A job that takes long to recover, and a small one.
fn slow() -> Workspace {
    let workspace = Workspace::builder().keys("{bandwidth: 1MiB}").build();
    let job = archived(&workspace, "backup", "slow");
    fs::write(job.join("large"), vec![7; 24 << 20]).unwrap();
    for number in 0..4 {
        archived(&workspace, "backup", &format!("other-{number}"));
    }
    workspace
}

fn append(mounted: &Mounted<'_>, hash: &str) -> Child {
    let mut command = Command::new("sh");
    command.args(["-c", "echo more >>\"$1\"/train.out", "sh"]);
    command.arg(mounted.job(TASK, hash)).stderr(Stdio::piped());
    command.spawn().unwrap()
}

fn recoveries(workspace: &Workspace, mounted: &Mounted<'_>) -> serde_json::Value {
    let printed = run(workspace
        .xpmfs()
        .args(["--json", "status"])
        .arg(mounted.path()));
    let mut status: serde_json::Value = serde_json::from_str(&printed).unwrap();
    status["mounts"][0]["recoveries"].take()
}

/// Ends a child with the test.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn has_begun(beneath: &Beneath) {
    let staged = beneath.path().join(format!("jobs/{TASK}/.tmp.slow/large"));
    eventually("some of the job is copied", || {
        fs::metadata(&staged).is_ok_and(|file| file.len() > 0)
    });
}

#[test]
fn other_calls_go_on_while_a_job_is_recovered() {
    let workspace = slow();
    let beneath = Beneath::of(&workspace.primary());
    let mounted = workspace.mount_in_place();
    let mut writers: Vec<Ended> = (0..20).map(|_| Ended(append(&mounted, "slow"))).collect();
    has_begun(&beneath);
    eventually("status shows all that wait", || {
        recoveries(&workspace, &mounted)[0]["waiting"] == 20
    });
    let shown = recoveries(&workspace, &mounted);
    assert_eq!(shown[0]["job"], format!("{TASK}/slow"));
    assert!(
        shown[0]["total_bytes"].as_u64().unwrap() > 24 << 20,
        "{shown}"
    );
    for number in 0..4 {
        let job = mounted.job(TASK, &format!("other-{number}"));
        assert_eq!(fs::read(job.join("model.bin")).unwrap(), [7; 10_000]);
        fs::write(job.join("new"), "new").unwrap();
        // Also in the job itself.
        let slow = mounted.job(TASK, "slow");
        assert_eq!(fs::read(slow.join("model.bin")).unwrap(), [7; 10_000]);
        fs::read_dir(&slow).unwrap().for_each(drop);
        fs::write(slow.join("train.lock"), "").unwrap();
    }
    assert!(
        writers
            .iter_mut()
            .all(|one| one.0.try_wait().unwrap().is_none()),
        "the other calls took as long as the recovery"
    );
    for writer in &mut writers {
        assert!(writer.0.wait().unwrap().success());
    }
    let text = fs::read_to_string(mounted.job(TASK, "slow").join("train.out")).unwrap();
    assert_eq!(text.matches("more\n").count(), 20);
    assert_eq!(recoveries(&workspace, &mounted), serde_json::json!([]));
}

const CALLS: usize = 1000;

/// Calls for other jobs, in a circle; returns how long each took, in order.
fn calls(mounted: &Mounted<'_>, round: &str) -> Vec<Duration> {
    let living = mounted.job(TASK, "living");
    let mut took: Vec<Duration> = (0..CALLS)
        .map(|number| {
            let job = mounted.job(TASK, &format!("other-{}", number % 4));
            let began = Instant::now();
            match number % 5 {
                0 => drop(fs::metadata(job.join("params.json")).unwrap()),
                1 => drop(File::open(job.join("model.bin")).unwrap()),
                2 => assert_eq!(fs::read(job.join("train.out")).unwrap().len(), 14),
                3 => drop(File::create_new(living.join(format!("{round}-{number}"))).unwrap()),
                _ => fs::read_dir(&job).unwrap().for_each(drop),
            }
            began.elapsed()
        })
        .collect();
    took.sort_unstable();
    took
}

#[test]
fn a_thousand_calls_do_not_wait_for_a_large_recovery() {
    let (megabytes, keys) = match common::soak() {
        true => (2 << 10, "{bandwidth: 50MiB}"),
        false => (24, "{bandwidth: 256KiB}"),
    };
    let workspace = Workspace::builder().keys(keys).build();
    let job = archived(&workspace, "backup", "slow");
    let mut large = File::create(job.join("large")).unwrap();
    for _ in 0..megabytes {
        large.write_all(&vec![7; 1 << 20]).unwrap();
    }
    for number in 0..4 {
        archived(&workspace, "backup", &format!("other-{number}"));
    }
    workspace.finished("primary", TASK, "living");
    let beneath = Beneath::of(&workspace.primary());
    let mounted = workspace.mount_in_place();
    let before = calls(&mounted, "before");
    let mut writer = Ended(append(&mounted, "slow"));
    has_begun(&beneath);
    let during = calls(&mounted, "during");
    assert!(
        writer.0.try_wait().unwrap().is_none(),
        "the calls took as long as the recovery"
    );
    let slow = mounted.job(TASK, "slow");
    assert_eq!(mounted.location(&slow), "backup");
    if common::soak() {
        for (when, took) in [("before", &before), ("during", &during)] {
            let (median, p99) = (took[CALLS / 2], took[CALLS * 99 / 100]);
            let longest = took[CALLS - 1];
            common::say(&format!(
                "{when}: median {median:?}, p99 {p99:?}, longest {longest:?}"
            ));
        }
        let began = Instant::now();
        assert!(writer.0.wait().unwrap().success());
        common::say(&format!("the rest took {:?}", began.elapsed()));
        assert_eq!(mounted.location(&slow), "primary");
    }
}

#[test]
fn a_signal_ends_the_wait_and_an_abandoned_recovery_leaves_nothing() {
    let workspace = slow();
    let folders = Folders::of(&workspace);
    let beneath = Beneath::of(&workspace.primary());
    let mounted = workspace.mount_in_place();
    let (mut one, mut other) = (
        Ended(append(&mounted, "slow")),
        Ended(append(&mounted, "slow")),
    );
    has_begun(&beneath);
    eventually("both wait", || {
        recoveries(&workspace, &mounted)[0]["waiting"] == 2
    });
    for (signal, child) in [("-INT", &mut one), ("-KILL", &mut other)] {
        let pid = child.0.id().to_string();
        let began = Instant::now();
        run(Command::new("kill").args([signal, &pid]));
        assert!(!child.0.wait().unwrap().success());
        assert!(began.elapsed() < Duration::from_secs(10), "{signal}");
        assert_eq!(mounted.location(mounted.job(TASK, "slow")), "backup");
    }
    eventually("the recovery is cancelled", || {
        recoveries(&workspace, &mounted) == serde_json::json!([])
    });
    assert_clean(&beneath.path());
    folders.assert_unchanged();
    assert_eq!(mounted.location(mounted.job(TASK, "slow")), "backup");
    // The next writer begins anew.
    let mut again = Ended(append(&mounted, "slow"));
    has_begun(&beneath);
    assert!(again.0.try_wait().unwrap().is_none());
}
