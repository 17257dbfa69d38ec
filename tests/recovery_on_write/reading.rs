//! With `recover_on: open`, a job that a program reads comes back in the background.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::time::{Duration, SystemTime};

use serde_json::Value;

use crate::common::thread::Mapping;
use crate::common::{self, Mounted, Workspace, assert_unchanged, eventually, names, run, snapshot};
use crate::stage::{Beneath, TASK, Tmpfs, archived, assert_clean, contents, everywhere};

fn recoveries(workspace: &Workspace, mounted: &Mounted<'_>) -> Vec<Value> {
    let printed = run(workspace
        .xpmfs()
        .args(["--json", "status"])
        .arg(mounted.path()));
    let status: Value = serde_json::from_str(&printed).unwrap();
    let listed = status["mounts"][0]["recoveries"].as_array();
    listed.expect("the daemon answers").clone()
}

/// Waits until no job is queued or being recovered.
fn until_idle(workspace: &Workspace, mounted: &Mounted<'_>) {
    eventually("no recovery is left", || {
        recoveries(workspace, mounted).is_empty()
    });
}

/// Waits until no copy is being made.
fn until_unstaged(beneath: &Beneath) {
    eventually("no copy is being made", || {
        let listed = names(&beneath.path().join("jobs").join(TASK));
        let mut names = listed.iter().map(|name| name.to_string_lossy());
        !names.any(|name| name.starts_with(".tmp."))
    });
}

fn until_recovered(mounted: &Mounted<'_>, job: &Path) {
    eventually("the job is recovered", || {
        mounted.location(job) == "primary"
    });
}

fn free_bytes(path: &Path) -> u64 {
    let space = rustix::fs::statvfs(path).unwrap();
    space.f_bavail * space.f_frsize
}

#[test]
fn a_job_that_is_read_comes_back_while_it_is_read() {
    let keys = "{recover_on: open}";
    let prepare = |workspace: &Workspace| {
        if !fs::read_to_string(workspace.settings())
            .unwrap()
            .contains(keys)
        {
            workspace.tune(keys);
        }
        for folder in ["backup", "move", "use"] {
            let job = archived(workspace, folder, folder);
            fs::write(job.join("large"), vec![7; 3 << 20]).unwrap();
            archived(workspace, folder, &format!("{folder}-looked-at"));
        }
    };
    everywhere(prepare, |workspace, mounted, beneath| {
        for folder in ["backup", "move", "use"] {
            // None of this reads a job: listing, states and markers.
            let looked_at = mounted.job(TASK, &format!("{folder}-looked-at"));
            names(&looked_at);
            fs::read_link(looked_at.join("latest")).unwrap();
            fs::read(looked_at.join("train.done")).unwrap();
            fs::read(looked_at.join(".experimaestro/status.json")).ok();

            let job = mounted.job(TASK, folder);
            let before = contents(
                &workspace
                    .folder(folder)
                    .join("jobs")
                    .join(TASK)
                    .join(folder),
                &[],
            );
            let begun = SystemTime::now() - Duration::from_secs(5);
            let held = File::open(job.join("large")).unwrap();
            let mapped = Mapping::new(&held, false, false).unwrap();
            let directory = File::open(job.join("data")).unwrap();
            // Reading goes on meanwhile.
            for _ in 0..3 {
                assert_eq!(fs::read(job.join("data/deep/file")).unwrap(), b"deep");
                let mut last = [0; 4];
                held.read_exact_at(&mut last, (3 << 20) - 4).unwrap();
                assert_eq!(last, [7; 4]);
            }
            if folder == "use" {
                continue;
            }
            until_recovered(mounted, &job);
            until_unstaged(beneath);
            let recovered = beneath.path().join("jobs").join(TASK).join(folder);
            assert!(fs::symlink_metadata(&recovered).unwrap().is_dir());
            assert_eq!(contents(&recovered, &["train.lock"]), before);
            assert_eq!(contents(&job, &["train.lock"]), before);
            // No archiver moves it away again.
            let kept = Path::new(".xpmfs/archive/kept").join(TASK).join(folder);
            assert!(beneath.path().join(kept).exists());
            // It was used now.
            let accessed = fs::metadata(recovered.join("train.out"))
                .unwrap()
                .accessed();
            assert!(accessed.unwrap() >= begun);
            // What is open stays open: it reads the archived file.
            let mut all = vec![0; 3 << 20];
            held.read_exact_at(&mut all, 0).unwrap();
            assert!(all.iter().all(|byte| *byte == 7) && mapped.read(4095) == 7);
            assert_eq!(
                names(Path::new(&format!(
                    "/proc/self/fd/{}",
                    std::os::fd::AsRawFd::as_raw_fd(&directory)
                ))),
                ["deep"]
            );
            // A change reaches the recovered job at once.
            fs::write(job.join("large"), "changed").unwrap();
            held.read_exact_at(&mut all, 0).unwrap();
            assert!(all.iter().all(|byte| *byte == 7));
            assert_eq!(fs::metadata(recovered.join("large")).unwrap().size(), 7);
        }
        until_unstaged(beneath);
        // A colleague's job is not copied, and neither is one that is only looked at.
        assert_eq!(mounted.location(mounted.job(TASK, "use")), "use");
        for folder in ["backup", "move", "use"] {
            let looked_at = mounted.job(TASK, &format!("{folder}-looked-at"));
            assert_eq!(mounted.location(looked_at), folder);
        }
    });
}

#[test]
fn reading_leaves_the_space_that_is_to_be_kept_free() {
    if !common::is_root() {
        return;
    }
    const MIB: u64 = 1 << 20;
    let workspace = Workspace::builder()
        .folders(&["backup"])
        .keys("{recover_on: open, release: {keep_free: 20M}}")
        .build();
    for hash in ["one", "two"] {
        let job = archived(&workspace, "backup", hash);
        fs::write(job.join("large"), vec![7; 24 << 20]).unwrap();
    }
    archived(&workspace, "backup", "small");
    let (primary, elsewhere) = (workspace.primary(), workspace.mountpoint("elsewhere"));
    let _disk = Tmpfs::on(&primary, "size=64m");
    let folder = workspace.folder("backup");
    let before = snapshot(&folder);
    {
        let beneath = Beneath::of(&primary);
        let mounted = workspace.mount_with(&elsewhere, &["-v"]);
        let [one, two, small] = ["one", "two", "small"].map(|hash| mounted.job(TASK, hash));
        assert_eq!(fs::read(one.join("large")).unwrap().len(), 24 << 20);
        until_recovered(&mounted, &one);
        let line = "stays in its folder";
        for _ in 0..50 {
            assert_eq!(fs::read(two.join("large")).unwrap().len(), 24 << 20);
        }
        eventually("the log says that it stays", || {
            workspace.log().contains(line)
        });
        until_idle(&workspace, &mounted);
        // It is not tried again at each open.
        assert_eq!(
            workspace.log().matches(line).count(),
            1,
            "{}",
            workspace.log()
        );
        assert_eq!(mounted.location(&two), "backup");
        assert!(free_bytes(&primary) >= 20 * MIB);
        // A small one fits.
        fs::read(small.join("train.out")).unwrap();
        until_recovered(&mounted, &small);
        assert!(free_bytes(&primary) >= 20 * MIB);
        // A change needs the job, whatever is to be kept free.
        fs::write(two.join("new"), "x").unwrap();
        assert_eq!(mounted.location(&two), "primary");
        until_idle(&workspace, &mounted);
        assert_unchanged(&folder, &before);
        assert_clean(&beneath.path());
        mounted.unmount();
    }
}

#[test]
fn a_writer_waits_for_the_job_that_is_recovered_for_readers() {
    let workspace = Workspace::builder()
        .folders(&["backup"])
        .keys("{recover_on: open, bandwidth: 4MiB}")
        .build();
    for hash in ["running", "queued"] {
        let job = archived(&workspace, "backup", hash);
        fs::write(job.join("large"), vec![7; 8 << 20]).unwrap();
    }
    archived(&workspace, "backup", "other");
    let mounted = workspace.mount_with(&workspace.primary(), &["-v"]);
    let [running, queued] = ["running", "queued"].map(|hash| mounted.job(TASK, hash));
    let held = File::open(running.join("large")).unwrap();
    eventually("its recovery is running", || {
        let listed = recoveries(&workspace, &mounted);
        listed.first().is_some_and(|one| {
            one["for_readers"] == true && one["waiting"] == 0 && one["seconds"].is_number()
        })
    });
    let text = run(workspace.xpmfs().arg("status").arg(mounted.path()));
    assert!(text.contains("in the background"), "{text}");
    fs::read(queued.join("train.out")).unwrap();
    for job in [&running, &queued] {
        let mut file = File::options()
            .append(true)
            .open(job.join("large"))
            .unwrap();
        file.write_all(b"more").unwrap();
        assert_eq!(mounted.location(job), "primary");
        let content = fs::read(job.join("large")).unwrap();
        assert_eq!(content.len(), (8 << 20) + 4);
        assert!(content.ends_with(b"\x07more"));
    }
    let mut last = [0; 8];
    assert_eq!(held.read_at(&mut last, (8 << 20) - 4).unwrap(), 4);
    drop(held);
    // A plan that is run again opens the lock of each job.
    let other = mounted.job(TASK, "other");
    let mut lock = File::options();
    lock.read(true).write(true).create(true).truncate(false);
    drop(lock.open(other.join("train.lock")).unwrap());
    drop(File::open(other.join("train.lock")).unwrap());
    until_idle(&workspace, &mounted);
    assert_eq!(mounted.location(&other), "backup");
    let log = workspace.log();
    assert_eq!(log.matches("recovered for").count(), 2, "{log}");
    mounted.unmount();
}

#[test]
fn a_job_that_cannot_be_recovered_is_not_tried_at_each_read() {
    let workspace = Workspace::new();
    workspace.with_folders(&["backup"]);
    workspace.tune("{recover_on: open}");
    let job = workspace.finished("primary", TASK, "a");
    run(workspace
        .xpmfs()
        .args(["jobs", "archive", "-w", "test", "--all"]));
    fs::remove_dir_all(&job).unwrap();
    let copy = workspace.folder("backup").join("jobs").join(TASK).join("a");
    let file = File::options()
        .write(true)
        .open(copy.join("model.bin"))
        .unwrap();
    let written = file.metadata().unwrap().modified().unwrap();
    file.write_all_at(&[9], 5).unwrap();
    file.set_modified(written).unwrap();
    let mounted = workspace.mount_in_place();
    let model = mounted.job(TASK, "a").join("model.bin");
    let line = "cannot recover a job that programs read";
    fs::read(&model).unwrap();
    eventually("it fails", || workspace.log().contains(line));
    until_idle(&workspace, &mounted);
    for _ in 0..50 {
        fs::read(&model).unwrap();
    }
    until_idle(&workspace, &mounted);
    assert_eq!(
        workspace.log().matches(line).count(),
        1,
        "{}",
        workspace.log()
    );
    assert_eq!(mounted.location(mounted.job(TASK, "a")), "backup");
    mounted.unmount();
}
