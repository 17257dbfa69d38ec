//! Tests walks through the jobs of a primary and a folder.

use super::*;
use crate::settings;
use crate::view::{FolderSpec, ViewSpec};
use std::ffi::{OsStr, OsString};

const JOBS: usize = 50;

/// A view of a primary and a folder, both with jobs of the task `t`.
fn view(top: &std::path::Path) -> Arc<View> {
    for place in ["primary", "backup"] {
        for number in 0..JOBS {
            let job = format!("{place}/jobs/t/{place}-{number}/.experimaestro");
            std::fs::create_dir_all(top.join(job)).unwrap();
        }
    }
    std::fs::write(top.join("primary/jobs/t/file"), "").unwrap();
    // Not shown in the folder.
    std::fs::create_dir(top.join("backup/jobs/t/.tmp.x")).unwrap();
    for number in 0..JOBS {
        let copy = format!("backup/jobs/t/primary-{number}");
        std::fs::create_dir(top.join(copy)).unwrap();
    }
    let folder = FolderSpec {
        mode: settings::Mode::Backup,
        path: top.join("backup"),
    };
    let spec = ViewSpec {
        workspace: String::new(),
        primary: top.join("primary"),
        folders: vec![folder],
        mountpoint: None,
    };
    Arc::new(View::open(spec, None).unwrap())
}

/// The jobs in the order of the listing.
fn in_order(top: &std::path::Path) -> Vec<Name> {
    let names = |place: &str| {
        let entries = std::fs::read_dir(top.join(place).join("jobs/t")).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let jobs = names.filter(|name| name.starts_with(place));
        jobs.map(OsString::from).collect::<Vec<_>>()
    };
    let all = [names("primary"), names("backup")].concat();
    all.iter()
        .map(|name| Name::from(name.as_os_str()))
        .collect()
}

/// Waits until the phase of the only walk meets a condition.
fn wait(ahead: &Readahead, mut until: impl FnMut(&mut Phase) -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let mut walks = ahead.shared.walks.lock();
        let phase = &mut walks.front_mut().unwrap().phase;
        if until(phase) {
            return;
        }
        assert!(Instant::now() < deadline, "{phase:?}");
        drop(walks);
        std::thread::yield_now();
    }
}

#[test]
fn ordered_walk_is_read_ahead_to_end() {
    let top = tempfile::tempdir().unwrap();
    let view = view(top.path());
    let jobs = in_order(top.path());
    assert_eq!(jobs.len(), 2 * JOBS);
    let ahead = Readahead::default();
    ahead.start(&view).unwrap();
    let task: Name = Name::from(OsStr::new("t"));
    ahead.task_listed(1);
    ahead.job_listed(1, &task, &jobs[0]);
    for at in 1..jobs.len() {
        ahead.job_listed(1, &task, &jobs[at]);
        let next = &jobs[at + 1..];
        wait(&ahead, |phase| match phase {
            Phase::Followed(followed) if next.is_empty() => followed.coming.is_empty(),
            Phase::Followed(followed) => followed.coming.front() == next.first(),
            _ => false,
        });
    }
    ahead.task_listed(1);
    wait(&ahead, |phase| matches!(phase, Phase::Begun));
}

#[test]
fn unordered_walk_is_not_read_ahead() {
    let top = tempfile::tempdir().unwrap();
    let view = view(top.path());
    let jobs = in_order(top.path());
    let ahead = Readahead::default();
    ahead.start(&view).unwrap();
    let task: Name = Name::from(OsStr::new("t"));
    ahead.task_listed(1);
    ahead.job_listed(1, &task, &jobs[7]);
    ahead.job_listed(1, &task, &jobs[3]);
    wait(&ahead, |phase| matches!(phase, Phase::Unordered));
    ahead.job_listed(1, &task, &jobs[4]);
    wait(&ahead, |phase| matches!(phase, Phase::Unordered));
    ahead.task_listed(1);
    wait(&ahead, |phase| matches!(phase, Phase::Begun));
}

#[test]
fn moved_job_is_read_in_folder() {
    let top = tempfile::tempdir().unwrap();
    let view = view(top.path());
    let moved = top.path().join("backup/jobs/t/backup-0");
    let link = top.path().join("primary/jobs/t/backup-0");
    std::os::unix::fs::symlink(&moved, &link).unwrap();
    let source = view.task_sources(OsStr::new("t")).unwrap().remove(0);
    let job = |name: &str| Job {
        source: source.dir.clone(),
        task: Name::from(OsStr::new("t")),
        name: Name::from(OsStr::new(name)),
        kind: rustix::fs::FileType::Symlink,
    };
    job("backup-0").read(&view).unwrap();
    std::fs::remove_dir_all(&moved).unwrap();
    // Led nowhere, and nowhere else.
    let _ = job("backup-0").read(&view);
    std::os::unix::fs::symlink("/", &moved).unwrap();
    assert!(job("backup-0").read(&view).is_err());
}
