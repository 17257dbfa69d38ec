//! Actions, after a confirmation that says how many bytes they are about.

use crate::common::{eventually, run};
use crate::stage::{
    ARCHIVED, BACKED, MOVED, SINGLE, TRAIN, path, start, workspace, workspace_with,
};

#[test]
fn a_job_is_archived_verified_and_released() {
    let workspace = workspace_with(&["backup"]);
    let terminal = start(&workspace, 24, 100);
    terminal.press("/a1aaaaaa\r");
    terminal.wait_for("1 of 7");
    terminal.press("a");
    terminal.wait_for("Archive 1 job (9.82 KiB in the primary) in");
    // No other key does it: not even Enter.
    terminal.press("\rn");
    terminal.wait_until("the question to be closed", |screen| {
        !screen.contains("Archive 1")
    });
    let copy = path(&workspace, "backup", TRAIN, SINGLE);
    assert!(!copy.exists());
    terminal.press("a");
    terminal.wait_for("y does it");
    terminal.press("y");
    terminal.wait_for("1 copy made (");
    assert!(copy.join("train.done").exists());
    terminal.wait_for("primary + backup");
    terminal.wait_for("1 FINISHED JOB HAS NO SECOND COPY");

    terminal.press("v");
    terminal.wait_for("Read the archived copies of 1 job");
    terminal.press("y");
    terminal.wait_for("1 copy OK");

    terminal.press("p");
    terminal.wait_for("Pin 1 job");
    terminal.press("y");
    terminal.wait_for("1 job pinned");
    terminal.press("e");
    terminal.wait_for("1 job kept");
    terminal.press("\x1b");
    terminal.wait_until("the answer to be closed", |screen| {
        !screen.contains("1 job kept")
    });
    terminal.wait_for("pinned · ");
    terminal.press("p");
    terminal.wait_for("Unpin 1 job");
    terminal.press("y");
    terminal.wait_for("1 job no longer pinned");

    terminal.press("e");
    terminal.wait_for("Release 1 job");
    terminal.wait_for("are freed in the primary");
    terminal.press("y");
    terminal.wait_for("1 job released");
    assert!(!path(&workspace, "primary", TRAIN, SINGLE).exists());
    terminal.wait_for("backup ONLY");

    terminal.press("b");
    terminal.wait_for("Bring 1 job (9.8");
    terminal.press("y");
    terminal.wait_for("1 job recovered (9.8");
    assert!(
        path(&workspace, "primary", TRAIN, SINGLE)
            .join("train.done")
            .exists()
    );
}

#[test]
fn a_job_is_deleted_everywhere_and_brought_back() {
    let workspace = workspace();
    let terminal = start(&workspace, 24, 100);
    terminal.press("/b2bbbbbb\r");
    terminal.wait_for("1 of 7");
    terminal.press("\x04");
    terminal.wait_for("Delete 1 job EVERYWHERE");
    terminal.wait_for("1 job in backup:");
    terminal.press("y");
    terminal.wait_for("1 job deleted");
    let copies = ["primary", "backup"].map(|place| path(&workspace, place, TRAIN, BACKED));
    assert!(copies.iter().all(|copy| !copy.exists()));
    terminal.press("6");
    terminal.wait_for("UNTIL");
    terminal.wait_for("> 20");
    terminal.press("b");
    terminal.wait_for("Bring 1 job");
    terminal.press("y");
    terminal.wait_for("1 job brought back");
    assert!(copies.iter().all(|copy| copy.join("train.done").exists()));
}

#[test]
fn several_jobs_are_marked_and_opted_out() {
    let workspace = workspace();
    let terminal = start(&workspace, 24, 100);
    // Those in the primary that are finished.
    terminal.press("T/train\r");
    terminal.wait_for("5 of 7");
    terminal.press("  ");
    terminal.wait_for("2 marked");
    terminal.press("o");
    terminal.wait_for("Exclude 2 jobs from archiving");
    terminal.press("y");
    terminal.wait_for("2 jobs will no longer be archived");
    let opted_out = |hash| {
        let job = path(&workspace, "primary", TRAIN, hash);
        job.join(".experimaestro/no-backup").exists()
    };
    assert!(opted_out(SINGLE) && opted_out(BACKED));
    assert!(!opted_out(ARCHIVED) && !opted_out(MOVED));
}

#[test]
fn a_question_names_its_one_job_and_counts_marked_ones_that_do_not_show() {
    let workspace = workspace();
    let terminal = start(&workspace, 24, 100);
    // As it shows in the list, with a part of the hash.
    terminal.press(&format!("/train/{}\r", &SINGLE[..8]));
    terminal.wait_for("1 of 7");
    terminal.press("o");
    terminal.wait_for(&format!("The job: {TRAIN}/{SINGLE}"));
    terminal.press("n");
    terminal.wait_until("the dialog to close", |screen| !screen.contains("The job:"));
    terminal.press("\x1b");
    terminal.wait_for("7 jobs");
    terminal.press("A");
    terminal.wait_for("7 marked");
    terminal.press("/train\r");
    terminal.wait_for("7 marked, 2 of them hidden");
    terminal.press("o");
    terminal.wait_for("2 of these jobs are marked and do not show now.");
    terminal.press("n");
}

#[test]
fn orphans_are_removed_and_those_in_folders_stay() {
    let workspace = workspace();
    let terminal = start(&workspace, 24, 100);
    terminal.press("5");
    terminal.wait_for("1 orphan of ");
    terminal.press("\x04");
    terminal.wait_for("Remove 1 orphan (");
    terminal.press("n");
    terminal.wait_until("the question to be closed", |screen| {
        !screen.contains("Remove 1")
    });
    terminal.press("X");
    terminal.wait_for("Remove 1 orphan (");
    terminal.press("y");
    terminal.wait_for("1 orphan removed");
    assert!(!path(&workspace, "primary", TRAIN, SINGLE).exists());
    assert!(path(&workspace, "primary", TRAIN, BACKED).exists());
    terminal.wait_for("no orphans");
    // Without experiments all jobs seem to be orphans, so that another key is needed.
    std::fs::rename(
        workspace.primary().join("experiments"),
        workspace.primary().join("lost"),
    )
    .unwrap();
    terminal.press("r");
    terminal.wait_for("no experiments");
    terminal.press("X");
    terminal.wait_for("WARNING: the workspace has no experiments");
    terminal.press("y");
    std::thread::sleep(std::time::Duration::from_millis(300));
    terminal.wait_for("F does it all the same");
    terminal.press("\x1b");
    terminal.wait_until("the question to be closed", |screen| {
        !screen.contains("WARNING")
    });
    eventually("the jobs stay", || {
        path(&workspace, "primary", TRAIN, BACKED).exists()
    });
}

#[test]
fn a_run_is_copied_to_another_workspace() {
    let workspace = workspace();
    let other = workspace.top().join("other");
    std::fs::create_dir_all(other.join("jobs")).unwrap();
    let settings = std::fs::read_to_string(workspace.settings()).unwrap();
    let more = format!("  - id: second\n    path: {}\n", other.display());
    std::fs::write(workspace.settings(), settings + &more).unwrap();
    let terminal = start(&workspace, 24, 100);
    terminal.press("4");
    terminal.wait_for("20260101_000000");
    terminal.press("y");
    terminal.wait_for("second (");
    terminal.press("\r");
    terminal.wait_for("would copy tune/20260101_000000 and");
    terminal.press("y");
    terminal.wait_for("copied tune/20260101_000000");
    assert!(
        other
            .join("experiments/tune/20260101_000000/jobs.jsonl")
            .exists()
    );
    assert!(other.join("jobs").join(TRAIN).join(BACKED).exists());
}

/// Both keys come before the tab is drawn.
#[test]
fn jobs_are_released_from_the_tab_of_folders_at_once() {
    let workspace = workspace();
    let terminal = start(&workspace, 24, 100);
    terminal.press("2e");
    terminal.wait_for("releasing 2 jobs");
}

/// The shell's command is of no use to someone who is in the dashboard.
#[test]
fn a_job_without_a_manifest_is_not_released_and_the_key_that_helps_is_named() {
    let workspace = workspace_with(&["backup"]);
    run(workspace.xpmfs().args(["jobs", "archive", SINGLE]));
    // As after experimaestro's own archiving.
    let manifests = workspace.folder("backup").join(".xpmfs/manifests");
    std::fs::remove_dir_all(manifests.join(TRAIN)).unwrap();
    let terminal = start(&workspace, 24, 100);
    terminal.press("/a1aaaaaa\r");
    terminal.wait_for("1 of 7");
    terminal.press("e");
    terminal.wait_for("1 job kept: no archived copy with a manifest");
    terminal.wait_for("Key a in the list of jobs makes the missing copy, or compares");
    terminal.press("\x1b");
    terminal.wait_until("the answer to close", |screen| !screen.contains("Key a in"));
    terminal.press("a");
    terminal.wait_for("y does it");
    terminal.press("y");
    terminal.wait_for("nothing to copy: 1 up to date");
    terminal.press("e");
    terminal.wait_for("Release 1 job");
    terminal.press("n");
}

#[test]
fn a_question_in_a_small_terminal_shows_all_that_it_is_about() {
    let workspace = workspace();
    let terminal = start(&workspace, 24, 80);
    terminal.press("/b2bbbbbb\r");
    terminal.wait_for("1 of 7");
    terminal.resize(8, 30);
    terminal.wait_until("the terminal to be small", |screen| {
        screen.lines().count() <= 8
    });
    terminal.press("\x04");
    terminal.wait_for("Space shows the rest");
    let is_asked = |screen: &str| screen.contains("Delete 1 job") && screen.contains("KiB)");
    terminal.wait_until("the question", is_asked);
    // Not yet.
    terminal.press("y");
    for _ in 0..20 {
        terminal.press(" ");
    }
    terminal.wait_for("y does it");
    terminal.wait_until("the question", is_asked);
    assert!(path(&workspace, "backup", TRAIN, BACKED).exists());
    terminal.press("y");
    terminal.wait_for("1 job deleted");
    assert!(!path(&workspace, "backup", TRAIN, BACKED).exists());
}

/// A job that was run again has a copy of its earlier run in the folder.
#[test]
fn a_copy_of_an_earlier_run_is_no_second_copy() {
    let workspace = workspace();
    let done = path(&workspace, "primary", TRAIN, BACKED).join("train.done");
    let file = std::fs::File::options().write(true).open(done).unwrap();
    file.set_modified(std::time::SystemTime::now()).unwrap();
    let terminal = start(&workspace, 24, 100);
    terminal.press("/b2bbbbbb\r");
    terminal.wait_for("primary ONLY + old");
    terminal.wait_for("4 FINISHED JOBS HAVE NO SECOND COPY");
    terminal.press("2e");
    terminal.wait_for("releasing 1 job");
}
