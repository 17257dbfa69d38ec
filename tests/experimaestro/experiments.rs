//! A backup folder is a workspace of its own, and a primary that was lost is made from it.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::common::{Workspace, run};
use crate::plan::{Job, Plan};

/// The lines of experimaestro's list of jobs, sorted.
fn listed(plan: &Plan<'_>, workspace: &Path) -> Vec<String> {
    let workdir = format!("--workdir={}", workspace.display());
    let printed = plan.experimaestro_in(&["jobs", &workdir, "list", "--tags"]);
    let mut lines: Vec<String> = printed.lines().map(str::to_owned).collect();
    lines.retain(|line| line.contains('/'));
    lines.sort();
    lines
}

fn archive(workspace: &Workspace) -> Vec<Value> {
    let printed = run(workspace.xpmfs().args(["--json", "archive", "-w", "test"]));
    serde_json::from_str(&printed).unwrap()
}

fn files(directory: &Path) -> Vec<(String, Vec<u8>)> {
    let listed = run(Command::new("find")
        .arg(directory)
        .args(["-type", "f", "-not", "-name", "*.lock"]));
    let mut found: Vec<_> = listed
        .lines()
        .map(|path| {
            let relative = Path::new(path).strip_prefix(directory).unwrap();
            (
                relative.to_str().unwrap().to_owned(),
                fs::read(path).unwrap(),
            )
        })
        .collect();
    found.sort();
    found
}

fn with_backup() -> Workspace {
    let workspace = Workspace::new();
    workspace.with_folders(&["backup"]);
    workspace.tune("{settle: 200ms, scan_interval: 200ms}");
    workspace
}

/// The jobs of a plan with partials: the last one is opted out by its tag.
fn opted_out(jobs: &[Job]) -> (&Job, &[Job]) {
    jobs.split_last().unwrap()
}

#[test]
fn a_primary_that_was_lost_is_made_from_its_folder() {
    let workspace = with_backup();
    let Some(plan) = Plan::of(&workspace) else {
        return;
    };
    let primary = workspace.primary();
    let first = plan.run(&primary, &["1", "--partials"]);
    let (out, archived) = opted_out(&first.jobs);
    archive(&workspace);
    let folder = workspace.folder("backup");
    let before = (listed(&plan, &primary), files(&primary.join("partials")));
    // The folder, opened as a workspace: the job that was opted out is not there, and its partial neither.
    assert!(!folder.join(out.path()).exists());
    assert_eq!(
        fs::read_dir(folder.join("partials/__main__.learn/checkpoints"))
            .unwrap()
            .count(),
        1
    );
    assert_eq!(
        before
            .1
            .iter()
            .filter(|(path, _)| path.ends_with("model.pt"))
            .count(),
        2
    );
    let orphans = plan.experimaestro(&["orphans"], &folder);
    assert!(orphans.contains("No orphan jobs"), "{orphans}");
    let listing = plan.experimaestro_in(&[
        "experiments",
        &format!("--workdir={}", folder.display()),
        "list",
    ]);
    assert!(listing.contains("demo"), "{listing}");
    let in_folder = listed(&plan, &folder);
    for job in archived {
        let line = format!("DONE    {}/{}", job.task, job.hash);
        assert!(in_folder.contains(&line), "{line}: {in_folder:?}");
    }

    // Everything is lost, but for the job that was never archived; also with another path of the workspace.
    let kept = workspace.top().join("kept");
    fs::rename(primary.join(out.path()), &kept).unwrap();
    fs::remove_dir_all(&primary).unwrap();
    fs::create_dir(&primary).unwrap();
    let output = workspace
        .xpmfs()
        .args(["jobs", "recover", "--all", "-w", "test"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && said.contains("experiments recover --all"),
        "{said}"
    );
    run(workspace
        .xpmfs()
        .args(["experiments", "recover", "--all", "-w", "test"]));
    let orphans = plan.experimaestro(&["orphans", "--no-folders"], &primary);
    assert!(orphans.contains("No orphan jobs"), "{orphans}");
    fs::rename(&kept, primary.join(out.path())).unwrap();
    assert_eq!(listed(&plan, &primary), before.0);
    let partials = files(&primary.join("partials"));
    assert!(partials.iter().all(|file| before.1.contains(file)));
    assert!(partials.iter().any(|(path, _)| path.ends_with("model.pt")));
    for job in archived {
        let link = primary.join("experiments/demo/current").join(job.path());
        assert_eq!(fs::read_link(&link).unwrap(), primary.join(job.path()));
    }
    // The tag that opts a job out came back with the run.
    let again = archive(&workspace);
    let name = format!("{}/{}", out.task, out.hash);
    let entry = again
        .iter()
        .find(|entry| entry["job"] == name.as_str())
        .unwrap();
    assert_eq!(entry["reason"], "opted_out", "{entry}");
    // Nothing is left to do, neither for experimaestro nor for us.
    let again = plan.run(&primary, &["1", "--partials"]);
    assert_eq!(again.executed, []);
    let output = workspace
        .xpmfs()
        .args(["experiments", "recover", "--all", "-w", "test"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("nothing to recover"), "{said}");
}

#[test]
fn runs_of_a_plan_in_a_mount_are_archived_when_they_end_and_stay_when_they_are_tidied() {
    let workspace = with_backup();
    let Some(plan) = Plan::of(&workspace) else {
        return;
    };
    let primary = workspace.primary();
    // experimaestro removes each run when the next one has ended.
    let settings = workspace.top().join(".config/experimaestro");
    fs::create_dir_all(&settings).unwrap();
    fs::write(settings.join("settings.yaml"), "history: {max_done: 1}\n").unwrap();
    let _mounted = workspace.mount_archiving(&primary, &[]);
    let runs = workspace.folder("backup").join("experiments/demo");
    let mut running = plan.start(&primary, &["1", "--failing"]);
    running.wait_for_a_job();
    // Two passes over all runs have ended, at the least.
    for _ in 0..2 {
        let scanned = || -> Value {
            let status = run(workspace.xpmfs().args(["--json", "status"]).arg(&primary));
            let status: Value = serde_json::from_str(&status).unwrap();
            status["mounts"][0]["archive"]["folders"][0]["last_scan"].clone()
        };
        let before = scanned();
        crate::common::eventually("another scan", || scanned() != before);
    }
    assert!(!runs.exists(), "a run in progress was archived");
    running.open_gate();
    let first = running.finish_failing().run;
    let there = |run: &str| runs.join(run).join("status.json").exists();
    crate::common::eventually("the first run is archived", || there(&first));
    let done = plan.run(&primary, &["1"]).run;
    crate::common::eventually("the next run is archived", || there(&done));
    crate::common::eventually("current follows", || {
        fs::read_link(runs.join("current")).is_ok_and(|target| target == Path::new(&done))
    });
    assert!(
        !primary.join("experiments/demo").join(&first).exists(),
        "experimaestro removes failed runs"
    );
    assert!(there(&first));
}
